"""The OLMo ladder's own files, a CSV a run as its tracker exports it, as one table of tasks.

A line is a checkpoint: the tokens so far, bits a byte of each task's right answers, accuracies.
The parameters aren't in it: a file's name begins with its size (`190M-1xC.csv`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from olmo_mixlaw.errors import ConfigError, DataError, complain
from olmo_mixlaw.runs import read_frame

TOKENS = "throughput/total_tokens"
LOSS, ACCURACY = "eval/downstream_bpb/", "eval/downstream/"
# Ways of counting right answers, first the one that the ladder's paper takes; of BoolQ the other.
COUNTED = ("_len_norm", "_acc")
PLAIN_FIRST = "boolq"
# Parameters without embeddings (Bhagia et al. 2024, arXiv 2412.04403).
SIZES = {
    "190M": 190354176,
    "370M": 371262464,
    "760M": 758220288,
    "1B": 1279395840,
    "3B": 3169537280,
}


def is_ladder(frame: pd.DataFrame) -> bool:
    """Whether a table is a run of the ladder as its tracker exports it."""
    return TOKENS in frame and any(str(column).startswith(LOSS) for column in frame)


def read_ladder(files: Iterable[Path], sizes: Mapping[str, float] | None = None) -> pd.DataFrame:
    """A row a run, checkpoint and task: run_id, N, D, task, bpb, accuracy.

    `sizes` says the parameters of the files whose names begin so; the ladder's own are known.
    Raises `ConfigError` for a size that isn't known, `DataError` for a file without tasks or a
    checkpoint that lacks one of a task's two values.
    """
    files = list(files)
    parts = [_read(file, {**SIZES, **(sizes or {})}) for file in files]
    table = pd.concat(parts, ignore_index=True)
    whole = set.intersection(*(set(part["task"]) for part in parts))
    if not whole:
        raise DataError(f"{files[0].parent}: no task is in every file")
    if some := sorted(set(table["task"]) - whole):
        complain(f"{files[0].parent}: left out, not in every file: {', '.join(some)}")
    return table[table["task"].isin(whole)].reset_index(drop=True)


def _read(file: Path, sizes: Mapping[str, float]) -> pd.DataFrame:
    run = file.name.removesuffix(".gz").removesuffix(".csv")
    named = [name for name in sizes if run == name or run.startswith(f"{name}-")]
    if not named:
        raise ConfigError(
            f"{file}: doesn't say the model's parameters; give them for names that begin so, as "
            f"--size {run.partition('-')[0]}=190354176 (known: {', '.join(sizes)})"
        )
    frame = read_frame(file)
    if not is_ladder(frame):
        raise DataError(f"{file}: isn't a run of the ladder: it lacks {TOKENS} or {LOSS}<task>_bpb")
    frame = frame[pd.to_numeric(frame[TOKENS], errors="coerce") != 0]  # 0: nothing is trained yet
    found = []
    for task, (loss, accuracy) in _tasks(frame, file).items():
        some = frame[[TOKENS, loss, accuracy]]
        some = some[some[[loss, accuracy]].notna().any(axis=1)]
        values = some.apply(pd.to_numeric, errors="coerce")
        for column in some:
            for row in values.index[values[column].isna()]:
                said = some.loc[row, column]
                raise DataError(
                    f"{file}: line {row + 2}, column {column!r}: "
                    + ("is missing" if pd.isna(said) else f"{said!r} is not a number")
                )
        some = values.set_axis(["D", "bpb", "accuracy"], axis=1)
        n_params = sizes[max(named, key=len)]
        found.append(some.assign(run_id=run, N=float(n_params), task=task))
    return pd.concat(found, ignore_index=True)[["run_id", "N", "D", "task", "bpb", "accuracy"]]


def _tasks(frame: pd.DataFrame, file: Path) -> dict[str, tuple[str, str]]:
    """The columns of each task's loss and accuracy, by the task's name."""
    columns = [str(column) for column in frame]
    found: dict[str, tuple[str, str]] = {}
    for loss in (column for column in columns if column.startswith(LOSS)):
        core = loss.removeprefix(LOSS)
        while core.endswith("_bpb"):
            core = core.removesuffix("_bpb")
        ends = COUNTED[::-1] if core.startswith(PLAIN_FIRST) else COUNTED
        counted = [name for end in ends if (name := f"{ACCURACY}{core}{end}") in columns]
        task = core.replace("_rc_", "_")
        if counted:
            if task in found:
                raise DataError(f"{file}: columns {found[task][0]!r} and {loss!r} are one task")
            found[task] = loss, counted[0]
    if not found:
        raise DataError(f"{file}: no task has both {LOSS}<task>_bpb and {ACCURACY}<task>_len_norm")
    return found
