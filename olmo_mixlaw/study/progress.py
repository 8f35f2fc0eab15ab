"""What a study says while its runs are carried out: what is finished, what runs, and what is left.

On a terminal a bar is drawn in place, below what is said; elsewhere a line comes now and then.
"""

from __future__ import annotations

import csv
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from olmo_mixlaw.errors import MixlawError, first_of
from olmo_mixlaw.study.estimate import Estimate
from olmo_mixlaw.study.failures import DONE
from olmo_mixlaw.study.paces import learned, say_left, seconds_by, works
from olmo_mixlaw.study.plan import Run
from olmo_mixlaw.study.worker import CHECKPOINTS

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

STATUS_EVERY = 20.0  # seconds between status lines where the output is no terminal
MOST_NAMED = 4  # runs under way that are named


class StudyError(MixlawError):
    """Runs of the study failed, or none can go on; what is finished is kept."""


class Progress:
    """Says what is finished, what runs and about how long the rest will take.

    What it says of the time left, it leaves in the study's folder too, for `study status`.
    """

    def __init__(
        self,
        runs: list[Run],
        folders: dict[str, Path],
        done: int,
        workers: int,
        out: TextIO | None = None,
    ) -> None:
        self.out = out or sys.stdout
        self.folders = folders
        self.total = len(runs)
        self.done = done
        self._folder = next(iter(folders.values())).parent.parent
        known = learned(runs, self._folder) if done else None
        self._works = works(runs)
        self._estimate = Estimate(
            self._works, workers, known.paces if known else {}, known.scorings if known else {}
        )
        self._shown = -STATUS_EVERY
        self._bar: Bar | None = None
        self._terminal = self.out.isatty()
        if 0 < done < self.total:
            self.say(f"{done} of {self.total} runs are finished already")

    def say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=self.out, flush=True)

    def finished(self, run: Run) -> None:
        self.done += 1
        self._estimate.finished(run.run_id, time.monotonic())
        train, evaluate = seconds_of(self.folders[run.run_id])
        width = len(str(self.total))
        self.say(
            f"[{self.done:{width}}/{self.total}] {run.run_id:24} trained in "
            f"{train:.0f} s, scored in {evaluate:.0f} s"
        )

    def show(self, running: Sequence[Run], waiting: Sequence[Run]) -> None:
        """Say how far the `running` are and what is left of them and those `waiting`, if it is
        time to."""
        now = time.monotonic()
        names = [run.run_id for run in running]
        steps = {name: last_step(self.folders[name]) for name in names}
        self._estimate.only(names)
        for name in names:
            self._estimate.observe(name, steps[name], now)
        due = now - self._shown >= STATUS_EVERY
        if not running or not (due or self._terminal):
            return
        left = self._estimate.left(names, [run.run_id for run in waiting], now)
        parts = [f"{name} {steps[name]}/{self._works[name].steps}" for name in names]
        line = f"{self.done}/{self.total} done, running {first_of(parts, MOST_NAMED)}"
        if left is not None:
            line += f", about {duration(left)} left"
        if self._terminal:
            self._draw(line, steps, [*running, *waiting])
        if not due:
            return
        self._shown = now
        if left is not None:
            say_left(self._folder, left)
        if not self._terminal:
            self.say(line)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _draw(self, line: str, steps: dict[str, int], left: Sequence[Run]) -> None:
        """The bar, by operations, with a line below it."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        if self._bar is None:
            text: Any = TextColumn("{task.description}", markup=False)
            columns = (BarColumn(24), TaskProgressColumn(), text)
            console = Console(file=self.out, highlight=False)
            self._bar = Progress(*columns, console=console, transient=True, auto_refresh=False)
            whole = sum(work.flops * work.steps for work in self._works.values())
            self._bar.add_task("", total=max(whole, 1.0))
            self._bar.start()
        ahead = sum(
            self._works[run.run_id].flops
            * max(0, self._works[run.run_id].steps - steps.get(run.run_id, 0))
            for run in left
        )
        task = self._bar.tasks[0]
        self._bar.update(task.id, description=line, completed=(task.total or 0.0) - ahead)
        self._bar.refresh()


def seconds_of(folder: Path) -> tuple[float, float]:
    """Seconds that a finished run trained and was scored. Raises `StudyError` for a file that is
    not the run's own."""
    found = seconds_by(folder / DONE)
    if found is None:
        raise StudyError(
            f"{folder / DONE}: is not what a finished run leaves; remove it and the run goes on"
        )
    return found


def duration(seconds: float) -> str:
    """A time as people say it: 45 s, 6 min, 3 h 20 min."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def last_step(folder: Path) -> int:
    """The last training step that the run's metrics file holds; 0 before the first."""
    try:
        with open(folder / CHECKPOINTS / "metrics.csv", "rb") as file:
            header = file.readline().decode()
            file.seek(0, os.SEEK_END)
            # Far more than a row, whose numbers may be longer than their names.
            file.seek(max(len(header), file.tell() - 4096 - 8 * len(header)))
            lines = file.read().decode(errors="replace").splitlines()
        column = next(csv.reader([header])).index("step")
        return int(float(next(csv.reader([lines[-1]]))[column]))
    except (OSError, ValueError, OverflowError, IndexError, StopIteration):
        return 0
