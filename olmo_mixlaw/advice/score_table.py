"""The scores of a table beside its losses, a column a task, and which tasks say nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from olmo_mixlaw.advice.curve import chance_floors
from olmo_mixlaw.errors import DataError
from olmo_mixlaw.runs import Design, RunTable
from olmo_mixlaw.runs.score_metrics import LOSS_METRICS as LOSSES
from olmo_mixlaw.runs.score_metrics import PRIMARY_SCORE as PRIMARY
from olmo_mixlaw.runs.score_metrics import SCORE_METRICS as SCORES
from olmo_mixlaw.runs.score_metrics import primary_metrics

# Words in the names of metrics that are no scores.
LOSS_WORDS = ("loss", "bits", "bpb", "perplexity", "logits")
# A task is at chance where no smaller model is above it by this many standard errors.
CHANCE_ERRORS = 2.0
# A score without a number of instances counts as if it had these.
INSTANCES = 500


@dataclass(frozen=True)
class ScoreTable:
    """Scores (R, Q) with standard errors, and losses of tasks, in a design's order.

    `loss` (R, L) are those of `loss_tasks`, scored or not, NaN where a run has none; None where no
    task has a loss.
    """

    design: Design
    tasks: list[str]
    floors: np.ndarray
    score: np.ndarray
    error: np.ndarray
    loss: np.ndarray | None
    loss_tasks: list[str] = field(default_factory=list)

    def take(self, rows: np.ndarray) -> ScoreTable:
        loss = None if self.loss is None else self.loss[rows]
        return replace(
            self,
            design=self.design.take(rows),
            score=self.score[rows],
            error=self.error[rows],
            loss=loss,
        )

    def of_tasks(self, keep: np.ndarray) -> ScoreTable:
        tasks = [t for t, k in zip(self.tasks, keep, strict=True) if k]
        return replace(
            self,
            tasks=tasks,
            floors=self.floors[keep],
            score=self.score[:, keep],
            error=self.error[:, keep],
        )


def read_scores(table: RunTable, chance: Mapping[str, float] | None) -> ScoreTable:
    """The scores of a table by task, above the floors that `chance` says for starts of their names.

    Raises `DataError` for a table without scores, and where nobody says which of several shares is
    a task's score.
    """
    frame, design = table.scores, table.design()
    if frame.empty:
        raise DataError(f"{table.source}: the table has no scores beside its losses")
    frame = frame[frame["run_id"].astype(str).isin(design.run_ids)]
    columns: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    losses = {}
    named, undecided = primary_metrics(frame), {}
    for task, rows in frame.groupby("task", sort=False):
        by_metric = {
            m: part.assign(run_id=part["run_id"].astype(str)).set_index("run_id")
            for m, part in rows.groupby("metric")
        }
        own = next((m for m in LOSSES if m in by_metric), None)
        if own is not None:
            loss = by_metric[own].reindex(design.run_ids)["value"].to_numpy(float)
            if (np.nan_to_num(loss, nan=1.0) > 0).all() and np.isfinite(loss).any():
                losses[str(task)] = loss
        found = _scores_of(by_metric, named.get(str(task), ""))
        if len(found) > 1:
            undecided[str(task)] = found
        if len(found) != 1:
            continue
        metric = found[0]
        part = by_metric[metric].reindex(design.run_ids)
        value = part["value"].to_numpy(float)
        if (value < 0).any() or (value > 1).any():
            raise DataError(
                f"{table.source} (scores): task {task!r}: {metric} is not within 0 to 1"
            )
        columns[str(task)] = value, _binomial_error(value, part["n_instances"].to_numpy(float))
    if undecided:
        _ask(undecided, table.scores_source)
    if not columns:
        have = ", ".join(sorted(set(frame["metric"].astype(str)))) or "none"
        raise DataError(
            f"{table.source} (scores): no task has a metric that is a score "
            f"({', '.join((PRIMARY, *SCORES))}; found: {have})"
        )
    tasks = list(columns)
    return ScoreTable(
        design,
        tasks,
        chance_floors(tasks, chance),
        np.stack([columns[t][0] for t in tasks], 1),
        np.stack([columns[t][1] for t in tasks], 1),
        np.stack(list(losses.values()), 1) if losses else None,
        list(losses),
    )


def _scores_of(by_metric: Mapping[str, pd.DataFrame], named: str) -> list[str]:
    """The metrics that may be a task's score: the one its evaluator calls so, else every share.

    `primary_score` repeats the metric that it stands for; where that is a loss, the task has none.
    """
    if named:
        loss = any(word in named for word in LOSS_WORDS)
        return [] if loss else [named if named in by_metric else PRIMARY]
    if PRIMARY not in by_metric:
        return [m for m in SCORES if m in by_metric]
    said = by_metric[PRIMARY]["value"]
    for metric, part in by_metric.items():
        same = part["value"].reindex(said.index)
        if any(word in metric for word in LOSS_WORDS) and np.allclose(same, said, equal_nan=True):
            return []
    return [PRIMARY]


def _ask(undecided: Mapping[str, list[str]], where: str) -> None:
    """Raise `DataError` for tasks of several scores: which counts depends on the task."""
    task, found = next(iter(undecided.items()))
    more = f" and {len(undecided) - 1} more" if len(undecided) > 1 else ""
    raise DataError(
        f"{where}: task {task!r}{more}: which metric is the score ({' or '.join(found)})? Name it "
        "in a column 'primary', or leave the others out"
    )


def _binomial_error(value: np.ndarray, instances: np.ndarray) -> np.ndarray:
    """sqrt(p (1 - p) / n), with two successes and failures added so that 0 and 1 have one too."""
    n = np.where(np.isfinite(instances), instances, INSTANCES)
    p = (value * n + 2) / (n + 4)
    return np.sqrt(p * (1 - p) / n)


def learnt(read: ScoreTable) -> tuple[np.ndarray, dict[str, str]]:
    """Tasks (Q,) that some smaller model does better than chance, and why the others don't."""
    n = read.design.n_params
    small = n < np.nanmax(n) * 0.999 if np.isfinite(n).any() else np.ones(len(n), bool)
    small = small if small.any() else np.ones(len(n), bool)
    above = read.score - read.floors > CHANCE_ERRORS * read.error
    kept = above[small].any(0)
    dropped = {
        task: f"no smaller model is above chance ({floor:.3g}) by {CHANCE_ERRORS:g} standard errors"
        for task, floor, good in zip(read.tasks, read.floors, kept, strict=True)
        if not good
    }
    return kept, dropped
