"""How many tokens a source has: of token files their size, of a dataset an encoding of its text.

What can't be counted here (files in a bucket, a dataset without a tokenizer) stays uncounted: a
prior or a cap that needs it says so.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from olmo_mixlaw.datasets import open_dataset
from olmo_mixlaw.datasets.encoder import encode_documents
from olmo_mixlaw.datasets.token_file import Expected, TokenFile, stored_dtype
from olmo_mixlaw.datasets.tokens import token_paths
from olmo_mixlaw.errors import DataError
from olmo_mixlaw.swarm.sources import Source

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Characters of a dataset that are encoded; the rest is taken to be like them.
ENCODED = 4_000_000
OLMO_DTYPE = "uint16"


def counted(
    source: Source, *, dtype: str | None = None, tokenizer: Tokenizer | None = None, where: str = ""
) -> Source:
    """`source` with its tokens counted, and those of its parts, where it doesn't say them.

    `dtype` is that of token files which don't say theirs; `tokenizer` encodes datasets. Raises
    `DataError` for files that aren't there or hold no tokens; `where` (file and key) goes into it.
    """
    parts = tuple(
        counted(part, dtype=dtype, tokenizer=tokenizer, where=f"{where}.parts.{part.name}")
        for part in source.parts
    )
    if parts or not math.isnan(source.tokens):
        return replace(source, parts=parts)
    if source.uri is not None:
        return replace(source, tokens=dataset_tokens(source.uri, tokenizer, where))
    if any("://" in name for name in source.paths):
        return source
    found = [path for name in source.paths for path in token_paths(name, where)]
    tokens = float(sum(_size(path, dtype, where) for path in found)) if found else math.nan
    return replace(source, tokens=tokens)


def dataset_tokens(uri: str, tokenizer: Tokenizer | None, where: str = "") -> float:
    """Tokens of one pass over a dataset, end-of-text included; infinite for one without end.

    The first `ENCODED` characters are encoded and the rest counted in them. NaN without a
    tokenizer. Raises `DataError` for a dataset without text.
    """
    dataset = open_dataset(uri, where)
    if dataset.endless:
        return math.inf
    if tokenizer is None:
        return math.nan
    some, encoded, characters, documents = [], 0, 0, 0
    for text in dataset.documents():
        if encoded < ENCODED:
            some.append(text)
            encoded += len(text)
        characters += len(text)
        documents += 1
    ids = sum(len(one) - 1 for one in encode_documents(some, tokenizer, 0))
    if not encoded:
        raise DataError(f"{where}: {uri}: holds no text")
    return ids * (characters / encoded) + documents


def _size(path: Path, dtype: str | None, where: str) -> int:
    stored = stored_dtype(path) or dtype or OLMO_DTYPE
    return TokenFile(path, Expected(stored), where).tokens.size
