"""Ledgers: what a dataset contains, and what that means for a model and a token budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from olmo_mixlaw.datasets.base import Dataset, Ledger
from olmo_mixlaw.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# What a transformer stores at best (arXiv 2404.05405).
BITS_A_PARAMETER = 2.0
_MEASURED = 2000


def tokens_a_document(dataset: Dataset, tokenizer: Tokenizer, measured: int = _MEASURED) -> float:
    """Mean tokens of a training document, end-of-text included, over the first `measured`.

    Raises `DataError` where there are none.
    """
    texts = list(dataset.documents(0, measured))
    if not texts:
        raise DataError("there are no documents to train on")
    encoded = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return float(np.mean([len(one.ids) for one in encoded])) + 1.0


def knowledge_ledger(
    dataset: Dataset,
    rows: list[tuple[str, Any, str]],
    *,
    facts: int,
    bits: float,
    unit: str,
    tokenizer: Tokenizer | None = None,
    ratio: float | None = None,
    n_tokens: int | None = None,
) -> Ledger:
    """`rows`, and what follows from `facts` (people, items) that hold `bits` in all.

    With a tokenizer: tokens an exposure. With the source's `ratio` and the run's `n_tokens`
    too: exposures a fact, r S / (n t) (arXiv 2505.18091).
    """
    rows = [
        *rows,
        ("bits in all", bits, "bits"),
        (f"parameters filled at {BITS_A_PARAMETER:g} bits each", bits / BITS_A_PARAMETER, ""),
    ]
    if tokenizer is not None:
        each = tokens_a_document(dataset, tokenizer)
        rows.append(("tokens an exposure", each, f"tokens/{unit}"))
        rows.append(("tokens to show everything once", each * facts, "tokens"))
        if ratio is not None and n_tokens is not None:
            rows.append(
                (
                    f"exposures a {unit}, ratio {ratio:g}, {n_tokens:,} tokens",
                    ratio * n_tokens / (facts * each),
                    "",
                )
            )
    return Ledger(rows)


def skill_rows(
    dataset: Dataset,
    *,
    tokenizer: Tokenizer | None = None,
    ratio: float | None = None,
    n_tokens: int | None = None,
) -> list[tuple[str, Any, str]]:
    """What a tokenizer, a ratio and a token budget say about a stream of problems."""
    if tokenizer is None:
        return []
    each = tokens_a_document(dataset, tokenizer)
    rows: list[tuple[str, Any, str]] = [("tokens a problem", each, "tokens")]
    if ratio is not None and n_tokens is not None:
        rows.append(
            (f"problems, ratio {ratio:g}, {n_tokens:,} tokens", ratio * n_tokens / each, "")
        )
    return rows
