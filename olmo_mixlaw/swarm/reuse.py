"""Reuse of an old mixture when its sources change (Olmix, arXiv 2602.12237, section 5).

What hasn't changed keeps its ratios to each other and becomes one virtual source; only its share
and those of what was added, revised or split are searched. F free units take about 3 (F + 1) runs,
where a swarm over all K would take 3 (K + 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.swarm.changes import (
    REMOVED,
    REVISED,
    SPLIT,
    UNCHANGED,
    leaf_kinds,
    leaves_below,
    parent_of,
    parts_of,
    removed,
    unit_changes,
    units_of,
)
from olmo_mixlaw.swarm.listed import by_leaf, rescaled
from olmo_mixlaw.swarm.sources import SEPARATOR, Source, SourceTree

VIRTUAL = "existing"  # as Olmix calls it
# Runs for each free unit, and for one more (Olmix's c).
RUNS_A_UNIT = 3
# What is searched has about this much of the draws' prior together, and each outermost source of it
# at least this: Olmix's case study gives what it adds .25 to .3, and a source at least .02.
SEARCHED, LEAST = 0.25, 0.02
# A source of a smaller share has this one in the prior where nothing is pinned, or it never varies.
RARE = 1e-4
# Among sources that are added the prior is by tokens to this power, so that small ones vary too.
TEMPERED = 0.5


@dataclass(frozen=True)
class Reuse:
    """A plan: `changes` say what happened to units of the new `tree` and to removed leaves.

    `kept` (new leaves) have the shares `inner` of the virtual source; `reduced` is the tree to draw
    a swarm from. `carried` (F,) is the old mixture as it would be without a search: what is added
    has none. `old_ratios` are those of the old mixture by old leaf, `kinds` what happened to each
    new leaf. `notes` say what is lost.
    """

    tree: SourceTree
    reduced: SourceTree
    changes: Mapping[str, str]
    kept: tuple[str, ...]
    inner: tuple[float, ...]
    carried: tuple[float, ...]
    old_ratios: Mapping[str, float]
    kinds: Mapping[str, str]
    virtual: str = VIRTUAL
    notes: tuple[str, ...] = field(default=())

    @property
    def units(self) -> tuple[str, ...]:
        """The free units of the reduced tree (F), the virtual source first."""
        return self.reduced.names

    @property
    def runs(self) -> int:
        """Runs of a swarm over what is free; none where nothing but the virtual source is left."""
        return RUNS_A_UNIT * (len(self.units) + 1) if len(self.units) > 1 else 0

    @property
    def full_runs(self) -> int:
        """Runs of a swarm over all units of the new tree."""
        return RUNS_A_UNIT * (len(self.tree.names) + 1)

    @cached_property
    def _order(self) -> np.ndarray:
        """Which leaf of the reduced tree each leaf of the new one is."""
        place = {self._full(name): i for i, name in enumerate(self.reduced.leaf_names)}
        return np.array([place[name] for name in self.tree.leaf_names])

    def _full(self, name: str) -> str:
        inside = name.removeprefix(f"{self.virtual}{SEPARATOR}")
        return inside if inside in self.kept else name

    @cached_property
    def centred(self) -> SourceTree:
        """All units of the new tree as free, drawn about the old mixture: nothing is pinned.

        The prior of a unit is its part of the reduced tree's, but at least `RARE`. Bounds of
        sources around several units are not kept.
        """
        epochs = _epochs(self.tree)
        sources = tuple(
            replace(unit, most_epochs=epochs[unit.name], name=unit.name) for unit in self.tree.units
        )
        prior = self.expand(self.reduced.prior)
        shares = {
            n.name: max(float(prior[n.leaves.start : n.leaves.stop].sum()), RARE)
            for n in units_of(self.tree)
        }
        total = math.fsum(shares.values())
        weights = {name: share / total for name, share in shares.items()}
        return SourceTree(sources, self.tree.file, weights)

    def expand(self, ratios: np.ndarray) -> np.ndarray:
        """Ratios (..., L) of all leaves of the new tree for those of the free units (..., F)."""
        return self.reduced.expand(ratios)[..., self._order]

    def old_runs(self, ratios: np.ndarray, old: SourceTree) -> tuple[np.ndarray, list[str]]:
        """Old runs (R, F_old) by the new leaves and, after them, the old ones that are gone.

        So old and new runs (`expand`) make one table, and a law of it may choose over all sources;
        those that are gone get a greatest ratio of 0. A source that was split counts as its parts
        by their tokens; one that was revised is another now, `name (old)`. Returns (R, L + G) and
        the names.
        """
        names, tokens = list(self.tree.leaf_names), self.tree.tokens()
        shares: list[dict[str, float]] = []
        for leaf in old.leaf_names:
            parts = [n for n in names if self.kinds[n] == SPLIT and parent_of(n, (leaf,))]
            counts = np.array([tokens[names.index(n)] for n in parts])
            if parts:
                shares.append(dict(zip(parts, (counts / counts.sum()).tolist(), strict=True)))
            elif self.kinds.get(leaf) == UNCHANGED:
                shares.append({leaf: 1.0})
            else:
                whole = parent_of(leaf, names)
                shares.append({whole or (f"{leaf} (old)" if leaf in names else leaf): 1.0})
        every = [*names, *(n for share in shares for n in share if n not in names)]
        blend = np.array([[share.get(n, 0.0) for n in every] for share in shares])
        return old.expand(ratios) @ blend, every

    def mixture(self, ratios: Mapping[str, float] | None = None) -> dict[str, float]:
        """The whole mixture for ratios of the free units, by name; without any, `carried`.

        Raises `ConfigError` for a unit that isn't there, or a sum that isn't 1.
        """
        if ratios is None:
            row = np.array(self.carried)
        else:
            for name in ratios:
                self.reduced.index(name, "mixture")
            given = rescaled(ratios, f"{self.reduced.file}: mixture")
            row = np.array([given.get(name, 0.0) for name in self.units])
        return dict(zip(self.tree.leaf_names, self.expand(row).tolist(), strict=True))


def plan_reuse(
    old_mixture: Mapping[str, float],
    old_tree: SourceTree,
    new_tree: SourceTree,
    *,
    free: Sequence[str] = (),
    revised: Sequence[str] = (),
    unchanged: Sequence[str] = (),
    virtual: str = VIRTUAL,
) -> Reuse:
    """What of an old mixture can be kept when `old_tree` becomes `new_tree`.

    `old_mixture` gives the ratios of the old tree's free units or leaves. A leaf is unchanged if it
    has the same name and the same files, or tokens; `revised` and `unchanged` say otherwise (names
    of sources of the new tree). Unchanged ones named in `free` are searched too: partial reuse.
    Raises `ConfigError` where nothing changed, or nothing is left to keep.
    """
    ratios = by_leaf(old_mixture, old_tree, "the old mixture")
    kinds = leaf_kinds(old_tree, new_tree)
    for names, kind in ((revised, REVISED), (unchanged, UNCHANGED)):
        for leaf in leaves_below(names, new_tree):
            if leaf not in old_tree.leaf_names:
                raise ConfigError(
                    f"{new_tree.file}: {leaf}: the old sources don't have it, so it is neither "
                    "revised nor unchanged"
                )
            kinds[leaf] = kind
    freed = set(leaves_below(free, new_tree))
    changes = unit_changes(new_tree, kinds, ratios, freed)
    gone = removed(old_tree, new_tree)
    if not changes and not gone:
        raise ConfigError(f"{new_tree.file}: nothing changed, so the old mixture stands")
    kept = [u for u in units_of(new_tree) if u.name not in changes]
    names = tuple(new_tree.leaf_names[i] for unit in kept for i in unit.leaves)
    if not kept:
        raise ConfigError(
            f"{new_tree.file}: everything changed, so that nothing of the old mixture is left to "
            "keep; draw a swarm over all sources"
        )
    weights = np.array([ratios[name] for name in names])
    if not weights.sum() > 0:
        raise ConfigError(
            f"{new_tree.file}: what is unchanged ({', '.join(names)}) has no share of the old "
            "mixture, so there is nothing to keep; draw a swarm over all sources"
        )
    inner = tuple((weights / weights.sum()).tolist())
    sources, notes = _reduced(new_tree, names, inner, changes, virtual)
    carried = _carried(new_tree, old_tree, changes, ratios)
    prior = _prior(sources, virtual, float(weights.sum()), carried)
    reduced = SourceTree(sources, new_tree.file, prior)
    row = [float(weights.sum()), *(carried[name] for name in reduced.names[1:])]
    over = np.nan_to_num(np.array(row))
    if len(names) == 1:
        notes.append(f"only {names[0]} is kept: this is a swarm over all sources")
    every = {**changes, **dict.fromkeys(gone, REMOVED)}
    return Reuse(
        tree=new_tree,
        reduced=reduced,
        changes=every,
        kept=names,
        inner=inner,
        carried=tuple((over / over.sum()).tolist()),
        old_ratios=ratios,
        kinds=kinds,
        virtual=virtual,
        notes=tuple(notes),
    )


def interacting(
    plan: Reuse,
    domains: Sequence[str],
    mixture: np.ndarray,
    slope: Callable[[np.ndarray], np.ndarray],
    count: int,
) -> list[str]:
    """The `count` kept units whose ratios the change moves most, by a fit of the old runs.

    `slope` gives the derivative (K,) of the objective by the ratios of the fit's `domains` at a
    mixture (K,). At the old optimum the kept sources are in balance; without the sources that
    changed they are not, and the imbalance `h_j (d_j - mean d)`, d the difference of slopes, is
    what keeping their ratios gives away. Raises `ConfigError` where the fit knows no source that
    changed.
    """
    units = [n.name for n in units_of(plan.tree) if n.name not in plan.changes]
    kept = np.array([name in units for name in domains])
    if not 0 < mixture[kept].sum() < mixture.sum() - 1e-9:
        raise ConfigError(
            "neighbours: the fit tells none for what changed, since the old mixture has none of "
            "it; name the sources to free"
        )
    alone = np.where(kept, mixture, 0.0) / mixture[kept].sum()
    moved = slope(alone) - slope(mixture)
    imbalance = np.where(kept, alone * np.abs(moved - moved @ alone), -1.0)
    order = np.argsort(-imbalance, kind="stable")[:count]
    return [domains[i] for i in order if kept[i]]


def _reduced(
    tree: SourceTree,
    kept: Sequence[str],
    inner: tuple[float, ...],
    changes: Mapping[str, str],
    virtual: str,
) -> tuple[tuple[Source, ...], list[str]]:
    """The virtual source and those that aren't kept, and what of their bounds is lost."""
    epochs = _epochs(tree)
    full = {node.name: node for node in tree.nodes}
    parts = tuple(replace(full[name].source, name=name, most_epochs=epochs[name]) for name in kept)
    sources = [Source(virtual, parts=parts, pinned=True, inner=inner)]
    notes, whole = [], False
    for node in tree.nodes:
        if node.depth == 0:
            own = [u.name for u in units_of(tree) if u.leaves.start in node.leaves]
            free = [name for name in own if name in changes]
            whole = len(free) == len(own)
            if node.name == virtual:
                raise ConfigError(
                    f"{tree.file}: {virtual}: is also what the kept sources would be called "
                    "together; give them another name"
                )
            if whole:
                sources.append(node.source)
            else:
                sources += [
                    replace(full[name].source, name=name, most_epochs=epochs[name]) for name in free
                ]
        bounded = node.source.least > 0 or node.source.most < 1
        if not whole and node.source.parts and bounded:
            notes.append(f"{node.name}: its bounds as a whole are not kept")
    return tuple(sources), notes


