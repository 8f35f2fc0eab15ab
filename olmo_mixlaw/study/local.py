"""Carry runs out on this machine, each worker in a slot of its own.

Runs without a GPU are forked from a server process that has imported torch and the trainer once.
CUDA doesn't survive a fork, so a run on GPUs is a process of its own from the start, and one that
several GPUs share begins with torchrun.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Protocol

from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.study.executor import Ended
from olmo_mixlaw.study.failures import LOG
from olmo_mixlaw.study.plan import Run
from olmo_mixlaw.study.resources import Slot
from olmo_mixlaw.study.worker import Work, arguments, main

GRACE = 10.0  # seconds in which a run that is told to stop can save a checkpoint


class _Process(Protocol):
    """A run's process, forked or begun."""

    @property
    def code(self) -> int | None: ...
    def terminate(self) -> None: ...
    def end(self) -> None: ...


class LocalExecutor:
    """One run a slot; `preloaded` are the modules that every run imports."""

    pause = 0.5

    def __init__(self, slots: Sequence[Slot], work: Work, preloaded: Sequence[str]) -> None:
        self.at_once = len(slots)
        self._free = list(slots)
        self._work = work
        self._preloaded = list(preloaded)
        self._running: dict[str, tuple[_Process, Slot]] = {}

    def adopt(self, runs: Sequence[Run], is_ours: Callable[[str], bool]) -> list[str]:
        return []  # runs here end with the study that started them

    def room(self) -> int:
        return len(self._free)

    def submit(self, runs: Sequence[Run], folders: dict[str, Path]) -> list[str]:
        begun = []
        for run in runs[: len(self._free)]:
            slot = self._free.pop(0)
            begin = _Begun if slot.gpus else self._forked
            try:
                self._running[run.run_id] = (begin(folders[run.run_id], self._work, slot), slot)
            except OSError as error:
                self._free.append(slot)
                if self._running:
                    break  # there will be room again
                raise ConfigError(f"no process can be started here: {error.strerror}") from None
            begun.append(run.run_id)
        return begun

    def poll(self) -> list[Ended]:
        ended = []
        for name, (process, slot) in list(self._running.items()):
            if (code := process.code) is not None:
                del self._running[name]
                self._free.append(slot)
                ended.append(Ended(name, code))
        return ended

    def leave(self, run_id: str) -> None:
        process, slot = self._running.pop(run_id)
        process.terminate()
        process.end()
        self._free.append(slot)

    def close(self) -> None:
        running = [process for process, _ in self._running.values()]
        for process in running:
            process.terminate()
        for process in running:
            process.end()

    def _forked(self, folder: Path, work: Work, slot: Slot) -> _Process:
        os.environ["OMP_NUM_THREADS"] = str(work.threads)  # before the server imports torch
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(self._preloaded)
        _start_server()
        return _Forked(context, folder, work, slot)


class _Forked:
    """A run forked from the server."""

    def __init__(
        self,
        context: multiprocessing.context.ForkServerContext,
        folder: Path,
        work: Work,
        slot: Slot,
    ) -> None:
        given = (str(folder), work, slot.environment, slot.cores)
        self._process = context.Process(target=main, args=given)
        self._process.start()

    @property
    def code(self) -> int | None:
        if self._process.is_alive():
            return None
        self._process.join()
        return self._process.exitcode

    def terminate(self) -> None:
        self._process.terminate()

    def end(self) -> None:
        self._process.join(GRACE)


class _Begun:
    """A run begun as a program of its own, in a group so that its parts can be ended together."""

    def __init__(self, folder: Path, work: Work, slot: Slot) -> None:
        command = [sys.executable, "-m", "olmo_mixlaw.study.worker"]
        environment = {**os.environ, **slot.environment, "OMP_NUM_THREADS": str(work.threads)}
        given = arguments(folder, work, slot.cores, parent=os.getpid())
        with open(folder / LOG, "ab") as log:
            self._process = subprocess.Popen(
                [*command, *given], env=environment, stdout=log, stderr=log, process_group=0
            )

    @property
    def code(self) -> int | None:
        return self._process.poll()

    def terminate(self) -> None:
        self._process.terminate()

    def end(self) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


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
