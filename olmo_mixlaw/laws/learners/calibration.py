"""Lines between log losses at two scales: from many cheap runs' law to a few dear runs.

    log L_t = a_t + c_t log L_t,cheap        c_t ~ N(m, s^2), m ~ N(1, .3^2), s about .3, a free

One dear run sets the level of each target, two begin to tell the slopes, which targets share as far
as the runs say (s). Loss-to-loss laws are such lines over corpora (arXiv 2411.12925); here they are
over mixtures.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

# The common mean of slopes about 1, and slopes about that mean, which is learnt as if `OWN_TARGETS`
# had shown .3. Measured where the dear scale of a public table has 16 runs and more (p2 to p5, 14
# pairs of scales): means .89 to 1.24, about them .01 to .44. Against c ~ N(1, .5^2), a target by
# itself, errors from two dear runs are 6 % less (nine pairs, geometric mean), from five 1 %.
COMMON_SD, OWN_SD, OWN_TARGETS = 0.3, 0.3, 4.0
# Residuals count as known from so many runs before any: the base law's, or at least this much.
FIRST_RUNS, LEAST_NOISE = 4.0, 0.002
ROUNDS = 12


@dataclass(frozen=True)
class Lines:
    """Lines (..., T) through (`x`, `y`), the means of log losses over the dear runs.

    `slope` and its standard error `slope_sd`, `noise` the standard deviation of a run about its
    line, `runs` how many it is from.
    """

    x: np.ndarray
    y: np.ndarray
    slope: np.ndarray
    slope_sd: np.ndarray
    noise: np.ndarray
    runs: np.ndarray

    @classmethod
    def of(cls, state: dict[str, Any]) -> Lines:
        return cls(**state["lines"])

    @classmethod
    def none(cls, noise: np.ndarray) -> Lines:
        """The lines (T,) of a scale on itself."""
        zero, one = np.zeros(noise.shape), np.ones(noise.shape)
        return cls(zero, zero, one, zero, noise, zero)

    @classmethod
    def stacked(cls, lines: list[Lines]) -> Lines:
        """Lines (C, T) of several scales."""
        return cls(*(np.stack([getattr(one, f.name) for one in lines]) for f in fields(cls)))

    def take(self, rows: Any) -> Lines:
        """Those of some scales: an index, or (R,) of them."""
        return Lines(*(getattr(self, f.name)[rows] for f in fields(self)))

    def at(self, below: np.ndarray) -> np.ndarray:
        """Log losses for those at the cheap scale, (R, T)."""
        return self.y + self.slope * (below - self.x)

    def level_sd(self, below: np.ndarray | float) -> np.ndarray:
        """The standard error of the line itself there."""
        level = self.noise**2 / np.maximum(self.runs, 1.0)
        return np.sqrt(level + (self.slope_sd * (below - self.x)) ** 2)

    @property
    def freedom(self) -> np.ndarray:
        """Degrees of freedom of the noise."""
        return FIRST_RUNS + np.maximum(self.runs - 1.0, 0.0)


def fit_lines(
    below: np.ndarray, log_loss: np.ndarray, weight: np.ndarray, first_noise: np.ndarray
) -> Lines:
    """Lines of T targets from R runs: log losses (R, T) at the cheap scale and, NaN where a run
    lacks one, at the dear one; runs count `weight` (R,), at least one of them; `first_noise` (T,)
    is the base law's.

    Maximum a posteriori, noise and the spread of slopes learnt in turn with them. A slope is never
    below 0. A target that no run has takes the mean shift of the others.
    """
    first = np.maximum(first_noise, LEAST_NOISE)
    seen = np.isfinite(log_loss)
    counted = weight[:, None] * seen
    y = np.where(seen, log_loss, 0.0)
    runs = counted.sum(0)
    x_mean = np.average(below, axis=0, weights=weight)
    each = np.maximum(runs, 1e-12)
    x_mean = np.where(runs > 0, (counted * below).sum(0) / each, x_mean)
    shift = (counted * y).sum(0) / each - x_mean
    y_mean = x_mean + np.where(runs > 0, shift, shift[runs > 0].mean() if runs.any() else 0.0)
    dx, dy = below - x_mean, np.where(seen, log_loss - y_mean, 0.0)
    along, across = (counted * dx**2).sum(0), (counted * dx * dy).sum(0)
    variance, own = first**2, OWN_SD**2
    for _ in range(ROUNDS):
        slope, mean, about, shared = _slopes(along / variance, across / variance, own)
        apart = ((slope - mean) ** 2 + about).sum()
        own = (OWN_TARGETS * OWN_SD**2 + apart) / (OWN_TARGETS + len(slope))
        off = (counted * (dy - slope * dx) ** 2).sum(0)
        variance = (FIRST_RUNS * first**2 + off) / (FIRST_RUNS + np.maximum(runs - 1.0, 0.0))
    slope_sd, noise = np.sqrt(about + shared), np.sqrt(variance)
    return Lines(x_mean, y_mean, np.maximum(slope, 0.0), slope_sd, noise, runs)


def _slopes(
    precision: np.ndarray, pull: np.ndarray, own: float
) -> tuple[np.ndarray, float, np.ndarray, np.ndarray]:
    """Slopes (T,) and their common mean, a posteriori, and the variance of each slope: about the
    mean, and with it.

    `precision` and `pull` (T,) are what the runs say: sums of dx^2 and of dx dy over the noise^2;
    `own` is the variance of slopes about their mean.
    """
    apart = 1 + precision * own
    of_mean = 1 / COMMON_SD**2 + (precision / apart).sum()
    mean = float((1 / COMMON_SD**2 + (pull / apart).sum()) / of_mean)
    return (pull * own + mean) / apart, mean, own / apart, 1 / (of_mean * apart**2)
