"""Repeated tokens count for less: the effective tokens of a run that sees its sources again.

    D_i' = U_i e(D h_i / U_i),    e(x) = x up to 1, then 1 + r (1 - exp(-(x - 1) / r))

U_i are the tokens that domain i has, and r how many repeats are worth as much as fresh text in
the end (Muennighoff et al., arXiv 2305.16264, equation 5, a domain at a time). A run counts as
one of `sum D_i'` fresh tokens mixed in the ratios `D_i' / sum D_i'`, so that every term in D or
in the ratios of every law sees effective tokens, and no law needs to know.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

# Repeats that are worth as much as fresh text, before a table says otherwise (arXiv 2305.16264).
PUBLISHED = 15.0


@dataclass(frozen=True, eq=False)
class Repetition:
    """How repeats count in a fit: `worth` is r, `interval` 68 % of it where it was fitted.

    `available` (K,) are the tokens that each domain has for the runs asked about, infinite where
    nobody says. `budgets_vary` is whether the table's budgets do: where not, its one budget stays
    as it is, and the effective ratios of a run that repeats sum to less than 1.
    """

    worth: float = PUBLISHED
    interval: tuple[float, float] | None = None
    available: np.ndarray | None = None
    budgets_vary: bool = True

    @classmethod
    def of_saved(cls, record: dict[str, Any]) -> Repetition:
        """The repetition that a saved fit holds."""
        interval = record["interval"]
        return cls(**{**record, "interval": interval and tuple(interval)})

    def effective(
        self, ratios: np.ndarray, n_tokens: Any, available: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ratios (R, K) and budgets (R,) of the runs of fresh text that these count as.

        `available` is (K,) or (R, K).
        """
        budgets = np.broadcast_to(np.asarray(n_tokens, float), (len(ratios),))
        fresh = ratios * self._kept(_epochs(ratios, budgets, available))
        if not self.budgets_vary:
            return fresh, budgets
        total = fresh.sum(1)
        return fresh / total[:, None], budgets * total

    def _kept(self, epochs: np.ndarray) -> np.ndarray:
        """The part e(x) / x of tokens seen `epochs` times that counts."""
        again = -np.expm1(-np.maximum(epochs - 1, 0.0) / self.worth)
        return np.asarray((1 + self.worth * again) / np.maximum(epochs, 1.0))

    def slope(self, ratios: np.ndarray, n_tokens: float, available: np.ndarray) -> np.ndarray:
        """What one more token of each domain adds to its effective ones, (R, K)."""
        budgets = np.full(len(ratios), float(n_tokens))
        over = np.maximum(_epochs(ratios, budgets, available) - 1, 0.0)
        return np.asarray(np.exp(-over / self.worth))


def _epochs(ratios: np.ndarray, budgets: np.ndarray, available: np.ndarray) -> np.ndarray:
    """How often each domain is seen, (R, K); 0 where it never ends."""
    with np.errstate(invalid="ignore"):
        seen = budgets[:, None] * ratios / available
    return np.where(np.isfinite(available), seen, 0.0)
