"""The errors that a user can cause, each a single line that says what to mend.

Anything that the command line catches derives from `MixlawError`: it is printed without a
traceback and the process exits with code 2. Every other exception is a defect of ours.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable


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


class FitError(MixlawError):
    """A law can't be fitted to this table, or a fit did not converge."""


class ExtensionError(MixlawError):
    """A part that an installed package offers can't be used."""


def complain(text: str) -> None:
    """One line on standard error about something that is left out or left as it is."""
    print(f"olmo-mixlaw: {text}", file=sys.stderr)


def unknown_name(kind: str, name: str, known: Iterable[str], where: str = "") -> UnknownNameError:
    """The error for `name`, which is none of the `known` names of this `kind`.

    `where` says which file and key asked for it. The closest known name is suggested.
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    place = f"{where}: " if where else ""
    accepted = ", ".join(known) or "none"
    return UnknownNameError(f"{place}unknown {kind} {name!r}{hint} (known: {accepted})")
