"""Batched Levenberg-Marquardt: many small least-squares problems at once, in float64.

Each problem is a set of log-loss residuals with Huber's loss, divided by a noise level, plus a
Gaussian prior on every parameter. Exact Jacobians, boxes by projection, Nielsen's damping
(Madsen, Nielsen & Tingleff 2004, algorithm 3.16) in units of the prior: a step is held back only
where the data say little, so that it does not creep along a valley of near-equal fits. Members
that have converged leave the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

# Rows are evaluated in blocks that keep the Jacobian below this many numbers.
JACOBIAN_NUMBERS = 3_000_000
LONGEST_STEP = 2.5
# Gains are compared with the cost or with this, the cost of a short table that fits well.
LEAST_COST = 100.0
# A step is solved again when parameters reach the edge of their box, so many times at most.
EDGE_ROUNDS = 4
# With this many parameters, blocks are eliminated before the rest is solved.
MANY_PARAMETERS = 250


class Slopes(Protocol):
    """Slopes (M, r, P) in a form of their own that can give what a step needs."""

    def normal(self, pull: np.ndarray, stiffness: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """J' pull (M, P) and J' diag(stiffness) J (M, P, P), for `pull`, `stiffness` (M, r)."""


Evaluate = Callable[
    [np.ndarray, np.ndarray, slice, bool], tuple[np.ndarray, "np.ndarray | Slopes | None"]
]


@dataclass(frozen=True)
class Prior:
    """Gaussian priors and boxes of G problems' parameters, (G, P) each; `sd` 0 fixes one."""

    mean: np.ndarray
    sd: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    @property
    def precision(self) -> np.ndarray:
        """1 / sd^2, and 0 for what is fixed."""
        return np.where(self.sd > 0, 1.0 / np.where(self.sd > 0, self.sd, 1.0) ** 2, 0.0)

    def tiled(self, copies: int) -> Prior:
        return Prior(*(np.tile(x, (copies, 1)) for x in vars(self).values()))


@dataclass(frozen=True, kw_only=True)
class Problems:
    """G problems with R residuals and P parameters each.

    `evaluate(theta (M, P), group (M,), rows, jacobian)` gives losses (M, r) and slopes (M, r, P),
    written out or as `Slopes`; `rows` is a slice of the R, cut at multiples of `run`. `log_loss`
    (G, R) is NaN where there is no observation; `noise` (G,) is the standard deviation of a log
    loss; `huber` is in units of the noise. `weight` (G, R) counts observations, for a bootstrap.
    `blocks` (S, n) are sets of parameters between which the normal matrix is 0, given the others.
    `width` is how many numbers the slopes of a residual take (None: P).
    """

    evaluate: Evaluate
    log_loss: np.ndarray
    prior: Prior
    noise: np.ndarray
    huber: float = 3.0
    weight: np.ndarray | None = None
    run: int = 1
    blocks: np.ndarray | None = None
    width: int | None = None

    def first_rows(self, count: int) -> Problems:
        """The same problems with their first `count` residuals only."""
        weight = None if self.weight is None else self.weight[:, :count]
        return replace(self, log_loss=self.log_loss[:, :count], weight=weight)

    def weighted(self, weight: np.ndarray) -> Problems:
        """A copy of the problems for each of the weights (B, G, R): B G problems in that order."""
        copies = len(weight)
        return replace(
            self,
            log_loss=np.tile(self.log_loss, (copies, 1)),
            prior=self.prior.tiled(copies),
            noise=np.tile(self.noise, copies),
            weight=weight.reshape(-1, weight.shape[-1]),
        )


@dataclass(frozen=True)
class Solutions:
    """The end of each start: parameters (M, P), cost (M,), normal matrix (M, P, P)."""

    theta: np.ndarray
    cost: np.ndarray
    curvature: np.ndarray
    iterations: np.ndarray
    converged: np.ndarray

    def best_of(self, problems: int) -> Solutions:
        """The end of least cost of each problem, whose starts (as many for each) lie together."""
        cost = np.where(np.isnan(self.cost), np.inf, self.cost).reshape(problems, -1)
        pick = cost.argmin(1) + cost.shape[1] * np.arange(problems)
        return Solutions(*(value[pick] for value in vars(self).values()))


