"""Settings in OLMo-core's files, where a nested section names its class under `_CLASS_`.

A class is made by its name, so that only OLMo-core's own may stand in a file from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from olmo_mixlaw.errors import CheckpointError

CLASS = "_CLASS_"
OF_CORE = ("olmo_core.",)


def sections(values: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping inside nested values, and they themselves, with the keys that lead to each."""
    if isinstance(values, dict):
        yield place, values
        for key, value in values.items():
            yield from sections(value, f"{place}.{key}" if place else str(key))
    elif isinstance(values, list):
        for value in values:
            yield from sections(value, place)


def classes(values: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """The classes that nested settings name, each with the keys that lead there."""
    for where, section in sections(values, place):
        if section.get(CLASS) is not None:
            yield where, str(section[CLASS])


def require_core_classes(model: Any, where: Any) -> None:
    """Raise `CheckpointError` where a model's settings, read from `where`, name another class."""
    for _, name in classes(model):
        if not name.startswith(OF_CORE):
            raise CheckpointError(f"{where}: model: {name}: expected a class of olmo_core")
