"""What it costs to reuse an old mixture when sources change, against a full swarm.

`python benchmarks/reuse.py` has two parts, on the public swarms of Olmix (110 OLMES tasks in bits a
byte, the objective their mean).

**Real.** The swarm p13 is a reuse swarm: its `existing` holds 43 sources at the ratios of a public
configuration, and its other sources are the 21 topics that the full swarm p12 has too. So its rows
lie in the full swarm's space: what do both find, and does a law fitted to the one predict the
other? Mixtures that nobody trained are judged by laws fitted to runs that neither arm used.

**Simulated.** Each kind of change, where the truth is a law fitted to all answered rows of both
swarms, with the residuals of real runs as noise (whole rows, so that tasks stay correlated). Two
laws in turn are the truth, so that it isn't the law that is fitted. Regret is the truth's loss of
the mixture found above the best of the new sources, under the same caps by repetition.

No query row is read.
"""

from __future__ import annotations

import argparse
import json
import os
import time

# The arrays are small: a second thread only waits for the first.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
import record
from reuse_real import (
    AT,
    EPOCHS,
    FITTED,
    LOOSE,
    PDF,
    PULLS,
    TARGET,
    TRUTHS,
    chosen,
    expanded,
    print_real,
    real,
    sources,
    thinned,
)
from tables import SWARM_SIZE, SWARM_TOKENS, SWARMS, joined, load_swarm

from olmo_mixlaw.advice.simplex import search
from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.laws import fit
from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.runs import Design
from olmo_mixlaw.swarm.draws import Draw, draw
from olmo_mixlaw.swarm.limits import limits_of
from olmo_mixlaw.swarm.reuse import Reuse, interacting, plan_reuse
from olmo_mixlaw.swarm.sources import Source, SourceTree

# Strengths of the draws in the case study's configurations.
STRENGTHS = {"min_strength": 1.0, "max_strength": 20.0, "apart": 1e-3}
SIZES = (16, 32, 64)
# Of the 110 tasks every seventh is simulated and judged, to be quick.
STEP = 7
PAGES = "pages"
WEB, CODE = "dclm", "stack-edu"
OTHERS = ("arxiv", "finemath-3plus", "pes2o", "wikipedia")
# What the revision of a source keeps of it: the topics of most tokens.
REVISED_TOPICS = 6


