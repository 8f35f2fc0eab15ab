"""What every mixture of a swarm must meet: floors, ceilings, caps by repetition, a least ratio.

All are bounds on free units and on sources around them, so they nest. That no mixture meets them
is found here, before anything is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from olmo_mixlaw.errors import ConfigError, unknown_name
from olmo_mixlaw.swarm.sources import Node, SourceTree

# What rounding leaves of a sum or a limit.
ROUNDING = 1e-12
# A kept source has this much where no least ratio says more.
KEPT = 1e-4


@dataclass(frozen=True)
class Group:
    """A source of several free units, `units`, whose sum lies in `low` to `high`."""

    units: range
    low: float
    high: float
    inner: tuple[Group, ...] = ()

    @cached_property
    def loose(self) -> list[int]:
        """The units that lie in no inner group."""
        taken = {unit for group in self.inner for unit in group.units}
        return [unit for unit in self.units if unit not in taken]

    def all(self) -> Iterator[Group]:
        """This group and those inside it, at any depth."""
        yield self
        for group in self.inner:
            yield from group.all()

    def parts_reach(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest sums (...) that bounds (..., F) of units and inner groups allow.

        The least is infinite where an inner group can't meet its own bounds.
        """
        lower, upper = low[..., self.loose].sum(-1), high[..., self.loose].sum(-1)
        for group in self.inner:
            least, most = group.reach(low, high)
            lower = np.where(least > most + ROUNDING, np.inf, lower + least)
            upper = upper + most
        return lower, upper

    def reach(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same, and within the group's own bounds."""
        lower, upper = self.parts_reach(low, high)
        return np.maximum(lower, self.low), np.minimum(upper, self.high)


@dataclass(frozen=True)
class Limits:
    """Least and greatest ratios (F,) of the units that a mixture has, and of groups of them.

    A unit below `least_ratio` is left out (its ratio is 0) unless its `low` is above 0.
    """

    low: np.ndarray
    high: np.ndarray
    whole: Group
    least_ratio: float = 0.0

    def broken(self, ratios: np.ndarray, by: float = ROUNDING) -> np.ndarray:
        """Whether each of the mixtures (R, F) breaks a limit (R,), by more than `by`."""
        ratios = np.atleast_2d(np.asarray(ratios, float))
        bad = (ratios < self.low - by) | (ratios > self.high + by)
        bad |= (ratios > by) & (ratios < self.least_ratio - by)
        result = bad.any(1)
        for group in self.whole.all():
            total = ratios[:, list(group.units)].sum(1)
            slack = by + len(group.units) * ROUNDING
            result |= (total < group.low - slack) | (total > group.high + slack)
        return result

    def problem(self, ratios: np.ndarray, tree: SourceTree) -> str:
        """Which limit the mixture (F,) breaks most, in words."""
        small = np.where((ratios > 0) & (self.low == 0), self.least_ratio, self.low)
        over = np.maximum(ratios - self.high, small - ratios)
        unit = int(over.argmax())
        if over[unit] > 0:
            return (
                f"{tree.names[unit]} has {ratios[unit]:.4g}, and may have {small[unit]:.4g} to "
                f"{self.high[unit]:.4g}"
            )
        for group in self.whole.all():
            total = ratios[list(group.units)].sum()
            if not group.low <= total <= group.high:
                inside = ", ".join(tree.names[unit] for unit in group.units)
                return (
                    f"{inside} sum to {total:.4g}, and may to {group.low:.4g} to {group.high:.4g}"
                )
        return "none"


def limits_of(
    tree: SourceTree,
    *,
    at_least: Mapping[str, float] | None = None,
    at_most: Mapping[str, float] | None = None,
    max_epochs: float | None = None,
    target_tokens: float | None = None,
    keep: Sequence[str] = (),
    least_ratio: float = 0.0,
) -> Limits:
    """The limits that a tree's sources and the options set together.

    `at_least` and `at_most` are by full names of sources or parts and tighten what the tree says.
    A leaf of U tokens gets at most `most_epochs` U / `target_tokens` (its own, or that of a source
    around it, or else `max_epochs`). The units `keep` are in every mixture. Raises `ConfigError`
    where no mixture meets all.
    """
    at_least, at_most = dict(at_least or {}), dict(at_most or {})
    _check_options(tree, at_least, at_most, max_epochs, target_tokens, keep, least_ratio)
    floors = {n.name: max(n.source.least, at_least.get(n.name, 0.0)) for n in tree.nodes}
    ceilings = {n.name: min(n.source.most, at_most.get(n.name, 1.0)) for n in tree.nodes}
    for leaf, cap in _caps(tree, max_epochs, target_tokens).items():
        ceilings[leaf] = min(ceilings[leaf], cap)
    low, high = _unit_bounds(tree, floors, ceilings)
    for name in keep:
        low[tree.index(name, "keep")] = max(low[tree.index(name)], least_ratio or KEPT)
    low = np.where(low > 0, np.maximum(low, least_ratio), 0.0)
    high = np.where(high < max(least_ratio, ROUNDING), 0.0, high)
    _check_units(tree, low, high, least_ratio)
    whole = Group(range(len(low)), 1.0, 1.0, _groups(tree.nodes, floors, ceilings))
    _check_sums(tree, whole, low, high)
    return Limits(low, high, whole, least_ratio)


def _check_options(
    tree: SourceTree,
    at_least: Mapping[str, float],
    at_most: Mapping[str, float],
    max_epochs: float | None,
    target_tokens: float | None,
    keep: Sequence[str],
    least_ratio: float,
) -> None:
    names = [node.name for node in tree.nodes]
    for key, bounds in (("at-least", at_least), ("at-most", at_most)):
        for name, bound in bounds.items():
            if name not in names:
                raise unknown_name("source", name, names, f"{tree.file}: {key}")
            if not 0 <= bound <= 1:
                raise ConfigError(f"{key} {name}: {bound:g}; a ratio lies between 0 and 1")
    for name in keep:
        tree.index(name, "keep")
    for key, value in (("max-epochs", max_epochs), ("target-tokens", target_tokens)):
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"{key}: {value:g}; it must be above 0 and finite")
    if not 0 <= least_ratio < 1:
        raise ConfigError(f"least-ratio: {least_ratio:g}; expected 0 or more, and below 1")
    capped = max_epochs is not None or any(n.source.most_epochs is not None for n in tree.nodes)
    if capped and target_tokens is None:
        raise ConfigError(
            f"{tree.file}: most_epochs: a cap by repetition needs the tokens of the target run; "
            "give --target-tokens"
        )


