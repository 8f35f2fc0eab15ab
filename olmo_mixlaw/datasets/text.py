"""Plain text: the user's files, a `datasets` corpus, or one that every installation carries.

Which documents are held out is decided by a hash of each document, so that the split stays the
same when documents are added, moved or read in another order, and equal documents are always on
the same side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from olmo_mixlaw.datasets.base import Dataset, Ledger
from olmo_mixlaw.datasets.corpora import CORPORA
from olmo_mixlaw.datasets.counting import tokens_a_document
from olmo_mixlaw.datasets.readers import find_files, read_texts
from olmo_mixlaw.errors import DataError, first_line, unknown_name

HUB = "hf:"


class Text(Dataset):
    """Documents of real text, of which a share of `heldout` is never trained on.

    `corpus` is one of those in `corpora.CORPORA`, or `path` says where the text is: a file, a
    folder, a pattern, or `hf:<dataset>` for one that the `datasets` library loads (with its
    `config`, `split` and `revision`). `column` names the text in files of rows; `unit` says what
    a document is in plain text files. At most `max_documents` are read. `seed` makes another
    split.

    Files are read in their order, repeats and all; of a carried corpus repeats are dropped and
    the order is that of the hash. Raises `DataError` for a text without documents.
    """

    def __init__(
        self,
        corpus: str | None = None,
        path: str | None = None,
        heldout: float = 0.05,
        seed: int = 0,
        column: str = "text",
        unit: Literal["paragraph", "line", "file"] = "paragraph",
        config: str | None = None,
        split: str = "train",
        revision: str | None = None,
        max_documents: int | None = None,
    ) -> None:
        if (corpus is None) == (path is None):
            raise DataError(f"give one of corpus ({', '.join(CORPORA)}) and path")
        if corpus is not None and corpus not in CORPORA:
            raise unknown_name("corpus", corpus, CORPORA)
        if not 0 <= heldout < 1:
            raise DataError(f"heldout: {heldout} is not a share of at least 0 and below 1")
        if max_documents is not None and max_documents < 1:
            raise DataError(f"max_documents: {max_documents} is below 1")
        self.corpus, self.path = corpus, path
        self.share, self.seed, self.max_documents = heldout, seed, max_documents
        self.column, self.unit = column, unit
        self.hub = {"config": config, "split": split, "revision": revision}
        self.files: list[Path] = []
        if corpus is not None:
            self.made_from = CORPORA[corpus].tasks
            self.files = CORPORA[corpus].files()
        elif path is not None and not path.startswith(HUB):
            self.files = find_files(path)

    @property
    def sliceable(self) -> bool:  # type: ignore[override]
        return self.corpus is not None or bool(self.files)

    @property
    def endless(self) -> bool:
        return False

    # Reading

    def _everything(self) -> Iterator[str]:
        """All documents, stripped, without empty ones, in the order of the source."""
        texts: Iterator[str]
        if self.corpus is not None:
            read = CORPORA[self.corpus].read
            texts = (text for file in self.files for text in read(file))
        elif self.files:
            texts = (text for f in self.files for text in read_texts(f, self.column, self.unit))
        else:
            texts = self._from_hub()
        stripped = (text.strip() for text in texts)
        return islice((text for text in stripped if text), self.max_documents)

    def _from_hub(self) -> Iterator[str]:
        """The rows of a `datasets` corpus, streamed."""
        assert self.path is not None
        name = self.path.removeprefix(HUB)
        try:
            import datasets
        except ImportError:
            raise DataError(f"path: {self.path}: needs the datasets library (extra hf)") from None
        try:
            rows = datasets.load_dataset(
                name,
                self.hub["config"],
                split=self.hub["split"],
                revision=self.hub["revision"],
                streaming=True,
            )
        except Exception as error:  # whatever the hub, the network or the name got wrong
            first = first_line(error)
            raise DataError(f"path: {self.path}: {first}") from None
        for row in rows:
            if not isinstance(row.get(self.column), str):
                known = ", ".join(row)
                raise DataError(f"path: {self.path}: no text in {self.column!r} (it has: {known})")
            yield row[self.column]

    def _is_heldout(self, text: str) -> bool:
        return _hash(text, self.seed) < self.share * 2.0**64

    @cached_property
    def _carried(self) -> list[str]:
        """The documents of a carried corpus, each once, ordered by hash."""
        once = {_hash(text, self.seed): text for text in self._everything()}
        # The low end of the hash is held out, so what is trained on comes after it.
        return [once[number] for number in sorted(once)]

    def _side(self, heldout: bool) -> Iterator[str]:
        texts = self._carried if self.corpus is not None else self._everything()
        return (text for text in texts if self._is_heldout(text) == heldout)

    # Documents

    @cached_property
    def _train(self) -> list[str]:
        train = list(self._side(heldout=False))
        if not train:
            raise DataError(f"{self.corpus or self.path}: there are no documents to train on")
        return train

    @property
    def n_documents(self) -> int:  # type: ignore[override]
        return len(self._train)

    def document(self, index: int) -> str:
        return self._train[index]

    def documents(self, start: int = 0, stop: int | None = None) -> Iterator[str]:
        """Training documents, read from disk again each time: any number in little memory."""
        return islice(self._side(heldout=False), start, stop)

    def heldout(self, n: int | None = None) -> Iterator[str]:
        return islice(self._side(heldout=True), n)

    def fingerprint(self) -> str:
        """Changes whenever the training documents may have."""
        stats = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in self.files]
        parts = (
            self.corpus,
            self.path,
            self.share,
            self.seed,
            self.column,
            self.unit,
            sorted(self.hub.items(), key=str),
            self.max_documents,
            stats,
        )
        return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()

    def ledger(self, **context: Any) -> Ledger:
        train = heldout = n_bytes = 0
        for text in self._everything() if self.corpus is None else self._carried:
            if self._is_heldout(text):
                heldout += 1
            else:
                train += 1
                n_bytes += len(text.encode())
        if not train:
            raise DataError(f"{self.corpus or self.path}: there are no documents to train on")
        rows: list[tuple[str, Any, str]] = [
            ("documents", train, ""),
            ("held-out documents", heldout, ""),
            ("text", n_bytes, "bytes"),
            ("made from tasks", ", ".join(self.made_from) or "none", ""),
        ]
        if context.get("tokenizer") is not None:
            each = tokens_a_document(self, context["tokenizer"])
            rows.append(("tokens, from the first documents", each * train, "tokens"))
            if context.get("ratio") is not None and context.get("n_tokens") is not None:
                epochs = context["ratio"] * context["n_tokens"] / (each * train)
                rows.append(("epochs", epochs, ""))
        return Ledger(rows)


def _hash(text: str, seed: int) -> int:
    digest = hashlib.blake2b(text.encode(), digest_size=8, salt=str(seed).encode()[:16]).digest()
    return int.from_bytes(digest, "big")
