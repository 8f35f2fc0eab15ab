"""Laws that are exponential in the ratios.

    exponential   L = E + exp(k + t.h) + A N^-alpha + B D^-beta     (Ye et al., arXiv 2403.16952)
    log_linear    L = exp(c) + exp(t.h)                             (Olmix, arXiv 2602.12237)

As the ratios sum to 1, k only shifts every t_j and is left out; E stands for exp(c).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from olmo_mixlaw.laws.formulas.parameters import Layout, each, scaling
from olmo_mixlaw.laws.formulas.shares import Pull
from olmo_mixlaw.laws.formulas.terms import DATA, FLOOR, SIZE, Power, SumOfTerms, Term
from olmo_mixlaw.laws.law import Scene

PULL_SHARE = 0.2
SLOPE_SD = 2.0
# exp(sum_j t_j h_j)
MIXTURE = Term((Power(("S",), sign=1.0),))


@dataclass(frozen=True)
class Exponential(SumOfTerms):
    """Ye's mixing law with separable size and data terms."""

    name = "exponential"
    formula = "E + exp(sum_j t_j h_j) + A N^-alpha + B D^-beta"
    source = "arXiv 2403.16952"
    terms = (FLOOR, SIZE, DATA, MIXTURE)
    shares = (Pull("S", "t"),)

    def layout(self, scene: Scene, target: int = 0) -> Layout:
        layout = scaling(scene, target)
        add_slopes(layout, scene, target)
        return layout


@dataclass(frozen=True)
class LogLinear(SumOfTerms):
    """Olmix's law: one size and budget, so neither has a term."""

    name = "log_linear"
    formula = "E + exp(sum_j t_j h_j)"
    source = "arXiv 2602.12237"
    terms = (FLOOR, MIXTURE)
    shares = (Pull("S", "t"),)

    def layout(self, scene: Scene, target: int = 0) -> Layout:
        layout = scaling(scene, target, size=False, data=False)
        add_slopes(layout, scene, target)
        return layout


def add_slopes(layout: Layout, scene: Scene, target: int) -> None:
    """t, about the same share of the loss for every domain."""
    middle = float(np.log(PULL_SHARE * scene.low[target]))
    layout.add("t", each("t", scene.domains, "log nats", middle, SLOPE_SD, -40.0, 20.0, log=False))