def _caps(
    tree: SourceTree, max_epochs: float | None, target_tokens: float | None
) -> dict[str, float]:
    """The greatest ratio that its tokens and epochs allow, by full name of each leaf."""
    caps: dict[str, float] = {}
    around: list[float | None] = []
    for node in tree.nodes:
        del around[node.depth :]
        outer = around[-1] if around else max_epochs
        own = node.source.most_epochs
        around.append(outer if own is None else own)
        epochs, tokens = around[-1], node.source.tokens
        if node.source.parts or epochs is None or target_tokens is None:
            continue
        if math.isnan(tokens):
            raise ConfigError(
                f"{tree.file}: {node.name}: most_epochs {epochs:g} needs its tokens; give them"
            )
        caps[node.name] = epochs * tokens / target_tokens
    return caps


def _unit_bounds(
    tree: SourceTree, floors: Mapping[str, float], ceilings: Mapping[str, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds (F,) of the units: their own, and those of what is pinned inside them."""
    low = np.array([floors[name] for name in tree.names])
    high = np.array([ceilings[name] for name in tree.names])
    for node in tree.nodes:
        if node.units or not node.leaves:
            continue
        inside = tree.expansion[:, node.leaves.start : node.leaves.stop].sum(1)
        unit = int(inside.argmax())
        share = inside[unit]
        if share > 0:
            low[unit] = max(low[unit], floors[node.name] / share)
            high[unit] = min(high[unit], ceilings[node.name] / share)
        elif floors[node.name] > 0:
            raise ConfigError(f"{tree.file}: {node.name}: has a floor, but is pinned to 0")
    return low, np.minimum(high, 1.0)


def _groups(
    nodes: Sequence[Node], floors: Mapping[str, float], ceilings: Mapping[str, float]
) -> tuple[Group, ...]:
    """The outermost of `nodes`, which are depth first, that bound several units together."""
    found: list[Group] = []
    rest = list(nodes)
    while rest:
        node = rest.pop(0)
        low, high = floors[node.name], ceilings[node.name]
        if len(node.units) < 2 or (low <= 0 and high >= 1):
            continue
        below = [n for n in rest if n.units and n.units.start < node.units.stop]
        below = [n for n in below if n.depth > node.depth]
        found.append(Group(node.units, low, high, _groups(below, floors, ceilings)))
        rest = [n for n in rest if n.units and n.units.start >= node.units.stop]
    return tuple(found)


def _check_units(tree: SourceTree, low: np.ndarray, high: np.ndarray, least_ratio: float) -> None:
    for name, least, most in zip(tree.names, low, high, strict=True):
        if least > most + ROUNDING:
            small = f" (the least ratio is {least_ratio:g})" if most == 0 and least_ratio else ""
            raise ConfigError(
                f"{tree.file}: {name}: no mixture meets its bounds: at least {least:.4g}, at most "
                f"{most:.4g}{small}"
            )


def _check_sums(tree: SourceTree, whole: Group, low: np.ndarray, high: np.ndarray) -> None:
    named = {node.units: node.name for node in reversed(tree.nodes)}
    for group in reversed(list(whole.all())):
        lower, upper = group.parts_reach(low, high)
        place = f"{tree.file}: sources" if group is whole else f"{tree.file}: {named[group.units]}"
        if lower > group.high + ROUNDING:
            raise ConfigError(
                f"{place}: no mixture meets the floors (least, at-least): they sum to {lower:.6g}, "
                f"above {group.high:g}"
            )
        if upper < group.low - ROUNDING:
            raise ConfigError(
                f"{place}: no mixture meets the ceilings (most, at-most, epochs at the target): "
                f"they sum to {upper:.6g}, below {group.low:g}"
            )
