"""BiMix: a domain's own share times a data term.

    L = A h_i^-a (B D^-b + C)        (Ge et al. 2024, arXiv 2405.14908)

Only the own share counts. The law is undefined at h_i = 0, so a share below `share_floor` counts
as that; a target that is no domain keeps the data term alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from olmo_mixlaw.laws.formulas.parameters import (
    DATA_SHARE,
    EXPONENT_D,
    Layout,
    amplitude,
    each,
    exponent,
    layout_of,
)
from olmo_mixlaw.laws.formulas.terms import Separable, power_term
from olmo_mixlaw.laws.law import Inputs, Parameter, Scene


@dataclass(frozen=True)
class BiMix(Separable):
    """BiMix, A absorbed into B and C."""

    name = "bimix"
    formula = "h_i^-a_i (B D^-b + C)"
    source = "arXiv 2405.14908"
    share_floor: float = 1e-3

    def layout(self, scene: Scene, target: int = 0) -> Layout:
        layout = Layout()
        share = 0.9 * float(scene.low[target])
        layout.add(
            "C", Parameter("C", "nats", np.log(share), 0.7, np.log(share) - 6, np.log(share) + 3)
        )
        if scene.has_d:
            layout.add("B", amplitude("B", scene, target, DATA_SHARE))
            layout.add("b", exponent("b", EXPONENT_D))
        # One exponent a domain, so that a target's own stands in its domain's place.
        own = int(scene.own[target])
        items = each("a", scene.domains, "1", np.log(0.05), 1.0, np.log(1e-4), 0.0)
        layout.add("a", [p if j == own else p.fixed(-30.0) for j, p in enumerate(items)])
        return layout

    def evaluate(
        self, theta: np.ndarray, inputs: Inputs, scene: Scene, jacobian: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        layout = layout_of(self, scene)
        slopes = np.zeros((len(theta), len(inputs), theta.shape[1])) if jacobian else None
        base = np.broadcast_to(layout.exp(theta, "C"), (len(theta), len(inputs)))
        if slopes is not None:
            slopes[:, :, layout.slices["C"].start] = base
        if "B" in layout.slices:
            base = base + power_term(theta, layout, ("B", "b"), inputs.log_d, slopes)
        power = layout.exp(theta, "a")
        log_h = np.log(np.maximum(inputs.ratios, self.share_floor))
        factor = np.exp(-(power @ log_h.T))
        if slopes is not None:
            slopes *= factor[:, :, None]
            bend = -(base * factor)[:, :, None] * power[:, None] * log_h
            slopes[:, :, layout.slices["a"]] = bend
        return base * factor, slopes

    def ratio_gradient(self, theta: np.ndarray, inputs: Inputs, scene: Scene) -> np.ndarray:
        loss, _ = self.evaluate(theta, inputs, scene)
        power = layout_of(self, scene).exp(theta, "a")
        above = inputs.ratios > self.share_floor
        slope = np.where(above, 1 / np.maximum(inputs.ratios, self.share_floor), 0.0)
        return -loss[:, :, None] * power[:, None] * slope
