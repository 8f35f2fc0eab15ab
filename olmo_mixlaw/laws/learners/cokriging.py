"""A law plus what it missed, all targets learnt together: kriging with one kernel for all.

    log L = log base law(h, N, D) + r(h, N, D) + u_budget + u_run

Like `kriging`, but the targets' residuals share a kernel, linear and Matern over the square roots
of the ratios: a swarm of a few dozen runs says enough of a kernel for a hundred targets together,
though not for each alone. Over `no_mixture` the process learns the mixture's whole effect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.laws.formulas.no_mixture import NoMixture
from olmo_mixlaw.laws.law import Inputs, Scene, Surface
from olmo_mixlaw.laws.learners.coregion import Coregion, Kernel, fit_coregion
from olmo_mixlaw.laws.learners.process import Groups
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

# Ratios enter as sqrt(h + SOFT): the slope at h = 0 stays finite.
SOFT = 1e-4
# Mixtures are evaluated in blocks that keep slopes below this many numbers.
SLOPE_NUMBERS = 2_000_000


@dataclass(frozen=True)
class CoKriging(Residual):
    """The law `base` with a process over the residuals of all targets at once."""

    name = "cokriging"
    formula = (
        "base law x exp(GP(sqrt h, log N, log D) + shared effects), one kernel for all targets"
    )
    source = "coregionalisation (Alvarez, Rosasco & Lawrence 2012)"
    base: str = NoMixture.name

    def learn(self, base: Fit, design: Design, seed: int) -> tuple[dict[str, Any], np.ndarray]:
        x = _features(inputs_of(design, base.scene), base.scene)
        groups = telling(x, groups_of(base.scene))
        process = fit_coregion(x, missed(base, design), groups, np.random.default_rng(seed))
        return _written(process), process.spread

    def relearn(self, fit: Fit, base: Fit, design: Design, counts: np.ndarray) -> dict[str, Any]:
        process, x = _process(fit), _features(inputs_of(design, fit.scene), fit.scene)
        return _written(process.refitted(x, missed(base, design), _groups(fit, process), counts))

    def predict(self, fit: Fit, inputs: Inputs) -> np.ndarray:
        process, x = _process(fit), _features(inputs, fit.scene)
        residual = process.mean(x) + process.effects(x, _groups(fit, process))
        return below(fit, inputs) * np.exp(residual)

    def gradient(self, fit: Fit, inputs: Inputs) -> np.ndarray:
        """Of the smooth parts: what a run or a budget shares has no slope by the ratios."""
        base, process = fit.state["base"], _process(fit)
        by_ratio = _by_ratio(process, _features(inputs, fit.scene), fit.scene)
        slope = base.law.gradient(base, inputs) / below(fit, inputs)[:, :, None]
        return self.predict(fit, inputs)[:, :, None] * (slope + by_ratio)

    def count(self, fit: Fit) -> int:
        """Those of the base law, and the scales of the process."""
        return fit.state["base"].n_parameters + _process(fit).n_scales

    def variance(self, fit: Fit, inputs: Inputs) -> np.ndarray:
        process = _process(fit)
        return process.variance(_features(inputs, fit.scene), _groups(fit, process))

    def blocks(self, fit: Fit, n_params: float, n_tokens: float) -> tuple[Surface, int]:
        process, scene = _process(fit), fit.scene
        one = _features(scene.inputs(fit.mixtures[:1], n_params, n_tokens), scene)
        budget = {k: c for k, c in _groups(fit, process).items() if k == BUDGET}
        shared = process.effects(one, budget)

        def residual(ratios: np.ndarray, slopes: bool) -> tuple[np.ndarray, np.ndarray | None]:
            x = _features(scene.inputs(ratios, n_params, n_tokens), scene)
            return process.mean(x) + shared, _by_ratio(process, x, scene) if slopes else None

        width = max(one.shape[1] * max(len(process.noise), scene.n_targets), len(process.x))
        return residual, max(1, SLOPE_NUMBERS // width)


def _features(inputs: Inputs, scene: Scene) -> np.ndarray:
    return features(np.sqrt(inputs.ratios + SOFT), inputs, scene)


def _groups(fit: Fit, process: Coregion) -> Groups:
    return {k: c for k, c in groups_of(fit.scene).items() if k in process.kernel.shared}


def _by_ratio(process: Coregion, x: np.ndarray, scene: Scene) -> np.ndarray:
    """The derivative of the process's smooth part by the ratios, (R, T, K)."""
    k = scene.n_domains
    return process.slope(x)[:, :, :k] * (0.5 / x[:, None, :k])


def _written(process: Coregion) -> dict[str, Any]:
    return {"process": {**vars(process), "kernel": vars(process.kernel)}}


def _process(fit: Fit) -> Coregion:
    state = dict(fit.state["process"])
    return Coregion(**{**state, "kernel": Kernel(**state["kernel"])})
