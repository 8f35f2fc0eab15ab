"""Many cheap runs and a few dear ones: the law `two_fidelity` against laws with terms in N and D.

`python benchmarks/two_fidelity.py` measures three things, of which `--part` names one. `agreement`:
how cheap runs rank mixtures that were run in full too, in our own 132 runs (OLMo's Trainer,
`configs/studies/two-fidelity.yaml`; their table is `data/two_fidelity`). `study`: what a design
costs there in full runs, and how it predicts 8 held ones. `tables`: answered rows of public tables,
all runs of a cheap scale and n of a dear one, judged on others of the dear one; no query row is
read. Every law of a line is fitted to the same rows.
"""

from __future__ import annotations

import os

# The arrays are small: a second thread only waits for the first.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import record
from scipy.stats import rankdata
from tables import tables

from olmo_mixlaw.laws.choice.uncertainty import predicted_interval
from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.laws.fitting import fit
from olmo_mixlaw.laws.law import Settings
from olmo_mixlaw.laws.learners.two_fidelity import worth_running
from olmo_mixlaw.registry import ONE_SCALE_LAW
from olmo_mixlaw.runs import Design, RunTable

STUDY = Path(__file__).parent / "data" / "two_fidelity"
LAWS = ("two_fidelity", "transfer", "shared_power", "modulated")
LOOSE = Settings(strict=False)
DEAR_RUNS = (1, 2, 3, 5)
# So many full runs of a study are judged alone, and all of them.
FULL_ALONE = (3, 5)
# Objectives of a study are the mean loss and so many random weightings of the targets.
WEIGHTINGS = 200
# Table, cheap scale, dear scale (N, D).
PAIRS = (
    ("p2", (6e7, 1e9), (1e9, 2.5e10)),
    ("p2", (1e6, 1e9), (1e9, 2.5e10)),
    ("p3", (1.22e8, 2e10), (3.1e8, 2e10)),
    ("p3", (1.22e8, 4e9), (1.22e8, 2e10)),
    ("p3", (1.22e8, 4e9), (3.1e8, 2e10)),
    ("p4", (1.89e7, 3.15e10), (2.02e8, 3.15e10)),
    ("p4", (1.89e7, 1.05e10), (1.89e7, 3.15e10)),
    ("p4b", (1.89e7, 3.15e9), (2.02e8, 3.15e10)),
    ("p5", (9e7, 3e9), (2e8, 8e9)),
)


@dataclass(frozen=True)
class Score:
    """How predictions of held runs do: MRE (%), rank correlation of mixtures, regret (nats), and
    the part of the losses inside their 90 % intervals (NaN where nobody asked)."""

    mre: float
    rho: float
    regret: float
    coverage: float = float("nan")


def scored(truth: np.ndarray, guess: np.ndarray, weights: np.ndarray) -> Score:
    """Of losses (R, T), for objectives `weights` (W, T): rho and regret are means over them."""
    objective, by_law = truth @ weights.T, guess @ weights.T
    ranks = [rankdata(some, axis=0) - (len(truth) + 1) / 2 for some in (objective, by_law)]
    size = np.sqrt((ranks[0] ** 2).sum(0) * (ranks[1] ** 2).sum(0))
    rho = (ranks[0] * ranks[1]).sum(0) / size
    picked = objective[by_law.argmin(0), np.arange(len(weights))]
    mre = 100 * float(np.abs(guess / truth - 1).mean())
    return Score(mre, float(rho.mean()), float((picked - objective.min(0)).mean()))


def equal(design: Design) -> np.ndarray:
    """The mean loss as the only objective, (1, T)."""
    return np.full((1, len(design.targets)), 1 / len(design.targets))


def predicted(law: str, train: Design, held: Design, weights: np.ndarray) -> Score:
    """The score of a law fitted to `train`."""
    fitted = fit(law, train, settings=LOOSE, level=False)
    at = (held.ratios, held.n_params, held.n_tokens)
    low, high = predicted_interval(fitted, *at)
    inside = float(((held.losses >= low) & (held.losses <= high)).mean())
    return replace(scored(held.losses, fitted.predict(*at), weights), coverage=inside)


def mean_of(scores: list[Score]) -> dict[str, float]:
    return {k: float(np.mean([vars(s)[k] for s in scores])) for k in vars(scores[0])}


