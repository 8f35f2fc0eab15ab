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

from olmo_mixlaw.cli.options import (
    BOOTSTRAP,
    LEVEL,
    SEED,
    check_figure,
    given_table,
    pairs,
    refits,
    refuse_input,
    table_options,
)
from olmo_mixlaw.cli.recipe import recipe_option
from olmo_mixlaw.errors import ConfigError, MixlawError
from olmo_mixlaw.registry import DEFAULT_LAW

if TYPE_CHECKING:
    from olmo_mixlaw.laws.fitted import Fit
    from olmo_mixlaw.runs import Design


# More parameters than this are summed up.
MOST_SHOWN = 60


@click.command()
@recipe_option
@table_options
@click.option("--law", default=DEFAULT_LAW, show_default=True, help="Name of the law.")
@click.option(
    "--capacity",
    default="total",
    show_default=True,
    help="What N is for mixtures of experts: total, active, or effective (between both, rho "
    "fitted).",
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
@BOOTSTRAP
@click.option("--parameters", is_flag=True, help="Print every parameter, however many.")
@click.option("--figure", default=None, metavar="FILE", help="Draw predicted against measured.")
@click.option("--out", "out", default="fit.json", show_default=True, help="Where the fit goes.")
@SEED
def fit(
    law: str,
    capacity: str,
    rho: float | None,
    benchmark: str | None,
    chance: tuple[str, ...],
    held_out: bool,
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

    check_figure(figure)
    chosen = resolve(law, "--law")
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
    old = _fit_there(out)
    print(table.text())
    if capacity == "total" and design.active_known and not _dense(design):
        print("N counts all parameters; the table has active ones too (--capacity)")
    print()
    fitted = fitting.fit(chosen, table, seed=seed, capacity=capacity, rho=rho)
    held = selection.held_out(chosen, fitted.size.applied(design), seed=seed) if held_out else {}
    if held:
        known = {"mixture_r2": held["mixture_r2"], "held_out_mre": held["mre"]}
        fitted = replace(fitted, provenance=fitted.provenance | known)
    guess = fitted.predict(design.ratios, design.n_params, design.n_tokens, design.n_active)
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
            print(f"{short.to_string(index=False)}\n")
        if len(short) < len(free):
            print(f"(medians and ranges of {len(free)} parameters; all of them: --parameters)\n")
    print(
        f"{fitted.law.label}: {fitted.law.written(fitted.scene)}\n"
        f"{len(design)} runs, {fitted.n_parameters} parameters, error on the runs fitted "
        f"{100 * np.nanmean(np.abs(guess / design.losses - 1)):.3f} % ({_held_text(held)})\n"
        f"saved to {path}{kept}"
    )
    if verdict := fitted.cannot_tell_mixtures():
        print(verdict)
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
        )
        print(f"\n{scores.text()}\n{scores.law.parameters().round(4).to_string(index=False)}")
        print(f"saved to {scores.save(benchmark)}")
    if figure:
        from olmo_mixlaw.report import law_figures

        seen = fitted.size.applied(design)
        drawn = law_figures.predicted_against_measured(seen, guess, fitted.law.name)
        print(f"drew {law_figures.save(drawn, figure)}")


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
