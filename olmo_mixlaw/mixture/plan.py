"""Which example comes when: example i -> (source, index in source), from (seed, i) alone.

The run is cut into blocks. A block of L examples holds floor(L r) or ceil(L r) of every source
with ratio r; which of the two is decided by where a point that walks round the circle in
golden-ratio steps falls, so the long-run ratio is exact too. How often the walk has hit an arc
is a sum of floors of a line, which has a closed form: any block is reached without those
before it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from olmo_mixlaw.datasets.draws import bits, key_of, permute
from olmo_mixlaw.mixture.schedule import Pieces

# Ratios are fixed-point numbers with 64 binary places: sums stay exact, on every machine.
_PLACES = 64
_ONE = 1 << _PLACES
# 2^64 divided by the golden ratio: the steps that spread most evenly over the circle.
_GOLDEN_STEP = 0x9E3779B97F4A7C15
_CACHED_BLOCKS = 8
_CHUNK = 2048


@dataclass(frozen=True)
class _Segment:
    """`n_blocks` blocks of `block_size` examples from example `start`, from block `number` on.

    In block j of the segment, sources 0..k together take `intercept[k] + slope[k] * j` examples,
    in units of 2^-64.
    """

    start: int
    number: int
    n_blocks: int
    block_size: int
    intercept: tuple[int, ...]
    slope: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """The order of a run's examples, without a table of them.

    `pieces` say the ratios; `sizes` (K) how many sequences one epoch of each source has, None
    for a source without end; `names` (K) key each source's shuffles. Each epoch of a source
    runs through all its sequences in an order of its own.
    """

    pieces: Pieces
    sizes: Sequence[int | None]
    names: Sequence[str]
    seed: int = 0
    block_size: int = 256
    _blocks: OrderedDict[int, tuple[np.ndarray, np.ndarray]] = field(
        default_factory=OrderedDict, init=False, repr=False, compare=False
    )
    _chunks: dict[int, tuple[int, np.ndarray]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __len__(self) -> int:
        return self.pieces.n_examples

    def __getitem__(self, example: int) -> tuple[int, int]:
        """(source, index in source) of `example`."""
        source, index = self.locate(np.array([example]))
        return int(source[0]), int(index[0])

    def locate(self, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sources (n,) and indices in their sources (n,) of `examples` (n,).

        Raises `IndexError` for an example outside the run.
        """
        sources = np.empty(len(examples), np.int64)
        indices = np.empty(len(examples), np.int64)
        done = 0
        while done < len(examples):
            start, length, (block_sources, block_indices) = self._block(int(examples[done]))
            # Callers ask for rising examples: take all that lie in this block at once.
            offsets = examples[done:] - start
            inside = (offsets >= 0) & (offsets < length)
            n = len(inside) if inside.all() else int(np.argmin(inside))
            sources[done : done + n] = block_sources[offsets[:n]]
            indices[done : done + n] = block_indices[offsets[:n]]
            done += n
        return sources, indices

    def counts(self, n_examples: int) -> np.ndarray:
        """How many of the first `n_examples` come from each source (K,); exact, without a walk."""
        if n_examples <= 0:
            return np.zeros(len(self.sizes), np.int64)
        s, j, offset = self._place(n_examples - 1)
        ordinals = np.array(self._before(s, j), np.int64)
        _, _, (sources, _) = self._block(n_examples - 1)
        return ordinals + np.bincount(sources[: offset + 1], minlength=len(self.sizes))

    def first_beyond(self, source: int, limit: int) -> int:
        """The first example that needs more than `limit` of `source`; the length if none does."""
        low, high = 0, len(self)
        if self.counts(high)[source] <= limit:
            return high
        while low < high:
            middle = (low + high) // 2
            if self.counts(middle + 1)[source] > limit:
                high = middle
            else:
                low = middle + 1
        return low

    @cached_property
    def _segments(self) -> tuple[_Segment, ...]:
        segments: list[_Segment] = []
        number = 0
        for p, start in enumerate(self.pieces.borders[:-1]):
            length = self.pieces.borders[p + 1] - start
            full, rest = divmod(length, self.block_size)
            for offset, n_blocks, size in ((0, full, self.block_size), (length - rest, 1, rest)):
                if n_blocks and size:
                    segments.append(self._segment(p, offset, n_blocks, size, number))
                    number += n_blocks
        return tuple(segments)

    def _segment(self, p: int, offset: int, n_blocks: int, size: int, number: int) -> _Segment:
        """Blocks of piece `p` from `offset` on; a block has the ratios of its middle."""
        pieces = self.pieces
        length = pieces.borders[p + 1] - pieces.borders[p]
        middle = (offset + size / 2) / length
        final = (offset + size * (n_blocks - 0.5)) / length
        slope = pieces.last[p] - pieces.first[p]
        begin = [_fixed(x) * size for x in pieces.first[p] + slope * middle]
        end = [_fixed(x) * size for x in pieces.first[p] + slope * final]
        # Rounding slopes towards zero keeps every share between its two ends, never below 0.
        steps = [_divide(b - a, max(1, n_blocks - 1)) for a, b in zip(begin, end, strict=True)]
        # What rounding left goes to the source that has most, which can bear it at both ends.
        largest = max(range(len(begin)), key=lambda k: min(begin[k], end[k]))
        begin[largest] += size * _ONE - sum(begin)
        steps[largest] -= sum(steps)
        return _Segment(
            pieces.borders[p] + offset, number, n_blocks, size, _running(begin), _running(steps)
        )

    @cached_property
    def _starts(self) -> tuple[int, ...]:
        return tuple(segment.start for segment in self._segments)

    @cached_property
    def _phase(self) -> int:
        return int(key_of(self.seed, "ratios"))

    @cached_property
    def _totals(self) -> list[list[int]]:
        """Examples of each source before every segment that was asked for; grown as needed."""
        return [[0] * len(self.sizes)]

    def _place(self, example: int) -> tuple[int, int, int]:
        """Segment, block in it and offset in the block of `example`."""
        if not 0 <= example < len(self):
            raise IndexError(f"example {example} is outside a run of {len(self)}")
        s = bisect_right(self._starts, example) - 1
        segment = self._segments[s]
        return s, *divmod(example - segment.start, segment.block_size)

    def _before(self, s: int, j: int) -> list[int]:
        """Examples of each source before block `j` of segment `s`."""
        while len(self._totals) <= s:
            last = len(self._totals) - 1
            inside = self._inside(self._segments[last], self._segments[last].n_blocks)
            self._totals.append([a + b for a, b in zip(self._totals[last], inside, strict=True)])
        inside = self._inside(self._segments[s], j)
        return [a + b for a, b in zip(self._totals[s], inside, strict=True)]

    def _inside(self, segment: _Segment, n_blocks: int) -> list[int]:
        """Examples of each source in the first `n_blocks` blocks of `segment`."""
        if n_blocks == 0:
            return [0] * len(self.sizes)
        shift = self._phase + segment.number * _GOLDEN_STEP
        below = floor_sum(n_blocks, _ONE, -_GOLDEN_STEP, -shift)
        counts = []
        for intercept, slope in zip(segment.intercept, segment.slope, strict=True):
            upto = floor_sum(n_blocks, _ONE, slope - _GOLDEN_STEP, intercept - shift)
            counts.append(upto - below)
            below = upto
        return counts

    def _block(self, example: int) -> tuple[int, int, tuple[np.ndarray, np.ndarray]]:
        """Start, length, and the sources and indices in order, of the block of `example`."""
        s, j, _ = self._place(example)
        segment = self._segments[s]
        start = segment.start + j * segment.block_size
        block = self._blocks.get(start)
        if block is None:
            block = self._make_block(s, j, start)
            self._blocks[start] = block
            if len(self._blocks) > _CACHED_BLOCKS:
                self._blocks.popitem(last=False)
        return start, segment.block_size, block

    def _make_block(self, s: int, j: int, start: int) -> tuple[np.ndarray, np.ndarray]:
        segment = self._segments[s]
        before = self._before(s, j)
        shift = self._phase + (segment.number + j) * _GOLDEN_STEP
        bounds = [
            (a + d * j - shift) >> _PLACES
            for a, d in zip(segment.intercept, segment.slope, strict=True)
        ]
        counts = np.diff(np.array([(-shift) >> _PLACES, *bounds], object)).astype(np.int64)
        sources = np.repeat(np.arange(len(counts)), counts)
        indices = np.concatenate(
            [self._indices(k, before[k], int(n)) for k, n in enumerate(counts)]
        )
        order = np.argsort(
            bits(key_of(self.seed, "order", start), np.arange(segment.block_size)), kind="stable"
        )
        return sources[order], indices[order]

    def _indices(self, source: int, first: int, n: int) -> np.ndarray:
        """Indices (n,) of the draws `first` to `first + n` of `source`, epoch by epoch."""
        size = self.sizes[source]
        if size is None or n == 0:
            return np.arange(first, first + n, dtype=np.int64)
        parts = []
        for chunk in range(first // _CHUNK, (first + n - 1) // _CHUNK + 1):
            start = chunk * _CHUNK
            draws = self._chunk(source, size, start)
            parts.append(draws[max(first - start, 0) : first + n - start])
        return np.concatenate(parts)

    def _chunk(self, source: int, size: int, start: int) -> np.ndarray:
        """Indices of `_CHUNK` draws of a finite source: shuffling many at once costs as little."""
        known = self._chunks.get(source)
        if known is not None and known[0] == start:
            return known[1]
        epochs, places = np.divmod(np.arange(start, start + _CHUNK, dtype=np.int64), size)
        numbers = range(int(epochs[0]), int(epochs[-1]) + 1)
        keys = [key_of(self.seed, "epoch", self.names[source], number) for number in numbers]
        indices = permute(size, np.array(keys)[epochs - epochs[0]], places)
        self._chunks[source] = (start, indices)
        return indices


def floor_sum(n: int, m: int, a: int, b: int) -> int:
    """The sum of floor((a i + b) / m) for i = 0 .. n - 1, in O(log m) steps.

    Whole numbers are taken out of slope and intercept, and what is left counts lattice points
    under a line; swapping the axes makes the slope's terms smaller, as in Euclid's algorithm.
    """
    total = 0
    while n > 0:
        whole, a = divmod(a, m)
        total += whole * (n * (n - 1) // 2)
        whole, b = divmod(b, m)
        total += whole * n
        top = a * n + b
        if top < m:
            break
        n, b = divmod(top, m)
        m, a = a, m
    return total


def _fixed(ratio: float) -> int:
    """A ratio in units of 2^-64, exactly rounded."""
    numerator, denominator = float(ratio).as_integer_ratio()
    return max(0, (numerator * _ONE) // denominator)


def _divide(a: int, b: int) -> int:
    """a / b rounded towards zero."""
    return a // b if a >= 0 else -(-a // b)


def _running(values: list[int]) -> tuple[int, ...]:
    total, sums = 0, []
    for value in values:
        total += value
        sums.append(total)
    return tuple(sums)
