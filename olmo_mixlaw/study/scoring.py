"""What every run of a study is scored on: the loss of each domain, and tasks.

A task about a kind of dataset is asked of each domain that is one; any other task of ours, of a
package or of OLMES is asked as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from olmo_mixlaw.datasets import open_dataset
from olmo_mixlaw.datasets.base import Dataset
from olmo_mixlaw.datasets.uri import dataset_name, is_uri
from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.evaluation.catalog import resolve
from olmo_mixlaw.evaluation.provenance import Record, origins, refuse_contaminated
from olmo_mixlaw.evaluation.tasks import Task
from olmo_mixlaw.registry import TASKS
from olmo_mixlaw.study.settings import StudyConfig

DOMAIN_LOSS = "domain_loss"


def heldout_uri(study: StudyConfig, domain: str, where: str = "study") -> str:
    """The dataset that a domain is scored by: its own, or for token files what they were made of.

    Raises `ConfigError` for token files that don't say, unless `evaluation.heldout` does.
    """
    given = study.evaluation.heldout.get(domain)
    if given:
        return given
    uri = study.domains[domain]
    found = [origin for origin in ([uri] if is_uri(uri) else origins(uri)) if is_uri(origin)]
    if len(found) != 1:
        raise ConfigError(
            f"{where}: domains.{domain}: {uri}: token files that don't say which dataset they are "
            f"made of; give one with held-out text in evaluation.heldout.{domain}"
        )
    return found[0]


@lru_cache(maxsize=256)
def opened(uri: str) -> Dataset:
    """The dataset of a URI that was checked before, opened once."""
    return open_dataset(uri)


def questions(study: StudyConfig, domain: str) -> list[Any]:
    """What a domain can be asked; nothing for most."""
    return list(opened(heldout_uri(study, domain)).questions())


def recalls(study: StudyConfig, where: str = "study") -> list[tuple[str, Mapping[str, Any]]]:
    """(domain, task) for every task that is about a dataset, each with a name of its own.

    Raises `ConfigError` for a task about a kind of dataset that no domain is.
    """
    uris = {domain: heldout_uri(study, domain, where) for domain in study.domains}
    asked = []
    for task in _asked(study, where):
        if not task.dataset_name or task.parameter("dataset"):
            continue
        about = [d for d, uri in uris.items() if dataset_name(uri) == task.dataset_name]
        if not about:
            raise ConfigError(
                f"{where}: evaluation.tasks: {task.name} asks about a {task.dataset_name} dataset, "
                f"and no domain is one{_instead(uris)}"
            )
        asked += [(domain, task) for domain in about]
    several = len({domain for domain, _ in asked}) > 1
    return [
        (
            domain,
            {
                **_settings(task),
                "context_kwargs": {**task.config.context_kwargs, "dataset": uris[domain]},
                "metadata": {"alias": f"{task.name}:{domain}" if several else task.name},
            },
        )
        for domain, task in asked
    ]


def tasks(study: StudyConfig, where: str = "study") -> list[Any]:
    """Everything that `evaluate` is asked for, for each run."""
    losses = [
        {
            "task_name": DOMAIN_LOSS,
            "context_kwargs": {
                "dataset": heldout_uri(study, domain, where),
                "domain": domain,
                "max_tokens": study.evaluation.heldout_tokens,
            },
        }
        for domain in study.domains
    ]
    return [*losses, *(task for _, task in recalls(study, where)), *_others(study, where)]


def check_tasks(study: StudyConfig, where: str) -> None:
    """Raises `ConfigError` for tasks that no run could be scored on, and for contaminated ones."""
    resolved = resolve(tasks(study, where))
    for task in resolved:
        task.check()
    uris = [heldout_uri(study, domain, where) for domain in study.domains]
    read = {
        d: [u for u in (study.domains[d], uri) if is_uri(u)]
        for d, uri in zip(study.domains, uris, strict=True)
    }
    refuse_contaminated(resolved, Record(read))


def _asked(study: StudyConfig, where: str) -> list[Task]:
    """The tasks asked for, suites taken apart; without any, those made for the domains' kinds."""
    if study.evaluation.tasks is not None:
        return _resolved(study.evaluation.tasks, where)
    kinds = {dataset_name(heldout_uri(study, domain, where)) for domain in study.domains}
    names = [
        name
        for name, part in TASKS.parts()
        if ":" not in name and part.dataset_name and part.dataset_name in kinds
    ]
    return _resolved(names, where)


def _resolved(specs: list[Any], where: str) -> list[Task]:
    try:
        return resolve(specs) if specs else []
    except ConfigError as error:
        raise type(error)(f"{where}: evaluation.tasks: {error}") from None


def _others(study: StudyConfig, where: str) -> list[Any]:
    """The tasks that ask about no domain, as they were written, so that suites are averaged."""
    others: list[Any] = []
    for spec in study.evaluation.tasks or []:
        for task in _resolved([spec], where):
            if task.config.task_name == DOMAIN_LOSS and not task.parameter("dataset"):
                continue  # it is asked anyway
            if task.every_source and not task.parameter("dataset"):
                others += [
                    {
                        **_settings(task),
                        "context_kwargs": {
                            **task.config.context_kwargs,
                            "dataset": heldout_uri(study, domain, where),
                            "domain": domain,
                        },
                        "metadata": {"alias": f"{task.name}:{domain}"},
                    }
                    for domain in study.domains
                ]
            elif (not task.dataset_name or task.parameter("dataset")) and spec not in others:
                others.append(spec)
    return others


def _settings(task: Task) -> dict[str, Any]:
    """What `evaluate` is told of a task beside its dataset."""
    config = task.config
    kept: dict[str, Any] = {"task_name": config.task_name, "limit": config.limit}
    kept |= {"generation_kwargs": dict(config.generation_kwargs)}
    kept |= {"metric_kwargs": dict(config.metric_kwargs)}
    return {key: value for key, value in kept.items() if value}


def _instead(uris: Mapping[str, str]) -> str:
    """The tasks that the domains could be asked by, for an error."""
    kinds = {dataset_name(uri) for uri in uris.values()}
    names = [name for name, part in TASKS.parts() if part.dataset_name in kinds - {""}]
    return f"; tasks about the domains here: {', '.join(sorted(names))}" if names else ""
