"""Who works on a run: two people may run a study in one folder, and no run is made twice at once.

A claim is a file `.claim-<number>` in the run's folder, made exclusively, that its holder touches
now and then; the one of the highest number counts, and is never removed. Where its holder is gone
(its process has ended, or the file hasn't been touched for a while by this process's own watch)
whoever makes the next number has the run. No two clocks are compared, so none need agree.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from olmo_mixlaw.atomic import write_text

PREFIX = ".claim-"
BEAT = 10.0  # seconds between touches of what is held
STALE = 90.0  # seconds without a touch, after which a holder on another machine counts as gone
# The files of /proc that say which boot of which machine's processes a number is one of.
BOOT, SPACE = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")


@dataclass(frozen=True)
class Holder:
    """A process that works on runs: where it is and since when, as text that identifies it."""

    host: str
    pid: int
    place: str  # boot and process space: the same for processes that can see each other
    born: str  # the start of the process: a number is given again
    token: str

    def is_seen_dead(self) -> bool:
        """Whether this process can see that the holder has ended; False where it can't tell."""
        here = myself()
        if (self.host, self.place) != (here.host, here.place):
            return False
        return _born(self.pid) != self.born

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"


def myself(token: str = "") -> Holder:
    """This process as a holder."""
    pid = os.getpid()
    return Holder(socket.gethostname(), pid, _place(), _born(pid), token)


def holder_of(folder: Path) -> Holder | None:
    """Who last claimed the run in `folder`; None where nobody has, or all is let go."""
    number = _highest(folder)
    return None if number is None else _read(folder / f"{PREFIX}{number}")


def is_held(folder: Path) -> bool:
    """Whether the run in `folder` is claimed by a process that can't be seen to have ended."""
    holder = holder_of(folder)
    return holder is not None and not holder.is_seen_dead()


@dataclass
class Claims:
    """The runs that this process holds, by folder, and when others' claims were seen to move."""

    holder: Holder = field(default_factory=lambda: myself(secrets.token_hex(8)))
    stale: float = STALE
    _held: dict[Path, Path] = field(default_factory=dict)  # folder -> the claim's file
    _seen: dict[Path, tuple[int, float]] = field(default_factory=dict)  # file -> touched, watched
    _beaten: float = field(default=-float("inf"))

    def take(self, folder: Path) -> bool:
        """Claim the run in `folder`; False where somebody else has it."""
        if folder in self._held:
            return True
        number = _highest(folder)
        if number is not None and not self._is_free(folder / f"{PREFIX}{number}"):
            return False
        number = 0 if number is None else number + 1
        path = folder / f"{PREFIX}{number}"
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
        except FileExistsError:
            return False
        with open(handle, "w", encoding="utf-8") as file:
            file.write(json.dumps(vars(self.holder)))
        if _highest(folder) != number:  # it was made from an old look at the folder
            path.unlink(missing_ok=True)
            return False
        for earlier in _numbers(folder):
            if earlier < number:
                with suppress(OSError):
                    (folder / f"{PREFIX}{earlier}").unlink()
        self._held[folder] = path
        return True

    def beat(self) -> list[Path]:
        """Touch what is held, now and then; the folders that others have taken meanwhile.

        A process that was stopped for long loses its runs: it must end what it started there.
        """
        now = time.monotonic()
        if now - self._beaten < BEAT:
            return []
        self._beaten = now
        lost = []
        for folder, path in list(self._held.items()):
            try:
                os.utime(path)
                kept = _highest(folder) == int(path.name.removeprefix(PREFIX))
            except FileNotFoundError:
                kept = False
            except OSError as error:  # a file system that is away for a while
                kept = error.errno != errno.ESTALE
            if not kept:
                del self._held[folder]
                lost.append(folder)
        return lost

    def drop(self, folder: Path) -> None:
        """Let the run in `folder` go, finished or not; nothing where it isn't held."""
        path = self._held.pop(folder, None)
        if path is not None and path.exists():
            with suppress(OSError):
                write_text(path, "{}")

    def drop_all(self) -> None:
        for folder in list(self._held):
            self.drop(folder)

    def _is_free(self, path: Path) -> bool:
        """Whether nobody works under this claim any more."""
        try:
            touched = path.stat().st_mtime_ns
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:  # a later one has taken its place, or the file system is away for a while
            return False
        holder = _named(text)
        if holder is not None and holder.is_seen_dead():
            return True
        if holder is None and text:  # it was let go; one that is being written is empty
            return True
        now = time.monotonic()
        before, since = self._seen.get(path, (touched, now))
        self._seen[path] = (touched, since if before == touched else now)
        return before == touched and now - since > self.stale


def _read(path: Path) -> Holder | None:
    """The holder that a claim names; None where it names nobody or has gone."""
    try:
        return _named(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None


def _named(text: str) -> Holder | None:
    """The holder in a claim's text; None for one that was let go, or is just being written."""
    try:
        said: Any = json.loads(text)
        return Holder(**{**said, "pid": int(said["pid"])})
    except (ValueError, KeyError, TypeError):
        return None


def _numbers(folder: Path) -> list[int]:
    """The numbers of the claims on a run."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    ends = [name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX)]
    return [int(end) for end in ends if end.isdecimal()]


def _highest(folder: Path) -> int | None:
    return max(_numbers(folder), default=None)


def _place() -> str:
    try:
        return f"{BOOT.read_text().strip()} {os.readlink(SPACE)}"
    except OSError:  # no Linux: then nobody is seen dead, and stale claims are waited for
        return secrets.token_hex(8)


def _born(pid: int) -> str:
    """When a process of this machine began, in ticks; empty where there is none."""
    try:
        # Behind the name, which may hold spaces and brackets; field 22 of proc(5).
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
