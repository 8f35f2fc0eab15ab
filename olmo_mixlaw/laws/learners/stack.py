"""The stack: several laws averaged, with weights that held-out rows have earned.

    log L = sum_m w_m log L_m        w on the simplex, a set a target

Between the sizes and budgets of the table the weights are those that err least on mixtures held
out. Beyond them, one scale held out is too little to tell good from lucky: there the laws that
hold up both on held mixtures and on the held scale count alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import nnls

from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws.choice.holdout import Split, reaching_splits, sampled_splits, thinned
from olmo_mixlaw.laws.choice.selection import predict_held
from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.laws.fitting import Settings, data_hash, provenance, resolve
from olmo_mixlaw.laws.law import Inputs, Law, Parameter, Scene
from olmo_mixlaw.laws.learners.kriging import Kriging
from olmo_mixlaw.runs import Design

# Three processes over different formulas err differently where they extrapolate.
MEMBERS = ("kriging:modulated", "kriging:two_pool", "kriging:additive", "power_transfer", "regimes")
# Coupled laws err differently from separable ones, which is what an average needs. On tables with
# more losses than this, of several sizes, they err many times as much and earn no weight.
COUPLED_MEMBERS = ("competition_noise",)
MOST_COUPLED_LOSSES = 3000
FOLDS = 4
# Trees don't extrapolate, so they have no say beyond the table.
TREES = ("regmix", "regimes")
# How far from the best a law may be, on held mixtures and on a held scale, to count beyond it.
SOUND_NEAR, SOUND_FAR = 2.0, 1.5
# Weights need no more rows than this of a long table of checkpoints.
WEIGHING_ROWS = 450
# Weights of a target are drawn towards those of all targets as if by this many rows.
SHRINK_ROWS = 30.0
# Errors beyond this multiple of the best law's typical error count as that much.
CLIP = 20.0
# Rounds of reweighting that turn squared errors into absolute ones.
REWEIGHTINGS = 10
# A row is beyond the table when its size or budget exceeds the largest by this factor.
BEYOND = 1.05
# Levels at which the held-out errors are summarised, and how many rows of all targets together
# weigh in a target's own error.
LEVELS = np.linspace(0.05, 0.99, 95)
POOLED_ROWS = 8.0
LEAST_NOISE = 1e-5


@dataclass(frozen=True)
class Stack(Law):
    """An average of laws, weighted a target by their held-out errors.

    A member that can't be fitted to the table, or to a fold, is left out. `kriging:two_pool` is
    kriging over the law two_pool. `trees` adds RegMix where LightGBM is installed,
    `coupled_members` the competition law on short tables.
    """

    name = "stack"
    formula = "exp(sum_m w_m log L_m)"
    source = "stacked generalisation (Wolpert 1992; Breiman 1996)"
    members: tuple[str, ...] = MEMBERS
    trees: bool = True
    coupled_members: bool = True

    def parameters(self, scene: Scene, target: int) -> list[Parameter]:
        return []

    def fit(self, design: Design, *, seed: int, settings: Settings) -> Fit:
        names = list(self.members) + (["regmix"] if self.trees and _has_trees() else [])
        if self.coupled_members and np.isfinite(design.losses).sum() <= MOST_COUPLED_LOSSES:
            names += COUPLED_MEMBERS
        loose = replace(settings, strict=False)
        fits = {}
        for name in names:
            try:
                fits[name] = member(name).fit(design, seed=seed, settings=loose)
            except FitError:
                continue
        if not fits:
            raise FitError("stack: none of its laws can be fitted to this table")
        sample = design.take(thinned(design, WEIGHING_ROWS, seed))
        inner, outer = sampled_splits(sample, FOLDS, seed), reaching_splits(sample)
        held = {name: held_errors(member(name), sample, inner, seed, loose) for name in fits}
        near = stacked_weights(held, len(design.targets))
        reach = (
            {n: held_errors(member(n), sample, outer, seed, loose) for n in fits if n not in TREES}
            if outer
            else {}
        )
        far = sound_weights(held, reach, len(design.targets)) if reach else near
        spread = Spread.of(blended(held, near, len(design.targets)))
        spread_far = Spread.of(blended(reach, far, len(design.targets))) if reach else spread
        scene = Scene.of(design)
        empty = np.zeros((scene.n_targets, 0))
        kept = [n for n in fits if _most(near, n) > 1e-3 or _most(far, n) > 1e-3]
        return Fit(
            law=self,
            scene=scene,
            theta=empty,
            theta_sd=empty,
            noise=spread.size,
            mixtures=np.unique(design.ratios, axis=0),
            n_rows=len(design),
            converged=np.ones(scene.n_targets, bool),
            seed=seed,
            data_hash=data_hash(design),
            provenance=provenance(settings),
            state={
                "fits": {n: fits[n] for n in kept},
                "near": {n: near.get(n, np.zeros(scene.n_targets)) for n in kept},
                "far": {n: far.get(n, np.zeros(scene.n_targets)) for n in kept},
                "spread": {"near": vars(spread), "far": vars(spread_far)},
            },
        )

    def members_of(self, fit: Fit) -> dict[str, Fit]:
        """The fits that the stack averages, by name of law."""
        return fit.state["fits"]

    def count(self, fit: Fit) -> int:
        """Those of the members, and a weight a member and target beyond the first."""
        members = self.members_of(fit).values()
        return sum(m.n_parameters for m in members) + (len(members) - 1) * fit.scene.n_targets

    def weights_at(self, fit: Fit, inputs: Inputs, name: str) -> np.ndarray:
        """The weight of a member at each row and target, (R, T)."""
        near, far = (fit.state[k][name] for k in ("near", "far"))
        return np.where(_beyond(fit.scene, inputs)[:, None], far, near)

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
        for name, part in self.members_of(fit).items():
            loss = part.law.predict(part, inputs)
            total += self.weights_at(fit, inputs, name) * np.log(loss)
        return np.exp(total)

    def gradient(self, fit: Fit, inputs: Inputs) -> np.ndarray:
        """As for a smooth blend; the trees' steps have no slope and count as flat."""
        log_loss = np.zeros((len(inputs), fit.scene.n_targets))
        slope = np.zeros((*log_loss.shape, fit.scene.n_domains))
        for name, part in self.members_of(fit).items():
            weight, loss = self.weights_at(fit, inputs, name), part.law.predict(part, inputs)
            log_loss += weight * np.log(loss)
            if name != "regmix":
                slope += (weight / loss)[:, :, None] * part.law.gradient(part, inputs)
        return np.exp(log_loss)[:, :, None] * slope


def member(name: str) -> Law:
    """The law of a member's name: `law`, or `law:what it stands on`."""
    name, _, under = name.partition(":")
    law = resolve(name)
    return replace(law, mean=under) if isinstance(law, Kriging) and under else law


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
    cube = np.clip(cube, -CLIP * best, CLIP * best) / np.maximum(best, 1e-5)
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
            mean = np.nansum(size, 0) / np.maximum(count, 1) + LEAST_NOISE
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
        beyond |= inputs.log_n > np.log(BEYOND * scene.n_range[1] / scene.n_ref)
    if scene.has_d:
        beyond |= inputs.log_d > np.log(BEYOND * scene.d_range[1] / scene.d_ref)
    return beyond


def _most(weights: dict[str, np.ndarray], name: str) -> float:
    return float(weights[name].max()) if name in weights else 0.0


def _has_trees() -> bool:
    from importlib.util import find_spec

    return find_spec("lightgbm") is not None
