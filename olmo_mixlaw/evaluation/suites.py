"""Suites: files of `eval_suites/` that name tasks, and the average of their tasks.

OLMES writes an average for a suite that says how (`primary_metric: macro` or `micro`) once all
its tasks were scored: a record like a task's, without a number, before those of the tasks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from olmo_mixlaw import schema
from olmo_mixlaw.errors import ConfigError, unknown_name
from olmo_mixlaw.shipped import find_config, shipped_folder

SUITES = "eval_suites"
# Of each metric, the mean over documents (weighted by tasks' numbers of them) and over tasks.
AVERAGES = ("micro", "macro")
EXTRA = "extra_metrics"


@dataclass
class Suite:
    """Tasks by name or with settings; with `primary_metric`, how their scores are averaged."""

    tasks: list[Any] = field(default_factory=list)
    description: str = ""
    primary_metric: str = ""


def suite_names() -> list[str]:
    """The suites that come with the package."""
    return sorted(path.stem for path in shipped_folder(SUITES).glob("*.yaml"))


def load_suite(name: str, where: str = "") -> Suite:
    """The suite at a path, or the shipped one of that name. Raises `ConfigError`."""
    path = find_config(SUITES, name, where)
    suite = schema.load(path, Suite)
    if not suite.tasks:
        raise ConfigError(f"{path}: tasks: at least one is needed")
    if suite.primary_metric and suite.primary_metric not in AVERAGES:
        raise unknown_name("primary_metric", suite.primary_metric, AVERAGES, str(path))
    return suite


def is_suite(name: str) -> bool:
    """Whether a task's name stands for a suite, by path or among the shipped ones."""
    return name.endswith((".yaml", ".yml")) or name in suite_names()


def averages(specs: Iterable[Any], lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The records of suites, shipped or among `specs`, of whose tasks `lines` has every one."""
    asked = [spec.strip() for spec in specs if isinstance(spec, str) and is_suite(spec.strip())]
    known = {str(line["task_name"]): line for line in lines}
    records: dict[str, dict[str, Any]] = {}
    for path in [*suite_names(), *asked]:
        suite = load_suite(path)
        tasks = [_name(spec) for spec in suite.tasks]
        if suite.primary_metric and all(task in known for task in tasks):
            name = Path(path).stem
            records[name] = average(name, suite.primary_metric, [known[task] for task in tasks])
    return list(records.values())


def _name(spec: Any) -> str:
    """What a suite's task is called in files."""
    if isinstance(spec, Mapping):
        return str((spec.get("metadata") or {}).get("alias") or spec.get("task_name"))
    return str(spec)


def average(name: str, primary_metric: str, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The record of a suite from those of its tasks, with the metrics that all of them have."""
    flat = [_numbers(line["metrics"]) for line in lines]
    counts = [int(line["num_instances"]) for line in lines]
    metrics: dict[str, Any] = {}
    for key in flat[0]:
        if not all(key in numbers for numbers in flat):
            continue
        values = [numbers[key] for numbers in flat]
        *outer, metric = key
        kept = metrics.setdefault(EXTRA, {}) if outer else metrics
        if metric.startswith("total_"):
            kept[metric] = sum(values)
            continue
        weighted = sum(v * n for v, n in zip(values, counts, strict=True))
        kept[f"{metric}_micro"] = weighted / sum(counts)
        kept[f"{metric}_macro"] = sum(values) / len(values)
    metrics["primary_score"] = metrics[f"primary_score_{primary_metric}"]
    first = lines[0]
    hashes = json.dumps(sorted(str(line["task_hash"]) for line in lines))
    return {
        **first,
        "task_name": name,
        "task_hash": hashlib.md5(hashes.encode()).hexdigest(),
        "task_config": {
            **first["task_config"],
            "task_name": name,
            "primary_metric": primary_metric,
            "metadata": {"num_tasks": len(lines), "description": "Aggregate metric", "alias": name},
        },
        "processing_time": sum(line["processing_time"] for line in lines),
        "num_instances": sum(counts),
        "metrics": metrics,
        "task_idx": None,
    }


def _numbers(metrics: Mapping[str, Any]) -> dict[tuple[str, ...], float]:
    """Every number among the metrics, under its name or `(extra_metrics, name)`."""
    found: dict[tuple[str, ...], float] = {}
    for name, value in metrics.items():
        if name == EXTRA:
            found |= {(EXTRA, *key): number for key, number in _numbers(value).items()}
        elif isinstance(value, (int, float)):
            found[name,] = float(value)
    return found
