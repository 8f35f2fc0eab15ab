"""Which runs are worth buying: realised error and regret against compute, strategy by strategy.

Each strategy buys runs from a table (`design_pools`) with the same budget; one fixed procedure is
fitted to what was bought and judged on mixtures of the held-out scale.
`python benchmarks/design.py` prints a table and saves it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import record
from answers import Answer, answer_for
from design_bayes import bayesian
from design_plans import planned
from design_pools import Pool, pools_here
from design_strategies import Strategy, strategies_for

from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws.choice.holdout import Split
from olmo_mixlaw.laws.choice.scoring import score

# Parts of the full grid's compute.
FRACTIONS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
QUICK_FRACTIONS = (0.2, 0.5, 1.0)
SEEDS, QUICK_SEEDS = 5, 2
# Where strategies are compared: below, laws lean on their priors; above, all buy nearly everything.
COMPARED = (0.1, 0.2, 0.35, 0.5)
# What counts as reaching the full grid: this many times its error.
REACHED = 1.1
FIGURES = ("mre", "goal_error", "regret", "rho", "objective_r2")
OURS = "planned"
# The same where only the forecast counts, not the choice of mixture.
FORECAST = "planned forecast"
BY_TABLE = "the pool's"


class Judge:
    """The fixed procedure: a law fitted to what was bought, scored on the held rows.

    The same purchase is judged once.
    """

    def __init__(self, pool: Pool, law: str) -> None:
        self.pool, self.law = pool, law
        self._known: dict[bytes, dict[str, float]] = {}

    def __call__(self, runs: np.ndarray) -> dict[str, float]:
        """The figures of a purchase (NaN where no law could be fitted).

        `mre` (%) is over all held losses, `goal_error` (%) of the mean loss of the best held
        mixture; the others are of `choice.scoring.score`.
        """
        key = np.sort(runs).tobytes()
        if key not in self._known:
            self._known[key] = self._figures(runs)
        return self._known[key]

    def _figures(self, runs: np.ndarray) -> dict[str, float]:
        held = self.pool.held
        if not len(runs):
            return dict.fromkeys(FIGURES, np.nan)
        try:
            answer = answer_for(
                self.pool.bought(runs), self.law, has_embeddings=self.pool.has_embeddings
            )
            guess = self._losses(answer)
        except FitError:
            return dict.fromkeys(FIGURES, np.nan)
        whole = np.ones(len(held), bool)
        found = score(held, [(Split("held", 0, ~whole, whole), guess)])
        goal, seen = guess.mean(1), held.losses.mean(1)
        best = int(np.nanargmin(seen))
        found["goal_error"] = 100 * abs(float(goal[best] / seen[best]) - 1)
        return {name: found[name] for name in FIGURES}

    def _losses(self, answer: Answer) -> np.ndarray:
        """Losses (R, T) of the held rows; of a purchase that can't speak of their budget, those
        at its own longest: it may rank mixtures, at a level that is wrong."""
        held = self.pool.held
        try:
            return answer.losses(held.ratios, held.n_params, held.n_tokens)
        except FitError:
            seen = np.full(len(held), answer.design.n_tokens.max())
            return answer.losses(held.ratios, held.n_params, seen)


def rows_of(
    pool: Pool, strategies: dict[str, Strategy], fractions: Sequence[float], seed: int, law: str
) -> list[dict[str, Any]]:
    """A row a (strategy, fraction) of one pool."""
    judge, rows = Judge(pool, law), []
    total = pool.price.sum()
    for name, buy in strategies.items():
        start = time.process_time()
        bought = buy(pool, [part * total for part in fractions], seed)
        seconds = time.process_time() - start
        for part, runs in zip(fractions, bought, strict=True):
            shares = [pool.price[runs[pool.n_params[runs] == n]].sum() for n in pool.sizes]
            rows.append(
                {
                    "table": pool.name,
                    "strategy": name,
                    "fraction": part,
                    "seed": seed,
                    "runs": len(runs),
                    "spent": pool.price[runs].sum() / total,
                    "size_shares": (np.array(shares) / max(sum(shares), 1.0)).round(3).tolist(),
                    **judge(runs),
                    "cpu_seconds": seconds,
                }
            )
    return rows


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds, and the spread of the error, a row a (table, strategy, fraction)."""
    grouped = frame.groupby(["table", "strategy", "fraction"], sort=False)
    found = grouped[[*FIGURES, "spent", "runs"]].mean()
    found["mre_sd"] = grouped["mre"].std()
    # A purchase that no law could be fitted to is no result at all.
    failed = grouped["mre"].apply(lambda column: column.isna().any())
    found.loc[failed, list(FIGURES)] = np.nan
    return found.reset_index()


