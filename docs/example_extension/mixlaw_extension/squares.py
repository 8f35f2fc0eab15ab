"""A dataset: training text by index, and what to ask of a model that has learnt it.

Constructor arguments are the URI's keys: `mixlaw:squares?n=13` is `Squares(n=13)`. Text must
depend on the index alone, so that any process makes the same and a run can be resumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from olmo_mixlaw.datasets.base import Dataset, Ledger, Question
from olmo_mixlaw.errors import DataError


class Squares(Dataset):
    """The squares of the numbers 0 to `n` - 1, over and over."""

    def __init__(self, n: int = 100) -> None:
        if n < 1:
            raise DataError(f"n: {n} numbers have no squares")
        self.n = n

    # `n_documents` stays None: there is a document at every index, without end.
    def document(self, index: int) -> str:
        number = index % self.n
        return f"The square of {number} is {number * number}."

    def heldout(self, n: int | None = None) -> Iterator[str]:
        for number in range(self.n, self.n + (n or 100)):
            yield f"The square of {number} is {number * number}."

    def questions(self, limit: int | None = None) -> list[Question]:
        return [
            Question(
                id=str(number),
                prompt=f"The square of {number} is",
                answer=str(number * number),
                attribute="square",
            )
            for number in range(min(self.n, limit or self.n))
        ]

    def ledger(self, **context: Any) -> Ledger:
        return Ledger([("numbers", self.n, "")])
