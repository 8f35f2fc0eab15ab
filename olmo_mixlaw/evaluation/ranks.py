"""Score with several processes: each takes its share of the batches, and all get every result.

Every process runs the same code over the same plan (as under torchrun); only what `share`
leaves to it is computed, and `gather` brings the rest. A batch is computed whole by one
process, so the results are those that a single process finds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from olmo_mixlaw.errors import ConfigError, MixlawError

T = TypeVar("T")
R = TypeVar("R")

MEETING_SECONDS = 120
SCORING_LIMIT = timedelta(days=1)  # for which one process waits for the share of another


class RankError(MixlawError):
    """Another of the processes failed or is gone."""


@dataclass(frozen=True)
class Ranks:
    """This process's number among `size`; the first writes files and speaks to the user."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, batches: Sequence[T]) -> Sequence[T]:
        """This process's part of the batches, which come in order of their kind and size."""
        return batches[self.rank :: self.size]

    def gather(self, work: Callable[[], Mapping[int, R]]) -> Mapping[int, R]:
        """What `work` gives here and in every other process.

        Raises what `work` raises, and in the other processes `RankError` with its message; also
        `RankError` if one is gone.
        """
        if self.size == 1:
            return work()
        found: Mapping[int, R] = {}
        failure: Exception | None = None
        try:
            found = work()
        except Exception as error:
            failure = error
        everyone = self._all((found, _told(failure)))
        if failure is not None:
            raise failure
        for rank, (_, message) in enumerate(everyone):
            if message:
                raise RankError(f"scoring process {rank} of {self.size}: {message}")
        return {key: value for part, _ in everyone for key, value in part.items()}

    def _all(self, mine: Any) -> list[Any]:
        import torch.distributed as dist

        everyone: list[Any] = [None] * self.size
        try:
            dist.all_gather_object(everyone, mine)
        except RuntimeError as error:
            reason = (str(error).splitlines() or ["no reason given"])[0]
            raise RankError(f"one of {self.size} scoring processes is gone ({reason})") from None
        return everyone

    def leave(self) -> None:
        """Part from the others."""
        import torch.distributed as dist

        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


ALONE = Ranks()


def _told(failure: Exception | None) -> str:
    if failure is None or isinstance(failure, MixlawError):
        return str(failure or "")
    return f"{type(failure).__name__}: {failure}"


def meet(rank: int, size: int, place: Path) -> Ranks:
    """Join `size` processes of this machine that all name the same new file `place`.

    Raises `ConfigError` in a process that belongs to a group of PyTorch already, and
    `RankError` if the others don't come.
    """
    import torch.distributed as dist

    if dist.is_initialized():
        raise ConfigError("processes: this process is one of a group already; score with 1")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    store = dist.FileStore(str(place), size)
    store.set_timeout(timedelta(seconds=MEETING_SECONDS))
    try:
        dist.init_process_group(
            "gloo", store=store, rank=rank, world_size=size, timeout=SCORING_LIMIT
        )
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise RankError(f"{size} scoring processes didn't meet ({reason})") from None
    return Ranks(rank, size)


def of_launcher() -> Ranks:
    """The processes that torchrun started, this one among them; `ALONE` without torchrun."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        return ALONE
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("gloo", timeout=SCORING_LIMIT)
    return Ranks(dist.get_rank(), size)


def device_of(ranks: Ranks) -> str | None:
    """The GPU of this process where several share a machine; None leaves the usual choice."""
    import torch

    if ranks.size == 1 or not torch.cuda.is_available():
        return None
    return f"cuda:{int(os.environ.get('LOCAL_RANK', ranks.rank)) % torch.cuda.device_count()}"
