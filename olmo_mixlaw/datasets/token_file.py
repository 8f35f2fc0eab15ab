"""A token file, and whether it is what it is taken for: a loss on wrong numbers looks like any.

Format, size, dtype, ids, tokenizer and a sample of the bytes are checked when it is opened, and
what is read later as it is read. Beside a file of ours lie the checksums of its blocks.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from olmo_mixlaw.atomic import write_text
from olmo_mixlaw.errors import DataError

DTYPES: dict[str, type[np.unsignedinteger[Any]]] = {
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
}
PLAN = "plan.json"
# A checksum a block: to check one sequence, no more than this is read besides it.
BLOCK_BYTES = 1 << 18
# Bytes that its sums may have: of what isn't a block's, and of a block's number with its comma.
LEAST_SUMS = 1 << 16
SUM_LETTERS = 12
MOST_PLAN = 1 << 24  # bytes of a plan.json
AGAIN = "delete it and make it again"
_SAMPLES = 64
_SAMPLE_TOKENS = 1024
# Fewer than this say nothing about what a file is.
_TELLING = 16
_MAGIC = {
    b"\x93NUMPY": "was written by numpy.save; a token file is bare (array.tofile)",
    b"PK\x03\x04": "is a zip archive (numpy.savez?); a token file is bare (array.tofile)",
    b"\x1f\x8b": "is compressed with gzip; unpack it first",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd; unpack it first",
    b"PAR1": "is a Parquet file; read it as mixlaw:text?path=...",
    b"\x89HDF": "is an HDF5 file",
}
_TEXT_SUFFIXES = frozenset(
    (".jsonl", ".json", ".txt", ".md", ".csv", ".tsv", ".parquet", ".gz", ".zst", ".zip")
)
# Control characters that text has: tab, line feed, form feed, carriage return.
_IN_TEXT = (9, 10, 12, 13)


@dataclass(frozen=True)
class Expected:
    """What a run takes its token files for; None where it doesn't know.

    `vocab_size` is one more than the largest id there may be; `tokenizer` a fingerprint.
    """

    dtype: str
    vocab_size: int | None = None
    tokenizer: str | None = None
    eos_token_id: int | None = None


@dataclass(frozen=True)
class Sums:
    """What we wrote into a token file, as its `.sums.json` keeps it."""

    dtype: str
    tokenizer: str
    eos_token_id: int
    tokens: int
    crc32: list[int]


class Summing:
    """Checksums of blocks, taken while their bytes are written."""

    def __init__(self) -> None:
        self.crc32: list[int] = []
        self._rest = b""

    def add(self, data: bytes) -> None:
        data = self._rest + data
        whole = len(data) - len(data) % BLOCK_BYTES
        view = memoryview(data)
        self.crc32 += [zlib.crc32(view[a : a + BLOCK_BYTES]) for a in range(0, whole, BLOCK_BYTES)]
        self._rest = data[whole:]

    def finish(self) -> list[int]:
        if self._rest:
            self.crc32.append(zlib.crc32(self._rest))
            self._rest = b""
        return self.crc32


def sums_path(path: Path) -> Path:
    """Where the checksums of the token file `path` are kept."""
    return path.with_suffix(".sums.json")


def write_sums(path: Path, sums: Sums) -> None:
    write_text(sums_path(path), json.dumps(asdict(sums)) + "\n")


def read_sums(path: Path, where: str = "") -> Sums | None:
    """The checksums of the token file `path`, if it has any. Raises `DataError`."""
    file = sums_path(path)
    if not file.is_file():
        return None
    blocks = -(-path.stat().st_size // BLOCK_BYTES) if path.is_file() else 0
    try:
        if file.stat().st_size > LEAST_SUMS + SUM_LETTERS * blocks:
            raise ValueError("more than the sums of its blocks")
        return _whole(Sums(**json.loads(file.read_text(encoding="utf-8"))))
    except (ValueError, TypeError):
        place = f"{where}: " if where else ""
        raise DataError(f"{place}{file}: is damaged; make {path.name} again") from None


def stored_dtype(path: Path) -> str | None:
    """The dtype that lies beside the token file `path`; None where nothing says it."""
    sums = read_sums(path)
    found = _plan_beside(path).get("dtype") if sums is None else sums.dtype
    return found if found in DTYPES else None


def _whole(sums: Sums) -> Sums:
    """`sums`, if they are what we write of so many tokens. Raises `ValueError`, `TypeError`."""
    numbers = (sums.tokens, sums.eos_token_id, *sums.crc32)
    if not all(type(value) is int for value in numbers) or sums.dtype not in DTYPES:
        raise ValueError("not numbers of tokens")
    size = sums.tokens * np.dtype(DTYPES[sums.dtype]).itemsize
    if len(sums.crc32) != -(-size // BLOCK_BYTES) or not isinstance(sums.tokenizer, str):
        raise ValueError("not the sums of so many tokens")
    return sums


class TokenFile:
    """The tokens of a file, mapped into memory. Raises `DataError` for what is no token file,
    and for one of another dtype, vocabulary or tokenizer than expected."""

    def __init__(self, path: Path, expected: Expected, where: str = "") -> None:
        self.path, self.expected = path, expected
        self._place = f"{where}: {path}" if where else str(path)
        self._require_format()
        self._sums = read_sums(path, where)
        self._require_origin()
        size, item = path.stat().st_size, np.dtype(DTYPES[expected.dtype]).itemsize
        if size == 0 or size % item:
            self._refuse(f"{size} bytes are no whole number of {expected.dtype} tokens")
        self.tokens = np.memmap(path, DTYPES[expected.dtype], mode="r")
        self._checked = np.zeros(-(-size // BLOCK_BYTES), bool)
        if self._sums is not None:
            if self.tokens.size != self._sums.tokens:
                self._refuse(f"has {self.tokens.size} of its {self._sums.tokens} tokens; {AGAIN}")
            spread = np.linspace(0, len(self._checked) - 1, _SAMPLES).astype(int)
            for block in sorted(set(spread.tolist())):
                self._check_block(block)
        self._check_sample()

    def read(self, start: int, stop: int) -> np.ndarray:
        """Token ids (stop - start,) int64, checked. Raises `DataError`."""
        if self._sums is not None:
            item = self.tokens.itemsize
            for block in range(start * item // BLOCK_BYTES, (stop * item - 1) // BLOCK_BYTES + 1):
                if not self._checked[block]:
                    self._check_block(block)
        ids = self.tokens[start:stop].astype(np.int64)
        self._check_range(ids, start)
        return ids

    def _refuse(self, problem: str) -> None:
        raise DataError(f"{self._place}: {problem}")

    def _require_format(self) -> None:
        path = self.path
        if not path.is_file():
            self._refuse("no such file")
        with open(path, "rb") as file:
            head = file.read(2 * _SAMPLE_TOKENS)
        for magic, problem in _MAGIC.items():
            if head.startswith(magic):
                self._refuse(problem)
        text = self.expected.dtype != "uint8" and len(head) >= _TELLING and _is_text(head)
        if text or path.suffix.lower() in _TEXT_SUFFIXES:
            self._refuse(f"is text, not token ids; read it as mixlaw:text?path={path}")

    def _require_origin(self) -> None:
        """Raise `DataError` if the file says that it was made for other settings."""
        known: dict[str, Any] = {} if self._sums is None else asdict(self._sums)
        known = known or _plan_beside(self.path)
        dtype, tokenizer, eos = (known.get(k) for k in ("dtype", "tokenizer", "eos_token_id"))
        want = self.expected
        if dtype in DTYPES and dtype != want.dtype:
            self._refuse(f"holds {dtype} tokens, not {want.dtype}; set data.memmap_dtype: {dtype}")
        if tokenizer and want.tokenizer and tokenizer != want.tokenizer:
            self._refuse(
                "was made with another tokenizer than this run's; name that one in "
                "tokenizer.identifier, or make the file again"
            )
        if None not in (eos, want.eos_token_id) and eos != want.eos_token_id:
            self._refuse(
                f"its documents end with token {eos}, this run's with {want.eos_token_id}; "
                f"set model.eos_token_id: {eos}, or make the file again"
            )

    def _check_block(self, block: int) -> None:
        assert self._sums is not None
        data = self.tokens.view(np.uint8)[block * BLOCK_BYTES : (block + 1) * BLOCK_BYTES]
        if zlib.crc32(data.data) != self._sums.crc32[block]:
            first = block * BLOCK_BYTES // self.tokens.itemsize
            self._refuse(f"is damaged from token {first} on; {AGAIN}")
        self._checked[block] = True

    def _check_sample(self) -> None:
        tokens, want = self.tokens, self.expected
        chunks = [tokens[a : a + _SAMPLE_TOKENS] for a in _spread_starts(tokens.size)]
        sample = np.concatenate(chunks)
        if tokens.size >= _TELLING and not sample.any():
            self._refuse("holds nothing but token 0; was its writing cut short?")
        if len(chunks) > 1 and not tokens[-_SAMPLE_TOKENS:].any():
            self._refuse(f"its last {_SAMPLE_TOKENS} tokens are all 0; was its writing cut short?")
        if want.vocab_size is None:
            return
        wider = [name for name in DTYPES if np.dtype(DTYPES[name]).itemsize > tokens.itemsize]
        for name in reversed(wider):
            if tokens.nbytes % np.dtype(DTYPES[name]).itemsize == 0 and _reads_as(
                chunks, name, want.vocab_size
            ):
                self._refuse(
                    f"holds {name} tokens, not {want.dtype} (most of every second id is 0); "
                    f"set data.memmap_dtype: {name}"
                )
        for start, chunk in zip(_spread_starts(tokens.size), chunks, strict=True):
            self._check_range(chunk, start)

    def _check_range(self, ids: np.ndarray, start: int) -> None:
        limit = self.expected.vocab_size
        if limit is None or ids.max() < limit:
            return
        at = int(np.argmax(ids >= limit))
        problem = f"token {start + at} is {ids[at]}, beyond the {limit} of the vocabulary"
        name = self._narrower()
        if name is None:
            self._refuse(f"{problem}; was it made with another tokenizer or dtype?")
        self._refuse(f"{problem}; it reads as {name}: set data.memmap_dtype: {name}")

    def _narrower(self) -> str | None:
        """The dtype of fewer bytes that the file's ids have, if most make no sense in this one."""
        limit = self.expected.vocab_size
        assert limit is not None
        chunks = [self.tokens[a : a + _SAMPLE_TOKENS] for a in _spread_starts(self.tokens.size)]
        if np.mean(np.concatenate(chunks) >= limit) < 0.5:
            return None
        for name, dtype in reversed(DTYPES.items()):
            narrower = np.dtype(dtype).itemsize < self.tokens.itemsize
            if narrower and limit <= np.iinfo(dtype).max + 1 and _reads_as(chunks, name, limit):
                return name
        return None


