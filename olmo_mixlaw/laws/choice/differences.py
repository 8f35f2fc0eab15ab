"""How far a law errs in the difference between two mixtures, which is what a choice rests on.

The error of a level is the same for two mixtures and leaves their difference alone; the error of a
law's form is not, and refits to resampled runs don't show it: on public tables 90 % intervals by
refits alone held 20 to 43 % of all gains (benchmarks/verdict.py). So it is measured: in each fold a
mixture held out is compared with those fitted, at one size and budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import nnls

from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws.choice.holdout import (
    LOOSE,
    Split,
    cells,
    make_splits,
    mixture_ids,
    predict_held,
)
from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.laws.law import Law, Settings
from olmo_mixlaw.runs import Design

# Where the largest size has so many mixtures, its errors alone count: it is nearest to a target.
LEAST_MIXTURES = 8
# So many rows of a fold and cell are compared with each other, and so many held mixtures are asked
# how far they lie outside: more change nothing that shows.
MOST_ROWS = 200
MOST_OUTSIDE = 40
# Pairs nearer than this share of the usual squared distance count no more than those at it, and two
# near mixtures differ by no less than this share of the usual squared error: two runs have luck.
NEAR, LEAST_NEAR = 0.1, 0.05
# Beyond the runs fitted, what mixtures differ by changes: an error of this part of its variance for
# each factor e of size or budget, the middle of public tables (benchmarks/verdict.py). It counts as
# so many mixtures beside those that a table can hold out.
USUAL_DRIFT, USUAL_MIXTURES = 0.04, 5
KEY = "differences"  # in a fit's provenance


@dataclass(frozen=True)
class Differences:
    """Second moments of errors e (T,) of log losses' differences, predicted less measured.

    Pairs are of a mixture held out and one fitted, of one size and budget, and weigh
    1 / (`NEAR` + q), q their squared distance (total variation) over `usual`^2, that of the median
    pair. `weight` (3,) are the sums of the weights times 1, q and q^2; `error` (2, T, T) the means
    of e e' and of e e' q. `held` and `spread` (T, T) are the means of e e' and of the measured
    differences between a mixture held out and the mean of those fitted: the latter alone a law may
    have by heart. `mixtures` is how many
    were held out in turn, and `outside` how far nine in ten of them lay from every blend of those
    fitted. `beyond` and `beyond_spread` (T, T) are the same with the largest size (or longest
    budget) held out, of `beyond_mixtures` tried below it, `reach` its log distance from the rest;
    0 where none was held out.
    """

    targets: list[str]
    weight: np.ndarray
    error: np.ndarray
    held: np.ndarray
    spread: np.ndarray
    usual: float
    mixtures: int
    outside: float
    beyond: np.ndarray
    beyond_spread: np.ndarray
    beyond_mixtures: int = 0
    reach: float = 0.0

    def variance(self, slope: np.ndarray, distance: float) -> float:
        """Error variance of a goal's difference at a distance: a + b distance^2, a and b >= 0.

        `slope` (T,) is the goal's by log losses.
        """
        near, far = (float(slope @ part @ slope) for part in self.error)
        s0, s1, s2 = self.weight
        ridge = 1e-9 * max(s0, s2) * np.eye(2)  # where all pairs are equally far
        root = np.linalg.cholesky(np.array([[s0, s1], [s1, s2]]) + ridge)
        (constant, growth), _ = nnls(root.T, np.linalg.solve(root, s0 * np.array([near, far])))
        constant = max(constant, LEAST_NEAR * near)
        return float(constant + growth * (distance / self.usual) ** 2)

    def typical(self, slope: np.ndarray) -> float:
        """The standard deviation of the error between two mixtures at the usual distance."""
        return float(np.sqrt(max(self.variance(slope, self.usual), 0.0)))

    def r2(self, slope: np.ndarray) -> float:
        """The part of a goal's differences between mixtures that held-out predictions explain."""
        return _explained(slope, self.held, self.spread)

    def beyond_r2(self, slope: np.ndarray) -> float:
        """The same where the largest size was held out; NaN where none was."""
        return _explained(slope, self.beyond, self.beyond_spread)

    def drift(self, slope: np.ndarray) -> float:
        """Error variance over that of mixtures, for each factor e beyond the runs fitted."""
        total = float(slope @ self.beyond_spread @ slope)
        if not self.beyond_mixtures or total <= 0:
            return USUAL_DRIFT
        own = float(slope @ self.beyond @ slope) / total / self.reach
        count = self.beyond_mixtures
        return (count * own + USUAL_MIXTURES * USUAL_DRIFT) / (count + USUAL_MIXTURES)

    def outdone(self, distance: float, least: float) -> float:
        """How many times as far outside every blend a mixture lies as those held out, at least 1.

        Distances below `least` are none.
        """
        return max(1.0, distance / max(self.outside, least))

    def record(self) -> dict[str, Any]:
        """What a fit's provenance keeps; `of` reads it."""
        return {KEY: asdict(self)}

    def kept_by(self, fit: Fit) -> Fit:
        """The fit that knows them."""
        return replace(fit, provenance=fit.provenance | self.record())

    @classmethod
    def measured(cls, fit: Fit, design: Design, *, seed: int = 0) -> Differences | None:
        """Those of a fit's law on a table, whose sizes are taken as the fit takes them."""
        return differences(fit.law, fit.size.applied(design), seed=seed)

    @classmethod
    def of(cls, fit: Fit) -> Differences | None:
        """Those that were measured for a fit; None where nobody did.

        Raises `FitError` for a record that no fit of ours has.
        """
        known = fit.provenance.get(KEY)
        if known is None:
            return None
        try:
            found = cls(**known)
            size = len(found.targets)
            shapes = {"weight": (3,), "error": (2, size, size)}
            square = ("held", "spread", "beyond", "beyond_spread")
            shapes |= dict.fromkeys(square, (size, size))
            whole = all(np.shape(getattr(found, key)) == shape for key, shape in shapes.items())
            numbers = [found.usual, found.outside, found.reach, found.mixtures]
            whole = whole and bool(np.isfinite(np.array(numbers, float)).all())
        except (TypeError, ValueError):
            whole = False
        if not whole:
            raise FitError("the fit's errors between mixtures are damaged; fit again")
        return found if list(found.targets) == fit.targets else None


