"""Laws that are exponential in the ratios.

    exponential   L = E + exp(k + t.h) + A N^-alpha + B D^-beta     (Ye et al., arXiv 2403.16952)
    log_linear    L = exp(c) + exp(t.h)                             (Olmix, arXiv 2602.12237)

As the ratios sum to 1, k only shifts every t_j; it is kept at the mean of the prior.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from olmo_mixlaw.laws.formulas.terms import SeparableLaw, add_scaling, scaling_terms, slopes_for
from olmo_mixlaw.laws.law import Inputs, Layout, Parameter, Scene, layout_of

TERM_SHARE = 0.2
SLOPE_SD = 2.0


@dataclass(frozen=True)
class Exponential(SeparableLaw):
    """Ye's mixing law with separable size and data terms."""

    name = "exponential"
    formula = "E + exp(k + sum_j t_j h_j) + A N^-alpha + B D^-beta"
    source = "arXiv 2403.16952"
    scaled = True

    def _layout(self, scene: Scene, target: int = 0) -> Layout:
        layout = Layout()
        n, d = (scene.has_n, scene.has_d) if self.scaled else (False, False)
        add_scaling(layout, scene, target, n, d)
        middle = float(np.log(TERM_SHARE * scene.low[target]))
        layout.add(
            "t",
            [
                Parameter(f"t[{name}]", "log nats", middle, SLOPE_SD, -40.0, 20.0, log=False)
                for name in scene.domains
            ],
        )
        return layout

    def evaluate(
        self, theta: np.ndarray, inputs: Inputs, scene: Scene, jacobian: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        layout = layout_of(self, scene)
        slopes = slopes_for(theta, inputs, jacobian)
        loss = scaling_terms(theta, layout, inputs, slopes)
        term = np.exp(np.clip(theta[:, layout.slices["t"]] @ inputs.ratios.T, -200, 60))
        if slopes is not None:
            slopes[:, :, layout.slices["t"]] = term[:, :, None] * inputs.ratios
        return loss + term, slopes

    def ratio_gradient(self, theta: np.ndarray, inputs: Inputs, scene: Scene) -> np.ndarray:
        slope = theta[:, layout_of(self, scene).slices["t"]]
        term = np.exp(np.clip(slope @ inputs.ratios.T, -200, 60))
        return term[:, :, None] * slope[:, None]


@dataclass(frozen=True)
class LogLinear(Exponential):
    """Olmix's law: one size and budget, so neither has a term."""

    name = "log_linear"
    formula = "exp(c) + exp(sum_j t_j h_j)"
    source = "arXiv 2602.12237"
    scaled = False
