"""RunTable: the one table that joins training and evaluation with the laws.

Two tidy frames. `losses` has one row per (run, domain), `scores` one per (run, task,
metric). A run's mixture stands in columns `w_<domain>`, the losses' unit in `unit` where it
isn't nats. Everything is checked when the table is made, so that a law never sees a bad row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from olmo_mixlaw.atomic import open_atomic
from olmo_mixlaw.errors import DataError, unknown_name
from olmo_mixlaw.runs.available import available_tokens, checked_available
from olmo_mixlaw.runs.design import Design
from olmo_mixlaw.runs.frames import numbers, read_frame, refuse
from olmo_mixlaw.runs.labels import check_names, check_seeds, check_splits, named_domains
from olmo_mixlaw.runs.names import near_domains, not_a_loss, refuse_synonyms
from olmo_mixlaw.runs.score_metrics import LOSS_METRICS, SCORE_METRICS, with_primary
from olmo_mixlaw.runs.units import LABELS, NATS, UNSTATED, accepted_unit, label

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
COUNTS = ("n_params", "n_active", "n_tokens")
# Whether a run is one at the scale of interest, and how many parameters are embeddings that
# `n_params` leaves out.
ANCHOR, EMBEDDING = "anchor", "n_embedding"
TRUTHS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False, "": False}
WEIGHT_TOLERANCE = 1e-6
# Weights are rounded numbers; further from 1 they are something else, such as percent.
MOST_TOLERANCE = 0.5
# No model is this bad: exp(-100) a token. Greater numbers are perplexities, percent or mistakes.
MOST_LOSS = 100.0


@dataclass(frozen=True)
class RunTable:
    """Validated losses and scores of a set of runs.

    Raises `DataError` naming source, line and column for a missing column, a negative weight,
    weights that don't sum to 1 within `weight_tolerance`, a loss that isn't finite and
    positive, or a repeated (run, domain) or (run, task, metric). Within a larger tolerance
    than 1e-6, rounded weights are rescaled to sum to 1. `unit` is a column's, else nats; `notes`
    say how the files of others were read.
    """

    losses: pd.DataFrame
    scores: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=SCORE_COLUMNS))
    source: str = "table"
    weight_tolerance: float = WEIGHT_TOLERANCE
    unit: str = ""
    notes: tuple[str, ...] = ()
    scores_source: str = ""

    def __post_init__(self) -> None:
        losses = _checked_losses(self.losses, self.source, self.weight_tolerance)
        unit = _unit_of(losses, self.unit, self.source)
        losses = losses.drop(columns="unit", errors="ignore")
        object.__setattr__(self, "losses", losses if unit == NATS else losses.assign(unit=unit))
        object.__setattr__(self, "unit", unit)
        where = self.scores_source or f"{self.source} (scores)"
        object.__setattr__(self, "scores_source", where)
        object.__setattr__(self, "scores", _checked_scores(self.scores, where))

    @property
    def domains(self) -> list[str]:
        """The domains of the mixture, in column order."""
        return [c[len(WEIGHT) :] for c in self.losses.columns if c.startswith(WEIGHT)]

    @property
    def targets(self) -> list[str]:
        """The domains that have losses, in order of appearance."""
        return list(dict.fromkeys(self.losses["domain"]))

    def design(self) -> Design:
        """The losses of all runs but anchors as arrays, one row a run. Raises `DataError`."""
        if ANCHOR not in self.losses:
            return self._design(self.losses)
        others = self.losses[~self.losses[ANCHOR]]
        if others.empty:
            raise DataError(f"{self.source}: every run is an anchor; runs to fit are needed too")
        return self._design(others)

    def anchors(self) -> Design | None:
        """The runs at the scale of interest that no law is fitted to; None without any."""
        some = self.losses[self.losses[ANCHOR]] if ANCHOR in self.losses else self.losses[:0]
        return None if some.empty else self._design(some)

    def _design(self, losses: pd.DataFrame) -> Design:
        weights = [WEIGHT + name for name in self.domains]
        runs = losses.drop_duplicates("run_id").set_index("run_id")
        wide = losses.pivot(index="run_id", columns="domain", values="loss")
        wide = wide.reindex(columns=self.targets)
        known = bool(runs["n_active"].notna().any())
        return Design(
            run_ids=[str(name) for name in runs.index],
            domains=self.domains,
            targets=self.targets,
            ratios=runs[weights].to_numpy(float),
            n_params=runs["n_params"].to_numpy(float),
            n_active=runs["n_active" if known else "n_params"].to_numpy(float),
            n_tokens=runs["n_tokens"].to_numpy(float),
            losses=wide.loc[runs.index, self.targets].to_numpy(float),
            unit=self.unit,
            active_known=known,
            n_embedding=runs[EMBEDDING].to_numpy(float) if EMBEDDING in runs else None,
            available=available_tokens(runs, self.domains),
        )

    def only(self, targets: Sequence[str]) -> RunTable:
        """The table with the losses of these targets alone. Raises `UnknownNameError`."""
        for name in targets:
            if name not in self.targets:
                raise unknown_name("target", name, self.targets, self.source)
        return replace(self, losses=self.losses[self.losses["domain"].isin(targets)])

    def text(self) -> str:
        """What the table holds, in which unit, and which targets are domains of the mixture."""
        targets, domains = self.targets, self.domains
        own = [name for name in targets if name in domains]
        lines = [
            f"{self.losses['run_id'].nunique()} runs, {len(domains)} domains; {len(targets)} "
            f"targets in {label(self.unit)}, {len(own)} of them domains of the mixture"
        ]
        return "\n".join([*lines, *(f"caution: {text}" for text in self.cautions())])

    def cautions(self) -> list[str]:
        """What a reader of any fit to this table should know."""
        found = []
        if self.unit == UNSTATED:
            found.append("the unit of the losses is not stated (--unit)")
        near = near_domains(self.targets, self.domains)
        if near:
            some = ", ".join(f"{t!r} (domain {d!r}?)" for t, d in list(near.items())[:3])
            found.append(
                f"{len(near)} targets are named like a domain, but not the same: {some}; "
                "laws take them for something else, so rename them if they are those domains"
            )
        return found

    def save(self, folder: str | Path) -> Path:
        """Write `losses.csv` and `scores.csv` into `folder`, the same bytes for the same table."""
        folder = Path(folder)
        for name, frame in (("losses", self.losses), ("scores", self.scores)):
            with open_atomic(folder / f"{name}.csv", newline="") as file:
                frame.to_csv(file, index=False, lineterminator="\n")
        return folder

    @classmethod
    def load(
        cls, path: str | Path, weight_tolerance: float = WEIGHT_TOLERANCE, unit: str = ""
    ) -> RunTable:
        """Read a table: a folder with `losses` (and `scores`), or a file of losses.

        CSV, gzipped CSV and Parquet are read. `unit` (nats, bits or bits_per_byte) is that of the
        losses where no column says it; bits become nats. Raises `DataError`.
        """
        path = Path(path)
        known, factor = accepted_unit(unit, "--unit") if unit else ("", 1.0)
        if path.is_dir():
            losses = _find(path, "losses")
            if losses is None:
                raise DataError(f"{path}: holds no losses.csv or losses.parquet")
            scores = _find(path, "scores")
            frame = read_frame(scores) if scores else pd.DataFrame(columns=SCORE_COLUMNS)
            return cls(
                _times(read_frame(losses), factor, str(losses)),
                frame,
                str(losses),
                weight_tolerance,
                known,
                scores_source=str(scores or ""),
            )
        return cls(
            _times(read_frame(path), factor, str(path)),
            source=str(path),
            weight_tolerance=weight_tolerance,
            unit=known,
        )


def design_of(table: RunTable | Design) -> Design:
    """The losses of a table as arrays, or the arrays themselves."""
    return table.design() if isinstance(table, RunTable) else table


def _times(frame: pd.DataFrame, factor: float, source: str) -> pd.DataFrame:
    """The losses in another unit; a frame without any is refused later."""
    if factor == 1.0 or "loss" not in frame:
        return frame
    if "unit" in frame:
        raise DataError(f"{source}: column 'unit' says what its losses are in; leave out --unit")
    return frame.assign(loss=numbers(frame, "loss", source) * factor)


def _find(folder: Path, stem: str) -> Path | None:
    for suffix in (".csv", ".csv.gz", ".parquet"):
        if (folder / (stem + suffix)).is_file():
            return folder / (stem + suffix)
    return None


def _checked_losses(losses: pd.DataFrame, source: str, tolerance: float) -> pd.DataFrame:
    frame = losses.rename(columns={k: v for k, v in ALIASES.items() if v not in losses.columns})
    weights = [c for c in frame.columns if c.startswith(WEIGHT)]
    _require(frame, ["run_id", "domain", "loss"], source)
    refuse_synonyms(frame, source)
    if not 0 <= tolerance <= MOST_TOLERANCE:
        raise DataError(
            f"{source}: a weight tolerance of {tolerance:g} is not within 0 to {MOST_TOLERANCE:g}"
        )
    if not weights:
        raise DataError(f"{source}: no column {WEIGHT}<domain> gives the mixture")
    if frame.empty:
        raise DataError(f"{source}: the table has no rows")
    frame = frame.reset_index(drop=True).copy()
    defaults: dict[str, Any] = {"n_params": np.nan, "n_tokens": np.nan, "seed": 0, "split": "train"}
    for column, value in defaults.items():
        if column not in frame:
            frame[column] = value
    check_names(frame, ("run_id", "domain"), source)
    frame["domain"] = named_domains(frame, source)
    check_seeds(frame, source)
    check_splits(frame, source)
    if "n_active" not in frame:
        frame["n_active"] = np.nan
    for column in [*COUNTS, "loss"]:
        frame[column] = numbers(frame, column, source)
    check_losses(frame, "loss", source)
    for name in dict.fromkeys(frame["domain"]):
        why = "" if WEIGHT + name in weights else not_a_loss(name)
        reason = f"this target is {why}; give losses here, and scores in a file `scores`"
        refuse(frame, "domain", (frame["domain"] == name) & bool(why), source, reason)
    check_counts(frame, source)
    for column in ("n_params", "n_tokens"):
        if frame[column].notna().any():
            refuse(
                frame,
                column,
                frame[column].isna(),
                source,
                "is missing, but other rows have it; give it in all of them, or in none",
            )
    frame[weights] = checked_weights(frame, weights, source, tolerance)
    own = _checked_optional(frame, source)
    _refuse_repeats(frame, ["run_id", "domain"], source)
    constant = frame.groupby("run_id", sort=False)[[*COUNTS, *weights, *own]].nunique()
    if (constant > 1).any(axis=None):
        run, column = next((r, c) for r, row in constant.iterrows() for c in row[row > 1].index)
        raise DataError(f"{source}: run {run!r} has more than one value of {column!r}")
    rest = [c for c in frame.columns if c not in {*RUN_COLUMNS, *weights, "domain", "loss"}]
    return frame[[*RUN_COLUMNS, *weights, "domain", "loss", *rest]]


def _checked_optional(frame: pd.DataFrame, source: str) -> list[str]:
    """Checks the columns that a table may have beside the usual ones, in place; their names."""
    if ANCHOR in frame:
        said = frame[ANCHOR].fillna("").astype(str).str.strip().str.lower()
        said = said.str.removesuffix(".0")
        refuse(frame, ANCHOR, ~said.isin(TRUTHS), source, "is none of 1, 0, true, false")
        frame[ANCHOR] = said.map(TRUTHS).astype(bool)
    if EMBEDDING in frame:
        frame[EMBEDDING] = count = numbers(frame, EMBEDDING, source)
        reason = "must be 0 or more, and given for all runs or for none: N with and without "
        refuse(
            frame, EMBEDDING, ~(np.isfinite(count) & (count >= 0)), source, reason + "embeddings"
        )
        mixed = (count > 0).any() & (count == 0)
        refuse(frame, EMBEDDING, mixed, source, "is 0, but other runs leave embeddings out of N")
    domains = [c[len(WEIGHT) :] for c in frame.columns if c.startswith(WEIGHT)]
    checked_available(frame, domains, source)
    return [name for name in (ANCHOR, EMBEDDING) if name in frame]


def check_losses(frame: pd.DataFrame, column: str, source: str) -> None:
    """Refuse losses that aren't positive, or so great that they are something else."""
    loss = frame[column]
    bad = ~(np.isfinite(loss) & (loss > 0))
    refuse(frame, column, bad, source, "a loss must be finite and positive")
    reason = f"is above {MOST_LOSS:g}: a loss a token or a byte, no perplexity or percent, is meant"
    refuse(frame, column, loss > MOST_LOSS, source, reason)


