"""Minimise a smooth function over mixtures within bounds: many starts at once, then a polish.

All starts take exponentiated-gradient steps together, at the price of one evaluation a step; the
ends that differ are polished by sequential quadratic programming (SLSQP).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from scipy.optimize import minimize

from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.laws.weights import named

# Mixtures (S, K) -> values (S,) and slopes (S, K), each ratio moved by itself.
Objective = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
BISECTIONS = 60
FIRST_RATE, SLOWER, FASTER = 1.0, 0.3, 1.6
# Ends nearer than this (total variation) are one basin; ends whose gap to the best is above this
# part of what the descent gained are not worth a polish.
SAME_BASIN = 0.12
WORTH = 0.15
TOLERANCE = 1e-8
# A minimiser at a bound of 0 is reached from this far inside it.
INSIDE = 1e-6


def project(ratios: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The nearest mixtures within bounds: clip(ratios + shift), for ratios (K,) or (S, K)."""
    reach = 2.0 + np.abs(ratios).max(-1, keepdims=True)
    left, right = -reach, reach
    for _ in range(BISECTIONS):
        shift = 0.5 * (left + right)
        over = np.clip(ratios + shift, low, high).sum(-1, keepdims=True) > 1
        left, right = np.where(over, left, shift), np.where(over, shift, right)
    result = np.clip(ratios + right, low, high)
    return result / result.sum(-1, keepdims=True)


def is_free(low: np.ndarray, high: np.ndarray) -> bool:
    """Whether the bounds allow every mixture."""
    return bool((low <= 0).all() and (high >= 1).all())


def descend(
    objective: Objective, starts: np.ndarray, low: np.ndarray, high: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps h <- h exp(-rate g), each start with its own rate: ends (S, K), values, first values.

    A step that doesn't gain is taken back and the rate shrunk.
    """
    free = is_free(low, high)
    at = starts
    value, slope = objective(at)
    first, rate = value.copy(), np.full(len(at), FIRST_RATE)
    for _ in range(steps):
        pull = slope - (slope * at).sum(1, keepdims=True)
        scale = np.abs(pull).max(1, keepdims=True) + 1e-12
        step = at * np.exp(-rate[:, None] * pull / scale)
        new = step / step.sum(1, keepdims=True)
        new = new if free else project(new, low, high)
        new_value, new_slope = objective(new)
        good = new_value < value
        at, slope = np.where(good[:, None], new, at), np.where(good[:, None], new_slope, slope)
        value = np.where(good, new_value, value)
        rate = np.where(good, rate * FASTER, rate * SLOWER)
    return at, value, first


def search(
    objective: Objective,
    starts: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    *,
    steps: int = 5,
    polishes: int = 2,
) -> list[np.ndarray]:
    """Local minima from `starts` (S, K), the best first; empty where no value is finite."""
    starts = np.clip(starts, INSIDE, None)
    starts = project(starts / starts.sum(1, keepdims=True), low, high)
    ends, values, first = descend(objective, starts, low, high, steps)
    order = [i for i in np.argsort(values) if np.isfinite(values[i])]
    if not order:
        return []
    gained = float(np.median(first[order]) - values[order[0]])
    chosen: list[np.ndarray] = []
    for i in order:
        if values[i] > values[order[0]] + WORTH * gained or len(chosen) == polishes:
            break
        if all(0.5 * np.abs(ends[i] - end).sum() > SAME_BASIN for end in chosen):
            chosen.append(ends[i])
    found = [polish(objective, start, low, high) for start in chosen]
    worth = [float(objective(end[None])[0][0]) for end in found]
    return [found[i] for i in np.argsort(worth)]


def polish(
    objective: Objective, start: np.ndarray, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """The local minimum that SLSQP reaches from `start` (K,), within bounds and summing to 1."""

    def single(ratios: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = objective(np.maximum(ratios, 0.0)[None])
        return float(value[0]), slope[0]

    end = minimize(
        single,
        start,
        jac=True,
        method="SLSQP",
        bounds=list(zip(low, high, strict=True)),
        constraints={"type": "eq", "fun": lambda h: h.sum() - 1, "jac": np.ones_like},
        options={"maxiter": 100, "ftol": TOLERANCE},
    )
    if not np.isfinite(end.x).all():
        return start
    best = project(end.x, low, high)
    return best if single(best)[0] <= single(start)[0] else start


def bounds_of(
    domains: list[str],
    lower: Mapping[str, float] | float = 0.0,
    upper: Mapping[str, float] | float = 1.0,
    available: Mapping[str, float] | None = None,
    max_epochs: float | None = None,
    n_tokens: float = np.nan,
) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest ratios (K,), with `h_i D <= max_epochs * available_i` among the latter.

    Without `max_epochs` a domain may repeat as often as it likes, if it has anything to repeat.
    Raises `ConfigError` for unknown names, bounds outside 0 to 1, and ones that no mixture meets.
    """
    low, high = (
        np.full(len(domains), float(given))
        if isinstance(given, (int, float))
        else named(given, domains, "domain", what, default)
        for given, what, default in ((lower, "lower bound", 0.0), (upper, "upper bound", 1.0))
    )
    if available is not None:
        if max_epochs is not None and not 0 < max_epochs < np.inf:
            raise ConfigError(f"max_epochs: must be positive and finite, found {max_epochs:g}")
        if np.isinf(n_tokens) or n_tokens <= 0:
            raise ConfigError(f"available tokens: a budget of {n_tokens:g} tokens is not positive")
        if not np.isfinite(n_tokens):
            raise ConfigError("available tokens need n_tokens: a domain repeats after tokens_i / D")
        tokens = named(available, domains, "domain", "available tokens", np.inf)
        if not (tokens >= 0).all():
            raise ConfigError("available tokens: must be numbers that are not negative")
        most = np.where(tokens > 0, np.inf, 0.0) if max_epochs is None else max_epochs * tokens
        high = np.minimum(high, most / n_tokens)
    for i, name in enumerate(domains):
        if not 0 <= low[i] <= high[i] <= 1 + 1e-12 or low[i] > 1:
            raise ConfigError(
                f"bounds of domain {name!r}: {low[i]:g} to {high[i]:g} are not within 0 to 1"
            )
    if low.sum() > 1 + 1e-9 or high.sum() < 1 - 1e-9:
        raise ConfigError(
            f"no mixture meets the bounds: the lower ones sum to {low.sum():.4g} and the upper "
            f"ones to {high.sum():.4g}, and 1 must lie between"
        )
    return low, np.minimum(high, 1.0)
