"""What runs cost: floating-point operations, GPU-hours or dollars, with a fixed cost a run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from olmo_mixlaw.errors import ConfigError

FLOPS, HOURS, DOLLARS = "FLOPs", "GPU-hours", "dollars"
# Ways to write a unit behind a number.
WRITTEN = {
    "": FLOPS,
    "flop": FLOPS,
    "flops": FLOPS,
    "gpu-hour": HOURS,
    "gpu-hours": HOURS,
    "gpu hours": HOURS,
    "gpuh": HOURS,
    "dollar": DOLLARS,
    "dollars": DOLLARS,
    "usd": DOLLARS,
}
AMOUNT = re.compile(r"^\s*(\$?)\s*([0-9][0-9_,]*\.?[0-9]*(?:e[+-]?[0-9]+)?)\s*([a-z -]*)$")
# The part of a GPU's peak that training commonly reaches.
UTILISATION = 0.4
SECONDS_AN_HOUR = 3600.0


@dataclass(frozen=True)
class Prices:
    """The price of runs in `unit`.

    An hour of a GPU does `peak` FLOPs a second at `utilisation`; `speeds` are tokens a second and
    GPU that sizes (their parameters) were measured at, and go before that. `fixed` is what every
    run costs besides, in the unit.
    """

    unit: str = FLOPS
    peak: float | None = None
    utilisation: float = UTILISATION
    dollars_an_hour: float | None = None
    speeds: Mapping[float, float] = field(default_factory=dict)
    fixed: float = 0.0

    def of(self, n_params: np.ndarray, n_tokens: np.ndarray, flops: np.ndarray) -> np.ndarray:
        """Prices (R,) of runs of so many parameters, tokens and operations. Raises `ConfigError`
        where it isn't said what an hour does, or costs.
        """
        if self.unit == FLOPS:
            return np.asarray(flops, float) + self.fixed
        speed = np.array([self.speeds.get(float(n), np.nan) for n in n_params])
        seconds = np.asarray(n_tokens, float) / speed
        unknown = np.isnan(speed)
        if unknown.any():
            if self.peak is None:
                missing = n_params[int(np.argmax(unknown))]
                raise ConfigError(
                    f"a budget in {self.unit}: how long a run of {missing:.4g} parameters takes is "
                    "not said; give --gpu-flops, or --tokens-per-second SIZE=NUMBER for every size"
                )
            by_peak = np.asarray(flops, float) / (self.peak * self.utilisation)
            seconds = np.where(unknown, by_peak, seconds)
        hours = seconds / SECONDS_AN_HOUR
        if self.unit == HOURS:
            return hours + self.fixed
        if self.dollars_an_hour is None:
            raise ConfigError("a budget in dollars: give --dollars-per-gpu-hour")
        return hours * self.dollars_an_hour + self.fixed

    def text(self, amount: float) -> str:
        """An amount as people write it."""
        if self.unit == FLOPS:
            return f"{amount:.3g} FLOPs"
        return f"${amount:,.0f}" if self.unit == DOLLARS else f"{amount:,.3g} GPU-hours"


def parse_budget(text: str, where: str = "--budget") -> tuple[float, str]:
    """`1e20`, `40 gpu-hours` or `$500` as an amount and its unit. Raises `ConfigError`."""
    found = AMOUNT.match(text.lower())
    unit = WRITTEN.get(found[3].strip()) if found else None
    if found is None or unit is None or (found[1] and found[3].strip()):
        raise ConfigError(f"{where}: {text!r}; write 1e20 (FLOPs), '40 gpu-hours' or '$500'")
    amount = float(found[2].replace(",", "").replace("_", ""))
    if not 0 < amount < np.inf:
        raise ConfigError(f"{where}: {text!r}: must be above 0")
    return amount, DOLLARS if found[1] else unit
