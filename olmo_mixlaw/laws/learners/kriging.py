"""A law plus what it missed: a Gaussian process on the residuals of log loss.

    log L = log base law(h, N, D) + r(h, N, D) + u_budget + u_run

Where many mixtures were tried, the residuals of any short formula have a shape that can be
learnt; where few were, or far from them, r fades to 0 and the law is left as it was. Beyond the
largest size or budget r stays as it was at that edge: the formula alone extrapolates. The u are
what checkpoints share: the runs of one budget saw the same stretch of text, and a run keeps its
luck. Each target has its own scales.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.stats import norm

from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.laws.formulas.modulated import Modulated
from olmo_mixlaw.laws.law import BasedLaw, Inputs, Row, Scene, Settings, Surface
from olmo_mixlaw.laws.learners.process import ROOT5, Groups, Process, fit_process, labels
from olmo_mixlaw.runs import Design

# Ratios enter as log(h + SOFT): equal steps from 1 % to 10 % and from 10 % to 100 %.
SOFT = 0.01
# An effect needs this many rows a group, on average, to be told from noise.
LEAST_SHARING = 1.5
# Mixtures are evaluated in blocks that keep the kernel below this many numbers.
KERNEL_NUMBERS = 2_000_000
# Up to so many losses it is quick enough to be compared unasked.
MOST_LOSSES = 8000


@dataclass(frozen=True)
class Kriging(BasedLaw):
    """The law `base` with a Gaussian process over its residuals.

    The state of a fit holds the fit of the base law, and a process a target.
    """

    name = "kriging"
    formula = "base law x exp(GP(log(h + .01), log N, log D) + shared effects)"
    source = "Rasmussen & Williams 2006"
    has_gradient: ClassVar[bool] = True
    base: str = Modulated.name

    def fit(self, design: Design, *, seed: int, settings: Settings) -> Fit:
        base = self.below().fit(design, seed=seed, settings=settings)
        processes = _processes(base, design, seed)
        return Fit.learnt(
            self,
            design,
            state={"base": base, "processes": [vars(process) for process in processes]},
            noise=np.array([process.noise for process in processes]),
            seed=seed,
            settings=settings,
        )

    def parts(self, fit: Fit) -> list[Fit]:
        return [fit.state["base"]]

    def predict(self, fit: Fit, inputs: Inputs) -> np.ndarray:
        return _below(fit, inputs) * np.exp(_residual(fit, inputs))

    def gradient(self, fit: Fit, inputs: Inputs) -> np.ndarray:
        """Of the smooth parts: what a run or a budget shares has no slope by the ratios."""
        base = fit.state["base"]
        x = features(inputs, fit.scene)
        by_feature = np.stack([p.slope(x) for p in _state(fit)], axis=1)  # (R, T, F)
        by_ratio = by_feature[:, :, : fit.scene.n_domains] / (inputs.ratios + SOFT)[:, None]
        slope = base.law.gradient(base, inputs) + _below(fit, inputs)[:, :, None] * by_ratio
        return np.exp(_residual(fit, inputs))[:, :, None] * slope

    def count(self, fit: Fit) -> int:
        """Those of the base law, and the scales of the processes."""
        return fit.state["base"].n_parameters + sum(p.n_scales for p in _state(fit))

    def rows(self, fit: Fit) -> list[Row]:
        base = fit.state["base"]
        return base.law.rows(base)

    def half_width(self, fit: Fit, inputs: Inputs, level: float) -> np.ndarray:
        """From the process's own variance: a new run's luck, a new budget's, and the distance.

        The formula underneath counts as known, so with few runs these are too narrow; a stack's
        come from held-out errors and are not.
        """
        x, groups = features(inputs, fit.scene), _groups(fit.scene)
        variance = np.stack([p.variance(x, groups) for p in _state(fit)], axis=1)
        return float(norm.ppf(0.5 + level / 2)) * np.sqrt(variance)

    def suits(self, design: Design) -> bool:
        return int(np.isfinite(design.losses).sum()) <= MOST_LOSSES

    def surface(self, fit: Fit, n_params: float, n_tokens: float) -> Surface:
        """The base law times exp of the process, all targets in one batch of matrix products.

        All that a budget's runs share is in it; what a single run keeps should not draw an optimum.
        """
        base = fit.state["base"]
        below = base.law.surface(base, n_params, n_tokens)
        one = fit.scene.inputs(fit.mixtures[:1], n_params, n_tokens)
        residual, width = _residual_surface(_state(fit), features(one, fit.scene), fit.scene)
        step = max(1, KERNEL_NUMBERS // width)

        def at(ratios: np.ndarray, slopes: bool) -> tuple[np.ndarray, np.ndarray | None]:
            if len(ratios) > step:
                blocks = [at(ratios[i : i + step], slopes) for i in range(0, len(ratios), step)]
                gradient = [b for _, b in blocks if b is not None]
                losses = np.concatenate([a for a, _ in blocks])
                return losses, np.concatenate(gradient) if slopes else None
            middle, slope = below(ratios, slopes)
            value, by_ratio = residual(ratios, slopes)
            loss = middle * np.exp(value)
            if slope is None or by_ratio is None:
                return loss, None
            return loss, np.exp(value)[:, :, None] * slope + loss[:, :, None] * by_ratio

        return at


def features(inputs: Inputs, scene: Scene) -> np.ndarray:
    """log(h + SOFT), then log N and log D where they vary, up to the table's largest: (R, F)."""
    columns = [np.log(inputs.ratios + SOFT)]
    if scene.has_n:
        columns.append(np.minimum(inputs.log_n, np.log(scene.n_range[1] / scene.n_ref))[:, None])
    if scene.has_d:
        columns.append(np.minimum(inputs.log_d, np.log(scene.d_range[1] / scene.d_ref))[:, None])
    return np.concatenate(columns, axis=1)


