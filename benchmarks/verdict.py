"""Do verdicts hold? Intervals of gains against gains that were measured, on public tables.

A law is fitted to a part of a table's mixtures (or its smaller sizes) and proposes one of the
others, whose losses are known; the verdict against a mixture that was fitted is then true or not.
`python benchmarks/verdict.py` prints a table and saves it. A table whose losses are shuffled among
its mixtures must not be told anything of.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import record
from splits import scale_steps, short
from tables import Table, joined, tables

from olmo_mixlaw.advice import optimum
from olmo_mixlaw.advice.verdict import (
    AS_GOOD,
    BAND,
    CANT_TELL,
    DISTINGUISHABLE,
    PERCENT,
    WORSE,
    Verdict,
    proposed,
    verdict,
    verdicts,
)
from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws.choice.differences import differences
from olmo_mixlaw.laws.choice.holdout import LOOSE
from olmo_mixlaw.laws.choice.uncertainty import bootstrap, interval
from olmo_mixlaw.laws.fitting import fit
from olmo_mixlaw.laws.law import resolve
from olmo_mixlaw.runs import Design

NAMES = ("p3", "p12", "p11", "p13", "p10r", "p4", "p1", "p4b", "p10w", "p5", "p2")
SIZES = ("p3", "p4", "p4b")
LAWS = ("shared_power", "transfer")
# Mixtures fitted: these shares of a table's, and no more than so many.
PARTS, MOST_FITTED = (0.4, 0.7), 96
GOALS, CURRENTS, OTHERS = 5, 3, 5
MANY = 50  # targets
BUDGETS = 2  # the longest of each size: more are the same runs again
REFITS = 10
KINDS = (DISTINGUISHABLE, AS_GOOD, CANT_TELL, WORSE)
WITHIN, OUTSIDE, BEYOND, SHUFFLED = "within", "outermost held", "beyond", "shuffled"
# A law fitted to the table stands for the truth, whose losses are then known at any mixture: at
# the optimum, too. It is not the law that is judged.
PLANTED, TEACHERS = "planted", ("additive", "cokriging")
PLANTED_TABLES, PLANTED_GOALS = ("p1", "p3", "p4", "p5", "p10r", "p10w"), 3


@dataclass(frozen=True)
class Trial:
    """What is fitted, and the runs of one size and budget among which gains are known."""

    table: str
    what: str
    fitted: Design
    known: Design


def longest(design: Design) -> Design:
    """Each size at the `BUDGETS` longest of its budgets."""
    keep = np.zeros(len(design), bool)
    for size in np.unique(design.n_params):
        rows = design.n_params == size
        budgets = np.unique(np.nan_to_num(design.n_tokens[rows]))[-BUDGETS:]
        keep |= rows & np.isin(np.nan_to_num(design.n_tokens), budgets)
    return design.take(keep)


def one_cell(design: Design) -> Design:
    """The runs of the size and budget that has most, the larger one of equals."""
    key = np.nan_to_num(np.c_[design.n_params, design.n_tokens])
    _, which, count = np.unique(key, axis=0, return_inverse=True, return_counts=True)
    return design.take(which.ravel() == np.flatnonzero(count == count.max())[-1])


def trials(table: Table, seeds: int) -> Iterator[Trial]:
    """Every way in which a table's mixtures are parted."""
    design = longest(table.load())
    cell = one_cell(design)
    for seed in range(seeds):
        for part in PARTS:
            yield from _parted(table.name, WITHIN, cell, cell, part, seed)
        yield from _outermost(table.name, cell, seed)
        yield from _parted(table.name, SHUFFLED, *[shuffled(cell, seed)] * 2, PARTS[1], seed)
        if table.name in SIZES:
            rows = longest(joined(design, table.later())) if table.later else design
            for step in scale_steps(rows):
                below, above = rows.take(step.train), one_cell(rows.take(step.test))
                larger = at_size(table.name, above)
                yield from _parted(larger, BEYOND, below, above, PARTS[1], seed)


def at_size(name: str, above: Design) -> str:
    """The table's name with the size that is predicted."""
    return f"{name} -> {short(float(above.n_params[0]))}"


def shuffled(design: Design, seed: int) -> Design:
    """The losses of whole runs dealt out among the mixtures anew."""
    order = np.random.default_rng(seed).permutation(len(design))
    return replace(design, losses=design.losses[order])


