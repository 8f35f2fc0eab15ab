"""The process around a run of either trainer: how many there are, its memory, its garbage."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

# mallopt's names in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def expected_world_size() -> int:
    """The number of processes, before their group is made."""
    import torch.distributed as dist

    return dist.get_world_size() if dist.is_initialized() else int(os.environ.get("WORLD_SIZE", 1))


@contextmanager
def frozen_garbage() -> Iterator[None]:
    """Keep what is loaded by now out of garbage collection, which trainers run at checkpoints."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def keep_freed_memory() -> None:
    """Stop glibc from giving logits' memory back to the system at every step, only to ask again.

    The page faults of that are a fifth of a small model's step. Does nothing elsewhere.
    """
    import ctypes

    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    for name in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
        mallopt(name, 1 << 30)
