"""A study from beginning to end: prepare, train and score, collect, fit, propose, report.

Everything is checked before anything is written. The output folder holds plain files:
`data/` (tokenizer, tokens), `runs/<run>/`, `table/` (the RunTable), `fits/`, `proposed.yaml`,
`report.html`.
"""

from __future__ import annotations

import time
from pathlib import Path

import click

from olmo_mixlaw.errors import ConfigError, MixlawError
from olmo_mixlaw.runs import RunTable
from olmo_mixlaw.study.checks import possible_laws
from olmo_mixlaw.study.collect import collect
from olmo_mixlaw.study.config import load_study
from olmo_mixlaw.study.execution import executor_for
from olmo_mixlaw.study.failures import DONE, Failure, put_aside_before, summary
from olmo_mixlaw.study.findings import Findings, check_name, conclude
from olmo_mixlaw.study.folders import (
    alone,
    another_study,
    check_same_study,
    move_study_aside,
    write_configs,
    write_study,
)
from olmo_mixlaw.study.needs import check_needs
from olmo_mixlaw.study.partial import refresh
from olmo_mixlaw.study.places import TOKENIZER, run_folder
from olmo_mixlaw.study.plan import Run, of_what, plan
from olmo_mixlaw.study.prepare import prepare
from olmo_mixlaw.study.progress import StudyError, duration
from olmo_mixlaw.study.runner import run_all
from olmo_mixlaw.study.settings import StudyConfig
from olmo_mixlaw.study.trainers import require_trainer


def run_study(
    config: str, overrides: tuple[str, ...] = (), retry_failed: bool = False, rerun: bool = False
) -> Findings:
    """Run the study in `config`, going on from what its output folder already holds.

    Several processes may do so in one folder: each takes runs that nobody has, and all end with the
    same table. `retry_failed`: also with runs that failed before. `rerun`: runs that the folder has
    under another configuration are moved aside and made again. Returns what it found; what it does
    meanwhile is printed. Raises `ConfigError` before any work for a wrong study file or a folder
    that holds another study, and `StudyError` after all if runs failed.
    """
    started = time.monotonic()
    study = load_study(config, overrides)
    require_trainer(study, config)
    executor = executor_for(study, config)
    runs = plan(study)
    output = Path(study.output)
    if not rerun:
        check_same_study(study, output)
    for note in [*possible_laws(study, runs, config)[1], *check_needs(study, runs, config)]:
        click.echo(f"mind: {note}")
    with alone(output):
        if rerun and another_study(study, output) is not None:
            move_study_aside(output)
        check_same_study(study, output)
        # Runs that can't be joined are refused before anything of the folder is changed.
        folders = write_configs(study, runs, output, output / TOKENIZER, rerun)
        write_study(study, output)
        click.echo(
            f"study {study.name}: {len(runs)} runs ({of_what(study)}), {study.workers} side by "
            f"side, into {output}"
        )
        click.echo("preparing tokenizer and text")
        began = time.monotonic()
        prepare(study, output / TOKENIZER.parent)
        click.echo(f"prepared in {duration(time.monotonic() - began)}")
    began = time.monotonic()
    failed = run_all(
        runs,
        folders,
        executor,
        retries=study.retries,
        retry_failed=retry_failed,
        finished=lambda: refresh(study, runs, folders, output),
    )
    click.echo(f"trained and scored in {duration(time.monotonic() - began)}")
    with alone(output):
        found = finish_without(failed, study, runs, folders, output)
    click.echo(f"in all {duration(time.monotonic() - started)}")
    return found


def finish_without(
    failed: dict[str, Failure],
    study: StudyConfig,
    runs: list[Run],
    folders: dict[str, Path],
    output: Path,
    name: str | None = None,
) -> Findings:
    """`finish` with the runs that are there. Raises `StudyError` on those that failed, if any.

    What was found without them is said before.
    """
    if not failed:
        return finish(study, runs, folders, output, name)
    said = summary(failed, len(runs), folders)
    there = [run for run in runs if run.run_id not in failed]
    if not there:
        raise StudyError(said)
    try:
        found = finish(study, there, folders, output, name)
    except MixlawError as error:
        raise StudyError(f"{said}; the others are too few for a report: {error}") from None
    for line in found.lines:
        click.echo(line)
    raise StudyError(said)


def report_study(config: str, overrides: tuple[str, ...] = (), name: str | None = None) -> Findings:
    """Collect, fit and report a study whose runs are all finished; `name` is a scenario's.

    Runs that were put aside are left out, and named in the `StudyError` that is raised after all.
    """
    check_name(name)
    study = load_study(config, overrides)
    runs = plan(study)
    output = Path(study.output)
    check_same_study(study, output)
    folders = {run.run_id: run_folder(output, run.run_id) for run in runs}
    lacking = [run_id for run_id, folder in folders.items() if not (folder / DONE).is_file()]
    failed = {n: failure for n in lacking if (failure := put_aside_before(folders[n]))}
    missing = [run_id for run_id in lacking if run_id not in failed]
    if missing:
        raise ConfigError(
            f"{output}: run {missing[0]} isn't finished ({len(missing)} of {len(runs)} are "
            "missing); `olmo-mixlaw study run` goes on with them"
        )
    return finish_without(failed, study, runs, folders, output, name)


def finish(
    study: StudyConfig,
    runs: list[Run],
    folders: dict[str, Path],
    output: Path,
    name: str | None = None,
) -> Findings:
    """From finished runs to table, fits, proposal and report."""
    began = time.monotonic()
    table = collect(runs, folders, list(study.domains))
    table.save(output / "table")
    found = conclude(study, RunTable.load(output / "table"), output, name=name)
    click.echo(f"fitted and reported in {duration(time.monotonic() - began)}")
    return found
