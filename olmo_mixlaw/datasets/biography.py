"""Synthetic people whose biographies hold a known number of bits.

Names are drawn without replacement and attributes independently and uniformly, so the entropy
is a sum of logarithms (45.59 bits a person at full size: arXiv 2505.18091, section 3). Every
exposure re-draws the wording and the order of the sentences.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from functools import cached_property
from itertools import permutations
from pathlib import Path
from typing import Any, Literal

import numpy as np

from olmo_mixlaw.datasets.base import Ledger, Question
from olmo_mixlaw.datasets.counting import knowledge_ledger
from olmo_mixlaw.datasets.draws import below, bits, key_of, permute, unit
from olmo_mixlaw.datasets.exposure import make_exposure
from olmo_mixlaw.datasets.people import ATTRIBUTES, WORK_CITY, People, pool_sizes
from olmo_mixlaw.datasets.phrases import KEYS, OPENINGS, PRONOUNS
from olmo_mixlaw.datasets.pieces import PieceDataset, offsets
from olmo_mixlaw.errors import DataError

_HELDOUT = 1000
_MEASURED = 1000
_GROUPS = 100
# Up to this many people, every name is checked where it stands rather than every name part.
_EACH_CHECKED = 1000


class Biography(PieceDataset):
    """`n` people with five attributes each, met again and again in changing words.

    What is stated
        `seed` draws the people. `pools` makes pools smaller: one number for all attributes, or
        `major:12,birth_city:24,...` (also `first`, `middle`, `last` for the name parts;
        `middle:0` leaves the middle name out), or `small`. `mode=capo` adds the city of work,
        fixed by the employer, and pronouns after the first sentence (arXiv 2404.05405).
    In what words
        `templates` (1 to 5) is how many openings an attribute has, `order` whether sentences
        are `shuffled` or `fixed`, `paraphrases` how many fixed wordings a person has (none: a
        fresh one at every exposure). `compact` is the share of text, in bytes, that comes as a
        bare tuple of keys and values (compact mixing, arXiv 2505.18091, section 6).
    How often
        `zipf` is the exponent of a power law over `groups` (100) of people; `subsample` keeps a
        share of all people, `bits` as many as fit into that many bits: the most popular, or
        those of lowest loss in the CSV file `losses` (columns person, loss); `cap` bounds a
        person's frequency, in multiples of the mean (arXiv 2604.08519). Questions are still
        asked about all.

    Raises `DataError` for n beyond the name space or a pool larger than its words.
    """

    def __init__(
        self,
        n: int,
        seed: int = 0,
        pools: str = "",
        mode: Literal["full", "capo"] = "full",
        templates: int = 5,
        order: Literal["shuffled", "fixed"] = "shuffled",
        paraphrases: int | None = None,
        compact: float = 0.0,
        zipf: float = 0.0,
        groups: int | None = None,
        subsample: float = 1.0,
        bits: float | None = None,
        losses: str | None = None,
        cap: float | None = None,
    ) -> None:
        self.n, self.seed, self.exposure_seed = n, seed, seed
        self.capo = mode == "capo"
        self.attributes = (*ATTRIBUTES, WORK_CITY) if self.capo else ATTRIBUTES
        self.people = People(n, seed, pool_sizes(pools), self.attributes)
        self.name_parts = self.people.name_parts
        most = min(len(OPENINGS[a]) for a in self.attributes)
        if not 1 <= templates <= most:
            raise DataError(f"templates: {templates} is not between 1 and {most}")
        if paraphrases is not None and paraphrases < 1:
            raise DataError(f"paraphrases: {paraphrases} is below 1")
        if not 0 <= compact <= 1:
            raise DataError(f"compact: {compact} is not a share between 0 and 1")
        if losses is not None and bits is None:
            raise DataError("losses: says whom to keep only where bits gives the budget")
        self.templates, self.paraphrases, self.compact = templates, paraphrases, compact
        if groups is None:
            groups = min(_GROUPS, n) if zipf else 1
        budget = None if bits is None else int(bits / self.bits_a_person)
        scores = None if losses is None else _read_losses(Path(losses), n)
        self.exposure = make_exposure(
            n,
            seed,
            groups=groups,
            exponent=zipf,
            subsample=subsample,
            budget=budget,
            scores=scores,
            cap=cap,
        )
        numbers = range(len(self.attributes))
        orders = permutations(numbers) if order == "shuffled" else [tuple(numbers)]
        self._orders = np.array(list(orders))

    @property
    def bits_a_person(self) -> float:
        """The entropy of one person's attributes, in bits."""
        return sum(self.people.bits().values())

    # Documents

    def groups(self) -> dict[str, list[str]]:
        words = self.people.words
        first, *rest = self.name_parts
        sentences = self.compact < 1
        result = {"opening name": list(words[first])}
        if sentences and not self.capo:
            result[first] = [f" {word}" for word in words[first]]
        result |= {part: [f" {word}" for word in words[part]] for part in rest}
        if sentences and self.capo:
            result["pronoun"] = [f" {word}" for word in PRONOUNS]
        for a in self.attributes:
            if sentences:
                result[f"{a} opening"] = list(OPENINGS[a][: self.templates])
                result[a] = [f" {word}." for word in words[a]]
            if self.compact:
                result[f"{a} key"] = [f" | {KEYS[a]}:"]
                result[f"{a} entry"] = [f" {word}" for word in words[a]]
        return result

    def closed_groups(self) -> tuple[int, frozenset[str]]:
        if self.n > _EACH_CHECKED or self.compact or len(self.exposure.shares) > 1:
            return 0, frozenset()
        return self.n, frozenset(("opening name", *self.name_parts))

    @cached_property
    def _first_piece(self) -> dict[str, int]:
        return offsets(self.groups())

    def _first_pieces(self, kind: str) -> np.ndarray:
        """The first piece of every attribute's `kind` (A,), which is formatted with its name."""
        return np.array([self._first_piece[kind.format(a)] for a in self.attributes])

    def facts(self, indices: np.ndarray) -> np.ndarray:
        return self.exposure.draw(self.exposure_seed, indices)[0]

    def rows(self, indices: np.ndarray) -> np.ndarray:
        return self._rows(self.exposure_seed, indices)

    def _rows(self, exposure_seed: int, indices: np.ndarray) -> np.ndarray:
        people, meeting = self.exposure.draw(exposure_seed, indices)
        if self.paraphrases is None:
            wording = bits(key_of("wording", exposure_seed), indices)
        else:
            number = people * self.paraphrases + meeting % self.paraphrases
            wording = bits(key_of("paraphrase", self.seed), number)
        if self.compact == 1:
            return self._tuples(people, wording)
        rows = self._sentences(people, wording)
        if self.compact:
            short = np.flatnonzero(unit(key_of("compact"), wording) < self._compact_share)
            rows[short] = 0
            tuples = self._tuples(people[short], wording[short])
            rows[short, : tuples.shape[1]] = tuples
        return rows

    def _name_pieces(self, people: np.ndarray) -> np.ndarray:
        """The pieces (N, 2 or 3) of every name as it opens a document."""
        first = [self._first_piece[part] for part in ("opening name", *self.name_parts[1:])]
        return self.people.names(people) + np.array(first)

    def _sentences(self, people: np.ndarray, wording: np.ndarray) -> np.ndarray:
        """One row a biography: for every sentence subject, opening, value."""
        count, n_attributes, n_parts = len(people), len(self.attributes), len(self.name_parts)
        each = np.arange(count)[:, None]
        order = self._orders[below(len(self._orders), np.uint64(0), wording)]
        drawn = below(self.templates, wording[:, None], np.arange(n_attributes)[None, :])
        rows = np.empty((count, n_attributes, n_parts + 2), np.int64)
        rows[:, :, :n_parts] = self._name_pieces(people)[:, None, :]
        if not self.capo:
            rows[:, 1:, 0] += (
                self._first_piece[self.name_parts[0]] - self._first_piece["opening name"]
            )
        else:
            rows[:, 1:, :n_parts] = 0
            gender = below(len(PRONOUNS), key_of("pronoun", self.seed), people)
            rows[:, 1:, 0] = (self._first_piece["pronoun"] + gender)[:, None]
        rows[:, :, n_parts] = (self._first_pieces("{} opening") + drawn)[each, order]
        values = self.people.values(people) + self._first_pieces("{}")
        rows[:, :, n_parts + 1] = values[each, order]
        return rows.reshape(count, -1)

    def _tuples(self, people: np.ndarray, wording: np.ndarray) -> np.ndarray:
        """One row a biography in compact form: the name, then key and value in turn."""
        count, n_attributes, n_parts = len(people), len(self.attributes), len(self.name_parts)
        each = np.arange(count)[:, None]
        order = self._orders[below(len(self._orders), np.uint64(1), wording)]
        rows = np.empty((count, n_parts + 2 * n_attributes), np.int64)
        rows[:, :n_parts] = self._name_pieces(people)
        rows[:, n_parts::2] = self._first_pieces("{} key")[order]
        values = self.people.values(people) + self._first_pieces("{} entry")
        rows[:, n_parts + 1 :: 2] = values[each, order]
        return rows

    @cached_property
    def _compact_share(self) -> float:
        """The share of documents to be tuples, so that of the text `compact` is."""
        people = self.exposure.draw(self.seed, np.arange(_MEASURED))[0]
        wording = bits(key_of("measure", self.seed), people)
        n_bytes = np.array([len(piece.encode()) for piece in self._cached_pieces()])
        long = float(n_bytes[self._sentences(people, wording)].sum())
        short = float(n_bytes[self._tuples(people, wording)].sum())
        return self.compact * long / (self.compact * long + (1 - self.compact) * short)

    def heldout(self, n: int | None = None) -> Iterator[str]:
        """Fresh wordings of the people trained on, by a stream that training never draws from.

        1,000 unless `n` says otherwise. With few templates or fixed paraphrases a wording may
        have been trained on.
        """
        count = _HELDOUT if n is None else n
        pieces = self._cached_pieces()
        rows = self._rows(int(key_of("held out", self.seed)), np.arange(count))
        for row in rows.tolist():
            yield "".join([pieces[p] for p in row])

    # Questions

    def questions(self, limit: int | None = None) -> list[Question]:
        """One question for every person, attribute and opening; about `limit` people if given."""
        people = np.arange(self.n)
        if limit is not None and limit < self.n:
            people = np.sort(permute(self.n, key_of("asked", self.seed), np.arange(limit)))
        names, values = self.people.names(people), self.people.values(people)
        popularity = self.exposure.popularity()[people]
        groups = self.exposure.group(people)
        return [
            question
            for row in zip(
                people.tolist(),
                names.tolist(),
                values.tolist(),
                groups.tolist(),
                popularity.tolist(),
                strict=True,
            )
            for question in self._questions(*row)
        ]

    def _questions(
        self, person: int, name: list[int], values: list[int], group: int, popularity: float
    ) -> Iterator[Question]:
        words = self.people.words
        called = " ".join(words[part][i] for part, i in zip(self.name_parts, name, strict=True))
        tag = f"group {group + 1:03d}" if len(self.exposure.shares) > 1 else ""
        if self.exposure.n_kept < self.n:
            tag = f"{tag} {'kept' if popularity else 'left out'}".strip()
        for attribute, value in zip(self.attributes, values, strict=True):
            for k, opening in enumerate(OPENINGS[attribute][: self.templates]):
                yield Question(
                    id=f"{person}-{attribute}-{k}",
                    prompt=called + opening,
                    answer=words[attribute][value],
                    attribute=attribute,
                    group=tag,
                    choices=words[attribute],
                    popularity=popularity,
                )

    # Ledger

    def ledger(self, **context: Any) -> Ledger:
        rows: list[tuple[str, Any, str]] = [
            ("people", self.n, ""),
            ("people ever shown", self.exposure.n_kept, ""),
            *((f"bits of {a}", value, "bits/person") for a, value in self.people.bits().items()),
            ("bits a person", self.bits_a_person, "bits/person"),
            ("bits of a name", math.log2(self.people.name_space / self.n), "bits/person"),
        ]
        shared = self.people.shared_bits()
        if shared:
            rows.append(("bits of the employers' cities", shared, "bits"))
        return knowledge_ledger(
            self,
            rows,
            facts=self.exposure.n_kept,
            unit="person",
            bits=self.bits_a_person * self.exposure.n_kept + shared,
            **context,
        )


def _read_losses(path: Path, n: int) -> np.ndarray:
    """The loss (n,) of every person in a CSV file with the columns `person` and `loss`."""
    if not path.is_file():
        raise DataError(f"losses: {path}: no such file")
    result = np.full(n, np.nan)
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if not {"person", "loss"} <= set(reader.fieldnames or ()):
            raise DataError(f"losses: {path}: needs the columns person and loss")
        for line, row in enumerate(reader, start=2):
            try:
                person, loss = int(row["person"]), float(row["loss"])
            except (TypeError, ValueError):
                raise DataError(f"losses: {path}:{line}: not a number") from None
            if not 0 <= person < n or not math.isfinite(loss):
                raise DataError(f"losses: {path}:{line}: person {person} with loss {loss}")
            result[person] = loss
    missing = np.flatnonzero(np.isnan(result))
    if len(missing):
        raise DataError(f"losses: {path}: {len(missing)} people lack a loss, first {missing[0]}")
    return result
