"""What happened to sources between two source lists: added, removed, revised, split, merged."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from olmo_mixlaw.errors import unknown_name
from olmo_mixlaw.swarm.sources import SEPARATOR, Node, Source, SourceTree

UNCHANGED = ""
ADDED, REMOVED, REVISED, SPLIT, MERGED = "added", "removed", "revised", "split", "merged"
FREED = "freed"
# Old ratios inside a pinned source agree with its pinned ones to this.
PINNED = 1e-3
# Counts of tokens that differ by less are of the same data.
SAME_TOKENS = 1e-6


def units_of(tree: SourceTree) -> list[Node]:
    """The nodes of the free units."""
    return [n for n in tree.nodes if len(n.units) == 1 and (n.source.pinned or not n.source.parts)]


def leaf_kinds(old: SourceTree, new: SourceTree) -> dict[str, str]:
    """What happened to each leaf of the new tree; nothing for one that is unchanged."""
    before = {leaf.name: leaf for leaf in old.leaves}
    kinds = {}
    for leaf in new.leaves:
        if leaf.name in before:
            kinds[leaf.name] = UNCHANGED if _same(before[leaf.name], leaf) else REVISED
        elif parent_of(leaf.name, before):
            kinds[leaf.name] = SPLIT
        elif parts_of(leaf.name, before):
            kinds[leaf.name] = MERGED
        else:
            kinds[leaf.name] = ADDED
    return kinds


def _same(old: Source, new: Source) -> bool:
    """Whether two leaves have the same data, as far as both say."""
    places = [(leaf.uri, sorted(leaf.paths)) for leaf in (old, new)]
    if all(uri or paths for uri, paths in places) and places[0] != places[1]:
        return False
    known = not math.isnan(old.tokens) and not math.isnan(new.tokens)
    return not known or math.isclose(old.tokens, new.tokens, rel_tol=SAME_TOKENS)


def parent_of(name: str, leaves: Collection[str]) -> str:
    """The leaf of which `name` would be a part, if there is one."""
    parts = name.split(SEPARATOR)
    outer = (SEPARATOR.join(parts[:i]) for i in range(1, len(parts)))
    return next((leaf for leaf in outer if leaf in leaves), "")


def parts_of(name: str, leaves: Iterable[str]) -> list[str]:
    """The leaves that would be parts of `name`."""
    return [leaf for leaf in leaves if leaf.startswith(f"{name}{SEPARATOR}")]


def removed(old: SourceTree, new: SourceTree) -> list[str]:
    """Leaves of the old tree that the new one has in no form."""
    now = dict.fromkeys(new.leaf_names)
    gone = [name for name in old.leaf_names if name not in now]
    return [name for name in gone if not parent_of(name, now) and not parts_of(name, now)]


def leaves_below(names: Sequence[str], tree: SourceTree) -> list[str]:
    """The leaves of the sources `names`, at any depth. Raises `UnknownNameError`."""
    nodes = {node.name: node for node in tree.nodes}
    for name in names:
        if name not in nodes:
            raise unknown_name("source", name, nodes, tree.file)
    return [tree.leaf_names[i] for name in names for i in nodes[name].leaves]


def unit_changes(
    tree: SourceTree, kinds: Mapping[str, str], ratios: Mapping[str, float], freed: set[str]
) -> dict[str, str]:
    """What happened to the units that aren't kept."""
    changes = {}
    for unit in units_of(tree):
        names = [tree.leaf_names[i] for i in unit.leaves]
        found = {kinds[name] for name in names}
        if found == {UNCHANGED}:
            old = np.array([ratios[name] for name in names])
            pinned = tree.expansion[unit.units.start, unit.leaves.start : unit.leaves.stop]
            if np.abs(old - old.sum() * pinned).max() > PINNED:
                changes[unit.name] = REVISED
            elif freed & set(names):
                changes[unit.name] = FREED
        else:
            changes[unit.name] = found.pop() if len(found) == 1 else REVISED
    return changes
