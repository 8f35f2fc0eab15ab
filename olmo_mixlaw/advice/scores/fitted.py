"""Benchmark scores of any mixture, size and budget: fitted, asked, saved, and made a goal of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

from olmo_mixlaw.advice.score_table import ScoreTable, learnt, read_scores
from olmo_mixlaw.advice.scores.by_size import SizeLaw, fit_by_size
from olmo_mixlaw.advice.scores.curves import ScoreLaw
from olmo_mixlaw.advice.scores.inputs import joint_design, predicted_losses
from olmo_mixlaw.advice.scores.interval import Calibration, factor_of_curves, measured_factor
from olmo_mixlaw.advice.scores.routes import ROUTES, Held, choose, curves_of, held_out
from olmo_mixlaw.atomic import write_text
from olmo_mixlaw.errors import ConfigError, FitError
from olmo_mixlaw.laws.choice.holdout import LOOSE, make_splits
from olmo_mixlaw.laws.fitted import Fit, revived
from olmo_mixlaw.laws.fitting import fit
from olmo_mixlaw.laws.repetition import with_available
from olmo_mixlaw.laws.saved import plain, read_saved
from olmo_mixlaw.laws.weights import weights_of
from olmo_mixlaw.registry import DEFAULT_LAW
from olmo_mixlaw.runs import Design, RunTable

FORMAT = 2
SPLITS = {"largest_size": "the largest size", "held_mixtures": "a fifth of the mixtures"}


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
    """Benchmark scores from (mixture, N, D): a route for each task, curves, and the fit below.

    `law` has the tasks that some route predicts, whose routes are in `routes`; `fit` has the losses
    that they read. `errors` maps a route to its mean absolute error of score where `split` was
    held out, over the tasks that it can do, and `task_errors` the same by task. `dropped` says why
    a task was left out (at chance), `unpredictable` which others no route predicts better than
    the mean of each size: they are in `by_size` alone and in no goal. `refused` names routes that
    order mixtures the wrong way.
    """

    law: ScoreLaw
    fit: Fit
    routes: dict[str, str]
    errors: dict[str, float]
    split: str
    dropped: dict[str, str] = field(default_factory=dict)
    unpredictable: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    task_errors: dict[str, dict[str, float]] = field(default_factory=dict)
    by_size: SizeLaw | None = None
    calibration: Calibration = field(default_factory=Calibration)

    @property
    def route(self) -> str:
        """The route of most tasks."""
        found = list(self.routes.values())
        return max(dict.fromkeys(found), key=found.count)

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
        return self.law(losses[:, self._columns(self.fit)])[0]

    def interval(
        self,
        ratios: np.ndarray,
        n_params: Any = np.nan,
        n_tokens: Any = np.nan,
        n_active: Any = None,
        available: Any = None,
        level: float = 0.9,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ends (R, Q) of what new runs, evaluated once, score `level` of the time.

        The losses' errors go through the curve; its own parameters (Laplace), the spread about it
        and the number of answers are added, and all is widened as held-out runs tell.
        """
        at = (ratios, n_params, n_tokens, n_active, available)
        losses, errors = predicted_losses(self.fit, *at)
        columns = self._columns(self.fit)
        losses, errors = losses[:, columns], errors[:, columns]
        spread = self.law.spread(losses, errors)
        factor = self.calibration.factor(n_params, len(losses))[:, None]
        half = float(norm.ppf((1 + level) / 2)) * factor * spread
        score = self.law(losses)[0]
        return np.clip(score - half, 0, 1), np.clip(score + half, 0, 1)

    def fit_below(self, other: Fit) -> Fit:
        """The fit whose losses the goal reads: `other` where it has them all, else its own."""
        return other if set(self.law.inputs) <= set(other.targets) else self.fit

    def design_below(self, table: RunTable) -> Design:
        """The losses of a table that the fit below is made of: for its bootstrap."""
        floors = dict(zip(self.law.tasks, self.law.floors, strict=True))
        if self.by_size is not None:
            floors |= dict(zip(self.by_size.tasks, self.by_size.floors, strict=True))
        floors |= {task: 0.0 for task in self.dropped if task not in floors}
        return joint_design(read_scores(table, floors), self.fit.targets)

    def goal(
        self, below: Fit | None = None, task_weights: Mapping[str, float] | None = None
    ) -> ScoreGoal:
        """The goal for `optimum(fit, objective=...)`, over `below` (default: its own fit).

        Raises `FitError` where that fit lacks a loss that the curves read, `ConfigError` for the
        weight of a task that can't be predicted.
        """
        below = below or self.fit
        lost = {**self.dropped, **self.unpredictable}
        for task in task_weights or ():
            if task in lost and task not in self.law.tasks:
                raise ConfigError(
                    f"task weight: {task!r} can't be predicted from this table: {lost[task]}; "
                    f"accepted: {', '.join(self.law.tasks)}"
                )
        return ScoreGoal(
            self.law, weights_of(task_weights, self.law.tasks, "task"), self._columns(below)
        )

    def _columns(self, below: Fit) -> np.ndarray:
        """Where a fit has the losses that the curves read."""
        missing = [name for name in self.law.inputs if name not in below.targets]
        if missing:
            raise FitError(
                f"the benchmark reads the loss of {missing[0]!r}, which the fit lacks "
                f"(it has {', '.join(below.targets)})"
            )
        return np.array([below.targets.index(name) for name in self.law.inputs])

    def text(self) -> str:
        """Routes with their held-out errors, the choice, and what was left out."""
        lines = [
            f"{route:10s} {100 * error:6.2f} points of score off where {self.split} was held out"
            for route, error in self.errors.items()
        ]
        for route in ROUTES:
            tasks = [task for task, taken in self.routes.items() if taken == route]
            if tasks:
                count = f"{len(tasks)} task{'s' if len(tasks) > 1 else ''}"
                lines.append(f"route: {route}, {count}: {', '.join(tasks)}")
        lines += [f"dropped: {task}: {reason}" for task, reason in self.dropped.items()]
        lines += [f"refused: {route}: {reason}" for route, reason in self.refused.items()]
        lines += [
            f"can't be predicted from this table: {task}: {reason}"
            for task, reason in self.unpredictable.items()
        ]
        return "\n".join(lines)

    def save(self, path: str | Path) -> Path:
        """Write as JSON, atomically; returns the path."""
        apart = {"law": self.law, "by_size": self.by_size, "calibration": self.calibration}
        record = {k: plain(v) for k, v in vars(self).items() if k not in apart}
        parts = {k: v and {n: plain(x) for n, x in vars(v).items()} for k, v in apart.items()}
        return write_text(path, json.dumps({"format": FORMAT, **record, **parts}) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Scores:
        """Read what `save` wrote. Raises `DataError`."""

        def make(record: Any) -> Scores:
            if record.pop("format", 1) != FORMAT:
                raise ValueError(f"format must be {FORMAT}; fit the scores again with this version")
            values = revived(record)
            law, sizes = ScoreLaw(**values.pop("law")), values.pop("by_size")
            return cls(
                law=law,
                by_size=sizes and SizeLaw(**sizes),
                calibration=Calibration(**values.pop("calibration")),
                **values,
            )

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
    routes: tuple[str, ...] = ROUTES,
) -> Scores:
    """Fit score curves to a table that has scores beside its losses, and choose each task's route.

    `law` predicts the losses of all routes; `chance` maps the start of a task's name to its floor.
    `available` and `repeats` are as `fit` takes them; `routes` are those that may be taken. Raises
    `DataError` for a table without scores, `FitError` where every task is at chance or no route
    predicts any, `ConfigError` for a route that isn't there.
    """
    for route in routes:
        if route not in ROUTES:
            raise ConfigError(f"route {route!r}: expected some of {', '.join(ROUTES)}")
    read = read_scores(table, chance)
    if available is not None:
        read = replace(read, design=with_available(read.design, available))
    kept, dropped = learnt(read)
    if not kept.any():
        raise FitError(f"{table.source}: every task is at chance: {', '.join(dropped)}")
    read = read.of_tasks(kept)
    how: dict[str, Any] = {"seed": seed, "settings": LOOSE, "capacity": capacity, "rho": rho}
    how["repeats"] = repeats
    parts = make_splits(read.design, ("largest_size", "held_mixtures"), seed=seed)
    largest = [p for p in parts if p.name == "largest_size"]
    parts = largest or parts
    held = held_out(read, routes, law, parts, how)
    by_route = {route: curves_of(route, read, seed) for route in routes}
    choice = choose(held, read, by_route)
    if not choice.routes:
        reasons = "; ".join(f"{task}: {why}" for task, why in choice.unpredictable.items())
        raise FitError(f"{table.source}: no task can be predicted from this table: {reasons}")
    curves = ScoreLaw.joined(
        [
            law_of_route.of_tasks(tasks)
            for route, law_of_route in by_route.items()
            if (tasks := [t for t in read.tasks if choice.routes.get(t) == route])
        ]
    ).of_tasks([t for t in read.tasks if t in choice.routes])
    counted = [n for n, w in zip(curves.inputs, curves.weights.T, strict=True) if (w > 0).any()]
    if set(choice.routes.values()) == {"domains"}:
        counted = list(read.design.targets)
    curves = curves.of_inputs(counted)
    whole = fit(law, joint_design(read, counted), available=available, **how)
    return Scores(
        curves,
        whole,
        choice.routes,
        {} if held is None else _errors(held),
        SPLITS[parts[0].name] if parts else "",
        dropped,
        choice.unpredictable,
        choice.refused,
        {} if held is None else _by_task(held),
        fit_by_size(read),
        _calibration(held, choice.routes, read, bool(largest), seed),
    )


def _errors(held: Held) -> dict[str, float]:
    """The mean absolute error of each route over the tasks that it can do."""
    return {r: float(np.nanmean(e)) for r, e in held.errors.items() if np.isfinite(e).any()}


def _by_task(held: Held) -> dict[str, dict[str, float]]:
    return {
        task: {r: float(e[q]) for r, e in held.errors.items() if np.isfinite(e[q])}
        for q, task in enumerate(held.tasks)
    }


def _calibration(
    held: Held | None, routes: dict[str, str], read: ScoreTable, largest: bool, seed: int
) -> Calibration:
    """The factors of intervals, from the runs that were held out."""
    if held is None:
        return Calibration()
    factor = measured_factor(held, routes)
    if not largest:
        return Calibration(inside=factor, beyond=factor)
    inside = factor_of_curves(read, routes, seed)
    return Calibration(inside, factor, held.reach, float(np.nanmax(read.design.n_params)))
