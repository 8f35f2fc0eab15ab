"""From losses to benchmark scores, as a goal that an optimum can have.

    acc = lo + (hi - lo) sigma(k (tau - sum_i w_i L_i))        w on the simplex, lo = chance

The L are the losses of a run's domains (route `domains`), or the task's own loss alone (route
`two_step`, after arXiv 2412.04403). Rows weigh by their binomial standard error. Which route is
better is decided on the largest size, predicted from the smaller ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import least_squares

from olmo_mixlaw.advice.curve import TOP_PRIOR, highest, sigmoid_curve
from olmo_mixlaw.advice.score_table import ScoreTable, learnt, read_scores
from olmo_mixlaw.atomic import write_text
from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws.choice.holdout import LOOSE, Split, make_splits
from olmo_mixlaw.laws.fitted import Fit, revived
from olmo_mixlaw.laws.fitting import fit
from olmo_mixlaw.laws.repetition import with_available
from olmo_mixlaw.laws.saved import plain, read_saved
from olmo_mixlaw.laws.weights import weights_of
from olmo_mixlaw.registry import DEFAULT_LAW
from olmo_mixlaw.runs import RunTable

ROUTES = ("domains", "two_step")
WEIGHT_SD = 1.0
HUBER = 3.0
ROUNDS = 3
STARTS = 4


@dataclass(frozen=True)
class ScoreLaw:
    """The curves of Q tasks over T losses, named by `inputs`.

    `theta` (Q, 3 + T): log k, tau, the logit of (hi - lo) / (1 - lo), and the logits of w, which
    are +-inf where a task has its own loss. `noise` (Q,) is the spread beyond the binomial one.
    """

    tasks: list[str]
    inputs: list[str]
    floors: np.ndarray
    theta: np.ndarray
    noise: np.ndarray

    def __call__(self, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores (S, Q) at losses (S, T), and their slopes by the losses (S, Q, T)."""
        score, slopes, _ = _curve(self.theta, self.floors, losses)
        return score, slopes

    @property
    def weights(self) -> np.ndarray:
        """w (Q, T): how much each loss counts for each task."""
        return _softmax(self.theta[:, 3:])

    def parameters(self) -> pd.DataFrame:
        """A row a task: k, tau, lo, hi, noise, and the weight of each loss."""
        frame = pd.DataFrame(
            {
                "task": self.tasks,
                "k": np.exp(self.theta[:, 0]),
                "tau": self.theta[:, 1],
                "lo": self.floors,
                "hi": highest(self.theta[:, 2], self.floors),
                "noise": self.noise,
            }
        )
        return frame.assign(**{f"w_{n}": self.weights[:, i] for i, n in enumerate(self.inputs)})


