"""Mixtures as a table of ratios, in the form that Olmix and RegMix give theirs.

A line a mixture: `run`, `name`, `index`, and a column a source; columns `available_<source>` say
how many tokens of it a run has, where its repeats are meant to count.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from olmo_mixlaw.errors import ConfigError, DataError, unknown_name
from olmo_mixlaw.runs.available import AVAILABLE
from olmo_mixlaw.runs.frames import numbers, read_frame, refuse
from olmo_mixlaw.runs.importers import ROUNDED
from olmo_mixlaw.runs.labels import check_names
from olmo_mixlaw.runs.names import ID_COLUMNS
from olmo_mixlaw.swarm.sources import SourceTree

RATIOS = "ratios.csv"
SHARE = "w_"
# A sum this near to 1 is left as it is written, so that a table read and written is the same.
AS_WRITTEN = 1e-9
# How far the shares of pinned parts may be from what they are pinned to.
PINNED = 1e-3


@dataclass(frozen=True)
class Mixtures:
    """Named mixtures: `ratios` (n, F) of a tree's free units; `missing` units had no column."""

    ids: tuple[str, ...]
    ratios: np.ndarray
    missing: tuple[str, ...] = ()


def read_mixtures(path: str | Path, tree: SourceTree) -> Mixtures:
    """Mixtures of a tree's free units, or of its leaves, from a table or a folder with one.

    Columns may be `w_<source>`, as tables of runs have them; then others say nothing of mixtures.
    A source without a column has ratio 0 and is named in `missing`. Sums may be off by what
    rounding to a few digits leaves. Raises `DataError` and `UnknownNameError`.
    """
    path = Path(path) / RATIOS if Path(path).is_dir() else Path(path)
    frame = _of_shares(read_frame(path))
    key = next((c for c in ID_COLUMNS if c in frame), None)
    known = set(tree.names) | set(tree.leaf_names)
    columns = [c for c in frame if c not in ID_COLUMNS and not str(c).startswith(AVAILABLE)]
    for column in columns:
        if column not in known:
            raise unknown_name("source", column, known, f"{path}: line 1")
    if not columns or not len(frame):
        raise DataError(f"{path}: holds no mixtures: expected a column a source and a line each")
    values = {}
    for column in columns:
        values[column] = numbers(frame, column, str(path)).fillna(0.0).to_numpy(float)
        bad = ~np.isfinite(values[column]) | (values[column] < 0)
        refuse(frame, column, bad, str(path), "a ratio is 0 or above, and finite")
    ratios, missing = _units(values, tree, path)
    total = ratios.sum(1)
    wrong = np.flatnonzero(np.abs(total - 1) > ROUNDED)
    if len(wrong):
        raise DataError(
            f"{path}: line {wrong[0] + 2}: the ratios sum to {total[wrong[0]]:.6g}, not 1"
        )
    off = np.abs(total - 1) > AS_WRITTEN
    ratios[off] /= total[off, None]
    if key is None:
        ids = tuple(map(name_of, range(len(frame))))
    else:
        check_names(frame, [key], str(path))
        ids = tuple(frame[key].astype(str))
    if len(set(ids)) < len(ids):
        raise DataError(f"{path}: {key}: two mixtures are called {_twice(ids)!r}; rename one")
    return Mixtures(ids, ratios, missing)


def _of_shares(frame: pd.DataFrame) -> pd.DataFrame:
    """A table with columns `w_<source>` as one with a column a source and the names of rows."""
    shares = {c: c.removeprefix(SHARE) for c in frame if str(c).startswith(SHARE)}
    named = [c for c in frame if c in ID_COLUMNS]
    return frame[[*named, *shares]].rename(columns=shares) if shares else frame


def ratios_csv(
    ids: Sequence[str],
    names: Sequence[str],
    ratios: np.ndarray,
    swarm: str,
    available: np.ndarray | None = None,
) -> str:
    """The table of `ratios` (n, F) as text, every number in full.

    `available` (F,) are the tokens that runs have; columns are written where all are known.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    extra = [] if available is None else [f"{AVAILABLE}{name}" for name in names]
    tokens = [] if available is None else [_cell(value) for value in available]
    writer.writerow(["run", "name", "index", *names, *extra])
    for index, (run, row) in enumerate(zip(ids, ratios.tolist(), strict=True)):
        writer.writerow([run, f"{swarm}-{run}", index, *row, *tokens])
    return text.getvalue()


def name_of(index: int) -> str:
    """The name of the mixture at `index` of a swarm: the same however large the swarm is."""
    return f"m{index:04d}"


def new_names(count: int, taken: Sequence[str]) -> tuple[str, ...]:
    """`count` names in all, beginning with those `taken`."""
    names, used, index = list(taken), set(taken), len(taken)
    while len(names) < count:
        if (name := name_of(index)) not in used:
            names.append(name)
        index += 1
    return tuple(names)


def _units(
    values: dict[str, np.ndarray], tree: SourceTree, path: Path
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Ratios (n, F) of the units, whether a column is one of them or a leaf inside one."""
    rows = len(next(iter(values.values())))
    ratios = np.zeros((rows, len(tree.names)))
    missing = []
    for unit, name in enumerate(tree.names):
        inside = np.flatnonzero(tree.expansion[unit] > 0)
        leaves = [tree.leaf_names[i] for i in inside]
        if name in values:
            ratios[:, unit] = values[name]
        elif any(leaf in values for leaf in leaves):
            parts = np.stack([values.get(leaf, np.zeros(rows)) for leaf in leaves], 1)
            ratios[:, unit] = parts.sum(1)
            off = np.abs(parts - parts.sum(1, keepdims=True) * tree.expansion[unit, inside])
            if off.max() > PINNED:
                line, part = np.unravel_index(off.argmax(), off.shape)
                raise ConfigError(
                    f"{path}: line {line + 2}: {leaves[part]}: is pinned to "
                    f"{tree.expansion[unit, inside[part]]:.4g} of {name}, and is not there"
                )
        else:
            missing.append(name)
    return ratios, tuple(missing)


def _twice(names: Sequence[str]) -> str:
    return next(name for name in names if names.count(name) > 1)


def _cell(value: float) -> float | str:
    return value if np.isfinite(value) else ""