def both(first: Design, then: Design, rows: np.ndarray) -> Design:
    """All runs of one design and some of another of the same table."""
    arrays = ("ratios", "n_params", "n_active", "n_tokens", "losses")
    some = then.take(rows)
    joined = {k: np.concatenate([getattr(first, k), getattr(some, k)]) for k in arrays}
    ids = [*(f"cheap {i}" for i in first.run_ids), *some.run_ids]
    return replace(first, run_ids=ids, n_embedding=None, available=None, **joined)


def at_scale(design: Design, size: float, budget: float) -> Design:
    """The runs of the size and budget nearest to these."""
    logs = np.log(np.c_[design.n_params, design.n_tokens])
    scales, which = np.unique(logs, axis=0, return_inverse=True)
    near = ((scales - np.log([size, budget])) ** 2).sum(1).argmin()
    return design.take(which.ravel() == near)


def cheap_fit(cheap: Design) -> Fit:
    return fit(ONE_SCALE_LAW, cheap, settings=LOOSE, level=False)


def on_tables(draws: int, names: list[str]) -> Iterator[dict[str, object]]:
    """A row for each pair of scales, number of dear runs and law: means over draws of what is held.

    Half of the dear runs are held; the others are candidates for those that the laws see.
    """
    known = tables()
    for name, small, large in PAIRS:
        if name not in known or name not in names:
            continue
        design = replace(known[name].load(), n_embedding=None, available=None)
        cheap, dear = at_scale(design, *small), at_scale(design, *large)
        below, weights = cheap_fit(cheap), equal(design)
        for count in DEAR_RUNS:
            found: dict[str, list[Score]] = {}
            for draw in range(draws):
                order = np.random.default_rng(draw).permutation(len(dear))
                held, free = dear.take(order[: len(dear) // 2]), order[len(dear) // 2 :]
                some = free[worth_running(below, dear.ratios[free], count)]
                runs = {law: (law, some) for law in LAWS}
                runs["two_fidelity, runs at random"] = ("two_fidelity", free[:count])
                for label, (law, rows) in runs.items():
                    score = predicted(law, both(cheap, dear, rows), held, weights)
                    found.setdefault(label, []).append(score)
            about = {"table": name, "cheap": small, "cheap_runs": len(cheap), "dear": large}
            for label, scores in found.items():
                yield {**about, "dear_runs": count, "law": label, **mean_of(scores)}


@dataclass(frozen=True)
class Cell:
    """Runs of the study at one size and budget: of the swarm and held, in one order of mixtures;
    `cost` is what a run costs in runs of the dearest cell."""

    swarm: Design
    held: Design
    cost: float


def cells_of(table: RunTable) -> dict[tuple[int, int], Cell]:
    """The study's cells by (size, budget), counted from the smallest."""
    design = table.design()
    mixture = table.losses.drop_duplicates("run_id").set_index("run_id")["mixture"]
    name = np.array([mixture[run] for run in design.run_ids])
    assert design.n_embedding is not None
    compute = (design.n_params + design.n_embedding) * design.n_tokens
    sizes, budgets = np.unique(design.n_params), np.unique(design.n_tokens)
    design = replace(design, n_embedding=None, available=None)
    found = {}
    for i, n in enumerate(sizes):
        for j, d in enumerate(budgets):
            rows = np.flatnonzero((design.n_params == n) & (design.n_tokens == d))
            rows = rows[np.argsort(name[rows])]
            swarm = np.char.startswith(name[rows], "swarm")
            cost = float(compute[rows[0]] / compute.max())
            found[i, j] = Cell(design.take(rows[swarm]), design.take(rows[~swarm]), cost)
    return found


def on_study(draws: int) -> Iterator[dict[str, object]]:
    """A row for each size, design and law: cost in full runs, and scores on the 8 held full runs.

    Means over `draws` subsets of the swarm's full runs; `chosen` rows are of the one subset that
    `worth_running` names from the cheap runs alone.
    """
    cells = cells_of(RunTable.load(STUDY))
    top = max(j for _, j in cells)
    for size in sorted({i for i, _ in cells}):
        full = cells[size, top]
        weights = np.random.default_rng(0).dirichlet(np.ones(len(full.held.targets)), WEIGHTINGS)
        weights = np.concatenate([equal(full.held), weights])
        yield from _full_runs(full, draws, weights)
        for (i, j), cheap in cells.items():
            if i <= size and (i, j) != (size, top):
                yield from _two(cheap, full, draws, weights)


def agreements() -> Iterator[dict[str, object]]:
    """How well each cheap cell of the study agrees with the full runs of the same 22 mixtures: rank
    correlations, a target and of the mean loss."""
    cells = cells_of(RunTable.load(STUDY))
    top = max(j for _, j in cells)
    for (i, _), cheap in cells.items():
        for size in (k for k, budget in cells if budget == top and k >= i):
            full = cells[size, top]
            if cheap is full:
                continue
            small, large = (np.r_[c.swarm.losses, c.held.losses] for c in (cheap, full))
            targets = np.r_[np.eye(small.shape[1]), equal(full.held)]
            names = [*full.held.targets, "mean"]
            rho = [scored(large, small, one[None]).rho for one in targets]
            about = {"size": float(full.swarm.n_params[0]), "cheap": scale_of(cheap)}
            cost = cheap.cost / full.cost
            yield {
                **about,
                "cost": cost,
                "loss": float(small.mean()),
                **dict(zip(names, rho, strict=True)),
            }


def scale_of(cell: Cell) -> str:
    """The size and budget of a cell's runs, as they are printed."""
    return f"N={cell.swarm.n_params[0]:.3g} D={cell.swarm.n_tokens[0]:.3g}"


def _subsets(full: Cell, count: int, draws: int) -> list[np.ndarray]:
    """Which of the swarm's full runs are seen: all, or random ones, the same for every design."""
    swarm, rng = len(full.swarm), np.random.default_rng(count)
    if count == swarm:
        return [np.arange(swarm)]
    return [rng.permutation(swarm)[:count] for _ in range(draws)]


def _full_runs(full: Cell, draws: int, weights: np.ndarray) -> Iterator[dict[str, object]]:
    """Full runs alone, by laws of one scale."""
    for count in (*FULL_ALONE, len(full.swarm)):
        some = _subsets(full, count, draws)
        for law in (ONE_SCALE_LAW, "transfer"):
            scores = [predicted(law, full.swarm.take(rows), full.held, weights) for rows in some]
            about = {"size": float(full.swarm.n_params[0]), "cheap": "", "dear_runs": count}
            chosen = {"chosen": False, "law": law, "cost": float(count)}
            yield {**about, **chosen, **mean_of(scores)}


def _two(cheap: Cell, full: Cell, draws: int, weights: np.ndarray) -> Iterator[dict[str, object]]:
    """All runs of a cheap cell and some full ones."""
    below, swarm = cheap_fit(cheap.swarm), cheap.swarm
    scale = f"{len(swarm)} x {scale_of(cheap)}"
    cost = len(swarm) * cheap.cost / full.cost
    for count in DEAR_RUNS:
        best = [worth_running(below, full.swarm.ratios, count)]
        for law in LAWS:
            for chosen, some in ((True, best), (False, _subsets(full, count, draws))):
                trains = [both(swarm, full.swarm, rows) for rows in some]
                scores = [predicted(law, train, full.held, weights) for train in trains]
                about = {"size": float(full.swarm.n_params[0]), "cheap": scale}
                design = {"dear_runs": count, "chosen": chosen, "law": law, "cost": cost + count}
                yield {**about, **design, **mean_of(scores)}


def earlier() -> dict[str, list[dict[str, object]]]:
    """What was measured before: a run of one part leaves the other as it is."""
    path = record.RESULTS / "two_fidelity.json"
    known = json.loads(path.read_text(encoding="utf-8"))["figures"] if path.is_file() else {}
    return {"agreement": [], "study": [], "tables": [], **known}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", choices=("agreement", "study", "tables"), default=None)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--tables", default="p2,p3,p4,p4b,p5")
    asked = parser.parse_args()
    figures = earlier()
    parts = {
        "agreement": agreements,
        "study": lambda: on_study(asked.draws),
        "tables": lambda: on_tables(asked.draws, asked.tables.split(",")),
    }
    for part, rows in parts.items():
        if asked.part not in (None, part):
            continue
        figures[part] = []
        for row in rows():
            figures[part].append(row)
            shown = [f"{k} {v:.4g}" if isinstance(v, float) else f"{v}" for k, v in row.items()]
            print("  ".join(shown), flush=True)
    record.save("two_fidelity", figures, draws=asked.draws)


if __name__ == "__main__":
    main()