@dataclass(frozen=True)
class ScoreGoal:
    """Minus the weighted mean score of a `ScoreLaw`, over a fit whose targets are `targets`."""

    law: ScoreLaw
    weights: np.ndarray
    columns: np.ndarray
    label: str = "minus the mean score"

    def __call__(self, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        score, slopes = self.law(losses[:, self.columns])
        by_loss = np.zeros(losses.shape)
        by_loss[:, self.columns] = -np.einsum("q,sqt->st", self.weights, slopes)
        return -score @ self.weights, by_loss

    def scores(self, losses: np.ndarray) -> dict[str, float]:
        """The score of each task at one row of losses (1, T)."""
        return dict(zip(self.law.tasks, self.law(losses[:, self.columns])[0][0], strict=True))


@dataclass(frozen=True)
class Scores:
    """Benchmark scores from (mixture, N, D): the chosen route, its curves and the fit below them.

    `errors` maps a route to its mean absolute error of score where `split` was held out; `dropped`
    says why a task was left out.
    """

    route: str
    law: ScoreLaw
    fit: Fit
    errors: dict[str, float]
    split: str
    dropped: dict[str, str] = field(default_factory=dict)

    def predict(
        self,
        ratios: np.ndarray,
        n_params: Any = np.nan,
        n_tokens: Any = np.nan,
        n_active: Any = None,
        available: Any = None,
    ) -> np.ndarray:
        """Scores (R, Q) for mixtures (R, K), sizes, budgets and tokens that domains have."""
        losses = self.fit.predict(ratios, n_params, n_tokens, n_active, available)
        columns = [self.fit.targets.index(name) for name in self.law.inputs]
        return self.law(losses[:, columns])[0]

    def fit_below(self, other: Fit) -> Fit:
        """The fit whose losses the goal reads: `other` for the route `domains`, else its own."""
        return other if self.route == "domains" else self.fit

    def goal(
        self, below: Fit | None = None, task_weights: Mapping[str, float] | None = None
    ) -> ScoreGoal:
        """The goal for `optimum(fit, objective=...)`, over `below` (default: its own fit).

        Raises `FitError` where that fit lacks a loss that the curves read.
        """
        below = below or self.fit
        missing = [name for name in self.law.inputs if name not in below.targets]
        if missing:
            raise FitError(
                f"the benchmark reads the loss of {missing[0]!r}, which the fit lacks "
                f"(it has {', '.join(below.targets)})"
            )
        columns = np.array([below.targets.index(name) for name in self.law.inputs])
        return ScoreGoal(self.law, weights_of(task_weights, self.law.tasks, "task"), columns)

    def text(self) -> str:
        """Routes with their held-out errors, the choice, and what was dropped."""
        lines = [
            f"{route:10s} {100 * error:6.2f} points of score off where {self.split} was held out"
            for route, error in self.errors.items()
        ]
        lines.append(f"route: {self.route}, {len(self.law.tasks)} tasks")
        lines += [f"dropped: {task}: {reason}" for task, reason in self.dropped.items()]
        return "\n".join(lines)

    def save(self, path: str | Path) -> Path:
        """Write as JSON, atomically; returns the path."""
        record = {k: plain(v) for k, v in vars(self).items() if k != "law"}
        record["law"] = {k: plain(v) for k, v in vars(self.law).items()}
        return write_text(path, json.dumps(record, indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Scores:
        """Read what `save` wrote. Raises `DataError`."""

        def make(record: Any) -> Scores:
            values = revived(record)
            return cls(law=ScoreLaw(**values.pop("law")), **values)

        scores: Scores = read_saved(path, "benchmark", make)
        return scores


def fit_scores(
    table: RunTable,
    law: str = DEFAULT_LAW,
    *,
    chance: Mapping[str, float] | None = None,
    seed: int = 0,
    capacity: str = "total",
    rho: float | None = None,
    available: Mapping[str, float] | None = None,
    repeats: float | None = None,
) -> Scores:
    """Fit score curves to a table that has scores beside its losses, and choose the route.

    `law` predicts the losses of either route; `chance` maps the start of a task's name to its
    floor. `available` and `repeats` are as `fit` takes them. Raises `DataError` for a table without
    scores, `FitError` where every task is at chance.
    """
    read = read_scores(table, chance)
    if available is not None:
        read = replace(read, design=with_available(read.design, available))
    kept, dropped = learnt(read)
    if not kept.any():
        raise FitError(f"{table.source}: every task is at chance: {', '.join(dropped)}")
    read = read.of_tasks(kept)
    routes = [r for r in ROUTES if r == "domains" or read.loss is not None]
    parts = make_splits(read.design, ("largest_size", "held_mixtures"), seed=seed)
    largest = [p for p in parts if p.name == "largest_size"]
    parts = largest or parts
    how: dict[str, Any] = {"seed": seed, "settings": LOOSE, "capacity": capacity, "rho": rho}
    how["repeats"] = repeats
    errors = {r: _held_error(read, r, law, parts, how) for r in routes} if parts else {}
    route = min(errors, key=errors.__getitem__) if errors else "domains"
    whole = fit(law, read.below(route), available=available, **how)
    curves = _fit_curves(read, route, seed)
    split = {"largest_size": "the largest size", "held_mixtures": "a fifth of the mixtures"}
    return Scores(route, curves, whole, errors, split[parts[0].name] if parts else "", dropped)


def _held_error(
    read: ScoreTable, route: str, law: str, parts: list[Split], how: dict[str, Any]
) -> float:
    """Mean absolute error of the scores of held runs, their losses predicted too."""
    errors = []
    for part in parts:
        train, test = read.take(part.train), read.take(part.test)
        try:
            fitted = fit(law, train.below(route), **how)
            at = test.design
            losses = fitted.predict(
                at.ratios, at.n_params, at.n_tokens, at.n_active, available=at.available
            )
        except FitError:
            return float("inf")
        curves = _fit_curves(train, route, how["seed"])
        errors.append(np.abs(curves(losses)[0] - test.score).ravel())
    return float(np.nanmean(np.concatenate(errors)))


def _fit_curves(read: ScoreTable, route: str, seed: int) -> ScoreLaw:
    """The curve of each task, over measured losses."""
    below = read.below(route)
    theta = np.full((len(read.tasks), 3 + len(below.targets)), -np.inf)
    noise = np.zeros(len(read.tasks))
    for q in range(len(read.tasks)):
        used = np.arange(len(below.targets)) if route == "domains" else np.array([q])
        rows = np.isfinite(read.score[:, q]) & np.isfinite(below.losses[:, used]).all(1)
        if rows.sum() < 3:
            raise FitError(f"task {read.tasks[q]!r} has {rows.sum()} scores; 3 are needed")
        theta[q, np.r_[:3, 3 + used]], noise[q] = _fit_curve(
            below.losses[rows][:, used],
            read.score[rows, q],
            read.error[rows, q],
            float(read.floors[q]),
            seed,
        )
    return ScoreLaw(list(read.tasks), list(below.targets), read.floors, theta, noise)


def _fit_curve(
    losses: np.ndarray, score: np.ndarray, error: np.ndarray, floor: float, seed: int
) -> tuple[np.ndarray, float]:
    """MAP with Huber's loss; the spread beyond the binomial error is learnt between rounds."""
    size = losses.shape[1]
    level = losses.mean(1)
    width = max(float(level.std()), 1e-3)
    mean = np.r_[np.log(1.5 / width), np.median(level) - width, TOP_PRIOR[0], np.zeros(size)]
    sd = np.r_[1.0, 3 * width, TOP_PRIOR[1], np.full(size, WEIGHT_SD)]
    floors, spread = np.array([floor]), 0.0
    rng = np.random.default_rng(seed)
    starts = mean + 0.7 * sd * np.vstack([np.zeros(3 + size), rng.normal(size=(STARTS, 3 + size))])

    def residuals(theta: np.ndarray) -> np.ndarray:
        value = _curve(theta[None], floors, losses)[0][:, 0]
        return np.r_[(value - score) / scale * bend, (theta - mean) / sd]

    def slopes(theta: np.ndarray) -> np.ndarray:
        by_theta = _curve(theta[None], floors, losses)[2][:, 0]
        return np.vstack([by_theta * (bend / scale)[:, None], np.diag(1 / sd)])

    for _ in range(ROUNDS):
        scale, bend = np.sqrt(error**2 + spread**2), np.ones(len(score))
        found = [least_squares(residuals, s, slopes, x_scale=sd, max_nfev=60) for s in starts]
        best = min(found, key=lambda end: end.cost)
        off = (_curve(best.x[None], floors, losses)[0][:, 0] - score) / scale
        bend = np.sqrt(np.minimum(1.0, HUBER / np.maximum(np.abs(off), 1e-12)))
        best = least_squares(residuals, best.x, slopes, x_scale=sd, max_nfev=60)
        off = _curve(best.x[None], floors, losses)[0][:, 0] - score
        freedom = max(len(score) - 3, 1)
        extra = (np.minimum(off**2, (HUBER * scale) ** 2).sum() / freedom) - np.mean(error**2)
        spread, starts = float(np.sqrt(max(extra, 0.0))), best.x[None]
    return best.x, spread


def _softmax(logits: np.ndarray) -> np.ndarray:
    part = np.exp(logits - logits.max(-1, keepdims=True))
    return part / part.sum(-1, keepdims=True)


def _curve(
    theta: np.ndarray, floors: np.ndarray, losses: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores (S, Q), slopes by the losses (S, Q, T) and by theta (S, Q, 3 + T)."""
    w = _softmax(theta[:, 3:])
    level = losses @ w.T
    score, by_level, own = sigmoid_curve(theta[:, 0], theta[:, 1], theta[:, 2], floors, level)
    by_loss = by_level[:, :, None] * w
    by_weight = by_loss * (losses[:, None] - level[:, :, None])
    return score, by_loss, np.concatenate([own, by_weight], axis=2)
