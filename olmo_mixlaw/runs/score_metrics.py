"""Which metrics of a table's scores are shares and which are losses, and which is a task's own.

A task may have several shares (`acc` and `acc_norm`), and which of them is its score only its
evaluator can say: in a column `primary` that names a metric, or in the frame that a reader of an
evaluator's files made, whose `attrs["primary"]` maps tasks to metrics.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from olmo_mixlaw.runs.frames import refuse

# Metrics that are parts of 1, and those that are losses: the first that a task has is its own.
SCORE_METRICS = (
    *("accuracy", "acc", "acc_norm", "exact_match"),
    *("acc_per_char", "acc_raw", "acc_per_token", "acc_uncond"),
)
LOSS_METRICS = ("bpb", "bits_per_byte_corr", "answer_bits")
# What repeats the metric that an evaluator calls a task's score, and the column that names it.
PRIMARY_SCORE = "primary_score"
PRIMARY = "primary"


def with_primary(scores: pd.DataFrame, source: str) -> pd.DataFrame:
    """The scores with their column `primary` checked, or made of what their reader knew.

    Raises `DataError` for a name that is no metric of the task, and for two names of one task.
    """
    said = scores.attrs.get(PRIMARY)
    said = said if isinstance(said, Mapping) else {}
    if PRIMARY not in scores and not said:
        return scores
    metrics = scores.groupby("task")["metric"].agg(set)
    if PRIMARY not in scores:
        known = {t: m for t, m in said.items() if t in metrics and _is_known(m, metrics[t])}
        return scores.assign(**{PRIMARY: scores["task"].map(known)}) if known else scores
    named = _named(scores)
    strange = [not _is_known(m, metrics[t]) for t, m in named.itertuples(index=False)]
    refuse(named, PRIMARY, strange, source, "is no metric of this task")
    refuse(named, PRIMARY, named["task"].duplicated(), source, "the rows of a task differ")
    return scores


def _named(scores: pd.DataFrame) -> pd.DataFrame:
    """Every task with every name that the column `primary` has for it."""
    filled = scores[PRIMARY].fillna("").astype(str).str.strip() != ""
    return scores.loc[filled, ["task", PRIMARY]].drop_duplicates()


def _is_known(metric: str, metrics: set[str]) -> bool:
    return metric in metrics or PRIMARY_SCORE in metrics


def primary_metrics(scores: pd.DataFrame) -> dict[str, str]:
    """The metric that is a task's score, by task, of those whose evaluator says so."""
    if PRIMARY not in scores:
        return {}
    return {str(task): str(metric) for task, metric in _named(scores).itertuples(index=False)}
