"""A small table of runs, and the command line as a user calls it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from law_tables import grid, table_of, transfer_losses

from olmo_mixlaw.cli.app import app, run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with 24 runs of the transfer law in `table`."""
    table_of(transfer_losses(grid(sizes=3, mixtures=8), noise=0.003)).save(tmp_path / "table")
    return tmp_path


@pytest.fixture
def mixlaw() -> Callable[..., int]:
    """Runs `olmo-mixlaw` with its arguments, paths and numbers too; returns the exit code."""
    return lambda *arguments: run(app, [str(argument) for argument in arguments])


@pytest.fixture
def fitted(folder: Path, mixlaw: Callable[..., int], capsys: pytest.CaptureFixture) -> Path:
    """A saved fit of that table; what `fit` printed is read already."""
    assert mixlaw("fit", "--table", folder / "table", "--out", folder / "fit.json") == 0
    capsys.readouterr()
    return folder / "fit.json"
