"""A plan as `design` shows and writes it: text, JSON, a CSV, or a study that trains its runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from olmo_mixlaw.advice.design import Plan
from olmo_mixlaw.advice.design.told import by_size, sentence
from olmo_mixlaw.atomic import write_text
from olmo_mixlaw.cli.offered import Given
from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.models.ladder import short
from olmo_mixlaw.runs.available import AVAILABLE
from olmo_mixlaw.runs.units import label

MOST_SHOWN = 24
SUFFIXES = (".csv", ".yaml", ".yml")


def check_write(write: str | None, study: str | None) -> None:
    """Refuse, before any work, a file that the runs can't be written to. Raises `ConfigError`."""
    if write is None:
        return
    suffix = Path(write).suffix.lower()
    if suffix not in SUFFIXES:
        raise ConfigError(f"--write {write}: expected a file that ends in {', '.join(SUFFIXES)}")
    if suffix != ".csv" and not study:
        raise ConfigError(f"--write {write}: a study's YAML needs the study to fill: give --study")


def written(path: str, runs: pd.DataFrame, given: Given) -> Path:
    """The runs as a CSV or, with a study, as the study that trains them."""
    if Path(path).suffix.lower() == ".csv":
        return write_text(path, runs.to_csv(index=False))
    from olmo_mixlaw.study.designed import designed

    assert given.study is not None
    shares = [f"w_{name}" for name in given.study.domains]
    chosen = designed(
        dataclasses.replace(given.study, match_repeats=bool(given.available)),
        [
            (str(row["size"]), int(row["n_tokens"]), tuple(row[shares]), int(row["seeds"]))
            for _, row in runs.iterrows()
        ],
    )
    text = yaml.safe_dump(dataclasses.asdict(chosen), sort_keys=False, allow_unicode=True)
    return write_text(path, f"# Planned by olmo-mixlaw design: {len(runs)} runs.\n{text}")


def text(given: Given, plan: Plan, runs: pd.DataFrame, unit: str, n_params: float) -> str:
    price = given.prices.unit
    shown = by_size(runs)
    shown["n_tokens"] = [short(n) for n in shown["n_tokens"]]
    shown["share"] = [f"{100 * share:.0f} %" for share in shown["share"]]
    names = {"n_tokens": "tokens", "price": price}
    lines = [shown.rename(columns=names).to_string(index=False, float_format="{:.3g}".format), ""]
    first = runs.head(MOST_SHOWN).drop(columns=[c for c in runs if c.startswith(AVAILABLE)])
    first = first.drop(columns="n_params")
    if len(first):
        first["n_tokens"] = [short(n) for n in first["n_tokens"]]
    renamed = {c: c.removeprefix("w_") for c in first} | names
    lines.append(first.rename(columns=renamed).to_string(index=False, float_format="{:.3g}".format))
    if len(runs) > len(first):
        lines.append(f"({len(runs) - len(first)} more, each worth less: --write FILE)")
    if given.available:
        lines.append("cut sources so that runs repeat them as the target will (available_<domain>)")
    batches = pd.DataFrame(
        [
            {
                "batch": i + 1,
                "runs": batch.last - batch.first,
                f"spent, {price}": batch.spent,
                f"regret, {label(unit)}": batch.regret,
                "forecast error %": 100 * batch.error,
                "worth": np.nan if batch.worth is None else batch.worth,
            }
            for i, batch in enumerate(plan.batches)
        ]
    )
    if len(batches):
        lines += ["", batches.to_string(index=False, float_format="{:.3g}".format, na_rep="-")]
    target = f"{short(n_params)} parameters"
    lines += ["", sentence(plan, runs, unit, target, given.prices.text(plan.spent))]
    if len(runs):
        lines.append(plan.stop[:1].upper() + plan.stop[1:] + ".")
    return "\n".join(lines)


def document(given: Given, plan: Plan, runs: pd.DataFrame, unit: str) -> dict[str, Any]:
    """A plan as `--json` has it."""
    return {
        "runs": runs,
        "by_size": by_size(runs),
        "price_unit": given.prices.unit,
        "budget": given.budget,
        "spent": plan.spent,
        "unit": unit,
        "expected_regret": dict(zip(("before", "after"), plan.expected_regret, strict=True)),
        "expected_error": dict(zip(("before", "after"), plan.expected_error, strict=True)),
        "batches": [dataclasses.asdict(batch) for batch in plan.batches],
        "batches_that_pay": plan.pays,
        "stop": plan.stop,
        "laws": plan.laws,
    }
