"""How far a mixture may move while it stays as good: the answer's own tolerance."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from olmo_mixlaw.advice.goal import Goal
from olmo_mixlaw.advice.optimum import Limits, Optimum, Problem
from olmo_mixlaw.advice.simplex import project
from olmo_mixlaw.laws.fitted import Fit


def near_optimal(
    fit: Fit,
    best: Optimum,
    tolerance: float | None = None,
    *,
    draws: int = 512,
    seed: int = 0,
    **limits: Unpack[Limits],
) -> pd.DataFrame:
    """How far each ratio may move while the goal stays within `tolerance` of the best.

    A row a domain: `best`, `low`, `high`. Each end is sought by itself (SLSQP on one ratio with
    the goal as a constraint), starting from the widest of mixtures drawn around the optimum, where
    it stays for a law without a gradient. A flat optimum has wide ranges: many mixtures are as
    good. `tolerance` defaults to `noise_of`; `limits` are those that `optimum` was given.
    """
    problem = Problem.of(fit, best.n_params, best.n_tokens, best.n_active, **limits)
    low, high = problem.low, problem.high
    tolerance = noise_of(fit, best, problem.goal) if tolerance is None else tolerance
    rng = np.random.default_rng(seed)
    around = [
        rng.dirichlet(np.maximum(best.ratios, 2e-3) * width, draws // 4)
        for width in (8.0, 30.0, 120.0, 500.0)
    ]
    mixtures = np.concatenate([best.ratios[None], project(np.concatenate(around), low, high)])
    values = problem.totals(problem.surface(mixtures, False)[0], mixtures)
    worst = float(values[0] + tolerance)
    good = mixtures[values <= worst]

    def slack(ratios: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value, slope = problem.value(np.maximum(ratios, 0.0)[None])
        return worst - value[0], -slope[0]

    ends = []
    for k in range(len(best.domains)):
        column = good[:, k]
        least, most = float(column.min()), float(column.max())
        if fit.has_gradient:
            least = min(least, _extreme(slack, good[column.argmin()], k, 1.0, low, high))
            most = max(most, _extreme(slack, good[column.argmax()], k, -1.0, low, high))
        ends.append((least, most))
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
