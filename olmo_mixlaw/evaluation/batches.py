"""Decide what is read once, what together: batches of requests, by tokens and calls saved.

Reading a prefix or a context once spares its tokens but takes a call of the model more; for a
small model a call costs as much as tens of tokens. What isn't worth it is read whole, beside
others of about its length. A plan depends on the requests and the model's shape alone, so
that any number of processes share out the same batches and find the same scores.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

FAMILY_TOKENS = 8  # contexts that begin alike so far may share more


@dataclass(frozen=True)
class Encoded:
    """A request as tokens: `context` is never empty, `continuation` is what is scored."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]

    @property
    def length(self) -> int:
        """Tokens that a model reads: all but the last."""
        return len(self.context) + len(self.continuation) - 1


@dataclass(frozen=True)
class Costs:
    """What bounds a batch and what a call costs, both in tokens read.

    `call` is what one more call of the model costs; `batch` is how many tokens are read in one,
    `cached` how many a key-value cache may hold.
    """

    call: int
    batch: int
    cached: int


@dataclass(frozen=True)
class Batch:
    """Requests that are read together, by number, after `shared` tokens that are read once.

    Each of `groups` has one context. With `split`, the contexts (of one length) are read first
    and every continuation goes on from its context; otherwise each request is read whole.
    """

    groups: tuple[tuple[int, ...], ...]
    prefix: tuple[int, ...]
    split: bool
    tokens: int

    @property
    def requests(self) -> list[int]:
        return [i for group in self.groups for i in group]


def plan(requests: Sequence[Encoded], costs: Costs) -> list[Batch]:
    """Batches that have every request once, those of one prefix after each other."""
    families: dict[tuple[int, ...], dict[tuple[int, ...], list[int]]] = defaultdict(dict)
    for i, request in enumerate(requests):
        family = families[request.context[:FAMILY_TOKENS]]
        family.setdefault(request.context, []).append(i)
    batches: list[Batch] = []
    strangers: list[int] = []
    for contexts in families.values():
        prefix = _common_prefix(list(contexts))
        if (len(contexts) - 1) * len(prefix) <= costs.call:
            prefix = ()
        lengths: dict[int, list[tuple[int, ...]]] = defaultdict(list)
        for context, indices in contexts.items():
            lengths[len(context) - len(prefix)].append(tuple(indices))
        whole: list[int] = []
        for length, groups in lengths.items():
            if _pays_to_split(requests, length, groups, costs):
                batches += _split(requests, groups, prefix, length, costs)
            else:
                whole += [i for group in groups for i in group]
        if prefix:
            batches += _whole(requests, whole, prefix, costs)
        else:
            strangers += whole
    batches += _whole(requests, strangers, (), costs)
    return batches


def _common_prefix(contexts: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """What all contexts begin with; at least one token of each stays outside."""
    first, last = min(contexts), max(contexts)
    length = next(
        (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b),
        min(len(first), len(last)),
    )
    return first[: min(length, min(map(len, contexts)) - 1)]


def _rest(requests: Sequence[Encoded], group: Sequence[int]) -> list[int]:
    """Tokens of each continuation that are read after its context."""
    return [len(requests[i].continuation) - 1 for i in group]


def _pays_to_split(
    requests: Sequence[Encoded], length: int, groups: Sequence[tuple[int, ...]], costs: Costs
) -> bool:
    rests = [_rest(requests, group) for group in groups]
    saved = sum((len(rest) - 1) * length for rest in rests)
    padding = sum(len(rest) * max(rest) - sum(rest) for rest in rests)
    calls = 1 + any(max(rest) > 0 for rest in rests)
    return saved - padding > calls * costs.call


def _split(
    requests: Sequence[Encoded],
    groups: Sequence[tuple[int, ...]],
    prefix: tuple[int, ...],
    length: int,
    costs: Costs,
) -> Iterator[Batch]:
    """Groups with contexts of one length, those with like continuations together."""
    rows = max(1, costs.batch // length)
    pieces = [group[k : k + rows] for group in groups for k in range(0, len(group), rows)]
    pieces.sort(key=lambda group: -max(_rest(requests, group)))
    batch: list[tuple[int, ...]] = []
    tokens = 0
    for group in pieces:
        rest = max(_rest(requests, batch[0] if batch else group))
        more = length + len(group) * max(rest, 1)
        held = (sum(map(len, batch)) + len(group)) * (len(prefix) + length + rest)
        if batch and (tokens + more > costs.batch or held > costs.cached):
            yield Batch(tuple(batch), prefix, True, tokens)
            batch, tokens = [], 0
            more = length + len(group) * max([*_rest(requests, group), 1])
        batch.append(group)
        tokens += more
    yield Batch(tuple(batch), prefix, True, tokens)


def _whole(
    requests: Sequence[Encoded], indices: Sequence[int], prefix: tuple[int, ...], costs: Costs
) -> Iterator[Batch]:
    """Requests by length, longest first; padding in a batch costs less than another call."""
    batch: list[int] = []
    longest = padding = 0
    for i in sorted(indices, key=lambda i: -requests[i].length):
        length = requests[i].length - len(prefix)
        if batch:
            rows = len(batch) + 1
            padding += longest - length
            held = rows * (longest + len(prefix)) if prefix else 0
            if rows * longest > costs.batch or held > costs.cached or padding > costs.call:
                yield _of_whole(batch, prefix, longest)
                batch, padding = [], 0
        if not batch:
            longest = length
        batch.append(i)
    if batch:
        yield _of_whole(batch, prefix, longest)


def _of_whole(batch: Sequence[int], prefix: tuple[int, ...], longest: int) -> Batch:
    return Batch(tuple((i,) for i in batch), prefix, False, len(batch) * longest)
