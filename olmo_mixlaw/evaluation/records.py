"""A task's record, whichever evaluator wrote it, and which of several records holds.

Records of several models are never put together. Of several records of one task the newest holds,
by the dates that the files themselves say, and every other is named.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from olmo_mixlaw.errors import DataError, unknown_name

SUFFIX = "::mixlaw"  # OLMES's way to say whose settings a name stands for
# What a task's record says of the data asked about; two records that differ here are two tasks.
DATASET = ("dataset_path", "dataset_name")
DATE = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True)
class TaskScores:
    """One task's record: its values under OLMES's keys, and where it was read.

    `date` sorts by time and is empty where the file doesn't say it; `model` says in words what
    `model_hash` stands for; `errors` are the evaluator's own standard errors, by metric.
    """

    task: str
    line: Mapping[str, Any]
    source: Path
    date: str = ""
    model: str = ""
    errors: Mapping[str, float] = field(default_factory=dict)

    @property
    def model_hash(self) -> str:
        return str(self.line.get("model_hash") or "")


def plain(name: str) -> str:
    """A task's name without OLMES's suffix: with and without, it is the same task."""
    return name.removesuffix(SUFFIX)


def of_one_model(
    path: Path, records: Iterable[TaskScores], model_hash: str | None
) -> list[TaskScores]:
    """The records of the one model that there is, or of `model_hash`. Raises `DataError`."""
    records = list(records)
    named = {record.model_hash: record.model for record in records}
    if model_hash is not None:
        if model_hash not in named:
            raise unknown_name("model_hash", model_hash, named, str(path))
        return [record for record in records if record.model_hash == model_hash]
    if len(named) > 1:
        said = [f"{key or 'not said'} {named[key]}".strip() for key in sorted(named)]
        raise DataError(
            f"{path}: holds scores of {len(named)} models ({', '.join(said)}); keep one folder a "
            "model, or say which with model_hash"
        )
    return records


def newest(path: Path, records: Sequence[TaskScores]) -> tuple[list[TaskScores], list[str]]:
    """One record a task, and a line about each that is left out.

    A record that was read twice (same date, same values) counts once. Raises `DataError` where
    two records differ and no date says which is newer, or are about different data.
    """
    chosen: dict[str, TaskScores] = {}
    duplicates = []
    for record in records:
        key = plain(record.task)
        before = chosen.setdefault(key, record)
        if before is record:
            continue
        _refuse_other_data(path, before, record)
        if before.date == record.date:
            if _same(before, record):
                continue
            raise DataError(
                f"{path}: {record.task}: {_place(path, before)} and {_place(path, record)} differ, "
                "and no date says which is newer; keep one of them"
            )
        left, kept = sorted((before, record), key=lambda r: r.date)
        if not left.date:
            raise DataError(
                f"{path}: {record.task}: {_place(path, left)} has no date, so it may be older or "
                f"newer than {_place(path, kept)}; keep one of them"
            )
        kept = kept if before.task == record.task else replace(kept, task=key)
        chosen[key] = kept
        duplicates.append(
            f"{kept.task}: kept {_place(path, kept)} ({kept.date}), "
            f"left out {_place(path, left)} ({left.date})"
        )
    return list(chosen.values()), duplicates


def _same(one: TaskScores, other: TaskScores) -> bool:
    return all(one.line.get(key) == other.line.get(key) for key in ("metrics", "task_hash"))


def _place(path: Path, record: TaskScores) -> str:
    inside = record.source.is_relative_to(path) and record.source != path
    return str(record.source.relative_to(path)) if inside else record.source.name


def _refuse_other_data(path: Path, one: TaskScores, other: TaskScores) -> None:
    first, second = _data(one.line), _data(other.line)
    for key in first.keys() & second.keys():
        if first[key] != second[key]:
            raise DataError(
                f"{path}: {plain(one.task)} is of two datasets ({first[key]} in "
                f"{_place(path, one)}, {second[key]} in {_place(path, other)}); keep one of them, "
                "or score again with a metadata.alias for each"
            )


def _data(line: Mapping[str, Any]) -> dict[str, str]:
    config = line.get("task_config") or {}
    context = config.get("context_kwargs") or {}
    found = {key: config.get(key) for key in DATASET} | {"dataset": context.get("dataset")}
    return {key: str(value) for key, value in found.items() if value}


def count_of(value: Any, where: str = "") -> float:
    """A number of documents; NaN where the record doesn't say it (0 and -1 say nothing either).

    With `where` (file and key) anything that is no number of documents raises `DataError`.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and 0 < value < 2**53 and float(value).is_integer():
        return int(value)
    said = not number or value > 0 or value < -1
    if where and value is not None and said:
        raise DataError(f"{where}: {repr(value)[:80]}: expected a whole number of documents")
    return math.nan


def date_of(value: Any) -> str:
    """A date that sorts by time; empty where none is said, or what is said is no date."""
    return value if isinstance(value, str) and DATE.match(value) else ""


def checked(values: Mapping[str, Any], keys: Iterable[str], where: str) -> None:
    """Raises `DataError` where one of the keys has a value that is no text."""
    for key in keys:
        if not isinstance(values.get(key) or "", str):
            raise DataError(f"{where}: {key}: {repr(values[key])[:80]}: expected a text")


def number_of(value: Any) -> float | None:
    """A number, also one that was written as text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def numbers_of(line: Mapping[str, Any]) -> dict[str, float]:
    """Every number among a record's metrics, by name."""
    values = leaves(line["metrics"])
    return {name: found for name, value in values if (found := number_of(value)) is not None}


def leaves(metrics: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every value among the metrics by name; of two of one name, the inner with its group's."""
    seen = set()
    for name, value in _flat(metrics):
        last = name[-1]
        shown = last if last not in seen else ":".join(name)
        seen.add(shown)
        yield shown, value


def _flat(
    metrics: Mapping[str, Any], outer: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    nested = [name for name, value in metrics.items() if isinstance(value, Mapping)]
    for name, value in metrics.items():
        if name not in nested:
            yield (*outer, name), value
    for name in nested:
        yield from _flat(metrics[name], (*outer, name))


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds. Raises `DataError`."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise DataError(f"{path}: is cut off or not JSON; remove it and score again") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a JSON object")
    return value


def mapping(values: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    """The mapping under `key`, empty where there is none. Raises `DataError` for anything else."""
    value = values.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise DataError(f"{where}: {key}: expected a mapping, not {value!r}"[:300])
    return value
