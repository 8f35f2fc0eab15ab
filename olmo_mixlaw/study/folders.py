"""A study's folder: what its runs have in common, the folder of each run, and what is moved aside.

A run's folder is used again only for the run that it was made for (`content`); another one of the
same name is refused, or with `rerun` takes its place while the old one is kept in `aside/`.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import yaml

from olmo_mixlaw import schema
from olmo_mixlaw.atomic import open_lock, write_text
from olmo_mixlaw.errors import ConfigError, complain
from olmo_mixlaw.study import content
from olmo_mixlaw.study.base import base_keys
from olmo_mixlaw.study.claims import holder_of, is_held
from olmo_mixlaw.study.config import save_study
from olmo_mixlaw.study.content import Shared, first_change, without_places
from olmo_mixlaw.study.failures import DONE, LOG
from olmo_mixlaw.study.places import FILE, RUNS, SHARED, earlier_place, moved, run_folder
from olmo_mixlaw.study.plan import Run
from olmo_mixlaw.study.recipes import keep
from olmo_mixlaw.study.settings import StudyConfig
from olmo_mixlaw.study.trainers import run_config
from olmo_mixlaw.study.worker import CHECKPOINTS

# What the runs of one folder must have in common; the rest of a study file may change freely.
IN_COMMON = ("trainer", "ladder", "domains", "tokenizer", "evaluation")
BEGUN = (LOG, DONE, CHECKPOINTS)  # what a run leaves that has begun
ASIDE, LOCK = "aside", ".lock"
LOOK = 0.5  # seconds between looks at a lock that another process has


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """Where a run is made, what `train` is told of it, and its content."""

    path: Path
    config: dict[str, Any]
    content: dict[str, Any]


@contextmanager
def alone(output: Path) -> Iterator[None]:
    """The block in one process at a time; another that shares the folder is waited for.

    Where the file system has no locks two may write the same files, each whole, with the same text.
    """
    output.mkdir(parents=True, exist_ok=True)
    with os.fdopen(open_lock(output / LOCK), "w") as file:
        said = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not said:
                    click.echo("waiting for another process that prepares or reports this study")
                said = True
                time.sleep(LOOK)
            except OSError as error:
                complain(f"{output / LOCK}: this file system has no locks ({error.strerror})")
                break
        yield


def write_study(study: StudyConfig, output: Path) -> None:
    """Write the study's own file, what its runs have in common, and the mixtures drawn."""
    keep(study)
    # In this order: the earlier place is known until what names it is written anew.
    write_text(output / FILE, save_study(study))
    shared = {**in_common(study), "output": str(output.resolve())}
    write_text(output / SHARED, json.dumps(shared, indent=1) + "\n")


def check_same_study(study: StudyConfig, output: Path) -> None:
    """Raises `ConfigError` if `output` holds runs that can't be joined with this study's."""
    difference = another_study(study, output)
    if difference is not None:
        raise ConfigError(
            f"{output}: holds a study with other settings ({difference}); give this one another "
            "output, or --rerun to move that one aside"
        )


def another_study(study: StudyConfig, output: Path) -> str | None:
    """Where the study that `output` holds first differs in what runs have in common, in words."""
    path = output / SHARED
    if not path.is_file():
        return None
    before, now = schema.read_mapping(path), in_common(study)  # JSON is YAML
    before = {"trainer": "olmo", **before}  # which earlier versions don't say
    before = {key: _said(before.get(key)) for key in IN_COMMON}
    if now in (before, moved(before, earlier_place(output), output.resolve())):
        return None
    return first_change(before, now)


def in_common(study: StudyConfig) -> dict[str, Any]:
    """What the runs of a study's folder must have in common."""
    return {key: _said(_plain(getattr(study, key))) for key in IN_COMMON}


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]


def _said(value: Any) -> Any:
    """A setting without the keys that say nothing, which other versions may lack."""
    if isinstance(value, dict):
        return {k: _said(v) for k, v in value.items() if v not in (None, {}, [], False)}
    return value


