"""What `optimize` minimises: the options that name a fit, a benchmark, a goal file and weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pandas as pd

from olmo_mixlaw.cli.options import loaded, pairs
from olmo_mixlaw.errors import ConfigError, complain

if TYPE_CHECKING:
    from olmo_mixlaw.advice import Optimum
    from olmo_mixlaw.advice.families import Families, Members
    from olmo_mixlaw.advice.goal import Goal
    from olmo_mixlaw.advice.scores import Scores
    from olmo_mixlaw.laws.fitted import Fit


@dataclass(frozen=True)
class Objective:
    """A fit and what is sought of it: a benchmark's `goal`, or losses by `target_weights`.

    `members` are the families of a goal file, and `weights` those of their tasks.
    """

    fit: Fit
    goal: Goal | None = None
    target_weights: dict[str, float] | None = None
    members: Members | None = None
    weights: dict[str, float] | None = None

    def by_family(self, best: Optimum) -> pd.DataFrame | None:
        """A row a family: its weight, and its mean loss or score at the optimum."""
        if self.members is None or self.weights is None:
            return None
        at = best.scores or dict(zip(best.targets, map(float, best.losses), strict=True))
        rows = []
        for name, tasks in self.members.shares.items():
            own = {task: self.weights[task] for task in tasks if task in self.weights}
            if total := sum(own.values()):
                mean = sum(w * at[task] for task, w in own.items()) / total
                rows.append({"family": name, "weight": total, "value": mean})
        return pd.DataFrame(rows)


def objective_of(
    fit_path: str | None,
    benchmark: str | None,
    goal_file: str | None,
    target_weight: tuple[str, ...],
    task_weight: tuple[str, ...],
    level: bool,
) -> Objective:
    """The objective that the options of `optimize` name. Raises `ConfigError`, `DataError`."""
    if task_weight and not benchmark:
        raise ConfigError("--task-weight: needs --benchmark")
    if goal_file and (target_weight or task_weight):
        raise ConfigError("--goal: says every weight; leave out --target-weight and --task-weight")
    if not fit_path and not benchmark:
        raise ConfigError("FIT: is needed, or a --benchmark, whose own fit is taken then")
    from olmo_mixlaw.advice.families import Families
    from olmo_mixlaw.advice.scores import Scores

    scores = Scores.load(benchmark) if benchmark else None
    if fit_path:
        fitted = loaded(fit_path, level)
    else:
        assert scores is not None
        fitted = scores.fit if level else replace(scores.fit, level=None)
    fitted = scores.fit_below(fitted) if scores else fitted
    targets = pairs(target_weight, "--target-weight") or None
    weights = pairs(task_weight, "--task-weight") or None
    members = None
    if goal_file:
        members, weights = weighed(Families.load(goal_file), scores, fitted.targets)
    if scores is None:
        return Objective(fitted, None, weights if goal_file else targets, members, weights)
    goal = scores.goal(fitted, weights)
    return Objective(fitted, goal, targets, members, weights)


def weighed(
    families: Families, scores: Scores | None, targets: list[str]
) -> tuple[Members, dict[str, float]]:
    """A goal file's families among a benchmark's tasks or a fit's targets, and all weights.

    What the file names and nothing has, and families that can't be predicted, are said on standard
    error. Raises `ConfigError`.
    """
    known = scores.law.tasks if scores else targets
    every = [*known, *scores.dropped, *scores.unpredictable] if scores else targets
    members = families.among(every)
    for note in members.notes:
        complain(note)
    for name in members.lost(known):
        complain(f"{families.source}: {name}: none of its tasks can be predicted, left out")
    return members, members.task_weights(known)
