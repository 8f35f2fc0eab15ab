"""The stack: several laws averaged, with weights that held-out rows have earned.

    log L = sum_m w_m log L_m        w on the simplex, a set a target

The rows held out are predicted by refits that start where the fit to all rows is, and keep its
scales: a stack takes little longer than the laws in it. Many targets, few runs: laws that share
most between targets come first; those that learn each target alone are first tried on a few.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws.choice.holdout import Split, cells, reaching_splits, sampled_splits, thinned
from olmo_mixlaw.laws.choice.scoring import mixture_scores, noisy
from olmo_mixlaw.laws.engine.progress import report
from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.laws.law import Inputs, Law, Row, Scene, Settings, Surface, resolve
from olmo_mixlaw.laws.learners.residual import Residual, inputs_of
from olmo_mixlaw.laws.learners.weighing import (
    LEAST_ERROR,
    Spread,
    blended,
    centred,
    near_best,
    sound_weights,
    stacked_weights,
)
from olmo_mixlaw.laws.level import BEYOND
from olmo_mixlaw.registry import STACKED_LAWS
from olmo_mixlaw.runs import Design

# On tables with more losses than this, of several sizes, coupled laws err many times as much as
# others and earn no weight.
MOST_COUPLED_LOSSES = 3000
# Up to so many losses a stack is quick enough to be compared unasked.
MOST_LOSSES = 12_000
FOLDS = 4
# Weights need no more rows than this of a long table of checkpoints.
WEIGHING_ROWS = 450
# With more targets than this, a law is tried on so many of them first, and fitted to all only if it
# errs at most this much more than the best so far, or this much less on a quarter of them.
TRIAL_TARGETS, TRIAL_SIZE = 40, 12
TRIAL_ERROR, TRIAL_NEAR = 1.05, 0.9
# So many members at the head of the list are never tried: they are quick, or share between targets.
UNTRIED = 3
# A law without refits of its own is dropped when on the first fold it errs so many times the least
# that others err, and is on no target as much better as this.
BEHIND, BETTER = 1.5, 0.8
# Tables with at most so many losses are held out by fits from the start: it is quick, and where
# runs are few, scales that have seen the rows held out make a process look better than it is.
SHORT = 1000
# A member of less weight than this everywhere is dropped.
LEAST_WEIGHT = 1e-3


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
        sample = design.take(thinned(design, WEIGHING_ROWS, seed))
        inner, outer = sampled_splits(sample, FOLDS, seed), reaching_splits(sample)
        bench = Bench(design, sample, inner, seed, loose)
        trial = bench.on_few(TRIAL_SIZE) if targets > TRIAL_TARGETS else None
        for i, name in enumerate(self.members, 1):
            law = resolve(name, f"{self.name}: members")
            report(f"{self.name}: {name} ({i} of {len(self.members)})")
            long = law.coupled and int(np.isfinite(design.losses).sum()) > MOST_COUPLED_LOSSES
            if long or not law.suits(design):
                continue
            if trial is None or trial.holds_up(name, law) or i <= UNTRIED:
                bench.try_out(name, law)
        if not bench.fits:
            raise FitError(f"{self.name}: none of its laws can be fitted to this table")
        held = bench.held
        near = stacked_weights(held, targets)
        apart = {n: centred_on(sample, inner, e) for n, e in held.items()}
        reach = self._reach(bench, outer, near_best(apart))
        reach_apart = {n: centred_on(sample, outer, e) for n, e in reach.items()}
        far = sound_weights(apart, reach_apart, targets) if reach else near
        errors = blended(held, near, targets)
        spread = Spread.of(errors)
        spread_far = Spread.of(blended(reach, far, targets)) if reach else spread
        weights = {
            n: {"near": near.get(n, np.zeros(targets)), "far": far.get(n, np.zeros(targets))}
            for n in bench.fits
        }
        kept = [n for n in bench.fits if max(w.max() for w in weights[n].values()) > LEAST_WEIGHT]
        state = {
            "fits": {n: bench.fits[n] for n in kept},
            "weights": {n: weights[n] for n in kept},
            "spread": {"near": vars(spread), "far": vars(spread_far)},
            "held": _held_scores(sample, inner, errors),
        }
        return Fit.learnt(
            self, design, state=state, noise=spread.size, seed=seed, settings=settings
        )

    def _reach(
        self, bench: Bench, outer: Sequence[Split], sound: set[str]
    ) -> dict[str, np.ndarray | None]:
        """Errors where a scale is held out, of the members that may speak beyond the table."""
        found: dict[str, np.ndarray | None] = {}
        if outer:
            report(f"{self.name}: {outer[0].name.replace('_', ' ')} held out")
            farther = replace(bench, splits=outer, held={}, known_refits={})
            may = {name: fit for name, fit in bench.fits.items() if not fit.law.steps}
            for name in may.keys() & sound or may.keys():
                found[name] = farther.errors(resolve(name))
        return {name: found[name] for name in bench.fits if name in found}

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


@dataclass
class Bench:
    """Fits of several laws to one design, and their errors on rows of `sample` held out.

    Where two laws stand on the same law, it is fitted and refitted once.
    """

    design: Design
    sample: Design
    splits: Sequence[Split]
    seed: int
    settings: Settings
    fits: dict[str, Fit] = field(default_factory=dict)
    held: dict[str, np.ndarray | None] = field(default_factory=dict)
    known_fits: dict[str, Fit] = field(default_factory=dict)
    known_refits: dict[str, list[Fit]] = field(default_factory=dict)

    def on_few(self, count: int) -> Bench:
        """A bench for so many of the targets."""
        some = np.random.default_rng(self.seed).permutation(len(self.design.targets))[:count]
        few, sample = (_with_targets(d, some) for d in (self.design, self.sample))
        return Bench(few, sample, self.splits, self.seed, self.settings)

    def try_out(self, name: str, law: Law) -> None:
        """Fit the law and hold out rows; one that can't be fitted or is far behind is left out."""
        with suppress(FitError):
            if not self._falls_behind(law):
                fit = self.fitted(law)
                self.held[name] = self.errors(law)
                self.fits[name] = fit

    def holds_up(self, name: str, law: Law) -> bool:
        """Whether the law errs about as little as the best that was tried here."""
        self.try_out(name, law)
        errors = self.held.get(name)
        if errors is None:
            return False
        sizes = np.array([np.nanmean(np.abs(e), 0) for e in self.held.values() if e is not None])
        ratio = np.nanmean(np.abs(errors), 0) / sizes.min(0)
        return bool(np.mean(ratio) <= TRIAL_ERROR or np.quantile(ratio, 0.25) <= TRIAL_NEAR)

    def fitted(self, law: Law) -> Fit:
        """Raises `FitError`."""
        if law.label not in self.known_fits:
            if isinstance(law, Residual):
                found = law.over_fit(self.fitted(law.below()), self.design, self.settings)
            else:
                found = law.fit(self.design, seed=self.seed, settings=self.settings)
            self.known_fits[law.label] = found
        return self.known_fits[law.label]

    def _falls_behind(self, law: Law) -> bool:
        """Whether a law whose refits are whole fits is not worth those of all folds."""
        known = [e for e in self.held.values() if e is not None]
        short = self.sample.losses.size <= SHORT
        if short or not known or type(law).refits is not Law.refits:
            return False
        part = self.splits[0]
        fit = law.fit(self.sample.take(part.train), seed=self.seed, settings=self.settings)
        error = np.abs(_errors(fit, self.sample.take(part.test)))
        sizes = np.array([np.nanmean(np.abs(e[: len(error)]), 0) for e in known]).min(0)
        ratio = np.nanmean(error, 0) / np.maximum(sizes, LEAST_ERROR)
        return bool(np.nanmean(ratio) > BEHIND and np.nanmin(ratio) > BETTER)

    def errors(self, law: Law) -> np.ndarray | None:
        """Of log loss on all rows held out, (rows, T), None where a fold can't be fitted."""
        if not self.splits:
            return None
        try:
            parts = zip(self.splits, self._refitted(law), strict=True)
            return np.concatenate([_errors(f, self.sample.take(p.test)) for p, f in parts])
        except FitError:
            return None

    def _refitted(self, law: Law) -> list[Fit]:
        if law.label not in self.known_refits:
            fit = self._at_edge(self.fitted(law))
            counts = np.array([part.train for part in self.splits], int)
            found: Iterable[Fit]
            if self.sample.losses.size <= SHORT:
                trains = (self.sample.take(part.train) for part in self.splits)
                found = (law.fit(t, seed=self.seed, settings=self.settings) for t in trains)
            elif isinstance(law, Residual):
                bases = self._refitted(law.below())
                found = fit.law.refits_over(fit, bases, self.sample, counts)  # type: ignore[attr-defined]
            else:
                found = fit.law.refits(fit, self.sample, counts)
            self.known_refits[law.label] = list(found)
        return self.known_refits[law.label]

    def _at_edge(self, fit: Fit) -> Fit:
        """The fit as if the table ended with the largest size and budget that is not held out."""
        seen = self.sample.take(np.any([part.train for part in self.splits], axis=0))
        edge = Scene.of(seen)
        scene = replace(fit.scene, n_range=edge.n_range, d_range=edge.d_range)
        return replace(fit, scene=scene)


