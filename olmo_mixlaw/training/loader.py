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
from olmo.config import TrainConfig
from olmo.data import IterableDataset
from olmo.torch_util import get_fs_local_rank, get_global_rank, get_world_size
from torch.utils.data import DataLoader, get_worker_info

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
    ) -> None:
        self.mixture = mixture
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
        worker = get_worker_info()
        first, stride = (0, 1) if worker is None else (worker.id, worker.num_workers)
        start = self.start_index // self.global_batch_size
        for step in range(start + first, self.n_steps, stride):
            yield self.batch(step)

    def batch(self, step: int) -> dict[str, Any]:
        """This process's part of the batch of `step`, counted from 0."""
        begin = step * self.global_batch_size + self.rank
        examples = begin + self.world_size * np.arange(self.device_batch_size)
        tokens, sources = self.mixture.sequences(examples)
        return {
            "input_ids": torch.from_numpy(tokens),
            "index": torch.from_numpy(examples),
            "source": torch.from_numpy(sources),
        }


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
    )
    workers: dict[str, Any] = {}
    if data.num_workers:
        workers = {
            "num_workers": data.num_workers,
            "prefetch_factor": data.prefetch_factor,
            "persistent_workers": data.persistent_workers,
            "timeout": data.timeout,
        }
    return DataLoader(batches, batch_size=None, pin_memory=data.pin_memory, **workers)
