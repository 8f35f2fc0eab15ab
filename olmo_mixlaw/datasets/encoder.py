"""Tokens of documents by number: stitched where the dataset is made of pieces, else encoded."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from olmo_mixlaw.datasets.base import Dataset
from olmo_mixlaw.datasets.pieces import PieceDataset
from olmo_mixlaw.datasets.stitching import StitchTable, build_table

if TYPE_CHECKING:
    from tokenizers import Tokenizer

log = logging.getLogger(__name__)

_DOCUMENTS_A_BATCH = 256


class Encoder:
    """Tokens of a dataset's documents under a tokenizer, each document ended by end-of-text.

    `stitched` says whether they are looked up and stitched; `why_not` says why they are not.
    """

    def __init__(
        self,
        dataset: Dataset,
        tokenizer: Tokenizer,
        eos_token_id: int,
        dtype: type[np.generic] = np.int64,
    ) -> None:
        self.dataset, self.dtype = dataset, dtype
        self._tokenizer, self._eos = tokenizer, eos_token_id
        self._table: StitchTable | None = None
        self.why_not = f"{type(dataset).__name__} gives plain text"
        if isinstance(dataset, PieceDataset):
            table, self.why_not = build_table(dataset, tokenizer, eos_token_id)
            if table is None:
                log.warning(
                    "%s: text is encoded, not stitched, which is slower: %s",
                    type(dataset).__name__,
                    self.why_not,
                )
            else:
                self._table = replace(table, flat=table.flat.astype(dtype))

    @property
    def stitched(self) -> bool:
        return self._table is not None

    def tokens(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All tokens (total,) of the documents `indices` (N,), and how many each has (N,)."""
        if self._table is not None:
            assert isinstance(self.dataset, PieceDataset)
            return self._table.stitch(self.dataset.rows(indices))
        return self.join(self._texts(indices))

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        """How many tokens (N,) each of the documents `indices` (N,) has."""
        if self._table is not None:
            assert isinstance(self.dataset, PieceDataset)
            return self._table.lengths(self.dataset.rows(indices))
        return self.join(self._texts(indices))[1]

    def join(self, texts: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
        """All tokens (total,) of `texts`, and how many each has (N,)."""
        parts = [
            np.array(ids, self.dtype) for ids in encode_documents(texts, self._tokenizer, self._eos)
        ]
        lengths = np.array([len(part) for part in parts], np.int64)
        return np.concatenate(parts) if parts else np.zeros(0, self.dtype), lengths

    def _texts(self, indices: np.ndarray) -> list[str]:
        if isinstance(self.dataset, PieceDataset):
            return self.dataset.texts(indices)
        return [self.dataset.document(index) for index in indices.tolist()]


def encode_documents(
    documents: Iterable[str], tokenizer: Tokenizer, eos_token_id: int
) -> Iterator[list[int]]:
    """The tokens of every document, end-of-text last."""
    stream = iter(documents)
    while batch := list(islice(stream, _DOCUMENTS_A_BATCH)):
        encoded: list[Any] = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        for encoding in encoded:
            yield [*encoding.ids, eos_token_id]
