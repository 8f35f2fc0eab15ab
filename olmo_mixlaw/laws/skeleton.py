"""The skeleton of a loss: how its mean over mixtures falls with size and budget.

    L / low = e + ((s_N n^-alpha)^(1/k) + (s_D d^-beta)^(1/k))^k

n and d are N and D over the middle of the table, low the least loss of a target. k = 1 is
Chinchilla's law (Hoffmann et al. 2022); with k below 1 the larger of the two terms hides the
other, as it does in public tables: a small model doesn't gain from more data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

# Parameters, as their logarithms, in this order.
NAMES = ("e", "s_N", "alpha", "s_D", "beta", "k")
# The prior: middle, and spread of the logarithm, of the values above. From skeletons fitted to
# whole tables of families of models: Gemstones (arXiv 2502.06857), Kempner's loss-to-loss series
# (arXiv 2411.12925), Gadre et al. (arXiv 2403.08540), OLMo's ladder (arXiv 2412.04403) and
# published isoFLOP series. Judged with each family left out: `benchmarks/level_families.py`.
MIDDLE = np.log([0.65, 0.28, 0.31, 0.30, 0.31, 0.55])
SPREAD = np.array([0.21, 0.41, 0.38, 0.57, 0.56, 0.43])
# Bounds: the floor lies below the least loss, and k is neither a step nor far from Chinchilla's.
LOWER = np.array([-6.0, -8.0, -5.0, -8.0, -5.0, -3.0])
UPPER = np.array([-1e-4, 3.0, 1.0, 3.0, 1.0, 1.5])


@dataclass(frozen=True, eq=False)
class Skeleton:
    """Fitted skeletons of T targets: `theta` (T, 6) and its covariance (T, 6, 6), of logarithms.

    `low` (T,) is in the losses' unit; `n_ref` and `d_ref` are what N and D are divided by.
    """

    theta: np.ndarray
    covariance: np.ndarray
    low: np.ndarray
    n_ref: float
    d_ref: float

    def log_loss(self, n_params: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
        """Log of the loss (R, T) at sizes and budgets (R,)."""
        n, d = self._relative(n_params, n_tokens)
        return np.log(relative_loss(self.theta, n, d)[0] * self.low[:, None]).T

    def log_sd(self, n_params: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
        """Standard deviation of `log_loss` (R, T), from the curvature of the fit (Laplace)."""
        n, d = self._relative(n_params, n_tokens)
        loss, slopes = relative_loss(self.theta, n, d, slopes=True)
        slopes = slopes / loss[:, :, None]
        variance = np.einsum("tri,tij,trj->rt", slopes, self.covariance, slopes)
        return np.sqrt(np.maximum(variance, 0.0))

    def _relative(self, n_params: Any, n_tokens: Any) -> tuple[np.ndarray, np.ndarray]:
        n, d = np.asarray(n_params, float), np.asarray(n_tokens, float)
        return np.log(n / self.n_ref), np.log(d / self.d_ref)


def relative_loss(
    theta: np.ndarray, log_n: np.ndarray, log_d: np.ndarray, slopes: bool = False
) -> tuple[np.ndarray, Any]:
    """L / low (M, R) for parameters (M, 6) at log n and log d (R,); slopes (M, R, 6) or None."""
    floor, k = np.exp(theta[:, :1]), np.exp(theta[:, 5:6])
    alpha, beta = np.exp(theta[:, 2:3]), np.exp(theta[:, 4:5])
    of_size, of_data = theta[:, 1:2] - alpha * log_n, theta[:, 3:4] - beta * log_d
    joined = np.logaddexp(of_size / k, of_data / k)
    above = np.exp(np.clip(k * joined, -50.0, 20.0))
    if not slopes:
        return floor + above, None
    size_part, data_part = np.exp(of_size / k - joined), np.exp(of_data / k - joined)
    by = (
        floor * np.ones_like(above),
        above * size_part,
        -above * size_part * alpha * log_n,
        above * data_part,
        -above * data_part * beta * log_d,
        above * (k * joined - size_part * of_size - data_part * of_data),
    )
    return floor + above, np.stack(by, axis=-1)
