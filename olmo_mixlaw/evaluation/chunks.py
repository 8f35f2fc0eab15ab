"""Cut documents into sequences as training does, knowing the bytes that each token stands for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from olmo_mixlaw.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

DOCUMENTS_AT_ONCE = 256


@dataclass(frozen=True)
class Chunks:
    """`ids` (n, T) and `n_bytes` (n, T): UTF-8 bytes of text of each token, 0 for end-of-text."""

    ids: np.ndarray
    n_bytes: np.ndarray


def cut(
    texts: Iterable[str],
    tokenizer: Tokenizer,
    eos_token_id: int,
    length: int,
    max_tokens: int,
    where: str = "",
    bos_token_id: int | None = None,
) -> Chunks:
    """Sequences of `length` tokens from `texts` joined by end-of-text, at most `max_tokens`.

    With `bos_token_id` every document and every sequence begins with that token. Text that
    doesn't fill a last sequence is left out. Raises `DataError` if not even one is filled.
    """
    if length < 2 or max_tokens < length:
        raise DataError(f"{where}: {max_tokens} tokens don't fill a sequence of {length} tokens")
    wanted = max_tokens // length * length
    start = [] if bos_token_id is None else [bos_token_id]
    ids: list[int] = []
    sizes: list[int] = []
    pending: list[str] = []
    iterator = iter(texts)
    done = False
    while not done and len(ids) < wanted:
        # A few documents at once, so that an endless stream is not read further than needed.
        pending = [text for text, _ in zip(iterator, range(DOCUMENTS_AT_ONCE), strict=False)]
        done = len(pending) < DOCUMENTS_AT_ONCE
        encodings = tokenizer.encode_batch(pending, add_special_tokens=False)
        for text, encoding in zip(pending, encodings, strict=True):
            ids += [*start, *encoding.ids, eos_token_id]
            sizes += [*[0] * len(start), *token_bytes(text, encoding), 0]
    rows = _rows(np.asarray(ids, np.int64), length, wanted // length, bos_token_id)
    if not len(rows):
        raise DataError(
            f"{where}: the held-out text has {len(ids)} tokens, fewer than one sequence of {length}"
        )
    # Place -1 is that of a start which isn't in the text.
    return Chunks(
        np.asarray([*ids, *start], dtype=np.int64)[rows], np.asarray([*sizes, 0], np.int64)[rows]
    )


def _rows(ids: np.ndarray, length: int, count: int, bos_token_id: int | None) -> np.ndarray:
    """Places (n, `length`) of the tokens of at most `count` sequences; -1 for an added start."""
    rows: list[np.ndarray] = []
    at = 0
    while len(rows) < count:
        added = bos_token_id is not None and at < len(ids) and ids[at] != bos_token_id
        end = at + length - added
        if end > len(ids):
            break
        rows.append(np.concatenate([np.full(int(added), -1), np.arange(at, end)]))
        at = end
    return np.array(rows, dtype=np.int64).reshape(-1, length)


def token_bytes(text: str, encoding: Encoding) -> Sequence[int]:
    """UTF-8 bytes of `text` that each token accounts for; they sum to the bytes covered.

    A token answers for all text since the end of the one before it. Where one character is
    split over several tokens, the first of them gets its bytes.
    """
    ends = np.fromiter((end for _, end in encoding.offsets), dtype=np.int64)
    if not text.isascii():
        widths = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
        per_character = 1 + (widths > 0x7F) + (widths > 0x7FF) + (widths > 0xFFFF)
        ends = np.concatenate([[0], np.cumsum(per_character)])[ends]
    return np.diff(np.maximum.accumulate(ends), prepend=0).tolist()
