"""The best mixture under a fit: minimise losses, or maximise scores, over the simplex.

Bounds, repetition caps and a pull towards a prior mixture hold for every law. Exact gradients and
many starts, since a fitted law need not be convex; draws where a law has no gradient. What it
returns says how far it lies from the mixtures tried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypedDict, Unpack

import numpy as np
import pandas as pd

from olmo_mixlaw.advice.goal import Goal, goal_of
from olmo_mixlaw.advice.repetition import beyond_seen, budget_of, epochs_at, for_run
from olmo_mixlaw.advice.simplex import bounds_of, is_free, project, search
from olmo_mixlaw.errors import ConfigError, FitError
from olmo_mixlaw.laws.choice.differences import hull_distance
from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.laws.law import Surface
from olmo_mixlaw.laws.weights import named
from olmo_mixlaw.runs.units import NATS

# Beyond this total-variation distance from the hull of the sampled mixtures, and this ratio to
# the sampled sizes or budgets, an optimum is an extrapolation and says so.
HULL_LIMIT = 0.05
SCALE_LIMIT = 10.0
# Starts of the search besides the mean and the equal mixture: the best of the mixtures fitted,
# and random ones.
TRIED_STARTS = 20
# Draws for a law without a gradient, and how many are predicted at once.
DRAWS, DRAW_BLOCK = 100_000, 5000
STEPS = 5
MOST_WEIGHED = 32  # refits in an expected loss; more change nothing that shows
# Where trees take part, mixtures near the best smooth one decide on the predicted loss: some drawn
# around it, some a little towards the mean of those tried, where no ratio is at the end of a tree.
NEAR_DRAWS, NEAR_WIDTH = 8, 2000.0
BLENDS = (0.003, 0.01, 0.02, 0.05, 0.1)


@dataclass(frozen=True)
class Optimum:
    """The best mixture: ratios (K,) by `domains`, predicted losses (T,) by `targets`.

    `objective` is the goal's `value` (the weighted mean loss in `unit`, or minus a mean score) plus
    the pull of the prior; `hull_distance` is the total variation to the nearest blend of sampled
    mixtures; `scores` are a benchmark's, where it was the goal; `epochs` (K,) are how often the run
    sees each domain, None where nobody said what they have. `no_answer` says why the mixture is
    none, where the fit can't tell mixtures apart; how sure it is otherwise says `verdict`.
    """

    domains: list[str]
    ratios: np.ndarray
    targets: list[str]
    losses: np.ndarray
    objective: float
    n_params: float
    n_tokens: float
    hull_distance: float
    warnings: list[str] = field(default_factory=list)
    n_active: float | None = None
    scores: dict[str, float] = field(default_factory=dict)
    value: float = np.nan
    unit: str = NATS
    no_answer: str = ""
    epochs: np.ndarray | None = None

    def seen(self) -> dict[str, float]:
        """How often the run sees each domain that may end, by name."""
        if self.epochs is None:
            return {}
        every = zip(self.domains, self.epochs, strict=True)
        return {name: float(epochs) for name, epochs in every if epochs > 0}

    def mixture(self, decimals: int = 6) -> dict[str, float]:
        """Ratios by domain, rounded so that they still sum to 1."""
        unit = 10**decimals
        floors = np.floor(self.ratios * unit).astype(int)
        rest = unit - int(floors.sum())
        order = np.argsort(floors - self.ratios * unit)
        floors[order[:rest]] += 1
        return {name: int(v) / unit for name, v in zip(self.domains, floors, strict=True)}

    def to_yaml(self) -> str:
        """The mixture as the `mixture:` section of a training configuration."""
        lines = [f"    {name}: {value:.6g}" for name, value in self.mixture().items()]
        head = [f"# {self.no_answer}"] if self.no_answer else []
        return "\n".join([*head, "mixture:", "  ratios:", *lines]) + "\n"


class Limits(TypedDict, total=False):
    """What is wanted of a mixture, and what it must obey; all may be left out.

    `target_weights` are rescaled to sum to 1 (default: equal); `objective` is another goal, such
    as `scores.Scores.goal`. `lower` and `upper` bound the ratios. A domain that has fewer
    `available_tokens` than the run sees of it repeats, and its repeats count for less; the run has
    `cap_tokens` (default: the budget at which the law is asked). `max_epochs` caps repeats, which
    are free otherwise: `h_i D <= max_epochs * tokens_i`. `kl` times KL(h || prior) is
    added to the goal, in its unit. A `prior` names every domain and is rescaled to sum to 1
    (default: the mean of the sampled mixtures).
    """

    objective: Goal | None
    target_weights: Mapping[str, float] | None
    lower: Mapping[str, float] | float
    upper: Mapping[str, float] | float
    available_tokens: Mapping[str, float] | None
    max_epochs: float | None
    cap_tokens: float | None
    prior: Mapping[str, float] | None
    kl: float


def optimum(
    fit: Fit,
    n_params: float = np.nan,
    n_tokens: float = np.nan,
    *,
    n_active: float | None = None,
    starts: int = 8,
    seed: int = 0,
    warm: np.ndarray | None = None,
    draws: int | None = None,
    keep: int = 128,
    refits: Sequence[Fit] = (),
    **limits: Unpack[Limits],
) -> Optimum:
    """The mixture of least weighted loss at one size and budget, within `Limits`.

    With `refits` to resampled runs (the first `MOST_WEIGHED`) it is that of least *expected* loss
    over the fit and them: the minimum of one surface takes its luckiest error for a gain. What is
    reported is the fit's own prediction. `warm` (K,) is a mixture known to be nearly best: one
    start. With `draws`, and for a law without a gradient, RegMix's search takes the place of a
    descent: the mean of the best `keep` of so many draws. Raises `ConfigError` for unknown names or
    bounds that no mixture meets, `FitError` for a scale that the fit can't speak of.
    """
    problem = Problem.of(fit, n_params, n_tokens, n_active, refits[:MOST_WEIGHED], **limits)
    if draws is None and fit.has_gradient:
        found = problem.descended(starts, seed, warm)
    else:
        found = problem.drawn(DRAWS if draws is None else draws, keep, seed)
    losses = problem.predicted(found)
    totals = problem.totals(losses, found)
    expected = problem.totals(problem.surface(found, False)[0], found) if refits else totals
    i = int(expected.argmin())
    return described(
        problem.fit,
        found[i],
        losses[i],
        float(totals[i]),
        n_params,
        n_tokens,
        n_active,
        problem.goal,
    )


@dataclass(frozen=True)
class Problem:
    """A goal over the mixtures within bounds, at one size and budget, pulled towards `middle`.

    `low`, `high` and `middle` are (K,); `size` is N as the law sees it. The losses are the means of
    those of `fit` and `refits`.
    """

    fit: Fit
    goal: Goal
    low: np.ndarray
    high: np.ndarray
    middle: np.ndarray
    kl: float
    size: Any
    n_tokens: float
    refits: tuple[Fit, ...] = ()

    @classmethod
    def of(
        cls,
        fit: Fit,
        n_params: float,
        n_tokens: float,
        n_active: float | None = None,
        refits: Sequence[Fit] = (),
        **limits: Unpack[Limits],
    ) -> Problem:
        """The problem that `optimum` solves. Raises as it does."""
        goal = goal_of(limits.get("objective"), limits.get("target_weights"), fit.targets)
        cap, kl = limits.get("cap_tokens"), limits.get("kl", 0.0)
        if cap is not None and limits.get("available_tokens") is None:
            raise ConfigError("cap_tokens: needs available_tokens, the tokens that domains have")
        if not 0 <= kl < np.inf:
            raise ConfigError(f"kl: must be finite and not negative, found {kl:g}")
        available, asked = limits.get("available_tokens"), budget_of(fit, n_tokens)
        if limits.get("max_epochs") is not None and available is None:
            raise ConfigError("max_epochs: needs available_tokens, the tokens that domains have")
        low, high = bounds_of(
            fit.domains,
            limits.get("lower", 0.0),
            limits.get("upper", 1.0),
            available,
            limits.get("max_epochs"),
            asked if cap is None else cap,
        )
        fit, *others = (for_run(f, n_tokens, available, cap) for f in (fit, *refits))
        middle = _middle(fit, limits.get("prior"))
        size = fit.checked_scale(n_params, n_tokens, n_active)
        return cls(fit, goal, low, high, middle, kl, size, n_tokens, tuple(others))

    @cached_property
    def own(self) -> Surface:
        """The smooth surface of the fit itself."""
        return self.fit.surface(self.size, self.n_tokens)

    @cached_property
    def surface(self) -> Surface:
        """The smooth surface that is searched: the mean of those of the fit and its refits."""
        if not self.refits:
            return self.own
        every = [self.own, *(f.surface(self.size, self.n_tokens) for f in self.refits)]

        def at(ratios: np.ndarray, slopes: bool) -> tuple[np.ndarray, np.ndarray | None]:
            found = [surface(ratios, slopes) for surface in every]
            by_ratio = [slope for _, slope in found if slope is not None]
            mean = np.mean([losses for losses, _ in found], axis=0)
            return mean, np.mean(by_ratio, axis=0) if slopes else None

        return at

    def predicted(self, ratios: np.ndarray) -> np.ndarray:
        """Losses (S, T) of mixtures (S, K), steps included."""
        smooth, _ = self.own(ratios, False)
        return self.fit.with_steps(smooth, ratios, self.size, self.n_tokens)

    def totals(self, losses: np.ndarray, ratios: np.ndarray) -> np.ndarray:
        """The goal and the pull (S,) of mixtures with these losses."""
        return self.goal(losses)[0] + self.kl * (ratios * self._log_ratio(ratios)).sum(1)

    def value(self, ratios: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The goal and the pull (S,) on the smooth surface, and their slopes (S, K)."""
        losses, slopes = self.surface(ratios, True)
        assert slopes is not None
        slope = np.matmul(self.goal(losses)[1][:, None], slopes)[:, 0]
        if self.kl > 0:
            slope = slope + self.kl * (self._log_ratio(ratios) + 1)
        return self.totals(losses, ratios), slope

    def descended(self, starts: int, seed: int, warm: np.ndarray | None) -> np.ndarray:
        """Local minima of the smooth surface and, where the law has steps, mixtures near one."""
        first = self._starts(starts, seed) if warm is None else warm[None]
        found = search(self.value, first, self.low, self.high, steps=STEPS if warm is None else 0)
        if not found:
            raise FitError(f"{self.fit.law.name}: no finite loss was found on the simplex")
        if self.fit.steps:
            near = np.random.default_rng(seed).dirichlet(NEAR_WIDTH * found[0] + 1e-3, NEAR_DRAWS)
            towards = np.array(BLENDS)[:, None] * (self.fit.mixtures.mean(0) - found[0]) + found[0]
            found += list(project(np.concatenate([near, towards]), self.low, self.high))
        return np.array(found)

    def drawn(self, draws: int, keep: int, seed: int) -> np.ndarray:
        """The mean (1, K) of the best of many Dirichlet draws (Liu et al. 2024, section 3).

        They spread around the mean of the mixtures fitted; those beyond the bounds are moved to
        the nearest mixture within.
        """
        rng = np.random.default_rng(seed)
        width = rng.uniform(1.0, 30.0, size=draws)
        alpha = np.maximum(self.fit.mixtures.mean(0), 1e-3) * width[:, None]
        mixtures = rng.standard_gamma(alpha) + 1e-12
        mixtures /= mixtures.sum(1, keepdims=True)
        if not is_free(self.low, self.high):
            mixtures = project(mixtures, self.low, self.high)
        blocks = np.array_split(mixtures, max(1, draws // DRAW_BLOCK))
        total = np.concatenate([self.totals(self.predicted(some), some) for some in blocks])
        if not np.isfinite(total).any():
            raise FitError(f"{self.fit.law.name}: no finite loss was found on the simplex")
        return mixtures[np.argsort(total)[:keep]].mean(0, keepdims=True)

    def _log_ratio(self, ratios: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(ratios, 1e-12) / self.middle)

    def _starts(self, count: int, seed: int) -> np.ndarray:
        """The mean and the equal mixture, the best of those fitted, and random ones."""
        mixtures, size = self.fit.mixtures, len(self.fit.domains)
        rng = np.random.default_rng(seed)
        tried = mixtures[rng.permutation(len(mixtures))[:TRIED_STARTS]]
        pool = np.concatenate([tried, rng.dirichlet(np.ones(size), count)])
        value = self.goal(self.surface(pool, False)[0])[0]
        best = pool[np.argsort(np.nan_to_num(value, nan=np.inf))[: max(count - 2, 1)]]
        return np.concatenate([mixtures.mean(0)[None], np.full((1, size), 1 / size), best])


def described(
    fit: Fit,
    ratios: np.ndarray,
    losses: np.ndarray,
    value: float,
    n_params: float,
    n_tokens: float,
    n_active: float | None,
    goal: Goal,
) -> Optimum:
    """A mixture (K,) with its losses (T,), and what to say of it."""
    distance = hull_distance(ratios, fit.mixtures)
    scores = getattr(goal, "scores", None)
    by_goal = float(goal(losses[None])[0][0])
    epochs = epochs_at(fit, ratios, n_tokens)
    return Optimum(
        fit.domains,
        ratios,
        fit.targets,
        losses,
        value,
        float(n_params),
        float(n_tokens),
        distance,
        [
            *_warnings(fit, distance, float(fit.size_of(n_params, n_active)), n_tokens),
            *beyond_seen(fit, epochs),
        ],
        n_active,
        scores(losses[None]) if scores else {},
        by_goal,
        fit.unit,
        fit.cannot_tell_mixtures(),
        epochs,
    )


def _middle(fit: Fit, prior: Mapping[str, float] | None) -> np.ndarray:
    """The mixture (K,) towards which `kl` pulls. Raises `ConfigError`."""
    if prior is None:
        middle = fit.mixtures.mean(0)
    else:
        middle = named(prior, fit.domains, "domain", "prior", 0.0)
        lacking = [name for name in fit.domains if name not in prior]
        if lacking:
            raise ConfigError(
                f"prior: domain {lacking[0]!r} is missing; give every domain of the fit "
                f"({', '.join(fit.domains)})"
            )
        if not np.isfinite(middle).all() or (middle < 0).any() or middle.sum() <= 0:
            raise ConfigError("prior: ratios must be finite, not negative and not all 0")
    return np.maximum(middle / middle.sum(), 1e-9)


def optimum_path(
    fit: Fit, scales: Sequence[Sequence[float | None]], **settings: Any
) -> pd.DataFrame:
    """The best mixture along a path of (n_params, n_tokens) or (n_params, n_tokens, n_active).

    A row a scale, a column a domain, and `objective` and `hull_distance` beside them. Every other
    argument is `optimum`'s.
    """
    rows = []
    for n_params, n_tokens, *active in scales:
        assert n_params is not None
        assert n_tokens is not None
        n_active = active[0] if active else None
        best = optimum(fit, n_params, n_tokens, n_active=n_active, **settings)
        shares = dict(zip(best.domains, best.ratios, strict=True))
        rows.append(
            {
                "n_params": n_params,
                "n_tokens": n_tokens,
                **shares,
                "objective": best.objective,
                "hull_distance": best.hull_distance,
            }
        )
    return pd.DataFrame(rows)


def _warnings(fit: Fit, distance: float, n_params: float, n_tokens: float) -> list[str]:
    notes = [] if fit.level is None else fit.level.cautions(n_params, n_tokens)
    if distance > HULL_LIMIT:
        notes.append(
            f"the mixture lies {distance:.2f} (total variation) outside every blend of the "
            f"{len(fit.mixtures)} mixtures fitted"
        )
    for name, value, (low, high) in (
        ("n_params", n_params, fit.scene.n_range),
        ("n_tokens", n_tokens, fit.scene.d_range),
    ):
        if np.isfinite(value) and np.isfinite(high):
            factor = max(value / high, low / value)
            if factor > SCALE_LIMIT:
                notes.append(f"{name} {value:.4g} is {factor:.3g} times beyond the runs fitted")
    return notes