def solve(
    problems: Problems,
    group: np.ndarray,
    starts: np.ndarray,
    *,
    iterations: int = 100,
    tolerance: float = 1e-7,
) -> Solutions:
    """Minimise from each row of `starts` (M, P), whose problem is `group` (M,).

    The cost is `sum_r huber((log L_r - log y_r) / noise) + sum_p ((theta - mean) / sd)^2 / 2`. A
    member has converged once three steps in a row gain less than `tolerance` of its cost.
    """
    prior = problems.prior
    theta = np.clip(starts, prior.lower[group], prior.upper[group])
    members = len(theta)
    precision = prior.precision
    cost, gradient, matrix = _normal(problems, group, theta)
    damping, growth = np.full(members, 1.0), np.full(members, 2.0)
    stalled, refused, steps = (np.zeros(members, int) for _ in range(3))
    live = np.flatnonzero(np.isfinite(cost))
    for _ in range(iterations):
        if not len(live):
            break
        at, g, a = theta[live], gradient[live], matrix[live]
        who = group[live]
        low, high = prior.lower[who], prior.upper[who]
        held = (prior.sd[who] == 0) | ((at <= low) & (g > 0)) | ((at >= high) & (g < 0))
        step = _step(
            a,
            g,
            damping[live, None] * precision[who] + 1e-12,
            held,
            np.maximum(low - at, -LONGEST_STEP),
            np.minimum(high - at, LONGEST_STEP),
            problems.blocks,
        )
        new = np.clip(at + step, low, high)
        foreseen = -(g * step).sum(1) - 0.5 * (step * (a @ step[:, :, None])[:, :, 0]).sum(1)
        new_cost = _cost(problems, who, new)
        gain = cost[live] - new_cost
        good = np.isfinite(new_cost) & (gain > 0)
        quality = np.where(good, gain / np.maximum(foreseen, 1e-300), 0.0)
        shrink = np.maximum(1 / 3, 1 - (2 * np.clip(quality, 0, 1) - 1) ** 3)
        damping[live] = np.clip(damping[live] * np.where(good, shrink, growth[live]), 1e-10, 1e10)
        growth[live] = np.where(good, 2.0, np.minimum(growth[live] * 2, 64.0))
        small = gain < tolerance * (LEAST_COST + np.abs(cost[live]))
        # A refused step went too far: it says nothing of how much is left to gain.
        stalled[live] = np.where(good, np.where(small, stalled[live] + 1, 0), stalled[live])
        refused[live] = np.where(good, 0, refused[live] + 1)
        steps[live] += 1
        moved = live[good]
        if len(moved):
            theta[moved] = new[good]
            cost[moved], gradient[moved], matrix[moved] = _normal(problems, group[moved], new[good])
        live = live[(stalled[live] < 3) & (refused[live] < 6)]
    return Solutions(theta, cost, matrix, steps, (stalled >= 3) | (refused > 0))


def _step(
    matrix: np.ndarray,
    gradient: np.ndarray,
    extra: np.ndarray,
    held: np.ndarray,
    least: np.ndarray,
    most: np.ndarray,
    blocks: np.ndarray | None,
) -> np.ndarray:
    """The step (M, P) to the least of the damped quadratic model, `held` parameters staying.

    A parameter that would go beyond `least` or `most` (M, P) stops there, and the others are
    solved for again: cut off by itself, it would leave them a step that fits no more.
    """
    step, edge = np.zeros_like(gradient), np.zeros_like(gradient)
    stopped, some = held.copy(), np.arange(len(gradient))
    diagonal = np.arange(gradient.shape[1])
    for _ in range(EDGE_ROUNDS):
        stop, a = stopped[some], matrix if len(some) == len(matrix) else matrix[some]
        free = (~stop).astype(float)
        system = a * free[:, :, None]
        system *= free[:, None, :]
        system[:, diagonal, diagonal] = np.where(stop, 1.0, a[:, diagonal, diagonal] + extra[some])
        right = gradient[some]
        if edge[some].any():
            right = right + (a @ edge[some, :, None])[:, :, 0]
        found = -_solved(system, np.where(stop, -edge[some], right), blocks)
        step[some] = inside = np.clip(found, least[some], most[some])
        beyond = ~stop & (inside != found)
        edge[some] = np.where(beyond, inside, edge[some])
        stopped[some] |= beyond
        some = some[beyond.any(1)]
        if not len(some):
            break
    return step