def check_counts(frame: pd.DataFrame, source: str) -> None:
    """Refuse numbers of parameters and tokens that are 0, negative or infinite."""
    for column in COUNTS:
        if column in frame:
            bad = (frame[column] <= 0) | np.isinf(frame[column])
            refuse(frame, column, bad, source, "must be positive and finite")
            below = frame[column] < 1
            refuse(frame, column, below, source, "is below 1: count single ones, no billions")


def checked_weights(
    frame: pd.DataFrame, weights: list[str], source: str, tolerance: float
) -> pd.DataFrame:
    """The weights as numbers that sum to 1 a row, rescaled within a tolerance above 1e-6."""
    given = pd.DataFrame({c: numbers(frame, c, source) for c in weights}, index=frame.index)
    for column in weights:
        bad = ~(given[column] >= 0)
        refuse(given, column, bad, source, "a weight must not be negative or missing")
    total = given.sum(axis=1)
    off = (total - 1).abs().to_numpy() > tolerance
    if off.any():
        i = int(np.argmax(off))
        line, value = int(frame.index[i]) + 2, float(total.iloc[i])
        run = f" of run {frame['run_id'].iloc[i]!r}" if "run_id" in frame else ""
        percent = "; divide percent by 100" if abs(value - 100) < 100 * MOST_TOLERANCE else ""
        raise DataError(
            f"{source}: line {line}: the weights{run} sum to {value:.9g}, not 1 "
            f"(within {tolerance:g}){percent}"
        )
    return given.div(total, axis=0) if tolerance > WEIGHT_TOLERANCE else given


