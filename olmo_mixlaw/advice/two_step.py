"""From (N, D) to a benchmark score in two steps: task loss first, then accuracy from that loss.

    loss = E + A N^-alpha + B D^-beta           accuracy = lo + (hi - lo) sigma(-k (loss - x0))

Bhagia et al. 2024 (arXiv 2412.04403), with the chance floor `lo` fixed. Runs nearer the target
count more: both forms are approximations, and a small early checkpoint says little of a 7B model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from olmo_mixlaw.advice.curve import TOP_PRIOR, chance_floors, highest, sigmoid_curve
from olmo_mixlaw.errors import DataError, FitError
from olmo_mixlaw.laws.engine.search import learn_noise
from olmo_mixlaw.laws.engine.solver import Prior, Problems, solve
from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.laws.formulas.no_mixture import NoMixture
from olmo_mixlaw.laws.law import Settings
from olmo_mixlaw.runs import Design

# Step 1, without a mixture.
LOSSES = NoMixture()
COLUMNS = ["run_id", "N", "D", "task", "bpb", "accuracy"]
# An accuracy counts as at least this much: its logarithm must stay finite.
LEAST_ACCURACY = 1e-6
STEP2_ROUNDS = 4


@dataclass(frozen=True)
class TwoStepOptions:
    """What the two steps read of a table with checkpoints, chosen on the ladder's own 1.3B runs.

    Step 1 takes the mean of a run's last `window` checkpoints; step 2 takes the checkpoints after
    the first `skip` of each run, smoothed over `window`. A row counts (N D)^`focus`. `huber` is
    in units of the residual noise.
    """

    window: int = 5
    skip: float = 0.8
    focus: float = 1.0
    huber: float = 2.0


@dataclass(frozen=True)
class TwoStep:
    """The fitted chain for T tasks: `step1` is a Fit of task losses, `theta` (T, 3) is step 2.

    `theta` holds log k, x0 and the logit of (hi - lo) / (1 - lo); `noise` (T,) is the residual
    standard deviation of log accuracy. `unlearnt` names tasks that no run scores above chance.
    """

    tasks: list[str]
    floors: np.ndarray
    step1: Fit
    theta: np.ndarray
    noise: np.ndarray
    options: TwoStepOptions
    unlearnt: list[str] = field(default_factory=list)

    def task_loss(self, n_params: Any, n_tokens: Any) -> np.ndarray:
        """Task losses (R, T), in the table's unit (bits a byte), for sizes and budgets (R,)."""
        n_params, n_tokens = np.broadcast_arrays(np.atleast_1d(n_params), np.atleast_1d(n_tokens))
        return self.step1.predict(np.ones((len(n_params), 1)), n_params, n_tokens)

    def accuracy(self, loss: np.ndarray) -> np.ndarray:
        """Accuracy (R, T) at task losses (R, T)."""
        return _accuracy(self.theta, self.floors, loss.T)[0].T

    def predict(self, n_params: Any, n_tokens: Any) -> tuple[np.ndarray, np.ndarray]:
        """Task loss and chained accuracy, (R, T) each."""
        loss = self.task_loss(n_params, n_tokens)
        return loss, self.accuracy(loss)

    def parameters(self) -> pd.DataFrame:
        """Step 2's k, x0 and asymptotes, a row a task; step 1's are `step1.parameters`."""
        return pd.DataFrame(
            {
                "task": self.tasks,
                "k": np.exp(self.theta[:, 0]),
                "x0": self.theta[:, 1],
                "lo": self.floors,
                "hi": highest(self.theta[:, 2], self.floors),
                "noise": self.noise,
            }
        )


@dataclass(frozen=True)
class _Rows:
    """Step 2's rows: smoothed losses and accuracies (T, r), NaN-padded, weights and run numbers."""

    loss: np.ndarray
    accuracy: np.ndarray
    weight: np.ndarray
    run: np.ndarray


def fit_two_step(
    frame: pd.DataFrame,
    options: TwoStepOptions | None = None,
    *,
    seed: int = 0,
    chance: Mapping[str, float] | None = None,
) -> TwoStep:
    """Fit both steps to a frame with columns run_id, N, D, task, bpb, accuracy.

    Rows of one run at several D are its checkpoints. `chance` maps the start of a task's name to
    its floor. Raises `DataError` for a missing column or a value that is no number, `FitError`
    for fewer than two sizes or budgets.
    """
    return fit_with_replicates(frame, options, seed=seed, chance=chance, replicates=0)[0]


