"""The stack: several laws averaged, with weights that held-out rows have earned.

    log L = sum_m w_m log L_m        w on the simplex, a set a target

Between the sizes and budgets of the table the weights are those that err least on mixtures held
out. Beyond them, one scale held out is too little to tell good from lucky: there the laws that
hold up both on held mixtures and on the held scale count alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from scipy.optimize import nnls

from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws.choice.holdout import (
    Split,
    predict_held,
    reaching_splits,
    sampled_splits,
    thinned,
)
from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.laws.law import Inputs, Law, Row, Scene, Settings, Surface, resolve
from olmo_mixlaw.registry import STACKED_LAWS
from olmo_mixlaw.runs import Design

# On tables with more losses than this, of several sizes, coupled laws err many times as much as
# others and earn no weight.
MOST_COUPLED_LOSSES = 3000
# Up to so many losses a stack is quick enough to be compared unasked.
MOST_LOSSES = 600
FOLDS = 4
# How far from the best a law may be, on held mixtures and on a held scale, to count beyond it.
SOUND_NEAR, SOUND_FAR = 2.0, 1.5
# Weights need no more rows than this of a long table of checkpoints.
WEIGHING_ROWS = 450
# Weights of a target are drawn towards those of all targets as if by this many rows.
SHRINK_ROWS = 30.0
# Errors beyond this multiple of the best law's typical error count as that much.
ERROR_CLIP = 20.0
# Rounds of reweighting that turn squared errors into absolute ones.
REWEIGHTINGS = 10
# A row is beyond the table when its size or budget exceeds the largest by this factor.
BEYOND_TABLE = 1.05
# A member of less weight than this everywhere is dropped.
LEAST_WEIGHT = 1e-3
# Levels at which the held-out errors are summarised, and how many rows of all targets together
# weigh in a target's own error.
LEVELS = np.linspace(0.05, 0.99, 95)
POOLED_ROWS = 8.0
LEAST_ERROR = 1e-5


@dataclass(frozen=True)
class Stack(Law):
    """An average of laws, weighted a target by their held-out errors.

    `members` are names of laws, `law` or `law:base`. One that can't be fitted to the table, or to a
    fold, is left out. Trees don't extrapolate, so a law with steps has no say beyond the table.
    """

    name = "stack"
    formula = "exp(sum_m w_m log L_m)"
    source = "stacked generalisation (Wolpert 1992; Breiman 1996)"
    has_gradient: ClassVar[bool] = True
    members: tuple[str, ...] = STACKED_LAWS

    def fit(self, design: Design, *, seed: int, settings: Settings) -> Fit:
        """Raises `FitError` where no member can be fitted."""
        loose, targets = replace(settings, strict=False), len(design.targets)
        fits = self._fitted(design, seed, loose)
        sample = design.take(thinned(design, WEIGHING_ROWS, seed))
        inner, outer = sampled_splits(sample, FOLDS, seed), reaching_splits(sample)
        held = {n: held_errors(f.law, sample, inner, seed, loose) for n, f in fits.items()}
        near = stacked_weights(held, targets)
        reach = {
            n: held_errors(f.law, sample, outer, seed, loose)
            for n, f in fits.items()
            if outer and not f.law.steps
        }
        far = sound_weights(held, reach, targets) if reach else near
        spread = Spread.of(blended(held, near, targets))
        spread_far = Spread.of(blended(reach, far, targets)) if reach else spread
        weights = {
            n: {"near": near.get(n, np.zeros(targets)), "far": far.get(n, np.zeros(targets))}
            for n in fits
        }
        kept = [n for n in fits if max(w.max() for w in weights[n].values()) > LEAST_WEIGHT]
        state = {
            "fits": {n: fits[n] for n in kept},
            "weights": {n: weights[n] for n in kept},
            "spread": {"near": vars(spread), "far": vars(spread_far)},
        }
        return Fit.learnt(
            self, design, state=state, noise=spread.size, seed=seed, settings=settings
        )

    def _fitted(self, design: Design, seed: int, settings: Settings) -> dict[str, Fit]:
        """The fits of the members that can be fitted and are worth it, by name."""
        long = int(np.isfinite(design.losses).sum()) > MOST_COUPLED_LOSSES
        fits = {}
        for name in self.members:
            law = resolve(name, f"{self.name}: members")
            if law.coupled and long:
                continue
            with suppress(FitError):
                fits[name] = law.fit(design, seed=seed, settings=settings)
        if not fits:
            raise FitError(f"{self.name}: none of its laws can be fitted to this table")
        return fits

    def parts(self, fit: Fit) -> list[Fit]:
        return list(fit.state["fits"].values())

    def count(self, fit: Fit) -> int:
        """Those of the members, and a weight a member and target beyond the first."""
        members = self.parts(fit)
        return sum(m.n_parameters for m in members) + (len(members) - 1) * fit.scene.n_targets

    def rows(self, fit: Fit) -> list[Row]:
        """The weights, within the table and beyond it."""
        return [
            (target, f"weight[{name}] {where}", float(values[t]), np.nan, np.nan, "1", False)
            for t, target in enumerate(fit.targets)
            for name, weights in fit.state["weights"].items()
            for where, values in weights.items()
        ]

    def suits(self, design: Design) -> bool:
        return int(np.isfinite(design.losses).sum()) <= MOST_LOSSES

    def half_width(self, fit: Fit, inputs: Inputs, level: float) -> np.ndarray:
        """From the held-out errors of the blend itself, so no distribution is assumed.

        Beyond the table the errors are those of the largest size or longest budget held out: how
        far the law may be off at a much larger size no table can say.
        """
        near, far = (Spread(**fit.state["spread"][k]) for k in ("near", "far"))
        beyond = _beyond(fit.scene, inputs)[:, None]
        return np.where(beyond, far.half_width(level), near.half_width(level))

    def predict(self, fit: Fit, inputs: Inputs) -> np.ndarray:
        total = np.zeros((len(inputs), fit.scene.n_targets))
        for weight, part in _weighted(fit, inputs):
            total += weight * np.log(part.law.predict(part, inputs))
        return np.exp(total)

    def gradient(self, fit: Fit, inputs: Inputs) -> np.ndarray:
        """As for a smooth blend; members without a gradient count as flat."""
        log_loss = np.zeros((len(inputs), fit.scene.n_targets))
        slope = np.zeros((*log_loss.shape, fit.scene.n_domains))
        for weight, part in _weighted(fit, inputs):
            loss = part.law.predict(part, inputs)
            log_loss += weight * np.log(loss)
            if part.has_gradient:
                slope += (weight / loss)[:, :, None] * part.law.gradient(part, inputs)
        return np.exp(log_loss)[:, :, None] * slope

    def surface(self, fit: Fit, n_params: float, n_tokens: float) -> Surface:
        """log L is the members' weighted mean; those without a gradient are left out of it."""
        one = fit.scene.inputs(fit.mixtures[:1], n_params, n_tokens)
        smooth = [(w[0], part) for w, part in _weighted(fit, one) if part.has_gradient]
        total = sum((w for w, _ in smooth), np.zeros(len(fit.targets)))
        if (total < 1e-9).any():
            # A target that only trees predict: the other members in equal parts lead the search.
            smooth = [(np.where(total < 1e-9, 1.0, w), part) for w, part in smooth]
            total = sum((w for w, _ in smooth), np.zeros(len(fit.targets)))
        parts = [
            (weight / total, part.law.surface(part, n_params, n_tokens))
            for weight, part in smooth
            if weight.max() > LEAST_WEIGHT
        ]

        def at(ratios: np.ndarray, slopes: bool) -> tuple[np.ndarray, np.ndarray | None]:
            log_loss = np.zeros((len(ratios), len(fit.targets)))
            by_ratio = np.zeros((*log_loss.shape, ratios.shape[1])) if slopes else None
            for weight, part in parts:
                loss, slope = part(ratios, slopes)
                log_loss += weight * np.log(loss)
                if by_ratio is not None and slope is not None:
                    by_ratio += (weight / loss)[:, :, None] * slope
            loss = np.exp(log_loss)
            return loss, None if by_ratio is None else by_ratio * loss[:, :, None]

        return at

    def with_steps(self, fit: Fit, losses: np.ndarray, inputs: Inputs) -> np.ndarray:
        """The members that the surface leaves out, in their share."""
        rough = [(w, part) for w, part in _weighted(fit, inputs) if not part.has_gradient]
        rest = 1 - sum((w for w, _ in rough), np.zeros(losses.shape))
        log_loss = rest * np.log(losses)
        for weight, part in rough:
            log_loss += weight * np.log(part.law.predict(part, inputs))
        return np.exp(log_loss) if rough else losses


