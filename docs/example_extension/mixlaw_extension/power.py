"""A schedule as a class: one that goes from knot to knot, with an option of its own.

`knots` and `units` come with `Linear`; every other field is an option of the `schedule` section.
`where` is that section's place in the user's file: an error that names it says what to mend.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.mixture.schedule import Linear


@dataclass(frozen=True)
class Power(Linear):
    """Slowly first, then faster: t^exponent of the way to the next knot after a part t."""

    exponent: float = 2.0
    n_lines = 64  # straight lines that stand for the curve between two knots

    def curve(self, t: np.ndarray) -> np.ndarray:
        if not self.exponent > 0:
            raise ConfigError(f"{self.where}.options.exponent: {self.exponent:g}; must be above 0")
        return t**self.exponent
