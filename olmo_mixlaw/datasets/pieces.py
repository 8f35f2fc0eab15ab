"""Documents as rows of pieces: which words and phrases each consists of, by number.

A generator gives its pieces and the rows; text is the pieces joined, and `stitching` joins
their tokens without encoding it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from olmo_mixlaw.datasets.base import Dataset

_TEXTS_AT_ONCE = 256


class PieceDataset(Dataset):
    """A dataset whose documents are rows of pieces; piece 0 is the empty one that fills a row.

    A subclass gives `groups` and `rows`; text and tokens follow.
    """

    #: Exposures are drawn with this seed; facts never depend on it.
    exposure_seed: int = 0

    @abstractmethod
    def groups(self) -> Mapping[str, Sequence[str]]:
        """The pieces by kind; numbered from 1 in the order given, kind after kind.

        Any piece of a kind may stand wherever another of its kind stands.
        """

    def closed_groups(self) -> tuple[int, frozenset[str]]:
        """How many first documents show every piece that some kinds ever show, and these kinds.

        Spares `stitching.build_table` the words of a large pool that a small dataset never uses.
        """
        return 0, frozenset()

    @abstractmethod
    def rows(self, indices: np.ndarray) -> np.ndarray:
        """The pieces (N, width) int of the documents `indices` (N,), filled up with 0."""

    def facts(self, indices: np.ndarray) -> np.ndarray:
        """Which fact or person (N,) int each of the documents `indices` (N,) shows."""
        raise NotImplementedError(f"{type(self).__name__} has no fixed facts to count")

    def pieces(self) -> list[str]:
        """All pieces by number."""
        return ["", *(piece for group in self.groups().values() for piece in group)]

    def document(self, index: int) -> str:
        return self.texts(np.array([index]))[0]

    def documents(self, start: int = 0, stop: int | None = None) -> Iterator[str]:
        while stop is None or start < stop:
            end = start + _TEXTS_AT_ONCE if stop is None else min(start + _TEXTS_AT_ONCE, stop)
            yield from self.texts(np.arange(start, end))
            start = end

    def texts(self, indices: np.ndarray) -> list[str]:
        """The texts of the documents `indices`."""
        pieces = self._cached_pieces()
        return ["".join([pieces[p] for p in row]) for row in self.rows(indices).tolist()]

    def _cached_pieces(self) -> list[str]:
        if not hasattr(self, "_pieces"):
            self._pieces = self.pieces()
        return self._pieces


def offsets(groups: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """The number of the first piece of every kind."""
    result, number = {}, 1
    for name, group in groups.items():
        result[name] = number
        number += len(group)
    return result
