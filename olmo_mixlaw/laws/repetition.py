"""Repeated tokens count for less, and in the end do harm: what a run that repeats is worth.

    D_i' = U_i e(D h_i / U_i),    e(x) = x up to 1, then 1 + r (1 - exp(-(x - 1) / r))

U_i are the tokens that domain i has, r how many repeats are worth as much as fresh text in the
end (Muennighoff et al., arXiv 2305.16264, equation 5, a domain at a time). A run counts as one of
`sum D_i'` fresh tokens in the ratios `D_i' / sum D_i'`, so that every term of every law sees
effective tokens. Text that a model can hold and meets often is learnt by heart, and the loss on
other text rises:

    log L = log law(h', N, D') + log(1 + M sum_i h_i s_i),    s = C / (1 + C) (1 - exp(-T))
    C = (N / V (V / V0)^g / c)^k,    T = ((x - 1) / p (V / V0)^g)^k,    V = U_i / h_i

C is how much a model can hold (c parameters a token: half of it), T how often it saw it. With
h_i / U_i in place of 1 / U_i, a source cut in two counts as before. M, g and k are those of public
runs of one source (7M to 3.9B parameters, up to 9,000 epochs); r, c and p are a table's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from olmo_mixlaw.errors import FitError
from olmo_mixlaw.runs import Design

# Repeats that are worth as much as fresh text (arXiv 2305.16264), where nothing is learnt by heart.
PUBLISHED = 15.0
NAMES = ("worth", "memory", "passes")
UNITS = ("epochs", "parameters/token", "epochs")
# Before a table says otherwise: r between the published 15 and the 80 that the same runs show once
# what is learnt by heart has a term of its own; c and p near what those runs show.
MIDDLE = (30.0, 5.0, 60.0)
# Spread of the logarithms: tables of other text, models and tokenizers differ by factors.
SPREAD = (1.0, 1.0, 1.0)
# The loss of all text learnt by heart is 1 + M times that without: about that of guessing.
CEILING = 3.5
SHARPNESS, GROWTH, SCALE = 1.7, 0.22, 1e9
# A run that sees a domain so often repeats it; below, the last batch may do as much.
REPEATS = 1.01
# An interval whose ends differ by less than this factor is that of a number that was given.
GIVEN = 1.001


@dataclass(frozen=True, eq=False)
class Repetition:
    """How repeats count in a fit: `worth` is r, `memory` c and `passes` p.

    `spread` (3,) are the standard errors of their logarithms, None where they are the prior's.
    `available` (K,) are the tokens that each domain has for the runs asked about, infinite where
    nobody says. `budgets_vary` is whether the table's budgets do: where not, its one budget stays
    as it is, and the effective ratios of a run that repeats sum to less than 1. `epochs` (K,) is
    how often a run of the table saw each domain at most.
    """

    worth: float = MIDDLE[0]
    memory: float = MIDDLE[1]
    passes: float = MIDDLE[2]
    spread: tuple[float, ...] | None = None
    available: np.ndarray | None = None
    budgets_vary: bool = True
    epochs: np.ndarray | None = None

    @classmethod
    def of_saved(cls, record: dict[str, Any]) -> Repetition:
        """The repetition that a saved fit holds."""
        spread = record["spread"]
        return cls(**{**record, "spread": None if spread is None else tuple(spread)})

    @property
    def is_fitted(self) -> bool:
        """Whether the table's runs repeat, so that they say what repeats are worth."""
        return self.spread is not None

    @property
    def interval(self) -> tuple[float, float] | None:
        """68 % of r, where it was fitted."""
        if self.spread is None:
            return None
        return self.worth * float(np.exp(-self.spread[0])), self.worth * float(
            np.exp(self.spread[0])
        )

    def text(self) -> str:
        """What repeats are worth, and who says so."""
        if self.interval is None:
            return (
                f"repeats: no run sees a domain more than once, so that what repeats are worth "
                f"(r = {self.worth:.3g}) is what other runs showed, not this table"
            )
        low, high = self.interval
        known = "given" if high < GIVEN * low else f"{low:.3g} to {high:.3g}"
        return (
            f"repeats: in the end worth {self.worth:.3g} passes of fresh text "
            f"({known}); half is learnt by heart with {self.memory:.3g} parameters "
            f"a token, after some {self.passes:.3g} passes"
        )

    def rows(self) -> list[tuple[str, str, float, float, float, str, bool]]:
        """Its parameters as a fit shows them: of all targets, with the ends of 68 %."""
        spread = np.full(3, np.nan) if self.spread is None else np.array(self.spread)
        low, high = np.exp(self.logs - spread), np.exp(self.logs + spread)
        columns = (NAMES, np.exp(self.logs), low, high, UNITS)
        return [
            ("all", f"repeats.{name}", float(v), float(a), float(b), unit, not self.is_fitted)
            for name, v, a, b, unit in zip(*columns, strict=True)
        ]

    @property
    def logs(self) -> np.ndarray:
        return np.log([self.worth, self.memory, self.passes])

    def with_logs(self, logs: np.ndarray) -> Repetition:
        worth, memory, passes = (float(v) for v in np.exp(logs))
        return replace(self, worth=worth, memory=memory, passes=passes)

    def applied(self, design: Design) -> Design:
        """The design of fresh text that its runs count as: ratios, budgets and losses."""
        if design.available is None and self.epochs is not None and self.available is not None:
            # The tokens that all runs had were given when they were fitted.
            design = replace(design, available=np.tile(self.available, (len(design), 1)))
        if design.available is None:
            return design
        at = (design.ratios, design.n_params, design.n_tokens)
        factor, _ = self.by_heart(*at, design.available)
        ratios, budgets = self.effective(design.ratios, design.n_tokens, design.available)
        return replace(
            design,
            ratios=ratios,
            n_tokens=budgets,
            losses=design.losses / factor[:, None],
            available=None,
        )

    def effective(
        self, ratios: np.ndarray, n_tokens: Any, available: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ratios (R, K) and budgets (R,) of the runs of fresh text that these count as.

        `available` is (K,) or (R, K).
        """
        budgets = np.broadcast_to(np.asarray(n_tokens, float), (len(ratios),))
        fresh = ratios * self._kept(epochs_of(ratios, budgets, available))
        if not self.budgets_vary:
            return fresh, budgets
        total = fresh.sum(1)
        return fresh / total[:, None], budgets * total

    def at_most(self, n_tokens: Any) -> np.ndarray:
        """The fresh tokens that runs of so many can count as, under any mixture."""
        budgets = np.asarray(n_tokens, float)
        if self.available is None:
            return budgets
        return np.minimum(budgets, (self.available * (1 + self.worth)).sum(-1))

    def _kept(self, epochs: np.ndarray) -> np.ndarray:
        """The part e(x) / x of tokens seen `epochs` times that counts."""
        again = -np.expm1(-np.maximum(epochs - 1, 0.0) / self.worth)
        return np.asarray((1 + self.worth * again) / np.maximum(epochs, 1.0))

    def slope(self, ratios: np.ndarray, n_tokens: Any, available: np.ndarray) -> np.ndarray:
        """What one more token of each domain adds to its effective ones, (R, K)."""
        budgets = np.broadcast_to(np.asarray(n_tokens, float), (len(ratios),))
        over = np.maximum(epochs_of(ratios, budgets, available) - 1, 0.0)
        return np.asarray(np.exp(-over / self.worth))

    def by_heart(
        self, ratios: np.ndarray, n_params: Any, n_tokens: Any, available: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """By what losses grow for text learnt by heart, (R,), and its slopes by the ratios (R, K).

        Where nobody knows N, nothing is.
        """
        budgets, n = (
            np.broadcast_to(np.asarray(v, float), (len(ratios),)) for v in (n_tokens, n_params)
        )
        known, by_ratio = self._learnt(ratios, n, budgets, available)
        return 1 + CEILING * (ratios * known).sum(1), CEILING * (known + ratios * by_ratio)

    def _learnt(
        self, ratios: np.ndarray, n: np.ndarray, budgets: np.ndarray, available: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """s (R, K), how far each domain is learnt by heart, and its derivative by its ratio."""
        epochs = epochs_of(ratios, budgets, available)
        some = (epochs > 1) & np.isfinite(n)[:, None]
        over, h = np.where(some, epochs - 1, 1.0), np.where(some, ratios, 1.0)
        whole = np.where(some, np.broadcast_to(available, ratios.shape) / h, 1.0)
        parameters = np.where(some, n[:, None], 1.0)
        growth = GROWTH * np.log(whole / SCALE)
        hold = SHARPNESS * (np.log(parameters / whole / self.memory) + growth)
        times = SHARPNESS * (np.log(over / self.passes) + growth)
        held = 1 / (1 + np.exp(-np.clip(hold, -50.0, 50.0)))
        seen_to = np.exp(np.clip(times, -50.0, 50.0))
        known = held * -np.expm1(-seen_to)
        by_hold = SHARPNESS * (1 - GROWTH) / h
        by_times = SHARPNESS * ((over + 1) / over - GROWTH) / h
        slope = known * (1 - held) * by_hold + held * np.exp(-seen_to) * seen_to * by_times
        return np.where(some, known, 0.0), np.where(some, slope, 0.0)


def epochs_of(ratios: np.ndarray, budgets: np.ndarray, available: np.ndarray) -> np.ndarray:
    """How often each domain is seen, (R, K); 0 where it never ends."""
    with np.errstate(invalid="ignore"):
        seen = np.asarray(budgets, float)[:, None] * ratios / available
    return np.where(np.isfinite(available), seen, 0.0)


def with_available(design: Design, available: Mapping[str, float]) -> Design:
    """The design of runs that all had these tokens, where its table doesn't say what they had."""
    tokens = available_of(available, design.domains)
    if design.available is not None:
        return design
    return replace(design, available=np.tile(tokens, (len(design), 1)))


def available_of(given: Any, domains: list[str], where: str = "available") -> np.ndarray:
    """Tokens (K,) of a mapping, of numbers (K,), or of several runs (R, K); infinite where none.

    A domain that a mapping leaves out never ends. Raises `FitError` for unknown names and for what
    is no positive number.
    """
    if isinstance(given, Mapping):
        for name in given:
            if name not in domains:
                raise FitError(f"{where}: no domain {name!r} (known: {', '.join(domains)})")
        given = [given.get(name, np.inf) for name in domains]
    try:
        tokens = np.asarray(given, float)
    except (TypeError, ValueError):
        raise FitError(f"{where}: {given!r}: tokens of each domain must be numbers") from None
    if tokens.ndim not in (1, 2) or tokens.shape[-1] != len(domains):
        raise FitError(
            f"{where}: tokens of {np.shape(tokens)[-1:] or 0} domains, the table has "
            f"{len(domains)} ({', '.join(domains)})"
        )
    bad = ~(tokens > 0)
    if bad.any():
        k = int(np.argmax(bad.reshape(-1, len(domains)).any(0)))
        raise FitError(f"{where}: tokens of domain {domains[k]!r} must be positive")
    return tokens
