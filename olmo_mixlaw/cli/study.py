"""`olmo-mixlaw study`: run a study, or look at what it would do and where it stands."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def study() -> None:
    """Run a ladder of sizes and mixtures, and report."""


@study.command()
@click.argument("config")
@click.argument("overrides", nargs=-1)
def run(config: str, overrides: tuple[str, ...]) -> None:
    """Train, score, fit and report the study in CONFIG (a YAML file or a shipped study's name).

    OVERRIDES change single keys: `workers=4 target.tokens=4000000`. A study that was stopped,
    in whatever way, goes on from what is on disk.
    """
    from olmo_mixlaw.study.run import run_study

    run_study(config, overrides)


@study.command()
@click.argument("config")
@click.argument("overrides", nargs=-1)
def plan(config: str, overrides: tuple[str, ...]) -> None:
    """Print the runs of the study in CONFIG and what each costs; nothing is trained."""
    from olmo_mixlaw.study.config import load_study
    from olmo_mixlaw.study.plan import plan as plan_runs
    from olmo_mixlaw.study.plan import short

    settings = load_study(config, overrides)
    runs = plan_runs(settings)
    click.echo(f"{'run':28} {'parameters':>10} {'tokens':>8} {'FLOPs':>9}  mixture")
    for item in runs:
        ratios = " ".join(f"{k} {v:g}" for k, v in item.ratios.items())
        click.echo(
            f"{item.run_id:28} {short(item.rung.n_params):>10} {short(item.n_tokens):>8} "
            f"{item.rung.training_flops(item.n_tokens):9.2e}  {ratios}"
        )
    flops = sum(r.rung.training_flops(r.n_tokens) for r in runs)
    click.echo(f"{len(runs)} runs, {flops:.2e} FLOPs, into {settings.output}")


@study.command()
@click.argument("config")
@click.argument("overrides", nargs=-1)
def report(config: str, overrides: tuple[str, ...]) -> None:
    """Fit and report the finished study in CONFIG again, without training."""
    from olmo_mixlaw.study.run import report_study

    report_study(config, overrides)


@study.command()
@click.argument("folder", type=click.Path(path_type=Path))
def status(folder: Path) -> None:
    """Say which runs of the study in FOLDER are finished and how far the others are."""
    from olmo_mixlaw.errors import ConfigError
    from olmo_mixlaw.study.runner import DONE, last_step

    runs = sorted(p.parent for p in folder.glob("runs/*/config.yaml"))
    if not runs:
        raise ConfigError(f"{folder}: no study here (it holds no runs/*/config.yaml)")
    done = 0
    for path in runs:
        finished = (path / DONE).is_file()
        done += finished
        click.echo(f"{path.name:28} {'finished' if finished else f'step {last_step(path)}'}")
    click.echo(f"{done} of {len(runs)} runs finished")
