"""Carry a study's plan out, on this machine or on a cluster, showing progress.

A run that was finished before is skipped, and one that was cut off goes on from its checkpoint. One
that fails is tried again where that may help, and put aside where it may not; the rest goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from olmo_mixlaw.study.claims import Claims
from olmo_mixlaw.study.executor import Ended, Executor
from olmo_mixlaw.study.failures import (
    AGAIN,
    DONE,
    FAILED,
    GOES_ON,
    LOG,
    NO_FAULT,
    Failure,
    judge,
    put_aside,
    put_aside_before,
    take_back,
)
from olmo_mixlaw.study.plan import Run
from olmo_mixlaw.study.progress import Progress, StudyError
from olmo_mixlaw.study.worker import CHECKPOINTS

MOST_LOOKS = 50  # at runs that others have, before what is under way is looked at again
MOST_LOST = 3  # times that a run is submitted again for no fault of its own


def run_all(
    runs: Sequence[Run],
    folders: dict[str, Path],
    executor: Executor,
    *,
    retries: int = 1,
    retry_failed: bool = False,
    finished: Callable[[], object] | None = None,
) -> dict[str, Failure]:
    """Train and score every run that isn't finished; those that failed, by name.

    `folders` gives each run's folder, which holds its `config.yaml`. A run is tried `retries` times
    more where that may help; one that was put aside by an earlier call is left there unless
    `retry_failed`. `finished` is called after runs that finish. Raises `StudyError` for a full
    disk, and whatever the executor raises; runs that are under way then can go on later.
    """
    waiting = [run for run in runs if not (folders[run.run_id] / DONE).is_file()]
    progress = Progress(list(runs), folders, len(runs) - len(waiting), executor.at_once)
    if not waiting:
        progress.say(f"all {len(runs)} runs are finished already")
        return {}
    book = _Book(folders, retries, progress, finished)
    waiting = book.without_put_aside(waiting, retry_failed)
    claims, of_name = Claims(), {run.run_id: run for run in runs}
    running = set(executor.adopt(waiting, lambda name: claims.take(folders[name])))
    waiting = [run for run in waiting if run.run_id not in running]
    try:
        while waiting or running:
            for folder in claims.beat():  # others have taken what this process slept over
                if folder.name in running:
                    executor.leave(folder.name)
                    running.discard(folder.name)
                    waiting.append(of_name[folder.name])
            chosen, waiting = _chosen(waiting, executor.room(), claims, book)
            begun = set(executor.submit(chosen, folders)) if chosen else set()
            running |= begun
            waiting = [run for run in chosen if run.run_id not in begun] + waiting
            time.sleep(executor.pause)
            for ended in executor.poll():
                running.discard(ended.run_id)
                if book.again(of_name[ended.run_id], ended):
                    waiting.append(of_name[ended.run_id])
                else:
                    claims.drop(folders[ended.run_id])
            progress.show([run for run in runs if run.run_id in running], waiting)
    finally:
        executor.close()
        claims.drop_all()
        progress.close()
    return book.failed


def _chosen(
    waiting: list[Run], room: int, claims: Claims, book: _Book
) -> tuple[list[Run], list[Run]]:
    """Runs to start now, which nobody else works on, and those that wait on.

    What others have finished or put aside meanwhile is neither.
    """
    chosen: list[Run] = []
    theirs: list[Run] = []
    for place, run in enumerate(waiting):
        if len(chosen) >= room or len(theirs) >= MOST_LOOKS:
            return chosen, waiting[place:] + theirs
        if not claims.take(book.folder(run)):
            theirs.append(run)
        elif book.is_settled(run):
            claims.drop(book.folder(run))
        else:
            book.open(run)
            chosen.append(run)
    return chosen, theirs


class _Book:
    """What is known of runs that ended without a result."""

    def __init__(
        self,
        folders: dict[str, Path],
        retries: int,
        progress: Progress,
        finished: Callable[[], object] | None,
    ) -> None:
        self.failed: dict[str, Failure] = {}
        self._folders = folders
        self._retries = retries
        self._progress = progress
        self._finished = finished
        self._tries: dict[str, int] = {}
        self._lost: dict[str, int] = {}
        self._reached: dict[str, int] = {}

    def without_put_aside(self, runs: list[Run], retry_failed: bool) -> list[Run]:
        """Those `runs` that are to be tried; the others count as failed."""
        left = []
        for run in runs:
            folder = self._folders[run.run_id]
            if retry_failed:
                (folder / FAILED).unlink(missing_ok=True)
            failure = put_aside_before(folder)
            if failure is None:
                left.append(run)
            else:
                self.failed[run.run_id] = failure
                self._progress.say(f"{run.run_id}: failed before ({failure.reason}), left aside")
        return left

    def folder(self, run: Run) -> Path:
        return self._folders[run.run_id]

    def is_settled(self, run: Run) -> bool:
        """Whether others have finished the run, or have put it aside."""
        failure = put_aside_before(self.folder(run))
        if failure is not None:
            self.failed[run.run_id] = failure
            self._progress.say(f"{run.run_id}: failed elsewhere: {failure.reason}")
            return True
        if (self.folder(run) / DONE).is_file():
            self._is_finished(run)
            return True
        return False

    def open(self, run: Run) -> None:
        """A run begins, or goes on: what was said of earlier ends counts no more."""
        take_back(self.folder(run))
        self._reached.setdefault(run.run_id, newest_step(self.folder(run)))

    def _is_finished(self, run: Run) -> None:
        self._progress.finished(run)
        if self._finished is not None:
            self._finished()

    def again(self, run: Run, ended: Ended) -> bool:
        """Whether the run that ended is to be tried again. One that is given up is put aside.

        Raises `StudyError` where the disk is full: the others would only fail too.
        """
        name, folder = run.run_id, self._folders[run.run_id]
        failure = judge(folder, ended, self._tries.get(name, 0) + 1)
        if failure is None:
            self._is_finished(run)
            return False
        if failure.kind == "disk":
            raise StudyError(
                f"{folder}: {failure.reason}; make room and start the study again: nothing that is "
                "finished is lost"
            )
        if self._counts_out(name, failure.kind, newest_step(folder)):
            put_aside(folder, failure)
            self.failed[name] = failure
            self._progress.say(f"{name}: failed: {failure.reason} (its log: {folder / LOG})")
            return False
        self._progress.say(f"{name}: {failure.reason}; it is started again")
        return True

    def _counts_out(self, name: str, kind: str, step: int) -> bool:
        """Count one more failure of that kind, at that checkpoint; whether it was one too many."""
        further = step > self._reached.get(name, 0)
        self._reached[name] = step
        if kind in GOES_ON and further:
            return False
        if kind in NO_FAULT:
            self._lost[name] = self._lost.get(name, 0) + 1
            return self._lost[name] > MOST_LOST
        self._tries[name] = self._tries.get(name, 0) + 1
        return kind not in AGAIN or self._tries[name] > self._retries


def newest_step(folder: Path) -> int:
    """The step of the newest checkpoint that a run has; 0 where it has none."""
    names = [p.name.removesuffix("-unsharded") for p in (folder / CHECKPOINTS).glob("step*")]
    return max((int(n[4:]) for n in names if n[4:].isdigit()), default=0)
