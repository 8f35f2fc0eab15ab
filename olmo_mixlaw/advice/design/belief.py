"""What a law believes of runs not made, and of the target's mixtures: a Gaussian, in features.

Every target t has numbers z_t ~ N(0, I) of its own; the log loss of a run is its mean plus its
features times z_t, that of the goal likewise. Parameters of a formula enter by its slopes (Laplace,
at the fit or at draws from the prior), a law without slopes by refits to resampled runs; how far
either may be wrong by `form`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from olmo_mixlaw.advice.design.candidates import Candidates, Target
from olmo_mixlaw.advice.design.form import FormError, form_error
from olmo_mixlaw.advice.goal import Goal
from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.laws.choice.holdout import run_ids
from olmo_mixlaw.laws.choice.uncertainty import bootstrap
from olmo_mixlaw.laws.engine.formula import Formula
from olmo_mixlaw.laws.engine.search import draw_starts
from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.laws.fitting import fit
from olmo_mixlaw.laws.law import Inputs, Law, Scene, Settings, resolve
from olmo_mixlaw.laws.repeating import repetition_of
from olmo_mixlaw.laws.repetition import Repetition
from olmo_mixlaw.laws.skeleton import PRIOR
from olmo_mixlaw.registry import DEFAULT_LAW
from olmo_mixlaw.runs import Design
from olmo_mixlaw.runs.units import UNSTATED

# A run's luck, as the standard deviation of its log loss: the mixture noise of `laws.skeleton`
# where no run was made, and the least that a few runs may claim.
RUN_NOISE, LEAST_NOISE = 0.005, 0.003
# Before any run, losses are told of relative to this one.
FIRST_LOSS, FIRST_SPREAD = 2.5, 0.3
# Draws from the prior at which slopes are taken, and refits of a law without slopes.
PRIOR_DRAWS, REFITS = 3, 24
# More targets cost time and tell no more of where to run.
MOST_TARGETS = 16
# The least spread of log losses between mixtures, and the nudge of a budget.
LEAST_SPREAD, NUDGE = 0.003, 0.05
# The part of itself that a loss falls by for every factor e of tokens, where runs and target have
# one budget and so no law says: the middle of the prior of `laws.skeleton`, s_D beta.
FALL = float(np.exp(PRIOR[0][3] + PRIOR[0][4]))


@dataclass(frozen=True, eq=False)
class Belief:
    """A Gaussian over T targets with F features each.

    `runs` (T, C, F) are the features of the candidates' log losses, `goal` (T, M, F) those of the
    goal at the target's mixtures, whose means are `mean` (M,), in the goal's unit. `noise` (T,) is
    the luck of a run, `by_budget` how much the goal falls when the target's log budget grows by 1.
    """

    law: str
    runs: np.ndarray
    goal: np.ndarray
    mean: np.ndarray
    noise: np.ndarray
    by_budget: float

    @property
    def best(self) -> int:
        """The mixture picked as things are."""
        return int(self.mean.argmin())


@dataclass(frozen=True, eq=False)
class Rows:
    """Runs as a law sees them: mixtures (R, K), sizes and budgets (R,), of fresh text."""

    ratios: np.ndarray
    n_params: np.ndarray
    n_tokens: np.ndarray

    @property
    def scales(self) -> np.ndarray:
        return np.log(np.c_[self.n_params, self.n_tokens])

    def inputs(self, scene: Scene) -> Inputs:
        return scene.inputs(self.ratios, self.n_params, self.n_tokens)


@dataclass(frozen=True, eq=False)
class Question:
    """All that beliefs are formed about: what was run, what could be, and the target's mixtures.

    `heart` (M,) is what the losses at the target grow by for text learnt by heart.
    """

    scene: Scene
    seen: Design | None
    candidates: Rows
    target: Rows
    heart: np.ndarray
    goal: Goal
    seed: int

    @classmethod
    def of(
        cls,
        candidates: Candidates,
        target: Target,
        mixtures: np.ndarray,
        seen: Design | None,
        targets: Sequence[str],
        goal: Goal,
        seed: int,
    ) -> Question:
        """The question, every run counted as one of fresh text. Raises `ConfigError`."""
        repetition = Repetition()
        if seen is not None:
            known = np.isfinite(seen.n_params) & np.isfinite(seen.n_tokens)
            if not known.all():
                raise ConfigError(
                    "runs made already: n_params and n_tokens are needed in every run"
                )
            formula = _quick()
            found = repetition_of(seen, formula, seed, Settings())
            if found is not None:
                repetition = replace(found, budgets_vary=True)
                seen = repetition.applied(seen)
        offered = _fresh(
            repetition,
            Rows(candidates.ratios, candidates.n_params, candidates.n_tokens),
            candidates.available,
        )
        size = np.full(len(mixtures), float(target.n_params))
        asked = Rows(mixtures, size, np.full(len(mixtures), float(target.n_tokens)))
        heart = np.ones(len(mixtures))
        if target.available is not None:
            heart = repetition.by_heart(mixtures, size, asked.n_tokens, target.available)[0]
        asked = _fresh(repetition, asked, target.available)
        scene = _scene(candidates.domains, targets, seen, offered, asked)
        return cls(scene, seen, offered, asked, heart, goal, seed)

    @property
    def longer(self) -> Rows:
        """The target's mixtures at a budget that is `NUDGE` longer, on a log scale."""
        return replace(self.target, n_tokens=self.target.n_tokens * np.exp(NUDGE))


