"""The best mixture under a fit: minimise losses, or maximise scores, over the simplex.

Bounds, repetition caps and a pull towards a prior mixture; exact gradients; many starts, since a
fitted law need not be convex. What it returns says how far it lies from the mixtures tried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize, nnls

from olmo_mixlaw.advice.goal import Goal, MeanLoss, named
from olmo_mixlaw.advice.simplex import project, search
from olmo_mixlaw.errors import ConfigError, FitError
from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.laws.surface import has_trees, surface, with_trees

# Beyond this total-variation distance from the hull of the sampled mixtures, and this ratio to
# the sampled sizes or budgets, an optimum is an extrapolation and says so.
HULL_LIMIT = 0.05
SCALE_LIMIT = 10.0
# Starts of the search besides the mean and the equal mixture: the best of the mixtures fitted,
# and random ones.
TRIED_STARTS = 20
DRAW_BLOCK = 5000
STEPS = 5
# Where trees take part, mixtures near the best smooth one decide on the predicted loss: some drawn
# around it, some a little towards the mean of those tried, where no ratio is at the end of a tree.
NEAR_DRAWS, NEAR_WIDTH = 8, 2000.0
BLENDS = (0.003, 0.01, 0.02, 0.05, 0.1)


@dataclass(frozen=True)
class Optimum:
    """The best mixture: ratios (K,) by `domains`, predicted losses (T,) by `targets`.

    `objective` is the goal's value (the weighted mean loss in nats, or minus a mean score), plus
    the pull of the prior; `hull_distance` is the total variation to the nearest blend of sampled
    mixtures; `scores` are a benchmark's, where it was the goal.
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
        return "\n".join(["mixture:", "  ratios:", *lines]) + "\n"