def _spread_starts(n_tokens: int) -> list[int]:
    """Where the chunks of a sample begin: at whole multiples, the first and the last among them."""
    last = max(n_tokens - 1, 0) // _SAMPLE_TOKENS
    numbers = sorted(set(np.linspace(0, last, _SAMPLES).astype(int).tolist()))
    return [number * _SAMPLE_TOKENS for number in numbers]


def _reads_as(chunks: Iterable[np.ndarray], dtype: str, vocab_size: int) -> bool:
    """Whether these bytes are ids of the vocabulary when taken for `dtype`."""
    item = np.dtype(DTYPES[dtype]).itemsize
    parts = []
    for chunk in chunks:
        data = chunk.view(np.uint8)
        parts.append(data[: data.size - data.size % item].view(DTYPES[dtype]))
    ids = np.concatenate(parts)
    return ids.size >= _TELLING and bool(ids.any()) and int(ids.max()) < vocab_size


def _is_text(head: bytes) -> bool:
    """Whether the first bytes of a file are UTF-8 without the control bytes that ids have."""
    if any(byte < 32 and byte not in _IN_TEXT for byte in head):
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        # A character may be cut in two where the head ends.
        return error.start >= len(head) - 3
    return True


def _plan_beside(path: Path) -> dict[str, Any]:
    """The plan of the folder that `data make` wrote `path` into; empty where there is none."""
    file = path.parent / PLAN
    if not file.is_file() or file.stat().st_size > MOST_PLAN:
        return {}
    try:
        plan = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return plan if isinstance(plan, dict) and "documents_a_shard" in plan else {}
