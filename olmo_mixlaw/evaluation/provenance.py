"""What a model was trained on, from its run's own record, and what it must not be scored on.

A checkpoint carries the configuration of its run, and a folder exported from one its `data`
section; the URIs there say which datasets the model has read, and so does the metadata beside
token files. A dataset that was made from a task's text names that task.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from olmo_mixlaw.datasets.memmap import metadata_rows
from olmo_mixlaw.datasets.moved import found_again
from olmo_mixlaw.datasets.uri import dataset_name, parse
from olmo_mixlaw.errors import CheckpointError, ConfigError, DataError, MixlawError, complain
from olmo_mixlaw.evaluation.language_model import LanguageModel
from olmo_mixlaw.evaluation.tasks import Task
from olmo_mixlaw.schema import read_mapping
from olmo_mixlaw.training_core.saved import first, is_checkpoint, newest, read_config
from olmo_mixlaw.training_core.saved import sources as core_sources

EXPORTED = "training_data.yaml"  # in a HuggingFace folder: the `data` section of its run


@dataclass(frozen=True)
class Record:
    """What the run's configuration says: the URIs of each source, by its label."""

    sources: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def uris(self) -> list[str]:
        """Every URI, and where token files stand instead, those that they were written from."""
        named = [uri for uris in self.sources.values() for uri in uris]
        return [origin for uri in named for origin in origins(uri)]


def record_of(model: str | Path | LanguageModel) -> Record:
    """The record of the run that made the model; empty where there is none.

    What was moved along with the run is named by where it is now.
    """
    folder = Path(model.config["model_path"]) if isinstance(model, LanguageModel) else Path(model)
    if (folder / "config.yaml").is_file():
        config = read_mapping(folder / "config.yaml")
        data = config.get("data") or {}
        saved_in = str(config.get("save_folder") or "")
    elif is_checkpoint(folder):
        config = read_config(folder)
        data = {"datasets": core_sources(config)}
        saved_in = str(first(config, "save_folder", lambda value: isinstance(value, str)) or "")
    elif (folder / EXPORTED).is_file():
        data, saved_in = read_mapping(folder / EXPORTED), ""
    else:
        return Record()
    sources = {str(k): list(v or []) for k, v in (data.get("datasets") or {}).items()}
    if data.get("paths"):
        sources["data"] = list(data["paths"])
    if Path(saved_in).is_absolute():
        before, now = Path(saved_in), folder.resolve().parent
        sources = {k: [found_again(u, before, now) for u in v] for k, v in sources.items()}
    return Record(sources)


def newest_checkpoint(model: str | Path) -> Path:
    """The model's folder: where `model` is a run's, or a study's run, its newest checkpoint.

    Raises `CheckpointError` where there is no such folder.
    """
    if "://" in str(model):
        raise CheckpointError(f"{model}: expected a folder; download the model to this machine")
    folder = Path(model)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such model folder")
    for inside in (folder / "latest-unsharded", folder / "checkpoints" / "latest-unsharded"):
        if not (folder / "model.pt").is_file() and (inside / "model.pt").is_file():
            return inside
    if is_checkpoint(folder):
        return folder
    for inside in (folder, folder / "checkpoints"):
        if inside.is_dir() and (found := newest(inside)) is not None:
            return found
    return folder


def origins(uri: str) -> list[str]:
    """The URI itself, or what the metadata of the token files at a path says they are made of."""
    if dataset_name(uri):
        return [uri]
    path = Path(uri)
    files = sorted(path.glob("*.npy")) if path.is_dir() else [path]
    return list(dict.fromkeys(read_source(file) for file in files)) or [uri]


def read_source(path: Path) -> str:
    """What the first document of a token file came from; the path where nothing says it."""
    try:
        return next(metadata_rows(path))[3]
    except (DataError, StopIteration, IndexError):
        return str(path)


def with_datasets(tasks: Iterable[Task], record: Record) -> list[Task]:
    """The tasks, each with the dataset that the model was trained on where it names none.

    A task of `every_source` without a dataset stands for one of each source of the run, as
    `domain_loss:<source>`.
    """
    filled: list[Task] = []
    for task in tasks:
        if task.parameter("dataset"):
            _say_if_others(task, record)
            filled.append(task)
        elif task.every_source:
            filled += _every_source(task, record)
        elif task.dataset_name:
            filled.append(_about(task, record))
        else:
            filled.append(task)
    return filled


def _every_source(task: Task, record: Record) -> list[Task]:
    named = {label: [u for u in uris if dataset_name(u)] for label, uris in record.sources.items()}
    if not any(named.values()):
        task.dataset_uri()  # raises, saying what to give
    wanted = task.parameter("domain")
    return [
        _with(task, uris[0], f"{task.name}:{label}", domain=label)
        for label, uris in named.items()
        if uris and wanted in (None, label)
    ]


def _about(task: Task, record: Record) -> Task:
    found = [uri for uri in record.uris() if dataset_name(uri) == task.dataset_name]
    if len(set(found)) > 1:
        raise ConfigError(
            f"{task.name}: the model was trained on several datasets of this kind "
            f"({', '.join(sorted(set(found)))}); say which in context_kwargs.dataset"
        )
    return _with(task, found[0], task.name) if found else task


def _say_if_others(task: Task, record: Record) -> None:
    """A note where a model is asked about a dataset that its record says it wasn't trained on."""
    asked = str(task.parameter("dataset"))
    known = [uri for uri in record.uris() if dataset_name(uri) == task.dataset_name != ""]
    if known and all(parse(uri) != parse(asked, task.name) for uri in known):
        complain(
            f"{task.name}: asks about {asked}, but the model's record says {', '.join(known)}: the "
            "score is of what it wasn't trained on"
        )


def _with(task: Task, uri: str, alias: str, **context: Any) -> Task:
    config = task.config
    return type(task)(
        replace(
            config,
            context_kwargs={**config.context_kwargs, "dataset": uri, **context},
            metadata={**config.metadata, "alias": alias},
        )
    )


def refuse_contaminated(tasks: Iterable[Task], record: Record) -> None:
    """Raises `DataError` if the model was trained on text that one of the tasks was made from."""
    uri_of: dict[str, str] = {}
    for uri in record.uris():
        if dataset_name(uri):
            for name in made_from(uri):
                uri_of[name] = uri
    for task in tasks:
        core = task.config.task_name.partition(":")[0]
        if core in uri_of:
            raise DataError(
                f"{task.name}: the model was trained on {uri_of[core]}, whose text this task "
                "was made from, so its score would say nothing"
            )


def made_from(uri: str) -> tuple[str, ...]:
    """The tasks that a dataset's text was made from, by what it is called.

    The text itself needn't be on this machine. Of a package's dataset only the package knows; one
    that can't be opened here is named on standard error.
    """
    from olmo_mixlaw.datasets import open_dataset
    from olmo_mixlaw.datasets.corpora import CORPORA
    from olmo_mixlaw.datasets.text import Text
    from olmo_mixlaw.registry import DATASETS

    name, values = parse(uri)
    try:
        part = DATASETS.get(name)
        if part is Text:
            corpus = values.get("corpus", "")
            return tuple(CORPORA[corpus].tasks) if corpus in CORPORA else ()
        if isinstance(part, type) and part.__module__.startswith(f"{__name__.partition('.')[0]}."):
            return tuple(getattr(part, "made_from", ()))
        return tuple(open_dataset(uri).made_from)
    except MixlawError as error:
        complain(f"{uri} can't be opened ({error}), so whether a task was made of it isn't known")
        return ()