def _unit_of(frame: pd.DataFrame, given: str, source: str) -> str:
    """The one unit of a table's losses: its column's, or the one given, else nats."""
    found = list(dict.fromkeys(frame["unit"])) if "unit" in frame else []
    for unit in [*found, *([given] if given else [])]:
        if unit not in LABELS:
            raise DataError(f"{source}: column 'unit': {unit!r} is none of {', '.join(LABELS)}")
    if len(found) > 1:
        raise DataError(f"{source}: column 'unit': a table has one unit, found {', '.join(found)}")
    if found and given and found[0] != given:
        raise DataError(f"{source}: column 'unit' says {found[0]}, but {given} was asked for")
    return found[0] if found else given or NATS


def _checked_scores(scores: pd.DataFrame, source: str) -> pd.DataFrame:
    frame = scores.rename(columns={k: v for k, v in ALIASES.items() if v not in scores.columns})
    _require(frame, ["run_id", "task", "metric", "value"], source)
    frame = frame.reset_index(drop=True).copy()
    for column in SCORE_COLUMNS:
        if column not in frame:
            frame[column] = np.nan
    check_names(frame, ("run_id", "task", "metric"), source)
    for column in ("value", "n_instances", "stderr"):
        frame[column] = numbers(frame, column, source)
    check_counts(frame.assign(**{c: numbers(frame, c, source) for c in COUNTS}), source)
    bad = (frame["stderr"] < 0) | np.isinf(frame["stderr"])
    refuse(frame, "stderr", bad, source, "must be finite and not negative")
    value, instances = frame["value"], frame["n_instances"]
    refuse(frame, "value", ~np.isfinite(value), source, "a score must be finite")
    part = frame["metric"].isin(SCORE_METRICS) & ~value.between(0, 1)
    refuse(frame, "value", part, source, "this metric is not within 0 to 1 (a part of 1)")
    bits = frame["metric"].isin(LOSS_METRICS)
    refuse(frame, "value", bits & ~(value > 0), source, "bits must be positive")
    byte = bits & (frame["metric"] != "answer_bits") & (value > MOST_LOSS)
    refuse(frame, "value", byte, source, f"bits a byte are above {MOST_LOSS:g}")
    bad = (instances < 1) | np.isinf(instances)
    refuse(frame, "n_instances", bad, source, "must be 1 or more; leave it empty if not known")
    _refuse_repeats(frame, ["run_id", "task", "metric"], source)
    frame = with_primary(frame, source)
    return frame[[*SCORE_COLUMNS, *(c for c in frame.columns if c not in SCORE_COLUMNS)]]


def _require(frame: pd.DataFrame, columns: list[str], source: str) -> None:
    missing = [c for c in columns if c not in frame.columns]
    if missing:
        found = ", ".join(map(str, frame.columns)) or "none"
        raise DataError(f"{source}: column {missing[0]!r} is missing (found: {found})")


def _refuse_repeats(frame: pd.DataFrame, key: list[str], source: str) -> None:
    repeated = frame.duplicated(key)
    if repeated.any():
        i = int(np.argmax(repeated))
        values = ", ".join(f"{c} {frame[c][i]!r}" for c in key)
        raise DataError(f"{source}: line {i + 2}: a second row for {values}")
