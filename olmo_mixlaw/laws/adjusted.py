"""What a fit says of runs: its law at their effective tokens, brought to the level.

Every law stays as it is fitted; sizes, repeats and the level are the same for all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from olmo_mixlaw.laws.law import Surface

if TYPE_CHECKING:
    from olmo_mixlaw.laws.fitted import Fit

# A budget is moved by this part of itself, to see how losses change with it.
NUDGE = 1e-4


def losses(fit: Fit, ratios: np.ndarray, n_params: Any, n_tokens: Any) -> np.ndarray:
    """Losses (R, T) at mixtures (R, K), sizes as the law sees them and budgets."""
    h, d = _fresh(fit, ratios, n_tokens)
    found = fit.law.predict(fit, fit.scene.inputs(h, n_params, d))
    return found if fit.level is None else found * np.exp(_shift(fit, len(h), n_params, d))


def gradient(fit: Fit, ratios: np.ndarray, n_params: Any, n_tokens: Any) -> np.ndarray:
    """Derivatives of `losses` by the ratios, (R, T, K), each ratio moved by itself."""
    h, d = _fresh(fit, ratios, n_tokens)
    slope = fit.law.gradient(fit, fit.scene.inputs(h, n_params, d))
    if fit.level is not None:
        slope = slope * np.exp(_shift(fit, len(h), n_params, d))[:, :, None]
    if fit.repetition is None or fit.repetition.available is None:
        return slope
    by_token = fit.repetition.slope(ratios, n_tokens, fit.repetition.available)[:, None]
    if not fit.repetition.budgets_vary:
        return slope * by_token
    # h' = fresh / total and D' = D total: both move with every fresh token.
    total = np.broadcast_to(d / np.asarray(n_tokens, float), (len(h),))[:, None, None]
    more, fewer = (
        fit.law.predict(fit, fit.scene.inputs(h, n_params, d * np.exp(by)))
        for by in (NUDGE, -NUDGE)
    )
    by_budget = (more - fewer) / (2 * NUDGE)
    if fit.level is not None:
        by_budget = by_budget * np.exp(_shift(fit, len(h), n_params, d))
    inner = (slope * h[:, None]).sum(2, keepdims=True)
    return by_token / total * (slope - inner + by_budget[:, :, None])


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
    if fit.repetition is not None and fit.repetition.available is not None:
        return _repeating(fit, n_params, n_tokens)
    smooth = fit.law.surface(fit, n_params, n_tokens)
    if fit.level is None:
        return smooth
    factor = np.exp(_shift(fit, 1, n_params, n_tokens))

    def at(ratios: np.ndarray, slopes: bool) -> tuple[np.ndarray, np.ndarray | None]:
        loss, slope = smooth(ratios, slopes)
        return loss * factor, None if slope is None else slope * factor[:, :, None]

    return at


def with_steps(
    fit: Fit, losses: np.ndarray, ratios: np.ndarray, n_params: float, n_tokens: float
) -> np.ndarray:
    """What is predicted (S, T), from the losses of the surface there: with the steps of trees."""
    h, d = _fresh(fit, ratios, n_tokens)
    factor = 1.0 if fit.level is None else np.exp(_shift(fit, len(h), n_params, d))
    inputs = fit.scene.inputs(h, n_params, d)
    return np.asarray(fit.law.with_steps(fit, losses / factor, inputs) * factor)


def _repeating(fit: Fit, n_params: float, n_tokens: float) -> Surface:
    """Row by row, since every mixture repeats in its own way and so has its own budget."""

    def at(ratios: np.ndarray, slopes: bool) -> tuple[np.ndarray, np.ndarray | None]:
        found = losses(fit, ratios, n_params, n_tokens)
        return found, gradient(fit, ratios, n_params, n_tokens) if slopes else None

    return at


def _fresh(fit: Fit, ratios: np.ndarray, n_tokens: Any) -> tuple[np.ndarray, Any]:
    """The ratios and budgets that the law sees."""
    if fit.repetition is None or fit.repetition.available is None:
        return ratios, n_tokens
    return fit.repetition.effective(ratios, n_tokens, fit.repetition.available)


def _shift(fit: Fit, rows: int, n_params: Any, n_tokens: Any) -> np.ndarray:
    """What the level adds to the law's log losses, (R, T)."""
    assert fit.level is not None

    def law(ratios: np.ndarray, n: np.ndarray, d: np.ndarray) -> np.ndarray:
        return np.asarray(np.log(fit.law.predict(fit, fit.scene.inputs(ratios, n, d))))

    return fit.level.shift(*_scales(rows, n_params, n_tokens), law)


def _scales(rows: int, n_params: Any, n_tokens: Any) -> tuple[np.ndarray, np.ndarray]:
    n, d = (np.broadcast_to(np.asarray(x, float), (rows,)) for x in (n_params, n_tokens))
    return n, d
