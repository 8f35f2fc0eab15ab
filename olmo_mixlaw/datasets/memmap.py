"""Token files as OLMo reads them: a bare array, and beside it where each document lies.

`<name>.npy` holds nothing but token ids (no header); `<name>.csv.gz` has a line `start, end, id,
src, loc` for each document, in tokens; `<name>.sums.json` has checksums. All appear whole or not.
"""

from __future__ import annotations

import csv
import errno
import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np

from olmo_mixlaw.atomic import open_atomic
from olmo_mixlaw.datasets.encoder import encode_documents
from olmo_mixlaw.datasets.token_file import DTYPES, Summing, Sums, write_sums
from olmo_mixlaw.datasets.tokenizer import fingerprint
from olmo_mixlaw.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MOST_LINE = 1 << 20  # letters of a line of metadata, most of them its source
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def dtype_for(vocab_size: int) -> str:
    """The smallest dtype for these token ids, from uint16, which is OLMo's default, upwards."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


def require_fit(vocab_size: int, dtype: str, where: str = "") -> None:
    """Raise `DataError` if ids of this vocabulary don't fit the dtype, or it is none of OLMo's."""
    place = f"{where}: " if where else ""
    if dtype not in DTYPES:
        raise DataError(f"{place}memmap_dtype: {dtype!r} is none of {', '.join(DTYPES)}")
    most = int(np.iinfo(DTYPES[dtype]).max) + 1
    if vocab_size > most:
        raise DataError(
            f"{place}memmap_dtype: {dtype} holds {most} token ids, the vocabulary has "
            f"{vocab_size}; use {dtype_for(vocab_size)}"
        )


@contextmanager
def disk_trouble(path: Path) -> Iterator[None]:
    """Turn a full disk into a `DataError` that names the file."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DataError(f"{path}: the disk is full; nothing is left half-written") from None
        raise


def write_tokens(
    path: Path,
    parts: Iterable[tuple[np.ndarray, np.ndarray]],
    source: str,
    first_document: int = 0,
    *,
    dtype: str,
    tokenizer: str,
    eos_token_id: int,
) -> tuple[int, int]:
    """Write parts (tokens, lengths of their documents) to `path`, with metadata beside it.

    `dtype`, `tokenizer` (its fingerprint) and `eos_token_id` are what a reader must agree with.
    Returns how many documents and tokens there are; without documents nothing is written. The
    token file gets its name last, so where it is, all is there. Raises `DataError`.
    """
    total = 0
    summing = Summing()
    lengths: list[np.ndarray] = []
    with disk_trouble(path):
        try:
            with open_atomic(path, "wb") as file:
                for tokens, each in parts:
                    data = np.ascontiguousarray(tokens).tobytes()
                    file.write(data)
                    summing.add(data)
                    total += tokens.size
                    lengths.append(each)
                documents = sum(len(each) for each in lengths)
                if not documents:
                    raise _NothingToWrite
                _write_metadata(path, np.cumsum(np.concatenate(lengths)), source, first_document)
                write_sums(path, Sums(dtype, tokenizer, eos_token_id, total, summing.finish()))
        except _NothingToWrite:
            return 0, 0
    return documents, total


class _NothingToWrite(Exception):
    """Ends the writing of a file that would be empty."""


def write_memmap(
    documents: Iterable[str],
    tokenizer: Tokenizer,
    path: str | Path,
    *,
    eos_token_id: int,
    dtype: str | None = None,
    source: str = "",
) -> int:
    """Encode `documents` into the memmap at `path`; returns how many tokens it has.

    `source` goes into the metadata. Raises `DataError` when there are no documents or the
    vocabulary is too large for the dtype.
    """
    vocabulary = max(tokenizer.get_vocab_size(), eos_token_id + 1)
    dtype = dtype or dtype_for(vocabulary)
    require_fit(vocabulary, dtype)
    path = Path(path)
    parts = (
        (np.array(ids, DTYPES[dtype]), np.array([len(ids)]))
        for ids in encode_documents(documents, tokenizer, eos_token_id)
    )
    count, total = write_tokens(
        path,
        parts,
        source,
        dtype=dtype,
        tokenizer=fingerprint(tokenizer),
        eos_token_id=eos_token_id,
    )
    if not count:
        raise DataError(f"{path}: there are no documents to write")
    return total


def _write_metadata(path: Path, ends: np.ndarray, source: str, first_document: int) -> None:
    """Write the documents that end at `ends` (tokens), in order."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    number = np.arange(first_document, first_document + len(ends))
    starts = np.concatenate([[0], ends[:-1]])
    columns = [starts, ends, number, pa.repeat(pa.scalar(source), len(ends)), number]
    table = pa.table(columns, names=["start", "end", "id", "src", "loc"])
    text = io.BytesIO()
    options = arrow_csv.WriteOptions(include_header=False, quoting_style="needed")
    arrow_csv.write_csv(table, text, options)
    with open_atomic(metadata_path(path), "wb") as file:
        # No time in the header: the same documents give the same bytes.
        file.write(gzip.compress(text.getvalue(), compresslevel=1, mtime=0))


def read_metadata(path: Path) -> np.ndarray:
    """Where the documents of a token file start and end (N, 2), in tokens. Raises `DataError`.

    There are no more documents than bytes in the token file: what unpacks to more isn't read.
    """
    file, most = metadata_path(path), path.stat().st_size
    found: list[list[str]] = []
    for number, row in enumerate(metadata_rows(path), start=1):
        if number > most:
            raise DataError(f"{file}: line {number}: more documents than {path.name} has bytes")
        if len(row) < 2 or not (row[0].isdecimal() and row[1].isdecimal()):
            raise DataError(f"{file}: line {number}: expected start, end, id, src, loc")
        found.append(row[:2])
    return np.array(found, np.int64).reshape(-1, 2)


def metadata_rows(path: Path) -> Iterator[list[str]]:
    """The rows of a token file's metadata, one after the other. Raises `DataError`.

    A line may have `MOST_LINE` letters, so that a file that unpacks to one line without an end
    fills no memory.
    """
    file = metadata_path(path)

    def lines(text: TextIO) -> Iterator[str]:
        while line := text.readline(MOST_LINE + 1):
            if len(line) > MOST_LINE:
                raise DataError(f"{file}: a line of more than {MOST_LINE >> 20} Mi characters")
            yield line

    try:
        with gzip.open(file, "rt", encoding="utf-8") as text:
            yield from csv.reader(lines(text))
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error) as error:
        raise DataError(f"{file}: can't be read ({error})") from None


def metadata_path(path: Path) -> Path:
    """The metadata file of the memmap `path`, as `dolma tokens` names it."""
    return path.with_suffix(".csv.gz")
