"""Other methods that go from small runs to a benchmark score, each written from its paper.

`ladder` (Bhagia et al. 2024, arXiv 2412.04403): L = E + A N^-a + B D^-b on the ends of runs, then
accuracy = b + a sigma(-k (L - L0)) on their checkpoints. `direct` (Krajewski et al. 2025, arXiv
2512.08894): -log Q = A N^-a + B D^-b, Q the way from chance to 1. Both a task at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pandas as pd
from scipy.optimize import least_squares, minimize

# Ladder: the last checkpoints whose mean is a run's end, and which of them step 2 leaves out.
WINDOW, SKIPPED = 5, 0.1
# Huber's bend on residuals of log loss, and starts (log A, log B, a, b; log E is that of the
# middle loss less a half), a few of those of Hoffmann et al. 2022 (arXiv 2203.15556), D.3.
BEND = 1e-3
STARTS = ((0.0, 4.0), (0.0,), (0.4,))
LENGTH = {"maxiter": 200}
# Of the direct law: accuracies this near chance have no steady logarithm and are left out.
LEAST_WAY = 0.02


def ladder(frame: pd.DataFrame, query: pd.DataFrame, loss: str, smooth: bool) -> pd.DataFrame:
    """Columns `loss` and accuracy of the rows asked for, by the ladder authors' two steps.

    `smooth` says that rows of one run are checkpoints of a decaying learning rate, to be averaged;
    otherwise each counts as a run of its own.
    """
    found = pd.DataFrame(np.nan, query.index, [loss, "accuracy"])
    for _, rows, asked in _by_task(frame, query):
        rows = rows.sort_values(["run_id", "D"])
        ends = _ends(rows, loss) if smooth else rows[["N", "D", loss]]
        step1 = fit_loss(*ends[["N", "D", loss]].to_numpy(float).T)
        step2 = fit_sigmoid(*_checkpoints(rows, loss, smooth))
        at = loss_at(step1, *asked[["N", "D"]].to_numpy(float).T)
        found.loc[asked.index] = np.c_[at, np.minimum(sigmoid(step2, at), 1.0)]
    return found


def direct(
    frame: pd.DataFrame, query: pd.DataFrame, chance: dict[str, float], smooth: bool
) -> pd.Series:
    """Accuracy of the rows asked for straight from N and D; NaN where all runs are at chance."""
    found = pd.Series(np.nan, query.index)
    for task, rows, asked in _by_task(frame, query):
        ends = _ends(rows.sort_values(["run_id", "D"]), "accuracy") if smooth else rows
        n, d, accuracy = ends[["N", "D", "accuracy"]].to_numpy(float).T
        way = (accuracy - chance[task]) / (1 - chance[task])
        seen = way > LEAST_WAY
        if len(np.unique(n[seen])) < 2:
            continue
        theta = fit_loss(n[seen], d[seen], -np.log(way[seen]), floor=False)
        minus_log = loss_at(theta, *asked[["N", "D"]].to_numpy(float).T)
        found[asked.index] = chance[task] + (1 - chance[task]) * np.exp(-minus_log)
    return found


def fit_loss(n: np.ndarray, d: np.ndarray, loss: np.ndarray, floor: bool = True) -> np.ndarray:
    """(log A, log B, a, b, log E) of E + A N^-a + B D^-b, N and D over their middles.

    Huber's loss of log residuals, the best end of a grid of starts; log E is -inf without `floor`.
    The last two numbers are the logs of the middles.
    """
    middle = np.log(np.stack([n, d])).mean(1)
    log_n, log_d = np.log(np.stack([n, d])) - middle[:, None]
    log_loss, least = np.log(loss), float(np.log(np.median(loss)))

    def cost(theta: np.ndarray) -> tuple[float, np.ndarray]:
        parts = np.stack(
            [
                theta[0] - theta[2] * log_n,
                theta[1] - theta[3] * log_d,
                np.full_like(log_n, theta[4] if floor else -50.0),
            ]
        )
        total = np.logaddexp.reduce(parts)
        off = total - log_loss
        bent = np.abs(off) > BEND
        value = np.where(bent, BEND * (np.abs(off) - BEND / 2), off**2 / 2).sum()
        share = np.exp(parts - total) * np.clip(off, -BEND, BEND)
        by = np.array([*share[:2].sum(1), *-(share[:2] * [log_n, log_d]).sum(1), share[2].sum()])
        return float(value) * 1e3, by * (1.0 if floor else [1, 1, 1, 1, 0]) * 1e3

    starts = [np.array([least - 1 - a / 4, least - 1 - b / 4, c, c, least - 0.5])
              for a, b, c in product(*STARTS)]  # fmt: skip
    bounds = [(None, None), (None, None), (0, None), (0, None), (None, None)]
    ends = (
        minimize(cost, s, jac=True, method="L-BFGS-B", bounds=bounds, options=LENGTH)
        for s in starts
    )
    return np.r_[min(ends, key=lambda end: float(end.fun)).x, middle, float(floor)]


def loss_at(theta: np.ndarray, n: np.ndarray, d: np.ndarray) -> np.ndarray:
    """The law that `fit_loss` gives, at sizes and budgets (R,)."""
    log_n, log_d = np.log(n) - theta[5], np.log(d) - theta[6]
    powers = np.exp(theta[0] - theta[2] * log_n) + np.exp(theta[1] - theta[3] * log_d)
    return np.asarray(powers + theta[7] * np.exp(theta[4]))


def fit_sigmoid(loss: np.ndarray, accuracy: np.ndarray) -> np.ndarray:
    """(a, k, L0, b) of b + a sigma(-k (L - L0)) by least squares, all four free."""
    low, high = float(accuracy.min()), float(accuracy.max())
    width = max(float(loss.std()), 1e-3)
    starts = [
        np.array([high - low + 0.1, 0.5 / width, np.median(loss), low]),
        np.array([0.7, 1.0 / width, np.median(loss) - width, low]),
    ]
    bounds = ([0, 1e-3, -np.inf, 0], [1, np.inf, np.inf, 1])

    def slopes(theta: np.ndarray) -> np.ndarray:
        a, k, middle, _ = theta
        s = 1 / (1 + np.exp(np.clip(k * (loss - middle), -60, 60)))
        bend = a * s * (1 - s)
        return np.c_[s, bend * (middle - loss), bend * k, np.ones_like(s)]

    def errors(theta: np.ndarray) -> np.ndarray:
        return sigmoid(theta, loss) - accuracy

    ends = (
        least_squares(errors, s, slopes, bounds=bounds, x_scale="jac", max_nfev=100) for s in starts
    )
    return np.asarray(min(ends, key=lambda end: float(end.cost)).x)


def sigmoid(theta: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """Accuracy at losses (R,)."""
    a, k, middle, b = theta
    return np.asarray(b + a / (1 + np.exp(np.clip(k * (loss - middle), -60, 60))))


def _by_task(
    frame: pd.DataFrame, query: pd.DataFrame
) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    for task, asked in query.groupby("task"):
        yield str(task), frame[frame["task"] == task], asked


def _ends(rows: pd.DataFrame, value: str) -> pd.DataFrame:
    """N, D and the mean of the last checkpoints of each run."""
    runs = rows.groupby("run_id")
    ends = runs[["N", "D"]].max()
    return ends.assign(**{value: runs[value].apply(lambda run: run.tail(WINDOW).mean())})


def _checkpoints(rows: pd.DataFrame, loss: str, smooth: bool) -> tuple[np.ndarray, np.ndarray]:
    """Losses and accuracies of step 2: smoothed, without the first of each run."""
    if not smooth:
        return rows[loss].to_numpy(float), rows["accuracy"].to_numpy(float)
    parts = []
    for _, run in rows.groupby("run_id"):
        first = int(np.ceil(SKIPPED * len(run)))
        parts.append(run[[loss, "accuracy"]].rolling(WINDOW, min_periods=1).mean().iloc[first:])
    return tuple(pd.concat(parts).to_numpy(float).T)  # type: ignore[return-value]
