"""A law with a formula: its terms, and the priors of its parameters. All else follows from them.

`term("A", alpha="n S")` is A (N S)^-alpha: `n`, `d` and the names of `shares` may stand in it. A
term or a power that `layout` leaves out, because sizes or budgets don't vary, counts for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from olmo_mixlaw.laws.formulas.parameters import EXPONENT_N, Layout, amplitude, exponent, floor
from olmo_mixlaw.laws.formulas.shares import Worths, worth_parameters
from olmo_mixlaw.laws.formulas.terms import DATA, FLOOR, SumOfTerms, term
from olmo_mixlaw.laws.law import Scene

# Of the loss amid the table, the part of the size term, a priori.
SHARE = 0.2


@dataclass(frozen=True)
class SizeTransfer(SumOfTerms):
    """Domains lend each other capacity, where `transfer` has them lend each other tokens."""

    name = "size_transfer"
    formula = "E + A (N sum_j T_j h_j)^-alpha + B D^-beta"
    source = "an example"
    terms = (FLOOR, term("A", alpha="n S"), DATA)
    shares = (Worths("S", "T"),)

    def layout(self, scene: Scene, target: int = 0) -> Layout:
        layout = Layout()
        layout.add("E", floor(scene, target))
        layout.add("A", amplitude("A", scene, target, SHARE))
        layout.add("alpha", exponent("alpha", EXPONENT_N))
        layout.add("T", worth_parameters("T", scene, target))
        layout.add_data(scene, target)
        return layout
