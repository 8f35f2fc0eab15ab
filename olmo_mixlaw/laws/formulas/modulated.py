"""The modulated law: one effective share bends every term, each with its own power.

    L = E + G S^-a + A N^-alpha S^-b + B D^-beta S^-c,      S = sum_j T_j h_j^g_j

Between `additive` (b = c = 0) and `power_transfer` (G = b = 0, c = beta), with one set of worths:
small enough for short tables, and the mixture's pull still changes with scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from olmo_mixlaw.laws.formulas.shares import Share, power_parameters, power_share, worth_parameters
from olmo_mixlaw.laws.formulas.terms import SeparableLaw, slopes_for
from olmo_mixlaw.laws.law import (
    EXPONENT_D,
    EXPONENT_N,
    SIZE_TERM,
    Inputs,
    Layout,
    Parameter,
    Scene,
    amplitude,
    exponent,
    floor,
    layout_of,
)

# Powers of the share in the mixture's own term and in the two scale terms (normal, not log).
OWN_POWER = (float(np.log(0.3)), 0.7)
BEND = (0.05, 0.15)


@dataclass(frozen=True)
class Modulated(SeparableLaw):
    """One share, three powers; terms that the table can't show are left out."""

    name = "modulated"
    formula = "E + G S^-a + A N^-alpha S^-b + B D^-beta S^-c, S = sum_j T_j h_j^g_j"
    source = "between arXiv 2507.09404 and transfer"

    def _layout(self, scene: Scene, target: int = 0) -> Layout:
        layout = Layout()
        layout.add("E", floor(scene, target))
        layout.add("G", amplitude("G", scene, target, 0.15))
        layout.add("a", exponent("a", OWN_POWER))
        for has, scale, power, bend, prior, share in (
            (scene.has_n, "A", "alpha", "b", EXPONENT_N, SIZE_TERM),
            (scene.has_d, "B", "beta", "c", EXPONENT_D, (0.15, 1.2)),
        ):
            if has:
                layout.add(scale, amplitude(scale, scene, target, *share))
                layout.add(power, exponent(power, prior))
                layout.add(bend, Parameter(bend, "1", *BEND, -1.0, 2.0, log=False))
        layout.add("T", worth_parameters("T", scene, target))
        layout.add("g", power_parameters("g", scene))
        return layout

    def _terms(
        self,
        theta: np.ndarray,
        layout: Layout,
        inputs: Inputs,
        share: Share,
        slopes: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Sum of the terms (M, R) and its slope by log S; fills all columns but T's and g's."""
        at = layout.slices
        a = np.exp(theta[:, at["a"]])
        term = np.exp(np.clip(theta[:, at["G"]] - a * share.log, -200, 60))
        total, by_share = term.copy(), -a * term
        if slopes is not None:
            slopes[:, :, at["G"].start] = term
            slopes[:, :, at["a"].start] = -term * a * share.log
        for scale, power, bend, log_x in (
            ("A", "alpha", "b", inputs.log_n),
            ("B", "beta", "c", inputs.log_d),
        ):
            if scale not in at:
                continue
            fall = np.exp(theta[:, at[power]]) * log_x
            b = theta[:, at[bend]]
            term = np.exp(np.clip(theta[:, at[scale]] - fall - b * share.log, -200, 60))
            total += term
            by_share -= b * term
            if slopes is not None:
                slopes[:, :, at[scale].start] = term
                slopes[:, :, at[power].start] = -term * fall
                slopes[:, :, at[bend].start] = -term * share.log
        return total, by_share

    def evaluate(
        self, theta: np.ndarray, inputs: Inputs, scene: Scene, jacobian: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        layout = layout_of(self, scene)
        slopes = slopes_for(theta, inputs, jacobian)
        share = power_share(theta, layout, ("T", "g"), inputs, jacobian)
        total, by_share = self._terms(theta, layout, inputs, share, slopes)
        bottom = np.exp(theta[:, layout.slices["E"]])
        if slopes is not None:
            slopes[:, :, layout.slices["E"].start] = bottom
            slopes[:, :, layout.slices["T"]] = by_share[:, :, None] * share.by_worth
            slopes[:, :, layout.slices["g"]] = by_share[:, :, None] * share.by_power
        return bottom + total, slopes

    def ratio_gradient(self, theta: np.ndarray, inputs: Inputs, scene: Scene) -> np.ndarray:
        layout = layout_of(self, scene)
        share = power_share(theta, layout, ("T", "g"), inputs, False, True)
        _, by_share = self._terms(theta, layout, inputs, share, None)
        return by_share[:, :, None] * share.by_ratio
