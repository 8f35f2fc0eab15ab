"""The level beyond a table: what a law's losses are there, between mixtures left as it says.

    log L = log law(h, N, D) + log S(N, D) - mean over h* of log law(h*, N, D)

Laws rank mixtures well at sizes that nobody trained, but their own terms in N and D were fitted
to tell mixtures apart, among early checkpoints and with hand-made priors, and miss the level by
1 to 3 %. S is a skeleton fitted for the level alone; h* are the mixtures of the largest size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import norm

from olmo_mixlaw.laws.skeleton import Skeleton

# A row is beyond the table when its size or budget exceeds the largest by this factor.
BEYOND = 1.05
# The half width of an interval: this multiple of the skeleton's own spread, and a part that no
# skeleton explains, both at 90 %.
WIDENED = 2.0
UNEXPLAINED = 0.0066
# With so many times the tokens of the largest size's longest run, no skeleton was ever right.
MOST_TOKENS = 25.0
# Embeddings, where a table's sizes leave them out and say no more: OLMo's vocabulary, and a width
# of (64 N / 12)^(1/3), that of models whose width is 64 times their depth.
VOCABULARY = 50_304
WIDTH_BY_DEPTH = 64

# Ratios (S, K), N and D (S,) -> log losses (S, T), as the law says them.
LogLaw = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Level:
    """The skeleton of a fit and where it holds.

    `mixtures` (m, K) are h*; `n_top` and `d_top` the largest size and budget of the table, and
    `d_of_largest` the longest budget of its largest size; `sizes` and `budgets` how many it has.
    `vocabulary` is the number of embeddings that N leaves out, 0 where it counts them.
    """

    skeleton: Skeleton
    mixtures: np.ndarray
    n_top: float
    d_top: float
    d_of_largest: float
    sizes: int
    budgets: int
    anchors: int = 0
    vocabulary: float = 0.0

    @classmethod
    def of_saved(cls, record: dict[str, Any]) -> Level:
        """The level that a saved fit holds."""
        return cls(**{**record, "skeleton": Skeleton(**record["skeleton"])})

    def beyond(self, n_params: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
        """Rows (R,) whose size or budget the table doesn't reach."""
        beyond = n_params > BEYOND * self.n_top
        return np.asarray(beyond | (n_tokens > BEYOND * self.d_top))

    def shift(self, n_params: np.ndarray, n_tokens: np.ndarray, law: LogLaw) -> np.ndarray:
        """What is added to the law's log loss, (R, T): 0 within the table."""
        found = np.zeros((len(n_params), len(self.skeleton.low)))
        rows = np.flatnonzero(self.beyond(n_params, n_tokens))
        if len(rows):
            scales = np.c_[n_params, n_tokens][rows]
            unique, which = np.unique(scales, axis=0, return_inverse=True)
            total = with_embeddings(unique[:, 0], self.vocabulary)
            middle = mean_over(law, self.mixtures, unique)
            found[rows] = (self.skeleton.log_loss(total, unique[:, 1]) - middle)[which.ravel()]
        return found

    def half_width(
        self, n_params: np.ndarray, n_tokens: np.ndarray, level: float, law: np.ndarray
    ) -> np.ndarray:
        """Half of the central interval of log loss, (R, T): the law's own within the table."""
        total = with_embeddings(n_params, self.vocabulary)
        wide = np.hypot(WIDENED * self.skeleton.log_sd(total, n_tokens), UNEXPLAINED)
        wide = wide * norm.ppf(0.5 + level / 2) / norm.ppf(0.95)
        beyond = self.beyond(n_params, n_tokens)[:, None]
        return np.where(beyond, np.maximum(wide, law), law)

    def refusal(self, n_params: np.ndarray, n_tokens: np.ndarray) -> str:
        """Why the level can't be said at one of these scales; nothing where it can."""
        ratio = float(np.max(n_tokens)) / self.d_of_largest
        if ratio >= MOST_TOKENS and not self.anchors:
            return (
                f"{float(np.max(n_tokens)):.3g} tokens are {ratio:.3g} times those of the largest "
                f"model fitted ({self.d_of_largest:.3g}): no level was ever right so far on, "
                "though the order of mixtures may be; give a run near that budget (--anchor), or "
                "take the law alone (--no-level)"
            )
        return ""


def with_embeddings(n_params: Any, vocabulary: float) -> np.ndarray:
    """N counting embeddings of so many tokens, for N without them, (R,)."""
    n = np.asarray(n_params, float)
    return n + vocabulary * width_of(n) if vocabulary else n


def width_of(n_params: np.ndarray) -> np.ndarray:
    """The width (R,) of a transformer of N parameters without embeddings: 12 depth width^2."""
    return np.cbrt(WIDTH_BY_DEPTH * n_params / 12)


def mean_over(law: LogLaw, mixtures: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Mean log loss (S, T) over mixtures (m, K) at scales (S, 2) of N and D."""
    count = len(mixtures)
    n, d = np.repeat(scales, count, axis=0).T
    found = law(np.tile(mixtures, (len(scales), 1)), n, d)
    return np.asarray(found.reshape(len(scales), count, -1).mean(1))