def fit_with_replicates(
    frame: pd.DataFrame,
    options: TwoStepOptions | None = None,
    *,
    seed: int = 0,
    chance: Mapping[str, float] | None = None,
    replicates: int = 100,
) -> tuple[TwoStep, list[TwoStep]]:
    """`fit_two_step` and refits to resampled runs, each warm-started, for intervals.

    Runs are drawn with replacement, all checkpoints of a run together.
    """
    options = options or TwoStepOptions()
    frame = checked_tasks(frame)
    tasks = list(dict.fromkeys(frame["task"]))
    floors = chance_floors(tasks, chance)
    design = final_design(frame, tasks, options.window)
    rows = _step2_rows(frame, tasks, design.run_ids, options)
    focus = _focus(design.n_params * design.n_tokens, options)
    step1 = _fit_losses(design, focus, options, seed)
    theta, noise = _fit_accuracy(rows, floors, options, None)
    best = np.nanmax(rows.accuracy, axis=1)
    unlearnt = [t for t, b, lo in zip(tasks, best, floors, strict=True) if b < lo + 0.02]
    whole = TwoStep(tasks, floors, step1, theta, noise, options, unlearnt)
    rng = np.random.default_rng(seed)
    others = []
    for _ in range(replicates):
        drawn = np.bincount(rng.integers(len(design), size=len(design)), minlength=len(design))
        counts = (focus * drawn)[None]
        [losses] = LOSSES.refits(step1, design, counts, iterations=30, tolerance=1e-5)
        again = replace(rows, weight=rows.weight * drawn[rows.run])
        theta, noise = _fit_accuracy(again, floors, options, whole)
        others.append(replace(whole, step1=losses, theta=theta, noise=noise))
    return whole, others


def checked_tasks(frame: pd.DataFrame, where: str = "the table of tasks") -> pd.DataFrame:
    """The frame, sorted by task, run and tokens. Raises `DataError` naming line and column."""
    for column in COLUMNS:
        if column not in frame:
            raise DataError(
                f"{where}: column {column!r} is missing (found: {', '.join(map(str, frame))})"
            )
    frame = frame.reset_index(drop=True)
    values = {c: pd.to_numeric(frame[c], errors="coerce") for c in ("N", "D", "bpb", "accuracy")}
    for column, found in values.items():
        _refuse(frame, ~np.isfinite(found), column, "is not a number", where)
        if column == "accuracy":
            said = "is not a share of 1 (0 to 1); divide percent by 100"
            _refuse(frame, (found < 0) | (found > 1), column, said, where)
        else:
            _refuse(frame, found <= 0, column, "must be more than 0", where)
    frame = frame.assign(**values)
    twice = frame.duplicated(["task", "run_id", "D"])
    _refuse(frame, twice, "D", "stands twice for this run and task", where)
    sizes = frame.groupby("run_id")["N"].transform("first")
    _refuse(frame, frame["N"] != sizes, "N", "is not the size of this run's first line", where)
    return frame.sort_values(["task", "run_id", "D"], kind="stable")


def _refuse(frame: pd.DataFrame, bad: pd.Series, column: str, said: str, where: str) -> None:
    """Raises `DataError` for the first of the `bad` lines, counted as in a file with a header."""
    if bad.any():
        row = int(np.argmax(bad))
        value = frame[column].iloc[row]
        value = value.item() if isinstance(value, np.generic) else value
        raise DataError(f"{where}: line {row + 2}, column {column!r}: {value!r} {said}")


def final_design(frame: pd.DataFrame, tasks: list[str], window: int) -> Design:
    """Each run's task losses, the mean of its last checkpoints, as a design without a mixture."""
    last = frame.groupby(["task", "run_id"], sort=False).tail(window)
    loss = last.groupby(["run_id", "task"])["bpb"].mean().unstack()[tasks]
    ends = frame.groupby("run_id")[["N", "D"]].max().loc[loss.index]
    n = ends["N"].to_numpy(float)
    return Design(
        [str(r) for r in loss.index],
        ["all"],
        tasks,
        np.ones((len(loss), 1)),
        n,
        n,
        ends["D"].to_numpy(float),
        loss.to_numpy(float),
    )


def _focus(compute: np.ndarray, options: TwoStepOptions) -> np.ndarray:
    return (compute / np.nanmax(compute)) ** options.focus


def _fit_losses(design: Design, focus: np.ndarray, options: TwoStepOptions, seed: int) -> Fit:
    sizes, budgets = (len(np.unique(v)) for v in (design.n_params, design.n_tokens))
    if sizes < 2 or budgets < 2:
        raise FitError(
            f"the two-step law needs two sizes and two budgets; the table has {sizes} sizes and "
            f"{budgets} budgets"
        )
    settings = Settings(huber=options.huber)
    return LOSSES.fit(design, seed=seed, settings=settings, weight=focus)


