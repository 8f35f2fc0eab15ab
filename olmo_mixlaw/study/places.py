"""Where the parts of a study's folder are, once the folder has been moved.

Files keep absolute paths. A checkpoint's tokenizer is the study's own copy, and is found again from
the checkpoint; what a study was made of is found again from the folder's earlier and present place.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from olmo_mixlaw import schema
from olmo_mixlaw.datasets.uri import is_uri, take
from olmo_mixlaw.errors import ConfigError, MixlawError

FILE = "study.yaml"
SHARED = "shared.json"
TOKENIZER = Path("data") / "tokenizer.json"
INSIDE = 5  # folders from a checkpoint up to its study


def study_folder(path: Path) -> Path | None:
    """The folder of the study that `path`, its file or something deeper in it, belongs to."""
    found = Path(path).absolute()
    for folder in (found, *found.parents[:INSIDE]):
        if (folder / FILE).is_file() and (folder / SHARED).is_file():
            return folder
    return None


def earlier_place(folder: Path) -> Path | None:
    """Where the study in `folder` was when it last ran; None where nothing says so."""
    try:
        said = schema.read_mapping(folder / SHARED).get("output")  # JSON is YAML
    except ConfigError:
        return None
    return Path(said) if isinstance(said, str) and Path(said).is_absolute() else None


def moved(value: Any, before: Path | None, now: Path) -> Any:
    """`value` with each path in it, a URI's too, as far from `now` as it was from `before`."""
    if before is None or before == now:
        return value
    if isinstance(value, dict):
        return {key: moved(item, before, now) for key, item in value.items()}
    if isinstance(value, list):
        return [moved(item, before, now) for item in value]
    return with_path(value, lambda p: _moved(p, before, now)) if isinstance(value, str) else value


def _moved(path: str, before: Path, now: Path) -> str:
    if not Path(path).is_absolute():
        return path
    return os.path.normpath(now / os.path.relpath(path, before))


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


def moved_tokenizer(checkpoint: Path) -> Path | None:
    """The study's tokenizer, for a checkpoint that names it by a path at which it no longer is.

    None where what the checkpoint names is there, or where it is no study's.
    """
    config = checkpoint / "config.yaml"
    if not config.is_file() or (study := study_folder(checkpoint)) is None:
        return None
    try:
        named = schema.read_mapping(config).get("tokenizer")
    except ConfigError:  # what loads the model says it better
        return None
    name = Path(str(named.get("identifier"))) if isinstance(named, dict) else Path()
    here = study / TOKENIZER
    gone = name.is_absolute() and name.parts[-2:] == TOKENIZER.parts and not name.is_file()
    return here if gone and here.is_file() else None
