"""A swarm of one size and budget: the commands that ask for no other."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from law_tables import grid, table_of, transfer_losses

Command = Callable[..., int]


def test_optimize_without_a_size_warns_of_nothing(
    tmp_path: Path, mixlaw: Command, capfd: pytest.CaptureFixture
) -> None:
    table_of(transfer_losses(grid(sizes=1, mixtures=10), noise=0.003)).save(tmp_path / "table")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = ("--table", tmp_path / "table", "--law", "log_linear", "--no-held-out")
        assert mixlaw("fit", *fitted, "--out", tmp_path / "fit.json") == 0
        assert mixlaw("optimize", tmp_path / "fit.json", "--near-optimal") == 0
    said = capfd.readouterr()
    assert "predicted mean loss" in said.out
    assert "Warning" not in said.err
