"""A plan in words and rows: the runs to buy, the sizes' shares, and what a colleague would say."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd

from olmo_mixlaw.advice.design.candidates import Candidates
from olmo_mixlaw.advice.design.offer import Offered
from olmo_mixlaw.advice.design.plan import Plan
from olmo_mixlaw.runs.available import AVAILABLE
from olmo_mixlaw.runs.units import label

COLUMNS = ["size", "n_params", "n_tokens", "seeds", "price"]


def runs_of(candidates: Candidates, which: list[Offered], plan: Plan) -> pd.DataFrame:
    """A row a run to buy: size, n_params, n_tokens, seeds, price, and ratios as `w_<domain>`."""
    times = Counter(int(row) for row in plan.rows)
    rows = []
    for row, count in times.items():  # in the order in which they first stand in the plan
        size = which[row]
        cut = {} if candidates.available is None else _cuts(candidates, row)
        ratios = zip(candidates.domains, candidates.ratios[row], strict=True)
        rows.append(
            {
                "size": size.name,
                "n_params": size.n_params,
                "n_tokens": size.n_tokens,
                "seeds": count,
                "price": count * float(candidates.price[row]),
                **{f"w_{name}": float(value) for name, value in ratios},
                **cut,
            }
        )
    return pd.DataFrame(rows, columns=None if rows else COLUMNS)


def _cuts(candidates: Candidates, row: int) -> dict[str, float]:
    """The tokens that the sources are cut to for a run, where they have an end."""
    assert candidates.available is not None
    each = zip(candidates.domains, candidates.available[row], strict=True)
    return {f"{AVAILABLE}{name}": float(tokens) for name, tokens in each if np.isfinite(tokens)}


def by_size(runs: pd.DataFrame) -> pd.DataFrame:
    """A row a size and length: runs, mixtures, price and its share of all."""
    if runs.empty:
        return pd.DataFrame(columns=["size", "n_tokens", "runs", "mixtures", "price", "share"])
    grouped = runs.groupby(["n_params", "size", "n_tokens"])
    found = grouped.agg(runs=("seeds", "sum"), mixtures=("seeds", "size"), price=("price", "sum"))
    found = found.reset_index().drop(columns="n_params")
    return found.assign(share=found["price"] / found["price"].sum())


def sentence(plan: Plan, runs: pd.DataFrame, unit: str, target: str, spent: str) -> str:
    """What a colleague would say of the plan."""
    if runs.empty:
        return f"Buy nothing: {plan.stop}."
    sizes = by_size(runs)
    bought = [f"{row.runs} of {row.size}" for row in sizes.itertuples()]
    said = f"{', '.join(bought[:-1])} and {bought[-1]}" if len(bought) > 1 else bought[0]
    (before, after), (unsure, sure) = plan.expected_regret, plan.expected_error
    count = f"{int(runs['seeds'].sum())} runs, {said} ({spent})"
    lead = f"Buy {count}"
    if plan.pays == 0:
        lead = f"No runs pay by the mixture alone. Those of most worth are {count}"
    return (
        f"{lead}: the mixture that they pick for "
        f"{target} is then expected to be {after:.2g} {label(unit)} from the best one (now "
        f"{before:.2g}), and its loss to be known to +-{100 * sure:.2g} % (now {100 * unsure:.2g} "
        "%, one standard deviation)."
    )
