"""RunTable: the one table that joins training and evaluation with the laws.

Two tidy frames. `losses` has one row per (run, domain), `scores` one per (run, task,
metric). A run's mixture stands in columns `w_<domain>`. Everything is checked when the
table is made, so that a law never sees a bad row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from olmo_mixlaw.atomic import open_atomic
from olmo_mixlaw.errors import DataError

WEIGHT = "w_"
RUN_COLUMNS = ["run_id", "n_params", "n_active", "n_tokens", "seed", "split"]
SCORE_COLUMNS = [
    "run_id",
    "n_params",
    "n_active",
    "n_tokens",
    "task",
    "metric",
    "value",
    "n_instances",
    "stderr",
]
# The names that published tables use for ours.
ALIASES = {"N": "n_params", "D": "n_tokens", "N_active": "n_active"}
WEIGHT_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Design:
    """The losses of a table as arrays: R runs, K domains in the mixture, T targets.

    `ratios` (R, K) sum to 1 a row; `n_params`, `n_active` and `n_tokens` (R,) are NaN where the
    table doesn't say; `losses` (R, T) in nats a token are NaN where a run lacks a target.
    """

    run_ids: list[str]
    domains: list[str]
    targets: list[str]
    ratios: np.ndarray
    n_params: np.ndarray
    n_active: np.ndarray
    n_tokens: np.ndarray
    losses: np.ndarray

    def __len__(self) -> int:
        return len(self.run_ids)

    def take(self, rows: np.ndarray) -> Design:
        """The design of the runs that `rows` (indices or a mask) selects."""
        rows = np.arange(len(self))[rows]
        return Design(
            [self.run_ids[i] for i in rows],
            self.domains,
            self.targets,
            self.ratios[rows],
            self.n_params[rows],
            self.n_active[rows],
            self.n_tokens[rows],
            self.losses[rows],
        )


@dataclass(frozen=True)
class RunTable:
    """Validated losses and scores of a set of runs.

    Raises `DataError` naming source, line and column for a missing column, a negative weight,
    weights that don't sum to 1 within `weight_tolerance`, a loss that isn't finite and
    positive, or a repeated (run, domain) or (run, task, metric). Within a larger tolerance
    than 1e-6, rounded weights are rescaled to sum to 1.
    """

    losses: pd.DataFrame
    scores: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=SCORE_COLUMNS))
    source: str = "table"
    weight_tolerance: float = WEIGHT_TOLERANCE

    def __post_init__(self) -> None:
        losses = _checked_losses(self.losses, self.source, self.weight_tolerance)
        object.__setattr__(self, "losses", losses)
        object.__setattr__(self, "scores", _checked_scores(self.scores, self.source))

    @property
    def domains(self) -> list[str]:
        """The domains of the mixture, in column order."""
        return [c[len(WEIGHT) :] for c in self.losses.columns if c.startswith(WEIGHT)]

    @property
    def targets(self) -> list[str]:
        """The domains that have losses, in order of appearance."""
        return list(dict.fromkeys(self.losses["domain"]))

    def design(self) -> Design:
        """The losses as arrays, one row a run."""
        weights = [WEIGHT + name for name in self.domains]
        runs = self.losses.drop_duplicates("run_id").set_index("run_id")
        wide = self.losses.pivot(index="run_id", columns="domain", values="loss")
        return Design(
            run_ids=[str(name) for name in runs.index],
            domains=self.domains,
            targets=self.targets,
            ratios=runs[weights].to_numpy(float),
            n_params=runs["n_params"].to_numpy(float),
            n_active=runs["n_active"].to_numpy(float),
            n_tokens=runs["n_tokens"].to_numpy(float),
            losses=wide.loc[runs.index, self.targets].to_numpy(float),
        )

    def save(self, folder: str | Path) -> Path:
        """Write `losses.csv` and `scores.csv` into `folder`, the same bytes for the same table."""
        folder = Path(folder)
        for name, frame in (("losses", self.losses), ("scores", self.scores)):
            with open_atomic(folder / f"{name}.csv", newline="") as file:
                frame.to_csv(file, index=False, lineterminator="\n")
        return folder

    @classmethod
    def load(cls, path: str | Path, weight_tolerance: float = WEIGHT_TOLERANCE) -> RunTable:
        """Read a table: a folder with `losses` (and `scores`), or a file of losses.

        CSV, gzipped CSV and Parquet are read. Raises `DataError`.
        """
        path = Path(path)
        if path.is_dir():
            losses = _find(path, "losses")
            if losses is None:
                raise DataError(f"{path}: holds no losses.csv or losses.parquet")
            scores = _find(path, "scores")
            frame = read_frame(scores) if scores else pd.DataFrame(columns=SCORE_COLUMNS)
            return cls(read_frame(losses), frame, str(losses), weight_tolerance)
        return cls(read_frame(path), source=str(path), weight_tolerance=weight_tolerance)


def design_of(table: RunTable | Design) -> Design:
    """The losses of a table as arrays, or the arrays themselves."""
    return table.design() if isinstance(table, RunTable) else table


def read_frame(path: str | Path) -> pd.DataFrame:
    """A CSV, gzipped CSV or Parquet file as a frame. Raises `DataError`."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, float_precision="round_trip")
    except (ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: can't be read as a table ({reason})") from None


def _find(folder: Path, stem: str) -> Path | None:
    for suffix in (".csv", ".csv.gz", ".parquet"):
        if (folder / (stem + suffix)).is_file():
            return folder / (stem + suffix)
    return None


def _checked_losses(losses: pd.DataFrame, source: str, tolerance: float) -> pd.DataFrame:
    frame = losses.rename(columns={k: v for k, v in ALIASES.items() if v not in losses.columns})
    weights = [c for c in frame.columns if c.startswith(WEIGHT)]
    _require(frame, ["run_id", "domain", "loss"], source)
    if not weights:
        raise DataError(f"{source}: no column {WEIGHT}<domain> gives the mixture")
    if frame.empty:
        raise DataError(f"{source}: the table has no rows")
    frame = frame.reset_index(drop=True).copy()
    defaults: dict[str, Any] = {"n_params": np.nan, "n_tokens": np.nan, "seed": 0, "split": "train"}
    for column, value in defaults.items():
        if column not in frame:
            frame[column] = value
    if "n_active" not in frame:
        frame["n_active"] = frame["n_params"]
    for column in ["n_params", "n_active", "n_tokens", "loss", *weights]:
        frame[column] = _numbers(frame, column, source)
    _refuse(
        frame,
        "loss",
        ~(np.isfinite(frame["loss"]) & (frame["loss"] > 0)),
        source,
        "a loss must be finite and positive",
    )
    for column in ("n_params", "n_active", "n_tokens"):
        _refuse(frame, column, frame[column] <= 0, source, "must be positive")
    for column in weights:
        _refuse(frame, column, ~(frame[column] >= 0), source, "a weight must not be negative")
    total = frame[weights].sum(axis=1)
    off = (total - 1).abs() > tolerance
    if off.any():
        i = int(np.argmax(off))
        raise DataError(
            f"{source}: line {i + 2}: the weights of run {frame['run_id'][i]!r} sum to "
            f"{total[i]:.9g}, not 1 (within {tolerance:g})"
        )
    if tolerance > WEIGHT_TOLERANCE:
        frame[weights] = frame[weights].div(total, axis=0)
    _refuse_repeats(frame, ["run_id", "domain"], source)
    constant = frame.groupby("run_id", sort=False)[["n_params", "n_tokens", *weights]].nunique()
    if (constant > 1).any(axis=None):
        run, column = next((r, c) for r, row in constant.iterrows() for c in row[row > 1].index)
        raise DataError(f"{source}: run {run!r} has more than one value of {column!r}")
    rest = [c for c in frame.columns if c not in {*RUN_COLUMNS, *weights, "domain", "loss"}]
    return frame[[*RUN_COLUMNS, *weights, "domain", "loss", *rest]]


def _checked_scores(scores: pd.DataFrame, source: str) -> pd.DataFrame:
    frame = scores.rename(columns={k: v for k, v in ALIASES.items() if v not in scores.columns})
    _require(frame, ["run_id", "task", "metric", "value"], f"{source} (scores)")
    frame = frame.reset_index(drop=True).copy()
    for column in SCORE_COLUMNS:
        if column not in frame:
            frame[column] = np.nan
    frame["value"] = _numbers(frame, "value", source)
    _refuse(frame, "value", ~np.isfinite(frame["value"]), source, "a score must be finite")
    _refuse_repeats(frame, ["run_id", "task", "metric"], source)
    return frame[[*SCORE_COLUMNS, *(c for c in frame.columns if c not in SCORE_COLUMNS)]]


def _require(frame: pd.DataFrame, columns: list[str], source: str) -> None:
    missing = [c for c in columns if c not in frame.columns]
    if missing:
        found = ", ".join(map(str, frame.columns)) or "none"
        raise DataError(f"{source}: column {missing[0]!r} is missing (found: {found})")


def _numbers(frame: pd.DataFrame, column: str, source: str) -> pd.Series:
    values = pd.to_numeric(frame[column], errors="coerce").astype(float)
    bad = values.isna() & frame[column].notna()
    _refuse(frame, column, bad, source, "is not a number")
    return values


def _refuse(frame: pd.DataFrame, column: str, bad: Any, source: str, reason: str) -> None:
    if bad.any():
        i = int(np.argmax(bad))
        raise DataError(
            f"{source}: line {i + 2}, column {column!r}: {frame[column][i]!r}: {reason}"
        )


def _refuse_repeats(frame: pd.DataFrame, key: list[str], source: str) -> None:
    repeated = frame.duplicated(key)
    if repeated.any():
        i = int(np.argmax(repeated))
        values = ", ".join(f"{c} {frame[c][i]!r}" for c in key)
        raise DataError(f"{source}: line {i + 2}: a second row for {values}")
