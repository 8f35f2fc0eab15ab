"""Files as frames and their cells as numbers: what can't be read is named by line and column.

Nothing is guessed: a cell such as `2,31`, `70%` or `150M` is refused with what to write instead.
"""

from __future__ import annotations

import gzip
import io
import lzma
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from olmo_mixlaw.errors import DataError

# A truncated gzip file ends in EOFError, which click would take for the user's Ctrl-D.
UNREADABLE = (ValueError, OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
# A table of losses is far smaller; a small file that unpacks to more is a trap or a mistake.
MOST_BYTES = 2 << 30
WRITTEN = re.compile(r"\s*([-+]?[0-9][0-9.,]*(?:e[-+]?[0-9]+)?)\s*([%kmbt]?)\s*", re.IGNORECASE)
# Every digit that was written counts; from pandas 3.1 on that is what it does unasked.
OLD_PANDAS = tuple(int(part) for part in pd.__version__.split(".")[:2]) < (3, 1)
EXACT: dict[str, Any] = {"float_precision": "round_trip"} if OLD_PANDAS else {}
FACTORS = {"": 1.0, "%": 0.01, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}


def read_frame(path: str | Path) -> pd.DataFrame:
    """A CSV, gzipped CSV or Parquet file as a frame. Raises `DataError`.

    A header that names a column twice and rows with more cells than the header are refused: they
    would be read as other columns than they are.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        if path.suffix == ".parquet":
            frame = pd.read_parquet(path)
            return frame.reset_index(drop=frame.index.names == [None])
        text = _unpacked(path) if path.suffix == ".gz" else None
        given = [path if text is None else io.BytesIO(text) for _ in range(2)]
        header = pd.read_csv(given[0], header=None, nrows=1, dtype=str).iloc[0].dropna()
        frame = pd.read_csv(given[1], **EXACT)
    except UNREADABLE as error:
        reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: can't be read as a table ({reason})") from None
    if header.duplicated().any():
        name = header[header.duplicated()].iloc[0]
        raise DataError(f"{path}: line 1: two columns are called {name!r}; rename one")
    if not isinstance(frame.index, pd.RangeIndex):
        raise DataError(f"{path}: its rows have more cells than the {len(header)} of its header")
    return frame


def _unpacked(path: Path) -> bytes:
    """What a gzip file holds, unpacked once, unless memory should not be asked for so much."""
    unpacked = io.BytesIO()
    with gzip.open(path) as file:
        while block := file.read(1 << 20):
            if unpacked.tell() + len(block) > MOST_BYTES:
                raise DataError(
                    f"{path}: unpacks to more than {MOST_BYTES >> 30} GiB; save it as Parquet"
                )
            unpacked.write(block)
    return unpacked.getvalue()


def numbers(frame: pd.DataFrame, column: str, source: str) -> pd.Series:
    """A column as floats, NaN where a cell is empty. Raises `DataError` for any other text."""
    values = pd.to_numeric(frame[column], errors="coerce").astype(float)
    bad = values.isna() & frame[column].notna() | pd.api.types.is_bool_dtype(frame[column])
    refuse(frame, column, bad, source, "is not a number")
    return values


def refuse(frame: pd.DataFrame, column: str, bad: Any, source: str, reason: str) -> None:
    """Raise `DataError` for the first row that is `bad` (R,), naming its line by the index."""
    bad = np.asarray(bad, bool)
    if bad.any():
        i = int(np.argmax(bad))
        cell = frame[column].iloc[i]
        value = cell.item() if isinstance(cell, np.generic) else cell  # numpy 2 writes its types
        hint = written(value) if isinstance(value, str) else None
        more = "" if hint is None else f"; write {hint:g}"
        line = int(frame.index[i]) + 2
        raise DataError(f"{source}: line {line}, column {column!r}: {value!r}: {reason}{more}")


def written(text: str) -> float | None:
    """The number that a cell such as `2,31`, `70%` or `150M` means, None where it isn't clear."""
    found = WRITTEN.fullmatch(text)
    if not found or found[1].count(",") + found[1].count(".") > 1:
        return None
    if re.search(r",[0-9]{3}$", found[1]):  # a thousand, or a decimal: who knows
        return None
    try:
        return float(found[1].replace(",", ".")) * FACTORS[found[2].lower()]
    except ValueError:
        return None
