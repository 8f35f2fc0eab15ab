"""The command of `scripts/fit_ladder.py`: fit a ladder of small models, predict larger ones.

Where there is no checkout, `python -m olmo_mixlaw.cli.fit_ladder` is the same.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pandas as pd

from olmo_mixlaw.advice.ladder import (
    Target,
    final_scores,
    predict_losses,
    predict_tasks,
    told_apart,
)
from olmo_mixlaw.advice.ladder_csv import is_ladder, read_ladder
from olmo_mixlaw.advice.reach import APART
from olmo_mixlaw.advice.two_step import TwoStep, checked_tasks
from olmo_mixlaw.atomic import open_atomic
from olmo_mixlaw.cli.answer import Answer, answers
from olmo_mixlaw.cli.app import run
from olmo_mixlaw.cli.options import LEVEL, pairs
from olmo_mixlaw.errors import ConfigError, DataError
from olmo_mixlaw.registry import DEFAULT_LAW
from olmo_mixlaw.report import ladder_figures, law_figures
from olmo_mixlaw.runs import RunTable, read_frame
from olmo_mixlaw.shipped import shipped_folder

TWO_STEP = "two_step"
ENDINGS = (".csv", ".csv.gz", ".parquet")  # of a RunTable's files

# The held-out models of the OLMo ladder; 3.2B at ten times its compute-optimal tokens.
LADDER_TARGETS = [
    Target("3.2B-10xC", 3169537280, 633939689472),
    Target("7B-4T", 6887575552, 3945065873408),
    Target("13B-5T", 13202396160, 5000088518656),
]


@dataclass(frozen=True)
class PublishedLadder:
    """What is fitted where no table is named: its file, and the scores of `LADDER_TARGETS`."""

    table: Path
    scores: Path


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--runs", default=None, metavar="DIR", help="A study's folder, or a RunTable's.")
@click.option(
    "--table",
    default=None,
    metavar="FILE",
    help="A table of tasks (run_id, N, D, task, bpb, accuracy) or of losses, or a folder of the "
    "OLMo ladder's own files, a CSV a run.",
)
@click.option(
    "--size",
    "sizes",
    multiple=True,
    metavar="NAME=N",
    help="Parameters of those of the ladder's own files whose names begin so; may be repeated.",
)
@click.option(
    "--chance",
    multiple=True,
    metavar="TASK=SHARE",
    help="What guessing scores on tasks whose names begin so, where it isn't known; may be "
    "repeated.",
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
@click.pass_obj
@answers
def fit_ladder(
    answer: Answer,
    published: PublishedLadder | None,
    runs: str | None,
    table: str | None,
    sizes: tuple[str, ...],
    chance: tuple[str, ...],
    law: str | None,
    targets: tuple[str, ...],
    replicates: int,
    out: str,
    seed: int,
) -> None:
    """Fit a ladder of small models and predict larger ones.

    With no arguments: the OLMo ladder (190M to 1.3B), its two-step law, and what 3.2B, 7B-4T and
    13B-5T will score on each task.
    """
    if runs and table:
        raise ConfigError("--runs and --table: give one of them")
    if replicates < 0:
        raise ConfigError(f"--replicates {replicates}: must not be negative")
    wanted = [parse_target(text) for text in targets]
    if runs:
        source = find_table(runs)
    elif table:
        source = Path(table)
    elif published:
        source = published.table
    else:
        raise ConfigError("--runs or --table: give one of them")
    if not source.exists():
        raise DataError(f"{source}: no such file")
    frame = read_tasks(source, pairs(sizes, "--size"))
    floors = pairs(chance, "--chance")
    folder, judged = Path(out), []
    if frame is not None and "accuracy" in frame:
        if law not in (None, TWO_STEP):
            raise ConfigError(f"--law {law}: a table of tasks takes {TWO_STEP}")
        known = None
        if published and source == published.table:
            known = pd.read_csv(published.scores)
            wanted = wanted or LADDER_TARGETS
        if not wanted:
            raise ConfigError("--target: say which model to predict, as 7e9,4e12")
        checked_tasks(frame, str(source))
        unit = "accuracy"
        chain, result = predict_tasks(
            frame, wanted, known, chance=floors, replicates=replicates, seed=seed
        )
        say_what_is_not_known(chain, result, replicates)
        chain.step1.save(folder / "step1.json")
        _write(chain.parameters(), folder / "step2.csv")
        tokens = {target.name: target.n_tokens for target in wanted}
        figure = ladder_figures.figure_tasks(
            final_scores(chain, frame), lambda n, d: chain.predict(n, d)[1], result, tokens
        )
    else:
        if law == TWO_STEP:
            raise ConfigError(f"--law {law}: needs a table of tasks with a column 'accuracy'")
        if chance or sizes:
            option = "--chance" if chance else "--size"
            raise ConfigError(f"{option}: is for a table of tasks, and {source} is one of losses")
        losses = RunTable.load(source)
        unit = losses.unit
        result = predict_losses(
            losses, law or DEFAULT_LAW, wanted, replicates=max(replicates, 2), seed=seed
        )
        judged = told_apart(losses, law or DEFAULT_LAW, wanted, seed=seed)
        figure = ladder_figures.figure_losses(result)
    drawn = law_figures.save(figure, folder / "ladder.png")
    answer.show(summary(result))
    for one in judged:
        answer.show(f"\n{one.text()}")
    answer.document = {
        "unit": unit,
        "level": LEVEL,
        "predictions": result.rename(columns={"error": "error_percent"}),
        "verdicts": [one.document() for one in judged],
        "saved": folder / "predictions.csv",
    }
    _write(result, folder / "predictions.csv")
    print(f"\nsaved {drawn} and {folder / 'predictions.csv'}")


def read_tasks(source: Path, sizes: dict[str, float]) -> pd.DataFrame | None:
    """The table at a path, the ladder's own files as one; None for the folder of a RunTable."""
    if not source.is_dir():
        frame = read_frame(source)
        return read_ladder([source], sizes) if is_ladder(frame) else frame
    if any((source / f"losses{end}").is_file() for end in ENDINGS):
        return None
    files = sorted(p for p in source.iterdir() if p.name.endswith((".csv", ".csv.gz")))
    own = [file for file in files if is_ladder(read_frame(file))]
    if not own:
        return None
    if len(own) < len(files):
        raise DataError(
            f"{next(f for f in files if f not in own)}: isn't a run of the ladder like "
            f"{own[0].name} beside it; keep those alone in the folder"
        )
    frame = read_ladder(own, sizes)
    known = {f"{run} = {n:,.0f}" for run, n in zip(frame["run_id"], frame["N"], strict=True)}
    print(f"{len(own)} runs, parameters: {'; '.join(sorted(known))}")
    return frame


