"""Rows held out in ways that imitate a table's use: mixtures not tried, a scale not reached.

Checkpoints of one run are one cluster: a split never has one mixture on both sides when it
holds mixtures out, and errors are averaged over runs, not rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws.fitting import leveled
from olmo_mixlaw.laws.law import Law, Settings
from olmo_mixlaw.laws.repeating import fit_fresh
from olmo_mixlaw.runs import Design

# Priors may carry what the rows of a fold can't.
LOOSE = Settings(strict=False)

SPLITS = ("held_mixtures", "largest_size", "longest_budget")


@dataclass(frozen=True)
class Split:
    """One fold: the rows to fit (`train`) and those to predict (`test`), as masks (R,)."""

    name: str
    fold: int
    train: np.ndarray
    test: np.ndarray


def mixture_ids(design: Design) -> np.ndarray:
    """A number (R,) for each distinct mixture, ratios rounded to 1e-6."""
    return np.unique(np.round(design.ratios, 6), axis=0, return_inverse=True)[1].ravel()


def run_ids(design: Design) -> np.ndarray:
    """A number (R,) for each training run: checkpoints share size and mixture."""
    sizes = np.nan_to_num(design.n_params, nan=-1.0)
    return np.unique(np.c_[sizes, mixture_ids(design)], axis=0, return_inverse=True)[1].ravel()


def cells(design: Design) -> np.ndarray:
    """A number (R,) for each distinct size and budget."""
    scale = np.nan_to_num(np.c_[design.n_params, design.n_tokens])
    return np.unique(scale, axis=0, return_inverse=True)[1].ravel()


def make_splits(
    design: Design, names: Sequence[str] = SPLITS, *, folds: int = 5, seed: int = 0
) -> list[Split]:
    """Every fold of the named splits that the table allows.

    A held-out size or budget needs at least two smaller ones to extrapolate from, and held
    mixtures at least three mixtures.
    """
    result: list[Split] = []
    if "held_mixtures" in names:
        result += _held_mixtures(design, folds, seed)
    if "largest_size" in names:
        result += _largest(design, "largest_size", design.n_params)
    if "longest_budget" in names and not any(s.name == "largest_size" for s in result):
        result += _largest(design, "longest_budget", design.n_tokens)
    return result


def _held_mixtures(design: Design, folds: int, seed: int) -> list[Split]:
    ids = mixture_ids(design)
    count = ids.max() + 1
    if count < 3:
        return []
    folds = min(folds, count)
    fold_of = np.empty(count, int)
    fold_of[np.random.default_rng(seed).permutation(count)] = np.arange(count) % folds
    held = fold_of[ids]
    return [Split("held_mixtures", f, held != f, held == f) for f in range(folds)]


def _largest(design: Design, name: str, values: np.ndarray) -> list[Split]:
    levels = np.unique(values[np.isfinite(values)])
    if len(levels) < 3:
        return []
    test = values >= levels[-1] * 0.999
    return [Split(name, 0, ~test, test)]


def sampled_splits(design: Design, folds: int, seed: int) -> list[Split]:
    """Held mixtures for the weights of a stack: at the largest size where it has its own mixtures.

    What matters is a mixture not tried at the size of interest. Where the largest size was run on
    a few mixtures that the smaller sizes never saw, those few are held out in turn.
    """
    ids = mixture_ids(design)
    sizes = design.n_params
    if np.isfinite(sizes).all() and len(np.unique(sizes)) > 1:
        large = sizes >= sizes.max() * 0.999
        own = np.setdiff1d(ids[large], ids[~large])
        if len(own) >= 2 * folds and len(own) == len(np.unique(ids[large])):
            some = np.isin(ids, own)
            fold_of = np.full(ids.max() + 1, -1)
            shuffled = np.random.default_rng(seed).permutation(own)
            fold_of[shuffled] = np.arange(len(own)) % folds
            held = fold_of[ids]
            return [Split("held_mixtures", f, held != f, some & (held == f)) for f in range(folds)]
    return _held_mixtures(design, folds, seed)


def reaching_splits(design: Design) -> list[Split]:
    """Extrapolations that the table can test: its largest size, and else its longest budgets.

    The longest budgets are those beyond the geometric middle of the budgets of the largest size.
    """
    result = _largest(design, "largest_size", design.n_params)
    budgets = np.unique(design.n_tokens[np.isfinite(design.n_tokens)])
    if not result and len(budgets) >= 3:
        cut = np.sqrt(budgets[0] * budgets[-1])
        test = design.n_tokens > max(cut, budgets[1] * 1.001)
        result = [Split("longest_budget", 0, ~test, test)]
    return result


def thinned(design: Design, most: int, seed: int) -> np.ndarray:
    """At most `most` rows: all of a largest size that has few rows, and others at random.

    The smallest and largest size and budget are among them.
    """
    if len(design) <= most:
        return np.arange(len(design))
    large = design.n_params >= np.nanmax(np.append(design.n_params, -np.inf)) * 0.999
    first = np.flatnonzero(large) if 0 < large.sum() < most // 4 else np.empty(0, int)
    for values in (design.n_params, design.n_tokens):
        if np.isfinite(values).any():
            first = np.union1d(first, [np.nanargmin(values), np.nanargmax(values)])
    rest = np.setdiff1d(np.arange(len(design)), first)
    some = np.random.default_rng(seed).permutation(rest)[: most - len(first)]
    return np.sort(np.concatenate([first, some]))


def predict_held(
    law: Law,
    design: Design,
    parts: Sequence[Split],
    seed: int = 0,
    settings: Settings = LOOSE,
    level: bool = False,
    whole: bool = False,
) -> tuple[list[tuple[Split, np.ndarray]], str]:
    """Predictions (rows of the fold, T) for every fold that the law can do, and why not else.

    With `level`, those beyond the rows fitted are brought to it; with `whole`, those of all rows
    (R, T), fitted or not.
    """
    predictions, note = [], ""
    for part in parts:
        train, test = design.take(part.train), design if whole else design.take(part.test)
        try:
            if not np.isfinite(train.losses).any():
                raise FitError("a fold has no losses to fit")
            fitted = fit_fresh(law, train, seed=seed, settings=settings)
            if level:
                fitted = leveled(fitted, train)
            at = (test.ratios, test.n_params, test.n_tokens)
            predictions.append((part, fitted.predict(*at, available=test.available)))
        except FitError as error:
            note = str(error)
    return predictions, note
