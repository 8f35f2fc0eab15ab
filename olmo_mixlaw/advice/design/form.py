"""How far a law's form may be wrong: a Gaussian process over mixtures and scales, in features.

    log L(h, s) = law(h, s) + c(h) + a(s) - a(s*) + b(h, s) - b(h, s*),       s = (log N, log D)

The law is meant at the target's scale s*. Elsewhere the level drifts by a and the difference
between mixtures by b, the more the farther from there; c is what the law misses at every scale. So
runs of one size say little of a target far away, however sharply they pin down parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# Standard deviation of the level, in log loss, and the factors e in size and budget over which it
# is forgotten: a drift of .012 and .0043 a factor e, which is what skeletons were found to miss
# beyond their tables (`laws.skeleton`, 90 % widths over 1.645).
LEVEL, LEVEL_LENGTHS = 0.06, (5.0, 14.0)
# The same of the difference between mixtures, in spreads between mixtures, and what laws miss of it
# everywhere: measured on five public tables with several sizes, `benchmarks/design_form.py`.
DRIFT, DRIFT_LENGTHS, MISSED = 0.5, (5.0, 3.0), 0.2
# Mixtures are alike within this distance of the roots of their ratios (two corners: 1.4).
MIXTURE_LENGTH = 0.6
# So many points stand for all, and so many features are kept of a kernel.
INDUCING = 96
MIXTURE_FEATURES, SCALE_FEATURES = 16, 5
# Directions with less than this part of the largest variance are left out.
LEAST_VARIANCE = 1e-4
# Scales nearer than this, in log N and log D, are one.
DIGITS = 2

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class FormError:
    """Features of the error of form at R rows.

    `level` (R, F1) are in log loss, `mixture` (R, F2) in spreads between mixtures.
    """

    level: np.ndarray
    mixture: np.ndarray

    def of(self, spread: np.ndarray) -> np.ndarray:
        """Features (T, R, F) of targets whose losses spread so far between mixtures, (T,)."""
        level = np.broadcast_to(self.level, (len(spread), *self.level.shape))
        return np.concatenate([level, spread[:, None, None] * self.mixture], axis=2)


def form_error(
    mixtures: np.ndarray, scales: np.ndarray, target: np.ndarray, seed: int
) -> FormError:
    """The error of form at rows of mixtures (R, K) and scales (R, 2), log N and log D.

    `target` (2,) is the target's scale.
    """
    rng = np.random.default_rng([seed, 4])

    def level(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return LEVEL**2 * _drift(left, right, target, LEVEL_LENGTHS)

    def of_mixtures(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return MISSED**2 + DRIFT**2 * _drift(left, right, target, DRIFT_LENGTHS)

    rounded = np.round(scales, DIGITS)
    by_mixture = features_of(np.round(mixtures, 6), matern, MIXTURE_FEATURES, rng)
    by_scale = features_of(rounded, of_mixtures, SCALE_FEATURES, rng)
    both = by_mixture[:, :, None] * by_scale[:, None]
    return FormError(
        features_of(rounded, level, SCALE_FEATURES, rng), both.reshape(len(mixtures), -1)
    )


def _drift(
    left: np.ndarray, right: np.ndarray, target: np.ndarray, lengths: tuple[float, float]
) -> np.ndarray:
    """Covariance of a(s) - a(s*) at scales (S, 2), for a of unit variance: 0 at the target."""

    def near(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        gap = (a[:, None] - b[None]) / np.array(lengths)
        return np.asarray(np.exp(-0.5 * (gap**2).sum(2)))

    here = target[None]
    return np.asarray(1 + near(left, right) - near(left, here) - near(here, right))


def matern(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Matern 5/2 over the roots of the ratios (Rasmussen & Williams, equation 4.17)."""
    a, b = np.sqrt(np.maximum(left, 0.0)), np.sqrt(np.maximum(right, 0.0))
    square = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    r = np.sqrt(5 * np.maximum(square, 0.0)) / MIXTURE_LENGTH
    return np.asarray((1 + r + r**2 / 3) * np.exp(-r))


def features_of(
    points: np.ndarray, kernel: Kernel, most: int, rng: np.random.Generator
) -> np.ndarray:
    """Features (R, F) of points (R, n) whose products are the kernel, exact where F allows it.

    Nystrom's, from `INDUCING` of the distinct points (Rasmussen & Williams, section 8.1).
    """
    distinct, which = np.unique(points, axis=0, return_inverse=True)
    some = distinct[np.sort(rng.permutation(len(distinct))[:INDUCING])]
    value, vector = np.linalg.eigh(kernel(some, some))
    kept = np.flatnonzero(value > max(LEAST_VARIANCE * value[-1], 1e-12))[-most:]
    found = kernel(distinct, some) @ vector[:, kept] / np.sqrt(value[kept])
    return np.asarray(found[which.ravel()])
