"""The skeleton of a loss: how its mean over mixtures falls with size and budget.

    L / low = e + ((s_N n^-alpha)^(1/k) + (s_D d^-beta)^(1/k))^k

n and d are N and D over the middle of the table, low the least loss of a target. k = 1 is
Chinchilla's law (Hoffmann et al. 2022); with k below 1 the larger of the two terms hides the
other. No table says which k is right far beyond it, so that log L is the mean over several.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import norm

# Parameters other than k, as their logarithms, in the order e, s_N, alpha, s_D, beta: middle and
# spread of the prior. From skeletons fitted to whole tables of families of models: Gemstones
# (arXiv 2502.06857), Kempner's loss-to-loss series (arXiv 2411.12925), Gadre et al. (arXiv
# 2403.08540), OLMo's ladder (arXiv 2412.04403) and published isoFLOP series. Judged with each
# family left out: `benchmarks/level_families.py`.
PRIOR = (np.log([0.65, 0.28, 0.31, 0.30, 0.31]), np.array([0.21, 0.41, 0.38, 0.57, 0.56]))
# The floor lies below the least loss; the others have room.
LOWER = np.array([-6.0, -8.0, -5.0, -8.0, -5.0])
UPPER = np.array([-1e-4, 3.0, 1.0, 3.0, 1.0])
# The k that are averaged, and the prior of log k: middle and spread.
KS = (0.3, 0.45, 0.65, 1.0, 1.4)
K_PRIOR = (float(np.log(0.7)), 0.43)
# An interval at 90 %: these multiples of the spreads within and between the k, of the noise, and
# what a skeleton was found to miss for every factor e beyond the largest size and compute.
WITHIN, BETWEEN = 2.25, 2.0
A_SIZE, A_COMPUTE = 0.02, 0.007
NORMAL = float(norm.ppf(0.95))
# How far one mixture's loss lies from the level that a law gives it, on top of a cell's noise.
MIXTURE_NOISE = 0.005


@dataclass(frozen=True, eq=False)
class Skeleton:
    """Fitted skeletons of T targets under each of M values of `k` (M,).

    `theta` (M, T, 5) are logarithms of the parameters, `covariance` (M, T, 5, 5) theirs; `weight`
    (M, T) sums to 1 a target; `noise` (T,) is the spread of a cell's log loss. `low` (T,) is in the
    losses' unit; `n_ref` and `d_ref` are what N and D are divided by, `n_top` and `c_top` the
    largest size and product of size and budget.
    """

    k: np.ndarray
    theta: np.ndarray
    covariance: np.ndarray
    weight: np.ndarray
    noise: np.ndarray
    low: np.ndarray
    n_ref: float
    d_ref: float
    n_top: float
    c_top: float

    def log_loss(self, n_params: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
        """Log of the loss (R, T) at sizes and budgets (R,)."""
        each = np.stack([loss for loss, _ in self._each(n_params, n_tokens)])
        return np.asarray((self.weight[:, :, None] * each).sum(0).T)

    def half_width(
        self, n_params: np.ndarray, n_tokens: np.ndarray, anchored: bool = False
    ) -> np.ndarray:
        """Half of the central 90 % of the log loss (R, T) of a run there.

        With `anchored`, what it would be after one run had been made right there.
        """
        unsure: np.ndarray = self.doubt(n_params, n_tokens) ** 2
        luck = self.noise**2
        if anchored:
            seen = luck + MIXTURE_NOISE**2
            unsure = unsure * seen / (unsure + seen)
        return np.asarray(NORMAL * np.sqrt(unsure + luck))

    def doubt(self, n_params: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
        """Standard deviation of the mean log loss there, a run's own luck apart, (R, T)."""
        found = self._each(n_params, n_tokens)
        each = np.stack([loss for loss, _ in found])
        weight = self.weight[:, :, None]
        between = (weight * (each - (weight * each).sum(0)) ** 2).sum(0)
        within = (weight * np.stack([variance for _, variance in found])).sum(0)
        size = A_SIZE * np.log(np.maximum(n_params / self.n_top, 1.0))
        compute = A_COMPUTE * np.log(np.maximum(n_params * n_tokens / self.c_top, 1.0))
        squared = WITHIN**2 * within + BETWEEN**2 * between + size**2 + compute**2
        return np.asarray(np.sqrt(squared).T / NORMAL)

    def _each(self, n_params: Any, n_tokens: Any) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of each k the log loss (T, R), and its variance from the curvature of the fit.

        NaN where a run's size or budget isn't known.
        """
        log_n, log_d = np.broadcast_arrays(
            np.log(np.asarray(n_params, float) / self.n_ref),
            np.log(np.asarray(n_tokens, float) / self.d_ref),
        )
        known = np.isfinite(log_n + log_d)
        found = []
        for k, theta, covariance in zip(self.k, self.theta, self.covariance, strict=True):
            log_loss, variance = np.full((2, len(theta), len(known)), np.nan)
            loss, slopes = relative_loss(
                theta, np.full(len(theta), k), log_n[known], log_d[known], slopes=True
            )
            slopes = slopes / loss[:, :, None]
            by_curvature = np.einsum("tri,tij,trj->tr", slopes, covariance, slopes)
            log_loss[:, known] = np.log(loss * self.low[:, None])
            variance[:, known] = np.maximum(by_curvature, 0.0)
            found.append((log_loss, variance))
        return found


def relative_loss(
    theta: np.ndarray, k: np.ndarray, log_n: np.ndarray, log_d: np.ndarray, slopes: bool = False
) -> tuple[np.ndarray, Any]:
    """L / low (M, R) for parameters (M, 5) and k (M,) at log n and log d (R,).

    With `slopes` also its derivatives by the parameters, (M, R, 5).
    """
    floor, k = np.exp(theta[:, :1]), k[:, None]
    alpha, beta = np.exp(theta[:, 2:3]), np.exp(theta[:, 4:5])
    of_size, of_data = theta[:, 1:2] - alpha * log_n, theta[:, 3:4] - beta * log_d
    joined = np.logaddexp(of_size / k, of_data / k)
    above = np.exp(np.clip(k * joined, -50.0, 20.0))
    if not slopes:
        return floor + above, None
    by_size = above * np.exp(of_size / k - joined)
    by_data = above * np.exp(of_data / k - joined)
    by = (
        floor * np.ones_like(above),
        by_size,
        -by_size * alpha * log_n,
        by_data,
        -by_data * beta * log_d,
    )
    return floor + above, np.stack(by, axis=-1)
