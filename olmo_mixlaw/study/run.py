"""A study from beginning to end: prepare, train and score, collect, fit, propose, report.

Everything is checked before anything is written. The output folder holds plain files:
`data/` (tokenizer, tokens), `runs/<run>/`, `table/` (the RunTable), `fits/`, `proposed.yaml`,
`report.html`.
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
from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.runs import RunTable
from olmo_mixlaw.study.base import base_keys
from olmo_mixlaw.study.checks import possible_laws
from olmo_mixlaw.study.collect import collect
from olmo_mixlaw.study.config import load_study, save_study
from olmo_mixlaw.study.findings import Findings, conclude
from olmo_mixlaw.study.places import FILE, SHARED, earlier_place, moved
from olmo_mixlaw.study.plan import Run, of_what, plan
from olmo_mixlaw.study.prepare import prepare
from olmo_mixlaw.study.runner import DONE, duration, run_all
from olmo_mixlaw.study.scoring import tasks
from olmo_mixlaw.study.settings import StudyConfig
from olmo_mixlaw.study.slurm import check_cluster, run_all_on_slurm
from olmo_mixlaw.study.trainers import preloaded, require_trainer, run_config
from olmo_mixlaw.study.worker import CHECKPOINTS

# What the runs of one folder must have in common; the rest of a study file may change freely.
IN_COMMON = ("trainer", "ladder", "domains", "tokenizer", "evaluation")


def run_study(config: str, overrides: tuple[str, ...] = ()) -> Findings:
    """Run the study in `config`, going on from what its output folder already holds.

    Returns what it found; what it does meanwhile is printed. Raises `ConfigError` before any work
    for a wrong study file or a folder that holds another study.
    """
    started = time.monotonic()
    study = load_study(config, overrides)
    require_trainer(study, config)
    if study.slurm is not None:
        check_cluster()
    runs = plan(study)
    output = Path(study.output)
    check_same_study(study, output)
    for note in possible_laws(study, runs, config)[1]:
        click.echo(f"mind: {note}")
    with _only_one(output):
        # In this order: the earlier place is known until what names it is written anew.
        write_text(output / FILE, save_study(study))
        shared = {**_shared(study), "output": str(output.resolve())}
        write_text(output / SHARED, json.dumps(shared, indent=1) + "\n")
        click.echo(
            f"study {study.name}: {len(runs)} runs ({of_what(study)}), {study.workers} side by "
            f"side, into {output}"
        )
        click.echo("preparing tokenizer and text")
        began = time.monotonic()
        tokenizer = prepare(study, output / "data")
        click.echo(f"prepared in {duration(time.monotonic() - began)}")
        folders = write_configs(study, runs, output, tokenizer)
        began = time.monotonic()
        evaluation = {"tasks": tasks(study), "truncate": study.evaluation.truncate}
        if study.slurm is None:
            run_all(runs, folders, evaluation, study.workers, preloaded(study))
        else:
            run_all_on_slurm(runs, folders, evaluation, study.workers, study.slurm)
        click.echo(f"trained and scored in {duration(time.monotonic() - began)}")
        found = finish(study, runs, folders, output)
    click.echo(f"in all {duration(time.monotonic() - started)}")
    return found


def report_study(config: str, overrides: tuple[str, ...] = ()) -> Findings:
    """Collect, fit and report a study whose runs are all finished."""
    study = load_study(config, overrides)
    runs = plan(study)
    output = Path(study.output)
    check_same_study(study, output)
    folders = {run.run_id: output / "runs" / run.run_id for run in runs}
    missing = [name for name, folder in folders.items() if not (folder / DONE).is_file()]
    if missing:
        raise ConfigError(
            f"{output}: run {missing[0]} isn't finished ({len(missing)} of {len(runs)} are "
            "missing); `olmo-mixlaw study run` goes on with them"
        )
    return finish(study, runs, folders, output)


def finish(study: StudyConfig, runs: list[Run], folders: dict[str, Path], output: Path) -> Findings:
    """From finished runs to table, fits, proposal and report."""
    began = time.monotonic()
    table = collect(runs, folders, list(study.domains))
    table.save(output / "table")
    found = conclude(study, RunTable.load(output / "table"), output)
    click.echo(f"fitted and reported in {duration(time.monotonic() - began)}")
    return found


def write_configs(
    study: StudyConfig, runs: list[Run], output: Path, tokenizer: Path
) -> dict[str, Path]:
    """Each run's folder, holding the `config.yaml` that `olmo-mixlaw train` reads.

    Raises `ConfigError` if a folder holds a run of the same name under another configuration.
    """
    folders = {}
    for run in runs:
        folder = output / "runs" / run.run_id
        config = {
            **run_config(study, run, tokenizer, folder / CHECKPOINTS, output / "data"),
            **base_keys(study, run),
        }
        path = folder / "config.yaml"
        before = schema.read_mapping(path) if path.is_file() else None
        was, now = _without_places(before or config), _without_places(config)
        if now not in (was, moved(was, _earlier_place_by(before), output.resolve())):
            change = _first_change(was, now)
            raise ConfigError(
                f"{path}: the run was made under another configuration ({change}); "
                "give the study another output or remove that folder"
            )
        if before != config:  # new, or its folder has been moved
            write_text(path, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        folders[run.run_id] = folder
    return folders


def _earlier_place_by(config: dict[str, Any] | None) -> Path | None:
    """The study's folder when this run's configuration was written."""
    folder = Path(str((config or {}).get("save_folder")))
    return folder.parents[2] if folder.is_absolute() and len(folder.parts) > 3 else None


def _without_places(config: dict[str, Any]) -> dict[str, Any]:
    """A run's configuration without the paths of its study's folder, which may be moved."""
    rest = {k: v for k, v in config.items() if k not in ("save_folder", "tokenizer")}
    mixture = config.get("mixture")
    if isinstance(mixture, dict):
        rest["mixture"] = {k: v for k, v in mixture.items() if k != "cache_dir"}
    return rest


def check_same_study(study: StudyConfig, output: Path) -> None:
    """Raises `ConfigError` if `output` holds runs that can't be joined with this study's."""
    path = output / SHARED
    if not path.is_file():
        return
    before, now = schema.read_mapping(path), _shared(study)  # JSON is YAML
    before = {"trainer": "olmo", **before}  # which earlier versions don't say
    before = {key: _said(before.get(key)) for key in IN_COMMON}
    if now not in (before, moved(before, earlier_place(output), output.resolve())):
        raise ConfigError(
            f"{output}: holds a study with other settings ({_first_change(before, now)}); "
            "give this one another output or remove that folder"
        )


def _shared(study: StudyConfig) -> dict[str, Any]:
    values = dataclasses.asdict(study)
    return {key: _said(values[key]) for key in IN_COMMON}


def _said(value: Any) -> Any:
    """A setting without the keys that say nothing, which other versions may lack."""
    if isinstance(value, dict):
        return {k: _said(v) for k, v in value.items() if v not in (None, {}, [], False)}
    return value


def _first_change(before: Any, now: Any, prefix: str = "") -> str:
    """Where two nested mappings first differ, in words."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(k for k in now if k not in before)]:
            if before.get(key) != now.get(key):
                return _first_change(before.get(key), now.get(key), f"{prefix}{key}.")
    return f"{prefix.removesuffix('.')} was {before!r}, now {now!r}"


@contextmanager
def _only_one(output: Path) -> Iterator[None]:
    """Refuse to work in a folder where another study process works."""
    output.mkdir(parents=True, exist_ok=True)
    with os.fdopen(open_lock(output / ".lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{output}: another process runs this study") from None
        yield
