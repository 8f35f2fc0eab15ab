"""The process around a run of OLMo-core: what is installed, its group, what it leaves behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.training_core.saved import INSTALL, MAJOR, installed

if TYPE_CHECKING:
    import torch

# NCCL for tensors on a GPU, gloo for what the trainer exchanges on the side.
_BACKENDS = {True: "cpu:gloo,cuda:nccl", False: "gloo"}


def check_environment(where: str) -> None:
    """Raise `ConfigError`, with what to install, where `trainer: olmo-core` can't run.

    `where` is the file that asks for it. Nothing is imported.
    """
    core, olmo = installed("ai2-olmo-core"), installed("ai2-olmo")
    place = f"{where}: trainer: olmo-core"
    if core is not None and olmo is not None:
        raise ConfigError(
            f"{place}: ai2-olmo {olmo} is installed here too, and needs another ai2-olmo-core "
            f"than {MAJOR} (found {core}); use an environment of its own, with {INSTALL}"
        )
    if core is None:
        raise ConfigError(f"{place}: needs ai2-olmo-core {MAJOR}, which isn't installed: {INSTALL}")
    if core.partition(".")[0] != str(MAJOR):
        raise ConfigError(f"{place}: needs ai2-olmo-core {MAJOR}, found {core}: {INSTALL}")


@contextmanager
def process_group(on_gpu: bool) -> Iterator[torch.device]:
    """The device of this process, inside a process group of torchrun's or of one.

    A single process needs no port: its group lives in memory. What OLMo-core leaves in the
    environment and in torch's and Python's settings is put back at the end.
    """
    import torch
    import torch.distributed as dist
    import torch.multiprocessing as mp
    from olmo_core.distributed import parallel
    from olmo_core.distributed.utils import init_distributed

    before = dict(os.environ)
    start = mp.get_start_method(allow_none=True)
    made = not dist.is_initialized()
    try:
        # Checkpoints are written by all processes into one folder.
        os.environ.setdefault("OLMO_SHARED_FS", "1")
        if made and "WORLD_SIZE" not in os.environ and not on_gpu:
            dist.init_process_group(_BACKENDS[False], store=dist.HashStore(), rank=0, world_size=1)
        if made:
            init_distributed(_BACKENDS[on_gpu], timeout=timedelta(minutes=30))
        # Data workers that are forked inherit locks of the trainer's threads.
        mp.set_start_method("spawn", force=True)
        yield torch.device("cuda" if on_gpu else "cpu")
    finally:
        if made and dist.is_initialized():
            dist.destroy_process_group()
            parallel._WORLD_MESH = None  # of this group; OLMo-core makes one a process, and no more
        mp.set_start_method(start, force=True)
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def restored_signals() -> Iterator[None]:
    """Whatever handlers of SIGTERM and Ctrl-C a trainer installs are gone at the end."""
    names = (signal.SIGTERM, signal.SIGINT)
    previous = {name: signal.getsignal(name) for name in names}
    try:
        yield
    finally:
        with suppress(ValueError):  # not the main thread, which alone may handle signals
            for name, handler in previous.items():
                signal.signal(name, handler)


def prepare_console() -> None:
    """OLMo-core's log lines on the console, of the first process alone."""
    import warnings

    from olmo_core.utils import LogFilterType, prepare_cli_environment

    threads = os.environ.get("OMP_NUM_THREADS")
    prepare_cli_environment(LogFilterType.rank0_only)
    if threads is None:  # it asks for eight, however many cores there are
        os.environ.pop("OMP_NUM_THREADS", None)
    warnings.filterwarnings("ignore", message=".*register_new_resolver.*")
