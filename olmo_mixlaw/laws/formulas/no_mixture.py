"""Loss as if the mixture did not matter: the baseline that every mixture law must beat.

L = E + A N^-alpha + B D^-beta        (Hoffmann et al. 2022)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from olmo_mixlaw.laws.formulas.terms import SeparableLaw, add_scaling, scaling_terms, slopes_for
from olmo_mixlaw.laws.law import Inputs, Layout, Scene, layout_of


@dataclass(frozen=True)
class NoMixture(SeparableLaw):
    """Chinchilla's law, one a target; a term whose quantity doesn't vary is left out."""

    name = "no_mixture"
    formula = "E + A N^-alpha + B D^-beta"
    source = "arXiv 2203.15556"
    uses_mixture = False

    def _layout(self, scene: Scene, target: int = 0) -> Layout:
        layout = Layout()
        add_scaling(layout, scene, target, scene.has_n, scene.has_d)
        return layout

    def evaluate(
        self, theta: np.ndarray, inputs: Inputs, scene: Scene, jacobian: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        slopes = slopes_for(theta, inputs, jacobian)
        return scaling_terms(theta, layout_of(self, scene), inputs, slopes), slopes

    def ratio_gradient(self, theta: np.ndarray, inputs: Inputs, scene: Scene) -> np.ndarray:
        return np.zeros((len(theta), *inputs.ratios.shape))