def _groups(scene: Scene, kinds: Iterable[str] = ("run", "budget")) -> Groups:
    """The features that rows with an effect in common have in common."""
    k = scene.n_domains
    size = [k] if scene.has_n else []
    budget = [k + len(size)] if scene.has_d else []
    found = {"run": [*range(k), *size], "budget": budget} if budget else {}
    return {kind: columns for kind, columns in found.items() if kind in kinds}


def _processes(base: Fit, design: Design, seed: int) -> list[Process]:
    """A process a target, over what the base law missed."""
    inputs = base.scene.inputs(design.ratios, design.n_params, design.n_tokens)
    x = features(inputs, base.scene)
    residual = np.log(design.losses) - np.log(base.law.predict(base, inputs))
    shared = {kind: labels(x, columns) for kind, columns in _groups(base.scene).items()}
    shared = {
        k: label for k, label in shared.items() if len(x) >= LEAST_SHARING * (label.max() + 1)
    }
    rng = np.random.default_rng(seed)
    found: list[Process] = []
    for t in range(base.scene.n_targets):
        rows = np.flatnonzero(np.isfinite(residual[:, t]))
        groups = {kind: label[rows] for kind, label in shared.items()}
        start = found[-1] if found else None
        noise = float(base.noise[t])
        found.append(fit_process(x[rows], residual[rows, t], groups, noise, start, rng))
    return found


def _state(fit: Fit) -> list[Process]:
    return [Process(**values) for values in fit.state["processes"]]


def _below(fit: Fit, inputs: Inputs) -> np.ndarray:
    base = fit.state["base"]
    return base.law.predict(base, inputs)


def _residual(fit: Fit, inputs: Inputs) -> np.ndarray:
    """What is added to the log loss of the base law, (R, T)."""
    x, groups = features(inputs, fit.scene), _groups(fit.scene)
    return np.stack([p.mean(x) + p.effects(x, groups) for p in _state(fit)], axis=1)


def _residual_surface(
    processes: list[Process], here: np.ndarray, scene: Scene
) -> tuple[Surface, int]:
    """The residuals (S, T) at one size and budget, and how many numbers a mixture costs.

    `here` (1, F) are features there; those of the ratios are free.
    """
    k = scene.n_domains
    shared = np.array([p.effects(here, _groups(scene, ("budget",)))[0] for p in processes])
    here = here[0, k:]
    count, most = len(processes), max(len(p.x) for p in processes)
    rows, away = np.zeros((count, most, k)), np.zeros((count, most))
    weights, scale = np.zeros((count, most)), np.zeros((count, k))
    for t, process in enumerate(processes):
        x, phi, some = process.x, process.phi, slice(0, len(process.x))
        scale[t] = np.exp(-phi[2 : 2 + k])
        rows[t, some] = x[:, :k] * scale[t]
        away[t, some] = (((x[:, k:] - here) * np.exp(-phi[2 + k :])) ** 2).sum(1)
        weights[t, some] = process.weights * np.exp(2 * phi[0])
    fixed = away + (rows**2).sum(2)
    turned = np.ascontiguousarray(rows.transpose(0, 2, 1))

    def residual(ratios: np.ndarray, slopes: bool) -> tuple[np.ndarray, np.ndarray | None]:
        z = np.log(ratios + SOFT) * scale[:, None]  # (T, S, K)
        r2 = (z**2).sum(2)[:, :, None] + fixed[:, None] - 2 * z @ turned
        r = np.sqrt(np.maximum(r2, 0.0))
        decay = np.exp(-ROOT5 * r) * weights[:, None]
        value = (decay * (1 + ROOT5 * r + 5 / 3 * r**2)).sum(2) + shared[:, None]
        if not slopes:
            return value.T, None
        pull = decay * (1 + ROOT5 * r)
        by_z = -5 / 3 * (z * pull.sum(2)[:, :, None] - pull @ rows)
        return value.T, (by_z * scale[:, None]).transpose(1, 0, 2) / (ratios + SOFT)[:, None]

    return residual, count * most
