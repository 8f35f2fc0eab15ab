"""`olmo-mixlaw fit`: one law, fitted to a table of runs and saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import pandas as pd

from olmo_mixlaw.cli.answer import Answer, answers
from olmo_mixlaw.cli.counts import COUNT, counted
from olmo_mixlaw.cli.options import (
    BOOTSTRAP,
    LEVEL,
    NO_LEVEL,
    SEED,
    check_figure,
    given_table,
    pairs,
    refits,
    refuse_input,
    said,
    table_options,
)
from olmo_mixlaw.cli.recipe import recipe_option
from olmo_mixlaw.errors import ConfigError, MixlawError
from olmo_mixlaw.registry import ONE_SCALE_LAW, SCALES_LAW

if TYPE_CHECKING:
    from olmo_mixlaw.laws.fitted import Fit
    from olmo_mixlaw.runs import Design, RunTable


# More parameters than this are summed up.
MOST_SHOWN = 60
# How much the intervals hold that the fit's own standard errors give.
STANDARD_ERROR = 0.68


@click.command()
@recipe_option
@table_options
@click.option(
    "--law",
    default="auto",
    show_default=True,
    help=f"Name of the law. auto: {SCALES_LAW} where sizes or budgets vary, else {ONE_SCALE_LAW}.",
)
@click.option(
    "--capacity",
    default="total",
    show_default=True,
    help="What N is for mixtures of experts: total, active, or effective (between both, rho "
    "fitted).",
)
@click.option(
    "--available",
    multiple=True,
    metavar="DOMAIN=TOKENS",
    help="Tokens that a domain had in all runs, which repeat it when they see more. Default: the "
    "table's columns available_<domain>.",
)
@click.option(
    "--repeats",
    type=float,
    default=None,
    help="Fix how many repeats are worth as much as fresh text. Default: fitted where runs repeat.",
)
@click.option("--rho", type=float, default=None, help="Fix the rho of --capacity effective.")
@click.option(
    "--benchmark",
    default=None,
    metavar="FILE",
    help="Also fit the table's scores from its losses, and save that here.",
)
@click.option(
    "--chance",
    multiple=True,
    metavar="TASK=SCORE",
    help="What guessing scores on tasks whose names start so (known for OLMES's tasks, else 0).",
)
@click.option(
    "--held-out/--no-held-out",
    default=True,
    show_default=True,
    help="Also measure the law on mixtures held out in five folds: five more fits.",
)
@NO_LEVEL
@click.option(
    "--anchor",
    default=None,
    metavar="PATH",
    help="A table of one or a few runs at or near the scale of interest, of the same domains and "
    "targets: they tell the level there, and no law is fitted to them. A column `anchor` of the "
    "table marks such runs too.",
)
@click.option(
    "--vocabulary",
    type=COUNT,
    default=None,
    help="Tokens whose embeddings n_params leave out, 0 where they count them. Default: what the "
    "table's n_embedding says, else 50304.",
)
@BOOTSTRAP
@click.option("--parameters", is_flag=True, help="Print every parameter, however many.")
@click.option("--figure", default=None, metavar="FILE", help="Draw predicted against measured.")
@click.option("--out", "out", default="fit.json", show_default=True, help="Where the fit goes.")
@SEED
@answers
def fit(
    answer: Answer,
    law: str,
    capacity: str,
    available: tuple[str, ...],
    repeats: float | None,
    rho: float | None,
    benchmark: str | None,
    chance: tuple[str, ...],
    held_out: bool,
    level: bool,
    anchor: str | None,
    vocabulary: float | None,
    bootstrap: int,
    parameters: bool,
    figure: str | None,
    out: str,
    seed: int,
    **options: Any,
) -> None:
    """Fit one law to a table of runs and save it."""
    from olmo_mixlaw.laws import fitting
    from olmo_mixlaw.laws.choice import selection
    from olmo_mixlaw.laws.law import resolve
    from olmo_mixlaw.laws.repetition import with_available

    check_figure(figure)
    if law != "auto":
        resolve(law, "--law")
    if rho is not None and capacity != "effective":
        raise ConfigError("--rho: needs --capacity effective")
    floors = pairs(chance, "--chance")
    for task, floor in floors.items():
        if not floor < 1:
            raise ConfigError(f"--chance {task}={floor:g}: a score is a part of 1")
    for written in (out, benchmark):
        refuse_input("--out", written, options["table"], options["ratios"], options["metrics"])
    table = given_table(options)
    design = table.design()
    tokens = pairs(available, "--available", counted) or None
    if tokens and design.available is not None:
        raise ConfigError("--available: the table says what domains had (available_<domain>)")
    design = with_available(design, tokens) if tokens else design
    old = _fit_there(out)
    law = selection.default_law(design) if law == "auto" else law
    chosen = resolve(law)
    print(table.text())
    if capacity == "total" and design.active_known and not _dense(design):
        print("N counts all parameters; the table has active ones too (--capacity)")
    print()
    with said():
        fitted = fitting.fit(
            chosen,
            table,
            seed=seed,
            capacity=capacity,
            rho=rho,
            level=level,
            anchors=_anchors(anchor, level, options),
            vocabulary=vocabulary,
            available=tokens,
            repeats=repeats,
        )
        held: dict[str, float] = {}
        between = None
        if held_out:
            seen = fitted.size.applied(design)
            held, between = selection.measured(chosen, seen, seed=seed)
    if held:
        known = {"mixture_r2": held["mixture_r2"], "held_out_mre": held["mre"]}
        fitted = replace(fitted, provenance=fitted.provenance | known)
    if between is not None:
        fitted = between.kept_by(fitted)
    at = (design.ratios, design.n_params, design.n_tokens, design.n_active)
    guess = fitted.predict(*at, available=design.available)
    kept = _kept(old, fitted, out)
    path = fitted.save(out)
    shown = fitted.parameters
    if bootstrap and len(shown):
        low, high = _parameter_interval(fitted, options, bootstrap, seed)
        shown["low"], shown["high"] = low, high
    free = shown[~shown["fixed"]].drop(columns="fixed")
    if len(free):
        short = free if parameters or len(free) <= MOST_SHOWN else _summary(free)
        with pd.option_context("display.float_format", "{:.4g}".format):
            answer.show(f"{short.to_string(index=False)}\n")
        if len(short) < len(free):
            answer.show(
                f"(medians and ranges of {len(free)} parameters; all of them: --parameters)\n"
            )
    error = 100 * float(np.nanmean(np.abs(guess / design.losses - 1)))
    answer.show(
        f"{fitted.law.label}: {fitted.law.written(fitted.scene)}\n"
        f"{len(design)} runs, {fitted.n_parameters} parameters, error on the runs fitted "
        f"{error:.3f} % ({_held_text(held)})"
    )
    if fitted.level is not None:
        answer.show(fitted.level.text())
    if fitted.repetition is not None:
        answer.show(fitted.repetition.text())
    print(f"saved to {path}{kept}")
    if no_answer := fitted.cannot_tell_mixtures():
        answer.show(no_answer)
    answer.document = document(table, fitted, error, held) | {
        "level": LEVEL if bootstrap else STANDARD_ERROR,
        "parameters": shown,
        "saved": path,
    }
    if benchmark:
        from olmo_mixlaw.advice.curve import CHANCE
        from olmo_mixlaw.advice.scores import fit_scores

        scores = fit_scores(
            table,
            law,
            chance=floors | {k: v for k, v in CHANCE.items() if k not in floors},
            seed=seed,
            capacity=capacity,
            rho=fitted.size.rho,
            available=tokens,
            repeats=repeats,
        )
        curves = scores.law.parameters()
        answer.show(f"\n{scores.text()}\n{curves.round(4).to_string(index=False)}")
        print(f"saved to {scores.save(benchmark)}")
        answer.document["benchmark"] = {
            "route": scores.route,
            "routes": scores.routes,
            "refused": scores.refused,
            "unpredictable": scores.unpredictable,
            "held_out": scores.split,
            "errors": scores.errors,
            "tasks": curves,
            "dropped": scores.dropped,
            "saved": benchmark,
        }
    if figure:
        from olmo_mixlaw.report import law_figures

        seen = fitted.size.applied(design)
        drawn = law_figures.predicted_against_measured(seen, guess, fitted.law.name)
        print(f"drew {law_figures.save(drawn, figure)}")


def _anchors(path: str | None, level: bool, options: Mapping[str, Any]) -> RunTable | None:
    """The table of `--anchor`, read as the table is. Raises `ConfigError`, `DataError`."""
    if path is None:
        return None
    if not level:
        raise ConfigError("--anchor: tells the level, which --no-level leaves out")
    return given_table({**options, "table": path, "ratios": None, "metrics": None})


def document(
    table: RunTable, fitted: Fit, error: float, held: Mapping[str, float]
) -> dict[str, Any]:
    """A fit as `--json` has it: errors in percent, losses in `unit`."""
    names = {"mre": "mre_percent"}
    return {
        "no_answer": fitted.cannot_tell_mixtures() or None,
        "law": fitted.law.label,
        "formula": fitted.law.written(fitted.scene),
        "unit": fitted.unit,
        "runs": fitted.n_rows,
        "rows": len(table.losses),
        "domains": fitted.domains,
        "targets": fitted.targets,
        "n_parameters": fitted.n_parameters,
        "beyond_the_table": None if fitted.level is None else fitted.level.text(),
        "training_error_percent": error,
        "held_out": {names.get(key, key): value for key, value in held.items()} or None,
        "warnings": [*table.notes, *table.cautions()],
        "benchmark": None,
    }


def _held_text(held: Mapping[str, float]) -> str:
    if not held:
        return "held-out error: not measured; olmo-mixlaw compare"
    return (
        f"held-out error {held['mre']:.3f} %, R2 between mixtures held out "
        f"{held['mixture_r2']:.3f}; other laws: olmo-mixlaw compare"
    )


def _dense(design: Design) -> bool:
    known = np.isfinite(design.n_active) & np.isfinite(design.n_params)
    return bool((design.n_active[known] > 0.95 * design.n_params[known]).all())


def _fit_there(out: str) -> Fit | None:
    """The fit that is at `out` already. Raises `ConfigError` for a file that is none."""
    from olmo_mixlaw.laws.fitted import Fit

    if not Path(out).exists():
        return None
    try:
        return Fit.load(out)
    except MixlawError:
        raise ConfigError(f"--out {out}: is there and is no saved fit; choose another") from None


def _kept(old: Fit | None, new: Fit, out: str) -> str:
    """Put a fit of another law or table aside, under the first free name; what to say of it."""
    if old is None or (old.law, old.data_hash) == (new.law, new.data_hash):
        return ""
    path = Path(out)
    names = (path.with_name(f"{path.stem}.{i}{path.suffix}") for i in count(1))
    aside = next(name for name in names if not name.exists())
    path.replace(aside)
    return f"; the fit of {old.law.label} to {old.n_rows} runs that was there is now {aside}"


def _summary(free: pd.DataFrame) -> pd.DataFrame:
    """A row a kind of parameter (`T[web]`, `T[code]`, ... are one), over all targets."""
    kind = free["parameter"].str.partition("[")[0]
    groups = free.groupby([kind, "unit"], sort=False)["value"]
    return groups.agg(number="size", least="min", median="median", greatest="max").reset_index()


def _parameter_interval(
    fitted: Fit, options: Mapping[str, Any], replicates: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    from olmo_mixlaw.laws.choice.uncertainty import interval

    draws = [f.parameters["value"].to_numpy() for f in refits(fitted, options, replicates, seed)]
    return interval(np.array(draws), LEVEL)
