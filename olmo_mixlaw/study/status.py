"""Where a study stands: every run of its plan, what has been done of all, and what is left.

It is read from the study's folder alone, also while others work there; nothing is locked or
written. Steps count where they were made, also those of runs that failed or were cut off.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.study.claims import PREFIX, holder_of
from olmo_mixlaw.study.config import begun_study
from olmo_mixlaw.study.estimate import Estimate
from olmo_mixlaw.study.failures import DONE, put_aside_before
from olmo_mixlaw.study.failures import FAILED as FAILED_FILE
from olmo_mixlaw.study.paces import learned, said_left, works
from olmo_mixlaw.study.places import FILE, RUNS
from olmo_mixlaw.study.plan import plan
from olmo_mixlaw.study.progress import duration, last_step
from olmo_mixlaw.study.settings import StudyConfig
from olmo_mixlaw.study.worker import CHECKPOINTS

FINISHED, RUNNING, FAILED, BEGUN, WAITING = ("finished", "running", "failed", "begun", "waiting")
_STEPS = re.compile(r"^max_duration: (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class RunStatus:
    """One run: its state, how far it is, and who works on it or why it failed."""

    run_id: str
    state: str
    step: int
    steps: int
    about: str = ""

    def __str__(self) -> str:
        if self.state in (FINISHED, WAITING):
            return self.state
        about = f" ({self.about})" if self.about else ""
        return f"{self.state} at step {self.step} of {self.steps or 'many'}{about}"


@dataclass(frozen=True)
class Status:
    """All runs; `done` is the part of the operations that have been made, `left` the seconds that
    the rest takes (None: nobody knows), `others` the runs in the folder that are in no plan."""

    runs: Sequence[RunStatus]
    done: float
    left: float | None
    others: int = 0

    def count(self, state: str) -> int:
        return sum(run.state == state for run in self.runs)

    @property
    def is_over(self) -> bool:
        """Whether every run is finished, or has failed."""
        return all(run.state in (FINISHED, FAILED) for run in self.runs)

    def summary(self) -> str:
        """All of it in one line."""
        counts = Counter(run.state for run in self.runs)
        parts = [f"{counts[FINISHED]} of {len(self.runs)} runs finished"]
        parts += [f"{counts[s]} {s}" for s in (RUNNING, BEGUN, FAILED) if counts[s]]
        steps, total = sum(r.step for r in self.runs), sum(r.steps for r in self.runs)
        if total:
            parts.append(f"{steps:,} of {total:,} steps, {100 * self.done:.0f} % of the compute")
        if self.left is not None and not self.is_over:
            parts.append(f"about {duration(self.left)} left")
        if self.others:
            parts.append(f"{self.others} more in the folder that its plan doesn't have")
        return ", ".join(parts)

    def document(self) -> dict[str, Any]:
        """The same as `--json` has it."""
        return {
            "runs": [
                {
                    "run_id": run.run_id,
                    "state": run.state,
                    "finished": run.state == FINISHED,
                    "step": run.step,
                    "steps": run.steps,
                    "about": run.about or None,
                }
                for run in self.runs
            ],
            "finished": self.count(FINISHED),
            "running": self.count(RUNNING),
            "failed": self.count(FAILED),
            "steps": sum(run.step for run in self.runs),
            "steps_of_all": sum(run.steps for run in self.runs),
            "part_done": self.done,
            "seconds_left": self.left,
        }


def status_of(folder: Path) -> Status:
    """Where the study in `folder` stands. Raises `ConfigError` where there is none."""
    there = _names(folder / RUNS)
    there = [name for name in there if (folder / RUNS / name / "config.yaml").is_file()]
    if (folder / FILE).is_file():
        return _of_plan(begun_study(folder), folder, there)
    if not there:
        raise ConfigError(f"{folder}: no study here (it holds no {RUNS}/*/config.yaml)")
    rows = [_run_status(folder / RUNS / name, name, None) for name in there]
    total = sum(row.steps for row in rows)
    return Status(rows, sum(row.step for row in rows) / total if total else 0.0, None)


def _of_plan(study: StudyConfig, folder: Path, there: list[str]) -> Status:
    runs = plan(study)
    rows = [_run_status(folder / RUNS / run.run_id, run.run_id, run.steps) for run in runs]
    each = works(runs)
    flops = {name: work.flops * work.steps for name, work in each.items()}
    made = sum(each[row.run_id].flops * row.step for row in rows)
    left = said_left(folder)
    if left is None:
        known = learned(runs, folder)
        running = [row.run_id for row in rows if row.state == RUNNING]
        estimate = Estimate(each, max(study.workers, len(running)), known.paces, known.scorings)
        for row in rows:
            if row.state == RUNNING:
                estimate.observe(row.run_id, row.step, 0.0)
        waiting = [row.run_id for row in rows if row.state in (WAITING, BEGUN)]
        left = estimate.left(running, waiting, 0.0) if known.paces else None
    planned = {run.run_id for run in runs}
    others = sum(name not in planned for name in there)
    return Status(rows, made / max(sum(flops.values()), 1.0), left, others)


def _run_status(folder: Path, name: str, steps: int | None) -> RunStatus:
    names = set(_names(folder))
    if steps is None:
        steps = _steps_of(folder)
    if DONE in names:
        return RunStatus(name, FINISHED, steps or last_step(folder), steps)
    step = last_step(folder) if CHECKPOINTS in names else 0
    if FAILED_FILE in names and (failure := put_aside_before(folder)) is not None:
        return RunStatus(name, FAILED, step, steps, failure.reason)
    if any(found.startswith(PREFIX) for found in names):
        holder = holder_of(folder)
        if holder is not None and not holder.is_seen_dead():
            return RunStatus(name, RUNNING, step, steps, str(holder))
    return RunStatus(name, BEGUN if step else WAITING, step, steps)


def _steps_of(folder: Path) -> int:
    """Steps of a run by its own configuration; 0 where it doesn't say."""
    try:
        found = _STEPS.search((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0
    return int(found[1]) if found else 0


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
