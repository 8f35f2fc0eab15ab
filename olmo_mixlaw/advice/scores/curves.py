"""The curve from losses to a score, a task each, all tasks fitted at once.

    acc = lo + (hi - lo) sigma(k (tau - sum_i w_i L_i))        w on the simplex, lo = chance

Over its own loss alone it is the second step of arXiv 2412.04403. The steepness k, in units of the
losses' spread, is shrunk to what tasks have in common. A task that a law predicts directly is read
from its own "loss" x = -log((acc - lo) / (1 - lo)), so that its curve is exp(-x).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from olmo_mixlaw.advice.curve import TOP_PRIOR, highest, sigmoid_curve
from olmo_mixlaw.advice.score_table import ScoreTable
from olmo_mixlaw.laws.engine.search import standard_errors
from olmo_mixlaw.laws.engine.solver import Prior, Problems, Solutions, solve

# Weights of losses are the softmax of numbers with this prior spread.
WEIGHT_SD = 1.0
# The logit of a loss that doesn't count.
UNUSED = -1e3
HUBER = 3.0
ROUNDS = 3
STARTS = 4
# Parameters stay within so many standard deviations of their priors.
REACH = 8.0
# Scores that a curve needs.
LEAST_SCORES = 3
# A curve's uncertainty is kept in so many directions, those that move its scores most.
DIRECTIONS = 4
LEAST_WIDTH = 1e-3
# Tasks differ in their steepness (log k) by this at least.
LEAST_SPREAD = 0.1


@dataclass(frozen=True)
class ScoreLaw:
    """The curves of Q tasks over T losses, named by `inputs`.

    `theta` (Q, 3 + T): log k, tau, the logit of (hi - lo) / (1 - lo), and the logits of w, which
    are `UNUSED` for losses that don't count. `noise` (Q,) is the spread beyond the binomial one of
    `instances` (Q,) answers. The posterior of theta is a normal one whose covariance is
    `sum_s directions_s directions_s'`, (Q, S, 3 + T). `direct` (Q,) tells the tasks whose only
    input is their own score.
    """

    tasks: list[str]
    inputs: list[str]
    floors: np.ndarray
    theta: np.ndarray
    noise: np.ndarray
    instances: np.ndarray | None = None
    directions: np.ndarray | None = None
    direct: np.ndarray | None = None

    def __call__(self, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores (S, Q) at losses (S, T), and their slopes by the losses (S, Q, T)."""
        score, slopes, _ = self.with_slopes(losses)
        return score, slopes

    def with_slopes(self, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scores (S, Q), slopes by the losses (S, Q, T) and by theta (S, Q, 3 + T)."""
        score, by_loss, by_theta = curve(self.theta, self.floors, losses)
        if self.direct is None or not self.direct.any():
            return score, by_loss, by_theta
        own, room = self.weights[self.direct], 1 - self.floors[self.direct]
        above = room * np.exp(-losses @ own.T)
        score[:, self.direct] = self.floors[self.direct] + above
        by_loss[:, self.direct] = -above[:, :, None] * own
        by_theta[:, self.direct] = 0.0
        return score, by_loss, by_theta

    @property
    def weights(self) -> np.ndarray:
        """w (Q, T): how much each loss counts for each task."""
        return _softmax(self.theta[:, 3:])

    def spread(self, losses: np.ndarray, errors: np.ndarray | float = 0.0) -> np.ndarray:
        """Standard deviation (S, Q) of new measured scores at losses (S, T) known to within
        `errors`, standard errors of the log losses, taken to err together."""
        score, by_loss, by_theta = self.with_slopes(losses)
        found = (np.abs(by_loss) * (losses * errors)[:, None]).sum(2) ** 2 + self.noise**2
        if self.directions is not None:
            found += (np.einsum("sqp,qdp->sqd", by_theta, self.directions) ** 2).sum(2)
        if self.instances is not None:
            found += (score * (1 - score)) / self.instances
        return np.sqrt(found)

    def parameters(self) -> pd.DataFrame:
        """A row a task: k, tau, lo, hi, noise, and the weight of each loss."""
        known = np.ones(len(self.tasks), bool) if self.direct is None else ~self.direct
        frame = pd.DataFrame(
            {
                "task": self.tasks,
                "k": np.where(known, np.exp(self.theta[:, 0]), np.nan),
                "tau": np.where(known, self.theta[:, 1], np.nan),
                "lo": self.floors,
                "hi": np.where(known, highest(self.theta[:, 2], self.floors), 1.0),
                "noise": self.noise,
            }
        )
        return frame.assign(**{f"w_{n}": self.weights[:, i] for i, n in enumerate(self.inputs)})

    def of_tasks(self, tasks: Sequence[str]) -> ScoreLaw:
        """The curves of some of its tasks, in that order."""
        rows = [self.tasks.index(task) for task in tasks]
        arrays: dict[str, Any] = {
            name: None if (value := getattr(self, name)) is None else value[rows]
            for name in ("floors", "theta", "noise", "instances", "directions", "direct")
        }
        return replace(self, tasks=list(tasks), **arrays)

    def of_inputs(self, inputs: Sequence[str]) -> ScoreLaw:
        """The same curves over some of the losses: all that count, in that order."""
        columns = [self.inputs.index(name) for name in inputs]
        places = np.r_[:3, 3 + np.array(columns, int)]
        directions = None if self.directions is None else self.directions[:, :, places]
        return replace(
            self, inputs=list(inputs), theta=self.theta[:, places], directions=directions
        )

    @classmethod
    def joined(cls, laws: Sequence[ScoreLaw]) -> ScoreLaw:
        """The tasks of several laws over the same inputs, made by `fit_curves`."""

        def stacked(name: str) -> np.ndarray:
            return np.concatenate([getattr(law, name) for law in laws])

        names = ("floors", "theta", "noise", "instances", "directions", "direct")
        tasks = [task for law in laws for task in law.tasks]
        return cls(tasks, list(laws[0].inputs), **{name: stacked(name) for name in names})


def fit_curves(
    read: ScoreTable, losses: np.ndarray, names: list[str], used: np.ndarray, seed: int
) -> ScoreLaw:
    """Curves over measured `losses` (R, T), of which a task reads those `used` (Q, T).

    MAP with Huber's loss; the spread beyond the binomial error is learnt between rounds. Tasks
    with fewer than `LEAST_SCORES` scores beside all their losses are left out.
    """
    missing = ~np.isfinite(losses)
    whole = ~(used @ missing.T.astype(int) > 0) & np.isfinite(read.score.T)
    able = (whole.sum(1) >= LEAST_SCORES) & used.any(1)
    read, used, whole = read.of_tasks(able), used[able], whole[able]
    tasks, size = len(used), 3 + len(names)
    theta, noise = np.full((tasks, size), UNUSED), np.zeros(tasks)
    directions = np.zeros((tasks, DIRECTIONS, size))
    if tasks:
        # Each task's own losses side by side: most read one of very many.
        columns, counts = _columns(used)
        seen = np.nan_to_num(losses).T[columns]
        problems, starts = _problems(read, seen, counts, whole, seed)
        who = np.repeat(np.arange(tasks), starts.shape[1])
        best = solve(problems, who, starts.reshape(-1, starts.shape[2])).best_of(tasks)
        error = np.where(whole, read.error.T, np.nan)
        for _ in range(ROUNDS):
            noise = _noise(problems, best.theta, error)
            problems = _weighted(_shrunk(problems, best), error, noise)
            best = solve(problems, np.arange(tasks), best.theta)
        noise = _noise(problems, best.theta, error)
        own = _directions(problems, best)
        for q, count in enumerate(counts):
            places = np.r_[:3, 3 + columns[q, :count]]
            theta[q, places] = best.theta[q, : 3 + count]
            directions[q][:, places] = own[q][:, : 3 + count]
    return ScoreLaw(
        list(read.tasks),
        list(names),
        read.floors,
        theta,
        noise,
        _instances(read, whole),
        directions,
        np.zeros(tasks, bool),
    )


def direct_curves(read: ScoreTable, names: list[str], used: np.ndarray) -> ScoreLaw:
    """The curves exp(-x) of tasks that are predicted directly, x being their only input."""
    able = used.any(1)
    read, used = read.of_tasks(able), used[able]
    theta = np.c_[np.zeros((len(used), 3)), np.where(used, 0.0, UNUSED)]
    count = len(used)
    return ScoreLaw(
        list(read.tasks),
        list(names),
        read.floors,
        theta,
        np.zeros(count),
        _instances(read, np.isfinite(read.score.T)),
        np.zeros((count, DIRECTIONS, theta.shape[1])),
        np.ones(count, bool),
    )


def curve(
    theta: np.ndarray, floors: np.ndarray, losses: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores (S, Q), slopes by the losses (S, Q, T) and by theta (S, Q, 3 + T)."""
    w = _softmax(theta[:, 3:])
    level = losses @ w.T
    score, by_level, own = sigmoid_curve(theta[:, 0], theta[:, 1], theta[:, 2], floors, level)
    by_loss = by_level[:, :, None] * w
    by_weight = by_loss * (losses[:, None] - level[:, :, None])
    return score, by_loss, np.concatenate([own, by_weight], axis=2)


def _columns(used: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The inputs that each task reads (Q, U), the first repeated where it reads fewer, and how
    many those are (Q,)."""
    counts = used.sum(1)
    order = np.argsort(~used, axis=1, kind="stable")[:, : counts.max()]
    return np.where(np.arange(counts.max()) < counts[:, None], order, order[:, :1]), counts


def _problems(
    read: ScoreTable, losses: np.ndarray, counts: np.ndarray, whole: np.ndarray, seed: int
) -> tuple[Problems, np.ndarray]:
    """One problem a task, over its own `losses` (Q, U, R), and its starts (Q, 1 + STARTS, P).

    The solver compares logarithms of positive numbers: here of exp(score), so that residuals are
    of the scores themselves.
    """
    tasks, most = losses.shape[:2]
    used = np.arange(most) < counts[:, None]
    level = (losses * (used / counts[:, None])[:, :, None]).sum(1)
    level = np.where(whole, level, np.nan)
    width = np.maximum(np.nanstd(level, axis=1), LEAST_WIDTH)
    middle = np.nanmedian(level, axis=1) - width
    free = used & (counts > 1)[:, None]
    logits, spread = np.where(used, 0.0, UNUSED), np.where(free, WEIGHT_SD, 0.0)
    mean = np.c_[np.log(1.5 / width), middle, np.full(tasks, TOP_PRIOR[0]), logits]
    sd = np.c_[np.ones(tasks), 3 * width, np.full(tasks, TOP_PRIOR[1]), spread]
    prior = Prior(mean, sd, mean - REACH * sd, mean + REACH * sd)

    def evaluate(theta: np.ndarray, group: np.ndarray, some: slice, jacobian: bool) -> Any:
        seen, w = losses[group][:, :, some], _softmax(theta[:, 3:])
        level = np.matmul(w[:, None], seen)[:, 0]
        log_k, tau, top = (theta[:, i : i + 1] for i in range(3))
        score, by_level, own = sigmoid_curve(log_k, tau, top, read.floors[group][:, None], level)
        grown = np.exp(score)
        if not jacobian:
            return grown, None
        by_weight = (by_level[:, None] * w[:, :, None] * (seen - level[:, None])).transpose(0, 2, 1)
        return grown, np.concatenate([own, by_weight], axis=2) * grown[:, :, None]

    error = np.where(whole, read.error.T, np.nan)
    problems = Problems(
        evaluate=evaluate,
        log_loss=np.where(whole, read.score.T, np.nan),
        prior=prior,
        noise=np.ones(tasks),
        huber=HUBER,
    )
    problems = _weighted(problems, error, np.zeros(tasks))
    drawn = np.random.default_rng(seed).normal(size=(1 + STARTS, 3 + most))
    drawn[0] = 0.0
    return problems, mean[:, None] + 0.7 * sd[:, None] * drawn


def _weighted(problems: Problems, error: np.ndarray, noise: np.ndarray) -> Problems:
    """Rows count by their binomial error and the spread beyond it."""
    variance = error**2 + noise[:, None] ** 2
    typical = np.nanmedian(variance, axis=1)
    return replace(
        problems, noise=np.sqrt(typical), weight=np.nan_to_num(typical[:, None] / variance)
    )


def _noise(problems: Problems, theta: np.ndarray, error: np.ndarray) -> np.ndarray:
    """The spread (Q,) of scores about their curves beyond the binomial error, outliers bent."""
    rows = slice(0, error.shape[1])
    value, _ = problems.evaluate(theta, np.arange(len(theta)), rows, False)
    assert problems.weight is not None
    bend = HUBER * problems.noise[:, None] / np.sqrt(np.maximum(problems.weight, 1e-12))
    off = np.minimum(np.abs(np.log(value) - problems.log_loss), bend)
    freedom = np.maximum(np.isfinite(off).sum(1) - 3, 1)
    extra = np.nansum(off**2, axis=1) / freedom - np.nanmean(error**2, axis=1)
    return np.asarray(np.sqrt(np.maximum(extra, 0.0)))


def _shrunk(problems: Problems, best: Solutions) -> Problems:
    """The prior of k, in units of the losses' spread, as the tasks have it in common."""
    prior = problems.prior
    if len(best.theta) < LEAST_SCORES:
        return problems
    width = prior.sd[:, 1] / 3
    errors = standard_errors(best, prior)[:, 0]
    middle, spread = _in_common(best.theta[:, 0] + np.log(width), errors)
    mean, sd = prior.mean.copy(), prior.sd.copy()
    mean[:, 0], sd[:, 0] = middle - np.log(width), min(spread, 1.0)
    return replace(problems, prior=replace(prior, mean=mean, sd=sd))


def _in_common(values: np.ndarray, errors: np.ndarray) -> tuple[float, float]:
    """Mean and spread of a parameter over tasks, their errors taken off (DerSimonian-Laird)."""
    between = max(float(values.var() - (errors**2).mean()), LEAST_SPREAD**2)
    weight = 1 / (errors**2 + between)
    return float((weight * values).sum() / weight.sum()), float(np.sqrt(between))


def _directions(problems: Problems, best: Solutions) -> np.ndarray:
    """The Laplace covariance of theta (Q, S, P), in the directions that move the scores most."""
    free = problems.prior.sd > 0
    size = best.theta.shape[1]
    matrix = np.where(free[:, :, None] & free[:, None, :], best.curvature, np.eye(size))
    value, vector = np.linalg.eigh(matrix)
    root = vector / np.sqrt(np.maximum(value, 1e-12))[:, None, :] * free[:, :, None]
    rows = slice(0, problems.log_loss.shape[1])
    found = np.zeros((len(root), DIRECTIONS, size))
    for q in range(len(root)):
        _, slopes = problems.evaluate(best.theta[q : q + 1], np.array([q]), rows, True)
        assert isinstance(slopes, np.ndarray)
        moved = slopes[0][np.isfinite(problems.log_loss[q])] @ root[q]
        _, _, turn = np.linalg.svd(moved, full_matrices=False)
        some = turn[:DIRECTIONS] @ root[q].T
        found[q, : len(some)] = some
    return found


def _instances(read: ScoreTable, whole: np.ndarray) -> np.ndarray:
    """How many answers (Q,) a score is the mean of, from its binomial errors."""
    score, error = np.where(whole, read.score.T, np.nan), np.where(whole, read.error.T, np.nan)
    spread = np.nanmean(np.maximum(score * (1 - score), 1e-4), axis=1)
    return np.asarray(np.maximum(spread / np.nanmean(error**2, axis=1), 1.0))


def _softmax(logits: np.ndarray) -> np.ndarray:
    part = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(part / part.sum(-1, keepdims=True))
