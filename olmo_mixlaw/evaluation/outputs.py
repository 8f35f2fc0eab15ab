"""Read scores back: from OLMES's folders, the embedded scorer's and the LM harness's results.

Every reader gives one tidy frame, `task, metric, value, n_instances, stderr, task_hash,
model_hash`, so that scores of different tools stand in one table. Only what is in a row's own
record is trusted; the name of a folder says nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from olmo_mixlaw.errors import DataError, unknown_name
from olmo_mixlaw.evaluation import harness
from olmo_mixlaw.evaluation.knowledge import STRATA

COLUMNS = ["task", "metric", "value", "n_instances", "stderr", "task_hash", "model_hash"]
ALL = "metrics-all.jsonl"
SUMMARY = "metrics.json"
# Ratios of sums over documents, and the sum below each.
RATIOS = {"bits_per_byte": "n_bytes", "loss": "n_tokens"}


@dataclass(frozen=True)
class TaskScores:
    """One task's record in a folder: OLMES's line, and where it was read."""

    task: str
    line: Mapping[str, Any]
    source: Path

    @property
    def model_hash(self) -> str:
        return str(self.line.get("model_hash") or "")


def read_scores(
    folder: str | Path,
    *,
    tasks: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    model_hash: str | None = None,
) -> pd.DataFrame:
    """The scores in a folder of OLMES or of `evaluate`, or in a result file of the LM harness.

    `tasks` and `metrics` select, and must be there; `model_hash` selects where a folder holds
    several models. Where a task was scored more than once, the newest record holds, and
    `frame.attrs["duplicates"]` says which were left out. Raises `DataError` for a folder
    without scores, a file that is cut off, a value that isn't finite, or records of several
    models.
    """
    path = Path(folder)
    if path.is_file() or (path.is_dir() and not _records(path) and harness.files(path)):
        rows = harness.read(path)
        duplicates: list[str] = []
    else:
        records, duplicates = _of_one_model(path, model_hash)
        rows = [row for record in records for row in _rows(record)]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    for name, wanted in (("task", tasks), ("metric", metrics)):
        if wanted is not None:
            for value in wanted:
                if value not in set(frame[name]):
                    raise unknown_name(name, value, set(frame[name]), str(folder))
            frame = frame[frame[name].isin(wanted)].reset_index(drop=True)
    frame.attrs["duplicates"] = duplicates
    return frame


def read_instances(folder: str | Path, task: str, model_hash: str | None = None) -> pd.DataFrame:
    """Metrics of every document of a task: `doc_id, native_id` and a column a metric.

    Raises `DataError` if the folder holds no predictions of the task.
    """
    records, _ = _of_one_model(Path(folder), model_hash)
    known = {record.task: record for record in records}
    if task not in known:
        raise unknown_name("task", task, known, str(folder))
    predictions = _predictions(known[task])
    if not predictions:
        raise DataError(f"{folder}: holds no predictions of {task!r}")
    return pd.DataFrame(
        [{"doc_id": p["doc_id"], "native_id": p["native_id"], **p["metrics"]} for p in predictions]
    )


def _of_one_model(path: Path, model_hash: str | None) -> tuple[list[TaskScores], list[str]]:
    if not path.is_dir():
        raise DataError(f"{path}: no such folder or file of scores")
    records = list(_records(path)) or list(_summary(path))
    if not records:
        raise DataError(f"{path}: holds no {ALL}, task-*-metrics.json or {SUMMARY}")
    found = sorted({record.model_hash for record in records})
    if model_hash is not None:
        if model_hash not in found:
            raise unknown_name("model_hash", model_hash, found, str(path))
        records = [record for record in records if record.model_hash == model_hash]
    elif len(found) > 1:
        raise DataError(
            f"{path}: holds scores of {len(found)} models ({', '.join(found)}); keep one folder a "
            "model, or say which with model_hash"
        )
    return _newest(records)


def _newest(records: Sequence[TaskScores]) -> tuple[list[TaskScores], list[str]]:
    """One record a task: the newest, the later one among equals."""
    chosen: dict[str, TaskScores] = {}
    duplicates = []
    for record in records:
        before = chosen.get(record.task)
        if before is None or _same(before, record):
            chosen.setdefault(record.task, record)
            continue
        dates = [str(r.line.get("current_date") or "") for r in (before, record)]
        kept, left = (before, record) if dates[0] > dates[1] else (record, before)
        chosen[record.task] = kept
        duplicates.append(
            f"{record.task}: kept {kept.source.name} ({max(dates) or 'no date'}), "
            f"left out {left.source.name} ({min(dates) or 'no date'})"
        )
    return list(chosen.values()), duplicates


def _same(one: TaskScores, other: TaskScores) -> bool:
    return all(one.line.get(key) == other.line.get(key) for key in ("metrics", "task_hash"))


def _records(folder: Path) -> list[TaskScores]:
    """The records of `metrics-all.jsonl`, then those of tasks that have only their own file."""
    records = []
    if (folder / ALL).is_file():
        records += [_record(line, folder / ALL) for line in _lines(folder / ALL)]
    for path in sorted(folder.glob("task-*-metrics.json")):
        if path.name.endswith("-verbose-metrics.json"):
            continue
        line = _json(path)
        if "metrics" in line:  # without, it is the note of a run that had no model
            records.append(_record(line, path))
    return records


def _record(line: Mapping[str, Any], source: Path) -> TaskScores:
    for key in ("task_name", "metrics"):
        if key not in line:
            raise DataError(f"{source}: a record without {key!r}")
    return TaskScores(_alias(line), line, source)


def _summary(folder: Path) -> Iterator[TaskScores]:
    """The tasks of `metrics.json`, as OLMES writes it now and as it did until 2024."""
    path = folder / SUMMARY
    if not path.is_file():
        return
    summary = _json(path)
    common = {"model_hash": "", "model_config": summary.get("model_config")}
    for entry in summary.get("tasks") or []:
        yield TaskScores(
            str(entry["alias"]), {**entry, "task_name": entry["alias"], **common}, path
        )
    for entry in summary.get("metrics") or []:
        known = ("task", "num_instances", "task_config")
        metrics = {k: v for k, v in entry.items() if k not in known}
        line = {"task_name": entry["task"], "metrics": metrics, **common} | {
            k: entry.get(k) for k in known[1:]
        }
        yield TaskScores(_alias(line), line, path)


def _alias(line: Mapping[str, Any]) -> str:
    metadata = (line.get("task_config") or {}).get("metadata") or {}
    return str(metadata.get("alias") or line["task_name"])


def _predictions(record: TaskScores) -> list[dict[str, Any]]:
    """What was predicted for each document, if the folder has it."""
    index = record.line.get("task_idx")
    if index is None:
        return []
    matches = sorted(record.source.parent.glob(f"task-{int(index):03d}-*-predictions.jsonl"))
    for path in matches:
        rows = _lines(path)
        hashes = {str(row.get("model_hash") or "") for row in rows}
        if hashes <= {record.model_hash} and _belongs(path, record):
            return rows
        if _belongs(path, record):
            raise DataError(
                f"{path}: predictions of model {', '.join(sorted(hashes))}, while "
                f"{record.source.name} is of {record.model_hash}"
            )
    return []


def _belongs(path: Path, record: TaskScores) -> bool:
    names = {record.task, str(record.line["task_name"])}
    middle = path.name.split("-", 2)[2].removesuffix("-predictions.jsonl")
    return middle in {name.replace("/", "_") for name in names}


def _rows(record: TaskScores) -> list[dict[str, Any]]:
    rows = rows_of(record.task, record.line, _predictions(record))
    for row in rows:
        if not math.isfinite(row["value"]):
            raise DataError(
                f"{record.source}: {record.task}: {row['metric']} is {row['value']}, not a number"
            )
    return rows


def rows_of(
    task: str, line: Mapping[str, Any], predictions: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """A row for every number among a task's metrics."""
    rows = []
    for metric, value in _numbers(line["metrics"]):
        chosen, base = _stratum(metric, predictions)
        count = len(chosen) if base != metric else int(line.get("num_instances") or 0)
        if metric == "primary_score":
            base = str((line.get("task_config") or {}).get("primary_metric") or metric)
        rows.append(
            {
                "task": task,
                "metric": metric,
                "value": value,
                "n_instances": count,
                "stderr": _stderr(base, value, chosen),
                "task_hash": line.get("task_hash") or "",
                "model_hash": line.get("model_hash") or "",
            }
        )
    return rows


