"""The modulated law: one effective share bends every term, each with its own power.

    L = E + G S^-a + A N^-alpha S^-b + B D^-beta S^-c,      S = sum_j T_j h_j^g_j

Between `additive` (b = c = 0) and `power_transfer` (G = b = 0, c = beta), with one set of worths:
small enough for short tables, and the mixture's pull still changes with scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from olmo_mixlaw.laws.formulas.parameters import Layout, amplitude, exponent, scaling
from olmo_mixlaw.laws.formulas.shares import Worths, power_parameters, worth_parameters
from olmo_mixlaw.laws.formulas.terms import FLOOR, SumOfTerms, term
from olmo_mixlaw.laws.law import Parameter, Scene

# Powers of the share in the mixture's own term and in the two scale terms (normal, not log).
OWN_POWER = (float(np.log(0.3)), 0.7)
BEND = (0.05, 0.15)
# Of the loss amid the table, the part of the mixture's own term.
OWN_SHARE = 0.15


@dataclass(frozen=True)
class Modulated(SumOfTerms):
    """One share, three powers; terms that the table can't show are left out."""

    name = "modulated"
    formula = "E + G S^-a + A N^-alpha S^-b + B D^-beta S^-c, S = sum_j T_j h_j^g_j"
    source = "between arXiv 2507.09404 and transfer"
    terms = (term("G", a="S"), term("A", alpha="n", b="S"), term("B", beta="d", c="S"), FLOOR)
    shares = (Worths("S", "T", "g"),)

    def layout(self, scene: Scene, target: int = 0) -> Layout:
        layout = scaling(scene, target, size=False, data=False)
        layout.add("G", amplitude("G", scene, target, OWN_SHARE))
        layout.add("a", exponent("a", OWN_POWER))
        layout.add_size(scene, target)
        if scene.has_n:
            layout.add("b", Parameter("b", "1", *BEND, -1.0, 2.0, log=False))
        layout.add_data(scene, target)
        if scene.has_d:
            layout.add("c", Parameter("c", "1", *BEND, -1.0, 2.0, log=False))
        layout.add("T", worth_parameters("T", scene, target))
        layout.add("g", power_parameters("g", scene))
        return layout
