"""What a fit says of runs: its law at their effective tokens, brought to the level.

Every law stays as it is fitted; sizes, repeats and the level are the same for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from olmo_mixlaw.laws.law import Surface
from olmo_mixlaw.laws.level import LogLaw

if TYPE_CHECKING:
    from olmo_mixlaw.laws.fitted import Fit

# A budget is moved by this part of itself, to see how losses change with it.
NUDGE = 1e-4

# How many rows and their budgets -> what the level multiplies losses by, (R, T) or (1, T).
Factor = Callable[[int, Any], np.ndarray]
# Ratios (R, K), budgets and whether slopes are wanted -> losses (R, T) and slopes or None.
At = Callable[[np.ndarray, Any, bool], tuple[np.ndarray, np.ndarray | None]]


def losses(fit: Fit, ratios: np.ndarray, n_params: Any, n_tokens: Any) -> np.ndarray:
    """Losses (R, T) at mixtures (R, K), sizes as the law sees them and budgets."""

    def law(h: np.ndarray, d: Any, slopes: bool) -> tuple[np.ndarray, None]:
        return fit.law.predict(fit, fit.scene.inputs(h, n_params, d)), None

    return _brought(fit, ratios, n_params, n_tokens, law, False, _factor_of(fit, n_params))[0]


def gradient(fit: Fit, ratios: np.ndarray, n_params: Any, n_tokens: Any) -> np.ndarray:
    """Derivatives of `losses` by the ratios, (R, T, K), each ratio moved by itself."""

    def law(h: np.ndarray, d: Any, slopes: bool) -> tuple[np.ndarray, np.ndarray | None]:
        inputs = fit.scene.inputs(h, n_params, d)
        return fit.law.predict(fit, inputs), fit.law.gradient(fit, inputs) if slopes else None

    slope = _brought(fit, ratios, n_params, n_tokens, law, True, _factor_of(fit, n_params))[1]
    assert slope is not None
    return slope


def half_width(
    fit: Fit, ratios: np.ndarray, n_params: Any, n_tokens: Any, level: float
) -> np.ndarray:
    """Half of the central interval of log loss that a new run falls in, (R, T)."""
    h, d = _fresh(fit, ratios, n_tokens)
    wide = fit.law.half_width(fit, fit.scene.inputs(h, n_params, d), level)
    if fit.level is None:
        return wide
    return fit.level.half_width(*_scales(len(h), n_params, d), level, wide)


def surface(fit: Fit, n_params: float, n_tokens: float) -> Surface:
    """The law's surface at one size and budget, brought to the level; smooth, as that is."""
    factor = _factor_of(fit, n_params)
    if not _repeats(fit) or not _budgets_vary(fit):
        smooth = fit.law.surface(fit, n_params, n_tokens)
        factor = _worked_out(factor, n_tokens)

        def law(h: np.ndarray, d: Any, slopes: bool) -> tuple[np.ndarray, np.ndarray | None]:
            return smooth(h, slopes)

    else:
        # Every mixture repeats in its own way, and so has a budget of its own.
        def law(h: np.ndarray, d: Any, slopes: bool) -> tuple[np.ndarray, np.ndarray | None]:
            return _row_by_row(fit, h, n_params, d, slopes)

    def at(ratios: np.ndarray, slopes: bool) -> tuple[np.ndarray, np.ndarray | None]:
        return _brought(fit, ratios, n_params, n_tokens, law, slopes, factor)

    return at


def with_steps(
    fit: Fit, losses: np.ndarray, ratios: np.ndarray, n_params: float, n_tokens: float
) -> np.ndarray:
    """What is predicted (S, T), from the losses of the surface there: with the steps of trees."""
    h, d = _fresh(fit, ratios, n_tokens)
    to_level = _factor_of(fit, n_params)
    factor = 1.0 if to_level is None else to_level(len(h), d)
    if _repeats(fit):
        factor = factor * _by_heart(fit, ratios, n_params, n_tokens)[0][:, None]
    inputs = fit.scene.inputs(h, n_params, d)
    return np.asarray(fit.law.with_steps(fit, losses / factor, inputs) * factor)


