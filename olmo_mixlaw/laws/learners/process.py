"""A Gaussian process over features, with effects that groups of rows share (Rasmussen & Williams).

    y(x) = r(x) + sum_kind u_kind(group of x) + noise,    r ~ GP(0, s^2 Matern_5/2), u ~ normal

The scales are by maximum a posteriori (chapter 5 of the book), on a sample of the rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.linalg.lapack import dpotrf, dpotri, dpotrs
from scipy.optimize import minimize

# Rows that decide the scales, and the most that the process itself keeps.
SCALE_ROWS = 160
MOST_ROWS = 1600
# The search for the scales ends when a step gains this part of the log posterior.
SCALE_TOLERANCE = 1e-6
# So many rows of a covariance are computed together: more would leave the processor's cache.
BLOCK_ROWS = 128
# Predictions are made in blocks that keep a kernel below this many numbers.
KERNEL_NUMBERS = 4_000_000
# Priors of log lengths, and spreads of those of log amplitude and log noise.
LENGTH_PRIOR = (float(np.log(4.0)), 1.0)
AMPLITUDE_SD = 1.0
NOISE_SD = 1.0
# A shared effect is a priori this part of the values' spread, within a factor e.
SHARED_PART = 0.3
SHARED_SD = 1.0
NUGGET = 5e-4
ROOT5 = float(np.sqrt(5.0))

# Kind of a shared effect -> the features that rows of one group have in common.
Groups = dict[str, list[int]]


@dataclass(frozen=True)
class Process:
    """A fitted process: `phi` (2 + F,) is log amplitude, log noise and log lengths.

    `shared` is the variance of each kind of effect; `x` (R, F) are its rows and `weights` (R,)
    the inverse covariance times their values.
    """

    phi: np.ndarray
    shared: dict[str, float]
    x: np.ndarray
    weights: np.ndarray

    @property
    def noise(self) -> float:
        """Standard deviation of a row about the process and its effects."""
        return float(np.exp(self.phi[1]))

    @property
    def n_scales(self) -> int:
        return len(self.phi) + len(self.shared)

    def mean(self, x: np.ndarray) -> np.ndarray:
        """The smooth part expected at features x (R, F): (R,)."""
        blocks = in_blocks(x, len(self.x))
        return np.concatenate([kernel(some, self.x, self.phi) @ self.weights for some in blocks])

    def slope(self, x: np.ndarray) -> np.ndarray:
        """The derivative of `mean` by the features, (R, F)."""
        inverse = np.exp(-2 * self.phi[2:])
        gap = x[:, None] - self.x[None]
        r = np.sqrt(np.maximum((gap**2) @ inverse, 0.0))
        by_r2 = -5 / 6 * np.exp(2 * self.phi[0] - ROOT5 * r) * (1 + ROOT5 * r)
        return np.einsum("ab,abf->af", by_r2 * self.weights, 2 * gap * inverse)

    def effects(self, x: np.ndarray, groups: Groups) -> np.ndarray:
        """The sum (R,) of the effects of `groups` expected at x; 0 for a group not seen."""
        total = np.zeros(len(x))
        for kind, spread in self.shared.items():
            if kind in groups:
                label = labels(np.concatenate([self.x, x]), groups[kind])
                seen = label[: len(self.x)]
                sums = np.bincount(seen, self.weights, minlength=label.max() + 1)
                total += spread * sums[label[len(self.x) :]]
        return total

    def variance(self, x: np.ndarray, groups: Groups) -> np.ndarray:
        """Variance (R,) of a new row at x about what is expected there."""
        size = len(self.x)
        noise = np.exp(2 * self.phi[1]) + NUGGET**2
        of_all = np.concatenate([self.x, x])
        both = kernel(of_all, self.x, self.phi)
        for kind, spread in self.shared.items():
            label = labels(of_all, groups[kind])
            both += spread * (label[:, None] == label[:size])
        lower = cholesky(both[:size] + noise * np.eye(size), lower=True)
        explained = (solve_triangular(lower, both[size:].T, lower=True) ** 2).sum(0)
        alone = np.exp(2 * self.phi[0]) + sum(self.shared.values()) + noise
        return np.maximum(alone - explained, noise)


def in_blocks(x: np.ndarray, width: int) -> list[np.ndarray]:
    """Rows of x in blocks whose kernel with `width` other rows stays below KERNEL_NUMBERS."""
    step = max(1, KERNEL_NUMBERS // max(width, 1))
    return [x[first : first + step] for first in range(0, max(len(x), 1), step)]


def labels(x: np.ndarray, columns: list[int]) -> np.ndarray:
    """A number (R,) for each distinct row of these features."""
    return np.unique(np.round(x[:, columns], 6), axis=0, return_inverse=True)[1].ravel()


def fit_process(
    x: np.ndarray,
    y: np.ndarray,
    groups: dict[str, np.ndarray],
    noise: float,
    start: Process | None,
    rng: np.random.Generator,
) -> Process:
    """The process of values y (R,) at x (R, F), rows grouped by the labels (R,) in `groups`.

    `noise` is the spread that a prior expects, `start` a process whose lengths may be near.
    """
    size = x.shape[1]
    scale = max(float(np.std(y)), NUGGET)
    spread = np.log(SHARED_PART * scale)
    first_two = [np.log(scale), np.log(max(0.5 * noise, NUGGET))]
    mean = np.r_[first_two, np.full(size, LENGTH_PRIOR[0]), np.full(len(groups), spread)]
    sd = np.r_[
        [AMPLITUDE_SD, NOISE_SD], np.full(size, LENGTH_PRIOR[1]), np.full(len(groups), SHARED_SD)
    ]
    some = rng.permutation(len(x))[:SCALE_ROWS]
    below = np.tril_indices(len(some), -1)
    left, right = some[below[0]], some[below[1]]
    square = (x[left] - x[right]) ** 2
    same = np.array([g[left] == g[right] for g in groups.values()], float)
    same = same.reshape(len(groups), len(left))
    first = mean.copy()
    if start is not None:
        first[2 : 2 + size] = start.phi[2:]
    end = minimize(
        _posterior_cost,
        first,
        args=(below, square, same, y[some], mean, sd),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 30, "ftol": SCALE_TOLERANCE},
    )
    phi = end.x if np.isfinite(end.x).all() else mean
    keep = rng.permutation(len(x))[:MOST_ROWS]
    x, y, groups = x[keep], y[keep], {kind: g[keep] for kind, g in groups.items()}
    shared = dict(zip(groups, np.exp(2 * phi[2 + size :]).tolist(), strict=True))
    first = Process(phi[: 2 + size], shared, x, y)
    return refitted(first, x, y, groups, np.ones(len(x)))


def refitted(
    process: Process,
    x: np.ndarray,
    y: np.ndarray,
    groups: dict[str, np.ndarray],
    counts: np.ndarray,
) -> Process:
    """The process of values y (R,) at x with the scales of `process`, rows counted as `counts`."""
    covariance = _covariance(x, process, groups)
    covariance[np.diag_indices(len(x))] += (np.exp(2 * process.phi[1]) + NUGGET**2) / counts
    factor = cholesky(covariance, lower=True, overwrite_a=True, check_finite=False)
    return replace(process, x=x, weights=cho_solve((factor, True), y, check_finite=False))


def kernel(a: np.ndarray, b: np.ndarray, phi: np.ndarray) -> np.ndarray:
    """Matern 5/2 between features a (A, F) and b (B, F): (A, B)."""
    a, b = a * np.exp(-phi[2:]), b * np.exp(-phi[2:])
    r2 = (-2 * a) @ b.T
    r2 += (a**2).sum(1)[:, None]
    r2 += (b**2).sum(1)
    np.maximum(r2, 0.0, out=r2)
    r = np.sqrt(r2)
    r *= ROOT5
    decay = np.exp(2 * phi[0] - r)
    # In place: these are the largest arrays of a fit.
    r2 *= 5 / 3
    r2 += r
    r2 += 1
    r2 *= decay
    return r2


def _covariance(x: np.ndarray, process: Process, groups: dict[str, np.ndarray]) -> np.ndarray:
    """Without noise: (R, R), of which only what is not above the diagonal is filled."""
    matrix = np.zeros((len(x), len(x)))
    for first in range(0, len(x), BLOCK_ROWS):
        rows, below = slice(first, first + BLOCK_ROWS), slice(0, first + BLOCK_ROWS)
        matrix[rows, below] = kernel(x[rows], x[below], process.phi)
        for kind, group in groups.items():
            matrix[rows, below] += process.shared[kind] * (group[rows, None] == group[below])
    return matrix


def _posterior_cost(
    phi: np.ndarray,
    below: tuple[np.ndarray, np.ndarray],
    square: np.ndarray,
    same: np.ndarray,
    y: np.ndarray,
    mean: np.ndarray,
    sd: np.ndarray,
) -> tuple[float, np.ndarray]:
    """Minus the log posterior of the hyperparameters and its gradient.

    `square` (pairs, F) and `same` (effects, pairs) are of the pairs of rows `below` the diagonal.
    """
    phi = np.clip(phi, -20, 20)
    count, first = len(y), len(phi) - len(same)
    inverse, spreads = np.exp(-2 * phi[2:first]), np.exp(2 * phi[first:])
    amplitude, noise = np.exp(2 * phi[:2])
    r2 = square @ inverse
    r = ROOT5 * np.sqrt(r2)
    decay = np.exp(2 * phi[0] - r)
    steep = decay * (1 + r)
    k = steep + decay * (5 / 3 * r2)
    # LAPACK reads by columns: what is below the diagonal here is above it there.
    matrix = np.empty((count, count))
    matrix[below] = k + spreads @ same
    matrix[np.diag_indices(count)] = amplitude + noise + NUGGET**2 + spreads.sum()
    factor, failed = dpotrf(matrix.T, lower=0, overwrite_a=1)
    if failed:
        return 1e10, np.zeros_like(phi)
    value = 0.5 * y @ (alpha := dpotrs(factor, y, lower=0)[0]) + np.log(np.diag(factor)).sum()
    whole = dpotri(factor, lower=0, overwrite_c=1)[0].T
    pull = 2 * (alpha[below[0]] * alpha[below[1]] - whole[below])
    trace = float((alpha**2 - np.diag(whole)).sum())
    gradient = np.empty_like(phi)
    gradient[0] = pull @ k + trace * amplitude
    gradient[1] = trace * noise
    gradient[2:first] = ((pull * steep) @ square) * (5 / 6) * inverse
    gradient[first:] = spreads * (same @ pull + trace)
    off = (phi - mean) / sd
    return float(value + 0.5 * off @ off), -gradient + off / sd
