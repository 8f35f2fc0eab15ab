"""`olmo-mixlaw predict`: the losses that a saved fit expects for the rows of a table."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import pandas as pd

from olmo_mixlaw.atomic import open_atomic
from olmo_mixlaw.cli.answer import Answer, answers
from olmo_mixlaw.cli.counts import counted
from olmo_mixlaw.cli.options import (
    BOOTSTRAP,
    LEVEL,
    NO_LEVEL,
    SEED,
    loaded,
    pairs,
    refits,
    refuse_input,
    table_options,
)
from olmo_mixlaw.cli.recipe import recipe_option
from olmo_mixlaw.errors import ConfigError, DataError
from olmo_mixlaw.runs import ALIASES, WEIGHT, read_frame
from olmo_mixlaw.runs.available import available_tokens, checked_available
from olmo_mixlaw.runs.frames import numbers, refuse
from olmo_mixlaw.runs.labels import check_names, named_domains
from olmo_mixlaw.runs.names import refuse_synonyms
from olmo_mixlaw.runs.table import COUNTS, WEIGHT_TOLERANCE, check_counts, checked_weights
from olmo_mixlaw.runs.units import NATS, label

if TYPE_CHECKING:
    from olmo_mixlaw.laws.fitted import Fit


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
    "--available",
    multiple=True,
    metavar="DOMAIN=TOKENS",
    help="Tokens that a domain has for these rows, which repeat it when they see more. Default: "
    "the query's columns available_<domain>, else what the fit was given.",
)
@click.option(
    "--interval",
    is_flag=True,
    help="Columns low and high, between which a new run is expected 90 % of the time, by the "
    "law's own account.",
)
@table_options
@NO_LEVEL
@BOOTSTRAP
@click.option("--out", default="predictions.csv", show_default=True, help="Where they go.")
@SEED
@answers
def predict(
    answer: Answer,
    fit_path: str,
    query: str,
    available: tuple[str, ...],
    interval: bool,
    level: bool,
    bootstrap: int,
    out: str,
    seed: int,
    **options: Any,
) -> None:
    """Predict losses for the rows of a table, in the same order."""
    fitted = loaded(fit_path, level)
    refuse_input("--out", out, query, fit_path, options["table"])
    asked = read_query(fitted, read_frame(query), query, options["weight_tolerance"])
    if tokens := pairs(available, "--available", counted):
        if asked.available is not None:
            raise ConfigError(f"--available: {query} says what domains have (available_<domain>)")
        asked = replace(asked, available=tokens)
    plain, fitted = fitted, asked.having(fitted)
    frame = asked.frame.assign(loss=asked.column(asked.predicted(fitted)))
    if fitted.unit != NATS:
        frame["unit"] = fitted.unit
    if bootstrap:
        from olmo_mixlaw.laws.choice.uncertainty import interval as central

        rng = np.random.default_rng(seed)
        draws = []
        for other in map(asked.having, refits(plain, options, bootstrap, seed)):
            noise = rng.normal(size=(len(frame), len(fitted.targets))) * fitted.noise
            draws.append(asked.column(asked.predicted(other) * np.exp(noise)))
        frame["low"], frame["high"] = central(np.array(draws), LEVEL)
    elif interval:
        from olmo_mixlaw.laws.choice.uncertainty import predicted_interval

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
    print(
        f"{len(frame)} rows predicted by {fitted.law.label}, in {label(fitted.unit)}, "
        f"saved to {out}"
    )
    answer.document = {
        "law": fitted.law.label,
        "unit": fitted.unit,
        "no_answer": fitted.cannot_tell_mixtures() or None,
        "level": LEVEL if "low" in frame else None,
        "rows": frame,
        "warnings": [],
        "saved": out,
    }


@dataclass(frozen=True)
class Query:
    """Rows to predict: `ratios` (R, K), sizes and budgets, and the target (R,) that each asks."""

    frame: pd.DataFrame
    ratios: np.ndarray
    n_params: Any
    n_tokens: Any
    n_active: Any
    target: np.ndarray
    available: Any = None

    def having(self, fitted: Fit) -> Fit:
        """The fit, asked about what the domains of these rows have."""
        return fitted if self.available is None else fitted.having(self.available)

    def predicted(self, fitted: Fit) -> np.ndarray:
        """Losses of all targets, (R, T)."""
        return fitted.predict(self.ratios, self.n_params, self.n_tokens, self.n_active)

    def column(self, losses: np.ndarray) -> np.ndarray:
        """The loss (R,) of each row's own target."""
        return losses[np.arange(len(self.frame)), self.target]


def read_query(
    fitted: Fit, frame: pd.DataFrame, where: str, tolerance: float = WEIGHT_TOLERANCE
) -> Query:
    """The rows of a query, checked against the fit. Raises `DataError`."""
    renamed = {k: v for k, v in ALIASES.items() if v not in frame}
    frame = frame.rename(columns=renamed)
    refuse_synonyms(frame, where)
    for column in [WEIGHT + name for name in fitted.domains] + ["domain"]:
        if column not in frame:
            raise DataError(f"{where}: column {column!r} is missing")
    check_names(frame, ["domain"], where)
    frame["domain"] = named_domains(frame, where)
    known_targets = f"was not fitted (known: {', '.join(fitted.targets)})"
    refuse(frame, "domain", ~frame["domain"].isin(fitted.targets), where, known_targets)
    weights = [WEIGHT + name for name in fitted.domains]
    for column in frame:
        if str(column).startswith(WEIGHT) and column not in weights:
            reason = f"the fit has no such domain (it has: {', '.join(fitted.domains)})"
            refuse(frame, column, numbers(frame, column, where) != 0, where, reason)
    counts = frame.assign(**{c: numbers(frame, c, where) for c in COUNTS if c in frame})
    check_counts(counts, where)
    known = {c: counts[c].to_numpy(float) for c in COUNTS if c in frame}
    number = {name: i for i, name in enumerate(fitted.targets)}
    checked_available(counts, fitted.domains, where, per_run=False)
    return Query(
        frame,
        checked_weights(frame, weights, where, tolerance).to_numpy(float),
        known.get("n_params", np.nan),
        known.get("n_tokens", np.nan),
        known.get("n_active"),
        frame["domain"].map(number).to_numpy(int),
        available_tokens(counts, fitted.domains),
    )
