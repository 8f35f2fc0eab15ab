"""Every task by name: built in, its variants, suites from `eval_suites/`, OLMES request dumps.

A task is asked for by name (`bio_recall:mc`, `bio_recall:mc::mixlaw`), by a mapping with
`task_name` and settings, or by the same as JSON. A suite's name stands for its tasks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from olmo_mixlaw.errors import ConfigError, unknown_name
from olmo_mixlaw.evaluation import dumps
from olmo_mixlaw.evaluation.held_out import DocumentLoss, DomainLoss
from olmo_mixlaw.evaluation.knowledge import (
    Recall,
    RecallBits,
    RecallChoice,
    RecallGeneration,
    Solution,
)
from olmo_mixlaw.evaluation.suites import is_suite, load_suite, suite_names
from olmo_mixlaw.evaluation.tasks import Task, TaskConfig

SUFFIX = "::mixlaw"  # OLMES's way to say whose settings a name stands for
ATTRIBUTES = ("birth_date", "birth_city", "university", "major", "employer")

RECALL: dict[str, type[Task]] = {
    "": Recall,
    ":gen": RecallGeneration,
    ":mc": RecallChoice,
    ":bpb": RecallBits,
}
REASONING: dict[str, type[Task]] = {"": Solution, ":forced": Recall, ":bpb": RecallBits}
# Family of tasks -> the dataset that it asks about, and its variants.
FAMILIES = {
    "bio_recall": ("biography", RECALL),
    "fact_recall": ("table", RECALL),
    "max_over_n": ("max_over_n", REASONING),
    "slope": ("slope", REASONING),
}

TASKS: dict[str, type[Task]] = {
    family + variant: type(cls.__name__, (cls,), {"dataset_name": dataset, "__doc__": cls.__doc__})
    for family, (dataset, variants) in FAMILIES.items()
    for variant, cls in variants.items()
} | {"domain_loss": DomainLoss, "domain_loss:documents": DocumentLoss}


def task_names() -> list[str]:
    """Every built-in task name, variants included."""
    return [*TASKS, *(f"bio_recall:{name}" for name in ATTRIBUTES)]


def resolve(
    specs: Iterable[str | Mapping[str, Any]], defaults: Mapping[str, Any] | None = None
) -> list[Task]:
    """The tasks that `specs` stand for, in order, each with a name of its own.

    `defaults` are settings for every task that doesn't give them (`limit`, ...). Raises
    `ConfigError` for an unknown name or key, and for two tasks of one name.
    """
    tasks: list[Task] = []
    for spec in specs:
        tasks += _resolve(spec, defaults or {})
    if not tasks:
        raise ConfigError("no task is asked for")
    seen: set[str] = set()
    for task in tasks:
        if task.name in seen:
            raise ConfigError(
                f"task {task.name!r} is asked for twice; give one of them another metadata.alias"
            )
        seen.add(task.name)
    return tasks


def _resolve(spec: str | Mapping[str, Any], defaults: Mapping[str, Any]) -> list[Task]:
    if isinstance(spec, str):
        text = spec.strip()
        if not text.startswith("{"):
            return _by_name(text, defaults)
        try:
            spec = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"task {text!r}: not valid JSON ({error})") from None
    if not isinstance(spec, Mapping) or not isinstance(spec.get("task_name"), str):
        raise ConfigError(f"task {spec!r}: expected a name, or a mapping with task_name")
    return [make_task(spec["task_name"], {**defaults, **spec})]


def _by_name(name: str, defaults: Mapping[str, Any]) -> list[Task]:
    if is_suite(name):
        return resolve(load_suite(name).tasks, defaults)
    return [make_task(name, defaults)]


def make_task(name: str, settings: Mapping[str, Any]) -> Task:
    """The task called `name` with `settings` under OLMES's keys. Raises `ConfigError`."""
    known = {f.name for f in fields(TaskConfig)}
    for key in settings:
        if key not in known:
            raise unknown_name("key", key, known, f"task {name}")
    for key in ("context_kwargs", "generation_kwargs", "metric_kwargs", "metadata"):
        if not isinstance(settings.get(key) or {}, Mapping):
            raise ConfigError(f"task {name}: {key}: expected a mapping")
    core, suffix = _split_suffix(name)
    if not _is_ours(core) and name in dumps.catalogue():
        _check_limit(settings.get("limit"), name)
        return dumps.make(name, settings)
    context = dict(settings.get("context_kwargs") or {})
    cls, context = _definition(core, context)
    metadata = dict(settings.get("metadata") or {})
    if "alias" not in metadata:
        domain = context.get("domain")
        metadata["alias"] = f"{core}:{domain}{suffix}" if domain else name
    values = {k: v for k, v in settings.items() if v is not None}
    values |= {"task_name": core, "context_kwargs": context, "metadata": metadata}
    _check_limit(values.get("limit"), name)
    return cls(TaskConfig(**values))


def _split_suffix(name: str) -> tuple[str, str]:
    return (name.removesuffix(SUFFIX), SUFFIX) if name.endswith(SUFFIX) else (name, "")


def _is_ours(core: str) -> bool:
    base, _, attribute = core.partition(":")
    return core in TASKS or (base == "bio_recall" and attribute in ATTRIBUTES)


def _definition(core: str, context: dict[str, Any]) -> tuple[type[Task], dict[str, Any]]:
    if not _is_ours(core):
        raise unknown_name("task", core, [*task_names(), *suite_names(), *dumps.names()])
    if core in TASKS:
        return TASKS[core], context
    base, _, attribute = core.partition(":")
    return TASKS[base], {"attribute": attribute, **context}


def _check_limit(limit: Any, name: str) -> None:
    if limit is not None and (
        isinstance(limit, bool) or not isinstance(limit, (int, float)) or limit <= 0
    ):
        raise ConfigError(f"task {name}: limit: {limit!r}: expected a positive number")
