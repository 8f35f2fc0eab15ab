"""Folders of Ai2's olmo-eval, the successor of OLMES, read into task records.

Its `metrics.json` has a list `tasks` whose metrics are `{metric: {scorer: value}}`, and says in
`primary_metric` (`metric:scorer`) which of them is the task's score.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from olmo_mixlaw.errors import DataError, complain
from olmo_mixlaw.evaluation.records import TaskScores, checked, count_of, date_of, mapping


def wrote(summary: Mapping[str, Any]) -> bool:
    """Whether a `metrics.json` is olmo-eval's and not one of OLMES, which has `model_config`."""
    return "tasks" in summary and "config" in summary and "model_config" not in summary


def records(path: Path, summary: Mapping[str, Any]) -> list[TaskScores]:
    """A record for every task of a `metrics.json`; one that failed is named. `DataError`."""
    entries = summary["tasks"]
    if not isinstance(entries, list):
        raise DataError(f"{path}: tasks: expected a list")
    config = mapping(summary, "config", str(path))
    models = mapping(config, "models", f"{path}: config")
    found = []
    for number, entry in enumerate(entries):
        where = f"{path}: tasks[{number}]"
        if not isinstance(entry, Mapping) or not isinstance(entry.get("task"), str):
            raise DataError(f"{where}: expected a mapping with 'task'")
        checked(entry, ("primary_metric",), where)
        count_of(entry.get("num_instances"), f"{where}: num_instances")
        name = entry.get("model")
        model = mapping(models, str(name), f"{path}: config.models") if models else config
        shown = str(name or model.get("model") or model.get("name") or "")
        line = _line(entry, where, _primary(entry, summary, where), _hash(model))
        if line["metrics"]:
            date = date_of(summary.get("timestamp"))
            found.append(TaskScores(entry["task"], line, path, date, shown))
        else:
            complain(f"{where}: {entry['task']} has no metrics and is left out")
    failures = summary.get("errors") or []
    for failed in failures if isinstance(failures, list) else [failures]:
        said = failed.get("task") if isinstance(failed, Mapping) else failed
        complain(f"{path}: olmo-eval says that {said} failed")
    return found


def _primary(entry: Mapping[str, Any], summary: Mapping[str, Any], where: str) -> str:
    """The `metric:scorer` that the task calls its score, or else the summary does."""
    if entry.get("primary_metric"):
        return str(entry["primary_metric"])
    scores = mapping(summary, "summary", where)
    of_model = scores.get(str(entry.get("model"))) or scores
    said = of_model.get(entry["task"]) if isinstance(of_model, Mapping) else None
    return str(said.get("metric") or "") if isinstance(said, Mapping) else ""


def _line(entry: Mapping[str, Any], where: str, primary: str, model_hash: str) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    for metric, scorers in mapping(entry, "metrics", where).items():
        if isinstance(scorers, Mapping):
            metrics |= {f"{metric}:{scorer}": value for scorer, value in scorers.items()}
        else:
            metrics[metric] = scorers
    if metrics and primary and primary not in metrics:
        complain(
            f"{where}: primary_metric: {primary!r} is none of its metrics ({', '.join(metrics)}), "
            "so the task has no primary_score"
        )
        primary = ""
    config = mapping(entry, "config", where)
    return {
        "task_name": entry["task"],
        "task_hash": entry.get("task_hash") or "",
        "model_hash": model_hash,
        "task_config": {**config, "primary_metric": primary},
        "num_instances": entry.get("num_instances"),
        "metrics": metrics,
    }


def _hash(model: Mapping[str, Any]) -> str:
    said = model.get("model_hash")
    text = json.dumps(model, sort_keys=True, default=str)
    return str(said) if said else hashlib.md5(text.encode()).hexdigest()
