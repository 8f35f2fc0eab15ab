"""`olmo-mixlaw optimize`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from law_tables import grid, table_of, transfer_losses

Command = Callable[..., int]


def test_the_best_mixture_keeps_its_bounds_and_says_how_far_it_reaches(
    folder: Path, fitted: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    out = folder / "best.yaml"
    where = ("--n-params", 1e10, "--n-tokens", 1e9)
    assert mixlaw("optimize", fitted, *where, "--at-most", "web=.1", "--out", out) == 0
    assert "caution: n_params 1e+10 is 62.5 times beyond" in capsys.readouterr().out
    assert yaml.safe_load(out.read_text())["mixture"]["ratios"]["web"] <= 0.1


def test_an_optimum_with_range_path_intervals_and_figure(
    folder: Path, fitted: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    path, drawn = ("--path", "1e7,1e9", "--path", "4e7,1e9"), folder / "best.png"
    refits = ("--bootstrap", 10, "--table", folder / "table")
    assert mixlaw("optimize", fitted, *path, "--near-optimal", *refits, "--figure", drawn) == 0
    shown = capsys.readouterr().out
    assert "as good from" in shown
    assert "90 % of optima from" in shown
    assert "along the path" in shown
    assert drawn.stat().st_size > 10_000


def test_another_table_than_the_fitted_is_refused(
    folder: Path, fitted: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    table_of(transfer_losses(grid(sizes=3, mixtures=7))).save(folder / "other")
    how = ("--n-params", 1e8, "--n-tokens", 1e9, "--bootstrap", 10)
    assert mixlaw("optimize", fitted, *how, "--table", folder / "other") == 2
    assert "the table is not the one that was fitted (21 runs" in capsys.readouterr().err
    assert mixlaw("optimize", fitted, *how) == 2
    assert "needs the table that was fitted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--at-most", "web"], "--at-most: expected NAME=NUMBER, found 'web'"),
        (["--path", "1e9"], "--path: expected N,D or N,D,ACTIVE such as 1e9,2e10, found '1e9'"),
        (["--task-weight", "quiz=1"], "--task-weight: needs --benchmark"),
        (["--tolerance", "0"], "--tolerance: must be positive, found 0"),
    ],
)
def test_mistakes_are_named(
    fitted: Path, mixlaw: Command, capsys: pytest.CaptureFixture, arguments: list[str], message: str
) -> None:
    assert mixlaw("optimize", fitted, *arguments) == 2
    assert message in capsys.readouterr().err
