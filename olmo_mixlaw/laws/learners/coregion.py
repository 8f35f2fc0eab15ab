"""Gaussian processes of many outputs with one kernel (coregionalisation; Alvarez et al. 2012).

    y(x) = middle + sum_c z_c(x) basis_c,      z_c ~ GP(0, a_c (k + rho_c I)), all independent
    k = linear + Matern 5/2 over the features, each with a scale a feature, + effects in common

The basis is that of a singular value decomposition, so that outputs which move together are
learnt together, and one eigendecomposition of k serves all of them. The scales are by maximum a
posteriori, from all components jointly: a hundred outputs cost little more than one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import eigh
from scipy.optimize import minimize

from olmo_mixlaw.laws.learners.process import ROOT5, Groups, in_blocks, labels

# Components that are learnt; the rest of the outputs' variance is noise.
MOST_COMPONENTS = 30
# Rows that decide the scales.
SCALE_ROWS = 256
# Steps of the search for the scales, and the part of the cost by which a last one still gains.
STEPS = 60
TOLERANCE = 1e-6
# Priors (mean, sd) of logs: amplitudes and linear weights relative to a component's own scale,
# lengths of the Matern kernel, shared effects, and noise over signal.
AMPLITUDE = (0.0, 1.5)
LINEAR = (0.0, 1.0)
LENGTH = (float(np.log(1.5)), 1.0)
SHARED = (float(np.log(0.3)), 1.0)
NOISE = (float(np.log(0.3)), 2.0)
# Scales stay within these logs, noise over signal within those.
SCALE_RANGE = (-12.0, 12.0)
NOISE_RANGE = (-9.0, 12.0)
# An output that hardly varies is not blown up to the size of others.
LEAST_SPREAD = 1e-4
# Rounds in which missing outputs are filled in from what the process expects of them.
FILLINGS = 3


@dataclass(frozen=True)
class Kernel:
    """Scales of k over F features: `linear` variances and `length`s (F,), `shared` variances.

    `matern` is the Matern part's variance, `centre` (F,) the point where the linear part is 0.
    """

    linear: np.ndarray
    matern: float
    length: np.ndarray
    shared: dict[str, float]
    centre: np.ndarray

    def smooth(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """k without effects between features a (A, F) and b (B, F): (A, B)."""
        straight = ((a - self.centre) * self.linear) @ (b - self.centre).T
        r, decay = self._decay(a, b)
        r *= 1 + r / 3
        r += 1
        r *= decay
        r += straight
        return r

    def _decay(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        r = ROOT5 * distance(a / self.length, b / self.length)
        return r, self.matern * np.exp(-r)

    def slopes(self, a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Derivative of `smooth(a, b) @ weights` by a: (A, F, C) for weights (B, C)."""
        straight = self.linear[:, None] * ((b - self.centre).T @ weights)
        r, decay = self._decay(a, b)
        pull = decay * (1 + r)
        inward = (pull @ (b[:, :, None] * weights[:, None]).reshape(len(b), -1)).reshape(
            len(a), b.shape[1], -1
        )
        outward = a[:, :, None] * (pull @ weights)[:, None]
        return straight - 5 / 3 * (outward - inward) / self.length[:, None] ** 2

    def between(self, a: np.ndarray, b: np.ndarray, groups: Groups) -> np.ndarray:
        """k between rows a and b, with the effects of `groups` that they have in common."""
        found = self.smooth(a, b)
        both = np.concatenate([a, b])
        for kind, spread in self.shared.items():
            if kind in groups:
                label = labels(both, groups[kind])
                found += spread * (label[: len(a), None] == label[len(a) :])
        return found


