"""The process around a run of OLMo's trainer: its group and its signals."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from olmo.torch_util import get_local_rank

from olmo_mixlaw.process import expected_world_size, frozen_garbage, keep_freed_memory

if TYPE_CHECKING:
    from olmo_mixlaw.training.trainer import MixTrainer

__all__ = [
    "expected_world_size",
    "frozen_garbage",
    "keep_freed_memory",
    "process_group",
    "stop_signals",
]


@contextmanager
def process_group(on_gpu: bool) -> Iterator[torch.device]:
    """The device of this process, inside a process group of torchrun's or of one.

    A single process needs no port: its group lives in memory.
    """
    device = torch.device("cuda" if on_gpu else "cpu")
    bound = None
    if on_gpu:
        torch.cuda.set_device(get_local_rank())
        bound = torch.device(f"cuda:{get_local_rank()}")
    if dist.is_initialized():
        yield device
        return
    backend = "nccl" if on_gpu else "gloo"
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        dist.init_process_group(backend, timeout=timedelta(minutes=30), device_id=bound)
    else:
        dist.init_process_group(
            backend, store=dist.HashStore(), rank=0, world_size=1, device_id=bound
        )
    try:
        yield device
    finally:
        dist.destroy_process_group()


@contextmanager
def stop_signals(trainer: MixTrainer) -> Iterator[None]:
    """SIGTERM and the first Ctrl-C end the run after its step; the second Ctrl-C at once."""

    def stop(number: int, _: Any) -> None:
        trainer.signal = number
        signal.signal(signal.SIGINT, signal.default_int_handler)

    try:
        previous = {name: signal.signal(name, stop) for name in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread, which alone may handle signals
        yield
        return
    try:
        yield
    finally:
        for name, handler in previous.items():
            signal.signal(name, handler)