def write_configs(
    study: StudyConfig, runs: list[Run], output: Path, tokenizer: Path, rerun: bool = False
) -> dict[str, Path]:
    """Each run's folder, holding the `config.yaml` that `olmo-mixlaw train` reads.

    Nothing is written before all are looked at. Raises `ConfigError` if a folder holds a run of the
    same name that was made of something else; with `rerun` that folder is moved aside.
    """
    shared = Shared.of(study)
    wanted = [_wanted(study, run, output, tokenizer, shared) for run in runs]
    differing = [(some, told) for some in wanted if (told := _difference(some, shared, output))]
    if differing and not rerun:
        (first, told), more = differing[0], len(differing) - 1
        also = f" ({more} more runs differ)" if more else ""
        raise ConfigError(
            f"{first.path / 'config.yaml'}: the run was made under another configuration "
            f"({told}){also}; give the study another output, or --rerun to move it aside and make "
            "it again"
        )
    if differing:
        move_aside(output, [some.path for some, _ in differing])
    adopted = 0
    for some in wanted:
        path = some.path / "config.yaml"
        adopted += _has_begun(some.path) and content.kept(some.path) is None
        # New, or its folder has been moved.
        if not path.is_file() or schema.read_mapping(path) != some.config:
            text = yaml.safe_dump(some.config, sort_keys=False, allow_unicode=True)
            write_text(path, text)
        found = content.kept(some.path)
        if found is None or found["content"] != some.content:
            content.keep(some.path, some.content, shared)
    if adopted:
        click.echo(
            f"mind: {adopted} runs are of an earlier version, which kept less of what they were "
            "made of; all that it kept is the same"
        )
    return {run.run_id: some.path for run, some in zip(runs, wanted, strict=True)}


def _wanted(
    study: StudyConfig, run: Run, output: Path, tokenizer: Path, shared: Shared
) -> RunFolder:
    folder = run_folder(output, run.run_id)
    config = {
        **run_config(study, run, tokenizer, folder / CHECKPOINTS, output / "data"),
        **base_keys(study, run),
    }
    return RunFolder(folder, config, shared.content(config))


def _difference(wanted: RunFolder, shared: Shared, output: Path) -> str | None:
    """Where the run in that folder was made of something else, in words; None where it wasn't.

    A run that never began was made of nothing yet.
    """
    path = wanted.path / "config.yaml"
    if not path.is_file() or not _has_begun(wanted.path):
        return None
    before = schema.read_mapping(path)
    if before != wanted.config:
        was, now = without_places(before), without_places(wanted.config)
        if now not in (was, moved(was, _earlier_place_by(before), output.resolve())):
            return first_change(was, now)
    found = content.kept(wanted.path)
    return None if found is None else content.change(found, wanted.content, shared)


def _has_begun(folder: Path) -> bool:
    """Whether a run left something, or a process is about to begin it."""
    return any((folder / name).exists() for name in BEGUN) or is_held(folder)


def _earlier_place_by(config: dict[str, Any]) -> Path | None:
    """The study's folder when this run's configuration was written."""
    folder = Path(str(config.get("save_folder")))
    return folder.parents[2] if folder.is_absolute() and len(folder.parts) > 3 else None


def move_aside(output: Path, folders: list[Path]) -> Path:
    """Move folders or files of a study into the next `aside/<number>`, where they are kept.

    Raises `ConfigError` where another process works on one of them.
    """
    for folder in folders:
        for run in folder.iterdir() if folder.name == RUNS else [folder]:
            if run.is_dir() and is_held(run):
                raise ConfigError(
                    f"{run}: {holder_of(run)} works on this run; stop it before it is moved aside"
                )
    names = [p.name for p in (output / ASIDE).glob("*") if p.name.isdecimal()]
    place = output / ASIDE / str(1 + max(map(int, names), default=0))
    for folder in folders:
        to = place / folder.relative_to(output)
        to.parent.mkdir(parents=True, exist_ok=True)
        os.rename(folder, to)
    click.echo(f"moved {len(folders)} aside, into {place}")
    return place


def move_study_aside(output: Path) -> None:
    """Move all that a study's folder holds aside, but for what was moved before."""
    kept = (ASIDE, LOCK)
    folders = sorted(path for path in output.iterdir() if path.name not in kept)
    if folders:
        move_aside(output, folders)
