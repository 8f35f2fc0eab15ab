"""What a mixture is made of: sources, in parts (topics, qualities) or whole, and their tokens.

A leaf is a source without parts; its full name has its ancestors' before it (`dclm:science:high`).
A free unit is what a draw gives a ratio to: a leaf, or a source whose inner ratios are pinned.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from olmo_mixlaw.errors import ConfigError, unknown_name

SEPARATOR = ":"
SUM_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Source:
    """A source, or a part of one, under its own `name`.

    `tokens` is what it has, infinite for one without end and NaN where nobody counted; a source
    with `parts` has what they have. `least` and `most` bound its ratio in the whole mixture, and
    `most_epochs` its repeats at the target. With `pinned`, its parts keep the shares `inner` of
    it (by default those of their tokens).
    """

    name: str
    tokens: float = math.nan
    paths: tuple[str, ...] = ()
    uri: str | None = None
    most_epochs: float | None = None
    least: float = 0.0
    most: float = 1.0
    parts: tuple[Source, ...] = ()
    pinned: bool = False
    inner: tuple[float, ...] | None = None

    @property
    def total(self) -> float:
        """The tokens of the source, summed over its parts where it has some."""
        return math.fsum(part.total for part in self.parts) if self.parts else self.tokens


@dataclass(frozen=True)
class Node:
    """A source of a tree under its full `name`, and which leaves and free units lie below it.

    Both are ranges of indices into the tree's; `units` is empty inside a pinned source.
    """

    name: str
    source: Source
    depth: int
    leaves: range
    units: range


@dataclass(frozen=True)
class SourceTree:
    """All sources of a mixture; `file` goes into errors.

    `prior_weights` stand for tokens in the prior, by the names of all outermost sources.
    Raises `ConfigError` where the sources contradict each other.
    """

    sources: tuple[Source, ...]
    file: str = ""
    prior_weights: Mapping[str, float] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        _check(self.sources, self.file, "sources")
        names = [node.name for node in self.nodes]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ConfigError(f"{self.file}: sources: two are called {twice[0]}; rename one")
        if self.prior_weights is not None:
            self._check_prior_weights(self.prior_weights)

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Every source and part, a source before its parts."""
        found: list[Node] = []
        _walk(self.sources, "", 0, False, [0, 0], found)
        return tuple(found)

    @cached_property
    def leaves(self) -> tuple[Source, ...]:
        """The L sources without parts, under their full names."""
        return tuple(
            replace(node.source, name=node.name) for node in self.nodes if not node.source.parts
        )

    @cached_property
    def units(self) -> tuple[Source, ...]:
        """The F free units, under their full names."""
        return tuple(replace(node.source, name=node.name) for node in self._unit_nodes)

    @property
    def leaf_names(self) -> tuple[str, ...]:
        return tuple(leaf.name for leaf in self.leaves)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the free units (F)."""
        return tuple(unit.name for unit in self.units)

    @cached_property
    def _unit_nodes(self) -> tuple[Node, ...]:
        return tuple(
            node
            for node in self.nodes
            if len(node.units) == 1 and (node.source.pinned or not node.source.parts)
        )

    @cached_property
    def expansion(self) -> np.ndarray:
        """The share of each leaf in its unit (F, L); rows sum to 1."""
        matrix = np.zeros((len(self._unit_nodes), len(self.leaves)))
        for row, node in enumerate(self._unit_nodes):
            matrix[row, node.leaves.start : node.leaves.stop] = self._shares(node.source, node.name)
        return matrix

    def expand(self, ratios: np.ndarray) -> np.ndarray:
        """Ratios of leaves (..., L) for ratios of free units (..., F)."""
        return np.asarray(ratios, float) @ self.expansion

    @cached_property
    def prior(self) -> np.ndarray:
        """The ratios (F,) that the tokens have, or that `prior_weights` give.

        Raises `ConfigError` for a source whose tokens nobody counted or that has none.
        """
        counts = np.array([unit.total for unit in self.units])
        for node in self._unit_nodes:
            weighed = self.prior_weights is not None and node.depth == 0
            if not weighed and not 0 < (total := node.source.total) < math.inf:
                raise ConfigError(
                    f"{self.file}: {node.name}: the prior leaves it out: "
                    f"{_uncounted(total)}; give its tokens, a tokenizer where it is a dataset, or "
                    "a prior of all sources"
                )
        if self.prior_weights is None:
            return counts / counts.sum()
        result = np.zeros(len(counts))
        for node in self.nodes:
            if node.depth == 0:
                inside = slice(node.units.start, node.units.stop)
                parts = counts[inside] if len(node.units) > 1 else np.ones(1)
                result[inside] = self.prior_weights[node.name] * parts / parts.sum()
        return result / result.sum()

    def tokens(self) -> np.ndarray:
        """The tokens (L,) of the leaves, infinite without end, NaN where nobody counted."""
        return np.array([leaf.tokens for leaf in self.leaves])

    def index(self, name: str, key: str = "") -> int:
        """Which free unit is called `name`. Raises `UnknownNameError`."""
        if name not in self.names:
            where = f"{self.file}: {key}" if key else self.file
            raise unknown_name("source", name, self.names, where)
        return self.names.index(name)

    def _shares(self, source: Source, name: str) -> np.ndarray:
        """The share of each leaf below `source` in it."""
        if not source.parts:
            return np.ones(1)
        weights = np.array(
            source.inner if source.inner is not None else [part.total for part in source.parts]
        )
        if not (np.isfinite(weights).all() and weights.sum() > 0):
            raise ConfigError(
                f"{self.file}: {name}: pinned to the ratios of its tokens, but of a part of it "
                "nobody counted them; give tokens, or inner"
            )
        weights = weights / weights.sum()
        below = [self._shares(part, f"{name}{SEPARATOR}{part.name}") for part in source.parts]
        return np.concatenate([w * shares for w, shares in zip(weights, below, strict=True)])

    def _check_prior_weights(self, weights: Mapping[str, float]) -> None:
        known = [source.name for source in self.sources]
        place = f"{self.file}: prior"
        for name, weight in weights.items():
            if name not in known:
                raise unknown_name("source", name, known, place)
            if not 0 < weight < math.inf:
                raise ConfigError(f"{place}.{name}: {weight:g}; it must be above 0 and finite")
        left_out = [name for name in known if name not in weights]
        if left_out:
            raise ConfigError(
                f"{place}: leaves out {', '.join(left_out)}; give a weight to every source, or "
                "take the sources out"
            )


def _walk(
    sources: Sequence[Source], prefix: str, depth: int, inside: bool, at: list[int], to: list[Node]
) -> None:
    """Append nodes depth first; `at` counts the leaves and units so far, `inside` a pinned one."""
    for source in sources:
        name = f"{prefix}{source.name}"
        place, first_leaf, first_unit = len(to), at[0], at[1]
        to.append(Node(name, source, depth, range(0), range(0)))
        unit = not inside and (source.pinned or not source.parts)
        _walk(source.parts, f"{name}{SEPARATOR}", depth + 1, inside or unit, at, to)
        at[0] += not source.parts
        at[1] += unit
        leaves, units = range(first_leaf, at[0]), range(first_unit, at[1])
        to[place] = replace(to[place], leaves=leaves, units=units)


def _check(sources: Sequence[Source], file: str, key: str) -> None:
    if not sources:
        raise ConfigError(f"{file}: {key}: at least one is needed")
    names = [source.name for source in sources]
    for place, source in _places(sources, key):
        if names.count(source.name) > 1:
            raise ConfigError(f"{file}: {key}: {source.name} stands there twice")
        if source.parts and not math.isnan(source.tokens):
            raise ConfigError(f"{file}: {place}.tokens: it has parts, whose tokens count; keep one")
        if not math.isnan(source.tokens) and not source.tokens > 0:
            raise ConfigError(f"{file}: {place}.tokens: {source.tokens:g}; it must be above 0")
        if not 0 <= source.least <= source.most <= 1:
            raise ConfigError(
                f"{file}: {place}: least {source.least:g}, most {source.most:g}: expected "
                "0 <= least <= most <= 1"
            )
        if source.most_epochs is not None and not source.most_epochs > 0:
            raise ConfigError(
                f"{file}: {place}.most_epochs: {source.most_epochs:g}; it must be above 0"
            )
        if source.pinned and not source.parts:
            raise ConfigError(f"{file}: {place}.pinned: it has no parts whose ratios to pin")
        if source.inner is not None:
            _check_inner(source, f"{file}: {place}.inner")
        if source.parts:
            _check(source.parts, file, f"{place}.parts")


def _check_inner(source: Source, place: str) -> None:
    assert source.inner is not None
    if not source.pinned:
        raise ConfigError(f"{place}: is for a source with pinned: true")
    if len(source.inner) != len(source.parts):
        raise ConfigError(f"{place}: {len(source.inner)} ratios for {len(source.parts)} parts")
    if not all(0 <= ratio < math.inf for ratio in source.inner):
        raise ConfigError(f"{place}: a ratio is 0 or above, and finite")
    total = math.fsum(source.inner)
    if abs(total - 1) > SUM_TOLERANCE:
        raise ConfigError(f"{place}: the ratios sum to {total:.9g}, not 1")


def _places(sources: Sequence[Source], key: str) -> Iterator[tuple[str, Source]]:
    for source in sources:
        yield f"{key}.{source.name}", source


def _uncounted(tokens: float) -> str:
    return "it has no end" if math.isinf(tokens) else "nobody counted its tokens"
