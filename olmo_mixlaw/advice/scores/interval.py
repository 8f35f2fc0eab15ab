"""How wide an interval of a score must be, as measured on runs that were held out.

What is known of a score's error (the losses' own errors through the curve, the curve's parameters,
the spread about it and the answers' number) makes a standard deviation. Held-out runs say by
which factor it is too small: inside the table, and beyond it, where the form of the law errs too
and more so the further one goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import norm

from olmo_mixlaw.advice.score_table import ScoreTable
from olmo_mixlaw.advice.scores.inputs import joint_design
from olmo_mixlaw.advice.scores.routes import Held, curves_of
from olmo_mixlaw.laws.choice.holdout import make_splits

# The share of held-out scores whose interval the factors are set by.
LEVEL = 0.9
LEAST_FACTOR, MOST_FACTOR = 0.7, 10.0
# Fewer held-out scores say nothing of a factor.
LEAST_HELD = 10


@dataclass(frozen=True)
class Calibration:
    """Factors of the standard deviation: `inside` the table's sizes, and `beyond` by log N / N_max.

    `beyond` was measured at `reach` = log(N / N_max); a table without a larger size held out has
    reach 0, and there the factor stays that inside.
    """

    inside: float = 1.0
    beyond: float = 1.0
    reach: float = 0.0
    largest: float = float("nan")

    def factor(self, n_params: Any, rows: int) -> np.ndarray:
        """The factor (R,) at sizes N: its square grows with the square of the reach."""
        n = np.broadcast_to(np.asarray(n_params, float), (rows,))
        if self.reach <= 0 or not np.isfinite(self.largest):
            return np.full(rows, self.inside)
        far = np.nan_to_num(np.maximum(np.log(n / self.largest), 0.0)) / self.reach
        more = self.beyond**2 - self.inside**2
        far = far if more > 0 else np.minimum(far, 1.0)
        return np.asarray(np.sqrt(self.inside**2 + more * far**2))


def measured_factor(held: Held, routes: dict[str, str]) -> float:
    """By which factor the chosen routes' spreads must grow to hold `LEVEL` of the held scores."""
    off = []
    for task, route in routes.items():
        q = held.tasks.index(task)
        off.append((held.guess[route][:, q] - held.score[:, q]) / held.spread[route][:, q])
    return _factor(off)


def factor_of_curves(read: ScoreTable, routes: dict[str, str], seed: int) -> float:
    """The factor inside the table: a fifth of the mixtures held out, their losses as measured.

    The losses' own errors are the law's, whose half width was measured by itself; a task that is
    predicted directly has no curve and no part in this.
    """
    joint, off = joint_design(read), []
    for part in make_splits(read.design, ("held_mixtures",), seed=seed):
        train, test = read.take(part.train), read.take(part.test)
        losses = joint.losses[part.test]
        for route in set(routes.values()) - {"mixture"}:
            some = np.array([routes.get(task) == route for task in train.tasks])
            law = curves_of(route, train.of_tasks(some), seed)
            counted = law.inputs
            seen = losses[:, [joint.targets.index(n) for n in counted]]
            columns = [read.tasks.index(task) for task in law.tasks]
            whole = np.isfinite(seen) | ~(law.weights > 0).any(0)
            rows, filled = whole.all(1), np.nan_to_num(seen)
            ratio = (law(filled)[0] - test.score[:, columns]) / law.spread(filled)
            off.append(ratio[rows].ravel())
    return _factor(off)


def _factor(off: Sequence[np.ndarray]) -> float:
    """The factor that makes `LEVEL` of errors, in their standard deviations, lie inside."""
    found = np.abs(np.concatenate(off)) if len(off) else np.empty(0)
    found = found[np.isfinite(found)]
    if len(found) < LEAST_HELD:
        return 1.0
    wide = float(np.quantile(found, LEVEL)) / float(norm.ppf((1 + LEVEL) / 2))
    return float(np.clip(wide, LEAST_FACTOR, MOST_FACTOR))