def _weighted(fit: Fit, inputs: Inputs) -> Iterator[tuple[np.ndarray, Fit]]:
    """The weight (R, T) of each member at these rows, and the member."""
    beyond = _beyond(fit.scene, inputs)[:, None]
    for name, part in fit.state["fits"].items():
        weights = fit.state["weights"][name]
        yield np.where(beyond, weights["far"], weights["near"]), part


def held_errors(
    law: Law, design: Design, parts: Sequence[Split], seed: int, settings: Settings
) -> np.ndarray | None:
    """Errors of log loss on all held-out rows, (rows, T), or None when a fold can't be fitted."""
    predictions, _ = predict_held(law, design, parts, seed, settings)
    if not parts or len(predictions) < len(parts):
        return None
    return np.concatenate([np.log(guess / design.losses[p.test]) for p, guess in predictions])


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
    far, near = (
        {
            n: float(np.nanmean(np.abs(e)))
            for n, e in errors.items()
            if n in reach and e is not None and np.isfinite(e).any()
        }
        for errors in (reach, held)
    )
    if not far:
        return stacked_weights(held, targets)
    least_far, least_near = min(far.values()), min(near.values(), default=np.inf)
    sound = [
        n
        for n, e in far.items()
        if e <= SOUND_FAR * least_far and near.get(n, np.inf) <= SOUND_NEAR * least_near
    ]
    sound = sound or [min(far, key=far.__getitem__)]
    return {n: np.full(targets, float(n in sound) / len(sound)) for n in far}


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


def _beyond(scene: Scene, inputs: Inputs) -> np.ndarray:
    """Rows (R,) whose size or budget the table doesn't reach."""
    beyond = np.zeros(len(inputs), bool)
    if scene.has_n:
        beyond |= inputs.log_n > np.log(BEYOND_TABLE * scene.n_range[1] / scene.n_ref)
    if scene.has_d:
        beyond |= inputs.log_d > np.log(BEYOND_TABLE * scene.d_range[1] / scene.d_ref)
    return beyond
