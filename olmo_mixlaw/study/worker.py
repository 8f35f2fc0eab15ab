"""One run of a study, from configuration to scores, in a process of its own.

Every step leaves its result on disk under a final name, so that a run that was killed goes
on from its last checkpoint, and one that is finished is never done again. Where several
processes share a run (torchrun), all train it and the first scores it.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from olmo_mixlaw.atomic import open_lock, write_text
from olmo_mixlaw.errors import ConfigError, MixlawError
from olmo_mixlaw.process import is_first
from olmo_mixlaw.study.failures import DONE, ERROR, LOG, BusyError, kind_of, leave_word

CHECKPOINTS = "checkpoints"
LOCK_WAIT = 30.0  # seconds that a run waits for an orphan of a killed study to end
_PR_SET_PDEATHSIG = 1  # of prctl, in Linux' sys/prctl.h
PORTS = range(20_000, 40_000)  # of which a job's number picks the one where its processes meet


@dataclass(frozen=True)
class Work:
    """What is done in every run of a study: what it is scored on, and with what means."""

    tasks: Sequence[Any]
    truncate: bool = False
    device: str = "auto"
    """cpu: GPUs are left alone; cuda: there must be one; auto: one if there is one."""
    threads: int = 1
    """Of each process."""
    processes: int = 1
    """That share a run on one node; more than one are started by torchrun."""


def main(
    folder: str, work: Work, environment: Mapping[str, str] | None = None, cores: Sequence[int] = ()
) -> None:
    """Train and score the run in `folder`; what is printed goes to its log.

    `environment` and `cores` are this process's own: GPUs that it sees, processors it runs on. A
    failure is left in `error.json` and as exit code 1.
    """
    path = Path(folder)
    _die_with_study()
    os.environ.update(environment or {})
    if cores:
        os.sched_setaffinity(0, cores)
    _log_to(path / LOG)
    try:
        with _locked(path / ".lock") if is_first() else nullcontext():
            if is_first():
                with suppress(FileNotFoundError):
                    (path / ERROR).unlink()
            execute(path, work)
    except Exception as error:
        kind = _ended_by or kind_of(error)
        plain = isinstance(error, MixlawError)
        leave_word(path, kind, str(error) if plain else traceback.format_exc())
        sys.exit(1)


def execute(folder: Path, work: Work) -> None:
    """Train `folder/config.yaml` and score the result into `folder/eval`."""
    if work.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ["OMP_NUM_THREADS"] = str(work.threads)
    import torch

    from olmo_mixlaw.evaluation import evaluate
    from olmo_mixlaw.study.trainers import train_run

    torch.set_num_threads(work.threads)
    if work.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("no GPU is found here that PyTorch can use, and the study asks for one")
    started = time.monotonic()
    checkpoint, tokenizer = train_run(folder / "config.yaml")
    if not is_first():
        return
    trained = time.monotonic()
    evaluate(checkpoint, work.tasks, folder / "eval", truncate=work.truncate, tokenizer=tokenizer)
    seconds = {"train": trained - started, "evaluate": time.monotonic() - trained}
    write_text(folder / DONE, json.dumps({"seconds": seconds}, indent=2) + "\n")


def arguments(folder: Path, work: Work, cores: Sequence[int] = (), parent: int = 0) -> list[str]:
    """The arguments of `python -m olmo_mixlaw.study.worker`, which does what `main` does.

    The process ends with its `parent`, where that is given.
    """
    return [str(folder), json.dumps({"work": asdict(work), "cores": list(cores), "parent": parent})]


def torchrun(processes: int, *meeting: str) -> list[str]:
    """The beginning of a command by which `processes` of this node share a run."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    return [*command, *(meeting or ("--standalone",)), "-m", "olmo_mixlaw.study.worker"]


def started(folder: str, given: str) -> None:
    """Do what `arguments` says; the first of several processes starts the others."""
    said = json.loads(given)
    work, cores = Work(**said["work"]), said["cores"]
    under_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    if said["parent"]:
        _die_with(said["parent"])
    if work.processes > 1 and not under_torchrun:
        if cores:
            os.sched_setaffinity(0, cores)
        _log_to(Path(folder) / LOG)
        command = [*torchrun(work.processes), *arguments(Path(folder), work)]
        os.execv(command[0], command)
    main(folder, work, cores=cores)


def as_job(folder: str, work: Work) -> None:
    """The run in `folder` as a job of Slurm, which calls this once on every node.

    Slurm announces the end of the job's time with SIGUSR2: the trainer is told to stop, which it
    does after a checkpoint.
    """
    import submitit

    here = submitit.JobEnvironment()
    if here.num_nodes * work.processes == 1:
        signal.signal(signal.SIGUSR2, _time_is_up)
        main(folder, work)
        return
    meeting = [
        f"--nnodes={here.num_nodes}",
        f"--node-rank={here.node}",
        f"--master-addr={here.hostnames[0]}",
        f"--master-port={PORTS[int(here.raw_job_id) % len(PORTS)]}",
    ]
    command = [*torchrun(work.processes, *meeting), *arguments(Path(folder), work)]
    with open(Path(folder) / LOG, "ab") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log)

    def pass_on(number: int, _: FrameType | None) -> None:
        child.terminate()

    for name in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(name, pass_on)
    sys.exit(child.wait())


_ended_by = ""  # why a signal stopped this process, where that is known


def _time_is_up(number: int, _: FrameType | None) -> None:
    global _ended_by
    _ended_by = "timeout"
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold `path` for this process; waits for the orphan of a killed study to let go."""
    with os.fdopen(open_lock(path), "w") as file:
        deadline = time.monotonic() + LOCK_WAIT
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise BusyError(f"{path.parent}: another process works here") from None
                time.sleep(0.2)
        yield


def _die_with_study() -> None:
    """End this process as soon as the study's is gone, however that ended.

    The study is not the parent of this process: the fork server is, and it lives on as long as
    a process that it forked. What tells is the pipe that the study's process holds open.
    """
    study = multiprocessing.parent_process()
    if study is None:  # a job of a cluster, which outlives the study
        return

    def watch() -> None:
        study.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _die_with(parent: int) -> None:
    """Let Linux tell this process to stop once `parent` is gone; also after an exec."""
    with suppress(OSError, AttributeError):  # another system
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it is gone already
        sys.exit(1)


def _log_to(path: Path) -> None:
    """Send standard output and error of this process, C code included, to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


if __name__ == "__main__":
    started(*sys.argv[1:])
