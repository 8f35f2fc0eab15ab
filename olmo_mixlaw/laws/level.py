"""The level beyond a table: what a law's losses are there, between mixtures left as it says.

    log L = log law(h, N, D) + w (log S(N, D) - mean over h* of log law(h*, N, D))

Laws rank mixtures well at sizes that nobody trained, but their own terms in N and D were fitted
to tell mixtures apart, among early checkpoints and with hand-made priors, and miss the level by
1 to 3 %. S is a skeleton fitted for the level alone; h* are the mixtures of the largest size. w is
1 but where the skeleton itself is in doubt and the law has terms in N and D: the law's own word
then counts too, by the precision of both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import norm

from olmo_mixlaw.laws.skeleton import NORMAL, Skeleton

# A row is beyond the table when its size or budget exceeds the largest by this factor.
BEYOND = 1.05
# An anchor is spoken of where it would narrow the interval by this factor.
WORTH_AN_ANCHOR = 1.5
# Standard deviation of the level that laws with terms in N and D give by themselves.
LAW_DOUBT = 0.03
# With so many times the tokens of the longest run, no skeleton was ever right.
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

    `mixtures` (m, K) are h*; `n_top`, `d_top` and `c_top` the largest size, budget and product of
    both in the table; `sizes` and `budgets` how many it has, `anchors` how many runs were added at
    the scale of interest; `law_extrapolates` whether the law's own losses fall with both.
    `vocabulary` is the number of embeddings that N leaves out, 0 where it counts them.
    """

    skeleton: Skeleton
    mixtures: np.ndarray
    n_top: float
    d_top: float
    c_top: float
    sizes: int
    budgets: int
    anchors: int = 0
    law_extrapolates: bool = False
    vocabulary: float = 0.0

    @classmethod
    def of_saved(cls, record: dict[str, Any]) -> Level:
        """The level that a saved fit holds."""
        return cls(**{**record, "skeleton": Skeleton(**record["skeleton"])})

    def beyond(self, n_params: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
        """Rows (R,) whose size, budget or compute the table doesn't reach."""
        beyond = (n_params > BEYOND * self.n_top) | (n_tokens > BEYOND * self.d_top)
        return np.asarray(beyond | (n_params * n_tokens > BEYOND * self.c_top))

    def shift(self, n_params: np.ndarray, n_tokens: np.ndarray, law: LogLaw) -> np.ndarray:
        """What is added to the law's log loss, (R, T): 0 within the table."""
        n_params, n_tokens = self._known(n_params, n_tokens)
        found = np.zeros((len(n_params), len(self.skeleton.low)))
        rows = np.flatnonzero(self.beyond(n_params, n_tokens))
        if len(rows):
            scales = np.c_[n_params, n_tokens][rows]
            unique, which = np.unique(scales, axis=0, return_inverse=True)
            total = with_embeddings(unique[:, 0], self.vocabulary)
            middle = mean_over(law, self.mixtures, unique)
            shift = self.skeleton.log_loss(total, unique[:, 1]) - middle
            if self.law_extrapolates:
                doubt = self.skeleton.doubt(total, unique[:, 1])
                shift *= LAW_DOUBT**2 / (LAW_DOUBT**2 + doubt**2)
            found[rows] = shift[which.ravel()]
        return found

    def half_width(
        self, n_params: np.ndarray, n_tokens: np.ndarray, level: float, law: np.ndarray
    ) -> np.ndarray:
        """Half of the central interval of log loss, (R, T): the law's own within the table."""
        n_params, n_tokens = self._known(n_params, n_tokens)
        total = with_embeddings(n_params, self.vocabulary)
        wide = self.skeleton.half_width(total, n_tokens)
        wide = wide * float(norm.ppf(0.5 + level / 2)) / NORMAL
        beyond = self.beyond(n_params, n_tokens)[:, None]
        return np.where(beyond, np.maximum(wide, law), law)

    def _known(self, n_params: np.ndarray, n_tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sizes and budgets (R,), the table's own one where nobody says which."""
        n = np.where(np.isnan(n_params) & (self.sizes == 1), self.n_top, n_params)
        d = np.where(np.isnan(n_tokens) & (self.budgets == 1), self.d_top, n_tokens)
        return n, d

    def text(self) -> str:
        """What the level rests on, and what it assumes."""
        counted = (
            f"N without embeddings of {self.vocabulary:.6g} tokens, which it adds"
            if self.vocabulary
            else "N with its embeddings"
        )
        anchored = f", {_count(self.anchors, 'anchor')}" if self.anchors else ""
        seen = f"{_count(self.sizes, 'size')}, {_count(self.budgets, 'budget')}{anchored}"
        return f"level beyond the table: {seen}; {counted}"

    def cautions(self, n_params: float, n_tokens: float) -> list[str]:
        """What should be known of the level at a scale, and what a run there would bring."""
        n, d = self._known(np.array([n_params]), np.array([n_tokens]))
        if not self.beyond(n, d)[0]:
            return []
        total = with_embeddings(n, self.vocabulary)
        now, then = (
            100 * float(np.median(self.skeleton.half_width(total, d, more)))
            for more in (False, True)
        )
        few = [
            f"one {what}" for what, n in (("size", self.sizes), ("budget", self.budgets)) if n == 1
        ]
        said = f"the table has {' and '.join(few)}: " if few and not self.anchors else ""
        if not said and now < WORTH_AN_ANCHOR * then:
            return []
        return [
            f"{said}losses at this scale are known to +-{now:.1f} % (90 %); one run there "
            f"(--anchor) would make that +-{then:.1f} %"
        ]

    def refusal(self, n_tokens: Any) -> str:
        """Why the level can't be said at one of these budgets; nothing where it can."""
        asked = np.atleast_1d(np.asarray(n_tokens, float))
        most = float(np.max(asked, initial=0.0, where=np.isfinite(asked)))
        if self.anchors or most < MOST_TOKENS * self.d_top:
            return ""
        return (
            f"{most:.3g} tokens are {most / self.d_top:.3g} times those of the longest "
            f"run fitted ({self.d_top:.3g}): no level was ever right so far on, though "
            "the order of mixtures may be; give a run near that budget (--anchor), or take the "
            "law alone (--no-level)"
        )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + "s" * (number != 1)


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
