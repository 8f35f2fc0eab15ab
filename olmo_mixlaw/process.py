"""The processes around a run of either trainer: how many, who is first, how they end, memory."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from olmo_mixlaw.errors import MixlawError, StoppedError

# mallopt's names in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# How long processes wait for the first one's caches.
PATIENCE = timedelta(days=7)


def expected_world_size() -> int:
    """The number of processes, before their group is made."""
    import torch.distributed as dist

    return dist.get_world_size() if dist.is_initialized() else int(os.environ.get("WORLD_SIZE", 1))


@contextmanager
def first_process_first() -> Iterator[None]:
    """The block in the first process, then in all others: it writes caches, which they read."""
    import torch.distributed as dist

    several = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    group = _patient_group() if several else None
    first = group is None or dist.get_rank() == 0
    if not first:
        dist.barrier(group)
    yield
    if group is not None and first:
        dist.barrier(group)


_patient: list[Any] = []  # the world and its group of the function below


def _patient_group() -> Any:
    """All processes, over gloo and with all the time that the first may need: the trainer's own
    group gives up after half an hour, which a tokenizer has not done with a trillion tokens in."""
    import torch.distributed as dist

    if not _patient or _patient[0] is not dist.group.WORLD:
        _patient[:] = [dist.group.WORLD, dist.new_group(backend="gloo", timeout=PATIENCE)]
    return _patient[1]


def trained(train: Callable[[], Path]) -> int:
    """Call `train` for a command line: where its checkpoint is, or why it ended; the exit code."""
    try:
        final = train()
    except MixlawError as error:
        return said_end(error)
    if is_first():
        print(f"trained: {final}")
    return 0


def said_end(error: MixlawError) -> int:
    """Say why a run ended, the first of its processes for all; the exit code: 128 + n for signal
    n, 2 for anything else."""
    stopped = isinstance(error, StoppedError)
    if is_first():
        print(f"{'stopped' if stopped else 'error'}: {error}", file=sys.stderr)
    return 128 + error.signal if isinstance(error, StoppedError) else 2


def is_first() -> bool:
    """Whether this is the first of the processes that torchrun started, or the only one."""
    return int(os.environ.get("RANK", 0)) == 0


def command(
    run: Callable[[str, Sequence[str]], int], module: str, arguments: Sequence[str] | None
) -> int:
    """`CONFIG [--key.sub=value ...]` of `python -m module`; CONFIG is a file or a shipped name."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(f"usage: python -m {module} CONFIG [--key.sub=value ...]")
        return 0 if given else 2
    return run(given[0], given[1:])


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