def _quick() -> Formula:
    """The formula by which a table says what repeats are worth."""
    found: Formula = resolve(DEFAULT_LAW)
    return found


def _fresh(repetition: Repetition, rows: Rows, available: np.ndarray | None) -> Rows:
    if available is None:
        return rows
    ratios, tokens = repetition.effective(rows.ratios, rows.n_tokens, available)
    return Rows(ratios, rows.n_params, tokens)


def _scene(
    domains: list[str], targets: Sequence[str], seen: Design | None, offered: Rows, asked: Rows
) -> Scene:
    """The scene of what was run and could be; a term is there where the target needs it."""
    n = [offered.n_params, *([] if seen is None else [seen.n_params])]
    d = [offered.n_tokens, *([] if seen is None else [seen.n_tokens])]
    count, losses = len(offered.ratios), np.full((1, len(targets)), FIRST_LOSS)
    if seen is not None:
        losses = seen.losses
    pool = Design(
        run_ids=[str(i) for i in range(count + len(losses))],
        domains=list(domains),
        targets=list(targets),
        ratios=np.zeros((count + len(losses), len(domains))),
        n_params=np.resize(np.concatenate(n), count + len(losses)),
        n_active=np.resize(np.concatenate(n), count + len(losses)),
        n_tokens=np.resize(np.concatenate(d), count + len(losses)),
        losses=np.concatenate([np.full((count, len(targets)), np.nan), losses]),
        unit=UNSTATED if seen is None else seen.unit,
    )
    scene = Scene.of(pool)
    spread = scene.spread if seen is not None else FIRST_SPREAD * scene.low
    return replace(
        scene,
        spread=spread,
        has_n=_moves(scene.n_range, asked.n_params),
        has_d=_moves(scene.d_range, asked.n_tokens),
    )


def _moves(seen: tuple[float, float], asked: np.ndarray) -> bool:
    """Whether values vary among runs, or from them to the target."""
    least, most = min(seen[0], float(asked.min())), max(seen[1], float(asked.max()))
    return most > 1.05 * least


def beliefs_of(question: Question, law: Law, fitted: Fit | None = None) -> list[Belief]:
    """What a law believes; without runs, one belief a draw from its prior. Raises `FitError`."""
    if isinstance(law, Formula):
        return _of_formula(question, law)
    if question.seen is None:
        raise ConfigError(
            f"law {law.label!r} has no prior, so it knows nothing before the first run; "
            "ask for laws with a formula"
        )
    return [_of_refits(question, law, fitted)]


def _of_formula(question: Question, law: Formula) -> list[Belief]:
    scene, seen = question.scene, question.seen
    law = law.candidates()[-1]
    if seen is None:
        prior = law.prior(scene)
        drawn = np.stack(
            [draw_starts(prior, PRIOR_DRAWS, question.seed, g) for g in range(len(prior.mean))], 1
        )
        thetas = [np.clip(theta, prior.lower, prior.upper) for theta in drawn]
        middle, noise = prior.mean, np.full(scene.n_targets, RUN_NOISE)
    else:
        found = law.fit(seen, seed=question.seed, settings=Settings(strict=False), scene=scene)
        assert isinstance(found.law, Formula)
        law, thetas, middle = found.law, [found.theta], found.theta
        prior, noise = law.prior(scene), np.maximum(found.noise, LEAST_NOISE)

    def losses(rows: Rows) -> np.ndarray:
        loss, _ = law.evaluate(middle, rows.inputs(scene), scene)
        return loss[0] if law.coupled else loss.T

    def features(theta: np.ndarray, rows: Rows) -> np.ndarray:
        return prior.sd[:, None] * law.log_slopes(theta, rows.inputs(scene), scene)

    return [
        _belief(question, law.label, losses, partial(features, theta), noise, conditioned=True)
        for theta in thetas
    ]


