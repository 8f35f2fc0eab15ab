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

from olmo_mixlaw.laws.formulas.parameters import (
    DATA_SHARE,
    EXPONENT_D,
    EXPONENT_N,
    SIZE_TERM,
    Layout,
    amplitude,
    exponent,
    scaling,
)
from olmo_mixlaw.laws.formulas.shares import Worths, power_parameters, worth_parameters
from olmo_mixlaw.laws.formulas.terms import FLOOR, SIZE, SumOfTerms, term
from olmo_mixlaw.laws.law import Scene

# How strongly capacity follows the mixture in the two-pool law, a priori.
POOL_POWER = (float(np.log(0.1)), 1.0)
# Of the loss amid the table, the part of the data term where it carries the mixture alone.
LENT_SHARE = 0.2


@dataclass(frozen=True)
class Transfer(SumOfTerms):
    """Effective tokens by transfer; the N term is left out where all runs have one size."""

    name = "transfer"
    formula = "E + A N^-alpha + B (D sum_j T_j h_j)^-beta"
    source = "effective data transferred (arXiv 2102.01293), in a mixture"
    terms = (FLOOR, SIZE, term("B", beta="d S"))
    shares = (Worths("S", "T"),)

    def layout(self, scene: Scene, target: int = 0) -> Layout:
        layout = scaling(scene, target, data=False)
        layout.add("B", amplitude("B", scene, target, LENT_SHARE))
        layout.add("beta", exponent("beta", EXPONENT_D))
        layout.add("T", worth_parameters("T", scene, target))
        return layout


@dataclass(frozen=True)
class PowerTransfer(Transfer):
    """Transfer whose worth wears off: g = 1 is `transfer`, beta = 1 nearly `additive`."""

    name = "power_transfer"
    formula = "E + A N^-alpha + B (D sum_j T_j h_j^g_j)^-beta"
    source = "between transfer and arXiv 2507.09404"
    shares = (Worths("S", "T", "g"),)

    def layout(self, scene: Scene, target: int = 0) -> Layout:
        layout = super().layout(scene, target)
        layout.add("g", power_parameters("g", scene))
        return layout


@dataclass(frozen=True)
class TwoPool(SumOfTerms):
    """Transfer of capacity and of data, each with its own worths.

    With one size the first term keeps its share: what a domain gives to a target's capacity.
    """

    name = "two_pool"
    formula = "E + A N^-alpha (sum_j P_j h_j)^-gamma + B (D sum_j T_j h_j)^-beta"
    source = "transfer with a second pool"
    terms = (FLOOR, term("A", gamma="P", alpha="n"), term("B", beta="d T"))
    shares = (Worths("P", "P"), Worths("T", "T"))

    def layout(self, scene: Scene, target: int = 0) -> Layout:
        layout = scaling(scene, target, size=False, data=False)
        layout.add("A", amplitude("A", scene, target, *SIZE_TERM))
        if scene.has_n:
            layout.add("alpha", exponent("alpha", EXPONENT_N))
        layout.add("gamma", exponent("gamma", POOL_POWER))
        layout.add("P", worth_parameters("P", scene, target))
        layout.add("B", amplitude("B", scene, target, DATA_SHARE))
        layout.add("beta", exponent("beta", EXPONENT_D))
        layout.add("T", worth_parameters("T", scene, target))
        return layout
