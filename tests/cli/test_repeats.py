"""Runs that repeat their sources, on the command line: `fit`, `predict` and `optimize`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from law_tables import grid, table_of, transfer_losses

from olmo_mixlaw.laws import Fit
from olmo_mixlaw.laws.repetition import Repetition

Command = Callable[..., int]
HERE = ("--n-params", 4e7, "--n-tokens", 2e9)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A table of runs of which some repeat `code`, and what each had of it."""
    design = grid(sizes=2, mixtures=8, budgets=2, domains=2)
    few = np.where(np.arange(len(design)) % 3 == 0, 3e7, 1e10)
    design = replace(design, available=np.c_[np.full(len(design), 1e12), few])
    fresh = transfer_losses(Repetition(worth=6.0).applied(design), noise=0.001)
    frame = table_of(replace(design, losses=fresh.losses)).losses
    row = frame["run_id"].map({run: i for i, run in enumerate(design.run_ids)})
    frame.assign(available_web=np.nan, available_code=few[row]).to_csv(
        tmp_path / "runs.csv", index=False
    )
    return tmp_path / "runs.csv"


def test_a_fit_says_what_repeats_are_worth_and_answers_for_several_targets(
    runs: Path, tmp_path: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    out, answers = tmp_path / "fit.json", tmp_path / "answers.csv"
    assert mixlaw("fit", "--table", runs, "--out", out, "--no-held-out") == 0
    assert "repeats: in the end worth" in capsys.readouterr().out
    found = Fit.load(out).repetition
    assert found is not None
    assert found.worth == pytest.approx(6.0, rel=0.3)
    query = pd.read_csv(runs).drop(columns="loss")
    query.to_csv(tmp_path / "query.csv", index=False)
    assert mixlaw("predict", out, "--query", tmp_path / "query.csv", "--out", answers) == 0
    known = pd.read_csv(answers)["loss"]
    np.testing.assert_allclose(known, pd.read_csv(runs)["loss"], rtol=0.02)
    both = ("--query", tmp_path / "query.csv", "--available", "code=30M")
    assert mixlaw("predict", out, *both) == 2
    assert "says what domains have" in capsys.readouterr().err
    bare = query.drop(columns=["available_web", "available_code"])
    bare.to_csv(tmp_path / "query.csv", index=False)
    losses = []
    for given in ((), ("--available", "code=30M")):
        where = ("--query", tmp_path / "query.csv", "--out", answers)
        assert mixlaw("predict", out, *where, *given) == 0
        losses.append(pd.read_csv(answers)["loss"])
    assert (losses[1] >= losses[0]).all()
    assert losses[1].mean() > losses[0].mean() + 0.01


def test_the_worth_of_repeats_can_be_given(
    runs: Path, tmp_path: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "fit.json"
    assert mixlaw("fit", "--table", runs, "--repeats", 4, "--out", out, "--no-held-out") == 0
    assert "worth 4 passes of fresh text (given)" in capsys.readouterr().out


def test_an_optimum_repeats_as_far_as_it_is_worth(
    fitted: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    shares = []
    for given in ((), ("--available", "code=20M"), ("--available", "code=20M", "--max-epochs", 2)):
        assert (
            mixlaw("optimize", fitted, "--n-params", 4e7, "--n-tokens", 1e9, *given, "--json") == 0
        )
        answer = json.loads(capsys.readouterr().out)
        shares.append(answer["mixture"]["code"])
    assert shares[0] > shares[1] > 2 * 0.02 > shares[2] - 1e-6
    assert answer["epochs"] == {"code": pytest.approx(2.0, rel=1e-3)}
    assert any("no run of the table repeats" in note for note in answer["warnings"])


def test_a_table_without_columns_is_told_what_its_runs_had(
    folder: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    out = folder / "told.json"
    told = ("--available", "web=1e12", "--available", "code=1e12")
    assert mixlaw("fit", "--table", folder / "table", *told, "--out", out, "--no-held-out") == 0
    assert "no run sees a domain more than once" in capsys.readouterr().out
    again = ("--bootstrap", 10, "--table", folder / "table")
    assert mixlaw("optimize", out, "--n-params", 4e7, "--n-tokens", 1e9, *again) == 0


def test_what_contradicts_itself_is_refused(
    runs: Path, fitted: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    cases = [
        (("fit", "--table", runs, "--available", "code=1e9"), "--available: the table says"),
        (("fit", "--table", runs, "--repeats", -1), "repeats: must be positive"),
        (("optimize", fitted, *HERE, "--max-epochs", 3), "--max-epochs: needs --available"),
        (("fit", "--table", fitted.parent / "table", "--available", "cod=1e9"), "no domain 'cod'"),
    ]
    for arguments, message in cases:
        assert mixlaw(*arguments) == 2
        assert message in capsys.readouterr().err
