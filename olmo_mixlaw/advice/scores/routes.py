"""Ways to a task's score, each tried on runs that were held out, and the best kept for each task.

two_step  the task's own loss             domains  a weighted mean of the domains' losses
tasks     the other tasks' losses         mixture  the law fitted to the score itself
compute   a power of compute alone        constant the mean of each size: the floor to beat
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from olmo_mixlaw.advice.score_table import ScoreTable
from olmo_mixlaw.advice.scores.by_size import fit_by_size, mean_of_known, size_groups
from olmo_mixlaw.advice.scores.curves import ScoreLaw, direct_curves, fit_curves
from olmo_mixlaw.advice.scores.inputs import LOSS_OF, SCORE_OF, Below, joint_design
from olmo_mixlaw.laws.choice.holdout import Split, mixture_ids
from olmo_mixlaw.runs import Design

# Those that read the mixture, in the order in which they are preferred where nobody can tell.
ROUTES = ("two_step", "domains", "tasks", "mixture")
FLOORS = ("compute", "constant")
# A loss is read only where so many of the rows with a score have it.
SHARE_KNOWN = 0.9
# So many losses of other tasks are read at most, the most related ones.
RELATED = 8
# One-sided 5 %: a rank correlation this many standard errors off 0 has a sign.
SIGNIFICANT = 1.645
# Errors of two routes within so many standard errors of their difference are as good.
NEAR = 1.0
# What a route must be ahead of the size alone by: several are tried, and one is lucky sooner.
SURE = 2.0
# Ranks of fewer mixtures say nothing; the standard error of atanh(rho) is sqrt(1.06 / (n - 3)).
LEAST_MIXTURES = 5
RANK_VARIANCE = 1.06


@dataclass(frozen=True)
class Held:
    """What every route says of held-out runs, beside what they scored.

    `score`, `group` and, by route, `guess` and `spread` have a row a held run and a column a task;
    NaN where a route can't speak. `ordered` (Q,) by route is by how many standard errors
    predictions and scores of held mixtures are ranked alike, at one size each.
    """

    tasks: list[str]
    score: np.ndarray
    guess: dict[str, np.ndarray]
    spread: dict[str, np.ndarray]
    ordered: dict[str, np.ndarray]
    reach: float

    @cached_property
    def errors(self) -> dict[str, np.ndarray]:
        """Mean absolute errors (Q,) by route, NaN where one can't speak."""
        return {r: mean_of_known(np.abs(guess - self.score)) for r, guess in self.guess.items()}

    def worse(self, route: str, other: str) -> np.ndarray:
        """By how many standard errors (Q,) a route errs more than another on the same runs."""
        by_row = np.abs(self.guess[route] - self.score) - np.abs(self.guess[other] - self.score)
        count = np.isfinite(by_row).sum(0)
        spread = np.sqrt(
            mean_of_known((by_row - mean_of_known(by_row)) ** 2) / np.maximum(count - 1, 1)
        )
        return np.asarray(mean_of_known(by_row) / np.maximum(spread, 1e-12))


def reads(route: str, read: ScoreTable, names: list[str]) -> np.ndarray:
    """Which of the inputs `names` (T,) a route reads for each task, (Q, T)."""
    used = np.zeros((len(read.tasks), len(names)), bool)
    place = {name: i for i, name in enumerate(names)}
    if route == "domains":
        used[:, [place[name] for name in read.design.targets]] = True
    start = SCORE_OF if route == "mixture" else LOSS_OF
    own = [place.get(start + task) for task in read.tasks]
    if route in ("two_step", "mixture"):
        for q, column in enumerate(own):
            if column is not None:
                used[q, column] = True
    if route == "tasks":
        used[:, [i for name, i in place.items() if name.startswith(LOSS_OF)]] = True
        for q, column in enumerate(own):
            if column is not None:
                used[q, column] = False
    return used


def curves_of(route: str, read: ScoreTable, seed: int) -> ScoreLaw:
    """The curves of a route over the measured losses of a table, for the tasks that it can do."""
    joint = joint_design(read)
    used = reads(route, read, joint.targets)
    if route == "mixture":
        return direct_curves(read, joint.targets, used)
    scored, known = np.isfinite(read.score), np.isfinite(joint.losses)
    share = (scored.T.astype(float) @ known) / np.maximum(scored.sum(0), 1)[:, None]
    used &= share >= SHARE_KNOWN
    if route == "tasks":
        used = _related(read.score, joint.losses, used)
    return fit_curves(read, joint.losses, joint.targets, used, seed)


