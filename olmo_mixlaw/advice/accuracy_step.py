"""From a task's loss to its accuracy: one sigmoid a task, the same prior for all of them.

    accuracy = lo + (hi - lo) sigma(kappa (xi - loss / least))

`least` is the least loss that was seen, so that kappa and xi have no unit: one prior fits bits a
byte and nats an answer, a task barely above chance and one half learnt. `lo` may lie a little off
the chance floor: answers ranked by likelihood start below it or above.

A measured loss is not what a run can do. Evaluated on a few hundred answers it is off, and a
sigmoid over it comes out too flat. So accuracy is read from `expected + r (measured - expected)`,
expected being what the law says of the run's size and budget, and r is fitted: near 1 where a
run's own deviation shows in its score, 0 where it is noise (regression calibration: Carroll et
al. 2006, chapter 4).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from olmo_mixlaw.advice.curve import TOP_PRIOR, sigmoid_curve
from olmo_mixlaw.laws.engine.search import learn_noise
from olmo_mixlaw.laws.engine.solver import Prior, Problems, solve

# Middles and spreads of log kappa, xi, the logit of (hi - lo) / (1 - lo), lo less the floor, and
# the logit of r. 36 curves of tasks with a choice of answers, fitted one by one with wide priors to
# OLMo's ladder, Gemstones, DCLM's corpora and the models of arXiv 2502.12120, have log kappa 1.7 +-
# .65 and xi .92 +- .22. With a narrower kappa, held-out larger sizes of the first two are foreseen
# better: over 12 splits their mean error is 4.2 %, against 4.8 with a spread of .65.
PRIOR = (
    np.array([np.log(5.0), 0.9, TOP_PRIOR[0], 0.0, 0.0]),
    np.array([0.4, 0.22, TOP_PRIOR[1], 0.03, 1.5]),
)
# How far parameters may go from the middles; `lo` at least 0 all the same.
REACH = np.array([4.0, 3.0, 3.0, 0.1, 8.0])
# An accuracy counts as at least this much: its logarithm must stay finite.
LEAST_ACCURACY = 1e-6
# Residual noise of log accuracy that a fit starts from, and its rounds.
FIRST_NOISE = 0.05
ROUNDS, STEPS, TOLERANCE = 4, 60, 1e-5
WARM_STEPS = 30


@dataclass(frozen=True)
class Rows:
    """What curves are fitted to: T tasks, r rows, NaN-padded at their ends.

    `loss`, `accuracy` and `weight` are (T, r); `run` (T, r) is the number of the run and `scale`
    (T, r) that of its size and budget among `scales` (S, 2).
    """

    loss: np.ndarray
    accuracy: np.ndarray
    weight: np.ndarray
    run: np.ndarray
    scale: np.ndarray
    scales: np.ndarray

    def expected(self, losses: np.ndarray) -> np.ndarray:
        """A law's losses (S, T) at the scales, a number a row (T, r)."""
        return np.take_along_axis(losses.T, self.scale, axis=1)


@dataclass(frozen=True)
class Curves:
    """The fitted curves of T tasks.

    `theta` (T, 5) are log kappa, xi, the logit of (hi - lo) / (1 - lo), lo less the chance floor,
    and the logit of r; `noise` (T,) is the residual standard deviation of log accuracy.
    """

    theta: np.ndarray
    noise: np.ndarray
    floors: np.ndarray
    least: np.ndarray

    @property
    def low(self) -> np.ndarray:
        """Accuracy (T,) at an endless loss."""
        return np.asarray(self.floors + self.theta[:, 3])

    def accuracy(self, loss: np.ndarray) -> np.ndarray:
        """Accuracies (R, T) at losses (R, T) that are a law's, or known without error."""
        loss = loss.T
        return _accuracy(self.theta, self.floors, self.least, loss, loss)[0].T


def fit_curves(
    rows: Rows, expected: np.ndarray, floors: np.ndarray, huber: float, warm: Curves | None = None
) -> Curves:
    """The curves, maximum a posteriori with Huber's loss of log accuracy and its noise learnt.

    `expected` (T, r) are a law's losses of the rows; errors beyond `huber` times the noise count
    by their size. From `warm`, whose noise is kept, a refit takes a few steps.
    """
    tasks = len(floors)
    least = np.nanmin(rows.loss, axis=1) if warm is None else warm.least
    middle, spread = (np.tile(x, (tasks, 1)) for x in PRIOR)
    lower, upper = middle - REACH, middle + REACH
    lower[:, 3] = np.maximum(lower[:, 3], -floors)
    loss, expected = np.nan_to_num(rows.loss), np.nan_to_num(expected)

    def evaluate(theta: np.ndarray, group: np.ndarray, some: slice, jacobian: bool) -> Any:
        value, slopes = _accuracy(
            theta, floors[group], least[group], loss[group][:, some], expected[group][:, some]
        )
        return value, slopes if jacobian else None

    problems = Problems(
        evaluate=evaluate,
        log_loss=np.log(rows.accuracy),
        prior=Prior(middle, spread, lower, upper),
        noise=np.full(tasks, FIRST_NOISE) if warm is None else warm.noise,
        huber=huber,
        weight=rows.weight,
    )
    who = np.arange(tasks)
    if warm is not None:
        found = solve(problems, who, warm.theta, iterations=WARM_STEPS, tolerance=TOLERANCE)
        return replace(warm, theta=found.theta)
    theta = middle
    for _ in range(ROUNDS):
        theta = solve(problems, who, theta, iterations=STEPS, tolerance=TOLERANCE).theta
        problems = replace(problems, noise=learn_noise(problems, theta))
    return Curves(theta, problems.noise, floors, least)


def _accuracy(
    theta: np.ndarray, floors: np.ndarray, least: np.ndarray, loss: np.ndarray, expected: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Accuracies (M, r) and slopes (M, r, 5) for theta (M, 5), floors and least losses (M,), and
    losses measured and expected (M, r)."""
    log_kappa, xi, top, off, trust = (theta[:, i : i + 1] for i in range(5))
    low, least = floors[:, None] + off, least[:, None]
    r, own = 1 / (1 + np.exp(-trust)), loss - expected
    value, by_level, of_curve = sigmoid_curve(log_kappa, xi, top, low, (expected + r * own) / least)
    by_low = (1 - value) / (1 - low)
    by_trust = by_level / least * own * r * (1 - r)
    slopes = np.concatenate([of_curve, by_low[..., None], by_trust[..., None]], axis=-1)
    return np.maximum(value, LEAST_ACCURACY), slopes
