"""The errors that a user can cause, each a single line that says what to mend.

Anything that the command line catches derives from `MixlawError`: it is printed without a
traceback and the process exits with code 2. Every other exception is a defect of ours.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress

# What a line can show: names that are known, letters of one that isn't.
MOST_NAMES = 60
LONGEST_NAME = 80


class MixlawError(Exception):
    """A mistake in what the user gave; the message names file, key, value and what is accepted."""


class ConfigError(MixlawError):
    """A configuration file or option is wrong."""


class UnknownNameError(ConfigError):
    """A name that no registry, file or table knows."""


class DataError(MixlawError):
    """A data file, table or dataset parameter is wrong."""


class CheckpointError(MixlawError):
    """A checkpoint doesn't fit what it is asked to do."""


class NonFiniteLossError(MixlawError):
    """The loss became infinite or no number; the last good state was saved."""


class StoppedError(MixlawError):
    """A signal ended the run after a checkpoint."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


class FitError(MixlawError):
    """A law can't be fitted to this table, or a fit did not converge."""


class ExtensionError(MixlawError):
    """A part that an installed package offers can't be used."""


def complain(text: str) -> None:
    """One line on standard error about something that is left out or left as it is.

    Where nobody listens any more, nothing: a host that imports us must not fail of it.
    """
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            print(f"olmo-mixlaw: {' '.join(text.split())}", file=sys.stderr, flush=True)


def unknown_name(kind: str, name: str, known: Iterable[str], where: str = "") -> UnknownNameError:
    """The error for `name`, which is none of the `known` names of this `kind`.

    `where` says which file and key asked for it. The closest known name is suggested.
    """
    name, known = str(name), sorted(map(str, known))
    close = closest(name, known)
    hint = f"; did you mean {close!r}?" if close else ""
    place = f"{where}: " if where else ""
    accepted = ", ".join(known[:MOST_NAMES]) or "none"
    if len(known) > MOST_NAMES:
        accepted += f", ... {len(known)} in all"
    shown = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."
    return UnknownNameError(f"{place}unknown {kind} {shown!r}{hint} (known: {accepted})")


def closest(name: str, known: Iterable[str]) -> str | None:
    """The one of `known` that `name` was most likely meant to be, None where none is near.

    Of dotted keys the last part decides: `optimizer.lr` is far from `optimizer.eps`, though most
    of their letters agree, and near `optimizer.learning_rate`, whose initials it has.
    """
    last = name.rpartition(".")[2]
    of_last: dict[str, str] = {}
    for full in sorted(known):
        of_last.setdefault(full.rpartition(".")[2] or full, full)
    short = [full for part, full in of_last.items() if _abbreviates(last, part)]
    if len(short) == 1:
        return short[0]
    near = difflib.get_close_matches(last, of_last, n=1, cutoff=0.5)
    return of_last[near[0]] if near else None


def first_of(names: Sequence[str], most: int) -> str:
    """The first `most` of many names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def first_line(error: BaseException) -> str:
    """What an error of a library says first; its name where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def last_line(text: str) -> str:
    """Where a traceback or a command's complaint comes to the point; nothing of nothing."""
    return next(reversed(text.strip().splitlines()), "").strip()


def _abbreviates(short: str, name: str) -> bool:
    """Whether `short` is made of the initials of the words of `name`: lr, wd."""
    words = [word for word in name.split("_") if word]
    return len(words) > 1 and short.lower() == "".join(word[0] for word in words).lower()
