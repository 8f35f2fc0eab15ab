"""Source lists and single mixtures as files: what one stage writes and the next one reads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from olmo_mixlaw import schema
from olmo_mixlaw.atomic import write_text
from olmo_mixlaw.errors import ConfigError, unknown_name
from olmo_mixlaw.swarm import olmix, olmo_core
from olmo_mixlaw.swarm.exported import as_yaml
from olmo_mixlaw.swarm.sources import Source, SourceTree

# How far the ratios of a written mixture may sum from 1; they are rescaled.
ROUNDED = 1e-3


def write_sources(tree: SourceTree, path: str | Path, head: str = "") -> Path:
    """Write a tree as a source list of ours, with its tokens and prior, and `head` as a comment."""
    values: dict[str, Any] = {}
    if tree.prior_weights is not None:
        values["prior"] = {name: float(weight) for name, weight in tree.prior_weights.items()}
    values["sources"] = {source.name: _entry(source) for source in tree.sources}
    comment = "".join(f"# {line}\n" for line in head.splitlines())
    return write_text(path, comment + as_yaml(values))


def write_mixture(mixture: Mapping[str, float], path: str | Path) -> Path:
    """Write a mixture as the `mixture:` section of a training configuration."""
    ratios = {name: float(ratio) for name, ratio in mixture.items()}
    return write_text(path, as_yaml({"mixture": {"ratios": ratios}}))


def read_mixture(path: str | Path) -> dict[str, float]:
    """A mixture: ratios by source, rescaled to sum to 1.

    From a training configuration or a plain mapping of ours, the `mix` of an Olmix launch file,
    the optimum (JSON) that `olmix fit` writes, or a source list of OLMo-core. Raises `ConfigError`
    where the ratios don't sum to 1 within 1e-3.
    """
    return rescaled(read_ratios(path), str(path))


def read_ratios(path: str | Path) -> dict[str, float]:
    """The ratios of a mixture as they are written, whatever they sum to; see `read_mixture`."""
    ratios = _ratios(Path(path))
    if not ratios:
        raise ConfigError(f"{path}: holds no ratios")
    for name, ratio in ratios.items():
        number = isinstance(ratio, int | float) and not isinstance(ratio, bool)
        if not number or not 0 <= ratio < math.inf:
            raise ConfigError(f"{path}: {name}: {ratio!r}: expected a ratio, 0 or above")
    return ratios


def rescaled(ratios: Mapping[str, float], place: str) -> dict[str, float]:
    """Ratios with what rounding left of their sum taken out. Raises `ConfigError`."""
    total = math.fsum(ratios.values())
    if abs(total - 1) > ROUNDED:
        raise ConfigError(f"{place}: the ratios sum to {total:.6g}, not 1")
    return {name: float(ratio) / total for name, ratio in ratios.items()}


def by_leaf(mixture: Mapping[str, float], tree: SourceTree, place: str) -> dict[str, float]:
    """A mixture of a tree's free units or leaves as the ratios of all its leaves, in their order.

    `place` goes into errors. Raises `UnknownNameError`, and `ConfigError` for a sum that isn't 1.
    """
    found = dict.fromkeys(tree.leaf_names, 0.0)
    for name, ratio in rescaled(mixture, place).items():
        if name in tree.names:
            shares = tree.expansion[tree.names.index(name)]
            for leaf, share in zip(tree.leaf_names, shares.tolist(), strict=True):
                found[leaf] += ratio * share
        elif name in found:
            found[name] += ratio
        else:
            known = {*tree.names, *tree.leaf_names}
            raise unknown_name("source", name, known, f"{place}, in {tree.file}")
    return found


def _ratios(path: Path) -> dict[str, Any]:
    if path.suffix == ".json" and path.is_file():
        found = schema.parse(path.read_text(encoding="utf-8"), str(path))
        if isinstance(found, list):
            return _of_list(found, path)
    values: Any = schema.read_mapping(path)
    if "mix" in values:
        return dict(olmix.read_mix(path))
    if isinstance(values.get("sources"), list) or olmo_core.LIST in values:
        return dict(olmo_core.read_mixture(path))
    for key in ("mixture", "ratios"):
        values = values.get(key, values)
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: {key}: expected a mapping of sources to ratios")
    return {str(name): ratio for name, ratio in values.items()}


def _of_list(found: list[Any], path: Path) -> dict[str, Any]:
    """`[{"domain": name, "weight": ratio}, ...]`, as Olmix writes its optimum."""
    if not all(isinstance(item, dict) and {"domain", "weight"} <= set(item) for item in found):
        raise ConfigError(f"{path}: expected a list of items with the keys domain and weight")
    return {str(item["domain"]): item["weight"] for item in found}


def _entry(source: Source) -> dict[str, Any] | float:
    """A source as a list has it, without the keys that say nothing."""
    found: dict[str, Any] = {}
    if not source.parts and not math.isnan(source.tokens):
        found["tokens"] = _plain(source.tokens)
    if source.paths:
        found["paths"] = [p if "://" in p else str(Path(p).absolute()) for p in source.paths]
    if source.uri is not None:
        found["uri"] = source.uri
    empty = Source("")
    for key in ("most_epochs", "least", "most", "pinned"):
        if (value := getattr(source, key)) != getattr(empty, key):
            found[key] = value
    if source.inner is not None:
        names = [part.name for part in source.parts]
        found["inner"] = dict(zip(names, map(float, source.inner), strict=True))
    if source.parts:
        found["parts"] = {part.name: _entry(part) for part in source.parts}
    return found["tokens"] if list(found) == ["tokens"] else found


def _plain(number: float) -> float:
    return int(number) if math.isfinite(number) and float(number).is_integer() else float(number)