def _solved(system: np.ndarray, right: np.ndarray, blocks: np.ndarray | None) -> np.ndarray:
    """system^-1 right (M, P); with many parameters by elimination of the blocks (Schur)."""
    if blocks is None or system.shape[1] < MANY_PARAMETERS:
        return np.linalg.solve(system, right[:, :, None])[:, :, 0]
    rest = np.setdiff1d(np.arange(system.shape[1]), blocks)
    inner = system[:, blocks[:, :, None], blocks[:, None]]  # (M, S, n, n)
    edge = system[:, blocks[:, :, None], rest]  # (M, S, n, Q)
    both = np.linalg.solve(inner, np.concatenate([edge, right[:, blocks][..., None]], axis=-1))
    edge = edge.reshape(len(system), -1, len(rest))
    cleared = both.reshape(len(system), edge.shape[1], -1)
    corner = np.concatenate([system[:, rest[:, None], rest], right[:, rest][..., None]], axis=-1)
    corner = corner - edge.transpose(0, 2, 1) @ cleared
    outer = np.linalg.solve(corner[..., :-1], corner[..., -1:])
    result = np.empty_like(right)
    result[:, rest] = outer[:, :, 0]
    result[:, blocks.ravel()] = (cleared[..., -1:] - cleared[..., :-1] @ outer)[:, :, 0]
    return result


def data_curvature(problems: Problems, group: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """The part of the normal matrix (M, P, P) that comes from the observations."""
    return _data_normal(problems, group, theta)[2]


def _from_prior(
    prior: Prior, group: np.ndarray, theta: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Precisions (M, P), and how far theta lies from the middle of its prior."""
    return prior.precision[group], theta - prior.mean[group]


def _cost(problems: Problems, group: np.ndarray, theta: np.ndarray) -> np.ndarray:
    precision, off = _from_prior(problems.prior, group, theta)
    cost = 0.5 * (precision * off**2).sum(1)
    for members, rows in _blocks(problems, theta, with_slopes=False):
        loss, _ = problems.evaluate(theta[members], group[members], rows, False)
        cost[members] += _huber(problems, group[members], loss, rows)[0].sum(1)
    return cost


def _normal(
    problems: Problems, group: np.ndarray, theta: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    cost, gradient, matrix = _data_normal(problems, group, theta)
    precision, off = _from_prior(problems.prior, group, theta)
    diagonal = np.arange(theta.shape[1])
    matrix[:, diagonal, diagonal] += precision
    return cost + 0.5 * (precision * off**2).sum(1), gradient + precision * off, matrix


def _data_normal(
    problems: Problems, group: np.ndarray, theta: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    members, size = theta.shape
    cost, gradient = np.zeros(members), np.zeros((members, size))
    matrix = np.zeros((members, size, size))
    for some, rows in _blocks(problems, theta, with_slopes=True):
        loss, slopes = problems.evaluate(theta[some], group[some], rows, True)
        assert slopes is not None
        value, pull, stiffness = _huber(problems, group[some], loss, rows)
        # Slopes are of L, residuals of log L.
        pull, stiffness = pull / loss, stiffness / loss**2
        cost[some] += value.sum(1)
        if isinstance(slopes, np.ndarray):
            gradient[some] += np.matmul(pull[:, None], slopes)[:, 0]
            # A product of a matrix with itself takes half the time.
            for into, half in zip(
                matrix[some], slopes * np.sqrt(stiffness)[:, :, None], strict=True
            ):
                into += half.T @ half
        else:
            g, a = slopes.normal(pull, stiffness)
            gradient[some] += g
            matrix[some] += a
    return cost, gradient, matrix


def _huber(
    problems: Problems, group: np.ndarray, loss: np.ndarray, rows: slice
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Value, derivative and weight of Huber's loss by log L, (M, r) each, 0 where unobserved."""
    noise = problems.noise[group][:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        error = (np.log(loss) - problems.log_loss[group][:, rows]) / noise
    count = np.where(np.isnan(problems.log_loss[group][:, rows]), 0.0, 1.0)
    if problems.weight is not None:
        count = count * problems.weight[group][:, rows]
    error = np.where(count > 0, error, 0.0)
    size = np.abs(error)
    bent = size > problems.huber
    stiffness = np.where(bent, problems.huber / np.maximum(size, 1e-300), 1.0)
    value = np.where(bent, problems.huber * (size - 0.5 * problems.huber), 0.5 * error**2)
    return count * value, count * stiffness * error / noise, count * stiffness / noise**2


def _blocks(problems: Problems, theta: np.ndarray, with_slopes: bool) -> list[tuple[slice, slice]]:
    """Pairs of (members, rows) whose arrays stay below JACOBIAN_NUMBERS numbers."""
    members, size = theta.shape
    rows = problems.log_loss.shape[1]
    size = problems.width or size
    width = size if with_slopes else max(size // 3, 1)
    fitting = min(rows, JACOBIAN_NUMBERS // max(width, 1))
    row_step = max(problems.run, fitting // problems.run * problems.run)
    member_step = max(1, JACOBIAN_NUMBERS // (width * row_step))
    return [
        (slice(m, min(m + member_step, members)), slice(r, min(r + row_step, rows)))
        for m in range(0, members, member_step)
        for r in range(0, rows, row_step)
    ]
