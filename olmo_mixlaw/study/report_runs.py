"""The runs' part of the report: each with its curve and its scores, and what they have cost."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd

from olmo_mixlaw.models.ladder import short as size_label
from olmo_mixlaw.report import page
from olmo_mixlaw.report.svg import sparkline
from olmo_mixlaw.runs import RunTable
from olmo_mixlaw.runs.units import label as label_of
from olmo_mixlaw.study.failures import DONE, FAILED
from olmo_mixlaw.study.paces import seconds_by
from olmo_mixlaw.study.plan import Run
from olmo_mixlaw.study.worker import CHECKPOINTS

METRICS = "metrics.csv"
CURVE = 24  # points of a run's curve


@dataclass(frozen=True)
class Left:
    """What a run left behind: its last step, a thinned curve of training loss, and seconds."""

    step: int = 0
    curve: tuple[float, ...] = ()
    train: float = np.nan
    evaluate: float = np.nan
    metrics: Path | None = None


def left_by(folder: Path) -> Left:
    """What the run in `folder` has left so far; nothing is known of a file that can't be read."""
    train, evaluate = seconds_by(folder / DONE) or (np.nan, np.nan)
    path = folder / CHECKPOINTS / METRICS
    try:
        step, curve = _curve(path)
    except (OSError, ValueError, IndexError, StopIteration):
        return Left(train=train, evaluate=evaluate)
    return Left(step, curve, train, evaluate, path)


def _curve(path: Path) -> tuple[int, tuple[float, ...]]:
    """The last step of a metrics file, and its training losses at up to `CURVE` steps."""
    lines = path.read_text(encoding="utf-8").splitlines()
    header = next(csv.reader(lines[:1]))
    step, loss = header.index("step"), header.index("loss")
    few = np.unique(np.linspace(1, len(lines) - 1, CURVE).round().astype(int))
    rows = list(csv.reader([lines[i] for i in few]))
    losses = tuple(float(row[loss]) for row in rows)
    finite = tuple(value for value in losses if np.isfinite(value))
    return int(float(rows[-1][step])), finite


def runs_section(
    runs: Sequence[Run], folders: dict[str, Path], table: RunTable | None, output: Path
) -> page.Section:
    """A row a run, sortable; those that aren't finished have no losses yet."""
    losses, scores = pd.DataFrame(), pd.DataFrame()
    unit = ""
    if table is not None:
        losses = table.losses.pivot_table(index="run_id", columns="domain", values="loss")
        losses = losses[table.targets]
        unit = f", losses held out in {label_of(table.design().unit)}"
        scores = _scores(table)
    rows: dict[str, list[object]] = {}
    for run in sorted(runs, key=lambda run: run.run_id):
        left = left_by(folders[run.run_id])
        rows[run.run_id] = [
            page.counted(run.rung.n_params, size_label),
            page.counted(run.n_tokens, size_label),
            run.mixture,
            run.seed,
            _step(left, run.steps),
            _spark(left),
            *_values(losses, run.run_id),
            *_values(scores, run.run_id),
            page.counted(left.train + left.evaluate, partial(_digits, digits=0)),
            _link(left, output),
        ]
    columns = ["parameters", "tokens", "mixture", "seed", "step", "training loss"]
    columns += [*map(str, losses.columns), *map(str, scores.columns), "seconds", "metrics"]
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns, dtype=object)
    blocks: list[page.Block] = []
    failed = [run.run_id for run in runs if (folders[run.run_id] / FAILED).is_file()]
    if failed:
        said = f"{len(failed)} of {len(runs)} runs failed and have no losses: {', '.join(failed)}."
        blocks.append(page.Text(said, mind=True))
    blocks.append(page.table(frame, f"All runs{unit}", label="run", sortable=True))
    return page.Section(
        "All runs",
        "A column's name sorts by it. The line in a row is its training loss from the first step "
        "to the last.",
        blocks,
    )


