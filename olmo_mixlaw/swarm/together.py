"""Old and new runs as one table: an old swarm says how the kept sources compare, for nothing.

A reuse swarm alone holds what is kept at its old ratios, and what has changed may want others. A
law of both swarms' runs may choose over all sources.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from olmo_mixlaw.atomic import write_text
from olmo_mixlaw.errors import DataError
from olmo_mixlaw.runs.frames import numbers, read_frame
from olmo_mixlaw.runs.labels import check_names
from olmo_mixlaw.runs.names import ID_COLUMNS
from olmo_mixlaw.swarm.mixtures import RATIOS, ratios_csv, read_mixtures
from olmo_mixlaw.swarm.reuse import Reuse
from olmo_mixlaw.swarm.sources import SourceTree

METRICS = "metrics.csv"
OLD = "old-"  # before the names of old runs: swarms call theirs alike


@dataclass(frozen=True)
class Swarm:
    """A swarm's two files: names (R,), ratios (R, F) of a tree's free units, and the metrics."""

    tree: SourceTree
    ids: list[str]
    ratios: np.ndarray
    metrics: pd.DataFrame


@dataclass(frozen=True)
class Together:
    """Runs by all sources: `ratios` (R, N) by `names`, of which `gone` can't be had any more."""

    ids: list[str]
    names: list[str]
    ratios: np.ndarray
    metrics: pd.DataFrame
    gone: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def write(self, folder: str | Path) -> list[Path]:
        """Write `ratios.csv` and `metrics.csv`, as `fit` takes them; returns the files."""
        head = pd.DataFrame({"run": self.ids, "name": self.ids, "index": range(len(self.ids))})
        table = pd.concat([head, self.metrics], axis=1).to_csv(index=False, lineterminator="\n")
        text = ratios_csv(self.ids, self.names, self.ratios, "all")
        return [write_text(Path(folder) / RATIOS, text), write_text(Path(folder) / METRICS, table)]


def read_swarm(ratios: str | Path, metrics: str | Path, tree: SourceTree) -> Swarm:
    """A swarm's two files, by a tree's free units; runs that only one has are left out.

    Raises `DataError` without an id column in both or a run in both, and `UnknownNameError` for a
    column that the tree has no source for.
    """
    ratios = Path(ratios) / RATIOS if Path(ratios).is_dir() else Path(ratios)
    left, right = read_frame(ratios), read_frame(metrics)
    key = next((c for c in ID_COLUMNS if c in left and c in right), None)
    if key is None:
        raise DataError(f"{ratios} and {metrics}: no id column in both ({', '.join(ID_COLUMNS)})")
    for path, frame in ((ratios, left), (metrics, right)):
        check_names(frame, [key], str(path))
        if frame[key].duplicated().any():
            first = frame.loc[frame[key].duplicated(), key].iloc[0]
            raise DataError(f"{path}: a second row for {key} {first!r}")
    found = read_mixtures(ratios, tree).ratios
    here = left[key].isin(right[key]).to_numpy()
    if not here.any():
        raise DataError(f"{ratios} and {metrics}: no run is in both")
    rows = right.set_index(key).loc[left.loc[here, key]].reset_index(drop=True)
    columns = [c for c in rows if c not in ID_COLUMNS and pd.api.types.is_numeric_dtype(rows[c])]
    losses = pd.DataFrame({c: numbers(rows, c, str(metrics)) for c in columns})
    return Swarm(tree, left.loc[here, key].astype(str).tolist(), found[here], losses)


def together(plan: Reuse, old: Swarm, new: Swarm) -> Together:
    """Both swarms' runs by the new sources and those that are gone.

    `new` is of the plan's `reduced` tree, or of its `centred` one. Raises `DataError` where the
    swarms have no metric in common.
    """
    before, names = plan.old_runs(old.ratios, old.tree)
    reduced = new.tree.names == plan.reduced.names
    after = plan.expand(new.ratios) if reduced else new.tree.expand(new.ratios)
    gone = names[len(plan.tree.leaves) :]
    after = np.concatenate([after, np.zeros((len(after), len(gone)))], axis=1)
    shared = [c for c in new.metrics if c in old.metrics]
    if not shared:
        raise DataError("the old and the new runs have no metric in common")
    alone = [c for c in (*new.metrics, *old.metrics) if c not in shared]
    notes = [f"{len(alone)} metrics are of one swarm only: {', '.join(alone[:5])}"] if alone else []
    return Together(
        ids=[*(f"{OLD}{run}" for run in old.ids), *new.ids],
        names=names,
        ratios=np.concatenate([before, after]),
        metrics=pd.concat([old.metrics[shared], new.metrics[shared]], ignore_index=True),
        gone=tuple(gone),
        notes=tuple(notes),
    )
