"""Start the other processes of `--processes N`, and end them with this one.

Each is a fresh Python that is told on its standard input what to score. If one ends early,
this process says which and why, in one line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from olmo_mixlaw.errors import ConfigError, MixlawError
from olmo_mixlaw.evaluation import ranks
from olmo_mixlaw.evaluation.ranks import RankError, Ranks

WORKER = "olmo_mixlaw.evaluation.worker"
POLL = 0.05
LAST_WORDS_SECONDS = 10  # a process whose connection broke needs a moment to end


@contextmanager
def started(size: int, call: Mapping[str, Any]) -> Iterator[Ranks]:
    """This process as the first of `size`; the others run `evaluate(**call)` for their share.

    The processors' threads are divided among them. Raises `ConfigError` for a `call` that can't
    be handed over, and `MixlawError` if another process ends before its work is done.
    """
    import torch

    try:
        told = json.dumps(call)
    except TypeError as error:
        raise ConfigError(f"processes: {size} need tasks in plain values ({error})") from None
    threads = torch.get_num_threads()
    each = max(1, threads // size)
    with tempfile.TemporaryDirectory(prefix="olmo-mixlaw-") as folder:
        others = [_start(rank, size, told, Path(folder), each) for rank in range(1, size)]
        torch.set_num_threads(each)
        group = ranks.ALONE
        try:
            _wait_until_ready(others, Path(folder))
            group = ranks.meet(0, size, Path(folder) / "meeting")
            yield group
        except RankError as error:
            raise MixlawError(_explain(error, others, Path(folder))) from None
        finally:
            torch.set_num_threads(threads)
            for other in others:
                other.kill()
                other.wait()
            group.leave()


def _start(rank: int, size: int, told: str, folder: Path, threads: int) -> subprocess.Popen[bytes]:
    """Process `rank`; what it says on standard error is kept in the folder."""
    order = json.dumps({"rank": rank, "size": size, "folder": str(folder), "call": told})
    with open(folder / f"errors-{rank}", "wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )
    assert process.stdin is not None
    try:
        process.stdin.write(order.encode())
        process.stdin.close()
    except BrokenPipeError:  # it ended at once, which the wait will find
        pass
    return process


def _wait_until_ready(others: list[subprocess.Popen[bytes]], folder: Path) -> None:
    while not all((folder / f"ready-{rank + 1}").exists() for rank in range(len(others))):
        if any(other.poll() is not None for other in others):
            raise RankError("a scoring process ended at its start")
        time.sleep(POLL)


def _explain(error: RankError, others: list[subprocess.Popen[bytes]], folder: Path) -> str:
    """What happened, from the first process that ended by itself."""
    deadline = time.monotonic() + LAST_WORDS_SECONDS
    while time.monotonic() < deadline:
        for rank, other in enumerate(others, 1):
            code = other.poll()
            if code:
                return f"scoring process {rank} of {len(others) + 1} {_how(code, folder, rank)}"
        time.sleep(POLL)
    return str(error)


def _how(code: int, folder: Path, rank: int) -> str:
    if code < 0:
        return f"was ended by signal {-code} (9 often means too little memory); score again"
    lines = (folder / f"errors-{rank}").read_text(errors="replace").strip().splitlines()
    return f"failed: {lines[-1] if lines else f'exit code {code}'}"
