"""Weights that a user gives by name, as an array."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from olmo_mixlaw.errors import ConfigError, unknown_name


def weights_of(given: Mapping[str, float] | None, names: list[str], kind: str) -> np.ndarray:
    """Weights (T,) that sum to 1; equal ones for None. Raises `ConfigError`."""
    if given is None:
        return np.full(len(names), 1 / len(names))
    weights = named(given, names, kind, f"{kind} weight", 0.0)
    if not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() <= 0:
        raise ConfigError(f"{kind} weights must be finite, must not be negative and not all be 0")
    return weights / weights.sum()


def named(
    given: Mapping[str, float], names: list[str], kind: str, what: str, default: float
) -> np.ndarray:
    """A mapping's values in the order of `names`. Raises `UnknownNameError`."""
    values = np.full(len(names), default)
    for name, value in given.items():
        if name not in names:
            raise unknown_name(kind, name, names, what)
        values[names.index(name)] = float(value)
    return values
