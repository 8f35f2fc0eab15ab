"""Synthetic people as numbers: who is called what, and which values they have.

Names come from a keyed permutation of the name space, so that no two are equal and none has to
be remembered; values are hashes of the person's number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from olmo_mixlaw.datasets.draws import below, key_of, permute
from olmo_mixlaw.datasets.words import POOL_SIZES, pool
from olmo_mixlaw.errors import DataError, unknown_name

ATTRIBUTES = ("birth_date", "birth_city", "university", "major", "employer")
# Fixed by the employer, so it adds no information about a person (arXiv 2404.05405).
WORK_CITY = "work_city"
NAME_PARTS = ("first", "middle", "last")

# Pools by one name: small enough for a model of 100,000 parameters and a vocabulary of 1,000.
PRESETS = {
    "small": "first:16,middle:0,last:32,birth_date:60,birth_city:24,university:36,major:12,"
    "employer:48"
}


@dataclass(frozen=True)
class People:
    """`n` people drawn with `seed` from pools of these `sizes`, with these `attributes`.

    Raises `DataError` for n beyond the name space.
    """

    n: int
    seed: int
    sizes: Mapping[str, int]
    attributes: tuple[str, ...] = ATTRIBUTES

    def __post_init__(self) -> None:
        if not 1 <= self.n <= self.name_space:
            raise DataError(f"n: {self.n} people; there are 1 to {self.name_space} different names")

    @cached_property
    def name_parts(self) -> tuple[str, ...]:
        """The parts that a name has, in order."""
        return tuple(part for part in NAME_PARTS if self.sizes[part])

    @cached_property
    def name_space(self) -> int:
        """How many different names there are."""
        return math.prod(self.sizes[part] for part in self.name_parts)

    def names(self, people: np.ndarray) -> np.ndarray:
        """The name parts (N, 2 or 3) of `people` (N,), each a number within its pool."""
        rest = permute(self.name_space, key_of("names", self.seed), people)
        parts = []
        for part in reversed(self.name_parts):
            rest, number = np.divmod(rest, self.sizes[part])
            parts.append(number)
        return np.stack(parts[::-1], axis=1)

    def values(self, people: np.ndarray) -> np.ndarray:
        """The attribute values (N, A) of `people` (N,), each a number within its pool."""
        drawn = {a: below(self.sizes[a], key_of("value", a, self.seed), people) for a in ATTRIBUTES}
        drawn[WORK_CITY] = below(
            self.sizes[WORK_CITY], key_of("value", WORK_CITY, self.seed), drawn["employer"]
        )
        return np.stack([drawn[a] for a in self.attributes], axis=1)

    @cached_property
    def words(self) -> dict[str, tuple[str, ...]]:
        """The words of every pool."""
        return {name: _chosen(name, self.sizes[name]) for name in self.name_parts + self.attributes}

    def bits(self) -> dict[str, float]:
        """log2 of every attribute's pool size: what one person's value carries, in bits."""
        return {a: 0.0 if a == WORK_CITY else math.log2(self.sizes[a]) for a in self.attributes}

    def shared_bits(self) -> float:
        """Bits that hold for all people together: the city of every employer."""
        if WORK_CITY not in self.attributes:
            return 0.0
        return self.sizes["employer"] * math.log2(self.sizes[WORK_CITY])


def _chosen(name: str, size: int) -> tuple[str, ...]:
    """`size` words of a pool, the same ones for every seed."""
    words = pool(name)
    if size == len(words):
        return words
    picked = permute(len(words), key_of("pool", name), np.arange(size))
    return tuple(words[i] for i in picked)


def pool_sizes(pools: str) -> dict[str, int]:
    """Sizes of all pools, of which `pools` makes some smaller.

    `pools` is a name of `PRESETS`, one number for all attributes, or `name:size,...`. Raises
    `DataError` for a size beyond the words there are.
    """
    sizes = dict(POOL_SIZES)
    if not pools:
        return sizes
    pools = PRESETS.get(pools, pools)
    if pools.isdigit():
        pools = ",".join(f"{attribute}:{pools}" for attribute in ATTRIBUTES)
    for item in pools.split(","):
        name, _, text = item.partition(":")
        name = name.strip()
        if name not in POOL_SIZES:
            raise unknown_name("pool", name, [*POOL_SIZES, *PRESETS], "pools")
        least = 0 if name == "middle" else 1
        if not text.strip().isdigit() or not least <= int(text) <= POOL_SIZES[name]:
            raise DataError(
                f"pools: {name}: {text!r} is not a size between {least} and {POOL_SIZES[name]}"
            )
        sizes[name] = int(text)
    return sizes
