"""Which metric is a task's score: the one that its evaluator calls so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from law_tables import scored_study

from olmo_mixlaw.advice.score_table import read_scores
from olmo_mixlaw.errors import DataError

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
