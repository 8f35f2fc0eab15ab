"""What a run is given: precision, micro-batches, processes, GPUs and threads.

What a study file asks for is checked against itself; only `slots` looks at this machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from olmo_mixlaw.errors import ConfigError, unknown_name
from olmo_mixlaw.training_core.config import TRAINER as CORE

if TYPE_CHECKING:
    from olmo_mixlaw.models.ladder import Rung
    from olmo_mixlaw.study.plan import Run
    from olmo_mixlaw.study.settings import StudyConfig

# What each trainer calls a precision.
PRECISIONS = {"fp32": {"olmo": "fp32", CORE: "fp32"}, "bf16": {"olmo": "amp_bf16", CORE: "bf16"}}
DEVICES = ("auto", "cpu", "cuda")
_VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Slot:
    """A place for one run on this machine: GPUs, as CUDA names them, and processors.

    None of `gpus`: those that the study's own process sees; none of `cores`: any.
    """

    gpus: tuple[str, ...] | None = None
    cores: tuple[int, ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        return {} if self.gpus is None else {_VISIBLE: ",".join(self.gpus)}


def precision_for(study: StudyConfig) -> str:
    """The study's precision in the words of its trainer, which are accepted too."""
    return PRECISIONS[study.training.precision.removeprefix("amp_")][study.trainer]


def micro_batch(study: StudyConfig, rung: Rung) -> int:
    """Sequences that one process handles at a time: what is asked for, or its whole batch."""
    asked = study.training.micro_batch
    return rung.batch_sequences if asked is None else min(asked, rung.batch_sequences)


def core_micro_batch(study: StudyConfig, rung: Rung) -> dict[str, int]:
    """The same in OLMo-core's words and tokens; nothing where nothing is asked for."""
    if study.training.micro_batch is None:
        return {}
    share = rung.batch_sequences // processes(study)
    return {"rank_microbatch_size": min(study.training.micro_batch, share) * rung.context}


def processes_of_node(study: StudyConfig) -> int:
    """Processes that share a run on one node: one a GPU."""
    return max((study.slurm.gpus if study.slurm else study.local.gpus) or 1, 1)


def processes(study: StudyConfig) -> int:
    """Processes that share a run."""
    return processes_of_node(study) * (study.slurm.nodes if study.slurm else 1)


def check_resources(study: StudyConfig, runs: list[Run], where: str) -> None:
    """Raises `ConfigError` for what no machine could do."""
    training, name = study.training, study.training.precision.removeprefix("amp_")
    known = sorted(p for p, of in PRECISIONS.items() if study.trainer in of)
    if name not in known:
        raise unknown_name("precision", training.precision, known, f"{where}: training.precision")
    if training.device not in DEVICES:
        raise unknown_name("device", training.device, DEVICES, f"{where}: training.device")
    slurm = study.slurm
    gpus = ("slurm.gpus", slurm.gpus) if slurm else ("local.gpus", study.local.gpus)
    least = {
        "training.micro_batch": (training.micro_batch, 1),
        "local.gpus": (study.local.gpus, 0),
        "local.threads": (study.local.threads, 1),
        "slurm.nodes": (slurm.nodes if slurm else None, 1),
        "retries": (study.retries, 0),
    }
    for key, (value, bound) in least.items():
        if value is not None and value < bound:
            raise ConfigError(f"{where}: {key}: {value}: at least {bound}")
    if training.device == "cpu" and gpus[1]:
        raise ConfigError(
            f"{where}: training.device: cpu: would leave the GPUs of {gpus[0]} ({gpus[1]}) unused; "
            "give 0 of them, or device: cuda"
        )
    no_gpu = training.device == "cpu" or gpus[1] == 0
    if name != "fp32" and study.trainer != CORE and no_gpu:
        key = "training.device: cpu" if training.device == "cpu" else f"{gpus[0]}: 0"
        raise ConfigError(
            f"{where}: training.precision: {training.precision}: needs a GPU, and there is none by "
            f"{key}; set fp32"
        )
    on = f" on {slurm.nodes} nodes" if slurm is not None and slurm.nodes > 1 else ""
    _check_batches(study, runs, where, f"{gpus[0]}: {gpus[1]}{on}")


