"""Which executor carries a study's runs out, and what it does in each."""

from __future__ import annotations

from pathlib import Path

from olmo_mixlaw.study.executor import Executor
from olmo_mixlaw.study.local import LocalExecutor
from olmo_mixlaw.study.paces import finished
from olmo_mixlaw.study.plan import Run
from olmo_mixlaw.study.resources import processes_of_node, slots
from olmo_mixlaw.study.scoring import tasks
from olmo_mixlaw.study.settings import StudyConfig
from olmo_mixlaw.study.slurm import SlurmExecutor, check_cluster, script
from olmo_mixlaw.study.trainers import preloaded
from olmo_mixlaw.study.worker import Work


def executor_for(study: StudyConfig, where: str) -> Executor:
    """What carries the study's runs out, as its file (`where`) asks; nothing is started yet.

    Raises `ConfigError` for a cluster that isn't there, and for more than this machine has.
    """
    work = work_of(study)
    if study.slurm is None:
        return LocalExecutor(slots(study, where), work, preloaded(study))
    check_cluster()
    return SlurmExecutor(study, work)


def work_of(study: StudyConfig) -> Work:
    """What is done in every run of the study, and with what means."""
    on_node = processes_of_node(study)
    if study.slurm is not None:
        threads, gpus = max(1, study.slurm.cpus // on_node), study.slurm.gpus
    else:
        threads, gpus = study.local.threads or 1, study.local.gpus or 0
    # A run that was given a GPU must not go on without, a hundred times slower.
    device = "cuda" if gpus and study.training.device == "auto" else study.training.device
    return Work(tasks(study), study.evaluation.truncate, device, threads, on_node)


def rehearse(study: StudyConfig, runs: list[Run], where: str) -> list[str]:
    """What would be started for the runs that aren't finished, in lines; nothing is.

    For a cluster: the script that sbatch would be given, which needs no cluster. Raises
    `ConfigError` for more than this machine has.
    """
    done = finished(runs, Path(study.output))
    left = [run for run in runs if run.run_id not in done]
    if study.slurm is not None and left:
        return script(study, len(left)).splitlines()
    work, lines = work_of(study), []
    for i, slot in enumerate(slots(study, where), 1):
        gpus = "" if slot.gpus is None else f", GPUs {','.join(slot.gpus) or 'none'}"
        cores = f", processors {','.join(map(str, slot.cores))}" if slot.cores else ""
        each = f"{work.processes} processes of " if work.processes > 1 else ""
        lines.append(f"worker {i}: {each}{work.threads} threads{gpus}{cores}")
    return [*lines, f"{len(left)} of {len(runs)} runs would be started"]
