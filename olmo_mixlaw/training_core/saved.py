"""Checkpoints of OLMo-core on disk: which folder is one, and what its config.json says.

A run's folder holds `step1000`, `step2000`, ...; each has `config.json` (what the run was asked
to do), `model_and_optim/` (weights in shards, with an index) and the trainer's own state. Nothing
here needs OLMo-core.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from olmo_mixlaw.carried import carried
from olmo_mixlaw.errors import CheckpointError, MixlawError

CONFIG = "config.json"
WEIGHTS = "model_and_optim"
INDEX = ".metadata"  # is written last, so that weights without it are half-written
INSTALL = "pip install 'olmo-mixlaw[olmo-core]'"
MAJOR = 3  # of ai2-olmo-core; others save and configure otherwise
MAX_LENGTH = 2048  # OLMES's default
_STEP = re.compile(r"step(\d+)")


def installed(package: str) -> str | None:
    """The version of a package that is installed here; None where it isn't."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def require_core(where: str | Path, error: type[MixlawError] = CheckpointError) -> None:
    """Raises `error`, with what to install, unless OLMo-core 3 is there."""
    found = installed("ai2-olmo-core")
    if found is None:
        raise error(f"{where}: a checkpoint of OLMo-core needs: {INSTALL}")
    if int(found.split(".")[0]) < MAJOR:
        raise error(
            f"{where}: a checkpoint of OLMo-core needs its release {MAJOR} or later, found "
            f"{found}: {INSTALL} (in an environment of its own, without ai2-olmo)"
        )


def is_checkpoint(folder: str | Path) -> bool:
    """Whether the folder is a checkpoint of OLMo-core, whole or not."""
    return (Path(folder) / WEIGHTS).is_dir()


def is_whole(folder: str | Path) -> bool:
    """Whether the folder is a checkpoint that was written to its end."""
    folder = Path(folder)
    return (folder / WEIGHTS / INDEX).is_file() and (folder / CONFIG).is_file()


def steps(run: str | Path) -> list[Path]:
    """What a run's folder has under the names of checkpoints, by their steps."""
    return sorted((p for p in Path(run).glob("step*") if _STEP.fullmatch(p.name)), key=step_of)


def step_of(path: Path) -> int:
    """The step of a checkpoint's folder."""
    match = _STEP.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def newest(run: str | Path) -> Path | None:
    """The newest whole checkpoint in a run's folder; None where it has no steps.

    Raises `CheckpointError` where there are steps and none of them is whole.
    """
    found = [path for path in steps(run) if is_checkpoint(path)]
    whole = [path for path in found if is_whole(path)]
    if found and not whole:
        raise CheckpointError(
            f"{run}: none of its {len(found)} checkpoints is whole (each lacks {CONFIG} or "
            f"{WEIGHTS}/{INDEX})"
        )
    return whole[-1] if whole else None


def read_config(folder: str | Path) -> dict[str, Any]:
    """What config.json of a checkpoint says. Raises `CheckpointError`."""
    file = Path(folder) / CONFIG
    if not file.is_file():
        raise CheckpointError(
            f"{folder}: has no {CONFIG}: half-written, or of a run without OLMo-core's "
            "ConfigSaverCallback"
        )
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: not valid JSON ({error})") from None
    except OSError as error:
        raise CheckpointError(f"{file}: can't be read ({error.strerror})") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{file}: holds no settings by name")
    return values


def tokenizer_section(config: dict[str, Any]) -> dict[str, Any]:
    """The tokenizer's settings, of the dataset or the loader of data; {} where none are there."""
    found = first(config, "tokenizer", lambda value: isinstance(value, dict))
    return dict(found or {})


def sequence_length(config: dict[str, Any]) -> int:
    """The longest sequence in tokens that the model was trained on; 2048 where nothing says it."""
    for key in ("max_sequence_length", "sequence_length", "max_target_sequence_length"):
        found = first(config, key, lambda value: type(value) is int and value > 0)
        if found is not None:
            return int(found)
    return MAX_LENGTH


def find_tokenizer(path: Path, identifier: str | Path | None) -> Path:
    """The tokenizer.json that a checkpoint's settings name: a path, or a name on the Hub.

    One by a path that is no longer there is looked for beside the checkpoint, one of the Hub
    among what was downloaded before. Raises `CheckpointError`.
    """
    if identifier is None:
        raise CheckpointError(
            f"{path / CONFIG}: tokenizer.identifier is missing; give the tokenizer.json "
            "with --tokenizer"
        )
    name = Path(identifier)
    beside = [folder / name.name for folder in (path, *path.absolute().parents[:3])]
    for place in (name, name / "tokenizer.json", *beside):
        if place.is_file():
            return place
    found = carried(name) or _downloaded(str(identifier))
    if found is None:
        raise CheckpointError(
            f"{path}: tokenizer {str(identifier)!r} is not there; give its tokenizer.json with "
            "--tokenizer"
        )
    return found


def _downloaded(name: str) -> Path | None:
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.utils import HFValidationError
    except ImportError:
        return None
    try:
        found = try_to_load_from_cache(name, "tokenizer.json")
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def sources(config: dict[str, Any]) -> dict[str, list[str]]:
    """What the run read, URIs and paths by source; {} where its settings don't say."""
    tree = first(config, "sources", lambda value: isinstance(value, dict) and len(value) > 0)
    if tree is not None:
        return _leaves(tree, "")
    paths = first(config, "paths", lambda value: isinstance(value, list) and len(value) > 0)
    return {} if paths is None else {"data": [str(path) for path in paths]}


def _leaves(tree: dict[str, Any], above: str) -> dict[str, list[str]]:
    """The leaves of nested sources, each under the labels on the way to it."""
    found: dict[str, list[str]] = {}
    for label, inside in tree.items():
        name = f"{above}/{label}" if above else str(label)
        if isinstance(inside, dict):
            found |= _leaves(inside, name)
        else:
            uris = inside if isinstance(inside, list) else [inside]
            found[name] = [str(uri) for uri in uris if uri is not None]
    return found


def first(config: Any, key: str, fits: Callable[[Any], bool]) -> Any:
    """The value of `key` nearest the top of nested settings that fits; None where there is none.

    OLMo-core's scripts nest the same settings in different ways, each under its own name.
    """
    level = [config]
    while level:
        for settings in level:
            if isinstance(settings, dict) and key in settings and fits(settings[key]):
                return settings[key]
        level = [inner for settings in level for inner in _inside(settings)]
    return None


def _inside(settings: Any) -> Iterator[Any]:
    values = settings.values() if isinstance(settings, dict) else settings
    for value in values:
        if isinstance(value, (dict, list)):
            yield value