def _parted(
    name: str, what: str, below: Design, known: Design, part: float, seed: int
) -> Iterator[Trial]:
    """A share of the known mixtures is fitted, with all runs that have one of them."""
    every = np.unique(np.round(known.ratios, 6), axis=0)
    count = int(min(part * len(every), MOST_FITTED, len(every) - 3))
    if count < 5:
        return
    chosen = every[np.random.default_rng(seed).permutation(len(every))[:count]]
    yield Trial(name, what, below.take(_among(below, chosen)), known)


def _outermost(name: str, cell: Design, seed: int) -> Iterator[Trial]:
    """The fifth of the mixtures that lies farthest from the middle is not fitted."""
    every = np.unique(np.round(cell.ratios, 6), axis=0)
    every = every[np.random.default_rng(seed).permutation(len(every))[: 2 * MOST_FITTED]]
    far = np.abs(every - every.mean(0)).sum(1)
    inner = every[far <= np.quantile(far, 0.8)][:MOST_FITTED]
    if len(inner) >= 5:
        yield Trial(name, OUTSIDE, cell.take(_among(cell, inner)), cell)


def _among(design: Design, mixtures: np.ndarray) -> np.ndarray:
    """Which rows (R,) have one of these mixtures."""
    rounded = np.round(design.ratios, 6)
    return np.array([bool((np.abs(mixtures - row).max(1) < 1e-6).any()) for row in rounded])


def rows_of(trial: Trial, law: str, seed: int) -> list[dict[str, Any]]:
    """A row a (goal, pair): what was said of the gain, and what it was."""
    known = trial.known.take(np.isfinite(trial.known.losses).all(1))
    try:
        fitted = fit(law, trial.fitted, settings=LOOSE)
        n, d = float(known.n_params[0]), float(known.n_tokens[0])
        n, d = (n if fitted.scene.has_n or fitted.level else np.nan for n in (n, d))
        guess = fitted.predict(known.ratios, n, d)
    except FitError as error:
        print(f"{trial.table} {trial.what} {law}: {error}", flush=True)
        return []
    between = differences(resolve(law), trial.fitted)
    if between is None:
        return []
    others = list(bootstrap(fitted, trial.fitted, replicates=REFITS))
    moved = np.array([other.predict(known.ratios, n, d) for other in others])
    tried = _among(known, np.unique(np.round(trial.fitted.ratios, 6), axis=0))
    rng, rows, count = np.random.default_rng(seed), [], len(known.targets)
    for number in range(GOALS):
        share = np.full(count, 1 / count) if not number else rng.dirichlet(np.full(count, 0.5))
        weights = dict(zip(known.targets, share, strict=True))
        for pair, i, j in pairs_of(guess @ share, tried, rng):
            best = proposed(fitted, known.ratios[i], n, d)
            said = verdict(fitted, best, known.ratios[j], between=between, target_weights=weights)
            true = known.losses[[j, i]] @ share
            drawn = moved[:, [j, i]] @ share
            about = {"table": trial.table, "what": trial.what, "law": law}
            fits = {"fitted": len(fitted.mixtures), "pair": pair}
            rows.append({**about, **fits, **told(said, true, drawn)})
    return rows


def told(said: Verdict, true: np.ndarray, drawn: np.ndarray) -> dict[str, Any]:
    """A verdict beside the `true` values (2,) of reference and proposal, and refits' (R, 2)."""
    low, high = interval(100 * (1 - drawn[:, 1] / drawn[:, 0]), 0.9)
    return {
        "kind": said.kind,
        "gain": said.gain,
        "low": said.low,
        "high": said.high,
        "true": 100 * float(1 - true[1] / true[0]),
        "refits_low": float(low),
        "refits_high": float(high),
    }


def planted(name: str, cell: Design, teacher: str, seed: int, law: str) -> list[dict[str, Any]]:
    """The same of a law's own optimum, where another law is the truth and its noise the luck."""
    rng = np.random.default_rng(seed)
    cell = cell.take(np.isfinite(cell.losses).all(1))
    cell = cell.take(np.random.default_rng(0).permutation(len(cell))[: 2 * MOST_FITTED])
    truth = fit(teacher, cell, settings=LOOSE, level=False)
    noise = np.std(np.log(cell.losses / truth.predict(cell.ratios)), axis=0)

    def measured(ratios: np.ndarray) -> np.ndarray:
        exact = truth.predict(ratios)
        return exact * np.exp(noise * rng.normal(size=exact.shape))

    some = cell.take(rng.permutation(len(cell))[: int(PARTS[1] * min(len(cell), MOST_FITTED))])
    some = replace(some, losses=measured(some.ratios))
    fitted, between = fit(law, some, settings=LOOSE, level=False), differences(resolve(law), some)
    others, rows = list(bootstrap(fitted, some, replicates=REFITS)), []
    for _ in range(PLANTED_GOALS):
        share = rng.dirichlet(np.full(len(some.targets), 0.5))
        weights = dict(zip(some.targets, share, strict=True))
        best = optimum(fitted, starts=4, target_weights=weights)
        current = ("current", fitted.mixtures[rng.integers(len(fitted.mixtures))])
        said = verdicts(fitted, best, between=between, current=current, target_weights=weights)
        for pair, one in zip(("best tried", "current"), said, strict=True):
            two = np.stack([one.ratios, best.ratios])
            true = measured(two) @ share
            drawn = np.array([other.predict(two) @ share for other in others])
            about = {"table": f"{name}, {teacher}", "what": PLANTED, "law": law}
            fits = {"fitted": len(some), "pair": pair}
            rows.append({**about, **fits, **told(one, true, drawn)})
    return rows