def _explained(slope: np.ndarray, error: np.ndarray, spread: np.ndarray) -> float:
    total = float(slope @ spread @ slope)
    return 1 - float(slope @ error @ slope) / total if total > 0 else float("nan")


def differences(
    law: Law,
    design: Design,
    *,
    folds: int = 5,
    seed: int = 0,
    settings: Settings = LOOSE,
    held: Sequence[tuple[Split, np.ndarray]] | None = None,
) -> Differences | None:
    """What a law errs by between mixtures of a table, which is as the law sees it.

    None where a table has too few mixtures to hold some out, or they don't differ. `held` are
    predictions of all rows (R, T) by the fits without each fold, where they were made already.
    """
    if held is None:
        parts = make_splits(design, ("held_mixtures",), folds=folds, seed=seed)
        held, _ = predict_held(law, design, parts, seed, settings, whole=True)
    counted = _counted(design)
    pairs = [pair for part, guess in held for pair in _pairs(design, part, guess, counted)]
    if not pairs:
        return None
    errors, distances, outs, spreads = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    usual = float(np.median(distances))
    if usual <= 0:
        return None
    q = (distances / usual) ** 2
    weight = 1 / (NEAR + q)
    sums = np.array([weight.sum(), (weight * q).sum(), (weight * q**2).sum()])
    error = np.stack([_moment(errors, weight), _moment(errors, weight * q) * sums[1] / sums[0]])
    each = np.ones(len(outs))
    beyond, beyond_spread, mixtures, reach = _beyond(law, design, seed, settings)
    return Differences(
        list(design.targets),
        sums,
        error,
        _moment(outs, each),
        _moment(spreads, each),
        usual,
        len(np.unique(mixture_ids(design)[counted])),
        _outside(design, held, counted),
        beyond,
        beyond_spread,
        mixtures,
        reach,
    )


def _counted(design: Design) -> np.ndarray:
    """The rows (R,) whose errors count: those of the largest size that has mixtures enough."""
    ids, sizes = mixture_ids(design), design.n_params
    for size in np.unique(sizes[np.isfinite(sizes)])[::-1]:
        if len(np.unique(ids[sizes == size])) >= LEAST_MIXTURES:
            return np.asarray(sizes == size)
    return np.ones(len(design), bool)


