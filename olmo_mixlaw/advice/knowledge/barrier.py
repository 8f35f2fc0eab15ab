"""What a cold start needs beyond the rule: facts that are worth knowing may still not be found.

In a pilot (three sizes of 10 to 26 thousand parameters, 512 facts of 10 bits) models that started
from nothing reached half of the bits at 1.4 to 2.3 times the odds that the rule says, while one
that knew the facts kept them below. Three sizes tell a factor badly, so it is carried as what it
is: a Student distribution of its logarithm from a range of three. And it is of half the *bits*:
recall comes later still.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from olmo_mixlaw.errors import ConfigError, DataError

# Expected range of so many normal draws, in their standard deviations.
_RANGE = {2: 1.128, 3: 1.693, 4: 2.059, 5: 2.326, 6: 2.534, 7: 2.704, 8: 2.847, 9: 2.970, 10: 3.078}


@dataclass(frozen=True)
class Barrier:
    """Cold odds over the rule's: seen from `low` to `high` in `count` independent sweeps."""

    low: float
    high: float
    count: int
    source: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high < np.inf:
            raise ConfigError(
                f"barrier: factors must be positive and in order, found {self.low:g},{self.high:g}"
            )
        if self.count != 0 and self.count not in _RANGE:
            raise ConfigError(
                f"barrier: {self.count} sweeps; 2 to {max(_RANGE)} tell how much they differ"
            )

    def quantile(self, q: np.ndarray | float) -> np.ndarray:
        """The factor below which the next sweep's is with probability `q`; never below 1."""
        if self.count == 0:
            return np.ones_like(np.asarray(q, float))
        middle = (np.log(self.low) + np.log(self.high)) / 2
        deviation = (np.log(self.high) - np.log(self.low)) / _RANGE[self.count]
        # The next one differs from the mean of those seen, which is uncertain too.
        wide = deviation * np.sqrt(1 + 1 / self.count)
        return np.exp(np.maximum(middle + wide * stats.t.ppf(q, self.count - 1), 0.0))

    def draws(self, count: int, seed: int = 0) -> np.ndarray:
        """Factors (count,) at evenly spaced quantiles, in random order."""
        return self.quantile(_even(count, seed))


PILOT = Barrier(1.4, 2.3, 3, "a pilot of three sizes, 10 to 26 thousand parameters, half the bits")
# A model that knows the facts already has none to climb.
NONE = Barrier(1.0, 1.0, 0, "a start that knows the facts")


def calibrated(
    predicted: Sequence[float] | np.ndarray, measured: Sequence[float] | np.ndarray
) -> Barrier:
    """The barrier that one's own sweeps measured: `measured` over `predicted` critical ratios.

    A step of its own, after the predictions were written down: nothing else is fitted to mixtures.
    Raises `DataError` for fewer than two sweeps or ratios outside 0 to 1.
    """
    p, m = np.asarray(predicted, float), np.asarray(measured, float)
    if p.shape != m.shape or len(p) < 2:
        raise DataError(
            f"calibration: {len(m)} measured and {len(p)} predicted ratios; add sweeps, to two or "
            "more (sizes or sets of facts) with one prediction each"
        )
    if not (((p > 0) & (p < 1)).all() and ((m > 0) & (m < 1)).all()):
        raise DataError("calibration: critical ratios lie between 0 and 1")
    factor = (m / (1 - m)) / (p / (1 - p))
    return Barrier(float(factor.min()), float(factor.max()), len(m), f"{len(m)} sweeps measured")


def _even(count: int, seed: int) -> np.ndarray:
    """Quantiles (count,) spaced evenly over 0 to 1, shuffled."""
    spaced = (np.arange(count) + 0.5) / count
    return np.random.default_rng(seed).permutation(spaced)


# A fact must be seen about a hundred times however large the model; known to a factor of two.
FLOOR = (50.0, 200.0)


def floor_draws(count: int, seed: int = 1) -> np.ndarray:
    """Exposures (count,) that a fact needs at least, evenly spaced in their logarithm."""
    low, high = np.log(FLOOR)
    return np.exp(low + (high - low) * _even(count, seed))
