"""The scores of a table's runs, read from a folder that has a folder of outputs for each.

A run is joined to the folder, or the file of results, that is named like it. What an evaluator
wrote there is read as `outputs.read_scores` reads it, whoever the evaluator was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from olmo_mixlaw.errors import DataError, closest, first_of
from olmo_mixlaw.evaluation.outputs import read_scores
from olmo_mixlaw.runs import RunTable
from olmo_mixlaw.runs.score_metrics import PRIMARY, with_primary

# Not the hashes: a model's depends on the path of its folder, a table should not.
SCORED = ["task", "metric", "value", "n_instances", "stderr"]
# Where a study has the outputs of a run, inside the run's folder.
INSIDE = "eval"
SHOWN = 5


@dataclass(frozen=True)
class Joined:
    """A table with the scores of its runs.

    `without` are runs that have no outputs, `strangers` the outputs that no run of the table has.
    """

    table: RunTable
    without: list[str]
    strangers: list[str]

    def notes(self) -> list[str]:
        """A line for each of the two that isn't empty."""
        named = self.table.scores_source
        of = len(set(self.table.losses["run_id"]))
        lines = []
        if self.without:
            runs = f"{len(self.without)} of {of} runs have no outputs"
            lines.append(f"{named}: {runs}: {first_of(self.without, SHOWN)}")
        if self.strangers:
            lines.append(f"{named}: outputs of no run, left out: {first_of(self.strangers, SHOWN)}")
        return lines


def with_outputs(table: RunTable, folder: str | Path, metrics: Sequence[str] = ()) -> Joined:
    """The table with the scores that `folder` has of its runs, in place of any that it had.

    `metrics` say which of several is a task's score where its evaluator doesn't: the first that it
    has. Raises `DataError` for a folder that is none or has outputs of no run, with the nearest
    names, and as `read_scores` does.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of outputs")
    runs = list(dict.fromkeys(table.losses["run_id"].astype(str)))
    there = {path.stem if path.is_file() else path.name: path for path in _entries(folder)}
    places = {run: _place(there[run]) for run in runs if run in there}
    found = {run: place for run, place in places.items() if place is not None}
    if not found:
        raise DataError(_nothing(folder, table.source, runs, list(there)))
    frames = [_scores(run, place, metrics) for run, place in found.items()]
    scores = pd.concat(frames, ignore_index=True)
    return Joined(
        replace(table, scores=scores, scores_source=str(folder)),
        [run for run in runs if run not in found],
        [name for name in there if name not in set(runs)],
    )


def _entries(folder: Path) -> list[Path]:
    """The folders and files of results that may be a run's, in the order of their names."""
    paths = (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))
    return [path for path in paths if path.is_dir() or path.suffix == ".json"]


def _place(path: Path) -> Path | None:
    """Where the outputs of a run lie; None for a folder without a file of any evaluator."""
    inside = path / INSIDE
    path = inside if inside.is_dir() else path
    return path if path.is_file() or any(path.rglob("*.json*")) else None


def _scores(run: str, place: Path, metrics: Sequence[str]) -> pd.DataFrame:
    read = with_primary(read_scores(place, prefer=metrics), str(place))
    known = [column for column in (*SCORED, PRIMARY) if column in read]
    return read[known].assign(run_id=run)


def _nothing(folder: Path, source: str, runs: list[str], there: list[str]) -> str:
    """What to say where no outputs are those of a run."""
    near = next(((run, name) for run in runs if (name := closest(run, there))), None)
    hint = f" (is {near[1]!r} run {near[0]!r}?)" if near else ""
    return (
        f"{folder}: holds outputs of no run of {source}{hint}; name each folder like its run: "
        f"{first_of(runs, SHOWN)}; found: {first_of(there, SHOWN) or 'nothing'}"
    )
