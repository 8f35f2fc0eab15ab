"""What carries a study's runs out: this machine (`local`) or a cluster (`slurm`).

An executor starts runs, says which have ended and how, and can be closed. What is made of a run
that ended is the same for all, and is the runner's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from olmo_mixlaw.study.plan import Run


@dataclass(frozen=True)
class Ended:
    """A run whose process is gone, whether it left a result or not.

    `code` is its exit code (below 0: the signal that ended it) where that is known; `state` is a
    kind of `failures.KINDS` where the executor knows why it ended, `note` how that was said.
    """

    run_id: str
    code: int | None = None
    state: str | None = None
    note: str = ""


class Executor(Protocol):
    """Starts runs and says which have ended."""

    pause: float
    """Seconds between two looks."""

    at_once: int
    """How many runs are carried out side by side."""

    def adopt(self, runs: Sequence[Run], is_ours: Callable[[str], bool]) -> list[str]:
        """The names of those `runs` that are under way already, as an earlier process left them.

        They will end in `poll` too, but for those that turn out not to be ours.
        """

    def room(self) -> int:
        """How many runs may be submitted now."""

    def submit(self, runs: Sequence[Run], folders: dict[str, Path]) -> list[str]:
        """Start runs, as many as it can; the names of those that were started.

        Raises `ConfigError` for what none of them could be started with.
        """

    def poll(self) -> list[Ended]:
        """Those that have ended since the last look."""

    def leave(self, run_id: str) -> None:
        """Have no more to do with a run, which somebody else carries out now."""

    def close(self) -> None:
        """End what can't outlive the study. What was started goes on from its checkpoint."""