def _brought(
    fit: Fit,
    ratios: np.ndarray,
    n_params: Any,
    n_tokens: Any,
    law: At,
    slopes: bool,
    to_level: Factor | None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Losses and slopes by the ratios asked for, of a law that sees effective ones."""
    h, d = _fresh(fit, ratios, n_tokens)

    def level(h: np.ndarray, d: Any, slopes: bool) -> tuple[np.ndarray, np.ndarray | None]:
        found, slope = law(h, d, slopes)
        if to_level is None:
            return found, slope
        factor = to_level(len(h), d)
        return found * factor, None if slope is None else slope * factor[:, :, None]

    found, slope = level(h, d, slopes)
    if not _repeats(fit):
        return found, slope
    heart, by_ratio = _by_heart(fit, ratios, n_params, n_tokens)
    heart, by_ratio = heart[:, None], by_ratio[:, None]
    if slope is None:
        return found * heart, None
    if _budgets_vary(fit):
        # h' = fresh / total and D' = D total: both move with every fresh token.
        more, fewer = (level(h, d * np.exp(by), False)[0] for by in (NUDGE, -NUDGE))
        by_budget = (more - fewer)[:, :, None] / (2 * NUDGE)
        total = np.broadcast_to(d / _budget(fit, n_tokens), (len(h),))[:, None, None]
        slope = (slope - (slope * h[:, None]).sum(2, keepdims=True) + by_budget) / total
    slope = slope * _by_token(fit, ratios, n_tokens)[:, None]
    return found * heart, slope * heart[:, :, None] + found[:, :, None] * by_ratio


def _row_by_row(
    fit: Fit, h: np.ndarray, n_params: float, budgets: np.ndarray, slopes: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """The smooth surface at mixtures that each have a budget; that of trees leaves them out."""
    if not (fit.steps and fit.has_gradient):
        inputs = fit.scene.inputs(h, n_params, budgets)
        return fit.law.predict(fit, inputs), fit.law.gradient(fit, inputs) if slopes else None
    rows = [
        fit.law.surface(fit, n_params, float(d))(h[i : i + 1], slopes)
        for i, d in enumerate(np.broadcast_to(budgets, (len(h),)))
    ]
    slope = [some for _, some in rows if some is not None]
    return np.concatenate([loss for loss, _ in rows]), np.concatenate(slope) if slope else None


def _repeats(fit: Fit) -> bool:
    return fit.repetition is not None and fit.repetition.available is not None


def _budgets_vary(fit: Fit) -> bool:
    return fit.repetition is not None and fit.repetition.budgets_vary


def _by_heart(
    fit: Fit, ratios: np.ndarray, n_params: Any, n_tokens: Any
) -> tuple[np.ndarray, np.ndarray]:
    """What all losses grow by for text learnt by heart, (R,), and its slopes (R, K)."""
    repetition = fit.repetition
    assert repetition is not None
    assert repetition.available is not None
    n = np.asarray(n_params, float)
    n = n if fit.scene.has_n else np.where(np.isfinite(n), n, fit.scene.n_range[1])
    budget = _budget(fit, n_tokens)
    return repetition.by_heart(ratios, n, budget, repetition.available)


def _by_token(fit: Fit, ratios: np.ndarray, n_tokens: Any) -> np.ndarray:
    """What one more token of each domain adds to its effective ones, (R, K)."""
    repetition = fit.repetition
    assert repetition is not None
    assert repetition.available is not None
    return repetition.slope(ratios, _budget(fit, n_tokens), repetition.available)


def _fresh(fit: Fit, ratios: np.ndarray, n_tokens: Any) -> tuple[np.ndarray, Any]:
    """The ratios and budgets that the law sees."""
    if fit.repetition is None or fit.repetition.available is None:
        return ratios, n_tokens
    return fit.repetition.effective(ratios, _budget(fit, n_tokens), fit.repetition.available)


def _budget(fit: Fit, n_tokens: Any) -> Any:
    """The tokens that a run sees: the table's, where it has one budget and nobody says."""
    d = np.asarray(n_tokens, float)
    return d if fit.scene.has_d else np.where(np.isfinite(d), d, fit.scene.d_range[1])


def law_alone(fit: Fit) -> LogLaw:
    """The log losses of the law of a fit, as it sees ratios, sizes and budgets."""

    def law(ratios: np.ndarray, n: np.ndarray, d: np.ndarray) -> np.ndarray:
        return np.asarray(np.log(fit.law.predict(fit, fit.scene.inputs(ratios, n, d))))

    return law


def _factor_of(fit: Fit, n_params: Any) -> Factor | None:
    """What brings losses at this size to the level; None without one."""
    level = fit.level
    if level is None:
        return None
    law = law_alone(fit)

    def factor(rows: int, d: Any) -> np.ndarray:
        return np.asarray(np.exp(level.shift(*_scales(rows, n_params, d), law)))

    return factor


def _worked_out(factor: Factor | None, n_tokens: float) -> Factor | None:
    """The same at one budget, worked out once: a search asks for it at every step."""
    if factor is None:
        return None
    once = factor(1, n_tokens)
    return lambda rows, d: once


def _scales(rows: int, n_params: Any, n_tokens: Any) -> tuple[np.ndarray, np.ndarray]:
    n, d = (np.broadcast_to(np.asarray(x, float), (rows,)) for x in (n_params, n_tokens))
    return n, d
