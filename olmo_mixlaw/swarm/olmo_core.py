"""OLMo-core's source lists (`SourceMixtureList`, olmo_core 3.0.0): read, and written by mixture.

A list names each source's files and its ratio in the mixture. `SourceMixtureList.from_yaml` takes
what is written here; the whole `SourceMixtureDatasetConfig`, with the list under `source_list`, is
read too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import MISSING

from olmo_mixlaw import schema
from olmo_mixlaw.atomic import write_text
from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.shipped import beside
from olmo_mixlaw.swarm.exported import as_yaml, checked, files_of, repetition
from olmo_mixlaw.swarm.sources import Source, SourceTree

LIST = "source_list"
MARK = "_CLASS_"
# How far written ratios may sum from 1 (numpy.allclose, as OLMo-core checks them).
ROUNDED = 1e-5


@dataclass
class Entry:
    """A source of the list; see OLMo-core's `SourceMixtureConfig`."""

    source_name: str = MISSING
    target_ratio: float = MISSING
    paths: list[str] = MISSING
    max_repetition_ratio: float | None = None
    max_source_fraction: float | None = None


@dataclass
class Listed:
    """The list."""

    sources: list[Entry] = MISSING


def read_sources(path: str | Path) -> SourceTree:
    """The sources of a list; its ratios are their prior where none of them is 0.

    Where a source states how often, or how much of it, a run may see, the product of both is its
    `most_epochs`. Tokens are not counted. Raises `ConfigError`.
    """
    path = Path(path)
    listed = _listed(path)
    sources = tuple(_source(entry, path) for entry in listed.sources)
    ratios = {entry.source_name: entry.target_ratio for entry in listed.sources}
    prior = ratios if all(ratio > 0 for ratio in ratios.values()) else None
    return SourceTree(sources, str(path), prior)


def read_mixture(path: str | Path) -> dict[str, float]:
    """The ratios of a list, by source. Raises `ConfigError`."""
    return {entry.source_name: entry.target_ratio for entry in _listed(Path(path)).sources}


def write_source_mixtures(
    tree: SourceTree,
    ratios: np.ndarray,
    folder: str | Path,
    *,
    names: Sequence[str],
    run_tokens: float | None = None,
) -> list[Path]:
    """Write a source list for each of the mixtures `ratios` (n, L) of a tree's leaves.

    Files are called by `names` (n); leaves that a mixture lacks are left out. A leaf that a run of
    `run_tokens` sees more than once gets the repetition ratio that this takes. Returns the files.
    Raises `ConfigError` for a leaf without files.
    """
    ratios = checked(ratios, tree, names)
    often = repetition(ratios, tree.tokens(), run_tokens)
    files = {
        Path(folder) / f"{name}.yaml": as_yaml({"sources": _entries(tree, row, factors)})
        for name, row, factors in zip(names, ratios, often, strict=True)
    }
    return [write_text(path, text) for path, text in files.items()]


def write_source_mixture(
    tree: SourceTree, ratios: np.ndarray, path: str | Path, *, run_tokens: float | None = None
) -> Path:
    """Write the source list of one mixture (L,), such as an optimum; see the plural."""
    path = Path(path)
    row = np.asarray(ratios, float)[None]
    stem = path.name.removesuffix(".yaml")
    names, where = [stem], path.parent
    return write_source_mixtures(tree, row, where, names=names, run_tokens=run_tokens)[0]


def _listed(path: Path) -> Listed:
    values = schema.read_mapping(path)
    place = str(path)
    if LIST in values:
        place = f"{path}: {LIST}"
        values = values[LIST]
    if not isinstance(values, dict) or "sources" not in values:
        raise ConfigError(f"{place}: sources: a list of sources is needed")
    listed = schema.from_mapping({"sources": _without_marks(values["sources"])}, Listed, place)
    if not listed.sources:
        raise ConfigError(f"{place}: sources: at least one is needed")
    for entry in listed.sources:
        _check(entry, f"{place}: sources.{entry.source_name}")
    total = sum(entry.target_ratio for entry in listed.sources)
    if abs(total - 1) > ROUNDED:
        raise ConfigError(f"{place}: sources: the target ratios sum to {total:.9g}, not 1")
    return listed


def _without_marks(sources: Any) -> Any:
    """Sources without the `_CLASS_` that OLMo-core adds to every mapping it saves."""
    if not isinstance(sources, list):
        return sources
    return [
        {key: value for key, value in item.items() if key != MARK}
        if isinstance(item, dict)
        else item
        for item in sources
    ]


def _check(entry: Entry, place: str) -> None:
    if not 0 <= entry.target_ratio <= 1:
        raise ConfigError(f"{place}.target_ratio: {entry.target_ratio:g}; it lies between 0 and 1")
    if not entry.paths:
        raise ConfigError(f"{place}.paths: at least one is needed")
    often, fraction = entry.max_repetition_ratio, entry.max_source_fraction
    if often is not None and not 1 <= often < np.inf:
        raise ConfigError(f"{place}.max_repetition_ratio: {often:g}; it must be 1 or above")
    if fraction is not None and not 0 < fraction <= 1:
        raise ConfigError(f"{place}.max_source_fraction: {fraction:g}; expected above 0, at most 1")


def _source(entry: Entry, path: Path) -> Source:
    stated = [x for x in (entry.max_repetition_ratio, entry.max_source_fraction) if x is not None]
    return Source(
        entry.source_name,
        paths=tuple(p if "://" in p else str(beside(p, path)) for p in entry.paths),
        most_epochs=float(np.prod(stated)) if stated else None,
    )


def _entries(tree: SourceTree, row: np.ndarray, factors: np.ndarray) -> list[dict[str, Any]]:
    """The sources that a mixture (L,) has, with the repeats (L,) that it needs."""
    found = []
    for leaf, ratio, often in zip(tree.leaves, row.tolist(), factors.tolist(), strict=True):
        if ratio <= 0:
            continue
        entry = {"source_name": leaf.name, "target_ratio": ratio}
        entry["paths"] = files_of(leaf, tree, "OLMo-core")
        found.append(entry | ({"max_repetition_ratio": often} if often > 1 else {}))
    return found
