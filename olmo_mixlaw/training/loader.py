"""Whole batches from a planned mixture, in the shape that OLMo's Trainer takes them.

Batch s of the run holds examples [s B, (s + 1) B); process r of W takes every W-th of them from
the r-th on, as OLMo does. Nothing is remembered, so OLMo's own `start_index` resumes exactly, on
any number of processes and data workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from olmo.config import InstanceFilterConfig, TrainConfig
from olmo.data import IterableDataset
from olmo.data.util import find_periodic_sequences
from olmo.torch_util import get_fs_local_rank, get_global_rank, get_world_size
from torch.utils.data import DataLoader

from olmo_mixlaw.mixture.batches import dealt, part_of_batch
from olmo_mixlaw.mixture.opened import Mixture


class MixtureBatches(IterableDataset):
    """The batches of one process, in the place of OLMo's `IterableDataset`.

    OLMo's keeps a table of all indices and takes single examples through threads; a plan needs
    neither. `total_size`, `epoch`, `start_index` and `reshuffle` are what the Trainer uses.
    """

    def __init__(
        self,
        mixture: Mixture,
        *,
        global_batch_size: int,
        n_steps: int,
        world_size: int | None = None,
        rank: int | None = None,
        instance_filter: InstanceFilterConfig | None = None,
    ) -> None:
        self.mixture = mixture
        self.instance_filter = instance_filter
        self.global_batch_size = global_batch_size
        self.n_steps = n_steps
        self.world_size = get_world_size() if world_size is None else world_size
        self.rank = get_global_rank() if rank is None else rank
        self.fs_local_rank = get_fs_local_rank()
        self.device_batch_size = global_batch_size // self.world_size
        # One batch longer than the run: at an epoch's end OLMo forgets the position.
        self.total_size = (n_steps + 1) * global_batch_size
        self.start_index = 0
        self.epoch = 0
        self.max_examples = None
        self.work_dir = None
        self.global_indices_file = None

    def __len__(self) -> int:
        return self.n_steps

    def reshuffle(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for step in dealt(self.start_index // self.global_batch_size, self.n_steps):
            yield self.batch(step)

    def batch(self, step: int) -> dict[str, Any]:
        """This process's part of the batch of `step`, counted from 0."""
        limits = self.instance_filter
        return part_of_batch(
            self.mixture,
            step,
            self.global_batch_size,
            rank=self.rank,
            world_size=self.world_size,
            keep=None if limits is None else lambda row: not repeats(row, limits),
        )


def repeats(tokens: np.ndarray, limits: InstanceFilterConfig) -> bool:
    """Whether a sequence repeats itself more than OLMo's `instance_filter` lets it: its loss is
    then left out, as OLMo does it."""
    found = find_periodic_sequences(
        tokens, max_period=limits.repetition_max_period, min_period=limits.repetition_min_period
    )
    return any(one.times >= limits.repetition_max_count for one in found)


def build_loader(
    config: TrainConfig,
    mixture: Mixture,
    n_steps: int,
    *,
    world_size: int | None = None,
    rank: int | None = None,
) -> DataLoader:
    """The loader of a whole run for OLMo's Trainer."""
    data = config.data
    batches = MixtureBatches(
        mixture,
        global_batch_size=config.global_train_batch_size,
        n_steps=n_steps,
        world_size=world_size,
        rank=rank,
        instance_filter=data.instance_filter,
    )
    workers: dict[str, Any] = {}
    if data.num_workers:
        workers = {
            "num_workers": data.num_workers,
            "prefetch_factor": data.prefetch_factor,
            "persistent_workers": data.persistent_workers,
            "timeout": data.timeout,
            # A process that has used CUDA must not be forked.
            "multiprocessing_context": "spawn" if torch.cuda.is_available() else None,
        }
    return DataLoader(batches, batch_size=None, pin_memory=data.pin_memory, **workers)
