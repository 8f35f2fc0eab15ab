"""Scores without a mixture: constant at each size, or a power of compute. The floor to beat.

compute: -log((acc - lo) / (1 - lo)) = A C^-b, where runs lie on a line of (N, D)
(arXiv 2512.08894).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from olmo_mixlaw.advice.score_table import ScoreTable
from olmo_mixlaw.advice.scores.inputs import LEAST_ABOVE, MOST_ABOVE, above_chance

# Sizes nearer than this factor are one size.
SAME_SIZE = 1.15
# Budgets on a line of sizes lie within this part (of the log) of it.
ON_LINE = 0.1


@dataclass(frozen=True)
class SizeLaw:
    """Scores of Q tasks by size alone.

    `sizes` (S,) and `means` (S, Q) are the mean scores of each size; beyond them, `line` (2, Q) is
    the log odds above chance at log N = 0 and their slope. `power` (2, Q) is log A and -b by
    log C, or None where runs don't lie on a line.
    """

    tasks: list[str]
    floors: np.ndarray
    sizes: np.ndarray
    means: np.ndarray
    line: np.ndarray
    power: np.ndarray | None

    def constant(self, n_params: Any) -> np.ndarray:
        """Scores (R, Q): the mean of a size that was run, else on the line through the means."""
        n = np.atleast_1d(np.asarray(n_params, float))
        if len(self.sizes) < 2:
            return np.repeat(self.means, len(n), axis=0)
        apart = np.abs(np.log(n[:, None] / self.sizes))
        near = self.means[apart.argmin(1)]
        seen = apart.min(1) < np.log(SAME_SIZE)
        odds = np.clip(self.line[0] + self.line[1] * np.log(n)[:, None], -60, 60)
        far = self.floors + (1 - self.floors) / (1 + np.exp(-odds))
        return np.where(seen[:, None], near, far)

    def compute(self, n_params: Any, n_tokens: Any) -> np.ndarray | None:
        """Scores (R, Q) by the power law of compute; None where runs lie on no line."""
        if self.power is None:
            return None
        n, d = np.broadcast_arrays(np.atleast_1d(n_params), np.atleast_1d(n_tokens))
        exponent = self.power[0] + self.power[1] * log_compute(n, d)[:, None]
        return np.asarray(
            self.floors + (1 - self.floors) * np.exp(-np.exp(np.clip(exponent, -60, 5)))
        )


def fit_by_size(read: ScoreTable) -> SizeLaw:
    """Means and lines of a table's scores."""
    n, d = read.design.n_params, read.design.n_tokens
    group = size_groups(n)
    sizes = np.array([np.exp(np.log(n[group == g]).mean()) for g in range(group.max() + 1)])
    means = np.stack([mean_of_known(read.score[group == g]) for g in range(group.max() + 1)])
    part = np.clip((means - read.floors) / (1 - read.floors), LEAST_ABOVE, MOST_ABOVE)
    line = np.zeros((2, len(read.tasks)))
    if len(sizes) > 1:
        line = _lines(np.log(sizes), np.log(part / (1 - part)))
    power = None
    if len(sizes) > 1 and _on_a_line(n, d):
        power = _lines(log_compute(n, d), np.log(-np.log(above_chance(read))))
        power[1] = np.minimum(power[1], 0.0)
    return SizeLaw(list(read.tasks), read.floors, sizes, means, line, power)


def log_compute(n: np.ndarray, d: np.ndarray) -> np.ndarray:
    """log(6 N D) (R,); of N alone where a table has no budgets."""
    return np.log(6 * n) + np.log(np.where(np.isfinite(d), d, 1.0))


def size_groups(n: np.ndarray) -> np.ndarray:
    """A number (R,) for each size, ascending; all one where sizes aren't known."""
    if not np.isfinite(n).all():
        return np.zeros(len(n), int)
    levels = np.unique(n)
    number = np.r_[0, np.cumsum(levels[1:] > SAME_SIZE * levels[:-1])]
    return np.asarray(number[np.searchsorted(levels, n)])


def _on_a_line(n: np.ndarray, d: np.ndarray) -> bool:
    """Whether budgets are one power of sizes, as at a fixed ratio of tokens to parameters."""
    if not np.isfinite(n).all():
        return False
    if not np.isfinite(d).all():
        return not np.isfinite(d).any()
    x = np.c_[np.ones(len(n)), np.log(n)]
    off = np.log(d) - x @ np.linalg.lstsq(x, np.log(d), rcond=None)[0]
    return bool(np.abs(off).max() < ON_LINE)


def _lines(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Least-squares intercepts and slopes (2, Q) of columns (R, Q) by x (R,), NaN left out."""
    found = np.zeros((2, y.shape[1]))
    for q in range(y.shape[1]):
        seen = np.isfinite(y[:, q])
        if seen.sum() > 1 and np.ptp(x[seen]) > 0:
            found[1, q], found[0, q] = np.polyfit(x[seen], y[seen, q], 1)
        elif seen.any():
            found[0, q] = y[seen, q].mean()
    return found


def mean_of_known(values: np.ndarray) -> np.ndarray:
    """Means of columns without NaN; NaN where all is."""
    known = np.isfinite(values)
    count = known.sum(0)
    total = np.where(known, values, 0.0).sum(0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
