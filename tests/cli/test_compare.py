"""`olmo-mixlaw compare`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest


def test_laws_are_compared_chosen_and_drawn(
    folder: Path, mixlaw: Callable[..., int], capsys: pytest.CaptureFixture
) -> None:
    written, drawn = folder / "c.csv", folder / "c.png"
    how = ("--laws", "no_mixture,transfer", "--folds", 3, "--out", written, "--figure", drawn)
    assert mixlaw("compare", "--table", folder / "table", *how) == 0
    assert "choice: transfer" in capsys.readouterr().out
    assert set(pd.read_csv(written)["law"]) == {"no_mixture", "transfer"}
    assert drawn.stat().st_size > 10_000


@pytest.mark.parametrize("capacity", ["sparse", "1.5", "nan"])
def test_a_capacity_is_total_active_or_a_rho(
    folder: Path, mixlaw: Callable[..., int], capsys: pytest.CaptureFixture, capacity: str
) -> None:
    how = ("--laws", "no_mixture", "--capacity", capacity)
    assert mixlaw("compare", "--table", folder / "table", *how) == 2
    assert "expected total, active or a rho" in capsys.readouterr().err
