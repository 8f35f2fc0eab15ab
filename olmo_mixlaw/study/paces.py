"""Which of a study's runs are finished, how fast they were, and what is said of the time left.

Paths are joined as text here: ten thousand `Path`s take longer than what they are asked.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from olmo_mixlaw.atomic import write_text
from olmo_mixlaw.study.estimate import Work
from olmo_mixlaw.study.failures import DONE
from olmo_mixlaw.study.places import RUNS
from olmo_mixlaw.study.plan import Run

ESTIMATE = "estimate.json"
FRESH = 90.0  # seconds for which the word of a process that runs the study is believed


def finished(runs: Iterable[Run], output: Path) -> set[str]:
    """The names of the runs that are trained and scored."""
    folder = f"{output}/{RUNS}"
    if not os.path.isdir(folder):
        return set()
    return {r.run_id for r in runs if os.path.isfile(f"{folder}/{r.run_id}/{DONE}")}


@dataclass(frozen=True)
class Known:
    """What finished runs say by size: seconds a step, and seconds of a scoring."""

    paces: dict[str, float]
    scorings: dict[str, float]


def learned(runs: list[Run], output: Path) -> Known:
    """What those of the runs that are finished say of the others."""
    sums: dict[str, list[float]] = {}
    for run in runs:
        said = seconds_by(f"{output}/{RUNS}/{run.run_id}/{DONE}")
        if said is not None:
            mine = sums.setdefault(run.rung.name, [0.0, 0.0, 0.0, 0.0])
            for i, value in enumerate((said[0], float(run.steps), said[1], 1.0)):
                mine[i] += value
    return Known(
        {size: train / steps for size, (train, steps, _, _) in sums.items() if train > 0},
        {size: scoring / count for size, (_, _, scoring, count) in sums.items()},
    )


def works(runs: list[Run]) -> dict[str, Work]:
    """The runs as far as time goes, by name."""
    flops: dict[str, float] = {}
    for run in runs:
        if run.rung.name not in flops:
            flops[run.rung.name] = run.rung.step_flops
    return {r.run_id: Work(r.run_id, r.rung.name, flops[r.rung.name], r.steps) for r in runs}


def seconds_by(path: str | Path) -> tuple[float, float] | None:
    """Seconds of training and of scoring by the file of a finished run; None where it is none."""
    try:
        said = json.loads(Path(path).read_text(encoding="utf-8"))["seconds"]
        return float(said["train"]), float(said["evaluate"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def say_left(folder: Path, left: float) -> None:
    """Leave word of how long the rest takes, for who asks for the status."""
    write_text(folder / ESTIMATE, json.dumps({"left": left, "at": time.time()}) + "\n")


def said_left(folder: Path) -> float | None:
    """Seconds left by the word of a process that runs the study; None where it isn't fresh."""
    try:
        said = json.loads((folder / ESTIMATE).read_text(encoding="utf-8"))
        passed = time.time() - float(said["at"])
        return max(0.0, float(said["left"]) - passed) if 0 <= passed < FRESH else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
