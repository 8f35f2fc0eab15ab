"""Tokenizers: load one, train a small one, and check that text survives the round trip."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from olmo_mixlaw.atomic import write_text
from olmo_mixlaw.carried import carried
from olmo_mixlaw.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from olmo_mixlaw.datasets.base import Dataset

END_OF_TEXT = "<|endoftext|>"
PADDING = "<|padding|>"
# What the end of a text is called in public tokenizers, the likelier name first.
_ENDS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]")
_BYTES = 256
# Every kind of character that real text has.
PROBE = "Ada Lovelace was born on 10 December 1815.\n\tx = {'a': 3.5}  # naïve café – 東京\n"


def load_tokenizer(path: str | Path, where: str = "") -> Tokenizer:
    """The tokenizer in the file `path`, or that OLMo's wheels carry under this name.

    OLMo's names are those of its configs, such as
    `tokenizers/allenai_gpt-neox-olmo-dolma-v1_5.json`. Raises `DataError`.
    """
    from tokenizers import Tokenizer

    place = f"{where}: " if where else ""
    file = Path(path)
    if not file.is_file():
        file = carried(path) or file
    if not file.is_file():
        raise DataError(f"{place}{path}: no such tokenizer file")
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises the bare class
        raise DataError(f"{place}{path}: not a tokenizers JSON file ({error})") from None


def train_tokenizer(documents: Iterable[str], vocab_size: int, path: str | Path) -> Tokenizer:
    """Train a byte-level BPE of `vocab_size` entries on `documents` and save it at `path`.

    Id 0 is the end-of-text token and id 1 the padding token; the 256 bytes are always there, so
    every text survives the round trip. The same documents give the same file. The vocabulary is
    smaller than asked where the text has too few different pairs. Raises `DataError`.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    least = _BYTES + 2
    if vocab_size < least:
        raise DataError(f"vocab_size: {vocab_size} is below {least} (the bytes and two markers)")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT, PADDING],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    if tokenizer.get_vocab_size() == least:
        raise DataError("train_tokenizer: no documents to learn from")
    write_text(path, tokenizer.to_str(pretty=False))
    return tokenizer


def first_characters(dataset: Dataset, characters: int) -> Iterator[str]:
    """Training documents from the first on, until they hold `characters` characters."""
    for text in dataset.documents():
        if characters <= 0:
            return
        characters -= len(text)
        yield text


def require_round_trip(tokenizer: Tokenizer, texts: Iterable[str], where: str = "") -> None:
    """Raise `DataError` if encoding and decoding one of `texts` gives another text."""
    place = f"{where}: " if where else ""
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        decoded = tokenizer.decode(ids, skip_special_tokens=False)
        if decoded.strip() != text.strip():
            raise DataError(
                f"{place}this tokenizer doesn't round-trip: {text[:40]!r} comes back as "
                f"{decoded[:40]!r}"
            )


def fingerprint(tokenizer: Tokenizer) -> str:
    """A hash by which two tokenizers are known to be the same."""
    return hashlib.blake2b(tokenizer.to_str().encode(), digest_size=16).hexdigest()


def end_of_text(tokenizer: Tokenizer, where: str = "") -> int:
    """The id of the tokenizer's end-of-text token. Raises `DataError` if it has none we know."""
    for name in _ENDS:
        if (token := tokenizer.token_to_id(name)) is not None:
            return token
    place = f"{where}: " if where else ""
    raise DataError(f"{place}the tokenizer names no end-of-text token; give its id")


def wrong_end(tokenizer: Tokenizer, eos_token_id: int) -> str | None:
    """What is wrong with ending documents by `eos_token_id`; None where nothing is known to be.

    OLMo's own configurations have ended documents with `|||IP_ADDRESS|||`.
    """
    ends = {name: tokenizer.token_to_id(name) for name in _ENDS}
    ends = {name: number for name, number in ends.items() if number is not None}
    if not ends or eos_token_id in ends.values():
        return None
    name, number = next(iter(ends.items()))
    token = tokenizer.id_to_token(eos_token_id)
    what = "no token" if token is None else repr(token)
    return f"{eos_token_id} is {what} here; this tokenizer's end of text, {name!r}, is {number}"
