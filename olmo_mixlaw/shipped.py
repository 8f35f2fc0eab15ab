"""Find the configuration files that come with the package, by name or by path.

In a checkout they lie at the top (`configs/`, `eval_suites/`); a wheel carries them inside
the package. A path that exists always wins over a shipped name.
"""

from __future__ import annotations

from pathlib import Path

from olmo_mixlaw.errors import ConfigError, unknown_name

_PACKAGE = Path(__file__).parent

# What a file of each shipped folder is called.
KINDS = {
    "configs/fits": "recipe",
    "configs/goals": "goal",
    "configs/ladders": "ladder",
    "configs/mixtures": "mixture",
    "configs/studies": "study",
    "configs/swarms": "source list",
    "configs/tables": "table",
    "configs/train": "training configuration",
    "eval_suites": "suite",
}


def shipped_folder(folder: str) -> Path:
    """The shipped folder `configs/ladders`, `configs/studies`, `eval_suites`, ..."""
    inside = _PACKAGE / folder
    return inside if inside.is_dir() else _PACKAGE.parent / folder


def find_config(folder: str, name: str | Path, where: str = "") -> Path:
    """The YAML file that `name` means: a path, or the stem of a file in the shipped `folder`.

    Raises `ConfigError` for a path that doesn't exist and `UnknownNameError`, with the closest
    shipped name, otherwise. `where` (file and key) goes into the error.
    """
    path = Path(name)
    place = f"{where}: " if where else ""
    try:
        if path.is_file():
            return path
    except (OSError, ValueError):  # too long for a name, or with a zero byte
        raise ConfigError(f"{place}{str(name)[:80]!r}: not a file's name") from None
    if path.is_dir() and len(path.parts) > 1:
        raise ConfigError(f"{place}{name}: a folder; give a YAML file")
    if path.suffix or len(path.parts) > 1:
        raise ConfigError(f"{place}{name}: no such file")
    known = {p.stem: p for p in sorted(shipped_folder(folder).glob("*.yaml"))}
    if str(name) not in known:
        raise unknown_name(KINDS.get(folder, "file"), str(name), known, where)
    return known[str(name)]


def beside(path: str | Path, file: str | Path) -> Path:
    """What a relative `path` that stands in `file` means: beside that file.

    Where nothing is there but something is in the working folder, that.
    """
    own = Path(file).parent / path
    return Path(path) if not own.exists() and Path(path).exists() else own
