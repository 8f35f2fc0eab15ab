"""Results of EleutherAI's lm-evaluation-harness and of lighteval, read into task records.

Both write `results: {task: {metric: value, metric_stderr: value}}`. In the harness a metric's
name ends in its filter (`acc,none`), which is left out where it is `none`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from olmo_mixlaw.errors import DataError
from olmo_mixlaw.evaluation.records import TaskScores, count_of, mapping, number_of, read_json

STDERR = "_stderr"
# Beside the metrics of a task: what it is called and how many documents it had.
NOT_METRICS = {"alias", "name", "sample_len", "sample_count", " "}
# lighteval's mean over everything that was asked, and its means over parts of a task.
OVERALL, AVERAGE = "all", ":_average"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(?:\.\d+)?")


def files(folder: Path) -> list[Path]:
    """The result files in a folder and below."""
    return sorted(folder.rglob("results*.json"))


def records(paths: Iterable[Path]) -> list[TaskScores]:
    """A record for every task of every file. Raises `DataError`."""
    read = [(path, read_json(path)) for path in paths]
    dates = _dates(read)
    return [
        replace(record, date=date)
        for (path, content), date in zip(read, dates, strict=True)
        for record in _of_file(path, content)
    ]


def _dates(read: Sequence[tuple[Path, Mapping[str, Any]]]) -> list[str]:
    """When each file was written, by a clock that all of them share where there is one.

    The harness says the start in `date`, in seconds; both tools end a file's name in local time.
    """
    inside = [_moment(content.get("date")) for _, content in read]
    names = [found[-1] if (found := TIME.findall(path.name)) else "" for path, _ in read]
    for dates in (inside, names):
        if all(dates):
            return dates
    return [""] * len(read)


def _moment(seconds: Any) -> str:
    if not isinstance(seconds, (int, float)) or not 0 < seconds < 1e11:
        return ""
    return datetime.fromtimestamp(seconds, tz=UTC).isoformat(timespec="microseconds")


def _of_file(path: Path, content: Mapping[str, Any]) -> list[TaskScores]:
    results, where = content.get("results"), f"{path}: results"
    if not isinstance(results, Mapping):
        raise DataError(
            f"{path}: holds no 'results' of the lm-evaluation-harness or lighteval (of OLMES's "
            "and olmo-eval's files, give the folder)"
        )
    content = {**content, "results": {task: mapping(results, task, where) for task in results}}
    for key in ("n-samples", "config_tasks"):
        parts = mapping(content, key, str(path))
        content[key] = {name: mapping(parts, name, f"{path}: {key}") for name in parts}
        for name, part in content[key].items():
            for field in ("effective", "effective_num_docs"):
                count_of(part.get(field), f"{path}: {key}.{name}.{field}")
    for name, children in mapping(content, "group_subtasks", str(path)).items():
        if not isinstance(children, list) or not all(isinstance(c, str) for c in children):
            raise DataError(f"{path}: group_subtasks: {name}: expected a list of names")
    lighteval = "config_general" in content
    model = _lighteval_model(content, path) if lighteval else _harness_model(content, path)
    digest = hashlib.md5(json.dumps(model, sort_keys=True, default=str).encode()).hexdigest()
    name = " ".join(str(value) for value in model if value)
    found = []
    for task in content["results"]:
        if lighteval and task == OVERALL:
            continue
        count_of(content["results"][task].get("sample_len"), f"{where}.{task}.sample_len")
        for key, value in content["results"][task].items():
            if isinstance(value, Mapping):
                raise DataError(f"{where}.{task}: {key}: {value!r}: expected a number"[:300])
        metrics, errors = _metrics(content["results"][task])
        count = _lighteval_count(content, task) if lighteval else _count(content, task)
        line = {"task_name": task, "model_hash": digest, "metrics": metrics, "num_instances": count}
        found.append(TaskScores(str(task), line, path, model=name, errors=errors))
    return found


def _harness_model(content: Mapping[str, Any], path: Path) -> list[Any]:
    config = mapping(content, "config", str(path))
    return [
        content.get("model_name"),
        config.get("model"),
        config.get("model_args"),
        config.get("model_sha") or config.get("model_revision"),
    ]


def _lighteval_model(content: Mapping[str, Any], path: Path) -> list[Any]:
    general = mapping(content, "config_general", str(path))
    config = mapping(general, "model_config", f"{path}: config_general")
    return [
        general.get("model_name") or config.get("model_name"),
        general.get("model_sha") or config.get("revision"),
        general.get("model_dtype") or config.get("dtype"),
    ]


def _count(content: Mapping[str, Any], task: str) -> float:
    """How many documents a task had, a group as many as its tasks together; NaN if not said."""
    samples, groups = content["n-samples"], content.get("group_subtasks") or {}
    own = samples.get(task, {}).get("effective") or content["results"][task].get("sample_len")
    children = groups.get(task)
    if own or not children:
        return count_of(own)
    # A task may be in two groups of one: it is counted once.
    leaves = _leaves(groups, task, set())
    return _total(_count(content, leaf) if leaf in content["results"] else None for leaf in leaves)


def _leaves(groups: Mapping[str, Sequence[str]], name: str, seen: set[str]) -> set[str]:
    if name in seen:
        return set()
    seen.add(name)
    children = groups.get(name) or []
    return {name} if not children else set().union(*(_leaves(groups, c, seen) for c in children))


def _lighteval_count(content: Mapping[str, Any], task: str) -> float:
    """The same of lighteval's, whose averages are named `<task>:_average|<shots>`."""
    tasks = content["config_tasks"]
    if AVERAGE in task:
        start, _, end = task.partition(AVERAGE)
        parts = [
            name
            for name in content["results"]
            if name.startswith(start + ":") and name.endswith(end) and AVERAGE not in name
        ]
        return _total(_lighteval_count(content, name) for name in parts)
    config = tasks.get(task) or tasks.get(task.rpartition("|")[0]) or {}
    return count_of(config.get("effective_num_docs"))


def _total(counts: Iterable[Any]) -> float:
    known = [count_of(count) for count in counts]
    return sum(known) if known else math.nan


def _metrics(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
    """Metrics by name, and their standard errors."""
    metrics: dict[str, Any] = {}
    errors: dict[str, float] = {}
    for key, value in values.items():
        name, _, chosen = key.partition(",")
        if key in NOT_METRICS or name.endswith(STDERR):
            continue
        shown = name if chosen in ("", "none") else f"{name},{chosen}"
        metrics[shown] = value
        error = number_of(values.get(f"{name}{STDERR}" + (f",{chosen}" if chosen else "")))
        if error is not None:
            errors[shown] = error
    return metrics, errors
