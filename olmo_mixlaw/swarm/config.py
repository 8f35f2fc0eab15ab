"""A list of sources: a YAML file of ours, of Olmix or of OLMo-core, a folder, or `name=what`.

prior: {web: 0.7, code: 0.3}         shares instead of tokens, of all outermost sources
tokenizer: tokenizer.json            counts the tokens of datasets
dtype: uint16                        of token files that don't say theirs
sources:
  code: 12.5B                        its tokens, and nothing else
  web:
    most: 0.8
    parts:                           topics, qualities, ...; parts may have parts
      science: {tokens: 84.5B, most_epochs: 4}
      games: {paths: [tokens/web/games]}
  math: {uri: "mixlaw:text?path=math.jsonl", least: 0.02}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from olmo_mixlaw import schema
from olmo_mixlaw.datasets import load_tokenizer
from olmo_mixlaw.datasets.moved import with_path
from olmo_mixlaw.datasets.uri import is_uri, parse
from olmo_mixlaw.errors import ConfigError, unknown_name
from olmo_mixlaw.shipped import beside, find_config
from olmo_mixlaw.swarm.counting import counted
from olmo_mixlaw.swarm.sources import Source, SourceTree

FOLDER = "configs/swarms"
GIVEN = "the sources given"


@dataclass
class SourceConfig:
    """What a source list says of one source, or of a part of one; see `sources.Source`."""

    tokens: float | None = None
    paths: list[str] = field(default_factory=list)
    uri: str | None = None
    most_epochs: float | None = None
    least: float = 0.0
    most: float = 1.0
    parts: dict[str, SourceConfig] = field(default_factory=dict)
    pinned: bool = False
    inner: dict[str, float] | None = None


@dataclass
class SwarmSources:
    """The file as a whole."""

    sources: dict[str, SourceConfig] = field(default_factory=dict)
    prior: dict[str, float] | None = None
    tokenizer: str | None = None
    dtype: str | None = None


def read_sources(
    given: Sequence[str],
    *,
    prior: Mapping[str, float] | None = None,
    tokenizer: str | None = None,
    dtype: str | None = None,
) -> SourceTree:
    """The sources that `given` names, with their tokens counted where nobody says them.

    One item may be a source list (YAML, or the name of a shipped one) or a folder with a folder
    of token files a source; several are `name=TOKENS`, `name=PATH` or `name=mixlaw:...`. `prior`
    replaces that of the file. Raises `ConfigError` and `DataError`.
    """
    if not given:
        raise ConfigError("no sources: give a source list, a folder or NAME=WHAT")
    if len(given) == 1 and "=" not in given[0].partition("?")[0]:
        name = given[0]
        if Path(name).is_dir():
            tree, options = _of_folder(Path(name)), SwarmSources()
        else:
            tree, options = _of_file(find_config(FOLDER, name))
    else:
        tree, options = _of_pairs(given), SwarmSources()
    encoder = tokenizer or options.tokenizer
    loaded = load_tokenizer(encoder, f"{tree.file}: tokenizer") if encoder else None
    weights = options.prior if prior is None else prior
    return SourceTree(
        tuple(
            counted(
                source,
                dtype=dtype or options.dtype,
                tokenizer=loaded,
                where=f"{tree.file}: sources.{source.name}",
            )
            for source in tree.sources
        ),
        tree.file,
        tree.prior_weights if weights is None else dict(weights),
    )


def _of_file(path: Path) -> tuple[SourceTree, SwarmSources]:
    """A source list, told by its keys from those of Olmix and OLMo-core."""
    values = schema.read_mapping(path)
    listed = values.get("sources", values.get("source_configs"))
    if isinstance(listed, list) and any(
        isinstance(item, dict) and "source_name" in item for item in listed
    ):
        from olmo_mixlaw.swarm import olmo_core

        return olmo_core.read_sources(path), SwarmSources()
    if isinstance(listed, list) or "data" in values:
        from olmo_mixlaw.swarm import olmix

        return olmix.read_sources(path), SwarmSources()
    if isinstance(values.get("sources"), dict):
        values["sources"] = _spelt_out(values["sources"])
    options = schema.from_mapping(values, SwarmSources, str(path))
    if options.tokenizer and Path(options.tokenizer).suffix:
        options.tokenizer = str(beside(options.tokenizer, path))
    return SourceTree(_sources(options.sources, path, "sources"), str(path)), options


def _spelt_out(sources: Mapping[str, Any]) -> dict[str, Any]:
    """Sources of which only the tokens are said, with that key; the rest as it is."""
    found: dict[str, Any] = {}
    for name, value in sources.items():
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            value = {"tokens": value}
        elif isinstance(value, dict) and isinstance(value.get("parts"), dict):
            value = {**value, "parts": _spelt_out(value["parts"])}
        found[name] = value
    return found


def _sources(configs: Mapping[str, SourceConfig], path: Path, key: str) -> tuple[Source, ...]:
    return tuple(_source(name, config, path, f"{key}.{name}") for name, config in configs.items())


def _source(name: str, config: SourceConfig, path: Path, key: str) -> Source:
    ways = [k for k in ("paths", "uri", "parts") if getattr(config, k)]
    if len(ways) > 1:
        raise ConfigError(f"{path}: {key}: {' and '.join(ways)} are given; keep one of them")
    inner = None
    if config.inner is not None:
        for part in config.inner:
            if part not in config.parts:
                raise unknown_name("part", part, config.parts, f"{path}: {key}.inner")
        inner = tuple(config.inner.get(part, 0.0) for part in config.parts)
    return Source(
        name,
        tokens=float("nan") if config.tokens is None else config.tokens,
        paths=tuple(p if "://" in p else str(beside(p, path)) for p in config.paths),
        uri=config.uri and with_path(config.uri, lambda p: str(beside(p, path))),
        most_epochs=config.most_epochs,
        least=config.least,
        most=config.most,
        parts=_sources(config.parts, path, f"{key}.parts"),
        pinned=config.pinned,
        inner=inner,
    )


def _of_folder(folder: Path) -> SourceTree:
    """A source for each folder of token files in `folder`, or else for each token file."""
    inner = [path for path in sorted(folder.iterdir()) if path.is_dir() and any(path.glob("*.npy"))]
    found = inner or sorted(folder.glob("*.npy"))
    if not found:
        raise ConfigError(
            f"{folder}: no sources: expected folders with token files (*.npy), or token files"
        )
    return SourceTree(tuple(Source(p.stem, paths=(str(p),)) for p in found), str(folder))


def _of_pairs(given: Sequence[str]) -> SourceTree:
    """Sources written `name=TOKENS`, `name=PATH` or `name=mixlaw:...`."""
    sources = []
    for item in given:
        name, sign, what = item.partition("=")
        if not sign or not name or not what or is_uri(item):
            raise ConfigError(
                f"{item!r}: several sources are written NAME=TOKENS, NAME=PATH or NAME=mixlaw:..."
            )
        if is_uri(what):
            parse(what, name)
            sources.append(Source(name, uri=what))
        elif Path(what).exists() or "*" in what:
            sources.append(Source(name, paths=(what,)))
        else:
            sources.append(Source(name, tokens=schema.parse_count(what, f"{name}: tokens")))
    return SourceTree(tuple(sources), GIVEN)
