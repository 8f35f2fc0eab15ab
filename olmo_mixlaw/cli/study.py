"""`olmo-mixlaw study`: run a study, or look at what it would do and where it stands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


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
def run(config: str, overrides: tuple[str, ...]) -> None:
    """Train, score, fit and report the study in CONFIG.

    A study that was stopped, in whatever way, goes on from what is on disk.
    """
    from olmo_mixlaw.study.run import run_study

    run_study(config, overrides)


@study.command(**OVERRIDDEN)
@_study
@JSON
def plan(config: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print the runs of the study in CONFIG and what each costs; nothing is trained."""
    from olmo_mixlaw.study.checks import possible_laws
    from olmo_mixlaw.study.config import load_study
    from olmo_mixlaw.study.plan import plan as plan_runs
    from olmo_mixlaw.study.plan import short

    settings = load_study(config, overrides)
    runs = plan_runs(settings)
    laws, notes = possible_laws(settings, runs, config)
    flops = sum(r.rung.training_flops(r.n_tokens) for r in runs)
    if as_json:
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
        click.echo(json.dumps({**said, "output": settings.output}, indent=1))
        return
    click.echo(f"{'run':28} {'parameters':>10} {'tokens':>8} {'FLOPs':>9}  mixture")
    for item in runs:
        ratios = " ".join(f"{k} {v:g}" for k, v in item.ratios.items())
        click.echo(
            f"{item.run_id:28} {short(item.rung.n_params):>10} {short(item.n_tokens):>8} "
            f"{item.rung.training_flops(item.n_tokens):9.2e}  {ratios}"
        )
    for note in notes:
        click.echo(f"mind: {note}")
    click.echo(f"{len(runs)} runs, {flops:.2e} FLOPs, into {settings.output}")


@study.command(**OVERRIDDEN)
@_study
def report(config: str, overrides: tuple[str, ...]) -> None:
    """Fit and report the finished study in CONFIG again, without training."""
    from olmo_mixlaw.study.run import report_study

    report_study(config, overrides)


@study.command()
@click.argument("folder", type=click.Path(path_type=Path))
@JSON
def status(folder: Path, as_json: bool) -> None:
    """Say which runs of the study in FOLDER are finished and how far the others are."""
    from olmo_mixlaw.errors import ConfigError
    from olmo_mixlaw.study.runner import DONE, last_step

    paths = sorted(p.parent for p in folder.glob("runs/*/config.yaml"))
    if not paths:
        raise ConfigError(f"{folder}: no study here (it holds no runs/*/config.yaml)")
    rows = [
        {"run_id": p.name, "finished": (p / DONE).is_file(), "step": last_step(p)} for p in paths
    ]
    done = sum(bool(row["finished"]) for row in rows)
    if as_json:
        click.echo(json.dumps({"runs": rows, "finished": done}, indent=1))
        return
    for row in rows:
        state = "finished" if row["finished"] else f"step {row['step']}"
        click.echo(f"{row['run_id']:28} {state}")
    click.echo(f"{done} of {len(rows)} runs finished")
