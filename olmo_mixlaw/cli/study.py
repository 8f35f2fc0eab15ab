"""`olmo-mixlaw study`: run a study, or look at what it would do and where it stands."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from olmo_mixlaw.cli.answer import Answer, answers

if TYPE_CHECKING:
    from olmo_mixlaw.study.findings import Findings

WATCHED = 2.0  # seconds between looks of `status --watch` on a terminal
WATCHED_PLAINLY = 20.0  # and where its lines are kept
MOST_WATCHED = 30  # rows of it, those under way first


def _study(command: Callable[..., None]) -> Callable[..., None]:
    """CONFIG and OVERRIDES; an override may be written with two dashes, as `train` takes it."""
    command = click.argument("overrides", nargs=-1, type=click.UNPROCESSED)(command)
    return click.argument("config")(command)


OVERRIDDEN: dict[str, Any] = {"context_settings": {"ignore_unknown_options": True}}


@click.group()
def study() -> None:
    """Run a ladder of sizes and mixtures, and report.

    CONFIG is a YAML file, the name of a shipped study or the folder of one that has begun.
    OVERRIDES change single keys: `workers=4 target.tokens=4M`.
    """


@study.command(**OVERRIDDEN)
@_study
@click.option("--retry-failed", is_flag=True, help="Try runs again that failed before.")
@click.option(
    "--rerun",
    is_flag=True,
    help="Make runs again that the folder has under another configuration; the old ones are moved "
    "aside.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Say what each worker would have, or print what Slurm would be given, and do nothing.",
)
@answers
def run(
    answer: Answer,
    config: str,
    overrides: tuple[str, ...],
    retry_failed: bool,
    rerun: bool,
    dry_run: bool,
) -> None:
    """Train, score, fit and report the study in CONFIG.

    A study that was stopped, in whatever way, goes on from what is on disk. Several processes, also
    on several machines, may run one study in one folder: they share its runs.
    """
    from olmo_mixlaw.study.run import run_study

    if dry_run:
        _rehearse(answer, config, overrides)
        return
    _show(answer, run_study(config, overrides, retry_failed=retry_failed, rerun=rerun))


def _rehearse(answer: Answer, config: str, overrides: tuple[str, ...]) -> None:
    from olmo_mixlaw.study.config import load_study
    from olmo_mixlaw.study.execution import rehearse
    from olmo_mixlaw.study.plan import plan as plan_runs

    settings = load_study(config, overrides)
    lines = rehearse(settings, plan_runs(settings), config)
    answer.document = {"lines": lines}
    for line in lines:
        answer.show(line)


@study.command(**OVERRIDDEN)
@_study
@click.option(
    "--probe/--no-probe",
    default=None,
    help="Measure 20 steps on this machine first. Default: on a terminal, where that takes under "
    "half a minute.",
)
@click.option(
    "--hardware",
    metavar="GPU",
    help="Time and cost on such GPUs instead: h100, h200, ... or operations a second (312T).",
)
@click.option(
    "--mfu",
    type=float,
    default=None,
    help="The part of a GPU's peak that training reaches. Default: 0.4.",
)
@click.option("--price", type=float, default=None, help="Dollars an hour of a GPU.")
@answers
def plan(
    answer: Answer,
    config: str,
    overrides: tuple[str, ...],
    probe: bool | None,
    hardware: str | None,
    mfu: float | None,
    price: float | None,
) -> None:
    """Print the runs of the study in CONFIG and what each costs; nothing is trained."""
    from olmo_mixlaw.cli.study_plan import costs_of, costs_text, flops_of, row_of, rows_text
    from olmo_mixlaw.study.checks import possible_laws
    from olmo_mixlaw.study.config import load_study
    from olmo_mixlaw.study.needs import check_needs
    from olmo_mixlaw.study.plan import plan as plan_runs

    settings = load_study(config, overrides)
    runs = plan_runs(settings)
    laws, notes = possible_laws(settings, runs, config)
    if hardware is None:
        notes += check_needs(settings, runs, config)
    found = costs_of(settings, runs, config, probe, hardware, mfu, price)
    answer.document = {
        "runs": [row_of(item, flops) for item, flops in zip(runs, flops_of(runs), strict=True)],
        "laws": laws,
        "notes": notes,
        "output": settings.output,
        **found,
    }
    rows_text(answer, runs)
    for note in notes:
        answer.show(f"mind: {note}")
    for line in costs_text(found, len(runs), settings.output):
        answer.show(line)


@study.command(**OVERRIDDEN)
@_study
@click.option(
    "--name", help="A scenario: write report-NAME.html and so on, beside the study's own report."
)
@answers
def report(answer: Answer, config: str, overrides: tuple[str, ...], name: str | None) -> None:
    """Fit and report the finished study in CONFIG again, without training.

    With --name and OVERRIDES for the target, `target.weights` or `target.bounds`, as a scenario.
    """
    from olmo_mixlaw.study.run import report_study

    _show(answer, report_study(config, overrides, name))


def _show(answer: Answer, found: Findings) -> None:
    answer.show()
    for line in found.lines:
        answer.show(line)
    answer.document = found.document


@study.command(**OVERRIDDEN)
@click.argument("folder")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
@click.option("--watch", is_flag=True, help="Go on looking until all runs have ended.")
@answers
def status(answer: Answer, folder: str, overrides: tuple[str, ...], watch: bool) -> None:
    """Say where the study in FOLDER (or CONFIG) stands: its runs, all of it, and what is left."""
    from olmo_mixlaw.cli.tables import is_terminal, show_table
    from olmo_mixlaw.study.config import folder_of
    from olmo_mixlaw.study.status import status_of

    place = folder_of(folder, overrides)
    found = status_of(place)
    if watch and not answer.as_json and is_terminal():
        found = _watched(place)
    while watch and not found.is_over:
        answer.show(found.summary())
        time.sleep(WATCHED_PLAINLY)
        found = status_of(place)
    answer.document = found.document()
    columns, rows = _columns_and_rows(found.runs)
    show_table(answer, columns, rows, titled=False)
    answer.show(found.summary())


def _columns_and_rows(runs: Any) -> tuple[Any, list[list[str]]]:
    from olmo_mixlaw.cli.tables import Column

    return [Column("run", 28), Column("state")], [[run.run_id, str(run)] for run in runs]


def _watched(place: Path) -> Any:
    """The status drawn anew in place until all runs have ended; the last one."""
    from rich.console import Group
    from rich.live import Live

    from olmo_mixlaw.cli.tables import rich_table
    from olmo_mixlaw.study.status import FINISHED, RUNNING, WAITING, status_of

    def drawn(found: Any) -> Group:
        order = {RUNNING: 0, FINISHED: 2, WAITING: 3}
        runs = sorted(found.runs, key=lambda run: order.get(run.state, 1))[:MOST_WATCHED]
        return Group(rich_table(*_columns_and_rows(runs)), found.summary())

    found = status_of(place)
    with Live(drawn(found), auto_refresh=False, transient=True) as live:
        while not found.is_over:
            time.sleep(WATCHED)
            found = status_of(place)
            live.update(drawn(found), refresh=True)
    return found
