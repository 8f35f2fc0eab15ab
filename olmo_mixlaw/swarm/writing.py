"""A swarm's files: always the table of its ratios and what it was made from, then what trains it.

A study, or a training configuration of OLMo a mixture, is made from a template that says everything
but the mixture: model, length, optimizer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from olmo_mixlaw import schema
from olmo_mixlaw.atomic import write_text
from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.swarm.exported import as_yaml, files_of
from olmo_mixlaw.swarm.making import Swarm, provenance
from olmo_mixlaw.swarm.mixtures import RATIOS, ratios_csv
from olmo_mixlaw.swarm.sources import SEPARATOR, Source, SourceTree

LEAVES = "leaves.csv"
PROVENANCE = "swarm.json"
STUDY = "study.yaml"
OLMO = "olmo"
# Domains of a study become parts of file names, which a colon can't be.
IN_A_STUDY = "-"
# What a template's mixture may say besides the ratios, which are the swarm's.
OTHER_RATIOS = ("ratios", "schedule", "file", "sources")


def write_tables(swarm: Swarm, folder: Path) -> list[Path]:
    """Write the ratios and their provenance; returns the files.

    A swarm that is there already is written over by one that begins with it, and by no other
    (`ConfigError`). Where parts are pinned, `leaves.csv` has what is trained on, and `ratios.csv`
    what was drawn, which a fit can tell apart.
    """
    available = None
    if swarm.share is not None:
        tokens = np.array([unit.total for unit in swarm.tree.units])
        available = np.where(np.isfinite(tokens), tokens * swarm.share, np.inf)
    tables = {RATIOS: (swarm.tree.names, swarm.ratios, available)}
    if swarm.tree.leaf_names != swarm.tree.names:
        tables[LEAVES] = (swarm.tree.leaf_names, swarm.leaf_ratios, None)
    texts = {
        folder / file: ratios_csv(swarm.ids, names, ratios, swarm.name, had)
        for file, (names, ratios, had) in tables.items()
    }
    for path, new in texts.items():
        if path.is_file() and not new.startswith(path.read_text(encoding="utf-8")):
            raise ConfigError(
                f"{path}: other mixtures are here; grow them (--grow {folder}), or give another "
                "folder"
            )
    written = [write_text(path, new) for path, new in texts.items()]
    text = json.dumps(_json(provenance(swarm)), indent=1, allow_nan=False) + "\n"
    return [*written, write_text(folder / PROVENANCE, text)]


def study_values(swarm: Swarm, template: Path, folder: Path) -> dict[str, Any]:
    """The study `template` with the swarm's domains and mixtures, its output in `folder`.

    A part's domain is called `source-part`.
    With a share of the target's tokens its runs repeat as the target will. Raises `ConfigError`
    where a source has no data, or several places where a study takes one.
    """
    values = schema.read_mapping(template)
    names = [name.replace(SEPARATOR, IN_A_STUDY) for name in swarm.tree.leaf_names]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"{swarm.tree.file}: two sources would be domain {twice[0]}; rename one")
    domains = {
        name: _one_place(leaf, swarm.tree)
        for name, leaf in zip(names, swarm.tree.leaves, strict=True)
    }
    values |= {
        "name": swarm.name,
        "output": str((folder / "study").absolute()),
        "domains": domains,
        "mixtures": {
            run: _nonzero(names, row) for run, row in zip(swarm.ids, swarm.leaf_ratios, strict=True)
        },
    }
    target = values.get("target")
    for key in ("weights", "bounds"):  # those of domains that the swarm has
        if isinstance(target, dict) and isinstance(target.get(key), dict):
            target[key] = {d: value for d, value in target[key].items() if d in domains}
    if swarm.match_repeats:
        values["match_repeats"] = True
    return values


def write_olmo(swarm: Swarm, template: Path, folder: Path) -> list[Path]:
    """Write a training configuration of OLMo a mixture, into `folder`/olmo; returns the files.

    Each is the file `template` with the run's name, folder, sources and ratios put in. Raises
    `ConfigError` where the template has no `save_folder`, or a source no data.
    """
    base = schema.read_mapping(template)
    saves = base.get("save_folder")
    if not isinstance(saves, str):
        raise ConfigError(f"{template}: save_folder: is needed; each run gets a folder in it")
    data, mixture = ({**(base.get(key) or {})} for key in ("data", "mixture"))
    for key in OTHER_RATIOS:
        mixture.pop(key, None)
    if swarm.share is not None:
        mixture["source_share"] = swarm.share
    places = {leaf.name: _places(leaf, swarm.tree) for leaf in swarm.tree.leaves}
    name = base.get("run_name", swarm.name)
    files = {}
    for run, row in zip(swarm.ids, swarm.leaf_ratios, strict=True):
        ratios = _nonzero(swarm.tree.leaf_names, row)
        files[folder / OLMO / f"{run}.yaml"] = {
            **base,
            "run_name": f"{name}-{run}",
            "save_folder": str(Path(saves) / run),
            "data": {**data, "datasets": {leaf: places[leaf] for leaf in ratios}},
            "mixture": {**mixture, "ratios": ratios},
        }
    return [write_text(path, as_yaml(values)) for path, values in files.items()]


def _nonzero(names: Sequence[str], row: np.ndarray) -> dict[str, float]:
    """The ratios that a mixture has, by name."""
    return {name: ratio for name, ratio in zip(names, row.tolist(), strict=True) if ratio > 0}


def _places(leaf: Source, tree: SourceTree) -> list[str]:
    """Where a leaf's data is: a URI, or files that stay found wherever the file is read."""
    return [leaf.uri] if leaf.uri is not None else files_of(leaf, tree, "OLMo")


def _one_place(leaf: Source, tree: SourceTree) -> str:
    places = _places(leaf, tree)
    if len(places) > 1:
        raise ConfigError(
            f"{tree.file}: {leaf.name}: {len(places)} paths, and a study takes one a domain: give "
            "a folder, a pattern with *, or a topic for each"
        )
    return places[0]


def _json(value: Any) -> Any:
    """JSON has no infinity: a source without end has null tokens."""
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