def pairs_of(
    value: np.ndarray, tried: np.ndarray, rng: np.random.Generator
) -> list[tuple[str, int, int]]:
    """The law's favourite of those held against the best tried and some others; and any pairs."""
    held, known = np.flatnonzero(~tried), np.flatnonzero(tried)
    first, best = held[value[held].argmin()], known[value[known].argmin()]
    found = [("best tried", first, best)]
    found += [("current", first, rng.choice(known)) for _ in range(CURRENTS)]
    return found + [("any", rng.choice(held), rng.choice(known)) for _ in range(OTHERS)]


def summary(frame: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Coverage of the intervals and what was said, a row a group."""
    frame = frame.assign(
        inside=frame.eval("low <= true <= high"),
        refits_inside=frame.eval("refits_low <= true <= refits_high"),
        width=frame.eval("(high - low) / 2"),
        off=(frame["gain"] - frame["true"]).abs(),
    )
    found = frame.groupby(by, sort=False).agg(
        pairs=("gain", "size"),
        inside=("inside", "mean"),
        refits_inside=("refits_inside", "mean"),
        half_width=("width", "median"),
        error=("off", "median"),
    )
    for kind in KINDS:
        found[kind] = (frame["kind"] == kind).groupby([frame[b] for b in by], sort=False).mean()
    right = {
        "better_is_true": (DISTINGUISHABLE, frame["true"] > 0),
        "as_good_is_true": (AS_GOOD, frame["true"].abs() <= BAND[PERCENT]),
    }
    for name, (kind, truth) in right.items():
        some = frame["kind"] == kind
        found[name] = truth[some].groupby([frame.loc[some, b] for b in by], sort=False).mean()
    return found.reset_index()


def plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON has them: nothing where nothing is known."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", default=",".join(NAMES), help="only these tables")
    parser.add_argument("--laws", default=",".join(LAWS), help="laws, with commas")
    parser.add_argument("--seeds", type=int, default=2, help="ways to part each table")
    parser.add_argument("--save", default="verdict", help="name of the results; empty: none")
    options = parser.parse_args()
    here, rows = tables(), []
    for name in options.tables.split(","):
        if name not in here:
            print(f"{name}: is not on this machine", flush=True)
            continue
        rows += of_table(here[name], options.laws.split(","), options.seeds)
        frame = pd.DataFrame(rows)
        own = frame[frame["table"].str.split("[ ,]").str[0] == name]
        print(summary(own, ["what", "table", "pair"]).round(3).to_string(), flush=True)
        if options.save:  # after each table: the last one is the whole
            keys = ["what", "table"], ["what", "pair"], ["what"]
            parts = {"_".join(by): summary(frame, by) for by in keys}
            figures = {name: plain(part) for name, part in parts.items()}
            how = {"laws": options.laws, "seeds": options.seeds, "goals": GOALS, "level": 0.9}
            record.save(options.save, figures, **how)
    for by in (["what", "table"], ["what", "pair"], ["what"], ["law"]):
        print(summary(frame, by).round(3).to_string(), flush=True)


def of_table(table: Table, laws: list[str], seeds: int) -> list[dict[str, Any]]:
    """The rows of one table; of one with many targets, by one law."""
    rows = []
    for seed, trial in enumerate(trials(table, seeds)):
        for law in laws if len(trial.fitted.targets) < MANY else laws[:1]:
            rows += rows_of(trial, law, seed)
    if table.name in PLANTED_TABLES:
        cell = one_cell(longest(table.load()))
        for seed in range(seeds):
            for teacher in TEACHERS:
                for law in laws:
                    rows += planted(table.name, cell, teacher, seed, law)
    return rows


if __name__ == "__main__":
    main()