def _epochs(tree: SourceTree) -> dict[str, float | None]:
    """The most epochs of every node: its own, or those of the source around it."""
    found: dict[str, float | None] = {}
    around: list[float | None] = []
    for node in tree.nodes:
        del around[node.depth :]
        own = node.source.most_epochs
        around.append(own if own is not None else around[-1] if around else None)
        found[node.name] = around[-1]
    return found


def _carried(
    new: SourceTree, old: SourceTree, changes: Mapping[str, str], ratios: Mapping[str, float]
) -> dict[str, float]:
    """What the units that changed had in the old mixture; NaN for those that are added."""
    tokens = {leaf.name: leaf.tokens for leaf in new.leaves}
    found = {}
    for unit in units_of(new):
        if unit.name not in changes:
            continue
        total, known = 0.0, False
        for name in (new.leaf_names[i] for i in unit.leaves):
            parent = parent_of(name, ratios)
            if name in ratios:
                total, known = total + ratios[name], True
            elif parent:
                among = math.fsum(tokens[leaf] for leaf in parts_of(parent, tokens))
                share = tokens[name] / among if 0 < among < math.inf else 0.0
                total, known = total + ratios[parent] * share, True
            elif inside := parts_of(name, ratios):
                total, known = total + math.fsum(ratios[leaf] for leaf in inside), True
        found[unit.name] = total if known else math.nan
    return found