@dataclass(frozen=True)
class World:
    """A truth over the full swarm's sources: a fit, and residuals of real runs (R, T) as noise."""

    name: str
    fit: Fit
    residuals: np.ndarray

    @classmethod
    def of(cls, name: str, design: Design) -> World:
        """The residuals are scaled to the size that they have on rows held out."""
        found = fit(name, design, settings=LOOSE, level=False)
        errors = np.log(design.losses / found.predict(design.ratios, *AT))
        errors -= errors.mean(0)
        held = np.maximum(np.asarray(found.noise, float), 1e-9)
        return cls(name, found, errors * np.maximum(1.0, held / errors.std(0)))

    def losses(self, ratios: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Losses (R, T) that runs of these mixtures would have."""
        noise = self.residuals[rng.integers(len(self.residuals), size=len(ratios))]
        return self.fit.predict(ratios, *AT) * np.exp(noise)


@dataclass(frozen=True)
class Space:
    """The sources of one time: a tree, and what each leaf is by the full swarm's sources (L, K)."""

    tree: SourceTree
    blend: np.ndarray

    @cached_property
    def most(self) -> np.ndarray:
        """The greatest ratio of each leaf at the target (L,)."""
        return np.minimum(1.0, EPOCHS * self.tree.tokens() / TARGET)

    def value(self, world: World, ratios: np.ndarray) -> float:
        """The true objective of a mixture (L,) of leaves."""
        return float(world.fit.predict(ratios @ self.blend, *AT).mean())

    def best(self, world: World, seed: int) -> float:
        """The least true objective within the caps."""
        surface = world.fit.surface(world.fit.size_of(SWARM_SIZE), SWARM_TOKENS)

        def objective(ratios: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            losses, slopes = surface(ratios @ self.blend, True)
            assert slopes is not None
            return losses.mean(1), slopes.mean(1) @ self.blend.T

        rng = np.random.default_rng(seed)
        prior = self.tree.expand(self.tree.prior)
        starts = np.concatenate([prior[None], rng.dirichlet(np.ones(len(prior)), 15)])
        found = search(objective, starts, np.zeros(len(prior)), self.most, steps=20)
        return min(self.value(world, ratios) for ratios in found)


@dataclass(frozen=True)
class Change:
    """One kind of change: the sources before and after, and who is freed in partial reuse."""

    name: str
    old: Space
    new: Space
    free: tuple[str, ...] = ()


def leaf(name: str, known: pd.DataFrame, full: str = "") -> Source:
    return Source(name, tokens=float(known.loc[full or name, "tokens"]))


def space(tops: list[str], known: pd.DataFrame, domains: list[str], pages: str = "") -> Space:
    """A tree of outermost sources; `pages` says what the PDFs are: whole, revised or split."""
    made, rows = [], []
    for top in tops:
        inside = [d for d in domains if d.startswith(f"{top}:")]
        if inside:
            made.append(Source(top, parts=tuple(leaf(d.split(":")[1], known, d) for d in inside)))
            rows += [np.eye(len(domains))[domains.index(d)] for d in inside]
        else:
            made.append(leaf(top, known))
            rows.append(np.eye(len(domains))[domains.index(top)])
    topics = [d for d in domains if d.startswith(f"{PDF}:")]
    if pages == "split":
        made.append(Source(PAGES, parts=tuple(leaf(d.split(":")[1], known, d) for d in topics)))
        rows += [np.eye(len(domains))[domains.index(d)] for d in topics]
    elif pages:
        largest = sorted(topics, key=lambda d: -known.loc[d, "tokens"])
        some = largest[:REVISED_TOPICS] if pages == "revised" else topics
        tokens = np.array([known.loc[d, "tokens"] if d in some else 0.0 for d in domains])
        made.append(Source(PAGES, tokens=float(tokens.sum())))
        rows.append(tokens / tokens.sum())
    return Space(SourceTree(tuple(made), "the benchmark"), np.array(rows))


def changes(known: pd.DataFrame, domains: list[str]) -> list[Change]:
    """A change of each kind, along the case study of Olmix."""

    def of(tops: list[str], pages: str = "") -> Space:
        return space(tops, known, domains, pages)

    every, code = [WEB, CODE, *OTHERS], (f"{WEB}:software_development",)
    fewer = [top for top in every if top != "finemath-3plus"]
    return [
        Change("add 15 languages", of([WEB]), of([WEB, CODE]), code),
        Change("add 4 sources", of([WEB, CODE]), of(every)),
        Change("revise one", of(every, "whole"), of(every, "revised")),
        Change("remove one", of(every, "whole"), of(fewer, "whole")),
        Change("split one in 21", of(every, "whole"), of(every, "split")),
        Change("several at once", of([WEB, CODE, *OTHERS[:2]], "whole"), of(fewer, "split")),
    ]


def swarm(
    world: World,
    tree: SourceTree,
    to_base: Callable[[np.ndarray], np.ndarray],
    n: int,
    seed: int,
    prior: np.ndarray | None = None,
) -> Design:
    """The runs of a swarm of `n` over a tree's units, as they would come out."""
    how = Draw(seed=seed, **STRENGTHS)
    ratios = draw(n, tree.prior if prior is None else prior, limits_of(tree), how)
    losses = world.losses(to_base(ratios), np.random.default_rng([seed, n]))
    ids, (size, tokens) = [f"m{i}" for i in range(n)], (np.full(n, x) for x in AT)
    names = list(tree.names)
    return Design(
        ids, names, world.fit.targets, ratios, size, size, tokens, losses, "bits_per_byte"
    )


def full(
    world: World, new: Space, n: int, seed: int, law: str, prior: np.ndarray | None
) -> dict[float, float]:
    """The true objective of what a swarm over all sources finds, by pull."""
    design = swarm(world, new.tree, lambda r: new.tree.expand(r) @ new.blend, n, seed, prior)
    found = chosen(law, design, new.most)
    return {kl: new.value(world, ratios) for kl, ratios in found.items()}


def reduced(world: World, new: Space, plan: Reuse, n: int, seed: int) -> Design:
    """The runs of a swarm over the free units."""
    return swarm(world, plan.reduced, lambda r: plan.expand(r) @ new.blend, n, seed)


def reused(world: World, new: Space, plan: Reuse, design: Design, law: str) -> dict[float, float]:
    """The true objective of what the runs over the free units find, expanded, by pull."""
    capped = SourceTree(
        tuple(replace(s, most_epochs=EPOCHS) for s in plan.reduced.sources), "the benchmark"
    )
    most = limits_of(capped, target_tokens=TARGET).high
    found = chosen(law, design, most)
    return {kl: new.value(world, plan.expand(ratios)) for kl, ratios in found.items()}


def with_old_runs(
    world: World, change: Change, plan: Reuse, old: Design, design: Design, law: str
) -> dict[float, float]:
    """The true objective of what the old runs and new ones find together, over all sources.

    `design` are new runs by free units, or by all leaves. What is gone stays a source of the law
    that the mixture may not have.
    """
    new, count = change.new, len(change.new.tree.leaves)
    rows = design.ratios if len(design.domains) == count else plan.expand(design.ratios)
    ratios, names = plan.old_runs(old.ratios, change.old.tree)
    rows = np.concatenate([rows, np.zeros((len(rows), len(names) - count))], axis=1)
    both = joined(
        replace(old, domains=names, ratios=ratios), replace(design, domains=names, ratios=rows)
    )
    most = np.concatenate([new.most, np.zeros(len(names) - count)])
    found = chosen(law, both, most)
    return {kl: new.value(world, mixture[:count]) for kl, mixture in found.items()}


def neighbours(plan: Reuse, change: Change, design: Design, h: np.ndarray) -> list:
    """Who is freed in partial reuse: those named, else four that the fit of the old runs names."""
    if change.free:
        return list(change.free)
    found = fit(FITTED, design, settings=LOOSE, level=False)

    def slope(ratios: np.ndarray) -> np.ndarray:
        return found.ratio_gradient(ratios, *AT)[0].mean(0)

    keep = [design.domains.index(name) for name in found.domains]
    try:
        return interacting(plan, found.domains, h[keep] / h[keep].sum(), slope, 4)
    except ConfigError:  # the old mixture has nothing of what changed
        return []


def simulated(world: World, change: Change, seed: int, law: str) -> Iterator[dict]:
    """A row an arm: the regret of its mixture and its runs."""
    old, new = change.old, change.new
    runs = 3 * (len(old.tree.names) + 1)
    design = swarm(world, old.tree, lambda r: old.tree.expand(r) @ old.blend, runs, seed + 1000)
    before = chosen(law, design, old.most)[0.0]
    mixture = dict(zip(old.tree.leaf_names, before.tolist(), strict=True))
    plan = plan_reuse(mixture, old.tree, new.tree)
    free = neighbours(plan, change, design, before)
    plans = {"reuse, full": plan}
    if free:
        plans["reuse, partial"] = plan_reuse(mixture, old.tree, new.tree, free=free)
    best = new.best(world, seed)
    shown = {"truth": world.name, "change": change.name, "seed": seed, "law": law}

    def rows(arm: str, n: int, units: int, values: dict[float, float]) -> Iterator[dict]:
        for kl, value in values.items():
            yield {
                **shown,
                "arm": arm,
                "runs": n,
                "units": units,
                "pull": kl,
                "regret": value - best,
            }

    carried = new.value(world, plan.expand(np.array(plan.carried)))
    yield from rows("nothing new", 0, 0, dict.fromkeys(PULLS, carried))
    for arm, some in plans.items():
        for n in sorted({some.runs, *SIZES}) if some.runs else ():
            runs_of = reduced(world, new, some, n, seed)
            yield from rows(arm, n, len(some.units), reused(world, new, some, runs_of, law))
            if arm == "reuse, full":
                values = with_old_runs(world, change, plan, design, runs_of, law)
                yield from rows("reuse, full, and old runs", n, len(new.tree.names), values)
    if not plan.runs:  # what is left was in the old runs
        ratios, names = plan.old_runs(design.ratios, old.tree)
        count = len(new.tree.leaves)
        most = np.concatenate([new.most, np.zeros(len(names) - count)])
        found = chosen(law, replace(design, domains=names, ratios=ratios), most)
        values = {kl: new.value(world, mixture[:count]) for kl, mixture in found.items()}
        yield from rows("old runs asked again", 0, count, values)
    equal = plan.runs or plans[max(plans)].runs
    about = np.maximum(plan.expand(plan.reduced.prior), 1e-4)
    about /= about.sum()
    for n in sorted({n for n in (equal, 64, plan.full_runs, 2 * plan.full_runs) if n}):
        values = full(world, new, n, seed, law, None)
        yield from rows("full swarm", n, len(new.tree.names), values)
    for n in sorted({n for n in (equal, 64, plan.full_runs) if n}):
        values = full(world, new, n, seed, law, about)
        yield from rows("all, about the old", n, len(new.tree.names), values)
    for n in sorted({n for n in (equal, 64) if n}):
        runs_of = swarm(world, new.tree, lambda r: new.tree.expand(r) @ new.blend, n, seed, about)
        values = with_old_runs(world, change, plan, design, runs_of, law)
        yield from rows("all, about the old, and old runs", n, len(new.tree.names), values)


def summary(rows: list[dict]) -> pd.DataFrame:
    """Mean regret in thousandths of a bit a byte, over seeds."""
    frame = pd.DataFrame(rows)
    keys = ["truth", "law", "change", "pull", "arm", "runs"]
    found = frame.groupby(keys, sort=False)["regret"].agg(["mean", "std", "count"])
    found[["mean", "std"]] *= 1e3
    return found.reset_index().rename(columns={"mean": "regret_mbpb", "std": "spread_mbpb"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--law", default=FITTED)
    parser.add_argument("--changes", default="", help="some of them, by name; default: all")
    parser.add_argument("--step", type=int, default=STEP, help="simulate every so manieth task")
    parser.add_argument("--part", choices=("real", "simulated", "both"), default="both")
    options = parser.parse_args()
    p12, p13 = load_swarm(SWARMS["p12"]), load_swarm(SWARMS["p13"])
    known = sources()
    inside = expanded(p13, known, p12.domains)
    figures = record.RESULTS / "reuse.json"
    found = json.loads(figures.read_text())["figures"] if figures.exists() else {}
    settings = {"seeds": options.seeds, "law": options.law, "truths": TRUTHS, "step": options.step}
    if options.part != "simulated":
        found["real"] = real(load_swarm(SWARMS["p11"]), p12, p13, inside, options.step)
        print_real(found["real"])
        record.save("reuse", found, **settings)
    start, rows = time.process_time(), []
    for name in TRUTHS if options.part != "real" else ():
        world = World.of(name, thinned(joined(p12, inside), options.step))
        for change in changes(known, p12.domains):
            if options.changes and change.name not in options.changes.split(","):
                continue
            for seed in range(options.seeds):
                rows += simulated(world, change, seed, options.law)
            mine = [row for row in rows if row["change"] == change.name]
            print(summary(mine).to_string(index=False, float_format="{:.2f}".format), flush=True)
            print(f"{time.process_time() - start:.0f} s of the processor", flush=True)
            fresh = summary(rows).to_dict("records")
            here = {(row["truth"], row["change"]) for row in fresh}
            known_rows = found.get("simulated", [])
            others = [row for row in known_rows if (row["truth"], row["change"]) not in here]
            found["simulated"] = others + fresh
            record.save("reuse", found, **settings)


if __name__ == "__main__":
    main()
