"""A law plus what it missed: a Gaussian process on the residuals of log loss.

    log L = log base law(h, N, D) + r(h, N, D) + u_budget + u_run

Where many mixtures were tried, the residuals of any short formula have a shape that can be
learnt; where few were, or far from them, r fades to 0 and the law is left as it was. Beyond the
largest size or budget r stays as it was at that edge: the formula alone extrapolates. The u are
what checkpoints share: the runs of one budget saw the same stretch of text, and a run keeps its
luck. Each target has its own scales (`cokriging`: one kernel for all).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.laws.formulas.modulated import Modulated
from olmo_mixlaw.laws.law import Inputs, Scene, Surface
from olmo_mixlaw.laws.learners.process import ROOT5, Process, fit_process, labels, refitted
from olmo_mixlaw.laws.learners.residual import (
    BUDGET,
    Residual,
    below,
    features,
    groups_of,
    inputs_of,
    missed,
    telling,
)
from olmo_mixlaw.runs import Design

# Ratios enter as log(h + SOFT): equal steps from 1 % to 10 % and from 10 % to 100 %.
SOFT = 0.01
# Mixtures are evaluated in blocks that keep the kernel below this many numbers.
KERNEL_NUMBERS = 2_000_000
# Up to so many losses it is quick enough to be compared unasked.
MOST_LOSSES = 20_000


@dataclass(frozen=True)
class Kriging(Residual):
    """The law `base` with a Gaussian process over its residuals, a process a target."""

    name = "kriging"
    formula = "base law x exp(GP(log(h + .01), log N, log D) + shared effects)"
    source = "Rasmussen & Williams 2006"
    base: str = Modulated.name

    def learn(self, base: Fit, design: Design, seed: int) -> tuple[dict[str, Any], np.ndarray]:
        x, residual = _features(inputs_of(design, base.scene), base.scene), missed(base, design)
        groups = telling(x, groups_of(base.scene))
        shared = {kind: labels(x, columns) for kind, columns in groups.items()}
        rng = np.random.default_rng(seed)
        found: list[Process] = []
        for t in range(base.scene.n_targets):
            rows = np.flatnonzero(np.isfinite(residual[:, t]))
            alike = {kind: label[rows] for kind, label in shared.items()}
            start = found[-1] if found else None
            noise = float(base.noise[t])
            found.append(fit_process(x[rows], residual[rows, t], alike, noise, start, rng))
        return _written(found), np.array([process.noise for process in found])

    def relearn(self, fit: Fit, base: Fit, design: Design, counts: np.ndarray) -> dict[str, Any]:
        rows = np.flatnonzero(counts > 0)
        x = _features(inputs_of(design.take(rows), fit.scene), fit.scene)
        residual = missed(base, design.take(rows))
        shared = {kind: labels(x, columns) for kind, columns in groups_of(fit.scene).items()}
        found = []
        for t, process in enumerate(_state(fit)):
            seen = np.isfinite(residual[:, t])
            alike = {kind: shared[kind][seen] for kind in process.shared}
            found.append(refitted(process, x[seen], residual[seen, t], alike, counts[rows][seen]))
        return _written(found)

    def predict(self, fit: Fit, inputs: Inputs) -> np.ndarray:
        return below(fit, inputs) * np.exp(_residual(fit, inputs))

    def gradient(self, fit: Fit, inputs: Inputs) -> np.ndarray:
        """Of the smooth parts: what a run or a budget shares has no slope by the ratios."""
        base = fit.state["base"]
        x = _features(inputs, fit.scene)
        by_feature = np.stack([p.slope(x) for p in _state(fit)], axis=1)  # (R, T, F)
        by_ratio = by_feature[:, :, : fit.scene.n_domains] / (inputs.ratios + SOFT)[:, None]
        slope = base.law.gradient(base, inputs) + below(fit, inputs)[:, :, None] * by_ratio
        return np.exp(_residual(fit, inputs))[:, :, None] * slope

    def count(self, fit: Fit) -> int:
        """Those of the base law, and the scales of the processes."""
        return fit.state["base"].n_parameters + sum(p.n_scales for p in _state(fit))

    def variance(self, fit: Fit, inputs: Inputs) -> np.ndarray:
        x, groups = _features(inputs, fit.scene), groups_of(fit.scene)
        return np.stack([p.variance(x, groups) for p in _state(fit)], axis=1)

    def suits(self, design: Design) -> bool:
        return int(np.isfinite(design.losses).sum()) <= MOST_LOSSES

    def blocks(self, fit: Fit, n_params: float, n_tokens: float) -> tuple[Surface, int]:
        one = fit.scene.inputs(fit.mixtures[:1], n_params, n_tokens)
        residual, width = _residual_surface(_state(fit), _features(one, fit.scene), fit.scene)
        return residual, max(1, KERNEL_NUMBERS // width)


def _features(inputs: Inputs, scene: Scene) -> np.ndarray:
    return features(np.log(inputs.ratios + SOFT), inputs, scene)


def _written(processes: list[Process]) -> dict[str, Any]:
    return {"processes": [vars(process) for process in processes]}


def _state(fit: Fit) -> list[Process]:
    return [Process(**values) for values in fit.state["processes"]]


def _residual(fit: Fit, inputs: Inputs) -> np.ndarray:
    """What is added to the log loss of the base law, (R, T)."""
    x, groups = _features(inputs, fit.scene), groups_of(fit.scene)
    return np.stack([p.mean(x) + p.effects(x, groups) for p in _state(fit)], axis=1)


def _residual_surface(
    processes: list[Process], here: np.ndarray, scene: Scene
) -> tuple[Surface, int]:
    """The residuals (S, T) at one size and budget, and how many numbers a mixture costs.

    `here` (1, F) are features there; those of the ratios are free.
    """
    k = scene.n_domains
    budget = {kind: c for kind, c in groups_of(scene).items() if kind == BUDGET}
    shared = np.array([p.effects(here, budget)[0] for p in processes])
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
