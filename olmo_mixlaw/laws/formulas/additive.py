"""The additive and joint laws: the mixture adds a term of its own to Chinchilla's.

    additive   L = E + 1 / sum_j C_j h_j^gamma_j + A N^-alpha + B D^-beta
    joint      the same with  A -> (sum_j a_j h_j)^mu,  B -> (sum_j b_j h_j)^nu

Shukor et al. 2025 (arXiv 2507.09404).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from olmo_mixlaw.laws.formulas.shares import linear_share, power_parameters, power_share
from olmo_mixlaw.laws.formulas.terms import SeparableLaw, add_scaling, scaling_terms, slopes_for
from olmo_mixlaw.laws.law import (
    EXPONENT_D,
    EXPONENT_N,
    Inputs,
    Layout,
    Parameter,
    Scene,
    exponent,
    floor,
    layout_of,
)

# Of the loss amid the table, the part that the prior gives to each term.
TERM_SHARE = 0.15
GAMMA_PRIOR = (float(np.log(0.4)), 0.7)
# The joint law's powers: 1 makes A and B linear in the mixture.
JOINT_POWER = (float(np.log(0.5)), 0.7)


@dataclass(frozen=True)
class Additive(SeparableLaw):
    """Shukor's additive law; a size or data term that the table can't show is left out."""

    name = "additive"
    formula = "E + 1/sum_j C_j h_j^gamma_j + A N^-alpha + B D^-beta"
    source = "arXiv 2507.09404"

    def _layout(self, scene: Scene, target: int = 0) -> Layout:
        layout = Layout()
        add_scaling(layout, scene, target, scene.has_n, scene.has_d)
        self._add_mixture(layout, scene, target)
        return layout

    def _add_mixture(self, layout: Layout, scene: Scene, target: int) -> None:
        own = int(scene.own[target])
        # The sum is about 1 / (the term); other domains than the own help less.
        own_mean = -np.log(TERM_SHARE * float(scene.low[target]))
        means = [own_mean - (2.0 if own >= 0 and j != own else 0.0) for j in range(scene.n_domains)]
        layout.add(
            "C",
            [
                Parameter(f"C[{name}]", "1/nats", mean, 2.0, -15.0, 15.0)
                for name, mean in zip(scene.domains, means, strict=True)
            ],
        )
        layout.add("gamma", power_parameters("gamma", scene, GAMMA_PRIOR))

    def _scaling(
        self, theta: np.ndarray, layout: Layout, inputs: Inputs, slopes: np.ndarray | None
    ) -> np.ndarray:
        return scaling_terms(theta, layout, inputs, slopes)

    def evaluate(
        self, theta: np.ndarray, inputs: Inputs, scene: Scene, jacobian: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        layout = layout_of(self, scene)
        slopes = slopes_for(theta, inputs, jacobian)
        loss = self._scaling(theta, layout, inputs, slopes)
        share = power_share(theta, layout, ("C", "gamma"), inputs, jacobian)
        term = np.exp(-share.log)
        if slopes is not None:
            slopes[:, :, layout.slices["C"]] = -term[:, :, None] * share.by_worth
            slopes[:, :, layout.slices["gamma"]] = -term[:, :, None] * share.by_power
        return loss + term, slopes

    def ratio_gradient(self, theta: np.ndarray, inputs: Inputs, scene: Scene) -> np.ndarray:
        layout = layout_of(self, scene)
        share = power_share(theta, layout, ("C", "gamma"), inputs, False, True)
        assert share.by_ratio is not None
        return -np.exp(-share.log)[:, :, None] * share.by_ratio


@dataclass(frozen=True)
class Joint(Additive):
    """Shukor's joint law: the size and data terms depend on the mixture too."""

    name = "joint"
    formula = (
        "E + 1/sum_j C_j h_j^gamma_j + (sum_j a_j h_j)^mu N^-alpha + (sum_j b_j h_j)^nu D^-beta"
    )
    n_starts = 4

    def _layout(self, scene: Scene, target: int = 0) -> Layout:
        layout = Layout()
        layout.add("E", floor(scene, target))
        for has, exp, worth, power, prior in (
            (scene.has_n, "alpha", "a", "mu", EXPONENT_N),
            (scene.has_d, "beta", "b", "nu", EXPONENT_D),
        ):
            if has:
                layout.add(exp, exponent(exp, prior))
                layout.add(power, exponent(power, JOINT_POWER))
                # (sum_j a_j h_j)^mu is TERM_SHARE of the loss when mu is as the prior has it.
                middle = np.log(TERM_SHARE * float(scene.low[target])) / np.exp(JOINT_POWER[0])
                layout.add(
                    worth,
                    [
                        Parameter(f"{worth}[{name}]", "nats^(1/power)", middle, 1.5, -20.0, 20.0)
                        for name in scene.domains
                    ],
                )
        self._add_mixture(layout, scene, target)
        return layout

    def _scaling(
        self, theta: np.ndarray, layout: Layout, inputs: Inputs, slopes: np.ndarray | None
    ) -> np.ndarray:
        total = scaling_terms(theta, layout, inputs, slopes)  # E alone
        for exp, worth, power, log_x in (
            ("alpha", "a", "mu", inputs.log_n),
            ("beta", "b", "nu", inputs.log_d),
        ):
            if exp not in layout.slices:
                continue
            share = linear_share(theta, layout, worth, inputs, slopes is not None)
            mu = np.exp(theta[:, layout.slices[power]])
            fall = np.exp(theta[:, layout.slices[exp]]) * log_x
            term = np.exp(np.clip(mu * share.log - fall, -200, 60))
            total += term
            if slopes is not None:
                slopes[:, :, layout.slices[exp].start] = -term * fall
                slopes[:, :, layout.slices[power].start] = term * mu * share.log
                slopes[:, :, layout.slices[worth]] = (term * mu)[:, :, None] * share.by_worth
        return total

    def ratio_gradient(self, theta: np.ndarray, inputs: Inputs, scene: Scene) -> np.ndarray:
        layout = layout_of(self, scene)
        total = super().ratio_gradient(theta, inputs, scene)
        for exp, worth, power, log_x in (
            ("alpha", "a", "mu", inputs.log_n),
            ("beta", "b", "nu", inputs.log_d),
        ):
            if exp in layout.slices:
                share = linear_share(theta, layout, worth, inputs, False, True)
                mu = np.exp(theta[:, layout.slices[power]])
                fall = np.exp(theta[:, layout.slices[exp]]) * log_x
                term = np.exp(np.clip(mu * share.log - fall, -200, 60))
                total = total + (term * mu)[:, :, None] * share.by_ratio
        return total
