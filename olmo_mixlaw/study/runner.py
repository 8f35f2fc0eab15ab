"""Run a study's plan side by side on this machine, showing progress.

Torch and the trainer are imported once, in a server process from which every run is forked; a run
that was finished before is skipped, one that was cut off goes on from its checkpoint.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
import sys
import time
from multiprocessing import forkserver, resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TextIO

from olmo_mixlaw.errors import MixlawError
from olmo_mixlaw.study.plan import Run
from olmo_mixlaw.study.worker import CHECKPOINTS, DONE, LOG, main

POLL = 0.5  # seconds between looks at the workers
STATUS_EVERY = 20.0  # seconds between status lines where the output is no terminal


class StudyError(MixlawError):
    """A run of the study failed; what the others did is kept."""


def run_all(
    runs: list[Run], folders: dict[str, Path], evaluation: dict, workers: int, preloaded: list[str]
) -> None:
    """Train and score every run that isn't finished, `workers` at a time.

    `folders` gives each run's folder, which holds its `config.yaml`; `preloaded` are the modules
    that every run imports. Raises `StudyError` naming
    the first failed run and its log; runs that are under way then are ended and can go on later.
    """
    waiting = [run for run in runs if not (folders[run.run_id] / DONE).is_file()]
    progress = Progress(runs, folders, len(runs) - len(waiting), workers)
    if not waiting:
        progress.say(f"all {len(runs)} runs are finished already")
        return
    os.environ["OMP_NUM_THREADS"] = "1"  # before the server imports torch
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(preloaded)
    _start_server()
    running: dict[str, tuple[Run, BaseProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                run = waiting.pop(0)
                folder = folders[run.run_id]
                process = context.Process(target=main, args=(str(folder), evaluation))
                process.start()
                running[run.run_id] = (run, process)
            time.sleep(POLL)
            for run, ended in list(running.values()):
                if ended.is_alive():
                    continue
                ended.join()
                del running[run.run_id]
                check_run(folders[run.run_id], ended.exitcode)
                progress.finished(run)
            progress.show([run for run, _ in running.values()], waiting)
    finally:
        for _, stopped in running.values():
            stopped.terminate()
        for _, stopped in running.values():
            stopped.join(10)


def _start_server() -> None:
    """Start the process that runs are forked from, deaf to the interrupt key.

    The study's own process hears it and ends them all; they would each print where they were.
    """
    resource_tracker.ensure_running()  # begun later, it would unblock the signal again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def check_run(folder: Path, exitcode: int | None) -> None:
    """Raises `StudyError`, with what the run left in `error.txt`, unless it is finished."""
    if (folder / DONE).is_file():
        return
    error = folder / "error.txt"
    if error.is_file():
        reason = error.read_text(encoding="utf-8").strip().splitlines()[-1]
        error.unlink()
    else:
        reason = "it ended without a result" + (f", code {exitcode}" if exitcode else "")
    raise StudyError(f"run {folder.name}: {reason} (its log: {folder / LOG})")


def seconds_of(folder: Path) -> dict[str, float]:
    """How long a finished run took. Raises `StudyError` for a file that is not the run's own."""
    try:
        said = json.loads((folder / DONE).read_text(encoding="utf-8"))["seconds"]
        return {key: float(said[key]) for key in ("train", "evaluate")}
    except (OSError, ValueError, KeyError, TypeError):
        raise StudyError(
            f"{folder / DONE}: is not what a finished run leaves; remove it and the run goes on"
        ) from None


class Progress:
    """Says what is finished, what runs and about how long the rest will take.

    On a terminal the status line is rewritten in place; elsewhere it is printed now and then.
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
        self.workers = workers
        self._began: dict[str, tuple[float, int]] = {}
        self._pace: dict[str, float] = {}  # size -> seconds a step, as last seen
        self._shown = 0.0
        self._width = 0
        if 0 < done < self.total:
            self.say(f"{done} of {self.total} runs are finished already")

    def say(self, line: str) -> None:
        if self._width:
            self.out.write("\r" + " " * self._width + "\r")
            self._width = 0
        print(line, file=self.out, flush=True)

    def finished(self, run: Run) -> None:
        self.done += 1
        seconds = seconds_of(self.folders[run.run_id])
        width = len(str(self.total))
        self.say(
            f"[{self.done:{width}}/{self.total}] {run.run_id:24} trained in "
            f"{seconds['train']:.0f} s, scored in {seconds['evaluate']:.0f} s"
        )

    def show(self, running: list[Run], waiting: list[Run]) -> None:
        now = time.monotonic()
        steps = {run.run_id: last_step(self.folders[run.run_id]) for run in running}
        for run in running:
            began, first = self._began.setdefault(run.run_id, (now, steps[run.run_id]))
            if steps[run.run_id] > first:
                self._pace[run.rung.name] = (now - began) / (steps[run.run_id] - first)
        terminal = self.out.isatty()
        if not running or (not terminal and now - self._shown < STATUS_EVERY):
            return
        self._shown = now
        parts = [f"{run.run_id} {steps[run.run_id]}/{run.steps}" for run in running]
        line = f"{self.done}/{self.total} done, running {', '.join(parts)}"
        if self._pace:
            # A size that has not run yet counts as the slowest seen: dearest runs come first.
            slowest = max(self._pace.values())
            left = sum(
                (run.steps - steps.get(run.run_id, 0)) * self._pace.get(run.rung.name, slowest)
                for run in [*running, *waiting]
            )
            line += f", at most {duration(left / self.workers)} left"
        if terminal:
            self.out.write("\r" + line.ljust(self._width))
            self.out.flush()
            self._width = len(line)
        else:
            self.say(line)


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
