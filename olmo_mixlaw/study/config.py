"""A study file, read strictly and checked in full before anything runs.

Relative paths that stand in the file are beside it; the folder of a study that has run holds its
file as `study.yaml`, and stands for it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import yaml

from olmo_mixlaw import schema
from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.shipped import beside, find_config
from olmo_mixlaw.study.places import FILE, SHARED, earlier_place, moved, with_path
from olmo_mixlaw.study.recipes import as_written, told_apart, with_mixtures
from olmo_mixlaw.study.settings import StudyConfig

MANY = 200  # mixtures, beyond which they are read apart


def load_study(name: str | Path, overrides: tuple[str, ...] = ()) -> StudyConfig:
    """The study file at a path, the shipped study of that name, or that of a study's folder.

    It is checked in full. Raises `ConfigError` naming file, key and accepted values.
    """
    # The checks know all laws; who only asks how a study stands needs none.
    from olmo_mixlaw.study.checks import check_grounds, check_runs

    study, path = _with_path(name, overrides)
    where = f"{path} and its overrides" if overrides else str(path)
    check_grounds(study, where)
    study = with_mixtures(study, where)
    check_runs(study, where)
    return study


def begun_study(folder: Path) -> StudyConfig:
    """The study that a folder holds, which was checked when it began."""
    study, path = _with_path(folder, ())
    return with_mixtures(study, str(path))


def _with_path(name: str | Path, overrides: tuple[str, ...]) -> tuple[StudyConfig, Path]:
    """What a study's file says, read strictly, with its own paths; and that file."""
    folder = _begun(Path(name))
    if not _is_folder(folder) or (len(folder.parts) == 1 and not (folder / FILE).is_file()):
        path = find_config("configs/studies", name)
        study = _read(path, overrides)
    else:
        path = folder / FILE
        if not path.is_file():
            raise ConfigError(f"{folder}: no study here (it holds no {FILE}); name its file")
        # The folder may have been moved since.
        study = _read(path, (f"output={folder}", *overrides))
    return with_own_paths(study, path), path


def _read(path: Path, overrides: tuple[str, ...]) -> StudyConfig:
    """The keys of a study file; sizes and tokens are those of its `runs` where it gives none."""
    values, laid = told_apart(schema.read_mapping(path), overrides)
    many = _many_mixtures(values, laid, str(path))
    if many:
        values = {**values, "mixtures": {}}
    study = schema.from_mapping(values, StudyConfig, str(path), laid)
    return dataclasses.replace(
        study,
        mixtures=many or study.mixtures,
        sizes=study.sizes or list(dict.fromkeys(some.size for some in study.runs)),
        tokens=study.tokens or sorted({some.tokens for some in study.runs}),
    )


def _many_mixtures(
    values: dict[str, Any], overrides: tuple[str, ...], where: str
) -> dict[str, dict[str, float]]:
    """The mixtures of a file that lists very many, which omegaconf takes seconds for; or none."""
    listed = values.get("mixtures")
    changed = any(item.removeprefix("--").startswith("mixtures") for item in overrides)
    if changed or not isinstance(listed, dict) or len(listed) < MANY:
        return {}
    found = schema.fitted(listed, dict[str, dict[str, float]], where, "mixtures")
    plain = all(isinstance(r, float) for ratios in found.values() for r in ratios.values())
    return found if plain else {}


def folder_of(name: str | Path, overrides: tuple[str, ...] = ()) -> Path:
    """The output folder of the study that `name` means, as `load_study` takes it; not checked."""
    folder = _begun(Path(name))
    if _is_folder(folder):
        return folder
    path = find_config("configs/studies", name)
    return Path(_read(path, overrides).output)


def _begun(path: Path) -> Path:
    """The folder of a study for the file that it keeps, which says where it once was."""
    kept = path.name == FILE and (path.parent / SHARED).is_file()
    return path.parent if kept else path


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # longer than a name can be
        return False


def with_own_paths(study: StudyConfig, file: Path) -> StudyConfig:
    """The study with every path that stands in `file`, and is there beside it, made absolute."""
    tokenizer, evaluation = study.tokenizer, study.evaluation
    drawn = study.drawn
    if drawn is not None and drawn.table is not None:
        table = dataclasses.replace(drawn.table, path=_own(drawn.table.path, file))
        drawn = dataclasses.replace(drawn, table=table)
    return dataclasses.replace(
        study,
        drawn=drawn,
        ladder=_own(study.ladder, file) if Path(study.ladder).suffix else study.ladder,
        base=study.base and _own_base(study.base, file),
        domains={name: _own(uri, file) for name, uri in study.domains.items()},
        tokenizer=dataclasses.replace(
            tokenizer, identifier=tokenizer.identifier and _own(tokenizer.identifier, file)
        ),
        evaluation=dataclasses.replace(
            evaluation, heldout={name: _own(uri, file) for name, uri in evaluation.heldout.items()}
        ),
    )


def _own_base(text: str, file: Path) -> str:
    """A path in which `{size}` and the like may stand, the folders above them as in `file`."""
    parts = Path(text).parts
    whole = next((i for i, part in enumerate(parts) if "{" in part), len(parts))
    return str(Path(_own(str(Path(*parts[:whole])), file), *parts[whole:]))


def _own(text: str, file: Path) -> str:
    """A path, or a URI whose parameter `path` is one, as it is meant in `file`."""
    earlier = earlier_place(file.parent) if file.name == FILE else None

    def own(path: str) -> str:
        # What the study was made of may have been moved with it.
        for place in (path, moved(path, earlier, file.parent.resolve())):
            if (found := beside(place, file)).exists():
                return str(found.resolve())
        return path

    return with_path(text, own)


def save_study(study: StudyConfig) -> str:
    """The study as the YAML text that its folder keeps."""
    return yaml.safe_dump(as_written(study), sort_keys=False, allow_unicode=True)
