"""Facts about real things from the user's own table: names, fields, documents, paraphrases.

A row is an entity. Its documents are the table's own texts, or plain sentences made from its
fields; compact tuples are made from the fields too. Bits are counted from the values' own
frequencies, since nobody knows the distribution that they came from.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from olmo_mixlaw.datasets.base import Ledger, Question
from olmo_mixlaw.datasets.counting import knowledge_ledger
from olmo_mixlaw.datasets.draws import below, bits, key_of, permute, unit
from olmo_mixlaw.datasets.exposure import Exposure, make_exposure
from olmo_mixlaw.datasets.pieces import PieceDataset, offsets
from olmo_mixlaw.datasets.readers import find_files, read_rows
from olmo_mixlaw.errors import DataError

_MEASURED = 1000
_HELDOUT = 1000
_GROUPS = 10


class Table(PieceDataset):
    """The entities of the file `path` (CSV, JSON lines or Parquet), met again and again.

    `name` is the column with the entity's name, `fields` (comma-separated) those with its facts;
    without, all columns but the others named here. `documents` is the column with its text or
    list of texts (paraphrases), one of which is drawn at each exposure; without it, sentences
    are made of the pattern `sentence`, in which {name}, {field} and {value} stand for
    themselves, in shuffled order. `compact` is the share of text, in bytes, that comes as
    tuples. `popularity` is a column of numbers by which exposures are shared out; without it
    each entity comes once an epoch. `subsample`, `bits` and `cap` are those of `biography`.

    Raises `DataError` for a missing column, a repeated name or an empty value.
    """

    def __init__(
        self,
        path: str,
        name: str = "name",
        fields: str | None = None,
        documents: str | None = None,
        popularity: str | None = None,
        sentence: str = "The {field} of {name} is {value}.",
        compact: float = 0.0,
        subsample: float = 1.0,
        bits: float | None = None,
        cap: float | None = None,
        seed: int = 0,
    ) -> None:
        self.seed, self.exposure_seed, self.compact = seed, seed, compact
        if not 0 <= compact <= 1:
            raise DataError(f"compact: {compact} is not a share between 0 and 1")
        rows = [row for file in find_files(path) for row in read_rows(file)]
        if not rows:
            raise DataError(f"path: {path}: there are no rows")
        special = {name, documents, popularity}
        wanted = fields.split(",") if fields else [c for c in rows[0] if c not in special]
        self.fields = [field.strip() for field in wanted]
        for column in (name, *self.fields, documents, popularity):
            if column is not None and column not in rows[0]:
                raise DataError(
                    f"path: {path}: no column {column!r} (it has: {', '.join(rows[0])})"
                )
        if not self.fields:
            raise DataError("fields: a table needs at least one column of facts")
        if popularity is not None:
            rows.sort(key=lambda row: -_number(row, popularity, path))
        self.names = [_text(row, name, path) for row in rows]
        twice = [word for word, n in Counter(self.names).items() if n > 1]
        if twice:
            raise DataError(f"path: {path}: {name}: {twice[0]!r} names more than one row")
        self.values = [[_text(row, field, path) for field in self.fields] for row in rows]
        self.texts_of = [_texts(row, documents, path) for row in rows] if documents else None
        self.before, self.after = _pattern(sentence)
        entity = self.bits_an_entity
        budget = None if bits is None else int(bits / entity) if entity else len(rows)
        self.popularities = (
            None if popularity is None else [_number(row, popularity, path) for row in rows]
        )
        self.exposure = self._exposure(subsample, budget, cap)

    def _exposure(self, subsample: float, budget: int | None, cap: float | None) -> Exposure:
        n = len(self.names)
        if self.popularities is None:
            return make_exposure(n, self.seed, subsample=subsample, budget=budget, cap=cap)
        return make_exposure(
            n, self.seed, weights=self.popularities, subsample=subsample, budget=budget, cap=cap
        )

    @property
    def n(self) -> int:
        """How many entities there are."""
        return len(self.names)

    def bits(self) -> dict[str, float]:
        """The entropy of every field's values as they occur in the table, in bits."""
        result = {}
        for number, field in enumerate(self.fields):
            counts = np.array(list(Counter(row[number] for row in self.values).values()))
            shares = counts / counts.sum()
            result[field] = float(max(-(shares * np.log2(shares)).sum(), 0.0))
        return result

    @property
    def bits_an_entity(self) -> float:
        """The fields' entropies summed, as if they were independent."""
        return sum(self.bits().values())

    # Documents

    def groups(self) -> dict[str, list[str]]:
        result = {}
        if self.compact == 1:
            pass
        elif self.texts_of is not None:
            result["document"] = [text for texts in self.texts_of for text in texts]
        else:
            sentences = [
                self._prompt(name, field) + " " + value + self.after
                for name, row in zip(self.names, self.values, strict=True)
                for field, value in zip(self.fields, row, strict=True)
            ]
            result["opening sentence"] = sentences
            if len(self.fields) > 1:
                result["sentence"] = [f" {sentence}" for sentence in sentences]
        if self.compact:
            result["name"] = self.names
            result["entry"] = [
                f" | {field}: {value}"
                for row in self.values
                for field, value in zip(self.fields, row, strict=True)
            ]
        return result

    @cached_property
    def _first_piece(self) -> dict[str, int]:
        return offsets(self.groups())

    @cached_property
    def _documents(self) -> tuple[np.ndarray, np.ndarray]:
        """The first document of every entity, and how many it has."""
        counts = np.array([len(texts) for texts in self.texts_of or []])
        return np.cumsum(counts) - counts, counts

    def facts(self, indices: np.ndarray) -> np.ndarray:
        return self.exposure.draw(self.exposure_seed, indices)[0]

    def rows(self, indices: np.ndarray) -> np.ndarray:
        return self._rows(self.exposure_seed, indices)

    def _rows(self, exposure_seed: int, indices: np.ndarray) -> np.ndarray:
        entities, _ = self.exposure.draw(exposure_seed, indices)
        wording = bits(key_of("wording", exposure_seed), indices)
        if self.compact == 1:
            return self._tuples(entities, wording)
        rows = self._long(entities, wording)
        if self.compact:
            tuples = self._tuples(entities, wording)
            width = max(rows.shape[1], tuples.shape[1])
            rows, tuples = (
                np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in (rows, tuples)
            )
            short = unit(key_of("compact"), wording) < self._compact_share
            rows = np.where(short[:, None], tuples, rows)
        return rows

    def _long(self, entities: np.ndarray, wording: np.ndarray) -> np.ndarray:
        if self.texts_of is not None:
            start, count = self._documents
            drawn = below(count[entities], np.uint64(0), wording)
            return (self._first_piece["document"] + start[entities] + drawn)[:, None]
        rows = self._in_some_order(entities, wording) + self._first_piece["opening sentence"]
        if len(self.fields) > 1:
            rows[:, 1:] += self._first_piece["sentence"] - self._first_piece["opening sentence"]
        return rows

    def _tuples(self, entities: np.ndarray, wording: np.ndarray) -> np.ndarray:
        entries = self._in_some_order(entities, wording) + self._first_piece["entry"]
        return np.concatenate([(self._first_piece["name"] + entities)[:, None], entries], axis=1)

    def _in_some_order(self, entities: np.ndarray, wording: np.ndarray) -> np.ndarray:
        """The numbers (N, F) of the entities' fields, shuffled by `wording`."""
        fields = np.arange(len(self.fields))
        order = np.argsort(bits(wording[:, None], fields[None, :]), axis=1)
        return entities[:, None] * len(self.fields) + order

    @cached_property
    def _compact_share(self) -> float:
        """The share of documents to be tuples, so that of the text `compact` is."""
        entities = self.exposure.draw(self.seed, np.arange(_MEASURED))[0]
        wording = bits(key_of("measure", self.seed), entities)
        n_bytes = np.array([len(piece.encode()) for piece in self._cached_pieces()])
        long = float(n_bytes[self._long(entities, wording)].sum())
        short = float(n_bytes[self._tuples(entities, wording)].sum())
        return self.compact * long / (self.compact * long + (1 - self.compact) * short)

    def heldout(self, n: int | None = None) -> Iterator[str]:
        """Exposures (1,000 unless `n` says otherwise) drawn by a stream of their own.

        Where an entity has few documents, these are the ones trained on.
        """
        count = _HELDOUT if n is None else n
        pieces = self._cached_pieces()
        for row in self._rows(int(key_of("held out", self.seed)), np.arange(count)).tolist():
            yield "".join([pieces[p] for p in row])

    # Questions and ledger

    def _prompt(self, name: str, field: str) -> str:
        return self.before.replace("{name}", name).replace("{field}", field)

    def questions(self, limit: int | None = None) -> list[Question]:
        """One question for every entity and field; about `limit` entities if given."""
        entities = list(range(self.n))
        if limit is not None and limit < self.n:
            picked = permute(self.n, key_of("asked", self.seed), np.arange(limit))
            entities = sorted(picked.tolist())
        popularity = self.exposure.popularity()
        choices = [tuple(sorted(set(column))) for column in zip(*self.values, strict=True)]
        return [
            Question(
                id=f"{entity}-{field}",
                prompt=self._prompt(self.names[entity], field),
                answer=self.values[entity][number],
                attribute=field,
                group=self._group(entity, float(popularity[entity])),
                choices=choices[number],
                popularity=float(popularity[entity]),
            )
            for entity in entities
            for number, field in enumerate(self.fields)
        ]

    def _group(self, entity: int, popularity: float) -> str:
        tag = ""
        if self.popularities is not None:
            tag = f"popularity {entity * _GROUPS // self.n + 1:02d} of {_GROUPS}"
        if self.exposure.n_kept < self.n:
            tag = f"{tag} {'kept' if popularity else 'left out'}".strip()
        return tag

    def ledger(self, **context: Any) -> Ledger:
        rows: list[tuple[str, Any, str]] = [
            ("entities", self.n, ""),
            ("entities ever shown", self.exposure.n_kept, ""),
            *((f"bits of {field}", value, "bits/entity") for field, value in self.bits().items()),
            ("bits an entity", self.bits_an_entity, "bits/entity"),
        ]
        if self.texts_of is not None:
            rows.append(("documents", sum(len(texts) for texts in self.texts_of), ""))
        return knowledge_ledger(
            self,
            rows,
            facts=self.exposure.n_kept,
            unit="entity",
            bits=self.bits_an_entity * self.exposure.n_kept,
            **context,
        )


def _text(row: dict[str, Any], column: str, path: str) -> str:
    text = str(row[column] if row.get(column) is not None else "").strip()
    if not text:
        raise DataError(f"path: {path}: {column}: a row has no value ({row})")
    return text


def _number(row: dict[str, Any], column: str, path: str) -> float:
    try:
        number = float(row[column])
    except (TypeError, ValueError):
        raise DataError(f"path: {path}: {column}: {row.get(column)!r} is not a number") from None
    if not (math.isfinite(number) and number >= 0):
        raise DataError(f"path: {path}: {column}: {number} is no popularity")
    return number


def _texts(row: dict[str, Any], column: str, path: str) -> list[str]:
    """The documents of a row: one text, a list of them, or a list written as JSON."""
    value = row.get(column)
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            value = [value]
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise DataError(f"path: {path}: {column}: {value!r} is neither a text nor a list of texts")
    return [text.strip() for text in texts]


def _pattern(sentence: str) -> tuple[str, str]:
    """What comes before the value in a sentence, and what after."""
    before, mark, after = sentence.partition("{value}")
    if not mark or "{name}" not in before:
        raise DataError(f"sentence: {sentence!r} must hold {{name}} and, after it, {{value}}")
    return before.rstrip(), after
