"""What N is: the parameters of a model, those active for a token, or a power between both.

    N_eff = N_active^(1 - rho) N_total^rho         rho in [0, 1]

Total is rho 1, active rho 0; in dense models all are one. `fitting.fit` finds rho by a profile.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from olmo_mixlaw.errors import ConfigError, FitError
from olmo_mixlaw.runs import Design

KINDS = ("total", "active", "effective")
# Sparsities N_total / N_active within this factor of one another count as one.
SAME_SPARSITY = 1.05
# Models off the most common sparsity that make rho identifiable.
OFF_RATIO = 2


@dataclass(frozen=True)
class Size:
    """What a fit's N counts: `kind`, the exponent `rho`, and 68 % for a rho that was fitted."""

    kind: str = "total"
    rho: float = 1.0
    interval: tuple[float, float] | None = None

    @classmethod
    def fixed(cls, kind: str, rho: float | None = None) -> Size:
        """The size of that kind; `effective` needs its `rho`. Raises `ConfigError`."""
        if kind not in KINDS:
            raise ConfigError(f"capacity: {kind!r} is none of {', '.join(KINDS)}")
        if kind != "effective":
            return cls(kind, 1.0 if kind == "total" else 0.0)
        if rho is None or not 0 <= rho <= 1:
            raise ConfigError(f"rho: {rho} is not within 0 to 1")
        return cls(kind, float(rho))

    @property
    def is_fitted(self) -> bool:
        """Whether rho was learnt from the table."""
        return self.interval is not None

    def of(self, n_params: Any, n_active: Any = None, where: str = "fit") -> Any:
        """The N of total and active counts, numbers or (R,). Raises `FitError` for one missing."""
        if self.kind == "total":
            return n_params
        counts = n_active if self.kind == "active" else (n_params, n_active)
        if n_active is None or not np.all(np.isfinite(np.asarray(counts, float))):
            raise FitError(
                f"{where}: this fit's capacity is {self.kind}: n_active is needed, "
                "and n_params beside it (the same in a dense model)"
            )
        return n_active if self.kind == "active" else effective(n_params, n_active, self.rho)

    def applied(self, design: Design) -> Design:
        """The design with this N as its size, total and active alike: twice is as once."""
        if self.rho == 1.0:
            return design
        size = effective(design.n_params, design.n_active, self.rho)
        return replace(design, n_params=size, n_active=size)


def effective(n_params: Any, n_active: Any, rho: float) -> np.ndarray:
    """N_eff for total and active counts (R,) each."""
    total, active = np.asarray(n_params, float), np.asarray(n_active, float)
    if rho == 1.0:
        return total
    return np.exp((1 - rho) * np.log(active) + rho * np.log(total))


def check_capacity(design: Design, capacity: str) -> None:
    """Refuse a table whose counts can't give this capacity.

    Raises `ConfigError` for an unknown name, `FitError` for missing counts, an active count above
    the total, or, for `effective`, fewer than two models off the most common sparsity.
    """
    if capacity not in KINDS:
        raise ConfigError(f"capacity: {capacity!r} is none of {', '.join(KINDS)}")
    if capacity == "total":
        return
    if not design.active_known:
        raise FitError(
            f"capacity {capacity}: the table has no n_active; add that column (in a dense model "
            "the same as n_params), or use capacity total"
        )
    counts = np.c_[design.n_params, design.n_active]
    if not np.isfinite(counts).all():
        i = int(np.argmax(~np.isfinite(counts).all(1)))
        raise FitError(
            f"capacity {capacity}: run {design.run_ids[i]!r} lacks n_params or n_active; both are "
            "needed (n_active equals n_params in a dense model)"
        )
    over = design.n_active > design.n_params * SAME_SPARSITY
    if over.any():
        i = int(np.argmax(over))
        raise FitError(
            f"capacity {capacity}: run {design.run_ids[i]!r} has n_active {design.n_active[i]:.6g} "
            f"above n_params {design.n_params[i]:.6g}"
        )
    if capacity == "effective":
        _refuse_one_sparsity(counts)


def _refuse_one_sparsity(counts: np.ndarray) -> None:
    models = np.unique(counts, axis=0)
    log_ratio = np.log(models[:, 0] / models[:, 1])
    near = np.abs(log_ratio[:, None] - log_ratio) < np.log(SAME_SPARSITY)
    common = int(near.sum(1).argmax())
    off = int((~near[common]).sum())
    if off < OFF_RATIO:
        raise FitError(
            f"capacity effective: rho needs {OFF_RATIO} models off the most common sparsity "
            f"n_params / n_active ({np.exp(log_ratio[common]):.3g}); {len(models)} models have "
            f"{off}. Add models of another sparsity, or use capacity active or total"
        )
