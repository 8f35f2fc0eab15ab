"""Read scores back: from folders of OLMES, olmo-eval and the embedded scorer, and LM harness files.

Every reader gives one tidy frame, `task, metric, value, n_instances, stderr, task_hash,
model_hash`, so that scores of different tools stand in one table. Only what is in a row's own
record is trusted; the name of a folder says nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from olmo_mixlaw.errors import DataError, complain, unknown_name
from olmo_mixlaw.evaluation import harness, olmo_eval
from olmo_mixlaw.evaluation.knowledge import STRATA
from olmo_mixlaw.evaluation.ranges import (
    PRIMARY,
    choose,
    problem,
    range_of,
    scores_among,
    undecided,
)
from olmo_mixlaw.evaluation.records import (
    TaskScores,
    checked,
    count_of,
    date_of,
    leaves,
    mapping,
    newest,
    number_of,
    numbers_of,
    of_one_model,
    plain,
    read_json,
)

COLUMNS = ["task", "metric", "value", "n_instances", "stderr", "task_hash", "model_hash"]
ALL = "metrics-all.jsonl"
SUMMARY = "metrics.json"
# Ratios of sums over documents, and the sum below each.
RATIOS = {"bits_per_byte": "n_bytes", "loss": "n_tokens"}
# What says, in a summary of OLMES and in a task's record, which model was scored; None by default.
MODEL_KEYS = ("model", "model_path", "revision", "peft", "delta")


def read_scores(
    folder: str | Path,
    *,
    tasks: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    model_hash: str | None = None,
    prefer: Sequence[str] = (),
) -> pd.DataFrame:
    """The scores in a folder of OLMES, olmo-eval or `evaluate`, or in result files of a harness.

    `tasks` and `metrics` select, and must be there; `model_hash` selects where a folder holds
    several models. Where a task was scored more than once, the newest record holds, and
    `frame.attrs["duplicates"]` says which were left out. `frame.attrs["primary"]` says which
    metric of a task is its score, `frame.attrs["why"]` by which rule (`ranges.choose`, which takes
    the first of `prefer` where its evaluator doesn't say); where none tells, the task has no
    primary metric, which standard error says. A number of documents
    that no record says is NaN. Raises `DataError` for a folder without scores, a file that is cut
    off, a value that isn't finite or not in its metric's range, or records of several models or
    of two datasets under one name.
    """
    path = Path(folder)
    records, duplicates = newest(path, of_one_model(path, _found(path), model_hash))
    rows = [row for record in records for row in _rows(record)]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    for name, wanted in (("task", tasks), ("metric", metrics)):
        if wanted is not None:
            known = frame[name].map(plain) if name == "task" else frame[name]
            asked = [plain(value) for value in wanted] if name == "task" else list(wanted)
            for value, key in zip(wanted, asked, strict=True):
                if key not in set(known):
                    raise unknown_name(name, value, set(frame[name]), str(folder))
            frame = frame[known.isin(asked)].reset_index(drop=True)
    frame.attrs["duplicates"] = duplicates
    chosen = {
        record.task: choose(_primary(record.line), numbers_of(record.line), prefer)
        for record in records
    }
    frame.attrs["primary"] = {task: metric for task, (metric, _) in chosen.items() if metric}
    frame.attrs["why"] = {task: why for task, (_, why) in chosen.items()}
    _say_undecided(path, [record for record in records if not chosen[record.task][0]])
    return frame


def _say_undecided(path: Path, records: Sequence[TaskScores]) -> None:
    """Names on standard error those of the tasks that no rule tells the score of."""
    found = {}
    for record in records:
        numbers = numbers_of(record.line)
        if PRIMARY not in numbers:
            found[record.task] = scores_among(numbers)
    said = undecided({task: scores for task, scores in found.items() if scores})
    if said:
        complain(f"{path}: which metric is the score is not said: {said}; choose with metrics")


def read_instances(folder: str | Path, task: str, model_hash: str | None = None) -> pd.DataFrame:
    """Metrics of every document of a task: `doc_id, native_id` and a column a metric.

    Raises `DataError` if the folder holds no predictions of the task.
    """
    path = Path(folder)
    records, _ = newest(path, of_one_model(path, _found(path), model_hash))
    known = {plain(record.task): record for record in records}
    if plain(task) not in known:
        raise unknown_name("task", task, known, str(folder))
    predictions = _predictions(known[plain(task)])
    if not predictions:
        raise DataError(f"{folder}: holds no predictions of {task!r}")
    return pd.DataFrame(
        [
            {"doc_id": p.get("doc_id"), "native_id": p.get("native_id"), **p["metrics"]}
            for p in predictions
        ]
    )


def _found(path: Path) -> list[TaskScores]:
    """Every record at a path, of whichever evaluator wrote them. Raises `DataError`."""
    if path.is_file():
        if path.name == SUMMARY and olmo_eval.wrote(summary := read_json(path)):
            return olmo_eval.records(path, summary)
        return harness.records([path])
    if not path.is_dir():
        raise DataError(f"{path}: no such folder or file of scores")
    written = path / SUMMARY
    summary = read_json(written) if written.is_file() else {}
    if olmo_eval.wrote(summary):
        records = olmo_eval.records(written, summary)
    else:
        records = _records(path)
        _refuse_other_model(written, summary, records)
        records = records or list(_summary(written, summary))
    results = harness.files(path)
    if records and results:
        raise DataError(
            f"{path}: holds files of two evaluators ({records[0].source.name} and "
            f"{results[0].relative_to(path)}); name one of the files, or keep one folder each"
        )
    records = records or harness.records(results)
    if not records:
        raise DataError(
            f"{path}: holds no {ALL}, task-*-metrics.json, {SUMMARY} or results*.json with scores"
        )
    return records


def _records(folder: Path) -> list[TaskScores]:
    """The records of `metrics-all.jsonl`, then those of tasks that have only their own file."""
    records = []
    if (folder / ALL).is_file():
        records += [_record(line, folder / ALL) for line in _lines(folder / ALL)]
    for path in sorted(folder.glob("task-*-metrics.json")):
        if path.name.endswith("-verbose-metrics.json"):
            continue
        line = read_json(path)
        if "metrics" in line:  # without, it is the note of a run that had no model
            records.append(_record(line, path))
    return records


def _record(line: Mapping[str, Any], source: Path) -> TaskScores:
    for key in ("task_name", "metrics"):
        if key not in line:
            raise DataError(f"{source}: a record without {key!r}")
    where = f"{source}: {line['task_name']}"
    if not isinstance(line["metrics"], Mapping):
        raise DataError(f"{where}: metrics: expected a mapping, not {line['metrics']!r}"[:300])
    config = mapping(line, "task_config", where)
    mapping(config, "context_kwargs", f"{where}: task_config")
    metadata = mapping(config, "metadata", f"{where}: task_config")
    checked(line, ("task_name", "model_hash", "task_hash"), where)
    mapping(line, "model_config", where)
    if not isinstance(line.get("task_idx"), int | None):
        raise DataError(f"{where}: task_idx: {line['task_idx']!r}: expected a whole number"[:300])
    checked(config, ("primary_metric",), f"{where}: task_config")
    checked(metadata, ("alias",), f"{where}: task_config.metadata")
    count_of(line.get("num_instances"), f"{where}: num_instances")
    alias = str(metadata.get("alias") or line["task_name"])
    return TaskScores(alias, line, source, date_of(line.get("current_date")))


def _refuse_other_model(
    path: Path, summary: Mapping[str, Any], records: Sequence[TaskScores]
) -> None:
    """OLMES keeps the scores that it finds in a folder, also another model's.

    Its summary then names the model that was asked for, the records the one that was scored.
    """
    asked = summary.get("model_config")
    if not isinstance(asked, Mapping) or not asked:
        return
    for record in records:
        scored = record.line.get("model_config")
        if not isinstance(scored, Mapping):
            continue
        for key in MODEL_KEYS:
            if asked.get(key) != scored.get(key):
                raise DataError(
                    f"{path}: model_config.{key} is {asked.get(key)!r}, but {record.source.name} "
                    f"holds scores of {scored.get(key)!r} ({record.task}): OLMES kept what another "
                    "model had left in the folder; score again into a new one"
                )


def _summary(path: Path, summary: Mapping[str, Any]) -> Iterator[TaskScores]:
    """The tasks of `metrics.json`, as OLMES writes it now and as it did until 2024."""
    common = {"model_hash": "", "model_config": summary.get("model_config")}
    for form, name in (("tasks", "alias"), ("metrics", "task")):
        entries = summary.get(form) or []
        if not isinstance(entries, list):
            raise DataError(f"{path}: {form}: expected a list")
        for number, entry in enumerate(entries):
            where = f"{path}: {form}[{number}]"
            if not isinstance(entry, Mapping) or not isinstance(entry.get(name), str):
                raise DataError(f"{where}: expected a mapping with {name!r}")
            line = {**entry, "task_name": entry[name], **common}
            if form == "metrics":
                known = ("task", "num_instances", "task_config")
                line["metrics"] = {k: v for k, v in entry.items() if k not in known}
            elif "metrics" not in entry:
                raise DataError(f"{where}: a record without 'metrics'")
            yield _record(line, path)


def _predictions(record: TaskScores) -> list[dict[str, Any]]:
    """What was predicted for each document, if the folder has it."""
    index = record.line.get("task_idx")
    if not isinstance(index, int):
        return []
    matches = sorted(record.source.parent.glob(f"task-{index:03d}-*-predictions.jsonl"))
    for path in matches:
        rows = _lines(path)
        for number, row in enumerate(rows, 1):
            if not isinstance(row.get("metrics"), Mapping):
                raise DataError(f"{path}: line {number}: a prediction without 'metrics'")
            for name, value in row["metrics"].items():
                if isinstance(value, (int, float)) and (said := problem(name, value, value)):
                    raise DataError(f"{path}: line {number}: {said}")
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
    # Some releases of OLMES leave colons out of a file's name, too.
    safe = {name.replace("/", "_") for name in names}
    return middle in safe | {name.replace(":", "_") for name in safe}


def _rows(record: TaskScores) -> list[dict[str, Any]]:
    where, primary = f"{record.source}: {record.task}", _primary(record.line)
    for name, value in record.line["metrics"].items():
        if isinstance(value, Mapping) and (name == PRIMARY or range_of(name)):
            raise DataError(f"{where}: {name}: {value!r}: expected a number"[:300])
    dropped = []
    for name, value in leaves(record.line["metrics"]):
        number = number_of(value)
        if said := problem(name, value, number, primary):
            raise DataError(f"{where}: {said}")
        if value is not None and number is None:
            dropped.append(f"{name} ({value!r})")
    rows = rows_of(record.task, record.line, _predictions(record), record.errors)
    for row in rows:
        if not math.isfinite(row["value"]):
            raise DataError(f"{where}: {row['metric']} is {row['value']}, not a number")
        if row["stderr"] < 0 or math.isinf(row["stderr"]):
            raise DataError(
                f"{where}: {row['metric']}: its standard error is {row['stderr']:g}, not a number "
                "from 0 up"
            )
    if dropped:
        complain(f"{where}: not numbers, left out: {', '.join(dropped)[:300]}")
    if primary and not {primary, PRIMARY} & {row["metric"] for row in rows}:
        complain(
            f"{where}: primary_metric: {primary!r} is none of its metrics; it has no {PRIMARY}"
        )
    return rows


def rows_of(
    task: str,
    line: Mapping[str, Any],
    predictions: Sequence[Mapping[str, Any]],
    errors: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """A row for every number among a task's metrics, and one for its score where it has one.

    `errors` are standard errors that the evaluator says, by metric; others come from predictions.
    """
    values = numbers_of(line)
    primary = _primary(line)
    if PRIMARY not in values and primary in values:
        values[PRIMARY] = values[primary]
    said = errors or {}
    rows = []
    for metric, value in values.items():
        chosen, base = _stratum(metric, predictions)
        count = len(chosen) if base != metric else count_of(line.get("num_instances"))
        if metric == PRIMARY:
            base = primary or metric
        error = said.get(base)
        rows.append(
            {
                "task": task,
                "metric": metric,
                "value": value,
                "n_instances": count,
                "stderr": _stderr(base, value, chosen) if error is None else error,
                "task_hash": str(line.get("task_hash") or ""),
                "model_hash": str(line.get("model_hash") or ""),
            }
        )
    return rows


def _primary(line: Mapping[str, Any]) -> str:
    return str((line.get("task_config") or {}).get("primary_metric") or "")


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
    for number, text in enumerate(path.read_bytes().splitlines(), 1):
        try:
            row = json.loads(text)
        except (json.JSONDecodeError, UnicodeDecodeError):
            row = None
        if not isinstance(row, dict):
            raise DataError(
                f"{path}: line {number} is cut off or not JSON; remove the file and score again"
            )
        rows.append(row)
    return rows
