"""Which metric is a task's score: the one that its evaluator calls so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from law_tables import scored_study

from olmo_mixlaw.advice.score_table import read_scores
from olmo_mixlaw.errors import DataError
from olmo_mixlaw.runs import RunTable

CHANCE = {"quiz": 0.25, "coding": 0.25}


def with_metric(name: str, change=lambda v: v, drop: bool = False):
    table = scored_study()
    more = table.scores.assign(metric=name, value=change(table.scores["value"]))
    return replace(table, scores=more if drop else pd.concat([more, table.scores]))


def test_the_evaluators_own_score_goes_before_the_first_of_a_list() -> None:
    table = with_metric("acc_per_char", lambda v: 1 - v)  # first in the list, and upside down
    primary = table.scores[table.scores["metric"] == "acc_raw"].assign(metric="primary_score")
    read = read_scores(replace(table, scores=pd.concat([table.scores, primary])), CHANCE)
    np.testing.assert_allclose(read.score, read_scores(scored_study(), CHANCE).score)


def test_a_table_with_the_primary_score_alone_is_read() -> None:
    read = read_scores(with_metric("primary_score", drop=True), CHANCE)
    np.testing.assert_allclose(read.score, read_scores(scored_study(), CHANCE).score)


def test_a_primary_score_that_is_a_loss_is_no_score() -> None:
    table = with_metric("primary_score", lambda v: 1 - v, drop=True)
    bits = table.scores.assign(metric="bits_per_byte")
    with pytest.raises(DataError, match="no task has a metric that is a score"):
        read_scores(replace(table, scores=pd.concat([table.scores, bits])), CHANCE)


def several(*names: str, primary: str | None = None):
    """The study with its score under each of `names`: all but the first turned upside down."""
    table = scored_study()
    parts = [
        table.scores.assign(
            metric=m, value=1 - table.scores["value"] if i else table.scores["value"]
        )
        for i, m in enumerate(names)
    ]
    scores = pd.concat(parts, ignore_index=True)
    return scores if primary is None else scores.assign(primary=primary)


@pytest.mark.parametrize("name", ["acc", "acc_norm", "exact_match"])
def test_the_only_share_of_a_task_is_its_score(name: str) -> None:
    read = read_scores(replace(scored_study(), scores=several(name)), CHANCE)
    np.testing.assert_allclose(read.score, read_scores(scored_study(), CHANCE).score)


def test_of_several_shares_none_is_taken_in_silence() -> None:
    table = replace(scored_study(), scores=several("acc_norm", "acc"), scores_source="s.csv")
    message = r"^s\.csv: task 'quiz' and 1 more: which metric is the score \(acc or acc_norm\)"
    with pytest.raises(DataError, match=message):
        read_scores(table, CHANCE)


def test_the_metric_that_a_column_names_is_the_score(tmp_path) -> None:
    expected = read_scores(scored_study(), CHANCE).score
    for names in (("acc", "acc_norm"), ("acc_norm", "acc"), ("f1", "acc")):
        table = replace(scored_study(), scores=several(*names, primary=names[0]))
        again = RunTable.load(table.save(tmp_path / names[0]))
        for one in (table, again):
            np.testing.assert_allclose(read_scores(one, CHANCE).score, expected)
    loss = replace(scored_study(), scores=several("loss", "acc", primary="loss"))
    with pytest.raises(DataError, match="no task has a metric that is a score"):
        read_scores(loss, CHANCE)


def test_what_a_reader_of_scores_knew_is_kept(tmp_path) -> None:
    scores = several("acc", "acc_norm")
    scores.attrs["primary"] = {"quiz": "acc", "coding": "acc", "other": "f1"}
    table = replace(scored_study(), scores=scores)
    again = RunTable.load(table.save(tmp_path))
    for one in (table, again):
        read = read_scores(one, CHANCE)
        np.testing.assert_allclose(read.score, read_scores(scored_study(), CHANCE).score)
    scores.attrs["primary"] = {"quiz": "acc", "coding": "f1"}
    with pytest.raises(DataError, match="task 'coding': which metric is the score"):
        read_scores(replace(scored_study(), scores=scores), CHANCE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({3: "acc_nrom"}, r"line 5, column 'primary': 'acc_nrom': is no metric of this task"),
        ({3: "acc_norm"}, r"line 5, column 'primary': 'acc_norm': the rows of a task differ"),
        ({3: 0.5}, r"line 5, column 'primary': 0\.5: is no metric of this task"),
    ],
)
def test_a_primary_metric_that_cannot_be_is_named(change: dict, message: str) -> None:
    scores = several("acc", "acc_norm", primary="acc").astype({"primary": object})
    scores.loc[5, "primary"] = ""  # says nothing
    for row, value in change.items():
        scores.loc[row, "primary"] = value
    with pytest.raises(DataError, match=message):
        replace(scored_study(), scores=scores)