def reached(found: pd.DataFrame) -> pd.DataFrame:
    """For each strategy, the least fraction at which its mean error is at most `REACHED` times
    the full grid's, and the compute it had then spent."""
    rows = []
    for table, part in found.groupby("table", sort=False):
        full = part[(part["strategy"] == "full grid") & (part["fraction"] == 1.0)].iloc[0]
        for strategy, curve in part.groupby("strategy", sort=False):
            good = curve[curve["mre"] <= REACHED * full["mre"]]
            half = curve[curve["fraction"] == 0.5]
            rows.append(
                {
                    "table": table,
                    "strategy": strategy,
                    "full_mre": full["mre"],
                    "reached_at": good["fraction"].min() if len(good) else np.nan,
                    "spent_then": good["spent"].min() if len(good) else np.nan,
                    "half_over_full": half["mre"].iloc[0] / full["mre"] if len(half) else np.nan,
                    "regret_at_half": half["regret"].iloc[0] if len(half) else np.nan,
                    "full_regret": full["regret"],
                }
            )
    return pd.DataFrame(rows)


def at_equal_compute(found: pd.DataFrame) -> pd.DataFrame:
    """Error over that of the full grid in a random order for the same compute: a geometric mean
    over the fractions of `COMPARED`, a row a strategy, a column a table, and over those tables."""
    some = found[found["fraction"].isin(COMPARED)]
    wide = some.pivot_table(index=["table", "fraction"], columns="strategy", values="mre")
    ratio = np.log(wide.div(wide["full grid"], axis=0))
    by_table = ratio.groupby("table", sort=False).mean().T
    return np.exp(by_table.assign(all=by_table.mean(axis=1)))


def saved_rows(name: str, how: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows saved earlier, where they were taken under the same settings."""
    path = record.RESULTS / f"{name}.json"
    if not path.exists():
        return []
    saved = json.loads(path.read_text(encoding="utf-8"))
    if any(saved["settings"].get(key) != value for key, value in how.items()):
        raise SystemExit(f"--add: {path.name} was taken with other settings than {how}")
    return list(saved["figures"]["rows"])


def joined_rows(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The new rows in place of the old ones of their table and strategy, and the others."""
    fresh = {(row["table"], row["strategy"]) for row in new}
    return [row for row in old if (row["table"], row["strategy"]) not in fresh] + new


def curves(found: pd.DataFrame, column: str) -> str:
    """A figure by strategy and fraction, for printing."""
    wide = found.pivot_table(
        index=["table", "strategy"], columns="fraction", values=column, sort=False, dropna=False
    )
    return str(wide.dropna(how="all").round(4).to_string())


def main() -> None:
    makers = pools_here()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", default="", help="only these: " + ", ".join(makers))
    parser.add_argument("--strategies", default="", help="only these, with commas")
    parser.add_argument("--law", default="", help="the law fitted to a purchase")
    parser.add_argument("--seeds", type=int, default=0, help=f"default: {SEEDS}")
    parser.add_argument(
        "--add", action="store_true", help="keep the saved rows of other tables and strategies"
    )
    parser.add_argument("--quick", action="store_true", help="two seeds, three fractions")
    options = parser.parse_args()
    only = [name for name in options.tables.split(",") if name] or list(makers)
    unknown = [name for name in only if name not in makers]
    if unknown:
        parser.error(f"--tables: {unknown[0]!r} is none of {', '.join(makers)}")
    fractions = QUICK_FRACTIONS if options.quick else FRACTIONS
    seeds = options.seeds or (QUICK_SEEDS if options.quick else SEEDS)
    wanted = [name for name in options.strategies.split(",") if name]
    started, rows = time.process_time(), []
    learners = {OURS: planned, FORECAST: partial(planned, error_part=1.0), **bayesian()}
    for name in only:
        for seed in range(seeds):
            pool = makers[name](seed)
            asked = {**strategies_for(pool), **learners}
            asked = {k: v for k, v in asked.items() if not wanted or k in wanted}
            rows += rows_of(pool, asked, fractions, seed, options.law or pool.law)
        print(f"{name}: {time.process_time() - started:.0f} processor seconds so far", flush=True)
    file = "design_quick" if options.quick else "design"
    how = {"law": options.law or BY_TABLE, "seeds": seeds, "fractions": list(fractions)}
    if options.add:
        rows = joined_rows(saved_rows(file, how), rows)
    found = summary(pd.DataFrame(rows))
    for column in FIGURES:
        print(f"\n{column}, mean over {seeds} seeds\n{curves(found, column)}")
    line = reached(found)
    print(
        f"\nerror at most {REACHED} times the full grid's\n{line.round(4).to_string(index=False)}"
    )
    equal = at_equal_compute(found)
    print(f"\nerror over the full grid's at equal compute\n{equal.round(3).to_string()}")
    figures = {
        "curves": found.to_dict("records"),
        "reached": line.to_dict("records"),
        "at_equal_compute": equal.T.to_dict(),
        "rows": rows,
    }
    record.save(file, figures, **how, processor_seconds=round(time.process_time() - started))


if __name__ == "__main__":
    main()
