"""Fit a ladder of small models and predict larger ones.

With no arguments: the OLMo ladder (190M to 1.3B), its two-step law, and what 3.2B, 7B-4T and
13B-5T will score on each task.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import pandas as pd

from olmo_mixlaw.atomic import open_atomic
from olmo_mixlaw.cli.app import run
from olmo_mixlaw.errors import ConfigError, DataError

DATA = Path(__file__).resolve().parent.parent / "benchmarks" / "data"
LADDER = DATA / "p6_olmo_ladder.csv.gz"
PUBLISHED = DATA / "ladder_published.csv"


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--runs", default=None, metavar="DIR", help="A study's folder, or a RunTable's.")
@click.option(
    "--table",
    default=None,
    metavar="FILE",
    help="A table of tasks (run_id, N, D, task, bpb, accuracy) or of losses.",
)
@click.option(
    "--law",
    default=None,
    help="two_step for tasks (the default there), or the name of a mixture law for "
    "losses (default: transfer).",
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="N,D",
    help="Predict a model of N parameters and D tokens, as 7e9,4e12 or name=7e9,4e12; "
    "may be repeated.",
)
@click.option("--replicates", default=100, show_default=True, help="Refits for the intervals.")
@click.option("--out", default="results/ladder", show_default=True, help="Folder of results.")
@click.option("--seed", default=0, show_default=True, help="Seed of starts and intervals.")
def main(
    runs: str | None,
    table: str | None,
    law: str | None,
    targets: tuple[str, ...],
    replicates: int,
    out: str,
    seed: int,
) -> None:
    from olmo_mixlaw.advice import ladder
    from olmo_mixlaw.runs import RunTable, read_frame

    if runs and table:
        raise ConfigError("--runs and --table: give one of them")
    if replicates < 0:
        raise ConfigError(f"--replicates {replicates}: must not be negative")
    wanted = [ladder.parse_target(text) for text in targets]
    source = ladder.find_table(runs) if runs else Path(table) if table else LADDER
    if not source.exists():
        raise DataError(f"{source}: no such file")
    frame = None if source.is_dir() else read_frame(source)
    folder = Path(out)
    if frame is not None and "accuracy" in frame:
        if law not in (None, "two_step"):
            raise ConfigError(f"--law {law}: a table of tasks takes two_step")
        published = pd.read_csv(PUBLISHED) if source == LADDER else None
        if not wanted and source != LADDER:
            raise ConfigError("--target: say which model to predict, as 7e9,4e12")
        wanted = wanted or ladder.LADDER_TARGETS
        chain, result = ladder.predict_tasks(
            frame, wanted, published, replicates=replicates, seed=seed
        )
        for task in chain.unlearnt:
            print(f"note: no run is above chance on {task}; its prediction is chance")
        chain.step1.save(folder / "step1.json")
        chain_file = folder / "step2.csv"
        with open_atomic(chain_file, newline="") as file:
            chain.parameters().to_csv(file, index=False, lineterminator="\n")
        figure = ladder.figure_tasks(chain, frame, result, wanted, folder / "ladder.png")
    else:
        if law == "two_step":
            raise ConfigError("--law two_step: needs a table of tasks with a column 'accuracy'")
        result = ladder.predict_losses(
            RunTable.load(source),
            law or "transfer",
            wanted,
            replicates=max(replicates, 2),
            seed=seed,
        )
        figure = ladder.figure_losses(result, folder / "ladder.png")
    print(ladder.summary(result))
    with open_atomic(folder / "predictions.csv", newline="") as file:
        result.to_csv(file, index=False, lineterminator="\n")
    print(f"\nsaved {figure} and {folder / 'predictions.csv'}")


if __name__ == "__main__":
    sys.exit(run(main, prog_name="fit_ladder.py"))