def optimum(
    fit: Fit,
    n_params: float = np.nan,
    n_tokens: float = np.nan,
    *,
    n_active: float | None = None,
    objective: Goal | None = None,
    target_weights: Mapping[str, float] | None = None,
    lower: Mapping[str, float] | float = 0.0,
    upper: Mapping[str, float] | float = 1.0,
    prior: Mapping[str, float] | None = None,
    kl: float = 0.0,
    available_tokens: Mapping[str, float] | None = None,
    max_epochs: float = 4.0,
    starts: int = 8,
    seed: int = 0,
    warm: np.ndarray | None = None,
) -> Optimum:
    """The mixture of least weighted loss at one size and budget.

    `target_weights` are rescaled to sum to 1 (default: equal); `objective` is another goal, such
    as `scores.ScoreLaw.goal`. `lower` and `upper` bound the ratios; `available_tokens` caps
    `h_i D <= max_epochs * tokens_i`; `kl` (nats) times KL(h || prior) is added (default prior: the
    mean of the sampled mixtures). `warm` (K,) is a mixture known to be nearly best: one start.
    Raises `ConfigError` for unknown names or bounds that no mixture meets, `FitError` for a
    scale that the fit can't speak of.
    """
    if fit.law.name == "regmix":
        return sampled_optimum(
            fit,
            n_params,
            n_tokens,
            target_weights=target_weights,
            objective=objective,
            n_active=n_active,
            seed=seed,
        )
    goal = _goal(objective, target_weights, fit)
    low, high = _bounds(fit, lower, upper, available_tokens, max_epochs, n_tokens)
    middle = (
        fit.mixtures.mean(0) if prior is None else named(prior, fit.domains, "domain", "prior", 0.0)
    )
    middle = np.maximum(middle / middle.sum(), 1e-9)
    size = fit.checked_scale(n_params, n_tokens, n_active)
    at = surface(fit, size, n_tokens)

    def value(ratios: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        losses, slopes = at(ratios, True)
        assert slopes is not None
        total, by_loss = goal(losses)
        slope = np.matmul(by_loss[:, None], slopes)[:, 0]
        if kl > 0:
            log_ratio = np.log(np.maximum(ratios, 1e-12) / middle)
            total = total + kl * (ratios * log_ratio).sum(1)
            slope = slope + kl * (log_ratio + 1)
        return total, slope

    first = _starts(fit, starts, seed, lambda h: goal(at(h, False)[0])[0], warm)
    found = search(value, first, low, high, steps=STEPS if warm is None else 0)
    if not found:
        raise FitError(f"{fit.law.name}: no finite loss was found on the simplex")
    if has_trees(fit):
        near = np.random.default_rng(seed).dirichlet(NEAR_WIDTH * found[0] + 1e-3, NEAR_DRAWS)
        towards = np.array(BLENDS)[:, None] * (fit.mixtures.mean(0) - found[0]) + found[0]
        found += list(project(np.concatenate([near, towards]), low, high))
    losses = with_trees(fit, at(np.array(found), False)[0], np.array(found), size, n_tokens)
    pull = [kl * float(h @ np.log(np.maximum(h, 1e-12) / middle)) for h in found]
    totals = goal(losses)[0] + np.array(pull)
    i = int(totals.argmin())
    return _described(
        fit, found[i], losses[i], float(totals[i]), n_params, n_tokens, n_active, goal
    )


def _goal(objective: Goal | None, weights: Mapping[str, float] | None, fit: Fit) -> Goal:
    if objective is None:
        return MeanLoss.of(weights, fit.targets)
    if weights is not None:
        raise ConfigError("target weights and a benchmark: give one objective")
    return objective


def _starts(fit: Fit, count: int, seed: int, value: Any, warm: np.ndarray | None) -> np.ndarray:
    """The mean and the equal mixture, the best of those fitted, the corners, and random ones."""
    if warm is not None:
        return warm[None]
    size = len(fit.domains)
    rng = np.random.default_rng(seed)
    tried = fit.mixtures[rng.permutation(len(fit.mixtures))[:TRIED_STARTS]]
    draws = rng.dirichlet(np.ones(size), count)
    pool = np.concatenate([tried, draws])
    best = pool[np.argsort(np.nan_to_num(value(pool), nan=np.inf))[: max(count - 2, 1)]]
    return np.concatenate([fit.mixtures.mean(0)[None], np.full((1, size), 1 / size), best])


def _described(
    fit: Fit,
    ratios: np.ndarray,
    losses: np.ndarray,
    value: float,
    n_params: float,
    n_tokens: float,
    n_active: float | None,
    goal: Goal,
) -> Optimum:
    distance = hull_distance(ratios, fit.mixtures)
    scores = getattr(goal, "scores", None)
    return Optimum(
        fit.domains,
        ratios,
        fit.targets,
        losses,
        value,
        float(n_params),
        float(n_tokens),
        distance,
        _warnings(fit, distance, float(fit.size_of(n_params, n_active)), n_tokens),
        n_active,
        scores(losses[None]) if scores else {},
    )


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


def near_optimal(
    fit: Fit,
    best: Optimum,
    tolerance: float | None = None,
    *,
    objective: Goal | None = None,
    target_weights: Mapping[str, float] | None = None,
    draws: int = 512,
    seed: int = 0,
    lower: Mapping[str, float] | float = 0.0,
    upper: Mapping[str, float] | float = 1.0,
) -> pd.DataFrame:
    """How far each ratio may move while the goal stays within `tolerance` of the best.

    A row a domain: `best`, `low`, `high`. Each end is sought by itself (SLSQP on one ratio with
    the goal as a constraint), starting from the widest of mixtures drawn around the optimum. A
    flat optimum has wide ranges: many mixtures are as good. `tolerance` defaults to `noise_of`.
    """
    goal = _goal(objective, target_weights, fit)
    low, high = _bounds(fit, lower, upper, None, 1.0, best.n_tokens)
    at = surface(fit, fit.size_of(best.n_params, best.n_active), best.n_tokens)
    tolerance = noise_of(fit, best, goal) if tolerance is None else tolerance
    rng = np.random.default_rng(seed)
    around = [
        rng.dirichlet(np.maximum(best.ratios, 2e-3) * width, draws // 4)
        for width in (8.0, 30.0, 120.0, 500.0)
    ]
    mixtures = np.concatenate([best.ratios[None], project(np.concatenate(around), low, high)])
    values = goal(at(mixtures, False)[0])[0]
    worst = float(values[0] + tolerance)
    good = mixtures[values <= worst]

    def slack(ratios: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        losses, slopes = at(np.maximum(ratios, 0.0)[None], True)
        assert slopes is not None
        value, by_loss = goal(losses)
        return worst - value[0], -(by_loss[0] @ slopes[0])

    ends = []
    for k in range(len(best.domains)):
        column = good[:, k]
        reached = [
            _extreme(slack, good[i], k, sign, low, high)
            for i, sign in ((int(column.argmin()), 1.0), (int(column.argmax()), -1.0))
        ]
        ends.append((min(reached[0], column.min()), max(reached[1], column.max())))
    return pd.DataFrame(
        {
            "domain": best.domains,
            "best": best.ratios,
            "low": [e[0] for e in ends],
            "high": [e[1] for e in ends],
        }
    )


def _extreme(
    slack: Any, start: np.ndarray, k: int, sign: float, low: np.ndarray, high: np.ndarray
) -> float:
    """The least (sign 1) or greatest (-1) ratio k where `slack` is not negative."""
    unit = np.zeros(len(start))
    unit[k] = sign
    end = minimize(
        lambda h: sign * h[k],
        start,
        jac=lambda h: unit,
        method="SLSQP",
        bounds=list(zip(low, high, strict=True)),
        constraints=[
            {"type": "eq", "fun": lambda h: h.sum() - 1, "jac": np.ones_like},
            {"type": "ineq", "fun": lambda h: slack(h)[0], "jac": lambda h: slack(h)[1]},
        ],
        options={"maxiter": 40, "ftol": 1e-7},
    )
    fine = np.isfinite(end.x).all() and slack(end.x)[0] > -1e-6 and abs(end.x.sum() - 1) < 1e-6
    return float(np.clip(end.x[k], low[k], high[k])) if fine else float(start[k])


def noise_of(fit: Fit, best: Optimum, goal: Goal) -> float:
    """The goal's standard deviation from the fit's residual noise, the targets' noise independent.

    What two runs of one mixture may differ by: differences below it are no reason to prefer one.
    """
    by_loss = goal(best.losses[None])[1][0]
    return float(np.sqrt(((by_loss * best.losses * fit.noise) ** 2).sum()))


def sampled_optimum(
    fit: Fit,
    n_params: float = np.nan,
    n_tokens: float = np.nan,
    *,
    target_weights: Mapping[str, float] | None = None,
    objective: Goal | None = None,
    n_active: float | None = None,
    draws: int = 100_000,
    keep: int = 128,
    seed: int = 0,
) -> Optimum:
    """RegMix's search, for laws without a gradient: the mean of the best of many Dirichlet draws.

    The draws spread around the mean of the mixtures fitted (Liu et al. 2024, section 3).
    """
    goal = _goal(objective, target_weights, fit)
    rng = np.random.default_rng(seed)
    width = rng.uniform(1.0, 30.0, size=draws)
    alpha = np.maximum(fit.mixtures.mean(0), 1e-3) * width[:, None]
    mixtures = rng.standard_gamma(alpha) + 1e-12
    mixtures /= mixtures.sum(1, keepdims=True)
    value = np.concatenate(
        [
            goal(fit.predict(some, n_params, n_tokens, n_active))[0]
            for some in np.array_split(mixtures, max(1, draws // DRAW_BLOCK))
        ]
    )
    best = mixtures[np.argsort(value)[:keep]].mean(0)
    losses = fit.predict(best, n_params, n_tokens, n_active)
    return _described(
        fit, best, losses[0], float(goal(losses)[0][0]), n_params, n_tokens, n_active, goal
    )


def hull_distance(ratios: np.ndarray, mixtures: np.ndarray) -> float:
    """Total variation between a mixture (K,) and the nearest blend of sampled ones (m, K)."""
    heavy = 1e3  # holds the blend's weights to a sum of 1
    system = np.vstack([mixtures.T, heavy * np.ones(len(mixtures))])
    blend, _ = nnls(system, np.append(ratios, heavy))
    blend = blend / blend.sum()
    return float(0.5 * np.abs(blend @ mixtures - ratios).sum())


def _bounds(
    fit: Fit,
    lower: Mapping[str, float] | float,
    upper: Mapping[str, float] | float,
    available: Mapping[str, float] | None,
    max_epochs: float,
    n_tokens: float,
) -> tuple[np.ndarray, np.ndarray]:
    size = len(fit.domains)
    low = (
        np.full(size, lower)
        if isinstance(lower, (int, float))
        else named(lower, fit.domains, "domain", "lower bound", 0.0)
    )
    high = (
        np.full(size, upper)
        if isinstance(upper, (int, float))
        else named(upper, fit.domains, "domain", "upper bound", 1.0)
    )
    low, high = np.asarray(low, float), np.asarray(high, float)
    if available is not None:
        if not np.isfinite(n_tokens):
            raise ConfigError("repetition caps need n_tokens: h_i D <= max_epochs * tokens_i")
        tokens = named(available, fit.domains, "domain", "available tokens", np.inf)
        high = np.minimum(high, max_epochs * tokens / n_tokens)
    for i, name in enumerate(fit.domains):
        if not 0 <= low[i] <= high[i] <= 1 + 1e-12 or low[i] > 1:
            raise ConfigError(
                f"bounds of domain {name!r}: {low[i]:g} to {high[i]:g} are not within 0 to 1"
            )
    if low.sum() > 1 + 1e-9 or high.sum() < 1 - 1e-9:
        raise ConfigError(
            f"no mixture meets the bounds: the lower ones sum to {low.sum():.4g} and the upper "
            f"ones to {high.sum():.4g}, and 1 must lie between"
        )
    return low, np.minimum(high, 1.0)


def _warnings(fit: Fit, distance: float, n_params: float, n_tokens: float) -> list[str]:
    notes = []
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
