"""The learner of bounded capacity: it spends its bits where they lower the loss the most.

    minimise  sum_i r_i F_i(m_i)   subject to  sum_i m_i <= M         (arXiv 2505.18091, section 4)

F_i is the loss of set i, in bits a token, given m_i bits: a power law for text, straight pieces for
facts. At the optimum every set gains `price` a bit; a fact whose gain is below it isn't learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from olmo_mixlaw.advice.knowledge.facts import Facts
from olmo_mixlaw.errors import ConfigError

_HALVINGS = 200
# Prices are told apart to this part of their value; closer ones share what is left.
_TIE = 1e-9
_LOG_PRICES = (-700.0, 700.0)


@dataclass(frozen=True)
class TextSet:
    """F(m) = floor + scale m^-exponent, in bits a token, m in bits."""

    scale: float
    exponent: float
    floor: float = 0.0

    def __post_init__(self) -> None:
        if not (self.scale > 0 and self.exponent > 0):
            raise ConfigError("text: scale and exponent must be positive")

    def wanted(self, ratio: float, price: float) -> tuple[float, float]:
        """Bits worth more than the price, and bits worth just that."""
        slope = np.log(ratio * self.scale * self.exponent) - np.log(price)
        return float(np.exp(slope / (1 + self.exponent))), 0.0

    def loss(self, bits: float) -> float:
        if bits <= 0:
            return np.inf
        return self.floor + self.scale * bits**-self.exponent


@dataclass(frozen=True)
class FactSet:
    """Facts, or groups of alike facts: `chances` (G,) that a token shows it, its `bits` (G,).

    F(m) = floor + sum_k p_k (H_k - m_k): a bit of fact k saves p_k bits a token.
    """

    chances: np.ndarray
    bits: np.ndarray
    floor: float = 0.0

    def __post_init__(self) -> None:
        if np.shape(self.chances) != np.shape(self.bits) or np.ndim(self.bits) != 1:
            raise ConfigError("facts: chances and bits must be two rows of one length")
        if not (np.all(np.asarray(self.chances) >= 0) and np.all(np.asarray(self.bits) > 0)):
            raise ConfigError("facts: chances must not be negative, bits must be positive")

    def wanted(self, ratio: float, price: float) -> tuple[float, float]:
        worth = ratio * self.chances
        tied = np.abs(worth - price) <= _TIE * price
        return float(self.bits[(worth > price) & ~tied].sum()), float(self.bits[tied].sum())

    def loss(self, bits: float) -> float:
        return self.floor + float((self.chances * (self.bits - self.learned(bits))).sum())

    def learned(self, bits: float) -> np.ndarray:
        """Bits (G,) learned of every fact: the frequent first, equally frequent ones alike."""
        _, level = np.unique(-self.chances, return_inverse=True)
        sizes = np.bincount(level, self.bits)
        spent = np.clip(bits - (np.cumsum(sizes) - sizes), 0, sizes)
        return self.bits * (spent / sizes)[level]


@dataclass(frozen=True)
class Allocation:
    """Bits (K,) and losses (K,) of every set; `price` is what one more bit would gain."""

    bits: np.ndarray
    losses: np.ndarray
    price: float


def allocate(
    ratios: Sequence[float] | np.ndarray, sets: Sequence[TextSet | FactSet], capacity: float
) -> Allocation:
    """The best division of `capacity` bits among `sets` that come in these `ratios` (K,).

    Bisects on the logarithm of the price; what is left at the end goes to the facts worth just that
    price, in proportion to their bits. Raises `ConfigError`.
    """
    r = np.asarray(ratios, float)
    if len(r) != len(sets) or not (np.isfinite(r).all() and (r >= 0).all()):
        raise ConfigError("allocate: needs one ratio a set, finite and not negative")
    if not 0 < capacity < np.inf:
        raise ConfigError(f"allocate: capacity must be positive and finite, found {capacity:g}")

    def wanted(price: float) -> np.ndarray:
        found = [s.wanted(x, price) if x > 0 else (0.0, 0.0) for x, s in zip(r, sets, strict=True)]
        return np.array(found, float)

    low, high = _LOG_PRICES
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if wanted(np.exp(middle))[:, 0].sum() > capacity else (low, middle)
        )
    price = float(np.exp(high))
    sure, tied = wanted(price).T
    spare = max(capacity - sure.sum(), 0.0)
    part = min(spare / tied.sum(), 1.0) if tied.sum() > 0 else 0.0
    bits = sure + part * tied
    losses = np.array([s.loss(m) for s, m in zip(sets, bits, strict=True)])
    return Allocation(bits, losses, price if high > _LOG_PRICES[0] + 1 else 0.0)


def fact_set(facts: Facts, parts: np.ndarray | None = None) -> FactSet:
    """`facts` for `allocate`: one lump, or groups that get these `parts` (G,) of exposures."""
    shares = np.ones(1) if parts is None else np.asarray(parts, float) / np.sum(parts)
    groups = len(shares)
    chances = shares * groups / facts.tokens_a_pass
    return FactSet(chances, np.full(groups, facts.bits_in_all / groups))


def threshold_exposures(price: float, n_tokens: float) -> float:
    """Exposures in `n_tokens` below which a fact isn't learned: it is worth r p = price."""
    return price * n_tokens


def critical_odds(text: TextSet, facts: Facts, capacity: float) -> float:
    """r_c / (1 - r_c) = A alpha M^-(alpha + 1) / p, the odds below which nothing is learned."""
    slope = text.scale * text.exponent * capacity ** -(text.exponent + 1)
    return slope * facts.tokens_a_pass


def known_part(text: TextSet, facts: Facts, capacity: float, ratio: np.ndarray) -> np.ndarray:
    """Part of the facts that is learned at these ratios: clip((M - M*(r)) / H_tot, 0, 1).

    M*(r) = [A alpha (1 - r) / (r p)]^(1 / (alpha + 1)) is what the text keeps for itself.
    """
    ratio = np.asarray(ratio, float)
    with np.errstate(divide="ignore"):
        odds = ratio / (1 - ratio)
        kept = (text.scale * text.exponent * facts.tokens_a_pass / odds) ** (
            1 / (text.exponent + 1)
        )
    return np.clip((capacity - kept) / facts.bits_in_all, 0, 1)


def critical_capacity(text: TextSet, facts: Facts, ratio: float) -> float:
    """M*(r): with fewer bits than this, a learner learns none of the facts."""
    odds = ratio / (1 - ratio)
    return float(
        (text.scale * text.exponent * facts.tokens_a_pass / odds) ** (1 / (text.exponent + 1))
    )