@dataclass(frozen=True)
class Coregion:
    """A fitted process of T outputs with C components.

    `basis` (C, T), `middle` (T,), `noise` (C,) over signal, `signal` (C,) the components' a_c,
    `rest` (T,) the variance that no component has. `x` (R, F) are the rows it keeps, `weights`
    (R, C) the inverse covariance times the components' values there.
    """

    kernel: Kernel
    basis: np.ndarray
    middle: np.ndarray
    noise: np.ndarray
    signal: np.ndarray
    rest: np.ndarray
    x: np.ndarray
    weights: np.ndarray

    @property
    def n_scales(self) -> int:
        kernel = self.kernel
        return 1 + 2 * len(kernel.length) + len(kernel.shared) + 2 * len(self.noise)

    @property
    def spread(self) -> np.ndarray:
        """Standard deviation (T,) of a row about the process and its effects."""
        return np.sqrt((self.signal * self.noise) @ self.basis**2 + self.rest)

    def mean(self, x: np.ndarray) -> np.ndarray:
        """The smooth part expected at features x (A, F): (A, T)."""
        blocks = in_blocks(x, len(self.x))
        smooth = [self.kernel.smooth(some, self.x) @ self.weights for some in blocks]
        return self.middle + np.concatenate(smooth) @ self.basis

    def slope(self, x: np.ndarray) -> np.ndarray:
        """The derivative of `mean` by the features, (A, T, F)."""
        by_component = self.kernel.slopes(x, self.x, self.weights)
        return (by_component @ self.basis).transpose(0, 2, 1)

    def effects(self, x: np.ndarray, groups: Groups) -> np.ndarray:
        """The sum (A, T) of the effects of `groups` expected at x; 0 for a group not seen."""
        total = np.zeros((len(x), len(self.noise)))
        both = np.concatenate([self.x, x])
        for kind, spread in self.kernel.shared.items():
            if kind in groups:
                label = labels(both, groups[kind])
                sums = np.zeros((label.max() + 1, total.shape[1]))
                np.add.at(sums, label[: len(self.x)], self.weights)
                total += spread * sums[label[len(self.x) :]]
        return total @ self.basis

    def variance(self, x: np.ndarray, groups: Groups) -> np.ndarray:
        """Variance (A, T) of a new row at x about what is expected there."""
        values, vectors = _eigen(self.kernel.between(self.x, self.x, groups))
        turned = self.kernel.between(x, self.x, groups) @ vectors
        explained = turned**2 @ (1 / (values[:, None] + self.noise))
        kernel = self.kernel
        alone = ((x - kernel.centre) ** 2) @ kernel.linear + kernel.matern
        alone = alone + sum(kernel.shared.values())
        left = self.signal * np.maximum(alone[:, None] - explained, 0.0)
        return left @ self.basis**2 + self.spread**2

    def refitted(
        self, x: np.ndarray, y: np.ndarray, groups: Groups, counts: np.ndarray
    ) -> Coregion:
        """The process of values y (R, T) at x, with the scales and the basis of this one.

        Each row counts as often as `counts` (R,) says; missing values are filled in on the way.
        """
        rows = np.flatnonzero(counts > 0)
        x, y, root = x[rows], y[rows], np.sqrt(counts[rows])[:, None]
        seen = np.isfinite(y)
        total = (root**2 * seen).sum(0)
        middle = (root**2 * np.where(seen, y, 0.0)).sum(0) / np.maximum(total, 1e-9)
        values, vectors = _eigen(root * self.kernel.between(x, x, groups) * root.T)
        # The basis is orthogonal in outputs over their scale.
        inverse = np.linalg.pinv(self.basis)
        filled = np.where(seen, y - middle, 0.0)
        for left in reversed(range(1 if seen.all() else FILLINGS)):
            z = root * (filled @ inverse)
            weights = root * (vectors @ ((vectors.T @ z) / (values[:, None] + self.noise)))
            found = replace(self, x=x, middle=middle, weights=weights)
            if left:
                expected = found.mean(x) + found.effects(x, groups) - middle
                filled = np.where(seen, filled, expected)
        return found


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Euclidean distances (A, B)."""
    squares = (-2 * a) @ b.T
    squares += (a**2).sum(1)[:, None]
    squares += (b**2).sum(1)
    np.maximum(squares, 0.0, out=squares)
    return np.sqrt(squares, out=squares)


def fit_coregion(
    x: np.ndarray, y: np.ndarray, groups: Groups, rng: np.random.Generator
) -> Coregion:
    """The process of values y (R, T), NaN where missing, at x (R, F)."""
    seen = np.isfinite(y)
    middle = np.where(seen, y, 0.0).sum(0) / np.maximum(seen.sum(0), 1)
    filled = np.where(seen, y - middle, 0.0)
    spread = np.maximum(filled.std(0), LEAST_SPREAD)
    left, sizes, right = np.linalg.svd(filled / spread, full_matrices=False)
    count = max(1, min(MOST_COMPONENTS, len(x) - 2, int((sizes > 1e-9 * sizes[0] + 1e-12).sum())))
    scale = left[:, :count].std(0) * sizes[:count] + 1e-12
    basis = scale[:, None] * right[:count] * spread
    rest = (filled - filled @ np.linalg.pinv(basis) @ basis).var(0)
    some = rng.permutation(len(x))[:SCALE_ROWS]
    z = left[some, :count] * sizes[:count] / scale
    kernel, noise, signal = _learnt(x[some], z, groups)
    first = Coregion(kernel, basis, middle, noise, signal, rest, x[:0], np.zeros((0, count)))
    return first.refitted(x, y, groups, np.ones(len(x)))


def _learnt(x: np.ndarray, z: np.ndarray, groups: Groups) -> tuple[Kernel, np.ndarray, np.ndarray]:
    """The kernel, and of each component (R, C) its noise over signal and its signal."""
    size, components, centre = x.shape[1], z.shape[1], x.mean(0)
    same = [
        (label[:, None] == label).astype(float)
        for columns in groups.values()
        for label in [labels(x, columns)]
    ]
    parts = [AMPLITUDE, *[LINEAR] * size, AMPLITUDE, *[LENGTH] * size]
    parts += [*[SHARED] * len(groups), *[NOISE] * components]
    mean, sd = np.array(parts).T
    end = minimize(
        _cost,
        mean,
        args=(x - centre, z, same, mean, sd),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": STEPS, "ftol": TOLERANCE},
    )
    phi = end.x if np.isfinite(end.x).all() else mean
    linear, matern, length, shared, noise = _scales(phi, size, len(groups))
    kernel = Kernel(linear, matern, length, dict(zip(groups, shared.tolist(), strict=True)), centre)
    values, vectors = _eigen(kernel.between(x, x, groups))
    square = ((vectors.T @ z) ** 2 / (values[:, None] + noise)).sum(0)
    return kernel, noise, (square + 1) / (len(x) + 1)


def _scales(
    phi: np.ndarray, size: int, kinds: int
) -> tuple[np.ndarray, float, np.ndarray, np.ndarray, np.ndarray]:
    """Linear variances (F,), Matern's variance, lengths (F,), effects' variances, noise (C,)."""
    scales = np.clip(phi[: 2 + 2 * size + kinds], *SCALE_RANGE)
    linear = np.exp(2 * (scales[0] + scales[1 : 1 + size]))
    length = np.exp(scales[2 + size : 2 + 2 * size])
    noise = np.exp(np.clip(phi[2 + 2 * size + kinds :], *NOISE_RANGE))
    matern = float(np.exp(2 * scales[1 + size]))
    return linear, matern, length, np.exp(2 * scales[2 + 2 * size :]), noise


def _cost(
    phi: np.ndarray,
    x: np.ndarray,
    z: np.ndarray,
    same: list[np.ndarray],
    mean: np.ndarray,
    sd: np.ndarray,
) -> tuple[float, np.ndarray]:
    """Minus the log posterior of the scales, the components' signals profiled out; its gradient.

    A weak prior keeps each signal near 1, the components having unit variance.
    """
    rows, size = x.shape
    linear, matern, length, shared, noise = _scales(phi, size, len(same))
    straight = (x * linear) @ x.T
    scaled = x / length
    r = ROOT5 * distance(scaled, scaled)
    steep = matern * np.exp(-r) * (1 + r)
    round_ = steep + matern * np.exp(-r) * (r**2 / 3)
    whole = straight + round_
    for spread, alike in zip(shared, same, strict=True):
        whole += spread * alike
    values, vectors = _eigen(whole)
    turned = vectors.T @ z
    inner = values[:, None] + noise
    square = turned**2 / inner
    signal = (square.sum(0) + 1) / (rows + 1)
    value = 0.5 * ((rows + 1) * np.log(signal) + np.log(inner).sum(0)).sum()
    alpha = vectors @ (turned / inner)
    # The derivative of the value by each entry of the kernel.
    pull = (vectors * (0.5 * (1 / inner).sum(1))) @ vectors.T - 0.5 * (alpha / signal) @ alpha.T
    gradient = np.empty_like(phi)
    by_linear = 2 * linear * (x * (pull @ x)).sum(0)
    gradient[0], gradient[1 : 1 + size] = by_linear.sum(), by_linear
    gradient[1 + size] = 2 * (pull * round_).sum()
    bent = 5 / 3 * pull * steep
    around = (scaled**2 * (bent.sum(1) + bent.sum(0))[:, None]).sum(0)
    gradient[2 + size : 2 + 2 * size] = around - 2 * (scaled * (bent @ scaled)).sum(0)
    after = 2 + 2 * size
    for i, (spread, alike) in enumerate(zip(shared, same, strict=True)):
        gradient[after + i] = 2 * spread * (pull * alike).sum()
    gradient[after + len(same) :] = 0.5 * noise * ((1 / inner - square / inner / signal).sum(0))
    off = (phi - mean) / sd
    return float(value + 0.5 * off @ off), gradient + off / sd


def _eigen(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = eigh(matrix, driver="evd", check_finite=False)
    return np.maximum(values, 0.0), vectors
