"""Loss as if the mixture did not matter: the baseline that every mixture law must beat.

L = E + A N^-alpha + B D^-beta        (Hoffmann et al. 2022)
"""

from __future__ import annotations

from dataclasses import dataclass

from olmo_mixlaw.laws.formulas.parameters import Layout, scaling
from olmo_mixlaw.laws.formulas.terms import DATA, FLOOR, SIZE, SumOfTerms
from olmo_mixlaw.laws.law import Scene


@dataclass(frozen=True)
class NoMixture(SumOfTerms):
    """Chinchilla's law, one a target; a term whose quantity doesn't vary is left out."""

    name = "no_mixture"
    formula = "E + A N^-alpha + B D^-beta"
    source = "arXiv 2203.15556"
    uses_mixture = False
    terms = (FLOOR, SIZE, DATA)

    def layout(self, scene: Scene, target: int = 0) -> Layout:
        return scaling(scene, target)
