"""Paths in saved files, and in the URIs of datasets, after what they name has been moved.

Files keep absolute paths. What was moved together keeps its distances, so a path is found again
from the place of the file that names it, then and now.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from olmo_mixlaw.datasets.uri import is_uri, take
from olmo_mixlaw.errors import MixlawError


def moved(value: Any, before: Path | None, now: Path) -> Any:
    """`value` with each path in it, a URI's too, as far from `now` as it was from `before`."""
    if before is None or before == now:
        return value
    if isinstance(value, dict):
        return {key: moved(item, before, now) for key, item in value.items()}
    if isinstance(value, list):
        return [moved(item, before, now) for item in value]
    return with_path(value, lambda p: _moved(p, before, now)) if isinstance(value, str) else value


def found_again(text: str, before: Path, now: Path) -> str:
    """A path, or a URI that has one: where it is now, if it is there and no longer where it was."""

    def change(path: str) -> str:
        here = _moved(path, before, now)
        return here if not _is_there(path) and _is_there(here) else path

    return with_path(text, change)


def _moved(path: str, before: Path, now: Path) -> str:
    if not Path(path).is_absolute():
        return path
    return os.path.normpath(now / os.path.relpath(path, before))


def _is_there(path: str) -> bool:
    """Whether there is such a file or folder, or one that the pattern fits."""
    return Path(path).exists() or bool(glob.glob(path))


def with_path(text: str, change: Callable[[str], str]) -> str:
    """A path, or a URI whose parameter `path` is one, changed; what is wrong with it stays."""
    try:
        if not is_uri(text):
            return change(text)
        rest, path = take(text, "path")
        if path is None or (new := change(path)) == path:
            return text
        return f"{rest}{'&' if '?' in rest else '?'}path={quote(new, safe='/')}"
    except (MixlawError, OSError, ValueError):
        return text  # its own check says it
