"""Benchmark scores of runs that repeat their sources."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from law_tables import scored_study, table_of

from olmo_mixlaw.advice.scores import Scores, fit_scores
from olmo_mixlaw.cli.app import app, run
from olmo_mixlaw.laws.repetition import Repetition
from olmo_mixlaw.runs import RunTable
from olmo_mixlaw.runs.available import AVAILABLE

CHANCE = {"quiz": 0.25, "coding": 0.25}
TRUE = Repetition(worth=6.0, budgets_vary=False)
HAD = {"code": 3e7, "web": 1e12, "wiki": 1e12, "math": 1e12}


@pytest.fixture(scope="module")
def study() -> RunTable:
    """A study whose runs see `code` up to thirty times; the table doesn't say so."""
    table = scored_study(mixtures=6)
    design = table.design()
    had = np.tile([HAD[d] for d in design.domains], (len(design), 1))
    seen = replace(design, available=had)
    fresh, _ = TRUE.effective(design.ratios, design.n_tokens, had)
    own = fresh / design.ratios
    at = (design.ratios, design.n_params, design.n_tokens, had)
    losses = design.losses * own**-0.1 * TRUE.by_heart(*at)[0][:, None]
    return replace(table_of(replace(seen, losses=losses)), scores=table.scores)


@pytest.fixture(scope="module")
def given(study: RunTable) -> Scores:
    return fit_scores(study, chance=CHANCE, available=HAD, repeats=6.0)


@pytest.fixture(scope="module")
def plain(study: RunTable) -> Scores:
    return fit_scores(study, chance=CHANCE)


def test_tokens_that_domains_had_reach_the_fits_below(
    study: RunTable, given: Scores, plain: Scores
) -> None:
    found = given.fit.repetition
    assert found is not None
    assert found.is_fitted
    assert found.worth == pytest.approx(6.0, rel=1e-3)
    assert dict(zip(given.fit.domains, found.available, strict=True)) == HAD
    assert plain.fit.repetition is None
    ratios = study.design().ratios[:3]
    fewer = given.predict(ratios, 4e7, 1e9, available={"code": 1e6})
    assert (fewer < given.predict(ratios, 4e7, 1e9, available={})).all()
    np.testing.assert_array_equal(
        given.predict(ratios, 4e7, 1e9), given.predict(ratios, 4e7, 1e9, available=HAD)
    )


def test_columns_of_the_table_do_the_same_and_count_in_held_out_runs(
    study: RunTable, given: Scores, plain: Scores
) -> None:
    columns = {AVAILABLE + name: tokens for name, tokens in HAD.items()}
    table = replace(study, losses=study.losses.assign(**columns))
    assert fit_scores(table, chance=CHANCE, repeats=6.0).errors == pytest.approx(given.errors)
    assert given.errors["domains"] < plain.errors["domains"]


def test_the_command_passes_them_on(
    study: RunTable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    study.save(tmp_path / "table")
    had = [f"--available={name}={tokens:g}" for name, tokens in HAD.items()]
    out, scores = tmp_path / "fit.json", tmp_path / "scores.json"
    chance = [f"--chance={task}={floor}" for task, floor in CHANCE.items()]
    asked = [
        "fit",
        "--table",
        tmp_path / "table",
        "--law",
        "transfer",
        "--repeats",
        6,
        *had,
        *chance,
    ]
    asked += ["--no-held-out", "--no-level", "--out", out, "--benchmark", scores, "--json"]
    assert run(app, [str(word) for word in asked]) == 0
    assert json.loads(capsys.readouterr().out)["benchmark"]["saved"] == str(scores)
    found = Scores.load(scores).fit.repetition
    assert found is not None
    assert found.worth == pytest.approx(6.0, rel=1e-3)
    np.testing.assert_array_equal(
        found.available, [HAD[d] for d in Scores.load(scores).fit.domains]
    )
