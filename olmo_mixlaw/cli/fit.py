"""`olmo-mixlaw fit`: one law, fitted to a table of runs and saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import pandas as pd

from olmo_mixlaw.cli.options import (
    BOOTSTRAP,
    LEVEL,
    SEED,
    given_table,
    pairs,
    refits,
    table_options,
)
from olmo_mixlaw.cli.recipe import recipe_option
from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.registry import DEFAULT_LAW

if TYPE_CHECKING:
    from olmo_mixlaw.laws.fitted import Fit


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
@BOOTSTRAP
@click.option("--figure", default=None, metavar="FILE", help="Draw predicted against measured.")
@click.option("--out", "out", default="fit.json", show_default=True, help="Where the fit goes.")
@SEED
def fit(
    law: str,
    capacity: str,
    rho: float | None,
    benchmark: str | None,
    chance: tuple[str, ...],
    bootstrap: int,
    figure: str | None,
    out: str,
    seed: int,
    **options: Any,
) -> None:
    """Fit one law to a table of runs and save it."""
    from olmo_mixlaw.laws import fitting
    from olmo_mixlaw.laws.law import resolve

    chosen = resolve(law, "--law")
    if rho is not None and capacity != "effective":
        raise ConfigError("--rho: needs --capacity effective")
    table = given_table(options)
    fitted = fitting.fit(chosen, table, seed=seed, capacity=capacity, rho=rho)
    design = table.design()
    guess = fitted.predict(design.ratios, design.n_params, design.n_tokens, design.n_active)
    path = fitted.save(out)
    shown = fitted.parameters
    if bootstrap and len(shown):
        low, high = _parameter_interval(fitted, options, bootstrap, seed)
        shown["low"], shown["high"] = low, high
    free = shown[~shown["fixed"]].drop(columns="fixed")
    if len(free):
        with pd.option_context("display.float_format", "{:.4g}".format):
            print(f"{free.to_string(index=False)}\n")
    print(
        f"{fitted.law.name}: {fitted.law.formula}\n"
        f"{len(design)} runs, {fitted.n_parameters} parameters, error on the runs fitted "
        f"{100 * np.nanmean(np.abs(guess / design.losses - 1)):.3f} % (held-out error: "
        f"olmo-mixlaw compare)\nsaved to {path}"
    )
    if benchmark:
        from olmo_mixlaw.advice.curve import CHANCE
        from olmo_mixlaw.advice.scores import fit_scores

        floors = pairs(chance, "--chance")
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


def _parameter_interval(
    fitted: Fit, options: Mapping[str, Any], replicates: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    from olmo_mixlaw.laws.choice.uncertainty import interval

    draws = [f.parameters["value"].to_numpy() for f in refits(fitted, options, replicates, seed)]
    return interval(np.array(draws), LEVEL)
