"""Tokens of documents that are rows of pieces, looked up and stitched, not encoded.

The pieces' tokens are joined as their texts are, once it is verified for a tokenizer that this
is how the text encodes. It is array indexing: some fifty times the speed of encoding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from olmo_mixlaw.datasets.pieces import PieceDataset, offsets

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# What may stand before a piece when its tokens are found, tried in this order.
_ANCHORS = ("x", ".", " a", "\n", " 7", ":")
_SAMPLED_DOCUMENTS = 256
_SEARCHED_DOCUMENTS = 1 << 16
_BASE_DOCUMENTS = 3
_COVERED_ONE_BY_ONE = 1000


@dataclass(frozen=True)
class StitchTable:
    """The tokens of every piece: `flat[start[p] : start[p] + length[p]]` for piece p.

    The last piece is the end-of-text token.
    """

    flat: np.ndarray
    start: np.ndarray
    length: np.ndarray

    def stitch(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (total,) of `rows` (N, width), each ended by end-of-text, and lengths (N,)."""
        count, width = rows.shape
        ended = np.empty((count, width + 1), np.intp)
        ended[:, :width] = rows
        ended[:, width] = len(self.start) - 1
        numbers = ended.ravel()
        length = self.length[numbers]
        ends = np.cumsum(length)
        where = np.repeat(self.start[numbers] - (ends - length), length)
        where += np.arange(where.size, dtype=where.dtype)
        per_row = np.diff(ends[width :: width + 1], prepend=0)
        return self.flat[where], per_row

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Tokens (N,) of every row, end-of-text included."""
        return self.length[rows].sum(axis=1) + self.length[-1]


def build_table(
    dataset: PieceDataset, tokenizer: Tokenizer, eos_token_id: int
) -> tuple[StitchTable | None, str]:
    """The stitch table of a dataset under a tokenizer, or None and why there can be none.

    Every piece is put in the place of every other of its kind in several documents, and these
    and a sample of plain documents must encode to exactly the stitched tokens. Pieces of very
    large kinds are checked between their neighbours only.
    """
    groups = dataset.groups()
    pieces = dataset.pieces()
    first = offsets(groups)
    shown, closed = dataset.closed_groups()
    sample, with_each, unseen = _sample(dataset, shown, groups, first)
    if unseen:
        return None, f"its first {_SEARCHED_DOCUMENTS} documents never show a {unseen}"
    openers = _kinds_at_start(sample, groups, first)
    tokens, troubled = _in_context(tokenizer, pieces, openers)
    if troubled:
        return None, f"the tokens of {troubled!r} depend on the text before it"
    table = _table([*tokens, [eos_token_id]])
    base = np.concatenate([sample[:_BASE_DOCUMENTS], with_each])
    covering = _covering_rows(base, groups, first, closed)
    rows = np.concatenate([sample, covering])
    around = _neighbourhoods(sample, groups, first)
    for checked in (rows, around):
        if trouble := _disagreement(table, checked, pieces, tokenizer, openers):
            return None, f"pieces of {trouble!r} merge across their borders"
    return table, ""


def _sample(
    dataset: PieceDataset, shown: int, groups: Mapping[str, Sequence[str]], first: Mapping[str, int]
) -> tuple[np.ndarray, np.ndarray, str]:
    """The first documents, one with each kind that isn't among the very first, and a kind
    that none has.
    """
    count = max(_SAMPLED_DOCUMENTS, shown)
    sample = dataset.rows(np.arange(count))
    rows, found = sample, []
    for name, group in groups.items():
        while True:
            has = ((rows >= first[name]) & (rows < first[name] + len(group))).any(axis=1)
            if has.any() or len(rows) >= _SEARCHED_DOCUMENTS:
                break
            rows = dataset.rows(np.arange(min(4 * len(rows), _SEARCHED_DOCUMENTS)))
        if not has.any():
            return sample, sample[:0], name
        if not has[:_BASE_DOCUMENTS].any():
            found.append(rows[int(np.argmax(has))])
    with_each = np.unique(np.array(found, sample.dtype).reshape(-1, sample.shape[1]), axis=0)
    return np.concatenate([sample, with_each]), with_each, ""


def _kinds_at_start(
    sample: np.ndarray, groups: Mapping[str, Sequence[str]], first: Mapping[str, int]
) -> set[int]:
    """All pieces of the kinds that documents begin with."""
    seen = set(np.unique(sample[:, 0]).tolist())
    spans = (range(first[name], first[name] + len(group)) for name, group in groups.items())
    return {number for span in spans if seen & set(span) for number in span}


def _in_context(
    tokenizer: Tokenizer, pieces: list[str], openers: Set[int]
) -> tuple[list[list[int]], str]:
    """The tokens of every piece where it stands, and the text of one that has none."""
    tokens: list[list[int] | None] = [None] * len(pieces)
    tokens[0] = []
    missing = [number for number in range(1, len(pieces)) if number not in openers]
    for anchor in _ANCHORS:
        prefix = _ids(tokenizer, anchor)
        texts = [anchor + pieces[number] for number in missing]
        for number, encoding in zip(missing, _encode(tokenizer, texts), strict=True):
            if encoding[: len(prefix)] == prefix:
                tokens[number] = encoding[len(prefix) :]
        missing = [number for number in missing if tokens[number] is None]
    alone = sorted(openers)
    for number, encoding in zip(
        alone, _encode(tokenizer, [pieces[number] for number in alone]), strict=True
    ):
        tokens[number] = encoding
    return [ids or [] for ids in tokens], pieces[missing[0]] if missing else ""


def _disagreement(
    table: StitchTable, rows: np.ndarray, pieces: list[str], tokenizer: Tokenizer, openers: Set[int]
) -> str:
    """A text of `rows` whose tokens are not the stitched ones; empty if there is none.

    Rows that don't begin as documents do are compared after the tokens of their first piece.
    """
    if not len(rows):
        return ""
    texts = ["".join([pieces[p] for p in row]) for row in rows.tolist()]
    stitched, per_row = table.stitch(rows)
    begin = np.concatenate([[0], np.cumsum(per_row)])
    heads = {int(p): _ids(tokenizer, pieces[p]) for p in np.unique(rows[:, 0])}
    for i, plain in enumerate(_encode(tokenizer, texts)):
        expected = stitched[begin[i] : begin[i + 1] - 1].tolist()
        head = int(rows[i, 0])
        if head not in openers:
            expected = heads[head] + expected[int(table.length[head]) :]
        if plain != expected:
            return texts[i][:60]
    return ""


def _encode(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [e.ids for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


def _table(encoded: list[list[int]]) -> StitchTable:
    length = np.array([len(ids) for ids in encoded], np.int64)
    flat = np.array([token for ids in encoded for token in ids], np.int64)
    return StitchTable(flat, np.cumsum(length) - length, length)


def _covering_rows(
    base: np.ndarray,
    groups: Mapping[str, Sequence[str]],
    first: Mapping[str, int],
    closed: Set[str],
) -> np.ndarray:
    """Rows in which every piece stands in every place where `base` has one of its kind.

    Pieces of the `closed` kinds stay as they are.
    """
    starts = np.array([first[name] for name in groups])
    sizes = np.array([len(group) for group in groups.values()])
    opened = [len(group) for name, group in groups.items() if name not in closed]
    turns = np.arange(min(max(opened, default=0), _COVERED_ONE_BY_ONE))
    kind = np.searchsorted(starts, base, side="right") - 1
    kept = np.array([name in closed for name in groups])[kind] | (base == 0)
    covered = starts[kind] + (turns[:, None, None] + base - starts[kind]) % sizes[kind]
    return np.where(kept, base, covered).reshape(-1, base.shape[1])


def _neighbourhoods(
    sample: np.ndarray, groups: Mapping[str, Sequence[str]], first: Mapping[str, int]
) -> np.ndarray:
    """Every piece of the very large kinds, between its neighbours in `sample` (rows of 3)."""
    found = [np.zeros((0, 3), np.int64)]
    for name, group in groups.items():
        if len(group) <= _COVERED_ONE_BY_ONE:
            continue
        inside = (sample >= first[name]) & (sample < first[name] + len(group))
        for row, places in zip(sample, inside, strict=True):
            if places.any():
                place = int(np.argmax(places))
                numbers = np.arange(first[name], first[name] + len(group))
                before = np.full_like(numbers, row[place - 1] if place else 0)
                after = np.full_like(numbers, row[place + 1] if place + 1 < len(row) else 0)
                found.append(np.stack([before, numbers, after], axis=1))
                break
    return np.concatenate(found)