def _of_refits(question: Question, law: Law, fitted: Fit | None) -> Belief:
    """Of a law without slopes: how refits to resampled runs scatter."""
    seen = question.seen
    assert seen is not None
    fitted = fitted or fit(law, seen, seed=question.seed, level=False)
    fitted = replace(fitted, level=None)
    others = list(bootstrap(fitted, seen, replicates=REFITS, seed=question.seed))

    def losses(rows: Rows) -> np.ndarray:
        return fitted.predict(rows.ratios, rows.n_params, rows.n_tokens)

    def features(rows: Rows) -> np.ndarray:
        at = (rows.ratios, rows.n_params, rows.n_tokens)
        each = np.log([other.predict(*at) for other in others])
        return np.asarray((each - each.mean(0)).transpose(2, 1, 0) / np.sqrt(len(each) - 1))

    noise = np.maximum(fitted.noise, LEAST_NOISE)
    return _belief(question, law.label, losses, features, noise, conditioned=False)


def _belief(
    question: Question,
    law: str,
    losses: Callable[[Rows], np.ndarray],
    features: Callable[[Rows], np.ndarray],
    noise: np.ndarray,
    conditioned: bool,
) -> Belief:
    """The belief of a law with these losses (R, T) and features (T, R, P) of their logarithms.

    `conditioned`: the features are the prior's, and what was run is still to be learnt from.
    """
    at_target = losses(question.target)
    value, slope = question.goal(at_target * question.heart[:, None])
    weight = slope * at_target * question.heart[:, None]  # by log loss, (M, T)
    some = _some_targets(weight, question.seed)
    seen, parts = question.seen, [question.candidates, question.target]
    if seen is not None:
        parts.append(Rows(seen.ratios, seen.n_params, seen.n_tokens))
    of_law = [features(rows)[some] for rows in parts]
    spread = np.log(at_target).var(0)[some]
    if seen is None:
        # What parameters may be spreads mixtures further than their middle does.
        spread = spread + of_law[1].var(1).sum(1)
    spread = np.maximum(np.sqrt(spread), LEAST_SPREAD)
    form = [error.of(spread) for error in _forms(parts, question)]
    if not conditioned:
        of_law[2:] = [np.zeros_like(known) for known in of_law[2:]]
    of_runs, of_target, *of_made = (
        np.concatenate(both, axis=2) for both in zip(of_law, form, strict=True)
    )
    if seen is not None:
        root = _learnt(of_made[0], seen, noise[some], some)
        of_runs, of_target = of_runs @ root, of_target @ root
    # A sample of the targets stands for all: their luck is as independent as that of the others.
    scale = np.sqrt((weight**2).sum() / max((weight[:, some] ** 2).sum(), 1e-300))
    best = int(value.argmin())
    fall = FALL * float(np.abs(weight[best].sum()))
    if question.scene.has_d:
        later = question.goal(losses(question.longer) * question.heart[:, None])[0]
        fall = max(float(value[best] - later[best]) / NUDGE, 0.0)
    return Belief(
        law=law,
        runs=of_runs,
        goal=of_target * scale * weight[:, some].T[:, :, None],
        mean=value,
        noise=noise[some],
        by_budget=fall,
    )


def _forms(parts: list[Rows], question: Question) -> list[FormError]:
    """The errors of form of all rows together, part by part."""
    whole = form_error(
        np.concatenate([rows.ratios for rows in parts]),
        np.concatenate([rows.scales for rows in parts]),
        question.target.scales.mean(0),
        question.seed,
    )
    cuts = np.cumsum([len(rows.ratios) for rows in parts])[:-1]
    level, mixture = np.split(whole.level, cuts), np.split(whole.mixture, cuts)
    return [FormError(*both) for both in zip(level, mixture, strict=True)]


def _learnt(features: np.ndarray, seen: Design, noise: np.ndarray, some: np.ndarray) -> np.ndarray:
    """The root (T, F, F) of the covariance after the runs seen; checkpoints share a run's luck."""
    rows = np.bincount(run_ids(seen))[run_ids(seen)]
    weight = np.isfinite(seen.losses[:, some]) / rows[:, None] / noise**2
    scaled = features * np.sqrt(weight.T)[:, :, None]
    precision = scaled.transpose(0, 2, 1) @ scaled + np.eye(features.shape[2])
    lower = np.linalg.cholesky(precision)
    return np.asarray(np.linalg.inv(lower).transpose(0, 2, 1))


def _some_targets(weight: np.ndarray, seed: int) -> np.ndarray:
    """Targets that count in the goal, at most `MOST_TARGETS` of them."""
    counted = np.flatnonzero(np.abs(weight).max(0) > 0)
    return np.sort(np.random.default_rng(seed).permutation(counted)[:MOST_TARGETS])
