"""Run a study's plan on a Slurm cluster, a job a run, through `submitit`.

The folder of the study must be on a file system that the nodes share. Job numbers are kept in
each run's folder: a study that is started again waits for jobs that still run instead of
submitting them twice, and a job that was preempted is submitted again.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from olmo_mixlaw.atomic import write_text
from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.study.plan import Run
from olmo_mixlaw.study.runner import DONE, Progress, check_run
from olmo_mixlaw.study.settings import SlurmConfig
from olmo_mixlaw.study.worker import main

POLL = 2.0  # seconds between looks at the queue
SETTLE = 10.0  # seconds that a shared file system may take to show a finished job's files
ATTEMPTS = 3  # submissions of one run, for clusters that preempt
JOB = "job.json"


def check_cluster() -> None:
    """Raises `ConfigError` unless jobs can be submitted from this machine."""
    missing = [command for command in ("sbatch", "squeue") if shutil.which(command) is None]
    if missing:
        raise ConfigError(f"slurm: {missing[0]} is not found on this machine")
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise ConfigError(
            "slurm: needs submitit; install olmo-mixlaw with its extra 'slurm'"
        ) from None


def run_all_on_slurm(
    runs: list[Run],
    folders: dict[str, Path],
    evaluation: dict[str, Any],
    workers: int,
    settings: SlurmConfig,
) -> None:
    """Train and score every run that isn't finished, at most `workers` jobs at a time.

    Raises `StudyError` naming the first failed run; jobs that run then are left to finish.
    """
    waiting = [run for run in runs if not (folders[run.run_id] / DONE).is_file()]
    progress = Progress(runs, folders, len(runs) - len(waiting), workers)
    attempts = dict.fromkeys((run.run_id for run in runs), 0)
    running: dict[str, Run] = {}
    gone: dict[str, float] = {}
    while waiting or running:
        while waiting and len(running) < workers:
            run = waiting.pop(0)
            _submit_unless_queued(folders[run.run_id], evaluation, settings)
            attempts[run.run_id] += 1
            running[run.run_id] = run
        time.sleep(POLL)
        queued = queued_jobs()
        for run in list(running.values()):
            folder = folders[run.run_id]
            if (folder / DONE).is_file():
                progress.finished(run)
            elif _job(folder) in queued:
                gone.pop(run.run_id, None)
                continue
            elif time.monotonic() - gone.setdefault(run.run_id, time.monotonic()) < SETTLE:
                continue
            elif (folder / "error.txt").is_file() or attempts[run.run_id] >= ATTEMPTS:
                check_run(folder, None)
            else:
                progress.say(f"{run.run_id}: its job is gone, submitting it again")
                gone.pop(run.run_id)
                waiting.insert(0, run)
            del running[run.run_id]
        progress.show(list(running.values()), waiting)


def queued_jobs() -> set[str]:
    """The numbers of this user's jobs that wait or run."""
    command = ["squeue", "--noheader", "--me", "--format=%A"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ConfigError(f"slurm: squeue failed: {done.stderr.strip().splitlines()[-1:]}")
    return set(done.stdout.split())


def _job(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / JOB).read_text(encoding="utf-8"))["job"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _submit_unless_queued(folder: Path, evaluation: dict[str, Any], settings: SlurmConfig) -> None:
    if _job(folder) in queued_jobs():
        return
    import submitit

    executor = submitit.AutoExecutor(folder=folder / "slurm", cluster="slurm")
    optional = {
        f"slurm_{key}": getattr(settings, key)
        for key in ("partition", "account", "constraint")
        if getattr(settings, key)
    }
    if settings.gpus:
        optional["gpus_per_node"] = settings.gpus
    executor.update_parameters(
        name=folder.name,
        timeout_min=settings.minutes,
        cpus_per_task=settings.cpus,
        mem_gb=settings.memory_gb,
        **optional,
    )
    try:
        job = executor.submit(main, str(folder.resolve()), evaluation)
    except submitit.core.utils.FailedJobError as error:
        raise ConfigError(f"slurm: sbatch refused the job: {str(error).splitlines()[-1]}") from None
    write_text(folder / JOB, json.dumps({"job": job.job_id}) + "\n")
