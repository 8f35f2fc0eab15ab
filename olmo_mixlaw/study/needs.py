"""Whether a study's runs fit: their checkpoints on the disk, its models in memory."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.study.paces import finished
from olmo_mixlaw.study.plan import Run
from olmo_mixlaw.study.resources import visible_gpus
from olmo_mixlaw.study.settings import StudyConfig

# A checkpoint holds weights and Adam's two moments in 32 bits; while one is written, the one before
# it is still there.
CHECKPOINT_BYTES = 12
# Of the free disk, beyond which it is said how much that is.
MUCH = 0.8


@dataclass(frozen=True)
class Needs:
    """Bytes: what the runs leave on the disk at least, what is free there, and what the models of
    all workers hold in memory at least (None where a GPU's or a node's memory holds them)."""

    disk: int
    free: int
    memory: int | None
    installed: int | None


def needs_of(study: StudyConfig, runs: list[Run]) -> Needs:
    """What the study needs, and what there is of it."""
    output = Path(study.output)
    done = finished(runs, output)
    rungs = {run.rung.name: run.rung for run in runs}
    counts = Counter(run.rung.name for run in runs if run.run_id not in done)
    disk = sum(CHECKPOINT_BYTES * rungs[name].n_total * n for name, n in counts.items())
    # As many of the largest as there are workers, whose earlier checkpoint is still there.
    largest = sorted(counts.elements(), key=lambda name: -rungs[name].n_total)[: study.workers]
    disk += sum(CHECKPOINT_BYTES * rungs[name].n_total for name in largest)
    held = sum(rungs[name].training_bytes for name in largest)
    here = study.slurm is None and (study.training.device == "cpu" or not visible_gpus())
    return Needs(disk, shutil.disk_usage(_there(output)).free, held if here else None, _memory())


def check_needs(study: StudyConfig, runs: list[Run], where: str) -> list[str]:
    """What is nearly too much, in words. Raises `ConfigError` for what can't fit."""
    needs, notes = needs_of(study, runs), []
    if needs.disk > needs.free:
        raise ConfigError(
            f"{where}: output: {study.output}: the runs' checkpoints take {_gb(needs.disk)}, and "
            f"{_gb(needs.free)} are free there; give another folder, or make room"
        )
    if needs.disk > MUCH * needs.free:
        notes.append(
            f"the runs' checkpoints take {_gb(needs.disk)} of the {_gb(needs.free)} that are free"
        )
    if needs.memory is not None and needs.installed and needs.memory > needs.installed:
        raise ConfigError(
            f"{where}: workers: {study.workers}: weights and optimizers of the largest models side "
            f"by side take {_gb(needs.memory)}, and this machine has {_gb(needs.installed)}; set "
            "fewer workers or smaller sizes"
        )
    cluster = study.slurm
    rungs = {run.rung.name: run.rung for run in runs}
    largest = max(rungs.values(), key=lambda rung: rung.training_bytes)
    if cluster and not cluster.gpus and largest.training_bytes > cluster.memory_gb * 1e9:
        raise ConfigError(
            f"{where}: slurm.memory_gb: {cluster.memory_gb:g}: weights and optimizer of "
            f"{largest.name} take {_gb(largest.training_bytes)}"
        )
    return notes


def _there(path: Path) -> Path:
    """The nearest folder above that exists."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _memory() -> int | None:
    """Bytes of memory that this machine has; None where it doesn't say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _gb(count: float) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e8 else f"{count / 1e6:.3g} MB"
