"""Rows of the user's files: CSV, JSON lines, Parquet and plain text, packed or not.

Everything streams: a file of any size is read in little memory. What is wrong is said with file
and line.
"""

from __future__ import annotations

import csv
import glob
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from olmo_mixlaw.errors import DataError

_PACKED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
_ROWS = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
_TEXT = {".txt": "text", ".md": "text", ".text": "text"}
# A document is far smaller; what unpacks to one without an end is a trap or a mistake.
MOST_CHARACTERS = 1 << 27
FORMATS = ".txt, .md, .jsonl, .json (a value a line), .csv, .parquet; also packed: .gz, .zst, .bz2"


def find_files(path: str) -> list[Path]:
    """The files that `path` means: a file, a folder's files of a known format, or a pattern.

    Raises `DataError` if there are none.
    """
    whole = Path(path).expanduser()
    if whole.is_file():
        return [whole]
    if whole.is_dir():
        found = [file for file in whole.rglob("*") if file.is_file() and format_of(file)]
    else:
        found = [Path(name) for name in glob.glob(str(whole), recursive=True)]
    if not found:
        raise DataError(f"path: {path}: no such file, folder or pattern with text in it")
    return sorted(found)


def format_of(path: Path) -> str:
    """`text`, `jsonl`, `csv`, `parquet`, or an empty string for a format we don't know."""
    suffix = Path(path.stem).suffix if path.suffix in _PACKED else path.suffix
    return (_ROWS | _TEXT).get(suffix.lower(), "")


def open_text(path: Path) -> TextIO:
    """The file's text, unpacked as its name says."""
    packing = _PACKED.get(path.suffix)
    if packing is None:
        return open(path, encoding="utf-8", newline="")
    import pyarrow as pa

    return io.TextIOWrapper(pa.input_stream(str(path), compression=packing), "utf-8", newline="")


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a table or of JSON lines. Raises `DataError`."""
    kind = format_of(path)
    try:
        if kind == "csv":
            yield from _read_csv(path)
        elif kind == "jsonl":
            yield from _read_json_lines(path)
        elif kind == "parquet":
            yield from _read_parquet(path)
        else:
            raise DataError(f"{path}: not a format we read ({FORMATS})")
    except (UnicodeDecodeError, EOFError) as error:
        raise DataError(f"{path}: not UTF-8 text ({error})") from None
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error})") from None


def _read_csv(path: Path) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(MOST_CHARACTERS)  # Python's own is shorter than many a document
    with open_text(path) as file:
        rows = csv.DictReader(read_lines(file, path))
        try:
            for line, row in enumerate(rows, start=2):
                if None in row or None in row.values():
                    raise DataError(f"{path}:{line}: another number of fields than the header has")
                yield row
        except csv.Error as error:
            raise DataError(f"{path}:{rows.line_num}: can't be read as CSV ({error})") from None


def read_lines(file: TextIO, path: Path) -> Iterator[str]:
    """The lines of `file`; one beyond `MOST_CHARACTERS` raises `DataError` before memory ends."""
    number = 0
    while line := file.readline(MOST_CHARACTERS + 1):
        number += 1
        if len(line) > MOST_CHARACTERS:
            raise DataError(_too_long(f"{path}:{number}: a line"))
        yield line


def _too_long(what: str) -> str:
    return f"{what} of more than {MOST_CHARACTERS >> 20} Mi characters; part it into documents"


def _read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with open_text(path) as file:
        for number, line in enumerate(read_lines(file, path), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}:{number}: not a line of JSON ({error.msg})") from None
            if not isinstance(row, dict):
                raise DataError(f"{path}:{number}: expected an object with fields")
            yield row


def _read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                yield from batch.to_pylist()
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not a Parquet file ({error})") from None


def read_texts(path: Path, column: str, unit: str) -> Iterator[str]:
    """The documents of a file: of rows their `column`, of plain text every `unit`.

    `unit` is `file`, `line` or `paragraph` (parted by empty lines). Raises `DataError`.
    """
    if format_of(path) in ("jsonl", "csv", "parquet"):
        for number, row in enumerate(read_rows(path), start=1):
            if not isinstance(row.get(column), str):
                known = ", ".join(map(str, row))
                raise DataError(f"{path}: row {number} has no text in {column!r} (it has: {known})")
            yield row[column]
        return
    if not format_of(path):
        raise DataError(f"{path}: not a format we read ({FORMATS})")
    try:
        with open_text(path) as file:
            yield from _parts(file, unit, path)
    except (UnicodeDecodeError, EOFError) as error:
        raise DataError(f"{path}: not UTF-8 text ({error})") from None
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error})") from None


def _parts(file: TextIO, unit: str, path: Path) -> Iterator[str]:
    if unit == "line":
        yield from read_lines(file, path)
        return
    part: list[str] = []
    length = 0
    for number, line in enumerate(read_lines(file, path), start=1):
        if unit == "file" or line.strip():
            part.append(line)
            length += len(line)
            if length > MOST_CHARACTERS:
                raise DataError(_too_long(f"{path}:{number}: a {unit}"))
        elif part:
            yield "".join(part)
            part, length = [], 0
    if part or unit == "file":
        yield "".join(part)