def _step2_rows(
    frame: pd.DataFrame, tasks: list[str], run_names: list[str], options: TwoStepOptions
) -> _Rows:
    number = {name: i for i, name in enumerate(run_names)}
    columns = []
    for task in tasks:
        parts = []
        for name, run in frame[frame["task"] == task].groupby("run_id", sort=False):
            first = min(int(np.ceil(options.skip * len(run))), len(run) - 1)
            smooth = run[["bpb", "accuracy"]].rolling(options.window, min_periods=1).mean()
            compute = run["N"].to_numpy(float) * run["D"].to_numpy(float)
            which = np.full(len(run), number[str(name)])
            parts.append(np.c_[smooth.to_numpy(), compute, which][first:])
        columns.append(np.concatenate(parts))
    table = np.full((4, len(tasks), max(len(c) for c in columns)), np.nan)
    for i, values in enumerate(columns):
        table[:, i, : len(values)] = values.T
    loss, accuracy, compute, which = table
    accuracy = np.where(accuracy > 0, accuracy, np.nan)
    weight = np.nan_to_num(_focus(compute, options))
    return _Rows(loss, accuracy, weight, np.nan_to_num(which).astype(int))


def _fit_accuracy(
    rows: _Rows, floors: np.ndarray, options: TwoStepOptions, warm: TwoStep | None
) -> tuple[np.ndarray, np.ndarray]:
    """Step 2: theta (T, 3) and the noise of log accuracy (T,).

    The prior of k times the spread of losses, a shape without a unit, is learnt from all tasks.
    """
    tasks = len(rows.loss)
    width = np.maximum(np.nanstd(rows.loss, 1), 1e-3)
    start = np.nanmedian(rows.loss, 1) - width
    mean = np.c_[np.log(1.5 / width), start, np.full(tasks, TOP_PRIOR[0])]
    sd = np.c_[np.ones(tasks), 2 * width, np.full(tasks, TOP_PRIOR[1])]
    reach = np.c_[np.full(tasks, 5.0), 30 * width, np.full(tasks, 3.0)]

    def evaluate(theta: np.ndarray, group: np.ndarray, some: slice, jacobian: bool) -> Any:
        loss = np.nan_to_num(rows.loss[group][:, some])
        value, slopes = _accuracy(theta, floors[group], loss)
        return value, slopes if jacobian else None

    noise = np.full(tasks, 0.05) if warm is None else warm.noise
    theta = mean if warm is None else warm.theta
    problems = Problems(
        evaluate=evaluate,
        log_loss=np.log(rows.accuracy),
        prior=Prior(mean, sd, mean - reach, mean + reach),
        noise=noise,
        huber=options.huber,
        weight=rows.weight,
    )
    for step in range(STEP2_ROUNDS if warm is None else 2):
        found = solve(problems, np.arange(tasks), theta, iterations=100 if warm is None else 30)
        theta = found.theta
        if warm is None:
            problems = replace(problems, noise=learn_noise(problems, theta))
        if step == (1 if warm is None else 0):
            errors = np.sqrt(np.diagonal(np.linalg.inv(found.curvature), axis1=1, axis2=2))
            middle, spread = shared_prior(theta[:, 0] + np.log(width), errors[:, 0])
            mean = np.c_[middle - np.log(width), mean[:, 1:]]
            sd = np.c_[np.full(tasks, spread), sd[:, 1:]]
            problems = replace(problems, prior=replace(problems.prior, mean=mean, sd=sd))
    return theta, problems.noise


def shared_prior(values: np.ndarray, errors: np.ndarray, least: float = 0.1) -> tuple[float, float]:
    """Mean and spread of a parameter over tasks, the part due to the fits' errors taken off.

    The moment estimator of a random-effects model; the spread is at least `least`.
    """
    weight = 1 / (errors**2 + max(float(np.var(values)), least**2))
    spread = np.sqrt(max(float(np.var(values) - np.mean(errors**2)), least**2))
    return float((weight * values).sum() / weight.sum()), float(spread)


def _accuracy(theta: np.ndarray, floors: np.ndarray, loss: np.ndarray) -> tuple[np.ndarray, ...]:
    """Accuracy (M, r) and slopes (M, r, 3) for theta (M, 3), floors (M,) and losses (M, r)."""
    log_k, x0, top = (theta[:, i : i + 1] for i in range(3))
    value, _, slopes = sigmoid_curve(log_k, x0, top, floors[:, None], loss)
    return np.maximum(value, LEAST_ACCURACY), slopes
