"""Which numbers a configuration may hold, said where they are refused.

A table gives a limit a key; `check` reads the values there before anything is built of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from olmo_mixlaw.errors import ConfigError

# Beyond any model or run: a greater number is a slip, such as a unit too much.
MOST_SIZE = 10**7  # a width, a context, a number of entries
MOST_LAYERS = 10**5
MOST_COUNT = 10**12  # steps, sequences
MOST_TOKENS_PER_PARAM = 10**8
MOST_SEED = 2**32 - 1


@dataclass(frozen=True)
class Limit:
    """From `low` to `high`, both among them unless `above` or `below` leaves one out."""

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        """Whether `value` is a finite number within the limit."""
        if not math.isfinite(value):
            return False
        over = value > self.low if self.above else value >= self.low
        return over and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.above else f"at least {self.low:g}"
        if math.isinf(self.high):
            return f"{low} and finite"
        return f"{low} and {'below' if self.below else 'at most'} {self.high:,.15g}"


COUNT = Limit(1, MOST_COUNT)
SIZE = Limit(1, MOST_SIZE)
NOT_NEGATIVE = Limit(0)
POSITIVE = Limit(0, above=True)
SHARE = Limit(0, 1)
PART = Limit(0, 1, below=True)  # a share that is never all


def check(config: Any, limits: Mapping[str, Limit], where: str = "") -> None:
    """Raise `ConfigError` for a value of `config` beyond its limit; None is within every one.

    Keys are attributes, of a section of `config` after a dot (`model.d_model`).
    """
    place = f"{where}: " if where else ""
    for key, limit in limits.items():
        value = config
        for part in key.split("."):
            value = getattr(value, part, None)
        values = value if isinstance(value, (list, tuple)) else [value]
        for one in values:
            # What counts as a number there may be text to OLMo (`5e12`); others check that.
            if isinstance(one, (int, float)) and not limit.holds(one):
                raise ConfigError(f"{place}{key}: {one}; it must be {limit}")


def check_decay(learning_rate: float, weight_decay: float, key: str, where: str = "") -> None:
    """Raise `ConfigError` for a decay that leaves nothing of a weight after one step.

    Decoupled weight decay multiplies a weight by 1 - learning rate x decay at each step.
    """
    if learning_rate * weight_decay >= 1:
        place = f"{where}: " if where else ""
        raise ConfigError(
            f"{place}{key}: {weight_decay:g}; times the learning rate, {learning_rate:g}, it must "
            "be below 1, for a step takes that share of every weight"
        )
