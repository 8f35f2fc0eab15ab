"""A law plus what it missed: a Gaussian process on the residuals of log loss.

    log L = log mean_law(h, N, D) + r(h, N, D) + u_budget + u_run
    r ~ GP(0, s^2 Matern_5/2),   every u ~ normal, one value a budget or run

Where many mixtures were tried, the residuals of any short formula have a shape that can be
learnt; where few were, or far from them, r fades to 0 and the law is left as it was. Beyond the
largest size or budget r stays as it was at that edge: the formula alone extrapolates. The u are
what checkpoints share: the runs of one budget saw the same stretch of text, and a run keeps its
luck. Each target has its own scales, by maximum a posteriori (Rasmussen & Williams 2006,
chapter 5).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.linalg.lapack import dpotrf, dpotri, dpotrs
from scipy.optimize import minimize
from scipy.stats import norm

from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.laws.fitting import Settings, fit_formula, resolve
from olmo_mixlaw.laws.law import Inputs, Law, Parameter, Scene
from olmo_mixlaw.runs import Design

# Ratios enter as log(h + SOFT): equal steps from 1 % to 10 % and from 10 % to 100 %.
SOFT = 0.01
# Rows that decide the scales, and the most that the process itself keeps.
SCALE_ROWS = 160
# The search for the scales ends when a step gains this part of the log posterior.
SCALE_TOLERANCE = 1e-6
# So many rows of a covariance are computed together: more would leave the processor's cache.
BLOCK_ROWS = 128
MOST_ROWS = 1600
# Priors of log lengths, and spreads of those of log amplitude and log noise.
LENGTH_PRIOR = (float(np.log(4.0)), 1.0)
AMPLITUDE_SD = 1.0
NOISE_SD = 1.0
# A shared effect is a priori this part of the residuals' spread, within a factor e.
SHARED_PART = 0.3
SHARED_SD = 1.0
# An effect needs this many rows a group, on average, to be told from noise.
LEAST_SHARING = 1.5
LEAST_NOISE = 5e-4
ROOT5 = float(np.sqrt(5.0))


@dataclass(frozen=True)
class Kriging(Law):
    """A formula law with a Gaussian process over its residuals.

    `mean` names the law underneath. The state of a fit holds the rows (features and weights) of
    the process, a target at a time.
    """

    name = "kriging"
    formula = "mean law x exp(GP(log(h + .01), log N, log D) + shared effects)"
    source = "Rasmussen & Williams 2006"
    mean: str = "modulated"

    def _mean(self) -> Law:
        return resolve(self.mean, "kriging: mean")

    def parameters(self, scene: Scene, target: int) -> list[Parameter]:
        return self._mean().parameters(scene, target)

    def fit(self, design: Design, *, seed: int, settings: Settings) -> Fit:
        base = fit_formula(self._mean(), design, seed=seed, settings=settings)
        x = features(_inputs(base.scene, design), base.scene)
        shared = _shared(x, base.scene)
        parts = self._process(base, design, x, shared, seed)
        noise = np.array([np.exp(part["phi"][1]) for part in parts])
        return replace(base, law=self, state={"targets": parts}, noise=noise)

    def _process(
        self, base: Fit, design: Design, x: np.ndarray, shared: dict[str, np.ndarray], seed: int
    ) -> list[dict[str, Any]]:
        guess = base.law.predict(base, _inputs(base.scene, design))
        residual = np.log(design.losses) - np.log(guess)
        rng = np.random.default_rng(seed)
        parts: list[dict[str, Any]] = []
        for t in range(base.scene.n_targets):
            rows = np.flatnonzero(np.isfinite(residual[:, t]))
            start = parts[-1]["phi"] if parts else None
            groups = {kind: label[rows] for kind, label in shared.items()}
            parts.append(
                _fit_target(x[rows], residual[rows, t], groups, float(base.noise[t]), start, rng)
            )
        return parts

    def predict(self, fit: Fit, inputs: Inputs) -> np.ndarray:
        base = self._mean().predict(fit, inputs)
        return base * np.exp(self._residual(fit, inputs))

    def _residual(self, fit: Fit, inputs: Inputs) -> np.ndarray:
        x = features(inputs, fit.scene)
        return np.stack(
            [_posterior(p, x)[0] + shared_effects(p, x, fit.scene) for p in fit.state["targets"]],
            axis=1,
        )

    def gradient(self, fit: Fit, inputs: Inputs) -> np.ndarray:
        """Of the smooth parts: what a run or a budget shares has no slope by the ratios."""
        mean = self._mean()
        base, slope = mean.predict(fit, inputs), mean.gradient(fit, inputs)
        x = features(inputs, fit.scene)
        size = fit.scene.n_domains
        slopes = [_posterior(p, x, True)[1] for p in fit.state["targets"]]
        by_feature = np.stack([s for s in slopes if s is not None], axis=1)  # (R, T, F)
        by_ratio = by_feature[:, :, :size] / (inputs.ratios + SOFT)[:, None]
        lift = np.exp(self._residual(fit, inputs))
        return lift[:, :, None] * (slope + base[:, :, None] * by_ratio)

    def count(self, fit: Fit) -> int:
        """Those of the formula, and the scales of the process."""
        scales = sum(len(p["phi"]) + len(p["shared"]) for p in fit.state["targets"])
        return super().count(fit) + scales

    def half_width(self, fit: Fit, inputs: Inputs, level: float) -> np.ndarray:
        """From the process's own variance: a new run's luck, a new budget's, and the distance.

        The formula underneath counts as known, so with few runs these are too narrow; a stack's
        come from held-out errors and are not.
        """
        x = features(inputs, fit.scene)
        variance = np.stack([_variance(p, x, fit.scene) for p in fit.state["targets"]], axis=1)
        return float(norm.ppf(0.5 + level / 2)) * np.sqrt(variance)


def _inputs(scene: Scene, design: Design) -> Inputs:
    return scene.inputs(design.ratios, design.n_params, design.n_tokens)


def features(inputs: Inputs, scene: Scene) -> np.ndarray:
    """log(h + SOFT), then log N and log D where they vary, up to the table's largest: (R, F)."""
    columns = [np.log(inputs.ratios + SOFT)]
    if scene.has_n:
        columns.append(np.minimum(inputs.log_n, np.log(scene.n_range[1] / scene.n_ref))[:, None])
    if scene.has_d:
        columns.append(np.minimum(inputs.log_d, np.log(scene.d_range[1] / scene.d_ref))[:, None])
    return np.concatenate(columns, axis=1)