def _related(score: np.ndarray, losses: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Of the losses `used` (Q, T) the `RELATED` that fall most surely as the score (R, Q) rises."""
    kept = np.zeros_like(used)
    for q in range(len(used)):
        columns = np.flatnonzero(used[q])
        rows = np.isfinite(score[:, q])
        y, x = score[rows, q], losses[np.ix_(rows, columns)]
        x = x - mean_of_known(x)
        spread = np.sqrt(mean_of_known(x**2))
        together = mean_of_known(x * (y - y.mean())[:, None]) / np.maximum(spread, 1e-12)
        kept[q, columns[np.argsort(together, kind="stable")[:RELATED]]] = True
    return kept


def held_out(
    read: ScoreTable, routes: Sequence[str], law: str, parts: Sequence[Split], how: dict[str, Any]
) -> Held | None:
    """Every route's scores of held-out runs, their losses predicted too; None without splits."""
    found: list[tuple[ScoreTable, dict[str, np.ndarray], dict[str, np.ndarray]]] = []
    reach = 0.0
    for part in parts:
        train, test = read.take(part.train), read.take(part.test)
        n, most = test.design.n_params, np.nanmax(train.design.n_params, initial=-np.inf)
        if np.isfinite(most) and np.isfinite(n).all():
            reach = max(reach, float(np.log(n.max() / most)))
        found.append((test, *_of_part(train, test, routes, law, how)))
    if not found:
        return None
    names = list(dict.fromkeys(route for _, guess, _ in found for route in guess))
    score = np.concatenate([test.score for test, _, _ in found])

    def stacked(by_part: Sequence[dict[str, np.ndarray]], route: str) -> np.ndarray:
        empty = [np.full(test.score.shape, np.nan) for test, _, _ in found]
        return np.concatenate([d.get(route, e) for d, e in zip(by_part, empty, strict=True)])

    guess = {route: stacked([item[1] for item in found], route) for route in names}
    spread = {route: stacked([item[2] for item in found], route) for route in names}
    design = read.design.take(np.concatenate([np.flatnonzero(part.test) for part in parts]))
    at = _cells(design), mixture_ids(design)
    ordered = {route: order(guess[route], score, *at) for route in names}
    return Held(list(read.tasks), score, guess, spread, ordered, reach)


def _of_part(
    train: ScoreTable, test: ScoreTable, routes: Sequence[str], law: str, how: dict[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Scores and their spreads (R, Q) of one fold's held runs, by route."""
    below, names = Below.of(train, law, how), joint_design(train).targets
    losses, errors = below.losses(test.design, names)
    guess, spread = {}, {}
    for route in routes:
        curves = curves_of(route, train, how["seed"])
        columns = [train.tasks.index(task) for task in curves.tasks]
        known = np.isfinite(losses).all(0)
        able = ~((curves.weights > 0) & ~known).any(1)
        value = np.full((2, len(losses), len(train.tasks)), np.nan)
        filled, off = np.nan_to_num(losses), np.nan_to_num(errors)
        value[:, :, columns] = curves(filled)[0], curves.spread(filled, off)
        value[:, :, [c for c, ok in zip(columns, able, strict=True) if not ok]] = np.nan
        guess[route], spread[route] = value
    sizes, at = fit_by_size(train), test.design
    guess["constant"] = np.broadcast_to(sizes.constant(at.n_params), test.score.shape)
    by_compute = sizes.compute(at.n_params, at.n_tokens)
    if by_compute is not None:
        guess["compute"] = by_compute
    return guess, spread


def _cells(design: Design) -> np.ndarray:
    """A number (R,) for each size and budget."""
    budgets = size_groups(design.n_tokens)
    return np.asarray(size_groups(design.n_params) * (budgets.max() + 1) + budgets)


def order(
    guess: np.ndarray, score: np.ndarray, cell: np.ndarray, mixture: np.ndarray
) -> np.ndarray:
    """By how many standard errors (Q,) columns are ranked alike over mixtures, cell by cell.

    Spearman's rho through Fisher's transformation, cells weighed by their numbers of mixtures; 0
    where a cell has fewer than `LEAST_MIXTURES`.
    """
    total, weight = np.zeros(guess.shape[1]), np.zeros(guess.shape[1])
    for at in np.unique(cell):
        rows = np.flatnonzero(cell == at)
        for q in range(guess.shape[1]):
            seen = rows[np.isfinite(guess[rows, q]) & np.isfinite(score[rows, q])]
            count = len(np.unique(mixture[seen]))
            a, b = guess[seen, q], score[seen, q]
            if count < LEAST_MIXTURES or np.ptp(a) < 1e-12 or np.ptp(b) == 0:
                continue
            rho = float(np.clip(spearmanr(a, b).statistic, -0.999, 0.999))
            total[q] += (count - 3) * np.arctanh(rho)
            weight[q] += count - 3
    return np.asarray(total / np.sqrt(np.maximum(weight, 1) * RANK_VARIANCE))


@dataclass(frozen=True)
class Choice:
    """A route for each task; `refused` says which had the wrong sign, `unpredictable` which tasks
    no route that reads the mixture predicts better than size alone."""

    routes: dict[str, str]
    refused: dict[str, str]
    unpredictable: dict[str, str]


def choose(held: Held | None, read: ScoreTable, curves: Mapping[str, ScoreLaw]) -> Choice:
    """The route of least held-out error for each task, among those whose sign isn't wrong.

    A route counts only where it errs surely less than both routes without a mixture
    (`FLOORS`), or else surely orders held mixtures as they are. Where the best is within a
    standard error of one before it in `ROUTES`, that one is taken. Without held runs the first
    route that can do a task is. `curves` are those of each route over the measured losses of all
    runs.
    """
    signs = {route: _signs(route, read, law) for route, law in curves.items()}
    worse = {} if held is None else {(a, b): held.worse(a, b) for a in curves for b in held.guess}
    chosen: dict[str, str] = {}
    refused: dict[str, str] = {}
    unpredictable: dict[str, str] = {}
    for q, task in enumerate(read.tasks):
        good = []
        for route, (able, fitted) in signs.items():
            if not able[q]:
                continue
            ordered = 0.0 if held is None else held.ordered[route][q]
            wrong = min(ordered, fitted[q])
            if wrong < -SIGNIFICANT:
                where = "held-out" if ordered <= fitted[q] else "fitted"
                refused[f"{task} by {route}"] = (
                    f"orders the {where} mixtures the wrong way ({wrong:.1f} standard errors)"
                )
            else:
                good.append(route)
        if held is not None:
            errors = {route: float(by_task[q]) for route, by_task in held.errors.items()}
            floor = min(
                (r for r in FLOORS if np.isfinite(errors.get(r, np.nan))), key=errors.__getitem__
            )
            tried = [r for r in good if np.isfinite(errors[r])]
            good = [r for r in tried if worse[r, floor][q] < -SURE or held.ordered[r][q] > SURE]
            if not good:
                unpredictable[task] = _why(task, tried, errors, floor, refused)
                continue
            least = min(good, key=errors.__getitem__)
            near = [r for r in good if worse[r, least][q] <= NEAR]
            chosen[task] = min(near, key=list(ROUTES).index)
        elif good:
            chosen[task] = good[0]
        else:
            unpredictable[task] = _why(task, [], {}, "", refused)
    return Choice(chosen, refused, unpredictable)


def _signs(route: str, read: ScoreTable, curves: ScoreLaw) -> tuple[np.ndarray, np.ndarray]:
    """Tasks (Q,) that a route can do, and how its curves over measured losses order mixtures."""
    able = np.isin(read.tasks, curves.tasks)
    ordered = np.zeros(len(read.tasks))
    if route != "mixture" and able.any():
        joint = joint_design(read)
        guess = np.full(read.score.shape, np.nan)
        used = (curves.weights > 0).any(0)
        rows = np.isfinite(joint.losses[:, used]).all(1)
        losses = np.nan_to_num(joint.losses[rows])
        guess[np.ix_(rows, np.flatnonzero(able))] = curves(losses)[0]
        ordered = order(guess, read.score, _cells(read.design), mixture_ids(read.design))
    return able, ordered


def _why(
    task: str, able: Sequence[str], errors: dict[str, float], floor: str, refused: dict[str, str]
) -> str:
    if not able:
        tried = [name for name in refused if name.startswith(f"{task} by ")]
        return "every route has the wrong sign" if tried else "no route can be fitted to it"
    route = min(able, key=errors.__getitem__)
    size = {"constant": "the mean of each size", "compute": "a power of compute alone"}[floor]
    return (
        f"{size} is {100 * errors[floor]:.2f} points off held-out runs, the best route ({route}) "
        f"{100 * errors[route]:.2f}: no surer, and none orders the mixtures"
    )
