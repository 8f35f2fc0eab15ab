"""The additive and joint laws: the mixture adds a term of its own to Chinchilla's.

    additive   L = E + 1 / sum_j C_j h_j^gamma_j + A N^-alpha + B D^-beta
    joint      the same with  A -> (sum_j a_j h_j)^mu,  B -> (sum_j b_j h_j)^nu

Shukor et al. 2025 (arXiv 2507.09404).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from olmo_mixlaw.laws.formulas.parameters import (
    EXPONENT_D,
    EXPONENT_N,
    Layout,
    each,
    exponent,
    scaling,
)
from olmo_mixlaw.laws.formulas.shares import Worths, power_parameters
from olmo_mixlaw.laws.formulas.terms import DATA, FLOOR, SIZE, Power, SumOfTerms, Term
from olmo_mixlaw.laws.law import Scene

# Of the loss amid the table, the part that the prior gives to each term.
TERM_SHARE = 0.15
GAMMA_PRIOR = (float(np.log(0.4)), 0.7)
# The joint law's powers: 1 makes A and B linear in the mixture.
JOINT_POWER = (float(np.log(0.5)), 0.7)
# 1 / sum_j C_j h_j^gamma_j
MIXTURE = Term((Power(("S",)),))


@dataclass(frozen=True)
class Additive(SumOfTerms):
    """Shukor's additive law; a size or data term that the table can't show is left out."""

    name = "additive"
    formula = "E + 1/sum_j C_j h_j^gamma_j + A N^-alpha + B D^-beta"
    source = "arXiv 2507.09404"
    terms = (FLOOR, SIZE, DATA, MIXTURE)
    shares = (Worths("S", "C", "gamma"),)

    def layout(self, scene: Scene, target: int = 0) -> Layout:
        layout = scaling(scene, target)
        add_mixture(layout, scene, target)
        return layout


@dataclass(frozen=True)
class Joint(SumOfTerms):
    """Shukor's joint law: the size and data terms depend on the mixture too."""

    name = "joint"
    formula = (
        "E + 1/sum_j C_j h_j^gamma_j + (sum_j a_j h_j)^mu N^-alpha + (sum_j b_j h_j)^nu D^-beta"
    )
    source = "arXiv 2507.09404"
    n_starts = 4
    terms = (
        FLOOR,
        Term((Power(("a",), "mu", 1.0), Power(("n",), "alpha"))),
        Term((Power(("b",), "nu", 1.0), Power(("d",), "beta"))),
        MIXTURE,
    )
    shares = (Worths("S", "C", "gamma"), Worths("a", "a"), Worths("b", "b"))

    def layout(self, scene: Scene, target: int = 0) -> Layout:
        layout = scaling(scene, target, size=False, data=False)
        # (sum_j a_j h_j)^mu is TERM_SHARE of the loss when mu is as the prior has it.
        middle = np.log(TERM_SHARE * float(scene.low[target])) / np.exp(JOINT_POWER[0])
        for has, exp, worth, power, prior in (
            (scene.has_n, "alpha", "a", "mu", EXPONENT_N),
            (scene.has_d, "beta", "b", "nu", EXPONENT_D),
        ):
            if has:
                layout.add(exp, exponent(exp, prior))
                layout.add(power, exponent(power, JOINT_POWER))
                layout.add(
                    worth, each(worth, scene.domains, "nats^(1/power)", middle, 1.5, -20.0, 20.0)
                )
        add_mixture(layout, scene, target)
        return layout


def add_mixture(layout: Layout, scene: Scene, target: int) -> None:
    """C and gamma: the sum is about 1 / (the term); other domains than the own help less."""
    own = int(scene.own[target])
    own_mean = -np.log(TERM_SHARE * float(scene.low[target]))
    means = [own_mean - (2.0 if own >= 0 and j != own else 0.0) for j in range(scene.n_domains)]
    layout.add("C", each("C", scene.domains, "1/nats", means, 2.0, -15.0, 15.0))
    layout.add("gamma", power_parameters("gamma", scene, GAMMA_PRIOR))
