"""How far a fit may be off: refits to resampled runs, warm-started from the fit itself.

Runs are resampled, not rows: checkpoints of one run share its luck and stay together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from olmo_mixlaw.advice.optimum import optimum
from olmo_mixlaw.laws.choice.holdout import run_ids
from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.laws.fitting import Settings, refit
from olmo_mixlaw.runs import Design

REFIT_STEPS = 40
REFIT_TOLERANCE = 1e-4
# Replicates are refitted together while they have fewer losses than this. Alone, a replicate
# leaves out the third of the runs that it didn't draw.
TOGETHER = 10_000


def bootstrap(fit: Fit, design: Design, *, replicates: int = 200, seed: int = 0) -> Iterator[Fit]:
    """Fits of the same law to runs drawn with replacement; `design` is what `fit` was fitted to.

    The prior stays, so that a replicate that lacks a mixture is still a fit. A law that is more
    than a formula (kriging, trees, a stack) is refitted from the start, which takes far longer.
    """
    if fit.capacity != "total":
        from olmo_mixlaw.laws.moe_capacity import bootstrap_capacity

        yield from bootstrap_capacity(fit, design, replicates=replicates, seed=seed)
        return
    runs = run_ids(design)
    count = int(runs.max()) + 1
    rng = np.random.default_rng(seed)
    if not fit.theta.size or fit.state:
        loose = Settings(strict=False)
        for _ in range(replicates):
            drawn = rng.integers(count, size=count)
            rows = np.concatenate([np.flatnonzero(runs == run) for run in drawn])
            yield fit.law.fit(_renamed(design.take(rows)), seed=seed, settings=loose)
        return
    together = max(1, TOGETHER // design.losses.size)
    for first in range(0, replicates, together):
        drawn = rng.integers(count, size=(min(together, replicates - first), count))
        weights = np.stack([np.bincount(some, minlength=count) for some in drawn])[:, runs]
        yield from refit(
            fit, design, weights.astype(float), iterations=REFIT_STEPS, tolerance=REFIT_TOLERANCE
        )


def _renamed(design: Design) -> Design:
    return replace(design, run_ids=[f"{i}" for i in range(len(design))])


def optimum_draws(
    fits: Iterable[Fit], n_params: float, n_tokens: float, **settings: Any
) -> np.ndarray:
    """The best mixture of each fit, (S, K): the spread of the optimum itself."""
    found = [optimum(f, n_params, n_tokens, starts=3, **settings).ratios for f in fits]
    return np.array(found)


def interval(draws: np.ndarray, level: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
    """The central `level` of draws (S, ...) as (low, high)."""
    tail = (1 - level) / 2
    return np.quantile(draws, tail, axis=0), np.quantile(draws, 1 - tail, axis=0)