def _check_batches(study: StudyConfig, runs: list[Run], where: str, gpus: str) -> None:
    """Batches can be shared by a run's processes, and for OLMo-core be cut evenly."""
    shared, micro = processes(study), study.training.micro_batch
    for rung in {run.rung.name: run.rung for run in runs}.values():
        if rung.batch_sequences % shared:
            raise ConfigError(
                f"{where}: {gpus}: a batch of {rung.name} is {rung.batch_sequences} sequences, "
                f"which {shared} processes can't share evenly"
            )
        share = rung.batch_sequences // shared
        if micro is not None and study.trainer == CORE and share % min(micro, share):
            raise ConfigError(
                f"{where}: training.micro_batch: {micro}: doesn't divide the {share} sequences "
                f"that a process has of a batch of {rung.name}"
            )


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them.

    That variable is believed where it is set; else NVIDIA's driver is asked, and PyTorch isn't
    loaded.
    """
    named = os.environ.get(_VISIBLE)
    if named is not None:
        found = [part.strip() for part in named.split(",")]
        # CUDA reads the list up to the first that is none.
        end = next((i for i, part in enumerate(found) if part in ("", "-1")), len(found))
        return tuple(found[:end])
    if (command := shutil.which("nvidia-smi")) is None:
        return ()
    said = subprocess.run([command, "--list-gpus"], capture_output=True, text=True)
    lines = [line for line in said.stdout.splitlines() if line.startswith("GPU ")]
    return tuple(str(i) for i in range(len(lines))) if said.returncode == 0 else ()


def slots(study: StudyConfig, where: str) -> list[Slot]:
    """A slot for each of the study's workers on this machine.

    GPUs that are asked for (`local.gpus`) are a worker's own. Where nothing is said of them, each
    worker has one of those there are, in turn. Raises `ConfigError` for more than there are.
    """
    workers, gpus = study.workers, visible_gpus() if study.training.device != "cpu" else ()
    cores = _cores(study, where)
    wanted = study.local.gpus
    if study.training.device == "cuda" and not gpus:
        raise ConfigError(f"{where}: training.device: cuda: no GPU is found on this machine")
    if study.training.precision != "fp32" and study.trainer != CORE and not gpus:
        raise ConfigError(
            f"{where}: training.precision: {study.training.precision}: needs a GPU, and none is "
            "found on this machine; set fp32"
        )
    if study.training.device == "cpu" or wanted == 0:
        return [Slot((), own) for own in cores]
    if wanted is None:
        return [Slot((gpus[i % len(gpus)],) if gpus else None, cores[i]) for i in range(workers)]
    if workers * wanted > len(gpus):
        most = len(gpus) // wanted
        advice = f"set workers: {most}" if most else "lower local.gpus"
        raise ConfigError(
            f"{where}: local.gpus: {wanted} for each of {workers} workers: this machine has "
            f"{len(gpus)} GPUs{_as_set()}; {advice}"
        )
    return [Slot(gpus[i * wanted : (i + 1) * wanted], cores[i]) for i in range(workers)]


def _as_set() -> str:
    return f" (CUDA_VISIBLE_DEVICES is {os.environ[_VISIBLE]!r})" if _VISIBLE in os.environ else ""


def _cores(study: StudyConfig, where: str) -> list[tuple[int, ...]]:
    """Each worker's own processors where threads are asked for; any of them otherwise."""
    threads = study.local.threads
    if threads is None or not hasattr(os, "sched_getaffinity"):
        return [()] * study.workers
    each, there = threads * processes_of_node(study), sorted(os.sched_getaffinity(0))
    if each * study.workers > len(there):
        most = len(there) // each
        advice = f"set workers: {most}" if most else "lower local.threads"
        raise ConfigError(
            f"{where}: local.threads: {threads} for each of {study.workers} workers"
            f"{f' of {each // threads} processes' if each > threads else ''}: this machine has "
            f"{len(there)} processors; {advice}"
        )
    return [tuple(there[i * each : (i + 1) * each]) for i in range(study.workers)]
