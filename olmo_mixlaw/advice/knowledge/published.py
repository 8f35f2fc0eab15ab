"""What was measured: recall of biographies under mixtures with FineWeb-Edu (arXiv 2505.18091).

A biography is 45.59 bits and about 100 tokens; sizes are Pythia's names; every run is a cold start.
Values that the paper gives only roughly are written as it words them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from olmo_mixlaw.advice.knowledge.facts import Facts
from olmo_mixlaw.advice.knowledge.rule import Rule

TOKENS = 32e9


@dataclass(frozen=True)
class Case:
    """One measured mixture: the recall (a part of 1), and how the paper words it."""

    n_params: float
    people: float
    ratio: float
    recall: float
    said: str
    n_tokens: float = TOKENS

    @property
    def facts(self) -> Facts:
        return Facts(self.people)

    def text(self) -> str:
        return (
            f"{self.n_params / 1e6:.0f}M parameters, {self.people:,.0f} biographies at "
            f"{self.ratio:g} of {self.n_tokens / 1e9:.0f}B tokens "
            f"({self.facts.exposures(self.ratio, self.n_tokens):.0f} exposures): {self.said}"
        )


# Ratio and recall in percent, mean of three seeds.
_TABLE_1 = (
    (0.10, 0.4),
    (0.15, 0.4),
    (0.20, 0.4),
    (0.25, 0.8),
    (0.30, 7.3),
    (0.35, 27.5),
    (0.40, 40.4),
    (0.45, 58.1),
)
TABLE_1 = tuple(Case(70e6, 320e3, r, y / 100, f"{y:g} % known") for r, y in _TABLE_1)
LARGER = (
    Case(410e6, 1.28e6, 0.2, 0.0, "about 0 % known"),
    Case(410e6, 1.28e6, 0.3, 0.0, "about 0 % known"),
    Case(410e6, 1.28e6, 0.4, 0.8, "about 80 % known"),
)
LONGER = (Case(70e6, 320e3, 0.2, 0.0, "about 0 % known", 512e9),)
# Subsampling at a ratio of .2, 410M parameters, 1.28M people: share kept, part known of all.
SUBSAMPLED = ((0.25, 0.235), (0.50, 0.375), (0.56, 0.398), (0.625, 0.0))
CASES = (*TABLE_1, *LARGER, *LONGER)


def nearest(facts: Facts, ratio: float, n_params: float, n_tokens: float) -> Case:
    """The measured case nearest in size, number of facts, budget and odds, by their logarithms."""
    return _least(
        lambda case: (
            n_params / case.n_params,
            facts.n / case.people,
            n_tokens / case.n_tokens,
            ratio / (1 - ratio) * (1 - case.ratio) / case.ratio,
        )
    )


def most_alike(facts: Facts, ratio: float, n_params: float, n_tokens: float, rule: Rule) -> Case:
    """The measured case most alike in what decides by the rule.

    That is the worth of a bit over its cost, the exposures, and the bits a parameter.
    """

    def coordinates(f: Facts, r: float, n: float, s: float) -> tuple[float, float, float]:
        seen, bits = float(f.exposures(r, s)), f.bits_in_all / n
        return float(rule.worth(f, r, n, s)[0]), seen, bits

    here = coordinates(facts, ratio, n_params, n_tokens)
    return _least(
        lambda c: tuple(
            a / b
            for a, b in zip(
                here, coordinates(c.facts, c.ratio, c.n_params, c.n_tokens), strict=True
            )
        )
    )


def _least(factors: Callable[[Case], tuple[float, ...]]) -> Case:
    return min(CASES, key=lambda case: float(np.sum(np.log(factors(case)) ** 2)))