def _pairs(
    design: Design, part: Split, guess: np.ndarray, counted: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Errors (P, T) and distances (P,) of a fold's pairs, a cell at a time, and for each of its
    mixtures held out (H, T) errors and measured differences from the mean of those fitted."""
    cell, found = cells(design), []
    truth = np.log(design.losses)
    residual = truth - np.log(guess)
    for c in np.unique(cell[part.test & counted]):
        held, fitted = (_some(rows & counted & (cell == c)) for rows in (part.test, part.train))
        if not len(held) or not len(fitted):
            continue
        i, j = (rows.ravel() for rows in np.meshgrid(held, fitted, indexing="ij"))
        apart = 0.5 * np.abs(design.ratios[i] - design.ratios[j]).sum(1)
        off, true = (x[held] - np.nanmean(x[fitted], axis=0) for x in (residual, truth))
        found.append((residual[i] - residual[j], apart, off, true))
    return found


def _some(rows: np.ndarray) -> np.ndarray:
    """The indices of rows, at most `MOST_ROWS` of them, evenly taken."""
    every = np.flatnonzero(rows)
    if len(every) <= MOST_ROWS:
        return every
    return every[np.linspace(0, len(every) - 1, MOST_ROWS).astype(int)]


def _moment(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The weighted mean of v v' (T, T) over rows (P, T), of two targets where both are known."""
    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)
    count = (known * weight[:, None]).T @ known.astype(float)
    total = (filled * weight[:, None]).T @ filled
    return np.asarray(total / np.maximum(count, 1e-300))


def _outside(
    design: Design, held: Sequence[tuple[Split, np.ndarray]], counted: np.ndarray
) -> float:
    """How far nine in ten of the mixtures held out lie from every blend of those fitted."""
    found: list[float] = []
    for part, _ in held:
        tried = np.unique(np.round(design.ratios[part.train], 6), axis=0)
        asked = np.unique(np.round(design.ratios[part.test & counted], 6), axis=0)
        most = max(1, MOST_OUTSIDE // len(held))
        found += [hull_distance(mixture, tried) for mixture in asked[:most]]
    return float(np.quantile(found, 0.9))


def hull_distance(ratios: np.ndarray, mixtures: np.ndarray) -> float:
    """Total variation between a mixture (K,) and the nearest blend of sampled ones (m, K)."""
    heavy = 1e3  # holds the blend's weights to a sum of 1
    system = np.vstack([mixtures.T, heavy * np.ones(len(mixtures))])
    blend, _ = nnls(system, np.append(ratios, heavy))
    blend = blend / blend.sum()
    return float(0.5 * np.abs(blend @ mixtures - ratios).sum())


def reach_of(n_params: float, n_tokens: float, most_params: float, most_tokens: float) -> float:
    """The log of how far a size and a budget lie beyond the largest fitted, 0 within them."""
    found = 0.0
    for asked, most in ((n_params, most_params), (n_tokens, most_tokens)):
        if np.isfinite(asked) and np.isfinite(most) and most > 0:
            found += max(0.0, float(np.log(asked / most)))
    return found


def _beyond(
    law: Law, design: Design, seed: int, settings: Settings
) -> tuple[np.ndarray, np.ndarray, int, float]:
    """Errors and measured differences between mixtures where the largest size was held out.

    Of two sizes too: a law of one size speaks of another by the level alone, which leaves its
    differences as they are.
    """
    count = len(design.targets)
    nothing = np.zeros((count, count)), np.zeros((count, count)), 0, 0.0
    part = _largest(design)
    if part is None:
        return nothing
    held, _ = predict_held(law, design, [part], seed, settings, level=True)
    if not held:
        return nothing
    guess = held[0][1]
    test, train = design.take(part.test), design.take(part.train)
    tried = np.isin(mixture_ids(design)[part.test], mixture_ids(design)[part.train])
    truth = np.log(test.losses)
    error, cell = truth - np.log(guess), cells(test)
    errors, truths, weights, mixtures = [], [], [], set()
    for c in np.unique(cell):
        rows = np.flatnonzero((cell == c) & tried)
        if len(rows) < 3:
            continue
        # Two draws differ by twice their variance, whose estimate has a freedom less.
        share = np.sqrt(2 * len(rows) / (len(rows) - 1))
        errors.append(share * _centred(error[rows]))
        truths.append(share * _centred(truth[rows]))
        weights.append(np.ones(len(rows)))
        mixtures |= set(mixture_ids(test)[rows].tolist())
    if not errors:
        return nothing
    weight = np.concatenate(weights)
    reach = reach_of(
        float(np.nanmax(test.n_params)),
        float(np.nanmax(test.n_tokens)),
        float(np.nanmax(train.n_params)),
        float(np.nanmax(train.n_tokens)),
    )
    return (
        _moment(np.concatenate(errors), weight),
        _moment(np.concatenate(truths), weight),
        len(mixtures),
        reach,
    )


def _centred(values: np.ndarray) -> np.ndarray:
    return np.asarray(values - np.nanmean(values, axis=0))


def _largest(design: Design) -> Split | None:
    """The largest size, or else the longest budget, apart from the rest; None if all are alike."""
    for values in (design.n_params, design.n_tokens):
        known = values[np.isfinite(values)]
        if len(known) == len(values) and known.max() > 1.05 * known.min():
            test = values >= known.max() * 0.999
            return Split("largest_size", 0, ~test, test)
    return None
