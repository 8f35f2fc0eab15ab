"""`olmo-mixlaw fit`, `compare`, `predict`: the laws from the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import pandas as pd

from olmo_mixlaw.atomic import open_atomic
from olmo_mixlaw.cli.recipe import recipe_option
from olmo_mixlaw.errors import ConfigError, DataError
from olmo_mixlaw.runs import ALIASES, WEIGHT, Design, RunTable, read_frame

if TYPE_CHECKING:
    from olmo_mixlaw.laws.fitted import Fit

# `compare --laws auto` fits each law a dozen times: up to so many losses the slow ones take part.
MOST_LOSSES = {"kriging": 8000, "stack": 600}


def table_options(command: Callable) -> Callable:
    """The ways to say which table: `--table`, or `--ratios` with `--metrics`."""
    for option in reversed(
        [
            click.option(
                "--table",
                metavar="PATH",
                help="A RunTable folder, a CSV, gzipped CSV or "
                "Parquet file of losses, or a YAML that describes a wide CSV.",
            ),
            click.option("--ratios", metavar="CSV", help="Olmix's or RegMix's table of mixtures."),
            click.option("--metrics", metavar="CSV", help="The table of losses beside --ratios."),
            click.option(
                "--size", type=float, default=np.nan, help="Parameters of a --ratios swarm."
            ),
            click.option(
                "--tokens", type=float, default=np.nan, help="Tokens of a --ratios swarm."
            ),
            click.option(
                "--weight-tolerance",
                default=1e-6,
                show_default=True,
                help="How far a run's weights may sum from 1; beyond 1e-6 they are rescaled.",
            ),
        ]
    ):
        command = option(command)
    return command


def _table(options: Mapping[str, Any]) -> RunTable:
    from olmo_mixlaw.runs.importers import load_table

    return load_table(
        options["table"],
        options["ratios"],
        options["metrics"],
        n_params=options["size"],
        n_tokens=options["tokens"],
        weight_tolerance=options["weight_tolerance"],
    )


SEED = click.option("--seed", default=0, show_default=True, help="Seed of the starts.")


BOOTSTRAP = click.option(
    "--bootstrap",
    default=0,
    show_default=True,
    help="Refits to resampled runs, for 90 % intervals; a saved fit needs its table beside it.",
)
LEVEL = 0.9


def refits(fitted: Any, options: Mapping[str, Any], replicates: int, seed: int) -> Any:
    """The bootstrap of a saved fit, on the table that it was fitted to. Raises `ConfigError`."""
    from olmo_mixlaw.laws.choice.uncertainty import bootstrap
    from olmo_mixlaw.laws.fitting import data_hash
    from olmo_mixlaw.laws.moe_capacity import with_capacity

    if replicates < 10:
        raise ConfigError(f"--bootstrap {replicates}: an interval needs 10 refits or more")
    if not options["table"] and not options["ratios"]:
        raise ConfigError("--bootstrap: needs the table that was fitted (--table, or --ratios)")
    design = _table(options).design()
    if data_hash(with_capacity(design, fitted.rho)) != fitted.data_hash:
        raise ConfigError(
            "--bootstrap: the table is not the one that was fitted "
            f"({len(design)} runs here, {fitted.n_rows} then, or other values)"
        )
    return bootstrap(fitted, design, replicates=replicates, seed=seed)


@click.command()
@recipe_option
@table_options
@click.option("--law", default="transfer", show_default=True, help="Name of the law.")
@click.option(
    "--capacity",
    default="total",
    show_default=True,
    help="What N is for mixtures of "
    "experts: total, active, or effective (between both, rho fitted).",
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

    chosen = fitting.resolve(law, "--law")
    if rho is not None and capacity != "effective":
        raise ConfigError("--rho: needs --capacity effective")
    table = _table(options)
    fitted = fitting.fit(chosen, table, seed=seed, capacity=capacity, rho=rho)
    design = table.design()
    guess = fitted.predict(design.ratios, design.n_params, design.n_tokens, design.n_active)
    path = fitted.save(out)
    shown = fitted.parameters
    if bootstrap and len(shown):
        low, high = _parameter_interval(fitted, options, bootstrap, seed)
        shown["low"], shown["high"] = low, high
    with pd.option_context("display.float_format", "{:.4g}".format):
        print(shown[~shown["fixed"]].drop(columns="fixed").to_string(index=False))
    print(
        f"\n{fitted.law.name}: {fitted.law.formula}\n"
        f"{len(design)} runs, {fitted.n_parameters} parameters, error on the runs fitted "
        f"{100 * np.nanmean(np.abs(guess / design.losses - 1)):.3f} % (held-out error: "
        f"olmo-mixlaw compare)\nsaved to {path}"
    )
    if benchmark:
        from olmo_mixlaw.advice.scores import fit_scores
        from olmo_mixlaw.advice.two_step import CHANCE

        floors = pairs(chance, "--chance")
        scores = fit_scores(
            table, law, chance={**floors, **CHANCE}, seed=seed, capacity=capacity, rho=fitted.rho
        )
        print(f"\n{scores.text()}\n{scores.law.parameters().round(4).to_string(index=False)}")
        print(f"saved to {scores.save(benchmark)}")
    if figure:
        from olmo_mixlaw.laws.moe_capacity import with_capacity
        from olmo_mixlaw.report import law_figures

        seen = with_capacity(design, fitted.rho)
        drawn = law_figures.predicted_against_measured(seen, guess, fitted.law.name)
        print(f"drew {law_figures.save(drawn, figure)}")


def _parameter_interval(
    fitted: Any, options: Mapping[str, Any], replicates: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    from olmo_mixlaw.laws.choice.uncertainty import interval

    draws = [f.parameters["value"].to_numpy() for f in refits(fitted, options, replicates, seed)]
    return interval(np.array(draws), LEVEL)


@click.command()
@recipe_option
@table_options
@click.option(
    "--laws",
    default="auto",
    show_default=True,
    help="Names of laws, with commas. auto: "
    "one of each kind, and their stack where the table is short enough for "
    "it.",
)
@click.option("--folds", default=5, show_default=True, help="Folds of the held mixtures.")
@click.option(
    "--capacity",
    default="total",
    show_default=True,
    help="What N is: total, active, or "
    "the rho between them (a number from 0 to 1, as `fit` found it).",
)
@click.option("--figure", default=None, metavar="FILE", help="Draw the held-out errors.")
@click.option("--out", default=None, help="Also write the table as CSV.")
@SEED
def compare(
    laws: str,
    folds: int,
    capacity: str,
    figure: str | None,
    out: str | None,
    seed: int,
    **options: Any,
) -> None:
    """Compare laws by their error on mixtures and sizes held out, and choose one."""
    from olmo_mixlaw.laws import fitting
    from olmo_mixlaw.laws.choice import selection
    from olmo_mixlaw.laws.moe_capacity import check_capacity, with_capacity

    rho = _rho(capacity)
    named = (
        []
        if laws == "auto"
        else [fitting.resolve(name.strip(), "--laws") for name in laws.split(",")]
    )
    design = _table(options).design()
    if rho < 1:
        check_capacity(design, "active")
        design = with_capacity(design, rho)
    if laws == "auto":
        named = [fitting.resolve(name) for name in default_laws(design)]
    result = selection.compare(
        design, named, folds=folds, seed=seed, progress=lambda line: click.echo(line, err=True)
    )
    print(result.text())
    if figure:
        from olmo_mixlaw.report import law_figures

        drawn = law_figures.held_out_errors(result.frame, result.choice)
        print(f"drew {law_figures.save(drawn, figure)}")
    if out:
        with open_atomic(out, newline="") as file:
            result.frame.to_csv(file, index=False, lineterminator="\n")


def default_laws(design: Design) -> list[str]:
    """One law of each kind, and what is slow only on tables that are short enough for it."""
    laws = ["no_mixture", "log_linear", "transfer", "power_transfer", "additive", "modulated"]
    losses = int(np.isfinite(design.losses).sum())
    if len(set(design.domains) & set(design.targets)) == len(design.targets):
        laws.append("competition_noise")
    if losses <= MOST_LOSSES["kriging"]:
        laws.append("kriging")
    if losses <= MOST_LOSSES["stack"]:
        laws.append("stack")
    return laws


def _rho(capacity: str) -> float:
    ends = {"total": 1.0, "active": 0.0}
    try:
        rho = ends[capacity] if capacity in ends else float(capacity)
    except ValueError:
        rho = -1.0
    if not 0 <= rho <= 1:
        raise ConfigError(
            f"--capacity {capacity}: expected total, active or a rho from 0 to 1 (`olmo-mixlaw fit "
            "--capacity effective` finds it)"
        )
    return rho


@click.command()
@click.argument("fit_path", metavar="FIT")
@recipe_option
@click.option(
    "--query",
    required=True,
    metavar="PATH",
    help="Rows to predict: columns w_<domain>, n_params, n_tokens, domain (and n_active).",
)
@click.option(
    "--interval",
    is_flag=True,
    help="Columns low and high, between which a new run is "
    "expected 90 % of the time, by the law's own account.",
)
@table_options
@BOOTSTRAP
@click.option("--out", default="predictions.csv", show_default=True, help="Where they go.")
@SEED
def predict(
    fit_path: str, query: str, interval: bool, bootstrap: int, out: str, seed: int, **options: Any
) -> None:
    """Predict losses for the rows of a table, in the same order."""
    from olmo_mixlaw.laws.fitted import Fit

    fitted = Fit.load(fit_path)
    asked = read_query(fitted, read_frame(query), query)
    frame = asked.frame.assign(loss=asked.column(asked.predicted(fitted)))
    if bootstrap:
        from olmo_mixlaw.laws.choice.uncertainty import interval as central

        rng = np.random.default_rng(seed)
        draws = []
        for other in refits(fitted, options, bootstrap, seed):
            noise = rng.normal(size=(len(frame), len(fitted.targets))) * fitted.noise
            draws.append(asked.column(asked.predicted(other) * np.exp(noise)))
        frame["low"], frame["high"] = central(np.array(draws), LEVEL)
    elif interval:
        from olmo_mixlaw.laws.intervals import predicted_interval

        low, high = predicted_interval(
            fitted,
            asked.ratios,
            asked.n_params,
            asked.n_tokens,
            level=LEVEL,
            n_active=asked.n_active,
        )
        frame["low"], frame["high"] = asked.column(low), asked.column(high)
    with open_atomic(out, newline="") as file:
        frame.to_csv(file, index=False, lineterminator="\n")
    print(f"{len(frame)} rows predicted, saved to {out}")


@dataclass(frozen=True)
class Query:
    """Rows to predict: `ratios` (R, K), sizes and budgets, and the target (R,) that each asks."""

    frame: pd.DataFrame
    ratios: np.ndarray
    n_params: Any
    n_tokens: Any
    n_active: Any
    target: np.ndarray

    def predicted(self, fitted: Fit) -> np.ndarray:
        """Losses of all targets, (R, T)."""
        return fitted.predict(self.ratios, self.n_params, self.n_tokens, self.n_active)

    def column(self, losses: np.ndarray) -> np.ndarray:
        """The loss (R,) of each row's own target."""
        return losses[np.arange(len(self.frame)), self.target]


