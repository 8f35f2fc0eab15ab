"""`olmo-mixlaw fit`, and mistakes that all commands over a table refuse alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from law_tables import moe_design, scored_study, table_of

Command = Callable[..., int]


def test_a_fit_is_printed_saved_and_drawn(
    folder: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    saved, drawn = folder / "f.json", folder / "f.png"
    where = ("--table", folder / "table", "--out", saved, "--figure", drawn)
    assert mixlaw("fit", *where, "--law", "transfer", "--bootstrap", 10) == 0
    shown = capsys.readouterr().out
    assert "transfer: " in shown
    assert "held-out error" in shown
    assert saved.is_file()
    assert drawn.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "--table", "no.csv"], "no.csv: no such file"),
        (["fit", "--table", "TABLE", "--law", "tranfser"], "did you mean 'transfer'"),
        (["fit", "--table", "TABLE", "--rho", "0.5"], "--rho: needs --capacity effective"),
        (["fit", "--table", "TABLE", "--bootstrap", "9"], "an interval needs 10 refits or more"),
        (["fit"], "--table, or --ratios with --metrics"),
        (["optimize", "no.json"], "no.json: no such file"),
        (["compare", "--table", "TABLE", "--laws", "transfer,nope"], "--laws: unknown law 'nope'"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    folder: Path,
    mixlaw: Command,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(folder)
    assert mixlaw(*(folder / "table" if a == "TABLE" else a for a in arguments)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_benchmark_is_fitted_and_maximised(
    tmp_path: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    scored_study().save(tmp_path / "table")
    saved, scores = tmp_path / "f.json", tmp_path / "scores.json"
    where = ("--table", tmp_path / "table", "--out", saved, "--benchmark", scores)
    assert mixlaw("fit", *where, "--chance", "quiz=.25", "--chance", "coding=.25") == 0
    assert "points of score off where the largest size was held out" in capsys.readouterr().out
    how = ("--n-params", 1e8, "--n-tokens", 1e9, "--benchmark", scores)
    assert mixlaw("optimize", saved, *how, "--task-weight", "coding=1") == 0
    assert "predicted mean score" in capsys.readouterr().out
    assert mixlaw("optimize", saved, *how, "--task-weight", "cooking=1") == 2
    assert "did you mean 'coding'" in capsys.readouterr().err


def test_sparse_models_are_fitted_by_their_effective_size(
    tmp_path: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    active = np.repeat(moe_design().n_active[:, None], 4, 1).ravel()
    table, saved = tmp_path / "runs.csv", tmp_path / "f.json"
    table_of(moe_design()).losses.assign(n_active=active).to_csv(table, index=False)
    assert mixlaw("fit", "--table", table, "--capacity", "effective", "--out", saved) == 0
    assert "rho" in capsys.readouterr().out
    where = ("--n-params", 1e9, "--n-tokens", 1e9)
    assert mixlaw("optimize", saved, *where, "--n-active", 1e8) == 0
    capsys.readouterr()
    assert mixlaw("optimize", saved, *where) == 2
    assert "capacity is effective: n_active is needed" in capsys.readouterr().err
