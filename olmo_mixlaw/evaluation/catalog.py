"""Every task by name: of the registry, suites from `eval_suites/`, OLMES request dumps.

A task is asked for by name (`bio_recall:mc`, `bio_recall:mc::mixlaw`), by a mapping with
`task_name` and settings, or by the same as JSON. A suite's name stands for its tasks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import cache
from typing import Any

from olmo_mixlaw.errors import ConfigError, complain, unknown_name
from olmo_mixlaw.evaluation import dumps
from olmo_mixlaw.evaluation.records import SUFFIX, plain
from olmo_mixlaw.evaluation.suites import is_suite, load_suite, suite_names
from olmo_mixlaw.evaluation.tasks import Task, TaskConfig
from olmo_mixlaw.registry import TASKS


def task_names() -> list[str]:
    """Every task of ours and of packages, variants included; those of OLMES are in `dumps`."""
    return list(_usable(tuple(TASKS.names())))


@cache
def _usable(names: tuple[str, ...]) -> list[str]:
    """Those of the `names` whose task can be used; a package's that can't says so, once."""
    taken = {*suite_names(), *dumps.catalogue()}
    usable = set()
    for name, task in TASKS.parts():
        if name in taken:
            complain(f"task {name!r} of {task.__module__} is left out: the name is taken")
        else:
            usable.add(name)
    return [name for name in names if name in usable]


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
        if plain(task.name) in seen:
            raise ConfigError(
                f"task {task.name!r} is asked for twice; give one of them another metadata.alias"
            )
        seen.add(plain(task.name))
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
    if name in dumps.catalogue():
        _check_limit(settings.get("limit"), name)
        return dumps.make(name, settings)
    core = name.removesuffix(SUFFIX)
    if core not in TASKS.names():
        raise unknown_name("task", core, [*task_names(), *suite_names(), *dumps.names()])
    cls: type[Task] = TASKS.get(core)
    context = {**cls.context, **(settings.get("context_kwargs") or {})}
    metadata = dict(settings.get("metadata") or {})
    if "alias" not in metadata:
        domain = context.get("domain")  # tasks of several sources are told apart by it
        metadata["alias"] = f"{core}:{domain}{name[len(core) :]}" if domain else name
    values = {k: v for k, v in settings.items() if v is not None}
    values |= {"task_name": core, "context_kwargs": context, "metadata": metadata}
    _check_limit(values.get("limit"), name)
    for key, only in (("num_shots", 0), ("split", "test")):
        if values.get(key, only) != only:
            raise ConfigError(
                f"task {name}: {key}: {values[key]!r}: expected {only!r}; examples would be drawn "
                "from the questions that are asked"
            )
    return cls(TaskConfig(**values))


def _check_limit(limit: Any, name: str) -> None:
    if limit is None:
        return
    number = isinstance(limit, (int, float)) and not isinstance(limit, bool)
    if not number or not (0 < limit < 1 or (limit >= 1 and float(limit).is_integer())):
        raise ConfigError(
            f"task {name}: limit: {limit!r}: expected a positive whole number, or a share below 1"
        )
