"""Carry runs out on a Slurm cluster: an array of jobs, one a run, through `submitit`.

The study's folder must be on a file system that the nodes share. Which job is which run stands in
`slurm/` of that folder before it is submitted: a study that is started again finds its jobs in the
queue and waits for them. A job that is preempted or whose node is lost goes back into the queue by
itself and goes on from its checkpoint.
"""

from __future__ import annotations

import io
import json
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from olmo_mixlaw.atomic import write_text
from olmo_mixlaw.errors import ConfigError, MixlawError, last_line
from olmo_mixlaw.study.executor import Ended
from olmo_mixlaw.study.failures import DONE
from olmo_mixlaw.study.places import run_folder
from olmo_mixlaw.study.plan import Run
from olmo_mixlaw.study.settings import SlurmConfig, StudyConfig
from olmo_mixlaw.study.worker import Work, as_job

FOLDER = "slurm"
JOB = "job.json"
SETTLE = 10.0  # seconds that a shared file system may take to show a finished job's files
AWAY = 600.0  # seconds that the controller may be away before the study gives up
MOST_OF_ARRAY = 1000  # jobs; Slurm's own MaxArraySize is 1001
WARNING = 90  # seconds before its end at which a job is told, to save a checkpoint
# States that aren't final, by `man squeue`; a job in any other one is over.
ACTIVE = {
    *("PENDING", "RUNNING", "SUSPENDED", "CONFIGURING", "COMPLETING", "REQUEUED", "REQUEUE_FED"),
    *("REQUEUE_HOLD", "RESIZING", "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "STOPPED"),
}
# What the other states mean for a run that left no result.
STATES = {
    "TIMEOUT": "timeout",
    "DEADLINE": "timeout",
    "OUT_OF_MEMORY": "memory",
    "NODE_FAIL": "node",
    "BOOT_FAIL": "node",
    "PREEMPTED": "preempted",
    "CANCELLED": "killed",
    "REVOKED": "lost",
    "FAILED": "crash",
    "COMPLETED": "crash",
}
# Options of sbatch that have a key of their own, or that the study itself depends on.
OWN = {
    "time": "slurm.minutes",
    "nodes": "slurm.nodes",
    "cpus-per-task": "slurm.cpus",
    "gpus-per-node": "slurm.gpus",
    "mem": "slurm.memory_gb",
    **{key: f"slurm.{key}" for key in ("partition", "account", "constraint", "qos")},
    **dict.fromkeys(
        (
            "array",
            "job-name",
            "output",
            "error",
            "open-mode",
            "signal",
            "requeue",
            "ntasks-per-node",
        ),
        "",
    ),
}
_OPTION = re.compile(r"[a-z][a-z0-9-]*")


def check_cluster() -> None:
    """Raises `ConfigError` unless jobs can be submitted from this machine."""
    missing = [c for c in ("sbatch", "squeue", "srun") if shutil.which(c) is None]
    if missing:
        raise ConfigError(f"slurm: {missing[0]} is not found on this machine")
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise ConfigError(
            "slurm: needs submitit; install olmo-mixlaw with its extra 'slurm'"
        ) from None


def check_options(study: StudyConfig, where: str) -> None:
    """Raises `ConfigError` for an option of sbatch that is none, or isn't the user's to set."""
    for option in study.slurm.sbatch if study.slurm else ():
        place = f"{where}: slurm.sbatch.{option}"
        if not _OPTION.fullmatch(option):
            raise ConfigError(f"{place}: write an option as sbatch does, without its dashes: qos")
        if option in OWN:
            instead = f"use {OWN[option]}" if OWN[option] else "is the study's own"
            raise ConfigError(f"{place}: {instead}")


class SlurmExecutor:
    """Submits runs as arrays, at most `at_once` of whose jobs run side by side."""

    pause = 2.0

    def __init__(self, study: StudyConfig, work: Work, say: Callable[[str], None] = print) -> None:
        assert study.slurm is not None
        self.at_once = study.workers
        self._settings = study.slurm
        self._work = work
        self._say = say
        self._folder = Path(study.output) / FOLDER
        self._name = re.sub(r"[^\w.-]+", "_", study.name)
        self._most = MOST_OF_ARRAY
        self._jobs: dict[str, str] = {}  # run -> its job, of those under way
        self._gone: dict[str, float] = {}  # run -> when its job was first seen to be over
        self._away: float | None = None  # since when Slurm doesn't answer

    def adopt(self, runs: Sequence[Run], is_ours: Callable[[str], bool]) -> list[str]:
        wanted = {run.run_id for run in runs}
        for job, (name, state) in queue().items():
            if state not in ACTIVE:
                continue
            of_array = _runs_of(self._folder / f"{name.rpartition('-')[2]}.json")
            place = int(job.partition("_")[2] or 0)
            if place < len(of_array) and of_array[place] in wanted and is_ours(of_array[place]):
                self._jobs[of_array[place]] = job
        return list(self._jobs)

    def room(self) -> int:
        # An array keeps to its own limit; runs beside it may only fill what it leaves.
        return self._most if not self._jobs else self.at_once - len(self._jobs)

    def submit(self, runs: Sequence[Run], folders: dict[str, Path]) -> list[str]:
        runs = runs[: self._most]
        try:
            jobs = self._submit([run.run_id for run in runs], folders)
        except _RejectedError as error:
            if self._jobs:  # a limit on jobs passes when some have ended
                self._most = self.at_once
                return []
            if len(runs) > self.at_once:
                self._most = self.at_once
                return self.submit(runs, folders)
            raise ConfigError(
                f"slurm: sbatch refused the job: {error}; what is finished is kept"
            ) from None
        for run, job in zip(runs, jobs, strict=True):
            self._jobs[run.run_id] = job
            write_text(folders[run.run_id] / JOB, json.dumps({"job": job}) + "\n")
        array = jobs[0].partition("_")[0]
        self._say(
            f"submitted {len(jobs)} {'runs' if len(jobs) > 1 else 'run'} as job {array}; logs: "
            f"log.txt in their folders, Slurm's own in {self._folder}/{array}*"
        )
        return [run.run_id for run in runs]

    def poll(self) -> list[Ended]:
        try:
            states = {job: state for job, (_, state) in queue().items()}
            self._away = None
        except ConfigError:
            now = time.monotonic()
            self._away = now if self._away is None else self._away
            if now - self._away > AWAY:
                raise
            return []
        ended = []
        for name, job in list(self._jobs.items()):
            state = states.get(job)
            done = (run_folder(self._folder.parent, name) / DONE).is_file()
            if state in ACTIVE and not done:
                self._gone.pop(name, None)
                continue
            now = time.monotonic()
            if not done and now - self._gone.setdefault(name, now) < SETTLE:
                continue
            del self._jobs[name]
            self._gone.pop(name, None)
            kind = STATES.get(state or "", "lost")
            ended.append(Ended(name, state=kind, note=f"job {job}: {state or 'not in the queue'}"))
        return ended

    def leave(self, run_id: str) -> None:
        self._jobs.pop(run_id, None)
        self._gone.pop(run_id, None)

    def close(self) -> None:
        """Jobs outlive the study: it finds them again."""

    def _submit(self, names: list[str], folders: dict[str, Path]) -> list[str]:
        """Submit an array; the numbers of its jobs. What it holds is kept first."""
        import submitit

        token = secrets.token_hex(4)
        write_text(self._folder / f"{token}.json", json.dumps({"runs": names}) + "\n")
        executor = _executor(self._folder, self._settings, f"{self._name}-{token}", self.at_once)
        given = [str(folders[name].resolve()) for name in names]
        try:
            with redirect_stderr(io.StringIO()):  # what sbatch says is in the error too
                jobs = executor.map_array(as_job, given, [self._work] * len(names))
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as e:
            (self._folder / f"{token}.json").unlink()
            raise _RejectedError(last_line(str(e)) or "it didn't say why") from None
        return [str(job.job_id) for job in jobs]


class _RejectedError(MixlawError):
    """Slurm didn't take a job."""


def script(study: StudyConfig, n_runs: int) -> str:
    """The script that would be given to sbatch for `n_runs` runs; nothing is submitted.

    Needs submitit and no Slurm.
    """
    assert study.slurm is not None
    folder = Path(study.output) / FOLDER
    executor = _executor(folder, study.slurm, study.name, study.workers)
    if n_runs > 1:
        executor.parameters["map_count"] = min(n_runs, MOST_OF_ARRAY)
    return str(executor._make_submission_file_text(executor._submitit_command_str, "")) + "\n"


def _executor(folder: Path, settings: SlurmConfig, name: str, at_once: int) -> Any:
    """Submitit's own executor with what a run asks of the cluster."""
    from submitit.slurm.slurm import SlurmExecutor as OfSubmitit
    from submitit.slurm.slurm import _convert_mem

    class Anywhere(OfSubmitit):
        """Can write its script where there is no Slurm; sbatch is looked for before."""

        @classmethod
        def affinity(cls) -> int:
            return 2

    executor = Anywhere(folder=folder)
    optional = {
        key: value
        for key in ("partition", "account", "constraint", "qos", "setup")
        if (value := getattr(settings, key))
    }
    if settings.gpus:
        optional["gpus_per_node"] = settings.gpus
    # Slurm looks at its clock once a minute, so a short job is told late or never.
    warning = min(WARNING, 60 * settings.minutes // 4)
    executor.update_parameters(
        job_name=name,
        time=settings.minutes,
        nodes=settings.nodes,
        ntasks_per_node=1,
        cpus_per_task=settings.cpus,
        mem=_convert_mem(settings.memory_gb),
        signal_delay_s=warning,
        array_parallelism=at_once,
        additional_parameters={"requeue": True, **settings.sbatch},
        **optional,
    )
    return executor


def queue() -> dict[str, tuple[str, str]]:
    """Names and states of this user's jobs, by number, also of those that ended just now.

    Raises `ConfigError` where Slurm doesn't answer.
    """
    command = ["squeue", "--noheader", "--me", "--array", "--states=all", "--format=%i|%j|%T"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        why = last_line(done.stderr) or "it didn't say why"
        raise ConfigError(f"slurm: squeue failed: {why}")
    rows = (line.strip().split("|") for line in done.stdout.splitlines() if line.strip())
    return {row[0]: ("|".join(row[1:-1]), row[-1]) for row in rows if len(row) > 2}


def _runs_of(path: Path) -> list[str]:
    """The runs of an array, in the order of its jobs; none where it is not this study's."""
    try:
        return [str(name) for name in json.loads(path.read_text(encoding="utf-8"))["runs"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
