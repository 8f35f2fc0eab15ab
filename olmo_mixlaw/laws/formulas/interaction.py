"""The interaction law (C): size makes some domains more useful to a target than others.

    L = E + 1 / sum_j C_j h_j^gamma_j N^nu_j + B D^-beta

In the manner of CAMEL (arXiv 2603.08022), whose own equation is not public.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from olmo_mixlaw.laws.formulas.additive import Additive
from olmo_mixlaw.laws.formulas.shares import Share, power_share
from olmo_mixlaw.laws.formulas.terms import add_scaling
from olmo_mixlaw.laws.law import Inputs, Layout, Parameter, Scene, layout_of

NU_PRIOR = (0.3, 0.3)


@dataclass(frozen=True)
class Interaction(Additive):
    """The additive law with N inside the mixture's term; without sizes it is `additive`."""

    name = "interaction"
    formula = "E + 1/sum_j C_j h_j^gamma_j N^nu_j + B D^-beta"
    source = "family C, after arXiv 2603.08022"

    def _layout(self, scene: Scene, target: int = 0) -> Layout:
        layout = Layout()
        add_scaling(layout, scene, target, False, scene.has_d)
        self._add_mixture(layout, scene, target)
        if scene.has_n:
            mean, sd = NU_PRIOR
            layout.add(
                "nu",
                [
                    Parameter(f"nu[{name}]", "1", mean, sd, -1.5, 3.0, log=False)
                    for name in scene.domains
                ],
            )
        return layout

    def _shared(
        self, theta: np.ndarray, layout: Layout, inputs: Inputs, slopes: bool, ratios: bool
    ) -> Share:
        """The share with N^nu in it: worth is C_j N^nu_j, so sizes are done one at a time."""
        if "nu" not in layout.slices:
            return power_share(theta, layout, ("C", "gamma"), inputs, slopes, ratios)
        whole: dict[str, list[np.ndarray]] = {
            "log": [],
            "by_worth": [],
            "by_power": [],
            "by_ratio": [],
        }
        sizes, which = np.unique(inputs.log_n, return_inverse=True)
        order = np.argsort(which, kind="stable")
        for s, size in enumerate(sizes):
            moved = theta.copy()
            moved[:, layout.slices["C"]] += size * theta[:, layout.slices["nu"]]
            part = power_share(
                moved, layout, ("C", "gamma"), inputs.take(order[which[order] == s]), slopes, ratios
            )
            for key, values in whole.items():
                if getattr(part, key) is not None:
                    values.append(getattr(part, key))
        back = np.argsort(order, kind="stable")
        joined = {
            key: np.concatenate(values, axis=1)[:, back] if values else None
            for key, values in whole.items()
        }
        log = joined["log"]
        assert log is not None
        return Share(log, joined["by_worth"], joined["by_power"], joined["by_ratio"])

    def evaluate(
        self, theta: np.ndarray, inputs: Inputs, scene: Scene, jacobian: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        layout = layout_of(self, scene)
        slopes = np.empty((len(theta), len(inputs), theta.shape[1])) if jacobian else None
        loss = self._scaling(theta, layout, inputs, slopes)
        share = self._shared(theta, layout, inputs, jacobian, False)
        term = np.exp(-share.log)
        if slopes is not None:
            assert share.by_worth is not None
            by_worth = -term[:, :, None] * share.by_worth
            slopes[:, :, layout.slices["C"]] = by_worth
            slopes[:, :, layout.slices["gamma"]] = -term[:, :, None] * share.by_power
            if "nu" in layout.slices:
                slopes[:, :, layout.slices["nu"]] = by_worth * inputs.log_n[:, None]
        return loss + term, slopes

    def ratio_gradient(self, theta: np.ndarray, inputs: Inputs, scene: Scene) -> np.ndarray:
        share = self._shared(theta, layout_of(self, scene), inputs, False, True)
        assert share.by_ratio is not None
        return -np.exp(-share.log)[:, :, None] * share.by_ratio
