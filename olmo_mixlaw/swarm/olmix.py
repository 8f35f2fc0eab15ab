"""Olmix's files: sources in, launches out (github.com/allenai/olmix, arXiv 2602.12237).

A configuration of `olmix generate` or `olmix launch` is read by its `data`, `priors` and `swarm`;
what it writes is one launch file a mixture, in a folder that `olmix launch run --variants` takes.
Its table of ratios and its table of metrics are read by `runs.importers.two_files`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import MISSING

from olmo_mixlaw import schema
from olmo_mixlaw.atomic import write_text
from olmo_mixlaw.errors import ConfigError, complain, unknown_name
from olmo_mixlaw.shipped import beside
from olmo_mixlaw.swarm.counting import counted
from olmo_mixlaw.swarm.exported import as_yaml, checked, files_of, repetition
from olmo_mixlaw.swarm.sources import SEPARATOR, Source, SourceTree

# Tokens a parameter and the dtype of its token files (olmix/aliases.py).
TOKENS_PER_PARAMETER = 20
DTYPE = "uint32"
# What `olmix launch` needs of a template besides the sources and the mixture.
NEEDED = ("infra", "training", "eval")
# The levels that its sources have: source, topic, quality.
LEVELS = ("sources", "topics", "quality")
# How far written weights of topics may sum from 1; they are rescaled.
ROUNDED = 1e-3
# Keys of its `swarm` that no source list can say, and our option that does.
ELSEWHERE = {
    "nonzero_weight": "--keep",
    "manual_topic_prior": "tokens",
    "existing_mix_file": "--grow",
}


@dataclass
class Quality:
    """A quality level, the innermost part; weights are relative."""

    name: str = MISSING
    paths: list[str] = MISSING
    weight: float | None = None


@dataclass
class Topic:
    """A topic: files, or quality levels."""

    name: str = MISSING
    paths: list[str] | None = None
    quality: list[Quality] | None = None
    weight: float | None = None


@dataclass
class Entry:
    """A source: files, or topics, or quality levels."""

    name: str = MISSING
    paths: list[str] | None = None
    topics: list[Topic] | None = None
    quality: list[Quality] | None = None
    weight: float | None = None


@dataclass
class Data:
    """The `data` of a configuration."""

    sources: list[Entry] = MISSING
    dtype: str = DTYPE


@dataclass
class Priors:
    """The `priors`, by leaf."""

    relative_sizes: dict[str, float] = field(default_factory=dict)
    token_counts: dict[str, float] = field(default_factory=dict)


def read_sources(path: str | Path) -> SourceTree:
    """The sources of an Olmix configuration, with the tokens and the prior that it states.

    Weights of topics or quality levels pin them. Where the file caps repetition (`max_tokens` and
    `swarm.repetition_factor`, 1 by default), the caps become each leaf's greatest ratio. Token
    files on this machine are counted where the file states no tokens. Raises `ConfigError`.
    """
    path = Path(path)
    values = schema.read_mapping(path)
    nested = "data" in values
    if nested and not isinstance(values["data"], dict):
        raise ConfigError(f"{path}: data: expected a mapping with the key sources")
    place = f"{path}: data" if nested else str(path)
    data = schema.from_mapping(values["data"] if nested else values, Data, place)
    priors = schema.from_mapping(values.get("priors") or {}, Priors, f"{path}: priors")
    swarm = values.get("swarm") or {}
    if not isinstance(swarm, dict):
        raise ConfigError(f"{path}: swarm: expected a mapping")
    plain = _fixed(
        [_source(entry, path, f"{place}: sources.{entry.name}") for entry in data.sources],
        [entry.weight for entry in data.sources],
        f"{place}: sources",
    )
    names = SourceTree(tuple(plain), str(path)).leaf_names
    for key in ("relative_sizes", "token_counts"):
        _check_leaves(getattr(priors, key), names, f"{path}: priors.{key}")
    caps = _caps(values, swarm, priors.token_counts, path)
    sources = [_filled(source, "", priors.token_counts, caps) for source in plain]
    if not priors.token_counts:
        sources = [
            counted(s, dtype=data.dtype, where=f"{place}: sources.{s.name}") for s in sources
        ]
    for key, option in ELSEWHERE.items():
        if swarm.get(key):
            complain(f"{path}: swarm.{key}: isn't read with the sources; say it by {option}")
    tree = SourceTree(tuple(sources), str(path))
    return replace(tree, prior_weights=_prior(tree, priors.relative_sizes, swarm, path))


def read_mix(path: str | Path) -> dict[str, float]:
    """The `mix` of a launch configuration: weights by leaf. Raises `ConfigError`.

    Weights inside a source or topic multiply, and a number stands for a weight.
    """
    mix = schema.read_mapping(path).get("mix")
    if not isinstance(mix, dict) or not mix:
        raise ConfigError(f"{path}: mix: a mapping of sources to their weights is needed")
    found: dict[str, float] = {}
    for name, node in mix.items():
        _flatten(str(name), node, 1.0, found, f"{path}: mix")
    return found


def write_launch(
    tree: SourceTree,
    ratios: np.ndarray,
    folder: str | Path,
    *,
    names: Sequence[str],
    template: str | Path,
    group: str | None = None,
    run_tokens: float | None = None,
) -> list[Path]:
    """Write a launch file for each of the mixtures `ratios` (n, L) of a tree's leaves.

    The `template` is a launch configuration, from which everything but name, sources and mixture
    is taken. Files are called by `names` (n). A leaf that a run of `run_tokens` (by default what
    the template's `training` says) sees more than once gets the repetition factor that this takes.
    Returns the files. Raises `ConfigError` where the template lacks a part, or a leaf its files.
    """
    base = schema.read_mapping(template)
    for key in NEEDED:
        if not isinstance(base.get(key), dict):
            raise ConfigError(f"{template}: {key}: is needed to launch a run; see Olmix's examples")
    ratios = checked(ratios, tree, names)
    data = base.get("data") if isinstance(base.get("data"), dict) else {}
    dtype = (data or {}).get("dtype")
    listed = {"sources": entries(tree), **({"dtype": dtype} if dtype else {})}
    tokens = _run_tokens(base) if run_tokens is None else run_tokens
    factors = repetition(ratios, tree.tokens(), tokens)
    files = {}
    for name, row, often in zip(names, ratios.tolist(), factors.tolist(), strict=True):
        mix = {
            leaf: {"weight": weight, "repetition_factor": factor}
            for leaf, weight, factor in zip(tree.leaf_names, row, often, strict=True)
        }
        values = {**base, "name": f"{base.get('name', 'swarm')}-{name}", "data": listed, "mix": mix}
        values["group_id"] = group if group is not None else base.get("group_id")
        files[Path(folder) / f"{name}.yaml"] = {k: v for k, v in values.items() if v is not None}
    return [write_text(path, as_yaml(values)) for path, values in files.items()]


def write_generation(
    tree: SourceTree, path: str | Path, *, name: str, max_tokens: int, swarm: Mapping[str, Any]
) -> Path:
    """Write a tree as the configuration of `olmix generate`, which then draws the mixtures.

    `swarm` are its settings; runs have `max_tokens`. Raises `ConfigError` for a leaf without
    tokens or files.
    """
    counts = {leaf.name: leaf.tokens for leaf in tree.leaves}
    for leaf, count in counts.items():
        if not 0 < count < math.inf:
            raise ConfigError(f"{tree.file}: {leaf}: Olmix's prior needs its tokens; give them")
    prior = tree.expand(tree.prior)
    outermost = [node for node in tree.nodes if node.depth == 0]
    shares = {n.name: float(prior[n.leaves.start : n.leaves.stop].sum()) for n in outermost}
    total = math.fsum(counts.values())
    values = {
        "name": name,
        "data": {"sources": entries(tree)},
        "priors": {
            "relative_sizes": {leaf: count / total for leaf, count in counts.items()},
            "token_counts": {leaf: int(count) for leaf, count in counts.items()},
        },
        "swarm": {**swarm, "manual_prior": shares},
        "max_tokens": int(max_tokens),
    }
    return write_text(path, as_yaml(values))


def entries(tree: SourceTree) -> list[dict[str, Any]]:
    """The sources as Olmix lists them; pinned parts carry their weights.

    Raises `ConfigError` for a leaf without files and for more than three levels.
    """
    return [_entry(node_source, tree, node_source.name, 0) for node_source in tree.sources]


def _source(entry: Entry | Topic | Quality, path: Path, place: str) -> Source:
    """An entry and its parts, without tokens. Raises `ConfigError`."""
    ways = [key for key in ("paths", "topics", "quality") if getattr(entry, key, None) is not None]
    if len(ways) != 1:
        accepted = [k for k in ("paths", "topics", "quality") if hasattr(entry, k)]
        found = f", found {' and '.join(ways)}" if ways else ""
        raise ConfigError(f"{place}: expected one of {', '.join(accepted)}{found}")
    if ways == ["paths"]:
        assert entry.paths is not None
        files = (p if "://" in p else str(beside(p, path)) for p in entry.paths)
        return Source(entry.name, paths=tuple(files))
    key = ways[0]
    listed: Sequence[Topic | Quality] = getattr(entry, key)
    parts = tuple(_source(part, path, f"{place}.{key}.{part.name}") for part in listed)
    names = [part.name for part in listed]
    shares = _weights([p.weight for p in listed], names, f"{place}.{key}", key == "quality")
    return Source(entry.name, parts=parts, pinned=shares is not None, inner=shares)


def _fixed(sources: list[Source], weights: Sequence[float | None], place: str) -> list[Source]:
    """The outermost sources, held at their weights where they have some."""
    given = _weights(weights, [source.name for source in sources], place)
    if given is None:
        return sources
    return [replace(s, least=w, most=w) for s, w in zip(sources, given, strict=True)]


def _weights(
    weights: Sequence[float | None], names: Sequence[str], place: str, relative: bool = False
) -> tuple[float, ...] | None:
    """Weights that sum to 1, None where none is given. Raises `ConfigError`."""
    if all(weight is None for weight in weights):
        return None
    if None in weights:
        lacking = names[list(weights).index(None)]
        raise ConfigError(f"{place}.{lacking}: weight: give one to every part, or to none")
    given = [float(weight) for weight in weights if weight is not None]
    total = math.fsum(given)
    if min(given) < 0 or not 0 < total < math.inf:
        raise ConfigError(f"{place}: weights must be 0 or above, finite and not all 0")
    if not relative and abs(total - 1) > ROUNDED:
        raise ConfigError(f"{place}: the weights sum to {total:.6g}, not 1")
    return tuple(weight / total for weight in given)


def _check_leaves(given: Mapping[str, float], names: Sequence[str], place: str) -> None:
    """Refuse numbers of other leaves than those there are, and fewer."""
    for name, value in given.items():
        if name not in names:
            raise unknown_name("source", name, names, place)
        if not 0 <= value < math.inf:
            raise ConfigError(f"{place}.{name}: {value:g}; it must be 0 or above, and finite")
    if given and (lacking := [name for name in names if name not in given]):
        raise ConfigError(f"{place}: leaves out {', '.join(lacking)}")


def _caps(
    values: Mapping[str, Any], swarm: Mapping[str, Any], counts: Mapping[str, float], path: Path
) -> dict[str, float]:
    """The greatest ratio of each leaf by its tokens, where the file caps repetition."""
    if values.get("max_tokens") is None or swarm.get("enable_bound", True) is False:
        return {}
    numbers = []
    for key, value in (
        ("max_tokens", values["max_tokens"]),
        ("swarm.repetition_factor", swarm.get("repetition_factor", 1.0)),
    ):
        numbers.append(schema.parse_count(str(value), f"{path}: {key}"))
    return {name: min(1.0, count * numbers[1] / numbers[0]) for name, count in counts.items()}


def _filled(
    source: Source, prefix: str, counts: Mapping[str, float], caps: Mapping[str, float]
) -> Source:
    """A source with the tokens and ceilings of its leaves."""
    name = f"{prefix}{source.name}"
    parts = tuple(_filled(p, f"{name}{SEPARATOR}", counts, caps) for p in source.parts)
    if parts:
        return replace(source, parts=parts)
    return replace(
        source, tokens=counts.get(name, math.nan), most=min(source.most, caps.get(name, 1.0))
    )


def _prior(
    tree: SourceTree, sizes: Mapping[str, float], swarm: Mapping[str, Any], path: Path
) -> dict[str, float] | None:
    """What a prior of its own gives the outermost sources: `manual_prior`, else relative sizes."""
    manual = swarm.get("manual_prior") or {}
    if not isinstance(manual, dict):
        raise ConfigError(f"{path}: swarm.manual_prior: expected a mapping of sources to shares")
    if not manual and not sizes:
        return None
    outermost = {node.name: node for node in tree.nodes if node.depth == 0}
    for name in manual:
        if name not in outermost:
            raise unknown_name("source", name, outermost, f"{path}: swarm.manual_prior")
    if not sizes and (lacking := [name for name in outermost if name not in manual]):
        raise ConfigError(
            f"{path}: swarm.manual_prior: leaves out {', '.join(lacking)}; give their shares, or "
            "priors.relative_sizes"
        )
    names, found = tree.leaf_names, {}
    for name, node in outermost.items():
        natural = math.fsum(sizes.get(names[i], 0.0) for i in node.leaves)
        share = manual.get(name, natural)
        if isinstance(share, bool) or not isinstance(share, int | float) or not share > 0:
            raise ConfigError(f"{path}: the prior of {name} is {share!r}; it must be above 0")
        found[name] = float(share)
    return found


def _flatten(name: str, node: Any, above: float, found: dict[str, float], place: str) -> None:
    """Add the leaves below a node of a mix; a node's weight is part of those above it."""
    inner = node if isinstance(node, dict) else {"weight": node}
    weight = inner.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not weight >= 0:
        raise ConfigError(f"{place}.{name}: {weight!r}: expected a weight, 0 or above")
    parts = {k: v for k, v in inner.items() if k not in ("weight", "repetition_factor")}
    if not parts:
        found[name] = above * float(weight)
    for part, value in parts.items():
        _flatten(f"{name}{SEPARATOR}{part}", value, above * float(weight), found, place)


def _run_tokens(base: Mapping[str, Any]) -> float | None:
    """The tokens of a run by a template's model (`olmo3_30m`) and multiple of 20 a parameter."""
    training = base["training"]
    size = re.search(r"_(\d+(?:\.\d+)?[mb])$", str(training.get("proxy_model_id", "")).lower())
    multiple = training.get("chinchilla_multiple")
    if size is None or not isinstance(multiple, int | float):
        return None
    return TOKENS_PER_PARAMETER * schema.parse_count(size[1], "proxy_model_id") * multiple


def _entry(source: Source, tree: SourceTree, name: str, level: int) -> dict[str, Any]:
    if level >= len(LEVELS):
        raise ConfigError(f"{tree.file}: {name}: Olmix knows sources, topics and quality, no more")
    if not source.parts:
        leaf = replace(source, name=name)
        return {"name": source.name, "paths": files_of(leaf, tree, "Olmix")}
    key = LEVELS[level + 1] if level + 1 < len(LEVELS) else ""
    parts = [_entry(p, tree, f"{name}{SEPARATOR}{p.name}", level + 1) for p in source.parts]
    if source.pinned:
        shares = source.inner or [part.total / source.total for part in source.parts]
        parts = [{**p, "weight": float(w)} for p, w in zip(parts, shares, strict=True)]
    return {"name": source.name, key: parts}
