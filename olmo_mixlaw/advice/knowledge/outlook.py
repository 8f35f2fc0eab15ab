"""Will it be learned? The rule, the barrier and the exposure floor as one distribution.

A draw is a pair of fitted curves, a factor of the barrier and the exposures that a fact needs. In
it the facts are learned as the rule says at 1 / factor of the odds, if they are seen often enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from olmo_mixlaw.advice.knowledge.barrier import PILOT, Barrier, floor_draws
from olmo_mixlaw.advice.knowledge.facts import Facts
from olmo_mixlaw.advice.knowledge.rule import Rule, from_logit, logit
from olmo_mixlaw.errors import ConfigError

DRAWS = 400


@dataclass(frozen=True)
class Outlook:
    """What a run of this size and budget learns of `facts`, as far as it is known."""

    facts: Facts
    n_params: float
    n_tokens: float
    rule: Rule
    barrier: Barrier = PILOT
    seed: int = 0

    def __post_init__(self) -> None:
        for key in ("n_params", "n_tokens"):
            value = getattr(self, key)
            if not 0 < value < np.inf:
                raise ConfigError(f"{key}: must be positive and finite, found {value:g}")

    @cached_property
    def _drawn(self) -> tuple[Rule, np.ndarray, np.ndarray]:
        rule = self.rule.drawn(DRAWS, self.seed)
        return rule, self.barrier.draws(DRAWS, self.seed), floor_draws(DRAWS, self.seed + 1)

    def known_part(self, ratio: float) -> np.ndarray:
        """Part of the facts (draws,) that a run of this ratio knows in the end."""
        rule, factor, least = self._drawn
        below = from_logit(logit(check_ratio(ratio)) - np.log(factor))
        part = rule.known_part(self.facts, below, self.n_params, self.n_tokens)
        return np.where(self.facts.exposures(ratio, self.n_tokens) >= least, part, 0.0)

    def probability(self, ratio: float, accuracy: float) -> float:
        """How probable it is that at least this part is known."""
        return float((self.known_part(ratio) >= accuracy).mean())

    def expected(self, ratio: float) -> float:
        """The part known, averaged over what is uncertain."""
        return float(self.known_part(ratio).mean())

    def ratios(self, accuracy: float) -> np.ndarray:
        """The least ratio (draws,) that it takes; 1 where none is enough."""
        rule, factor, least = self._drawn
        worth = rule.ratio_for(self.facts, self.n_params, self.n_tokens, accuracy)
        with np.errstate(divide="ignore"):
            cold = from_logit(logit(worth) + np.log(factor))
        floor = np.minimum(least * self.facts.tokens_a_pass / self.n_tokens, 1.0)
        return np.maximum(np.nan_to_num(cold, nan=1.0), floor)

    def sizes(self, ratio: float, accuracy: float) -> np.ndarray:
        """The least size (draws,) that it takes at this ratio; infinite where none is enough."""
        rule, factor, least = self._drawn
        below = from_logit(logit(check_ratio(ratio)) - np.log(factor))
        found = rule.size_for(self.facts, below, self.n_tokens, accuracy)
        seen = self.facts.exposures(ratio, self.n_tokens) >= least
        return np.where(seen, np.nan_to_num(found, nan=np.inf), np.inf)

    def critical_ratio(self, accuracy: float) -> tuple[float, float, float]:
        """The rule's own threshold, without barrier or floor: best, 5 % and 95 % of its draws."""
        found = self._drawn[0].ratio_for(self.facts, self.n_params, self.n_tokens, accuracy)
        best = float(found[0])
        if self.rule.draws == 1 or not np.isfinite(found).any():
            return best, np.nan, np.nan
        low, high = np.nanquantile(found, [0.05, 0.95])
        return best, float(low), float(high)


def quantiles(values: np.ndarray, probability: float = 0.9) -> dict[str, float]:
    """Middle, the 90 % interval, and the value that is enough with this probability."""
    low, middle, high, enough = np.quantile(
        values, [0.05, 0.5, 0.95, probability], method="inverted_cdf"
    )
    return {"middle": middle, "low": low, "high": high, "enough": enough}


def least_ratio(
    facts: Facts,
    n_params: float,
    n_tokens: float,
    accuracy: float = 0.9,
    probability: float = 0.9,
    rule: Rule | None = None,
    barrier: Barrier = PILOT,
) -> float:
    """The least ratio that teaches at least this part of `facts` with this probability.

    A lower bound for `advice.optimum`. Raises `ConfigError` where no ratio does.
    """
    check_part(accuracy, "accuracy")
    check_part(probability, "probability")
    outlook = Outlook(facts, n_params, n_tokens, rule or Rule(), barrier)
    needed = quantiles(outlook.ratios(accuracy), probability)["enough"]
    if needed >= 1 - 1e-9:
        exposures = facts.exposures(1.0, n_tokens)
        raise ConfigError(
            f"no ratio teaches {accuracy:.0%} of {facts.n:,.0f} facts with probability "
            f"{probability:g} at {n_params:.3g} parameters and {n_tokens:.3g} tokens (facts alone "
            f"would be seen {exposures:.3g} times); take fewer facts, more tokens or a larger model"
        )
    return float(needed)


def check_ratio(ratio: Any) -> float:
    """Raises `ConfigError` for a ratio that isn't between 0 and 1."""
    if not 0 < ratio < 1:
        raise ConfigError(f"ratio: lies between 0 and 1, found {ratio:g}")
    return float(ratio)


def check_part(value: float, name: str) -> None:
    """Raises `ConfigError` for a part that isn't above 0 and below 1."""
    if not 0 < value < 1:
        raise ConfigError(f"{name}: lies between 0 and 1, found {value:g}")
