"""Fit a ladder of small models and say what larger ones will score: table, intervals, figure.

What `scripts/fit_ladder.py` runs. Task tables go through the two-step law, loss tables through
any mixture law with its largest size held out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from olmo_mixlaw.advice.reach import form_error
from olmo_mixlaw.advice.two_step import TwoStep, checked_tasks, final_design, fit_with_replicates
from olmo_mixlaw.errors import ConfigError, DataError, FitError
from olmo_mixlaw.laws.choice.uncertainty import bootstrap, interval
from olmo_mixlaw.laws.fitting import fit, resolve
from olmo_mixlaw.laws.law import Law
from olmo_mixlaw.runs import RunTable

LEVEL = 0.9
# Errors of form and noise drawn for each refit.
DRAWS = 10


@dataclass(frozen=True)
class Target:
    """A model to predict."""

    name: str
    n_params: float
    n_tokens: float


# The held-out models of the OLMo ladder; 3.2B at ten times its compute-optimal tokens.
LADDER_TARGETS = [
    Target("3.2B-10xC", 3169537280, 633939689472),
    Target("7B-4T", 6887575552, 3945065873408),
    Target("13B-5T", 13202396160, 5000088518656),
]


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
        if any((folder / f"losses{end}").is_file() for end in (".csv", ".csv.gz", ".parquet")):
            return folder
    raise DataError(f"--runs {runs}: holds no losses.csv, neither directly nor in table/")


def predict_tasks(
    frame: pd.DataFrame,
    targets: list[Target],
    published: pd.DataFrame | None = None,
    *,
    replicates: int = 100,
    seed: int = 0,
) -> tuple[TwoStep, pd.DataFrame]:
    """The two-step law's predictions: a row a (target, task) with a 90 % interval.

    The interval holds the luck of runs (refits to resampled ones), the noise of a score, and, with
    three sizes or more, how far the law's form erred on the sizes held out (`reach.form_error`).
    `published` (model, task, accuracy) gives the column `actual`, else NaN; it is not fitted.
    """
    chain, others = fit_with_replicates(frame, seed=seed, replicates=replicates)
    n = np.array([t.n_params for t in targets])
    d = np.array([t.n_tokens for t in targets])
    loss, accuracy = chain.predict(n, d)
    rng = np.random.default_rng(seed)
    form = form_error(checked_tasks(frame), chain.options, seed=seed) if others else None
    draws = []
    for other in [o for o in others for _ in range(DRAWS)]:
        middle = other.predict(n, d)[1]
        if form is not None:
            middle = form.draw(middle, chain.floors, form.reach(n, d), rng)
        noisy = middle * np.exp(rng.normal(size=accuracy.shape) * chain.noise)
        draws.append(np.minimum(noisy, 1.0))  # an accuracy ends there, whatever the noise
    low, high = interval(np.array(draws), LEVEL) if draws else (accuracy, accuracy)
    known = (
        {} if published is None else published.set_index(["model", "task"])["accuracy"].to_dict()
    )
    rows = [
        (
            target.name,
            task,
            loss[i, j],
            accuracy[i, j],
            low[i, j],
            high[i, j],
            known.get((target.name, task), np.nan),
        )
        for i, target in enumerate(targets)
        for j, task in enumerate(chain.tasks)
    ]
    names = ["model", "task", "task_loss", "predicted", "low", "high", "actual"]
    result = pd.DataFrame(rows, columns=names)
    result["error"] = 100 * (result["predicted"] / result["actual"] - 1)
    return chain, result


def predict_losses(
    table: RunTable, law: str | Law, targets: list[Target], *, replicates: int = 100, seed: int = 0
) -> pd.DataFrame:
    """A law's predictions of the largest size from the smaller ones, and of `targets` from all.

    A row a (model, run or mixture, domain). With two sizes, the rows of a law that can't
    extrapolate from one are left out and `FitError` says so when nothing remains.
    """
    design = table.design()
    law = resolve(law, "--law")
    sizes = np.unique(design.n_params[np.isfinite(design.n_params)])
    frames = []
    if len(sizes) >= 3:
        large = design.n_params >= sizes[-1] * 0.999
        held = design.take(large)
        frames.append(
            _predicted(
                law,
                design.take(~large),
                f"{sizes[-1]:.4g} (held out)",
                held.run_ids,
                held.ratios,
                held.n_params,
                held.n_tokens,
                held.losses,
                replicates,
                seed,
            )
        )
    elif not targets:
        raise FitError(
            f"{table.source}: {len(sizes)} sizes; three are needed to hold the largest out "
            "(or give --target)"
        )
    first = np.unique(np.round(design.ratios, 6), axis=0, return_index=True)[1]
    for target in targets:
        names = [f"mixture of {design.run_ids[i]}" for i in first]
        blank = np.full((len(first), len(design.targets)), np.nan)
        frames.append(
            _predicted(
                law,
                design,
                target.name,
                names,
                design.ratios[first],
                np.full(len(first), target.n_params),
                np.full(len(first), target.n_tokens),
                blank,
                replicates,
                seed,
            )
        )
    return pd.concat(frames, ignore_index=True)


def _predicted(
    law: Law,
    design: Any,
    model: str,
    names: list[str],
    ratios: np.ndarray,
    n: np.ndarray,
    d: np.ndarray,
    actual: np.ndarray,
    replicates: int,
    seed: int,
) -> pd.DataFrame:
    fitted = fit(law, design, seed=seed)
    middle = fitted.predict(ratios, n, d)
    rng = np.random.default_rng(seed)
    draws = [
        other.predict(ratios, n, d) * np.exp(rng.normal(size=middle.shape) * fitted.noise)
        for other in bootstrap(fitted, design, replicates=replicates, seed=seed)
    ]
    low, high = interval(np.array(draws), LEVEL)
    rows = [
        (model, name, domain, middle[i, j], low[i, j], high[i, j], actual[i, j])
        for i, name in enumerate(names)
        for j, domain in enumerate(fitted.targets)
    ]
    columns = ["model", "run", "task", "predicted", "low", "high", "actual"]
    result = pd.DataFrame(rows, columns=columns)
    result["error"] = 100 * (result["predicted"] / result["actual"] - 1)
    return result


def summary(result: pd.DataFrame) -> str:
    """Predicted, actual, relative error and interval as text, and the mean error a model."""
    lines = []
    for model, part in result.groupby("model", sort=False):
        lines.append(f"\n{model}")
        lines.append(f"  {'':40s} predicted  90 % interval     actual   error")
        for row in part.itertuples():
            name = row.task if "run" not in part else f"{row.run} {row.task}"
            known = np.isfinite(row.actual)
            lines.append(
                f"  {name[:40]:40s} {row.predicted:9.4f}  {row.low:.4f} - {row.high:.4f}"
                + (f"  {row.actual:7.4f}  {row.error:+5.1f} %" if known else "        -")
            )
        some = part["error"].abs().dropna()
        if len(some):
            inside = part.dropna(subset=["actual"]).eval("low <= actual <= high").mean()
            lines.append(
                f"  mean relative error over {len(some)} known: {some.mean():.2f} % "
                f"({100 * inside:.0f} % lie in the interval)"
            )
    return "\n".join(lines).lstrip("\n")


def figure_tasks(
    chain: TwoStep, frame: pd.DataFrame, result: pd.DataFrame, targets: list[Target], path: Path
) -> Path:
    """Accuracy against tokens, a panel a task: runs, fitted curves, predictions, known scores."""
    from matplotlib.figure import Figure

    frame = checked_tasks(frame)
    ends = final_design(frame, chain.tasks, chain.options.window)
    last = frame.groupby(["task", "run_id"], sort=False).tail(chain.options.window)
    scores = last.groupby(["run_id", "task"])["accuracy"].mean().unstack()[chain.tasks]
    columns = min(4, len(chain.tasks))
    rows = -(-len(chain.tasks) // columns)
    figure = Figure(figsize=(3.3 * columns, 2.7 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    sizes = np.unique(ends.n_params)
    top = max([ends.n_tokens.max(), *(t.n_tokens for t in targets)]) * 2
    tokens = np.geomspace(ends.n_tokens.min(), top, 60)
    for j, (task, ax) in enumerate(zip(chain.tasks, axes, strict=False)):
        for s, size in enumerate(sizes):
            color = f"C{s}"
            some = ends.n_params == size
            ax.plot(ends.n_tokens[some], scores[task].to_numpy()[some], "o", ms=4, color=color)
            ax.plot(
                tokens,
                chain.predict(np.full(60, size), tokens)[1][:, j],
                "-",
                lw=1,
                color=color,
                label=f"{size / 1e9:.2g}B" if j == 0 else None,
            )
        for m, (model, at) in enumerate((t.name, t.n_tokens) for t in targets):
            row = result[(result["model"] == model) & (result["task"] == task)].iloc[0]
            color = f"C{len(sizes) + m}"
            spread = [[row.predicted - row.low], [row.high - row.predicted]]
            ax.errorbar(
                [at],
                [row.predicted],
                yerr=np.maximum(spread, 0),
                fmt="x",
                color=color,
                label=f"{model} predicted" if j == 0 else None,
            )
            if np.isfinite(row.actual):
                ax.plot(
                    [at],
                    [row.actual],
                    "o",
                    mfc="none",
                    color=color,
                    label=f"{model} actual" if j == 0 else None,
                )
        ax.set(xscale="log", title=task, xlabel="tokens", ylabel="accuracy")
    for ax in axes[len(chain.tasks) :]:
        ax.set_axis_off()
    figure.legend(loc="outside lower center", ncols=5, fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    return path


def figure_losses(result: pd.DataFrame, path: Path) -> Path:
    """Predicted against actual loss where it is known, else predictions by domain."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 4.5), layout="constrained")
    ax = figure.subplots()
    known = result.dropna(subset=["actual"])
    shown = known if len(known) else result
    across = "actual" if len(known) else "predicted"
    for i, (domain, part) in enumerate(shown.groupby("task", sort=False)):
        spread = np.maximum([part.predicted - part.low, part.high - part.predicted], 0)
        ax.errorbar(
            part[across],
            part.predicted,
            yerr=spread,
            fmt="o",
            ms=4,
            color=f"C{i % 10}",
            label=str(domain),
        )
    ends = [shown[across].min(), shown[across].max()]
    ax.plot(ends, ends, "k--", lw=0.8)
    ax.set(xlabel=f"{across} loss (nats)", ylabel="predicted loss (nats)")
    ax.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    return path
