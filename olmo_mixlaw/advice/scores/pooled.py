"""Scores of runs from what runs have in common: sums of kernels, pooled over tasks.

For a task q, `z_q = mean + f_q + noise_q`, f_q a Gaussian process over runs whose covariance is
`sum_c v_c K_c`. The K_c say in which ways two runs are alike (their losses, their mixtures, their
sizes, their corpus); the variances v_c are found for all tasks together by marginal likelihood, the
noise integrated over a grid for each task, and then moved by each task as far as its own scores
ask (Rasmussen & Williams 2006, 5.4.1; the pooling is that of a hierarchical model).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.stats import norm

from olmo_mixlaw.errors import FitError

# Shares of noise in a task's variance (which is scaled to 1) that are averaged over.
NOISE = np.array([0.03, 0.06, 0.12, 0.25, 0.45, 0.7, 1.0])
# A variance's prior: the log is normal about log(.15), and for a task about what all tasks share.
USUAL, PRIOR_SD, TASK_SD = np.log(0.15), 1.5, 0.7
# The mean of a task is free within this many of its standard deviations.
MEAN_SD = 2.0
STEPS = 15
# A task's own spread is that of so many values at least.
FEW_RUNS = 4
LEAST_SPREAD = 1e-3
# Standard errors are widened until they hold this share of values left out.
LEVEL = 0.9


@dataclass(frozen=True)
class Pooled:
    """What tasks score in all rows: `mean` and standard error `sd` (R, Q) of new measurements.

    `variances` (Q, C) are those of the `kernels` by task, in units of the task's variance.
    """

    kernels: list[str]
    variances: np.ndarray
    mean: np.ndarray
    sd: np.ndarray


def fit_pooled(
    values: np.ndarray,
    kernels: Mapping[str, np.ndarray],
    own: Mapping[str, Sequence[np.ndarray | None]] | None = None,
) -> Pooled:
    """Fit all tasks' `values` (R, Q), NaN where not measured, and predict every row.

    `kernels` (R, R) are shared by the tasks, `own` have one for each task, or None where it has
    nothing of the kind. A task with few values is scaled like the others. Raises `FitError` for a
    task without values.
    """
    own = own or {}
    names = [*kernels, *own]
    shared = list(kernels.values())
    count = np.isfinite(values).sum(0)
    if not count.all():
        raise FitError(f"column {int(np.argmin(count)) + 1} has no value in any run")
    scales = np.array([column[np.isfinite(column)].std() for column in values.T])
    scales = np.where(
        count < FEW_RUNS, np.median(scales[count >= min(FEW_RUNS, count.max())]), scales
    )
    scales = np.maximum(scales, LEAST_SPREAD)
    parts, nothing = [], np.zeros((len(values), len(values)))
    for q in range(values.shape[1]):
        seen = np.flatnonzero(np.isfinite(values[:, q]))
        mine = [nothing if (m := by_task[q]) is None else m for by_task in own.values()]
        parts.append(_Task.of(values[:, q], seen, scales[q], [*shared, *mine]))
    start = np.full(len(names), USUAL)

    def of_all(p: np.ndarray) -> tuple[float, np.ndarray]:
        values, slopes = zip(*(task.log_likelihood(p) for task in parts), strict=True)
        return float(sum(values)), np.sum(slopes, axis=0)

    common = _mode(of_all, start, PRIOR_SD)
    found = [_mode(task.log_likelihood, common, TASK_SD) for task in parts]
    ends = [task.predict(p) for task, p in zip(parts, found, strict=True)]
    mean, sd = (np.stack([end[i] for end in ends], 1) for i in (0, 1))
    off = np.concatenate([task.left_out(p) for task, p in zip(parts, found, strict=True)])
    wide = float(np.quantile(np.abs(off), LEVEL) / norm.ppf((1 + LEVEL) / 2))
    sd = sd * max(wide, 1.0)
    return Pooled(names, np.exp(found), mean, sd)


def _mode(
    likelihood: Callable[[np.ndarray], tuple[float, np.ndarray]], start: np.ndarray, sd: float
) -> np.ndarray:
    """Log variances of the greatest posterior, the prior normal about `start`."""

    def cost(p: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = likelihood(p)
        off = (p - start) / sd
        return float(0.5 * (off**2).sum() - value), off / sd - slope

    found = minimize(cost, start, jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
    return np.asarray(found.x)


@dataclass(frozen=True)
class _Task:
    """One task: its rows `seen`, values scaled to mean 0 and variance 1, kernels (C, R, R)
    of all rows and `among` those seen."""

    seen: np.ndarray
    value: np.ndarray
    centre: float
    scale: float
    kernels: np.ndarray
    among: np.ndarray

    @classmethod
    def of(
        cls, values: np.ndarray, seen: np.ndarray, scale: float, kernels: Sequence[np.ndarray]
    ) -> _Task:
        known = values[seen]
        centre = float(known.mean())
        rows = (len(values), len(values))
        whole = np.stack([np.broadcast_to(k, rows) for k in kernels])
        among = np.ascontiguousarray(whole[:, seen][:, :, seen])
        return cls(seen, (known - centre) / scale, centre, scale, whole, among)

    def _turned(self, p: np.ndarray) -> tuple[np.ndarray, ...]:
        """Eigenvalues and vectors of the covariance of the rows seen, the values in their frame,
        and log likelihoods by noise."""
        covariance = np.tensordot(np.exp(p), self.among, 1) + MEAN_SD**2
        value, vector = np.linalg.eigh(covariance)
        value = np.maximum(value, 0.0)
        turned = vector.T @ self.value
        noisy = value + NOISE[:, None]
        likelihood = -0.5 * (turned**2 / noisy).sum(1) - 0.5 * np.log(noisy).sum(1)
        return value, vector, turned, likelihood

    def log_likelihood(self, p: np.ndarray) -> tuple[float, np.ndarray]:
        """With its slopes (C,) by the log variances, the noise averaged over."""
        value, vector, turned, likelihood = self._turned(p)
        total = float(np.logaddexp.reduce(likelihood))
        weight = np.exp(likelihood - total)
        noisy = value + NOISE[:, None]
        pulls = (turned / noisy) @ vector.T
        outer = (pulls.T * weight) @ pulls - (vector * (weight @ (1 / noisy))) @ vector.T
        slopes = 0.5 * np.exp(p) * np.tensordot(self.among, outer, 2)
        return total, slopes

    def predict(self, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means and standard errors of new measurements (R,), averaged over the noise."""
        value, vector, turned, likelihood = self._turned(p)
        covariance = np.tensordot(np.exp(p), self.kernels, 1) + MEAN_SD**2
        weight = np.exp(likelihood - np.logaddexp.reduce(likelihood))
        across = covariance[:, self.seen] @ vector
        means = np.stack([across @ (turned / (value + noise)) for noise in NOISE])
        spread = np.stack(
            [np.diag(covariance) - (across**2 / (value + noise)).sum(1) + noise for noise in NOISE]
        )
        mean = weight @ means
        variance = weight @ (np.maximum(spread, 0.0) + (means - mean) ** 2)
        return self.centre + self.scale * mean, self.scale * np.sqrt(variance)

    def left_out(self, p: np.ndarray) -> np.ndarray:
        """Errors of each value seen by all the others, in their standard errors
        (Rasmussen & Williams 2006, equations 5.10 to 5.12)."""
        value, vector, turned, likelihood = self._turned(p)
        weight = np.exp(likelihood - np.logaddexp.reduce(likelihood))
        noisy = value + NOISE[:, None]
        precision = weight @ (1 / noisy) @ (vector**2).T
        return np.asarray((weight @ (turned / noisy)) @ vector.T / np.sqrt(precision))


def matern(points: np.ndarray, length: float) -> np.ndarray:
    """The Matern 3/2 kernel (R, R) of points (R, K); `length` is in typical distances."""
    apart = np.sqrt(((points[:, None] - points[None]) ** 2).sum(-1))
    typical = float(np.median(apart[apart > 0])) if (apart > 0).any() else 1.0
    far = np.sqrt(3) * apart / (typical * length)
    return np.asarray((1 + far) * np.exp(-far))


def linear(points: np.ndarray) -> np.ndarray:
    """The linear kernel (R, R) of points (R, K), each column scaled to mean 0 and variance 1."""
    spread = points.std(0)
    x = (points - points.mean(0))[:, spread > 0] / spread[spread > 0]
    return np.asarray(x @ x.T / max(x.shape[1], 1))


def same(labels: Sequence[object]) -> np.ndarray:
    """1 where two rows have the same label, (R, R)."""
    _, number = np.unique(np.asarray([str(x) for x in labels]), return_inverse=True)
    return np.asarray((number[:, None] == number[None]).astype(float))
