"""Transfer with one power a target: the shape that swarms of few runs and many sources can carry.

    shared_power    L = E + A N^-alpha + B (D sum_j T_j h_j^g)^-beta
    shrunk_powers   the same with g_j = g d_j, every d_j near 1

A power of its own for every source, as `power_transfer` has it, overfits where sources are many
and runs few. Shrunk to the target's, log g_j ~ N(log .8, .4^2 11' + v^2 I), they cost little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from olmo_mixlaw.laws.engine.formula import Formula
from olmo_mixlaw.laws.formulas.parameters import (
    EXPONENT_D,
    Layout,
    amplitude,
    each,
    exponent,
    scaling,
)
from olmo_mixlaw.laws.formulas.shares import POWER_PRIOR, Worths, own_worth_parameters
from olmo_mixlaw.laws.formulas.terms import FLOOR, SIZE, SumOfTerms, term
from olmo_mixlaw.laws.formulas.transfer import LENT_SHARE
from olmo_mixlaw.laws.law import Scene
from olmo_mixlaw.runs import Design

# At one budget beta says only how a loss bends with the mixture, and swarms of 48 to 384 runs want
# it small (cross-validation on three of them); where budgets vary it is the data exponent.
EXPONENT_AT_ONE_BUDGET = (float(np.log(0.1)), 0.3)
# Spreads of log worth to choose from by the evidence. With few runs less is unsafe.
WORTH_SPREADS = (1.0, 1.5)
# With more sources, departures cost far more time than they earn (64 sources: no less error).
MOST_SOURCES = 40
# Spread of a source's log power about the target's.
POWER_SPREAD = 0.2


@dataclass(frozen=True)
class SharedPower(SumOfTerms):
    """Transfer whose worths wear off alike; `spread` is the prior sd of a log worth.

    With `spread` 0 the likelier of `WORTH_SPREADS` is taken, by the evidence of all targets, and
    the law of the fit says which.
    """

    name = "shared_power"
    formula = "E + A N^-alpha + B (D sum_j T_j h_j^g)^-beta"
    source = "transfer (arXiv 2102.01293) with one power a target"
    terms = (FLOOR, SIZE, term("B", beta="d S"))
    shares = (Worths("S", "T", "g"),)
    n_starts: ClassVar[int] = 1
    spread: float = 0.0

    def candidates(self) -> Sequence[Formula]:
        if self.spread:
            return (self,)
        return [replace(self, spread=spread) for spread in WORTH_SPREADS]

    def layout(self, scene: Scene, target: int = 0) -> Layout:
        layout = scaling(scene, target, data=False)
        layout.add("B", amplitude("B", scene, target, LENT_SHARE))
        beta = EXPONENT_D if scene.has_d else EXPONENT_AT_ONE_BUDGET
        layout.add("beta", exponent("beta", beta))
        spread = self.spread or WORTH_SPREADS[-1]
        layout.add("T", own_worth_parameters("T", scene, target, spread))
        layout.add("g", exponent("g", POWER_PRIOR, upper=4.0))
        return layout


@dataclass(frozen=True)
class ShrunkPowers(SharedPower):
    """Shared power, from which every source may depart a little."""

    name = "shrunk_powers"
    formula = "E + A N^-alpha + B (D sum_j T_j h_j^(g d_j))^-beta"
    source = "between power_transfer and shared_power"
    shares = (Worths("S", "T", "g", bend="d"),)

    def layout(self, scene: Scene, target: int = 0) -> Layout:
        layout = super().layout(scene, target)
        layout.add("d", each("d", scene.domains, "1", 0.0, POWER_SPREAD, -2.0, 2.0))
        return layout

    def suits(self, design: Design) -> bool:
        return len(design.domains) <= MOST_SOURCES