def _columns(scene: Scene) -> dict[str, list[int]]:
    """The features that rows with an effect in common have in common."""
    k = scene.n_domains
    size = [k] if scene.has_n else []
    budget = [k + len(size)] if scene.has_d else []
    return {"run": [*range(k), *size], "budget": budget} if budget else {}


def _labels(x: np.ndarray, columns: list[int]) -> np.ndarray:
    """A number (R,) for each distinct row of these features."""
    return np.unique(np.round(x[:, columns], 6), axis=0, return_inverse=True)[1].ravel()


def _shared(x: np.ndarray, scene: Scene) -> dict[str, np.ndarray]:
    """The group (R,) of each row, for the effects that the table can show."""
    found = {}
    for kind, columns in _columns(scene).items():
        label = _labels(x, columns)
        if len(x) >= LEAST_SHARING * (label.max() + 1):
            found[kind] = label
    return found


def _fit_target(
    x: np.ndarray,
    y: np.ndarray,
    groups: dict[str, np.ndarray],
    noise: float,
    start: np.ndarray | None,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Scales and weights: phi is log amplitude, log noise, log lengths, log spreads of effects."""
    size = x.shape[1]
    scale = max(float(np.std(y)), LEAST_NOISE)
    spread = np.log(SHARED_PART * scale)
    mean = np.concatenate(
        [
            [np.log(scale), np.log(max(0.5 * noise, LEAST_NOISE))],
            np.full(size, LENGTH_PRIOR[0]),
            np.full(len(groups), spread),
        ]
    )
    sd = np.concatenate(
        [[AMPLITUDE_SD, NOISE_SD], np.full(size, LENGTH_PRIOR[1]), np.full(len(groups), SHARED_SD)]
    )
    some = rng.permutation(len(x))[:SCALE_ROWS]
    below = np.tril_indices(len(some), -1)
    left, right = some[below[0]], some[below[1]]
    square = (x[left] - x[right]) ** 2
    same = np.array([g[left] == g[right] for g in groups.values()], float)
    same = same.reshape(len(groups), len(left))
    first = mean.copy()
    if start is not None:
        first[2 : 2 + size] = start[2 : 2 + size]
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
    factor = cholesky(
        _covariance(x[keep], [g[keep] for g in groups.values()], phi),
        lower=True,
        overwrite_a=True,
        check_finite=False,
    )
    weights = cho_solve((factor, True), y[keep], check_finite=False)
    shared = dict(zip(groups, np.exp(2 * phi[2 + size :]).tolist(), strict=True))
    return {"phi": phi[: 2 + size], "shared": shared, "x": x[keep], "weights": weights}


def _covariance(x: np.ndarray, groups: list[np.ndarray], phi: np.ndarray) -> np.ndarray:
    """Of the rows' residuals: (R, R), of which only what is not above the diagonal is filled."""
    size, matrix = 2 + x.shape[1], np.zeros((len(x), len(x)))
    for first in range(0, len(x), BLOCK_ROWS):
        rows, below = slice(first, first + BLOCK_ROWS), slice(0, first + BLOCK_ROWS)
        matrix[rows, below] = _kernel(x[rows], x[below], phi[:size])
        for spread, group in zip(np.exp(2 * phi[size:]), groups, strict=True):
            matrix[rows, below] += spread * (group[rows, None] == group[below])
    matrix[np.diag_indices(len(x))] += np.exp(2 * phi[1]) + LEAST_NOISE**2
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
    matrix[np.diag_indices(count)] = amplitude + noise + LEAST_NOISE**2 + spreads.sum()
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


def _kernel(a: np.ndarray, b: np.ndarray, phi: np.ndarray) -> np.ndarray:
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


def _posterior(
    part: dict[str, Any], x: np.ndarray, slopes: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """The smooth residual expected at features x (R, F), and its slopes by them."""
    phi, rows, weights = part["phi"], part["x"], part["weights"]
    value = _kernel(x, rows, phi) @ weights
    if not slopes:
        return value, None
    inverse = np.exp(-2 * phi[2:])
    gap = x[:, None] - rows[None]
    r = np.sqrt(np.maximum((gap**2) @ inverse, 0.0))
    by_r2 = -5 / 6 * np.exp(2 * phi[0] - ROOT5 * r) * (1 + ROOT5 * r)
    return value, np.einsum("ab,abf->af", by_r2 * weights, 2 * gap * inverse)


def shared_effects(
    part: dict[str, Any], x: np.ndarray, scene: Scene, kinds: tuple[str, ...] = ("run", "budget")
) -> np.ndarray:
    """The sum (R,) of the shared effects expected at features x; 0 for a group not seen."""
    total, rows = np.zeros(len(x)), part["x"]
    for kind, spread in part["shared"].items():
        if kind not in kinds:
            continue
        label = _labels(np.concatenate([rows, x]), _columns(scene)[kind])
        sums = np.bincount(label[: len(rows)], part["weights"], minlength=label.max() + 1)
        total += spread * sums[label[len(rows) :]]
    return total


def _variance(part: dict[str, Any], x: np.ndarray, scene: Scene) -> np.ndarray:
    """Variance (R,) of a new run's log loss at features x about what is expected."""
    phi, rows = part["phi"], part["x"]
    noise = np.exp(2 * phi[1]) + LEAST_NOISE**2
    of_all = np.concatenate([rows, x])
    both = _kernel(of_all, rows, phi)
    for kind, spread in part["shared"].items():
        label = _labels(of_all, _columns(scene)[kind])
        both += spread * (label[:, None] == label[: len(rows)])
    known, cross = both[: len(rows)], both[len(rows) :]
    lower = cholesky(known + noise * np.eye(len(rows)), lower=True)
    explained = (solve_triangular(lower, cross.T, lower=True) ** 2).sum(0)
    alone = np.exp(2 * phi[0]) + sum(part["shared"].values()) + noise
    return np.maximum(alone - explained, noise)
