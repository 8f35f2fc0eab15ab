"""What a fit is as JSON, and how such a file is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from olmo_mixlaw.errors import DataError, MixlawError


def read_saved(path: str | Path, what: str, make: Callable[[Any], Any]) -> Any:
    """What `make` makes of a JSON file. Raises `DataError` for one that is damaged in any way."""
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        return make(json.loads(path.read_text(encoding="utf-8")))
    except MixlawError:
        raise
    except Exception as error:  # whatever a damaged file may lead to, it is none
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: not a saved {what} ({type(error).__name__}: {reason})") from None


def plain(value: Any) -> Any:
    """Arrays as lists; JSON's own NaN is kept, as Python reads it back."""
    if isinstance(value, np.ndarray):
        return {
            "shape": list(value.shape),
            "dtype": str(value.dtype),
            "values": value.ravel().tolist(),
        }
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "to_json"):
        return value.to_json()
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def array_of(value: dict[str, Any]) -> np.ndarray:
    """The array that `plain` wrote."""
    return np.array(value["values"], dtype=value["dtype"]).reshape(value["shape"])
