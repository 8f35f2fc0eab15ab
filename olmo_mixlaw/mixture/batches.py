"""Batches of a planned mixture as tensors, for any trainer.

Batch s of a run holds examples [s B, (s + 1) B) of the plan; process r of W takes every W-th of
them from the r-th on. So a run resumes exactly, on any number of processes and data workers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.utils.data import get_worker_info

from olmo_mixlaw.mixture.opened import Mixture


def part_of_batch(
    mixture: Mixture,
    step: int,
    size: int,
    *,
    rank: int,
    world_size: int,
    keep: Callable[[np.ndarray], bool] | None = None,
) -> dict[str, torch.Tensor]:
    """One process's part of the batch of `step` (from 0), which has `size` sequences in all.

    It has `input_ids` (B, T), `index` (B) and `source` (B), the place of the label in
    `mixture.labels`; with `keep`, also `instance_mask` (B), what it says of each sequence.
    """
    examples = step * size + rank + world_size * np.arange(size // world_size)
    tokens, sources = mixture.sequences(examples)
    batch = {
        "input_ids": torch.from_numpy(tokens),
        "index": torch.from_numpy(examples),
        "source": torch.from_numpy(sources),
    }
    if keep is not None:
        batch["instance_mask"] = torch.tensor([keep(row) for row in tokens])
    return batch


def dealt(start: int, stop: int) -> range:
    """The steps from `start` on that fall to this data worker; all of them where there is none."""
    worker = get_worker_info()
    first, stride = (0, 1) if worker is None else (worker.id, worker.num_workers)
    return range(start + first, stop, stride)