def _scores(table: RunTable) -> pd.DataFrame:
    """Recall and accuracy of every task, a row a run."""
    some = table.scores[table.scores["metric"].isin(["exact_match", "acc"])]
    return some.pivot_table(index="run_id", columns="task", values="value")


def _values(frame: pd.DataFrame, run: str) -> list[float]:
    if run not in frame.index:
        return [float("nan")] * len(frame.columns)
    return [float(value) for value in frame.loc[run]]


def _digits(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}"


def _step(left: Left, steps: int) -> page.Cell:
    return page.Cell(f"{left.step:,} of {steps:,}", float(left.step))


def _spark(left: Left) -> page.Cell:
    if not left.curve:
        return page.Cell("–")
    spark = sparkline(left.curve) if len(left.curve) > 1 else ""
    return page.Cell(f"{left.curve[-1]:.3f}", left.curve[-1], spark=spark)


def _link(left: Left, output: Path) -> page.Cell:
    if left.metrics is None:
        return page.Cell("–")
    place = Path(os.path.relpath(left.metrics, output)).as_posix()
    return page.Cell("CSV", href=quote(place))


def cost_of(runs: Sequence[Run], folders: dict[str, Path]) -> pd.DataFrame:
    """A row a size and length: runs, tokens and FLOPs in all, seconds of a run and in all."""
    rows = []
    for run in runs:
        train, evaluate = seconds_by(folders[run.run_id] / DONE) or (np.nan, np.nan)
        rows.append(
            {
                "size": run.rung.name,
                "n_params": run.rung.n_params,
                "n_tokens": run.n_tokens,
                "flops": run.rung.training_flops(run.n_tokens),
                "train": train,
                "evaluate": evaluate,
            }
        )
    groups = pd.DataFrame(rows).groupby(["n_params", "n_tokens", "size"], sort=True)
    return groups.agg(
        runs=("flops", "size"),
        flops=("flops", "sum"),
        train=("train", "median"),
        evaluate=("evaluate", "median"),
        seconds=("train", "sum"),
        scoring=("evaluate", "sum"),
    ).reset_index()


def cost_section(cost: pd.DataFrame, target: str, target_flops: float) -> page.Section:
    """What the runs have cost, a row a size, beside what the target will."""
    rows: dict[str, list[object]] = {}
    for row in cost.itertuples():
        tokens = row.n_tokens * row.runs
        rows[f"{row.size}, {size_label(row.n_tokens)} tokens"] = [
            int(row.runs),
            page.counted(tokens, size_label),
            page.counted(row.flops, "{:.2e}".format),
            page.counted(row.train, partial(_digits, digits=0)),
            page.counted(row.evaluate, partial(_digits, digits=0)),
            page.counted(row.n_tokens / row.train, partial(_digits, digits=0)),
        ]
    rows["all"] = [
        int(cost["runs"].sum()),
        page.counted(float((cost["n_tokens"] * cost["runs"]).sum()), size_label),
        page.counted(float(cost["flops"].sum()), "{:.2e}".format),
        page.counted(float(cost["seconds"].sum()), partial(_digits, digits=0)),
        page.counted(float(cost["scoring"].sum()), partial(_digits, digits=0)),
        float("nan"),
    ]
    columns = ["runs", "tokens", "FLOPs", "training, s", "scoring, s", "tokens a second"]
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns, dtype=object)
    share = target_flops / float(cost["flops"].sum())
    return page.Section(
        "What it has cost",
        f"The target, {target}, takes {target_flops:.2e} FLOPs: {share:.3g} times what all the "
        "runs took together.",
        [
            page.table(frame, "Cost of the runs", label="size and length", chosen="all"),
            page.Text(
                "Of a size: seconds of the median run, on what it ran on; of all: the sum over "
                "runs, which may have run side by side.",
                quiet=True,
            ),
        ],
    )