def read_query(fitted: Fit, frame: pd.DataFrame, where: str) -> Query:
    """The rows of a query, checked against the fit. Raises `DataError`."""
    renamed = {k: v for k, v in ALIASES.items() if v not in frame}
    frame = frame.rename(columns=renamed)
    for column in [WEIGHT + name for name in fitted.domains] + ["domain"]:
        if column not in frame:
            raise DataError(f"{where}: column {column!r} is missing")
    unknown = set(frame["domain"]) - set(fitted.targets)
    if unknown:
        raise DataError(
            f"{where}: column 'domain': {sorted(unknown)[0]!r} was not fitted "
            f"(known: {', '.join(fitted.targets)})"
        )
    known = {
        c: frame[c].to_numpy(float) for c in ("n_params", "n_tokens", "n_active") if c in frame
    }
    number = {name: i for i, name in enumerate(fitted.targets)}
    return Query(
        frame,
        frame[[WEIGHT + name for name in fitted.domains]].to_numpy(float),
        known.get("n_params", np.nan),
        known.get("n_tokens", np.nan),
        known.get("n_active"),
        frame["domain"].map(number).to_numpy(int),
    )


def pairs(items: tuple[str, ...], option: str) -> dict[str, float]:
    """`name=value` strings as a mapping. Raises `ConfigError`."""
    result = {}
    for item in items:
        name, sign, value = item.rpartition("=")
        try:
            result[name] = float(value)
        except ValueError:
            sign = ""
        if not sign or not name:
            raise ConfigError(f"{option}: expected NAME=NUMBER, found {item!r}")
    return result
