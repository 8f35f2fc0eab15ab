"""From (N, D) to a benchmark score in two steps: task loss first, then accuracy from that loss.

    loss = E + A N^-alpha + B D^-beta           accuracy = lo + (hi - lo) sigma(-k (loss - x0))

Bhagia et al. 2024 (arXiv 2412.04403); the second step is `accuracy_step`. Runs nearer the target
count more: both forms are approximations, and a small early checkpoint says little of a 7B model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from olmo_mixlaw.advice.accuracy_step import Curves, Rows, fit_curves
from olmo_mixlaw.advice.curve import chance_floors, highest
from olmo_mixlaw.errors import DataError, FitError
from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.laws.formulas.no_mixture import NoMixture
from olmo_mixlaw.laws.law import Settings
from olmo_mixlaw.runs import Design

# Step 1, without a mixture.
LOSSES = NoMixture()
COLUMNS = ["run_id", "N", "D", "task", "bpb", "accuracy"]
# A task whose best score is no more than this above chance is not learnt.
LEAST_LEARNT = 0.02


@dataclass(frozen=True)
class TwoStepOptions:
    """What the two steps read of a table with checkpoints, chosen on held-out sizes.

    Step 1 takes the mean of a run's last `window` checkpoints; step 2 takes the checkpoints after
    the first `skip` of each run, smoothed over `window`. A row counts (N D)^`focus`. `huber` and
    `score_huber` are where errors of losses and of scores bend, in units of the residual noise.
    """

    window: int = 5
    skip: float = 0.95
    focus: float = 1.0
    huber: float = 2.0
    score_huber: float = 3.0


@dataclass(frozen=True)
class TwoStep:
    """The fitted chain for T tasks: `step1` is a Fit of task losses, `curves` are step 2.

    `floors` (T,) are what guessing scores; `unlearnt` names tasks that no run scores above it.
    """

    tasks: list[str]
    floors: np.ndarray
    step1: Fit
    curves: Curves
    options: TwoStepOptions
    unlearnt: list[str] = field(default_factory=list)

    @property
    def noise(self) -> np.ndarray:
        """The residual standard deviation of log accuracy (T,)."""
        return self.curves.noise

    def task_loss(self, n_params: Any, n_tokens: Any) -> np.ndarray:
        """Task losses (R, T), in the table's unit (bits a byte), for sizes and budgets (R,)."""
        n_params, n_tokens = np.broadcast_arrays(np.atleast_1d(n_params), np.atleast_1d(n_tokens))
        return self.step1.predict(np.ones((len(n_params), 1)), n_params, n_tokens)

    def accuracy(self, loss: np.ndarray) -> np.ndarray:
        """Accuracy (R, T) at task losses (R, T)."""
        return self.curves.accuracy(loss)

    def predict(self, n_params: Any, n_tokens: Any) -> tuple[np.ndarray, np.ndarray]:
        """Task loss and chained accuracy, (R, T) each."""
        loss = self.task_loss(n_params, n_tokens)
        return loss, self.accuracy(loss)

    def parameters(self) -> pd.DataFrame:
        """Step 2's k, x0, chance, asymptotes and r, a row a task; step 1's are `step1.parameters`.

        r is how much of a run's own deviation from the law's loss shows in its score.
        """
        theta, least = self.curves.theta, self.curves.least
        return pd.DataFrame(
            {
                "task": self.tasks,
                "k": np.exp(theta[:, 0]) / least,
                "x0": theta[:, 1] * least,
                "chance": self.floors,
                "lo": self.curves.low,
                "hi": highest(theta[:, 2], self.curves.low),
                "r": 1 / (1 + np.exp(-theta[:, 4])),
                "noise": self.noise,
            }
        )


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

    Runs are drawn with replacement, all checkpoints of a run together; where a column `cluster`
    says that rows which count as runs are checkpoints of one model, all of that model together.
    """
    options = options or TwoStepOptions()
    frame = checked_tasks(frame)
    tasks = list(dict.fromkeys(frame["task"]))
    floors = chance_floors(tasks, chance)
    design = final_design(frame, tasks, options.window)
    rows = _step2_rows(frame, tasks, design.run_ids, options)
    focus = _focus(design.n_params * design.n_tokens, options)
    step1 = _fit_losses(design, focus, options, seed)
    curves = fit_curves(rows, _expected(step1, rows), floors, options.score_huber)
    best = np.nanmax(rows.accuracy, axis=1)
    unlearnt = [t for t, b, lo in zip(tasks, best, floors, strict=True) if b < lo + LEAST_LEARNT]
    whole = TwoStep(tasks, floors, step1, curves, options, unlearnt)
    rng = np.random.default_rng(seed)
    cluster = _clusters(frame, design.run_ids)
    count, others = int(cluster.max()) + 1, []
    for _ in range(replicates):
        drawn = np.bincount(rng.integers(count, size=count), minlength=count)[cluster]
        counts = (focus * drawn)[None]
        [losses] = LOSSES.refits(step1, design, counts, iterations=30, tolerance=1e-5)
        again = replace(rows, weight=rows.weight * drawn[rows.run])
        bent = fit_curves(again, _expected(losses, rows), floors, options.score_huber, curves)
        others.append(replace(whole, step1=losses, curves=bent))
    return whole, others


def _clusters(frame: pd.DataFrame, run_ids: list[str]) -> np.ndarray:
    """The number of each run's cluster (R,)."""
    if "cluster" not in frame:
        return np.arange(len(run_ids))
    names = frame.astype({"run_id": str}).groupby("run_id")["cluster"].first()
    return np.unique(names.loc[run_ids].astype(str), return_inverse=True)[1]


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


def _expected(step1: Fit, rows: Rows) -> np.ndarray:
    """What the first step says of step 2's rows (T, r)."""
    n, d = rows.scales.T
    return rows.expected(step1.predict(np.ones((len(n), 1)), n, d))


def _step2_rows(
    frame: pd.DataFrame, tasks: list[str], run_names: list[str], options: TwoStepOptions
) -> Rows:
    """The smoothed checkpoints of step 2."""
    number = {name: i for i, name in enumerate(run_names)}
    runs = frame.groupby(["task", "run_id"], sort=False)
    smooth = runs[["bpb", "accuracy"]].rolling(options.window, min_periods=1).mean()
    size = runs["D"].transform("size")
    first = np.minimum(np.ceil(options.skip * size), size - 1)
    rows = frame.assign(**smooth.droplevel([0, 1]), run=frame["run_id"].astype(str).map(number))[
        runs.cumcount() >= first
    ]
    scales, at = np.unique(rows[["N", "D"]].to_numpy(float), axis=0, return_inverse=True)
    rows = rows.assign(
        place=rows.groupby("task").cumcount(),
        at=at.ravel(),
        compute=rows["N"].astype(float) * rows["D"],
    )

    def wide(column: str) -> np.ndarray:
        return rows.pivot(index="task", columns="place", values=column).loc[tasks].to_numpy(float)

    accuracy = wide("accuracy")
    return Rows(
        loss=wide("bpb"),
        accuracy=np.where(accuracy > 0, accuracy, np.nan),
        weight=np.nan_to_num(_focus(wide("compute"), options)),
        run=np.nan_to_num(wide("run")).astype(int),
        scale=np.nan_to_num(wide("at")).astype(int),
        scales=scales,
    )