def say_what_is_not_known(chain: TwoStep, result: pd.DataFrame, replicates: int) -> None:
    """Notes on standard output about what the predictions leave out."""
    for task in chain.unlearnt:
        print(f"note: no run is above chance on {task}; its prediction is chance")
    if not replicates:
        print("note: --replicates 0: there are no intervals")
    elif not result.attrs["form_error"]:
        print(
            f"note: fewer than three sizes are apart (by {APART - 1:.0%}), so how far the law errs "
            "beyond them isn't known: the intervals take what it does on public ladders"
        )


def _write(frame: pd.DataFrame, path: Path) -> None:
    with open_atomic(path, newline="") as file:
        frame.to_csv(file, index=False, lineterminator="\n")


def parse_target(text: str) -> Target:
    """`7e9,4e12` or `name=7e9,4e12` as a target, or one of the ladder's by name."""
    for known in LADDER_TARGETS:
        if text == known.name:
            return known
    name, _, numbers = text.rpartition("=")
    try:
        n_params, n_tokens = (float(v) for v in numbers.split(","))
    except ValueError:
        names = ", ".join(t.name for t in LADDER_TARGETS)
        raise ConfigError(
            f"--target {text!r}: expected PARAMETERS,TOKENS such as 7e9,4e12, or one of {names}"
        ) from None
    if not (0 < n_params < np.inf and 0 < n_tokens < np.inf):
        raise ConfigError(f"--target {text!r}: parameters and tokens must be positive")
    return Target(name or text, n_params, n_tokens)


def find_table(runs: str | Path) -> Path:
    """The RunTable in a study's folder, or the folder itself. Raises `DataError`."""
    runs = Path(runs)
    if not runs.is_dir():
        raise DataError(f"--runs {runs}: no such folder")
    for folder in (runs, runs / "table", runs / "runs"):
        if any((folder / f"losses{end}").is_file() for end in ENDINGS):
            return folder
    raise DataError(f"--runs {runs}: holds no losses.csv, neither directly nor in table/")


def summary(result: pd.DataFrame) -> str:
    """Predicted, actual, relative error and interval as text, and the mean error a model."""
    unit = result.attrs.get("unit")
    lines = [f"losses: {unit}"] if unit else []
    for model, part in result.groupby("model", sort=False):
        lines.append(f"\n{model}")
        lines.append(f"  {'':40s} predicted  90 % interval     actual   error")
        for row in part.itertuples():
            name = row.task if "run" not in part else f"{row.run} {row.task}"
            known = np.isfinite(row.actual)
            ends = f"{row.low:.4f} - {row.high:.4f}" if np.isfinite(row.low) else "none"
            lines.append(
                f"  {name[:40]:40s} {row.predicted:9.4f}  {ends:15s}"
                + (f"  {row.actual:7.4f}  {row.error:+5.1f} %" if known else "        -")
            )
        some = part["error"].abs().dropna()
        if len(some):
            inside = part.dropna(subset=["actual", "low"]).eval("low <= actual <= high").mean()
            lines.append(
                f"  mean relative error over {len(some)} known: {some.mean():.2f} %"
                + (f" ({100 * inside:.0f} % lie in the interval)" if np.isfinite(inside) else "")
            )
    return "\n".join(lines).lstrip("\n")


def main(arguments: list[str] | None = None) -> int:
    """The command by itself; where no table is named it reads the OLMo ladder's."""
    data = shipped_folder("benchmarks/data")
    olmo = PublishedLadder(data / "p6_olmo_ladder.csv.gz", data / "ladder_published.csv")
    return run(fit_ladder, arguments, prog_name="fit_ladder", obj=olmo)


if __name__ == "__main__":
    sys.exit(main())
