"""The stack: several laws averaged, with weights that held-out rows have earned.

    log L = sum_m w_m log L_m        w on the simplex, a set a target

There are two sets of weights, since a law that is good between the mixtures tried may be poor
at a larger size: one from mixtures held out, one from the largest size or longest budget held
out. A row beyond the table's sizes or budgets uses the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import nnls

from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws.base import Inputs, Law, Parameter, Scene
from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.laws.fitting import Settings, data_hash, provenance, resolve
from olmo_mixlaw.laws.kriging import Kriging
from olmo_mixlaw.laws.splits import Split, reaching_splits, sampled_splits, thinned
from olmo_mixlaw.runs import Design

# Three processes over different formulas err differently where they extrapolate.
MEMBERS = (
    "kriging:modulated", "kriging:two_pool", "kriging:additive", "power_transfer", "regimes",
)  # fmt: skip
# Coupled laws err differently from separable ones, which is what an average needs, but take
# minutes on long tables; up to this many losses they are members too.
COUPLED_MEMBERS = ("competition_noise",)
MOST_COUPLED_LOSSES = 3000
FOLDS = 4
# Weights need no more rows than this of a long table of checkpoints.
WEIGHING_ROWS = 450
# Weights of a target are drawn towards those of all targets as if by this many rows.
SHRINK_ROWS = 30.0
# Errors beyond this multiple of the best law's typical error count as that much.
CLIP = 20.0
# A row is beyond the table when its size or budget exceeds the largest by this factor.
BEYOND = 1.05


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
        reach = {n: held_errors(member(n), sample, outer, seed, loose)
                 for n in fits if n != "regmix"} if outer else {}  # fmt: skip
        far = stacked_weights(reach, len(design.targets)) if reach else near
        noise = _blend_noise(held, near, len(design.targets))
        scene = Scene.of(design)
        empty = np.zeros((scene.n_targets, 0))
        kept = [n for n in fits if _most(near, n) > 1e-3 or _most(far, n) > 1e-3]
        return Fit(
            law=self, scene=scene, theta=empty, theta_sd=empty, noise=noise,
            mixtures=np.unique(design.ratios, axis=0), n_rows=len(design),
            converged=np.ones(scene.n_targets, bool), seed=seed, data_hash=data_hash(design),
            provenance=provenance(settings),
            state={
                "fits": {n: fits[n] for n in kept},
                "near": {n: near.get(n, np.zeros(scene.n_targets)) for n in kept},
                "far": {n: far.get(n, np.zeros(scene.n_targets)) for n in kept},
            },
        )  # fmt: skip

    def members_of(self, fit: Fit) -> dict[str, Fit]:
        """The fits that the stack averages, by name of law."""
        return fit.state["fits"]

    def _weights(self, fit: Fit, inputs: Inputs, name: str) -> np.ndarray:
        """The weight of a member at each row and target, (R, T)."""
        scene = fit.scene
        beyond = np.zeros(len(inputs), bool)
        if scene.has_n:
            beyond |= inputs.log_n > np.log(BEYOND * scene.n_range[1] / scene.n_ref)
        if scene.has_d:
            beyond |= inputs.log_d > np.log(BEYOND * scene.d_range[1] / scene.d_ref)
        near, far = (fit.state[k][name] for k in ("near", "far"))
        return np.where(beyond[:, None], far, near)

    def predict(self, fit: Fit, inputs: Inputs) -> np.ndarray:
        total = np.zeros((len(inputs), fit.scene.n_targets))
        for name, part in self.members_of(fit).items():
            loss = part.law.predict(part, inputs)
            total += self._weights(fit, inputs, name) * np.log(loss)
        return np.exp(total)

    def gradient(self, fit: Fit, inputs: Inputs) -> np.ndarray:
        """As for a smooth blend; the trees' steps have no slope and count as flat."""
        total = np.zeros((len(inputs), fit.scene.n_targets, fit.scene.n_domains))
        for name, part in self.members_of(fit).items():
            if name == "regmix":
                continue
            loss = part.law.predict(part, inputs)
            slope = part.law.gradient(part, inputs) / loss[:, :, None]
            total += self._weights(fit, inputs, name)[:, :, None] * slope
        return total * self.predict(fit, inputs)[:, :, None]


def member(name: str) -> Law:
    """The law of a member's name: `law`, or `law:what it stands on`."""
    name, _, under = name.partition(":")
    law = resolve(name)
    return replace(law, mean=under) if isinstance(law, Kriging) and under else law


def held_errors(
    law: Law, design: Design, parts: Sequence[Split], seed: int, settings: Settings
) -> np.ndarray | None:
    """Errors of log loss on all held-out rows, (rows, T), or None when a fold can't be fitted."""
    errors = []
    for part in parts:
        test = design.take(part.test)
        try:
            fitted = law.fit(design.take(part.train), seed=seed, settings=settings)
            guess = fitted.predict(test.ratios, test.n_params, test.n_tokens)
        except FitError:
            return None
        errors.append(np.log(guess / test.losses))
    return np.concatenate(errors) if errors else None


def stacked_weights(held: dict[str, np.ndarray | None], targets: int) -> dict[str, np.ndarray]:
    """Weights (T,) a law on the simplex, by least squares on the held-out errors of log loss.

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
    every = _simplex(cube[seen], np.full(len(names), 1 / len(names)), 1.0)
    result = np.stack([_simplex(cube[seen[:, t], t], every, SHRINK_ROWS) for t in range(targets)])
    return {name: result[:, i] for i, name in enumerate(names)}


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


def _blend_noise(
    held: dict[str, np.ndarray | None], weights: dict[str, np.ndarray], targets: int
) -> np.ndarray:
    total: Any = 0.0
    for name, weight in weights.items():
        errors = held[name]
        if errors is not None:
            total = total + weight * errors
    return (
        np.sqrt(np.nanmean(np.asarray(total) ** 2, axis=0)) if np.ndim(total) else np.ones(targets)
    )


def _most(weights: dict[str, np.ndarray], name: str) -> float:
    return float(weights[name].max()) if name in weights else 0.0


def _has_trees() -> bool:
    from importlib.util import find_spec

    return find_spec("lightgbm") is not None
