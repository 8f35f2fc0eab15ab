"""Runs for sale: a public table as a shop, its largest scale held out to judge by.

A purchase is one whole training run (a mixture at a size) at 6 N D of its longest budget, and
brings all its checkpoints. Nobody who buys sees a loss before it is paid for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from tables import Table, tables

from olmo_mixlaw.laws.choice.holdout import mixture_ids, run_ids
from olmo_mixlaw.runs import Design

# Of a table of one scale, the part of its mixtures that is held out.
HELD = 0.25
# So many targets are joined to families: a law's time grows with them.
MANY, OTHERS = 64, "others"
# What is fitted to a purchase: of the laws that take under a second, the one that errs least on
# most of these tables when all runs are bought; to swarms, whose laws are others, SWARM_LAW.
LAW, SWARM_LAW = "modulated", "shared_power"
# Sizes of Pile runs (RegMix): the small ones, and that of the target.
SMALL = LARGE = 1e9
# Of the 256 mixtures that both small sizes have, so many are for sale.
PILE_MIXTURES = 128


@dataclass(frozen=True, eq=False)
class Pool:
    """C runs for sale, the rows that they bring, and the rows by which a choice is judged.

    `law` is fitted to every purchase. `run` (R,) is the run that each row of `design` is of;
    `ratios` (C, K), `n_params`, `n_tokens` and `price` (C,) are of runs, at their longest. `held`
    has one size and budget.
    """

    name: str
    design: Design
    held: Design
    has_embeddings: bool = True
    law: str = LAW
    run: np.ndarray = field(init=False)
    ratios: np.ndarray = field(init=False)
    n_params: np.ndarray = field(init=False)
    n_tokens: np.ndarray = field(init=False)
    price: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        run = run_ids(self.design)
        last = _longest(run, self.design.n_tokens)
        found = {
            "run": run,
            "ratios": self.design.ratios[last],
            "n_params": self.design.n_params[last],
            "n_tokens": self.design.n_tokens[last],
        }
        found["price"] = 6 * found["n_params"] * found["n_tokens"]
        for name, value in found.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.price)

    @property
    def sizes(self) -> np.ndarray:
        """The sizes for sale, ascending."""
        return np.unique(self.n_params)

    @property
    def mixture(self) -> np.ndarray:
        """A number (C,) for each distinct mixture."""
        rounded = np.round(self.ratios, 6)
        return np.unique(rounded, axis=0, return_inverse=True)[1].ravel()

    def bought(self, runs: np.ndarray) -> Design:
        """The rows, checkpoints too, of the runs that were paid for."""
        return self.design.take(np.isin(self.run, runs))

    def objective(self, runs: np.ndarray) -> np.ndarray:
        """Mean loss over the targets at the end of each run bought, in their order (runs,)."""
        last = _longest(self.run, self.design.n_tokens)
        return np.nanmean(self.design.losses[last[runs]], axis=1)


def _longest(run: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """The row (C,) of each run's longest budget."""
    order = np.lexsort((tokens, run))
    return order[np.r_[np.flatnonzero(np.diff(run[order])), len(run) - 1]]


def _at_the_end(design: Design) -> Design:
    """The rows at the largest budget."""
    return design.take(design.n_tokens == design.n_tokens.max())


def mixtures_held(table: Table, seed: int) -> Pool:
    """A table of one scale: a quarter of its mixtures, drawn by the seed, is held out."""
    design = table.load()
    if len(design.targets) > MANY:
        design = families(design)
    ids = mixture_ids(design)
    order = np.random.default_rng(seed).permutation(ids.max() + 1)
    held = np.isin(ids, order[: max(3, round(HELD * len(order)))])
    law = LAW if LAW in table.laws.split(",") else SWARM_LAW
    return Pool(table.name, design.take(~held), _at_the_end(design.take(held)), law=law)


def largest_held(table: Table, seed: int) -> Pool:
    """The largest size is held out, at its largest budget; all smaller ones are for sale.

    Where the table has runs of a later size, those are held out instead.
    """
    design = table.load()
    if table.later is not None:
        return Pool(table.name, design, _at_the_end(table.later()), table.has_embeddings)
    top = design.n_params == design.n_params.max()
    return Pool(table.name, design.take(~top), _at_the_end(design.take(top)), table.has_embeddings)


def half_held(table: Table, seed: int) -> Pool:
    """RegMix: mixtures that both small sizes have, and half of the 1B runs; the other half is held
    out. Both drawn by the seed."""
    design, rng = table.load(), np.random.default_rng(seed)
    large = rng.permutation(np.flatnonzero(design.n_params >= LARGE))
    small, ids = _common(design), mixture_ids(design)
    some = rng.permutation(np.unique(ids[small]))[:PILE_MIXTURES]
    small = small[np.isin(ids[small], some)]
    sold = np.sort(np.r_[small, large[: len(large) // 2]])
    return Pool(table.name, design.take(sold), design.take(large[len(large) // 2 :]))


def _common(design: Design) -> np.ndarray:
    """Rows of the small sizes whose mixture was run at each of them."""
    small = np.flatnonzero(design.n_params < SMALL)
    ids, sizes = mixture_ids(design)[small], design.n_params[small]
    seen = [set(ids[sizes == n]) for n in np.unique(sizes)]
    return small[np.isin(ids, list(set.intersection(*seen)))]


def families(design: Design) -> Design:
    """Targets of one family (`mmlu_anatomy:rc` is of `mmlu`) as one, their mean loss; those that
    are alone in theirs as one more."""
    names = [target.split(":")[0].split("_")[0] for target in design.targets]
    names = [name if names.count(name) > 1 else OTHERS for name in names]
    kept = list(dict.fromkeys(names))
    columns = [[i for i, name in enumerate(names) if name == one] for one in kept]
    losses = np.column_stack([design.losses[:, some].mean(1) for some in columns])
    return replace(design, targets=kept, losses=losses)


# The pools by name: the table that each is made of, and how.
POOLS: dict[str, tuple[str, Callable[[Table, int], Pool]]] = {
    "p1": ("p1", mixtures_held),
    "p2": ("p2", half_held),
    "p3": ("p3", largest_held),
    "p4": ("p4", largest_held),
    "p12": ("p12", mixtures_held),
}


def pools_here() -> dict[str, Callable[[int], Pool]]:
    """What makes the pool of a seed, for each whose table this machine has."""
    here = tables()
    usable = {
        name: (here[table], make)
        for name, (table, make) in POOLS.items()
        if table in here and (name != "p3" or here[table].later is not None)
    }
    return {
        name: (lambda seed, t=t, make=make: make(t, seed)) for name, (t, make) in usable.items()
    }
