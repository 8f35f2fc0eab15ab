"""Transfer laws: domains lend each other tokens, and a target sees its effective data.

    transfer         L = E + A N^-alpha + B (D S)^-beta,                S = sum_j T_j h_j
    power_transfer   the same with                                      S = sum_j T_j h_j^g_j
    two_pool         L = E + A N^-alpha S_A^-gamma + B (D S_B)^-beta,   S linear, one a term

T of the own domain is 1 and no T is negative. A target that is no domain of the mixture has only
borrowed tokens, so it needs no floor at h_i = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from olmo_mixlaw.laws.formulas.shares import (
    Share,
    linear_share,
    power_parameters,
    power_share,
    worth_parameters,
)
from olmo_mixlaw.laws.formulas.terms import (
    SeparableLaw,
    add_scaling,
    power_term,
    scaling_terms,
    slopes_for,
)
from olmo_mixlaw.laws.law import (
    EXPONENT_D,
    EXPONENT_N,
    SIZE_TERM,
    Inputs,
    Layout,
    Scene,
    amplitude,
    exponent,
    floor,
    layout_of,
)

# How strongly capacity follows the mixture in the two-pool law, a priori.
POOL_POWER = (float(np.log(0.1)), 1.0)


@dataclass(frozen=True)
class Transfer(SeparableLaw):
    """Effective tokens by transfer; the N term is left out where all runs have one size."""

    name = "transfer"
    formula = "E + A N^-alpha + B (D sum_j T_j h_j)^-beta"
    source = "effective data transferred (arXiv 2102.01293), in a mixture"

    def _layout(self, scene: Scene, target: int = 0) -> Layout:
        layout = Layout()
        add_scaling(layout, scene, target, scene.has_n, False)
        layout.add("S", amplitude("B", scene, target, 0.2))
        layout.add("beta", exponent("beta", EXPONENT_D))
        layout.add("T", worth_parameters("T", scene, target))
        return layout

    def _share(
        self, theta: np.ndarray, layout: Layout, inputs: Inputs, slopes: bool, ratios: bool = False
    ) -> Share:
        return linear_share(theta, layout, "T", inputs, slopes, ratios)

    def evaluate(
        self, theta: np.ndarray, inputs: Inputs, scene: Scene, jacobian: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        layout = layout_of(self, scene)
        slopes = slopes_for(theta, inputs, jacobian)
        loss = scaling_terms(theta, layout, inputs, slopes)
        share = self._share(theta, layout, inputs, jacobian)
        term = power_term(theta, layout, ("S", "beta"), inputs.log_d + share.log, slopes)
        if slopes is not None:
            slope = (-term * np.exp(theta[:, layout.slices["beta"]]))[:, :, None]
            slopes[:, :, layout.slices["T"]] = slope * share.by_worth
            if share.by_power is not None:
                slopes[:, :, layout.slices["g"]] = slope * share.by_power
        return loss + term, slopes

    def ratio_gradient(self, theta: np.ndarray, inputs: Inputs, scene: Scene) -> np.ndarray:
        layout = layout_of(self, scene)
        share = self._share(theta, layout, inputs, False, True)
        term = power_term(theta, layout, ("S", "beta"), inputs.log_d + share.log, None)
        beta = np.exp(theta[:, layout.slices["beta"]])
        return (-term * beta)[:, :, None] * share.by_ratio


@dataclass(frozen=True)
class PowerTransfer(Transfer):
    """Transfer whose worth wears off: g = 1 is `transfer`, beta = 1 nearly `additive`."""

    name = "power_transfer"
    formula = "E + A N^-alpha + B (D sum_j T_j h_j^g_j)^-beta"
    source = "between transfer and arXiv 2507.09404"

    def _layout(self, scene: Scene, target: int = 0) -> Layout:
        layout = super()._layout(scene, target)
        layout.add("g", power_parameters("g", scene))
        return layout

    def _share(
        self, theta: np.ndarray, layout: Layout, inputs: Inputs, slopes: bool, ratios: bool = False
    ) -> Share:
        return power_share(theta, layout, ("T", "g"), inputs, slopes, ratios)


@dataclass(frozen=True)
class TwoPool(SeparableLaw):
    """Transfer of capacity and of data, each with its own worths.

    With one size the first term keeps its share: what a domain gives to a target's capacity.
    """

    name = "two_pool"
    formula = "E + A N^-alpha (sum_j P_j h_j)^-gamma + B (D sum_j T_j h_j)^-beta"
    source = "transfer with a second pool"

    def _layout(self, scene: Scene, target: int = 0) -> Layout:
        layout = Layout()
        layout.add("E", floor(scene, target))
        layout.add("AS", amplitude("A", scene, target, *SIZE_TERM))
        if scene.has_n:
            layout.add("alpha", exponent("alpha", EXPONENT_N))
        layout.add("gamma", exponent("gamma", POOL_POWER))
        layout.add("P", worth_parameters("P", scene, target))
        layout.add("BS", amplitude("B", scene, target, 0.15))
        layout.add("beta", exponent("beta", EXPONENT_D))
        layout.add("T", worth_parameters("T", scene, target))
        return layout

    def _terms(
        self,
        theta: np.ndarray,
        layout: Layout,
        inputs: Inputs,
        slopes: np.ndarray | None,
        ratios: bool = False,
    ) -> tuple[np.ndarray, np.ndarray, Share, Share]:
        pool = linear_share(theta, layout, "P", inputs, slopes is not None, ratios)
        data = linear_share(theta, layout, "T", inputs, slopes is not None, ratios)
        gamma = np.exp(theta[:, layout.slices["gamma"]])
        log_first = theta[:, layout.slices["AS"]] - gamma * pool.log
        if "alpha" in layout.slices:
            fall = np.exp(theta[:, layout.slices["alpha"]]) * inputs.log_n
            log_first = log_first - fall
        first = np.exp(np.clip(log_first, -200, 60))
        second = power_term(theta, layout, ("BS", "beta"), inputs.log_d + data.log, slopes)
        if slopes is not None:
            slopes[:, :, layout.slices["AS"].start] = first
            slopes[:, :, layout.slices["gamma"].start] = -first * gamma * pool.log
            if "alpha" in layout.slices:
                slopes[:, :, layout.slices["alpha"].start] = -first * fall
            slopes[:, :, layout.slices["P"]] = (-first * gamma)[:, :, None] * pool.by_worth
            beta = np.exp(theta[:, layout.slices["beta"]])
            slopes[:, :, layout.slices["T"]] = (-second * beta)[:, :, None] * data.by_worth
        return first, second, pool, data

    def evaluate(
        self, theta: np.ndarray, inputs: Inputs, scene: Scene, jacobian: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        layout = layout_of(self, scene)
        slopes = slopes_for(theta, inputs, jacobian)
        bottom = scaling_terms(theta, layout, inputs, slopes)
        first, second, _, _ = self._terms(theta, layout, inputs, slopes)
        return bottom + first + second, slopes

    def ratio_gradient(self, theta: np.ndarray, inputs: Inputs, scene: Scene) -> np.ndarray:
        layout = layout_of(self, scene)
        first, second, pool, data = self._terms(theta, layout, inputs, None, ratios=True)
        gamma = np.exp(theta[:, layout.slices["gamma"]])
        beta = np.exp(theta[:, layout.slices["beta"]])
        by_pool = (-first * gamma)[:, :, None] * pool.by_ratio
        return by_pool + (-second * beta)[:, :, None] * data.by_ratio
