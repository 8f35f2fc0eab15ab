"""Runs that ended without a result: why, whether to try again, and what is kept of them.

A run that is given up is put aside with `failed.json` in its folder, the rest of the study goes
on. A study that is started again leaves it there until it is asked to try it again, or until the
run's configuration is another.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from olmo_mixlaw.atomic import write_text
from olmo_mixlaw.errors import MixlawError, NonFiniteLossError, StoppedError, first_of
from olmo_mixlaw.study.executor import Ended

DONE = "run.json"
LOG = "log.txt"
ERROR = "error.json"
FAILED = "failed.json"

# Why a run ended, and what is said of it where it left no word itself.
KINDS = {
    "killed": "it was killed",
    "stopped": "it was told to stop",
    "memory": "it ran out of memory",
    "timeout": "its time ran out",
    "preempted": "its place was given to another job",
    "node": "its node was lost",
    "lost": "its job is gone",
    "crash": "it ended without a result",
    "busy": "another process works in its folder",
    "io": "a file could not be read or written",
    "disk": "no space is left on the disk",
    "diverged": "its loss is no number any more",
    "refused": "it was refused",
    "defect": "it failed",
}
# What another try may mend; nothing mends a wrong configuration or a loss that is no number.
AGAIN = frozenset({"killed", "stopped", "memory", "timeout", "crash", "io"})
# What is no fault of the run: counted apart.
NO_FAULT = frozenset({"preempted", "node", "lost", "busy"})
# After these a run that got further is not counted as having failed.
GOES_ON = NO_FAULT | {"timeout"}

LAST_LINES = 20
PROBE = 1 << 16  # bytes that a disk which isn't full takes
_FULL = (errno.ENOSPC, errno.EDQUOT)
_MEMORY = ("OutOfMemoryError", "MemoryError")


@dataclass(frozen=True)
class Failure:
    """A run that ended without a result; `kind` is one of `KINDS`."""

    run_id: str
    kind: str
    reason: str
    last_lines: tuple[str, ...] = ()
    attempts: int = 1


class BusyError(MixlawError):
    """Another process works in a run's folder."""


def kind_of(error: BaseException) -> str:
    """The kind of failure that an exception of a run is."""
    causes = list(_chain(error))
    if any(isinstance(e, OSError) and e.errno in _FULL for e in causes):
        return "disk"
    for cause in causes:
        if type(cause).__name__ in _MEMORY or "not enough memory" in str(cause):
            return "memory"
    kinds: tuple[tuple[type[BaseException], str], ...] = (
        (StoppedError, "stopped"),
        (BusyError, "busy"),
        (NonFiniteLossError, "diverged"),
        (MixlawError, "refused"),
        (OSError, "io"),
    )
    return next((kind for cls, kind in kinds if isinstance(error, cls)), "defect")


def _chain(error: BaseException | None) -> Iterable[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def leave_word(folder: Path, kind: str, text: str) -> None:
    """Say in the run's folder why it ended; the first of several processes is believed."""
    if not (folder / ERROR).is_file():
        write_text(folder / ERROR, json.dumps({"kind": kind, "text": text}) + "\n")


def judge(folder: Path, ended: Ended, attempts: int = 1) -> Failure | None:
    """Why the run in `folder` ended without a result; None where it left one.

    What the run said itself comes first, then whether the disk is full, what the executor knows,
    and the exit code.
    """
    if (folder / DONE).is_file():
        return None
    kind, text = _word(folder)
    if ended.state is not None and kind in (None, "stopped"):
        kind, text = ended.state, ""
    if kind in (None, "crash") and is_full(folder):
        kind = "disk"
    if kind is None:
        kind = "killed" if (ended.code or 0) < 0 else "crash"
    said = [line for line in text.strip().splitlines() if line.strip()]
    reason = said[-1] if said else KINDS[kind] + _how(ended)
    lines = (*said[-LAST_LINES:], *last_lines(folder / LOG)) if len(said) > 1 else ()
    return Failure(
        ended.run_id, kind, reason.strip(), lines or tuple(last_lines(folder / LOG)), attempts
    )


def _word(folder: Path) -> tuple[str | None, str]:
    """The kind and the text that the run left, which is taken away."""
    path = folder / ERROR
    if not path.is_file():
        return None, ""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        kind, text = str(said["kind"]), str(said["text"])
    except (OSError, ValueError, KeyError, TypeError):
        kind, text = "crash", ""
    with suppress(OSError):
        path.unlink()
    return (kind if kind in KINDS else "defect"), text


def _how(ended: Ended) -> str:
    """What is known of a run's end beside its kind, in brackets."""
    code = ended.code or 0
    known = [ended.note] if ended.note else []
    if code > 0:
        known.append(f"exit code {code}")
    elif code < 0:
        names = {number.value: number.name for number in signal.Signals}
        known.append(names.get(-code, f"signal {-code}"))
    if -code == signal.SIGKILL:
        known.append("perhaps for want of memory")
    return f" ({', '.join(known)})" if known else ""


def last_lines(path: Path, most: int = LAST_LINES) -> list[str]:
    """The last lines of a log; none where there is no log."""
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - (1 << 14)))
            return file.read().decode(errors="replace").splitlines()[-most:]
    except OSError:
        return []


def is_full(folder: Path) -> bool:
    """Whether the disk of `folder` takes no more, as a small file in it shows."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * PROBE)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno in _FULL
    return False


def put_aside(folder: Path, failure: Failure) -> None:
    """Keep what is known of a run that is given up."""
    said = {**asdict(failure), "config": _stamp(folder)}
    write_text(folder / FAILED, json.dumps(said, indent=1) + "\n")


def put_aside_before(folder: Path) -> Failure | None:
    """The failure for which a run was put aside with the configuration that it has now."""
    try:
        said = json.loads((folder / FAILED).read_text(encoding="utf-8"))
        if said.pop("config") != _stamp(folder):
            return None
        return Failure(**{**said, "last_lines": tuple(said["last_lines"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def take_back(folder: Path) -> None:
    """Forget that a run was put aside, and what an earlier try of it said."""
    for name in (FAILED, ERROR):
        with suppress(FileNotFoundError):
            (folder / name).unlink()


def _stamp(folder: Path) -> str:
    return hashlib.sha256((folder / "config.yaml").read_bytes()).hexdigest()


def summary(failures: Mapping[str, Failure], total: int, folders: Mapping[str, Path]) -> str:
    """One line on all runs that failed: how many, which, why, and what to do."""
    shown = [f"{f.run_id} ({f.reason})" for f in failures.values()]
    first = folders[next(iter(failures))]
    return (
        f"{len(failures)} of {total} runs failed: {first_of(shown, 3)}; the first one's log: "
        f"{first / LOG}; started again with --retry-failed they are tried again"
    )
