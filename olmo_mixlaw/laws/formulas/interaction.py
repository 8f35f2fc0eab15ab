"""The interaction law (C): size makes some domains more useful to a target than others.

    L = E + 1 / sum_j C_j h_j^gamma_j N^nu_j + B D^-beta

In the manner of CAMEL (arXiv 2603.08022), whose own equation is not public.
"""

from __future__ import annotations

from dataclasses import dataclass

from olmo_mixlaw.laws.formulas.additive import MIXTURE, add_mixture
from olmo_mixlaw.laws.formulas.parameters import Layout, each, scaling
from olmo_mixlaw.laws.formulas.shares import Worths
from olmo_mixlaw.laws.formulas.terms import DATA, FLOOR, SumOfTerms
from olmo_mixlaw.laws.law import Scene

NU_PRIOR = (0.3, 0.3)


@dataclass(frozen=True)
class Interaction(SumOfTerms):
    """The additive law with N inside the mixture's term; without sizes it is `additive`."""

    name = "interaction"
    formula = "E + 1/sum_j C_j h_j^gamma_j N^nu_j + B D^-beta"
    source = "family C, after arXiv 2603.08022"
    terms = (FLOOR, DATA, MIXTURE)
    shares = (Worths("S", "C", "gamma", drift="nu"),)

    def layout(self, scene: Scene, target: int = 0) -> Layout:
        layout = scaling(scene, target, size=False)
        add_mixture(layout, scene, target)
        if scene.has_n:
            layout.add("nu", each("nu", scene.domains, "1", *NU_PRIOR, -1.5, 3.0, log=False))
        return layout
