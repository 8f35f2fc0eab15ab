"""The interval in which a new run's losses are expected, and how often such intervals held.

A stack's come from its own errors on held-out runs; those of a single formula are the least that
it may be off (see `uncertainty.bootstrap` for the rest).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.runs import Design


def predicted_interval(
    fit: Fit,
    ratios: np.ndarray,
    n_params: Any = np.nan,
    n_tokens: Any = np.nan,
    *,
    level: float = 0.9,
    n_active: Any = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Low and high losses in nats, (R, T) each, between which a new run falls `level` of the time.

    Raises `FitError` for a level outside (0, 1), and as `Fit.predict` does.
    """
    if not 0 < level < 1:
        raise FitError(f"level must lie between 0 and 1, found {level}")
    middle = fit.predict(ratios, n_params, n_tokens, n_active)
    size = fit.size_of(n_params, n_active)
    inputs = fit.scene.inputs(fit.checked_ratios(ratios), size, n_tokens)
    half = fit.law.half_width(fit, inputs, level)
    return middle * np.exp(-half), middle * np.exp(half)


def coverage(fit: Fit, held: Design, *, level: float = 0.9) -> float:
    """The part of the losses of `held`, runs that were not fitted, inside their intervals."""
    low, high = predicted_interval(
        fit, held.ratios, held.n_params, held.n_tokens, level=level, n_active=held.n_active
    )
    seen = np.isfinite(held.losses)
    return float(((held.losses >= low) & (held.losses <= high))[seen].mean())
