"""Threshold popularity: how often a fact must occur for a model to know it, and what that says.

Items are walked from the most popular down; where the accuracy over all items at least this
popular has fallen below a level several times, the threshold is reached (arXiv 2505.18091,
algorithm 1). It falls with size as N^-(alpha + 1), so a model's threshold tells its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from olmo_mixlaw.errors import DataError

TARGET = 0.6
FAILURES = 5
# Accuracy over fewer items than this is chance; no failures are counted before.
LEAST_ITEMS = 50
_LEAST_MODELS = 3


@dataclass(frozen=True)
class Threshold:
    """The least popularity that is still known; NaN, with the reason, where there is none."""

    popularity: float
    items: int
    accuracy: float
    verdict: str = ""


def threshold_popularity(
    popularity: Sequence[float] | np.ndarray,
    correct: Sequence[float] | np.ndarray,
    target: float = TARGET,
    failures: int = FAILURES,
    least_items: int = LEAST_ITEMS,
) -> Threshold:
    """The threshold of items (I,) with their `popularity` (counts) and whether they are `correct`.

    Raises `DataError` for missing counts, and for scores outside 0 to 1.
    """
    x, y = np.asarray(popularity, float), np.asarray(correct, float)
    if x.shape != y.shape or not len(x):
        raise DataError(f"popularity: {len(x)} popularities for {len(y)} answers; give one each")
    if not np.isfinite(x).all():
        raise DataError(
            f"popularity: {int((~np.isfinite(x)).sum())} of {len(x)} items have no count; add how "
            "often each occurs (counts in the text, or page views)"
        )
    if not ((y >= 0) & (y <= 1)).all():
        raise DataError("popularity: correct is within 0 to 1 (a part of 1)")
    levels = np.unique(x)[::-1]
    if len(levels) == 1:
        return Threshold(
            np.nan,
            len(x),
            float(y.mean()),
            "ties only: all items are equally popular; add items of other popularities",
        )
    order = np.argsort(-x, kind="stable")
    seen = np.searchsorted(-x[order], -levels, side="right")
    accuracy = np.cumsum(y[order])[seen - 1] / seen
    fails = (accuracy < target) & (seen >= min(least_items, len(x)))
    count = np.cumsum(fails)
    if count[-1] < failures:
        if accuracy[-1] >= target:
            why = (
                "never crosses: the rarest items leave the accuracy above the level; add rarer ones"
            )
        else:
            why = f"never crosses for good: {count[-1]} levels below the target; add rarer items"
        return Threshold(np.nan, len(x), float(accuracy[-1]), why)
    at = int(np.searchsorted(count, failures))
    if not ((accuracy >= target) & (seen >= least_items))[:at].any():
        why = "below the level from the start: the threshold is above every item; add popular ones"
        return Threshold(np.nan, int(seen[at]), float(accuracy[at]), why)
    return Threshold(float(levels[at]), int(seen[at]), float(accuracy[at]))


@dataclass(frozen=True)
class SizeEstimate:
    """A model's size from its threshold, with a 90 % interval, and the slope it rests on."""

    n_params: float
    low: float
    high: float
    slope: float


def size_from_threshold(
    n_params: Sequence[float] | np.ndarray,
    thresholds: Sequence[float] | np.ndarray,
    threshold: float,
) -> SizeEstimate:
    """The size of a model of this `threshold`, from models (R,) whose sizes are known.

    log threshold = c + slope log N, inverted with its prediction interval. Raises `DataError` for
    fewer than three models or a threshold that doesn't fall with size.
    """
    n, f = np.asarray(n_params, float), np.asarray(thresholds, float)
    good = np.isfinite(f) & (f > 0) & np.isfinite(n) & (n > 0)
    if len(np.unique(n[good])) < _LEAST_MODELS:
        raise DataError(
            f"size from threshold: {len(np.unique(n[good]))} sizes with a threshold; add known "
            f"models, to {_LEAST_MODELS} sizes or more"
        )
    if not 0 < threshold < np.inf:
        raise DataError(
            "size from threshold: the model has no threshold; add popular or rare items"
        )
    x, y = np.log(n[good]), np.log(f[good])
    slope, middle = np.polyfit(x - x.mean(), y, 1)
    if slope >= 0:
        raise DataError(
            "size from threshold: thresholds don't fall with size; add models further apart in size"
        )
    free = len(x) - 2
    error = np.sqrt(((y - middle - slope * (x - x.mean())) ** 2).sum() / max(free, 1))
    at = (np.log(threshold) - middle) / slope
    wide = stats.t.ppf(0.95, max(free, 1)) * error / abs(slope)
    wide *= np.sqrt(1 + 1 / len(x) + at**2 / ((x - x.mean()) ** 2).sum())
    middle_n = x.mean() + at
    low, best, high = np.exp([middle_n - wide, middle_n, middle_n + wide])
    return SizeEstimate(float(best), float(low), float(high), float(slope))
