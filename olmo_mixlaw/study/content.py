"""What a run is made of, kept beside it, so that no other run is ever taken for it.

`content.json` in a run's folder holds the whole of its configuration but for places: training,
scoring, sizes of the files that it reads; and the defaults that this version laid under them. A run
is gone on with, or counted as finished, only where all of it is the same; the first difference is
said. Defaults count where both versions have them: a setting that is new changed nothing before.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import inspect
import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from olmo_mixlaw.atomic import write_text
from olmo_mixlaw.datasets.moved import with_path
from olmo_mixlaw.datasets.tokens import token_paths
from olmo_mixlaw.datasets.uri import dataset_name, is_uri, parse
from olmo_mixlaw.errors import MixlawError
from olmo_mixlaw.evaluation.catalog import resolve
from olmo_mixlaw.registry import DATASETS
from olmo_mixlaw.study.scoring import heldout_uri, tasks
from olmo_mixlaw.study.settings import StudyConfig

FILE = "content.json"
LONGEST = 200  # letters of a value in a message
PLACES = ("save_folder", "tokenizer")  # of a training file, beside `mixture.cache_dir`
# Where a trainer's defaults stand: in these files of these packages.
SOURCES: dict[str, dict[str, tuple[str, ...]]] = {
    "olmo": {
        "olmo": ("config.py",),
        "olmo_mixlaw": ("training/config.py", "mixture/config.py", "models/moe_config.py"),
    },
    "olmo-core": {
        "olmo_core": ("optim/adamw.py", "optim/scheduler.py", "train/config.py"),
        "olmo_mixlaw": ("training_core/config.py", "training_core/models.py", "mixture/config.py"),
    },
}


def without_places(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's configuration without the paths of its study's folder, which may be moved."""
    rest = {k: v for k, v in config.items() if k not in PLACES}
    mixture = config.get("mixture")
    if isinstance(mixture, dict):
        rest["mixture"] = {k: v for k, v in mixture.items() if k != "cache_dir"}
    return rest


@dataclasses.dataclass(frozen=True)
class Shared:
    """What all runs of a study have in common: scoring, sizes of files, and defaults."""

    evaluation: dict[str, Any]
    files: dict[str, Any]
    defaults: dict[str, str]

    @classmethod
    def of(cls, study: StudyConfig) -> Shared:
        evaluation = {"tasks": tasks(study), "truncate": study.evaluation.truncate}
        files = {domain: _bytes(uri) for domain, uri in study.domains.items()}
        return cls(
            _placeless(evaluation),
            {domain: size for domain, size in files.items() if size is not None},
            {**trainer_defaults(study.trainer), **data_defaults(study), **task_defaults(study)},
        )

    def content(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The content of the run of that training configuration."""
        training = _placeless(without_places(config))
        return {"training": training, "evaluation": self.evaluation, "files": self.files}


def hash_of(content: Mapping[str, Any]) -> str:
    """A name for the content, the same wherever the study's folder is."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def kept(folder: Path) -> dict[str, Any] | None:
    """What a run's folder says of its content; None for one that says nothing that is whole."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        parts = ("content", "defaults")
        whole = isinstance(found["hash"], str) and all(isinstance(found[k], dict) for k in parts)
        return found if whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep(folder: Path, content: Mapping[str, Any], shared: Shared) -> None:
    """Keep a run's content in its folder."""
    said = {"hash": hash_of(content), "content": content, "defaults": shared.defaults}
    write_text(folder / FILE, json.dumps(said, indent=1, ensure_ascii=False) + "\n")


def change(found: Mapping[str, Any], content: Mapping[str, Any], shared: Shared) -> str | None:
    """Where a run that was made differs from one that would be made now; None for the same."""
    if found["hash"] != hash_of(content) and found["content"] != content:
        return first_change(found["content"], dict(content))
    for key, was in found["defaults"].items():
        now = shared.defaults.get(key, was)
        if now != was:
            return f"the default of {key} was {was}, now {now}"
    return None


def first_change(before: Any, now: Any, prefix: str = "") -> str:
    """Where two nested values first differ, in words."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(k for k in now if k not in before)]:
            if before.get(key) != now.get(key):
                return first_change(before.get(key), now.get(key), f"{prefix}{key}.")
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for i, (was, is_now) in enumerate(zip(before, now, strict=True)):
            if was != is_now:
                return first_change(was, is_now, f"{prefix.removesuffix('.')}[{i}].")
    return f"{prefix.removesuffix('.')} was {_shown(before)}, now {_shown(now)}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def trainer_defaults(trainer: str) -> dict[str, str]:
    """The defaults of a trainer's settings, as they are written, without importing it."""
    found: dict[str, str] = {}
    for package, files in SOURCES[trainer].items():
        spec = find_spec(package)
        for place in (spec.submodule_search_locations or [] if spec else [])[:1]:
            for path in (Path(place) / file for file in files):
                if path.is_file():
                    found.update(_defaults_in(path, path.stat().st_mtime_ns))
    return found


@lru_cache(maxsize=32)
def _defaults_in(path: Path, stamp: int) -> dict[str, str]:
    """`Class.field` -> default, for every class of a Python file."""
    found: dict[str, str] = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef):
            for part in node.body:
                if isinstance(part, ast.AnnAssign) and part.value is not None:
                    found[f"{node.name}.{ast.unparse(part.target)}"] = ast.unparse(part.value)
    return found


def data_defaults(study: StudyConfig) -> dict[str, str]:
    """The defaults of what the study's datasets leave unsaid, as `mixlaw:name?key`."""
    found: dict[str, str] = {}
    uris = [*study.domains.values(), *(heldout_uri(study, domain) for domain in study.domains)]
    for uri in dict.fromkeys(filter(is_uri, uris)):
        said = parse(uri)[1]
        for key, parameter in inspect.signature(DATASETS.get(dataset_name(uri))).parameters.items():
            if key not in said and parameter.default is not inspect.Parameter.empty:
                found[f"mixlaw:{dataset_name(uri)}?{key}"] = repr(parameter.default)
    return found


def task_defaults(study: StudyConfig) -> dict[str, str]:
    """The settings of the tasks that runs are scored on, as `task.setting`."""
    found: dict[str, str] = {}
    for task in resolve(tasks(study)):
        settings = _placeless(task.config.as_dict())
        found |= {
            f"{task.name}.{key}": json.dumps(value, sort_keys=True)
            for key, value in settings.items()
            if key != "metadata"
        }
    return found


def _bytes(uri: str) -> int | None:
    """How large the files of a domain are; None where it has none that can be found."""
    try:
        if is_uri(uri):
            path = parse(uri)[1].get("path")
            return Path(path).stat().st_size if path and Path(path).is_file() else None
        return sum(path.stat().st_size for path in token_paths(uri))
    except (OSError, MixlawError):
        return None


def _placeless(value: Any) -> Any:
    """Nested plain values with the folders taken off every path."""
    if isinstance(value, Mapping):
        return {key: _placeless(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_placeless(item) for item in value]
    if isinstance(value, str) and "/" in value:
        return with_path(value, lambda path: Path(path).name if Path(path).is_absolute() else path)
    return value