def noise_targets(fit: Fit) -> list[str]:
    """Targets whose mixtures a stack can't tell apart: held-out R2 not above 0, or errors apart.

    Empty for a fit that held nothing out.
    """
    held: dict[str, Any] = fit.state.get("held", {})
    return noisy(fit.targets, held["mixture_r2"], held["mre"]) if held else []


def _held_scores(sample: Design, parts: Sequence[Split], errors: np.ndarray) -> dict[str, Any]:
    """Mixture R2 and MRE (%) of each target on held-out rows, from errors of log loss."""
    if not parts:
        return {}
    truth = np.concatenate([sample.losses[part.test] for part in parts])
    cell = np.concatenate([cells(sample)[part.test] for part in parts])
    r2, mre = mixture_scores(truth, truth * np.exp(errors), cell)
    return {"mixture_r2": r2, "mre": mre}


def _errors(fit: Fit, test: Design) -> np.ndarray:
    """Errors of log loss (R, T) of the law itself, without what corrects its level."""
    guess = fit.law.predict(fit, inputs_of(test, fit.scene))
    return np.log(guess / test.losses)


def centred_on(
    sample: Design, parts: Sequence[Split], errors: np.ndarray | None
) -> np.ndarray | None:
    """Errors on rows held out, about their mean in each cell of size and budget."""
    if errors is None or not parts:
        return errors
    return centred(errors, np.concatenate([cells(sample)[part.test] for part in parts]))


def _with_targets(design: Design, some: np.ndarray) -> Design:
    return replace(design, targets=[design.targets[t] for t in some], losses=design.losses[:, some])


def _weighted(fit: Fit, inputs: Inputs) -> Iterator[tuple[np.ndarray, Fit]]:
    """The weight (R, T) of each member at these rows, and the member."""
    beyond = _beyond(fit.scene, inputs)[:, None]
    for name, part in fit.state["fits"].items():
        weights = fit.state["weights"][name]
        yield np.where(beyond, weights["far"], weights["near"]), part


def _beyond(scene: Scene, inputs: Inputs) -> np.ndarray:
    """Rows (R,) whose size or budget the table doesn't reach."""
    beyond = np.zeros(len(inputs), bool)
    if scene.has_n:
        beyond |= inputs.log_n > np.log(BEYOND * scene.n_range[1] / scene.n_ref)
    if scene.has_d:
        beyond |= inputs.log_d > np.log(BEYOND * scene.d_range[1] / scene.d_ref)
    return beyond
