"""Where the parts of a study's folder are, once the folder has been moved.

Files keep absolute paths. A checkpoint's tokenizer is the study's own copy, and is found again from
the checkpoint; what a study was made of is found again from the folder's earlier and present place.
"""

from __future__ import annotations

from pathlib import Path

from olmo_mixlaw import schema
from olmo_mixlaw.datasets.moved import moved as moved
from olmo_mixlaw.datasets.moved import with_path as with_path
from olmo_mixlaw.errors import ConfigError

FILE = "study.yaml"
SHARED = "shared.json"
RUNS = "runs"
TOKENIZER = Path("data") / "tokenizer.json"
INSIDE = 5  # folders from a checkpoint up to its study


def run_folder(output: Path, run_id: str) -> Path:
    """Where a run of the study in `output` is made."""
    return output / RUNS / run_id


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
