"""What held-out errors say of several laws: their weights in an average, and how far it is off.

Between the sizes and budgets of a table the weights are those that err least on mixtures held out.
Beyond, one scale held out is too little to tell good from lucky: the laws that hold up both on
held mixtures and on the held scale count alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

# How far from the best a law may be, on held mixtures and on a held scale, to count beyond it.
SOUND_NEAR, SOUND_FAR = 1.3, 1.5
# Weights of a target are drawn towards those of all targets as if by this many rows.
SHRINK_ROWS = 30.0
# Errors beyond this multiple of the best law's typical error count as that much.
ERROR_CLIP = 20.0
# Rounds of reweighting that turn squared errors into absolute ones.
REWEIGHTINGS = 10
# Levels at which the held-out errors are summarised, and how many rows of all targets together
# weigh in a target's own error.
LEVELS = np.linspace(0.05, 0.99, 95)
POOLED_ROWS = 8.0
LEAST_ERROR = 1e-5


def stacked_weights(held: dict[str, np.ndarray | None], targets: int) -> dict[str, np.ndarray]:
    """Weights (T,) a law on the simplex, of least absolute held-out error of log loss.

    First one set for all targets, then one a target, drawn towards the first.
    """
    errors = {name: e for name, e in held.items() if e is not None and np.isfinite(e).any()}
    if not errors:
        return {name: np.full(targets, 1 / len(held)) for name in held}
    names = list(errors)
    cube = np.stack([errors[name] for name in names], axis=-1)  # (rows, T, members)
    best = np.nanmin(np.nanmedian(np.abs(cube), axis=0), axis=-1)[None, :, None]
    cube = np.clip(cube, -ERROR_CLIP * best, ERROR_CLIP * best) / np.maximum(best, 1e-5)
    seen = np.isfinite(cube).all(-1)
    every = _least_absolute(cube[seen], np.full(len(names), 1 / len(names)), 1.0)
    result = np.stack(
        [_least_absolute(cube[seen[:, t], t], every, SHRINK_ROWS) for t in range(targets)]
    )
    return {name: result[:, i] for i, name in enumerate(names)}


def sound_weights(
    held: dict[str, np.ndarray | None], reach: dict[str, np.ndarray | None], targets: int
) -> dict[str, np.ndarray]:
    """Equal weights (T,) of the laws near the best on both kinds of held-out rows.

    Where no law is near both bests, the best on the held scale counts alone.
    """
    far = _sizes(reach)
    if not far:
        return stacked_weights(held, targets)
    near, least = near_best(held), min(far.values())
    sound = [n for n, e in far.items() if e <= SOUND_FAR * least and n in near]
    sound = sound or [min(far, key=far.__getitem__)]
    return {n: np.full(targets, float(n in sound) / len(sound)) for n in far}


def near_best(held: dict[str, np.ndarray | None]) -> set[str]:
    """The laws that err on held mixtures little more than the best does."""
    near = _sizes(held)
    return {n for n, e in near.items() if e <= SOUND_NEAR * min(near.values())}


def _sizes(errors: dict[str, np.ndarray | None]) -> dict[str, float]:
    """The mean absolute error of each law that has any."""
    return {
        n: float(np.nanmean(np.abs(e)))
        for n, e in errors.items()
        if e is not None and np.isfinite(e).any()
    }


def _least_absolute(errors: np.ndarray, towards: np.ndarray, strength: float) -> np.ndarray:
    """As `_simplex`, for absolute errors: squares would let a few rows near a jump decide."""
    weights = _simplex(errors, towards, strength)
    for _ in range(REWEIGHTINGS if len(errors) else 0):
        size = np.abs(errors @ weights)
        size = np.maximum(size, 0.5 * np.median(size) + 1e-9)
        pull = np.sqrt(np.median(size) / size)
        weights = _simplex(errors * pull[:, None], towards, strength)
    return weights


def _simplex(errors: np.ndarray, towards: np.ndarray, strength: float) -> np.ndarray:
    """argmin |errors w|^2 + strength s^2 |w - towards|^2 on the simplex; s is the typical error."""
    if not len(errors):
        return towards
    scale = np.sqrt(np.mean(np.min(errors**2, axis=1)) + 1e-12)
    pull = np.sqrt(strength) * scale
    heavy = 1e3 * np.sqrt(len(errors)) * max(float(np.abs(errors).max()), scale)
    size = len(towards)
    matrix = np.vstack([errors, pull * np.eye(size), heavy * np.ones((1, size))])
    right = np.concatenate([np.zeros(len(errors)), pull * towards, [heavy]])
    # The normal equations' Cholesky factor has the same solution and only `size` rows.
    gram = np.linalg.cholesky(matrix.T @ matrix + 1e-12 * np.eye(size)).T
    weights, _ = nnls(gram, np.linalg.solve(gram.T, matrix.T @ right))
    return weights / weights.sum()


def blended(
    held: dict[str, np.ndarray | None], weights: dict[str, np.ndarray], targets: int
) -> np.ndarray:
    """Held-out errors (rows, T) of the average with these weights."""
    errors = [weights[name] * e for name, e in held.items() if e is not None and name in weights]
    return np.sum(errors, axis=0) if errors else np.zeros((0, targets))


@dataclass(frozen=True)
class Spread:
    """Sizes of held-out errors: mean absolute error a target, and quantiles in units of it.

    The quantiles are those of split conformal prediction (Vovk et al. 2005), pooled over targets.
    """

    size: np.ndarray
    quantiles: np.ndarray

    @classmethod
    def of(cls, errors: np.ndarray) -> Spread:
        with np.errstate(all="ignore"):
            size = np.abs(errors)
            count = np.isfinite(size).sum(0)
            mean = np.nansum(size, 0) / np.maximum(count, 1) + LEAST_ERROR
        pooled = np.log(mean[count > 0]).mean() if (count > 0).any() else 0.0
        # A target with few rows leans on the others.
        size_of = np.exp((count * np.log(mean) + POOLED_ROWS * pooled) / (count + POOLED_ROWS))
        scaled = (size / size_of)[np.isfinite(size)]
        levels = np.minimum(LEVELS * (1 + 1 / max(len(scaled), 1)), 1.0)
        return cls(size_of, np.quantile(scaled, levels) if len(scaled) else LEVELS * np.inf)

    def half_width(self, level: float) -> np.ndarray:
        return np.asarray(self.size) * np.interp(level, LEVELS, self.quantiles)


def centred(errors: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Errors (rows, T) about their mean in each cell (rows,) of size and budget.

    What is left is how well mixtures are told apart there, whatever the level.
    """
    found = errors.copy()
    for c in np.unique(cell):
        with np.errstate(all="ignore"):
            some = errors[cell == c]
            count = np.isfinite(some).sum(0)
            found[cell == c] -= np.nansum(some, 0) / np.maximum(count, 1)
    return found
