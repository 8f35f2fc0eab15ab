"""Fitting what repeats are worth (`laws.repetition`): r, c and p of a table whose runs repeat.

They are those of least cost when a quick formula is fitted to the runs of fresh text that they
make of the table: Gauss-Newton steps over the three, the formula refitted at each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy.optimize import least_squares

from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws.engine.formula import Formula
from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.laws.law import Law, Scene, Settings
from olmo_mixlaw.laws.repetition import MIDDLE, REPEATS, SPREAD, Repetition, epochs_of
from olmo_mixlaw.runs import Design

# Each round refits the formula from the start, with the noise that the last one left.
ROUNDS, MOST_STEPS = 3, 20
STARTS = 3
REFIT_STEPS, REFIT_TOLERANCE = 80, 1e-8
# By so much of themselves the logarithms are moved to see how the residuals change.
STEP = 1e-2
LEAST_NOISE = 1e-4
# So many targets, drawn at random, say what repeats are worth to all.
MOST_TARGETS = 24
# A worth that is given is held there.
HELD = 1e-6


def repetition_of(
    design: Design, formula: Formula, seed: int, settings: Settings, worth: float | None = None
) -> Repetition | None:
    """What repeats are worth in a table; None where it doesn't say what domains have.

    Where no run repeats, the published values stay. `worth` fixes r. Raises `FitError` for a table
    without budgets, and for a worth that is not positive.
    """
    if worth is not None and not 0 < worth < np.inf:
        raise FitError(f"repeats: must be positive and finite, found {worth:g}")
    if design.available is None:
        if worth is None:
            return None
        raise FitError("repeats: the table has no tokens that its domains have (available_<name>)")
    if not np.isfinite(design.n_tokens).all():
        raise FitError(
            "the tokens that domains have are given, but not how many a run sees: give n_tokens"
        )
    epochs = epochs_of(design.ratios, design.n_tokens, design.available)
    start = Repetition(
        worth=MIDDLE[0] if worth is None else worth,
        available=common(design.available, design.ratios),
        # The effective budgets of a single domain vary as its repeats do.
        budgets_vary=Scene.of(design).has_d or len(design.domains) == 1,
        epochs=epochs.max(0),
    )
    if epochs.max() <= REPEATS:
        return start
    return _fitted(start, design, formula, seed, replace(settings, starts=STARTS, strict=False))


def fit_fresh(
    law: Law, design: Design, *, seed: int, settings: Settings, worth: float | None = None
) -> Fit:
    """The law fitted to the fresh text that the runs of a design count as; its repetition with it.

    Raises `FitError`.
    """
    repetition = repetition_of(design, law.in_profile(design), seed, settings, worth)
    if repetition is None:
        return law.fit(design, seed=seed, settings=settings)
    fitted = law.fit(repetition.applied(design), seed=seed, settings=settings)
    mixtures = np.unique(design.ratios, axis=0)
    return replace(fitted, repetition=repetition, mixtures=mixtures)


def common(available: np.ndarray, ratios: np.ndarray) -> np.ndarray | None:
    """The tokens (K,) that domains have in all runs (R, K) that use them, None if runs differ."""
    tokens = np.full(available.shape[1], np.inf)
    for k in np.flatnonzero((ratios > 0).any(0)):
        found = np.unique(available[ratios[:, k] > 0, k])
        if len(found) > 1:
            return None
        tokens[k] = found[0]
    return tokens


def _fitted(
    start: Repetition, design: Design, formula: Formula, seed: int, settings: Settings
) -> Repetition:
    if len(design.targets) > MOST_TARGETS:
        some = np.sort(np.random.default_rng(seed).permutation(len(design.targets))[:MOST_TARGETS])
        targets = [design.targets[t] for t in some]
        design = replace(design, targets=targets, losses=design.losses[:, some])
    middle = np.log([start.worth, *MIDDLE[1:]])
    width = np.array(SPREAD)
    if start.worth != MIDDLE[0]:
        width[0] = HELD
    logs = middle
    for _ in range(ROUNDS):
        first = formula.fit(start.with_logs(logs).applied(design), seed=seed, settings=settings)
        noise = np.maximum(np.resize(first.noise, len(design.targets)), LEAST_NOISE)

        def residuals(z: np.ndarray, first: Fit = first, noise: np.ndarray = noise) -> np.ndarray:
            at = start.with_logs(middle + width * z)
            errors, prior = _errors(formula, first, at.applied(design))
            return np.r_[_bent(errors / noise, settings.huber).ravel(), np.sqrt(2 * prior), z]

        z = (logs - middle) / width

        def slopes(z: np.ndarray, of: Callable[..., np.ndarray] = residuals) -> np.ndarray:
            steps = STEP * np.eye(len(z))
            return np.stack([(of(z + s) - of(z - s)) / (2 * STEP) for s in steps], axis=1)

        found = least_squares(residuals, z, jac=slopes, max_nfev=MOST_STEPS)
        moved, logs = np.abs(middle + width * found.x - logs).max(), middle + width * found.x
        if moved < STEP:
            break
    covariance = np.linalg.inv(found.jac.T @ found.jac)
    spread = width * np.sqrt(np.diag(covariance))
    return replace(start.with_logs(logs), spread=tuple(float(s) for s in spread))


def _errors(formula: Formula, first: Fit, design: Design) -> tuple[np.ndarray, float]:
    """Errors of log loss (R, T) of the formula refitted to a design, and the cost of its prior."""
    every = np.ones((1, len(design)), int)
    fitted = next(
        formula.refits(first, design, every, iterations=REFIT_STEPS, tolerance=REFIT_TOLERANCE)
    )
    inputs = fitted.scene.inputs(design.ratios, design.n_params, design.n_tokens)
    errors = np.log(formula.predict(fitted, inputs)) - np.log(design.losses)
    return np.nan_to_num(errors), max(formula.prior_cost(fitted), 0.0)


def _bent(errors: np.ndarray, bend: float) -> np.ndarray:
    """Errors whose half squares are Huber's loss."""
    size = np.abs(errors)
    beyond = np.sqrt(bend * np.maximum(2 * size - bend, 0.0))
    return np.sign(errors) * np.where(size > bend, beyond, size)
