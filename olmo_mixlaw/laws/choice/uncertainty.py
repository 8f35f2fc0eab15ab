"""How far a fit may be off: refits to resampled runs, and the interval a new run falls in.

Runs are resampled, not rows: checkpoints of one run share its luck and stay together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.stats import norm

from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws.choice.holdout import run_ids
from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.laws.sizes import Size
from olmo_mixlaw.runs import Design

# Replicates are refitted together while they have fewer losses than this. Alone, a replicate
# leaves out the third of the runs that it didn't draw.
TOGETHER = 10_000
# Values of a fitted rho that the replicates are shared out among.
RHO_STRATA = 5


def bootstrap(fit: Fit, design: Design, *, replicates: int = 200, seed: int = 0) -> Iterator[Fit]:
    """Fits of the same law to runs drawn with replacement; `design` is what `fit` was fitted to.

    The prior stays, so that a replicate that lacks a mixture is still a fit. A formula is refitted
    from where the fit is; a law that is more than one (kriging, trees, a stack) from the start,
    which takes far longer. A rho that was fitted varies too: the replicates are shared out among
    the middles of equal parts of its interval (normal, cut to [0, 1]).
    """
    size = fit.size
    strata = min(RHO_STRATA, replicates) if size.interval else 1
    sd = 0.5 * (size.interval[1] - size.interval[0]) if size.interval else 0.0
    for i, z in enumerate(norm.ppf((np.arange(strata) + 0.5) / strata)):
        rho = float(np.clip(size.rho + sd * z, 0.0, 1.0))
        share = replicates // strata + (i < replicates % strata)
        seen = replace(fit, size=Size(size.kind, rho)).seen(design)
        for other in _resampled(fit, seen, share, np.random.default_rng(seed + i)):
            yield replace(
                other,
                size=replace(size, rho=rho),
                repetition=fit.repetition,
                mixtures=fit.mixtures,
                level=fit.level,
            )


def _resampled(
    fit: Fit, design: Design, replicates: int, rng: np.random.Generator
) -> Iterator[Fit]:
    runs = run_ids(design)
    count = int(runs.max()) + 1
    together = max(1, TOGETHER // design.losses.size)
    for first in range(0, replicates, together):
        drawn = rng.integers(count, size=(min(together, replicates - first), count))
        counts = np.stack([np.bincount(some, minlength=count) for some in drawn])
        yield from fit.law.refits(fit, design, counts[:, runs])


def interval(draws: np.ndarray, level: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
    """The central `level` of draws (S, ...) as (low, high)."""
    tail = (1 - level) / 2
    return np.quantile(draws, tail, axis=0), np.quantile(draws, 1 - tail, axis=0)


def predicted_interval(
    fit: Fit,
    ratios: np.ndarray,
    n_params: Any = np.nan,
    n_tokens: Any = np.nan,
    *,
    level: float = 0.9,
    n_active: Any = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Low and high losses, (R, T) each, between which a new run falls `level` of the time.

    Raises `FitError` for a level outside (0, 1), and as `Fit.predict` does.
    """
    if not 0 < level < 1:
        raise FitError(f"level must lie between 0 and 1, found {level}")
    middle = fit.predict(ratios, n_params, n_tokens, n_active)
    size = fit.size_of(n_params, n_active)
    half = fit.half_width(ratios, size, n_tokens, level)
    return middle * np.exp(-half), middle * np.exp(half)


def widened(
    ends: tuple[np.ndarray, np.ndarray], draws: np.ndarray, level: float = 0.9
) -> tuple[np.ndarray, np.ndarray]:
    """The interval of new runs (low, high), widened to hold that of refits' losses (S, ...)."""
    low, high = interval(draws, level)
    return np.minimum(ends[0], low), np.maximum(ends[1], high)


def coverage(fit: Fit, held: Design, *, level: float = 0.9) -> float:
    """The part of the losses of `held`, runs that were not fitted, inside their intervals."""
    if held.available is not None:
        fit = fit.having(held.available)
    low, high = predicted_interval(
        fit, held.ratios, held.n_params, held.n_tokens, level=level, n_active=held.n_active
    )
    seen = np.isfinite(held.losses)
    return float(((held.losses >= low) & (held.losses <= high))[seen].mean())
