"""`olmo-mixlaw study`: run a study, or look at what it would do and where it stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from olmo_mixlaw.cli.answer import Answer, answers

if TYPE_CHECKING:
    from olmo_mixlaw.study.findings import Findings


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
@answers
def run(answer: Answer, config: str, overrides: tuple[str, ...]) -> None:
    """Train, score, fit and report the study in CONFIG.

    A study that was stopped, in whatever way, goes on from what is on disk.
    """
    from olmo_mixlaw.study.run import run_study

    _show(answer, run_study(config, overrides))


@study.command(**OVERRIDDEN)
@_study
@answers
def plan(answer: Answer, config: str, overrides: tuple[str, ...]) -> None:
    """Print the runs of the study in CONFIG and what each costs; nothing is trained."""
    from olmo_mixlaw.models.ladder import short
    from olmo_mixlaw.study.checks import possible_laws
    from olmo_mixlaw.study.config import load_study
    from olmo_mixlaw.study.plan import plan as plan_runs

    settings = load_study(config, overrides)
    runs = plan_runs(settings)
    laws, notes = possible_laws(settings, runs, config)
    flops = sum(r.rung.training_flops(r.n_tokens) for r in runs)
    rows = [
        {
            "run_id": item.run_id,
            "n_params": item.rung.n_params,
            "n_active": item.rung.n_active,
            "n_tokens": item.n_tokens,
            "seed": item.seed,
            "flops": item.rung.training_flops(item.n_tokens),
            "mixture": item.mixture,
            "ratios": item.ratios,
        }
        for item in runs
    ]
    said = {"runs": rows, "flops": flops, "laws": laws, "notes": notes}
    answer.document = {**said, "output": settings.output}
    answer.show(f"{'run':28} {'parameters':>10} {'tokens':>8} {'FLOPs':>9}  mixture")
    for item in runs:
        ratios = " ".join(f"{k} {v:g}" for k, v in item.ratios.items())
        answer.show(
            f"{item.run_id:28} {short(item.rung.n_params):>10} {short(item.n_tokens):>8} "
            f"{item.rung.training_flops(item.n_tokens):9.2e}  {ratios}"
        )
    for note in notes:
        answer.show(f"mind: {note}")
    answer.show(f"{len(runs)} runs, {flops:.2e} FLOPs, into {settings.output}")


@study.command(**OVERRIDDEN)
@_study
@answers
def report(answer: Answer, config: str, overrides: tuple[str, ...]) -> None:
    """Fit and report the finished study in CONFIG again, without training."""
    from olmo_mixlaw.study.run import report_study

    _show(answer, report_study(config, overrides))


def _show(answer: Answer, found: Findings) -> None:
    answer.show()
    for line in found.lines:
        answer.show(line)
    answer.document = found.document


@study.command(**OVERRIDDEN)
@click.argument("folder")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
@answers
def status(answer: Answer, folder: str, overrides: tuple[str, ...]) -> None:
    """Say which runs of the study in FOLDER (or CONFIG) are finished and how far others are."""
    from olmo_mixlaw.errors import ConfigError
    from olmo_mixlaw.study.config import folder_of
    from olmo_mixlaw.study.runner import DONE, last_step

    place = folder_of(folder, overrides)
    paths = sorted(p.parent for p in place.glob("runs/*/config.yaml"))
    if not paths:
        raise ConfigError(f"{place}: no study here (it holds no runs/*/config.yaml)")
    rows = [
        {"run_id": p.name, "finished": (p / DONE).is_file(), "step": last_step(p)} for p in paths
    ]
    done = sum(bool(row["finished"]) for row in rows)
    answer.document = {"runs": rows, "finished": done}
    for row in rows:
        state = "finished" if row["finished"] else f"step {row['step']}"
        answer.show(f"{row['run_id']:28} {state}")
    answer.show(f"{done} of {len(rows)} runs finished")
