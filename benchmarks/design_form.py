"""How much of the difference between mixtures does a law miss, at its own scale and at another?

The planner's error of form (`advice/design/form.py`) stands on it. On every public table with
several sizes each law is fitted to part of the mixtures of one size, at its longest budget, and
asked about other mixtures there and at every larger size; what it misses of log losses (the mean
over mixtures taken off) is told in spreads between mixtures. `python benchmarks/design_form.py`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import record
from tables import DEVELOPMENT, MIXTURES, find, joined, load_mixtures

from olmo_mixlaw.advice.design.plan import LAWS
from olmo_mixlaw.laws.choice.holdout import mixture_ids
from olmo_mixlaw.laws.law import Scene, Settings, resolve
from olmo_mixlaw.runs import Design

TABLES = ("p2", "p3", "p4", "p4b", "p5")
# Mixtures that are fitted: as many as a plan may buy of one size.
FITTED, LEAST_HELD = 24, 5
SPLITS = 3


def cells_of(design: Design) -> list[Design]:
    """The runs of each size at its longest budget, smallest size first."""
    found = []
    for size in np.unique(design.n_params):
        rows = design.n_params == size
        found.append(design.take(rows & (design.n_tokens >= 0.999 * design.n_tokens[rows].max())))
    return found


def missed(design: Design, law: str, seed: int) -> Iterator[dict[str, float]]:
    """A row a (size fitted, size asked): the part of the spread that the law misses."""
    cells, rng = cells_of(design), np.random.default_rng(seed)
    scene = Scene.of(design)
    for i, small in enumerate(cells):
        names = [tuple(np.round(h, 6)) for h in small.ratios]
        mixtures = sorted(set(names))
        fitted = min(FITTED, len(mixtures) - LEAST_HELD)
        if fitted < LEAST_HELD:
            continue
        some = {mixtures[j] for j in rng.permutation(len(mixtures))[:fitted]}
        train = small.take(np.array([name in some for name in names]))
        found = resolve(law).fit(train, seed=seed, settings=Settings(strict=False), scene=scene)
        for large in cells[i:]:
            rest = np.array([tuple(np.round(h, 6)) not in some for h in large.ratios])
            if len(np.unique(mixture_ids(large.take(rest)))) < LEAST_HELD:
                continue
            held = large.take(rest)
            at = scene.inputs(held.ratios, held.n_params, held.n_tokens)
            error = np.log(found.law.predict(found, at)) - np.log(held.losses)
            spread = np.nanstd(np.log(held.losses), axis=0)
            part = np.nanstd(error, axis=0) / np.maximum(spread, 1e-6)
            yield {
                "law": law,
                "fitted": train.n_params[0],
                "asked": held.n_params[0],
                "size_apart": float(np.log(held.n_params[0] / train.n_params[0])),
                "budget_apart": float(np.log(held.n_tokens[0] / train.n_tokens[0])),
                "runs": len(train),
                "missed": float(np.sqrt(np.nanmean(part**2))),
                "missed_median": float(np.nanmedian(part)),
                "missed_of_mean": of_mean(error, held.losses),
            }


def of_mean(error: np.ndarray, losses: np.ndarray) -> float:
    """The same of the mean log loss over targets, which is what is optimised."""
    return float(np.nanmean(error, axis=1).std() / np.nanmean(np.log(losses), axis=1).std())


def main() -> None:
    """Print a row a (table, sizes), means over laws and splits, and save them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", default=",".join(TABLES))
    options = parser.parse_args()
    rows = []
    for name in options.tables.split(","):
        if find(MIXTURES[name]) is None:
            print(f"{name}: not on this machine")
            continue
        design = load_mixtures(MIXTURES[name])
        if name == "p3" and find(DEVELOPMENT) is not None:
            design = joined(design, load_mixtures(DEVELOPMENT))
        for seed in range(SPLITS):
            for law in LAWS:
                rows += [{"table": name, **row} for row in missed(design, law, seed)]
    frame = pd.DataFrame(rows)
    keys = ["table", "fitted", "asked", "size_apart", "budget_apart", "runs"]
    shown = frame.drop(columns="law").groupby(keys).mean().reset_index()
    print(shown.round(3).to_string(index=False))
    record.save("design_form", shown.to_dict("records"), fitted=FITTED, splits=SPLITS, laws=LAWS)


if __name__ == "__main__":
    main()
