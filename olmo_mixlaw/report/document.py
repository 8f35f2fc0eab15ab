"""Findings for programs: the kinds of values that JSON has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def jsonable(value: Any) -> Any:
    """`value` in JSON's own kinds: frames as lists of rows, arrays as lists, NaN as null."""
    if hasattr(value, "to_dict"):  # a pandas frame
        return jsonable(value.to_dict("records"))
    if hasattr(value, "tolist"):  # numpy's arrays and numbers
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    return str(value) if isinstance(value, Path) or value == value else None  # pandas' NA
