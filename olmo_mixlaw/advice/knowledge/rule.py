"""The critical ratio, predicted from pure runs alone: no mixture is ever fitted.

    r / (1 - r) kappa(r S / (n t)) = n t |dL_web/dN| / ln 2

Tokens of one pass over n facts, times what one more parameter gains on the web, over the bits that
a parameter stores at so many exposures: above it, knowing the facts is worth its capacity. It
speaks of the optimum. Near it a model that knows the facts forgets them; one that starts cold needs
more (`barrier`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from olmo_mixlaw.advice.knowledge import storage as _storage
from olmo_mixlaw.advice.knowledge import web as _web
from olmo_mixlaw.advice.knowledge.facts import Facts
from olmo_mixlaw.advice.knowledge.storage import Storage
from olmo_mixlaw.advice.knowledge.web import WebLoss

_HALVINGS = 60
_LOGITS = (-25.0, 25.0)
_LOG_SIZES = (np.log(1e2), np.log(1e14))
# A learner has this part of the facts at the threshold itself: it begins there.
ONSET = 1e-6


@dataclass(frozen=True)
class Rule:
    """A web loss and a storage curve, B pairs of them with the best fit first.

    Ratios are by tokens, `n_params` counted as in the runs that both were fitted to.
    """

    web: WebLoss = _web.PUBLISHED
    storage: Storage = _storage.PUBLISHED

    @cached_property
    def draws(self) -> int:
        """How many pairs there are; 1 where neither has an interval."""
        return max(len(self.web.scale), len(self.storage.ceiling))

    def best(self) -> Rule:
        """The best fit alone."""
        return self.drawn(1)

    def drawn(self, count: int, seed: int = 0) -> Rule:
        """`count` pairs: the best fit, then bootstrap draws of web and storage, independently."""
        rng = np.random.default_rng(seed)
        w = np.r_[0, rng.integers(0, len(self.web.scale), count - 1)]
        s = np.r_[0, rng.integers(0, len(self.storage.ceiling), count - 1)]
        return Rule(
            replace(
                self.web,
                floor=self.web.floor[w],
                scale=self.web.scale[w],
                exponent=self.web.exponent[w],
            ),
            replace(self.storage, ceiling=self.storage.ceiling[s], half=self.storage.half[s]),
        )

    def worth(self, facts: Facts, ratio: Any, n_params: Any, n_tokens: Any) -> np.ndarray:
        """What a parameter's bits of facts gain over what it gains on the web (B,): 1 at r_c."""
        gain = ratio / (1 - ratio) * self.storage.bits(facts.exposures(ratio, n_tokens))
        return gain * np.log(2) / (facts.tokens_a_pass * self.web.slope(n_params))

    def known_part(self, facts: Facts, ratio: Any, n_params: Any, n_tokens: Any) -> np.ndarray:
        """Part of the facts (B,) that the best learner of this size has learned.

        The web keeps kappa N worth^(-1 / (alpha + 1)) bits, the facts the rest.
        """
        kappa = self.storage.bits(facts.exposures(ratio, n_tokens))
        worth = self.worth(facts, ratio, n_params, n_tokens)
        with np.errstate(divide="ignore", over="ignore"):
            kept = worth ** (-1 / (self.web.exponent + 1))
            return np.clip(kappa * n_params * (1 - kept) / facts.bits_in_all, 0.0, 1.0)

    def ratio_for(
        self, facts: Facts, n_params: float, n_tokens: float, part: float = ONSET
    ) -> np.ndarray:
        """The least ratio (B,) at which this `part` is known; NaN where none is enough."""
        found = bisect(
            lambda x: self.known_part(facts, from_logit(x), n_params, n_tokens) >= part,
            *_LOGITS,
            self.draws,
        )
        return from_logit(found)

    def size_for(
        self, facts: Facts, ratio: Any, n_tokens: float, part: float = ONSET
    ) -> np.ndarray:
        """The least size (B,) at which this `part` is known; NaN where none is enough."""
        found = bisect(
            lambda x: self.known_part(facts, ratio, np.exp(x), n_tokens) >= part,
            *_LOG_SIZES,
            self.draws,
        )
        return np.exp(found)


def bisect(
    enough: Callable[[np.ndarray], np.ndarray], low: float, high: float, count: int
) -> np.ndarray:
    """Where `enough`, of points (B,), turns true for good; NaN where it doesn't up to `high`."""
    a, b = np.full(count, low), np.full(count, high)
    never = ~enough(b)
    for _ in range(_HALVINGS):
        middle = (a + b) / 2
        over = enough(middle)
        a, b = np.where(over, a, middle), np.where(over, middle, b)
    return np.where(never, np.nan, b)


def logit(ratio: Any) -> Any:
    """log(r / (1 - r))"""
    return np.log(ratio) - np.log1p(-np.asarray(ratio, float))


def from_logit(x: Any) -> Any:
    """1 / (1 + exp(-x))"""
    return 1 / (1 + np.exp(-np.asarray(x, float)))
