"""AutoScale: every domain adds a power term in its own equivalent tokens.

    L = E + sum_j (u D (alpha_j + h_j))^-gamma_j        (Kang et al. 2024, AutoScale)

alpha_j are tokens, as a share of D, that the other domains stand in for; u is the unit of
tokens. A size term is added where sizes vary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from olmo_mixlaw.laws.formulas.parameters import Layout, each, layout_of, scaling
from olmo_mixlaw.laws.formulas.terms import FLOOR, LOG_RANGE, SIZE, SumOfTerms
from olmo_mixlaw.laws.law import Inputs, Parameter, Scene


@dataclass(frozen=True)
class AutoScale(SumOfTerms):
    """AutoScale's law for one size, with Chinchilla's N term for several."""

    name = "autoscale"
    formula = "E + A N^-alpha + sum_j (u D (alpha_j + h_j))^-gamma_j"
    source = "arXiv 2407.20177"
    terms = (FLOOR, SIZE)

    def layout(self, scene: Scene, target: int = 0) -> Layout:
        layout = scaling(scene, target, data=False)
        layout.add("u", Parameter("u", "1/D_ref", np.log(50.0), 3.0, -5.0, 30.0))
        layout.add(
            "shift", each("alpha", scene.domains, "share of D", np.log(0.1), 2.0, -12.0, 6.0)
        )
        layout.add(
            "gamma", each("gamma", scene.domains, "1", np.log(0.7), 1.0, np.log(1e-2), np.log(20.0))
        )
        return layout

    def _parts(
        self, theta: np.ndarray, layout: Layout, inputs: Inputs
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Terms, logs of equivalent tokens, gamma, alpha, alpha + h; (M, R, K) or (M, K)."""
        gamma = layout.exp(theta, "gamma")
        shift = layout.exp(theta, "shift")
        tokens = shift[:, None] + inputs.ratios
        log_tokens = theta[:, None, layout.slices["u"]] + inputs.log_d[:, None] + np.log(tokens)
        terms = np.exp(np.clip(-gamma[:, None] * log_tokens, *LOG_RANGE))
        return terms, log_tokens, gamma, shift, tokens

    def evaluate(
        self, theta: np.ndarray, inputs: Inputs, scene: Scene, jacobian: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        layout = layout_of(self, scene)
        loss, slopes = super().evaluate(theta, inputs, scene, jacobian)
        terms, log_tokens, gamma, shift, tokens = self._parts(theta, layout, inputs)
        if slopes is not None:
            fall = -terms * gamma[:, None]
            slopes[:, :, layout.slices["u"].start] = fall.sum(-1)
            slopes[:, :, layout.slices["shift"]] = fall * shift[:, None] / tokens
            slopes[:, :, layout.slices["gamma"]] = fall * log_tokens
        return loss + terms.sum(-1), slopes

    def ratio_gradient(self, theta: np.ndarray, inputs: Inputs, scene: Scene) -> np.ndarray:
        terms, _, gamma, _, tokens = self._parts(theta, layout_of(self, scene), inputs)
        return -terms * gamma[:, None] / tokens