def _numbers(metrics: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _numbers(value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield name, float(value)


def _stratum(
    metric: str, predictions: Sequence[Mapping[str, Any]]
) -> tuple[Sequence[Mapping[str, Any]], str]:
    """The predictions that a metric is over, and its name in them.

    `exact_match_major` is `exact_match` over those whose attribute is `major`.
    """
    if predictions and metric not in predictions[0]["metrics"]:
        for key, prefix in STRATA.items():
            values = {str(p["metrics"].get(key) or "") for p in predictions}
            for value in values:
                suffix = f"_{prefix}{value or 'none'}"
                base = metric.removesuffix(suffix)
                if metric.endswith(suffix) and base in predictions[0]["metrics"]:
                    return [p for p in predictions if p["metrics"].get(key) == value], base
    return predictions, metric


def _stderr(metric: str, value: float, predictions: Sequence[Mapping[str, Any]]) -> float:
    """Of a mean or ratio over documents, from their values; NaN where that can't be known."""
    if len(predictions) < 2:
        return math.nan
    rows = [p["metrics"] for p in predictions]
    if RATIOS.get(metric) in rows[0] and metric in rows[0]:
        return _ratio_stderr(metric, value, rows)
    values = [row.get(metric) for row in rows]
    if all(isinstance(v, (int, float)) for v in values):
        numbers = np.asarray(values, dtype=float)
        if abs(numbers.mean() - value) <= 1e-9 * max(1.0, abs(value)):
            return float(numbers.std(ddof=1) / math.sqrt(len(numbers)))
    return math.nan


def _ratio_stderr(metric: str, value: float, rows: Sequence[Mapping[str, Any]]) -> float:
    """Of a ratio of sums over documents, by linearisation (the delta method)."""
    weights = np.asarray([row[RATIOS[metric]] for row in rows], dtype=float)
    residuals = (np.asarray([row[metric] for row in rows], dtype=float) - value) * weights
    n = len(rows)
    return float(math.sqrt(n / (n - 1) * (residuals**2).sum()) / weights.sum())


def _lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(text)
        except json.JSONDecodeError:
            row = None
        if not isinstance(row, dict):
            raise DataError(
                f"{path}: line {number} is cut off or not JSON; remove the file and score again"
            )
        rows.append(row)
    return rows


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise DataError(f"{path}: is cut off or not JSON; remove it and score again") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a JSON object")
    return value
