"""What may be bought and what it is for: candidate runs with their prices, and the target."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from olmo_mixlaw.errors import ConfigError

# A plan holds some hundred thousand bytes a candidate where there are many targets.
MOST = 12_000


@dataclass(frozen=True, eq=False)
class Candidates:
    """C runs that could be made, each of which measures all targets at once.

    `ratios` (C, K) by `domains`, `n_params` and `n_tokens` (C,); `price` (C,) in any one unit.
    `available` (C, K) are the tokens that each domain has for a run (infinite: it never ends), None
    where no run repeats. `repeatable` runs may be bought again, with other seeds.
    """

    domains: list[str]
    ratios: np.ndarray
    n_params: np.ndarray
    n_tokens: np.ndarray
    price: np.ndarray
    available: np.ndarray | None = None
    repeatable: bool = False

    def __len__(self) -> int:
        return len(self.ratios)

    def take(self, rows: np.ndarray) -> Candidates:
        """The candidates that `rows` (indices or a mask) selects."""
        return replace(
            self,
            ratios=self.ratios[rows],
            n_params=self.n_params[rows],
            n_tokens=self.n_tokens[rows],
            price=self.price[rows],
            available=None if self.available is None else self.available[rows],
        )

    def check(self) -> None:
        """Refuse what can't be planned with. Raises `ConfigError`."""
        if not len(self):
            raise ConfigError("candidates: there is none to choose from")
        if len(self) > MOST:
            raise ConfigError(
                f"candidates: {len(self):,} are more than {MOST:,}, what a plan's memory allows; "
                "offer fewer mixtures or sizes"
            )
        if self.ratios.ndim != 2 or self.ratios.shape[1] != len(self.domains):
            raise ConfigError(
                f"candidates: ratios of shape {self.ratios.shape} for {len(self.domains)} domains"
            )
        for name in ("n_params", "n_tokens", "price"):
            values = np.asarray(getattr(self, name), float)
            if values.shape != (len(self),):
                raise ConfigError(
                    f"candidates: {name} has shape {values.shape}, not ({len(self)},)"
                )
            if not (np.isfinite(values) & (values > 0)).all():
                i = int(np.argmin(np.isfinite(values) & (values > 0)))
                raise ConfigError(
                    f"candidates: {name} of row {i + 1} is {values[i]:g}; it must be positive"
                )
        off = np.abs(self.ratios.sum(1) - 1)
        if not np.isfinite(self.ratios).all() or (self.ratios < 0).any() or (off > 1e-6).any():
            raise ConfigError("candidates: ratios must not be negative and must sum to 1 a row")


@dataclass(frozen=True, eq=False)
class Target:
    """The model that the runs are for.

    `mixtures` (M, K) are those among which its optimum is sought (None: the candidates' own and
    draws between them). `available` (K,) are the tokens that its domains have. `price` is that of
    the run at the target, in the candidates' unit, by which a gain in loss is given a price (None:
    no such price is said).
    """

    n_params: float
    n_tokens: float
    mixtures: np.ndarray | None = None
    available: np.ndarray | None = None
    price: float | None = None