def _prior(
    sources: Sequence[Source], virtual: str, kept: float, carried: Mapping[str, float]
) -> dict[str, float]:
    """The centre of the draws, by outermost source: the old mixture, and a part for what is new."""
    shares = {virtual: kept}
    added: dict[str, float] = {}
    for source in sources[1:]:
        inside = f"{source.name}{SEPARATOR}"
        units = [n for n in carried if n == source.name or n.startswith(inside)]
        known = [carried[name] for name in units if not math.isnan(carried[name])]
        if known:
            shares[source.name] = math.fsum(known)
        else:
            added[source.name] = source.total
    everything = [virtual, *(source.name for source in sources[1:])]
    total, share = math.fsum(shares.values()), SEARCHED if added else 0.0
    found = {name: (1 - share) * ratio / total for name, ratio in shares.items()}
    weights = {n: t**TEMPERED if 0 < t < math.inf else math.nan for n, t in added.items()}
    new = math.fsum(weights.values())
    for name, weight in weights.items():
        found[name] = share * (1 / len(added) if math.isnan(new) else weight / new)
    found = {n: found[n] if n == virtual else max(found[n], LEAST) for n in everything}
    total = math.fsum(found.values())
    searched = 1 - found[virtual] / total
    if 0 < searched < SEARCHED:
        kept, apart = (1 - SEARCHED) / (1 - searched), SEARCHED / searched
        found = {n: r * (kept if n == virtual else apart) for n, r in found.items()}
    return {name: ratio / total for name, ratio in found.items()}
