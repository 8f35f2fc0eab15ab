"""Plans have every request once, keep what they promise, and share only where it pays."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from olmo_mixlaw.evaluation.batches import Batch, Costs, Encoded, plan

tokens = st.lists(st.integers(1, 3), min_size=1, max_size=30).map(tuple)
shots = st.sampled_from([(), (9,) * 20, (8,) * 40])


@st.composite
def requests(draw: st.DrawFn) -> list[Encoded]:
    """Contexts after one of three beginnings, each with some continuations."""
    found = []
    for _ in range(draw(st.integers(1, 8))):
        context = draw(shots) + draw(tokens)
        for _ in range(draw(st.integers(1, 4))):
            found.append(Encoded(context, draw(tokens)))
    return draw(st.permutations(found))


costs = st.builds(Costs, st.integers(0, 100), st.integers(1, 400), st.integers(1, 2000))


@given(requests(), costs)
def test_every_request_is_in_one_batch_that_fits_it(asked: list[Encoded], costs: Costs) -> None:
    batches = plan(asked, costs)
    assert sorted(i for batch in batches for i in batch.requests) == list(range(len(asked)))
    for batch in batches:
        for group in batch.groups:
            assert len({asked[i].context for i in group}) == 1
        for i in batch.requests:
            context = asked[i].context
            assert context[: len(batch.prefix)] == batch.prefix != context
        if batch.split:
            assert len({len(asked[i].context) for i in batch.requests}) == 1
        else:
            assert all(len(group) == 1 for group in batch.groups)


@given(requests(), costs)
def test_batches_keep_to_their_bounds(asked: list[Encoded], costs: Costs) -> None:
    for batch in plan(asked, costs):
        if len(batch.groups) == 1:
            continue  # a single one is read however long it is
        lengths = [asked[i].length - len(batch.prefix) for i in batch.requests]
        if not batch.split:
            assert len(lengths) * max(lengths) <= costs.batch
            assert sum(max(lengths) - n for n in lengths) <= costs.call
        if batch.split or batch.prefix:
            longest = max(len(asked[i].context) for i in batch.requests)
            rest = max(len(asked[i].continuation) - 1 for i in batch.requests)
            assert len(lengths) * (longest + rest * batch.split) <= costs.cached


@given(requests())
def test_batches_of_one_prefix_follow_each_other(asked: list[Encoded]) -> None:
    prefixes = [batch.prefix for batch in plan(asked, Costs(5, 50, 1000))]
    changes = [p for p, before in zip(prefixes, [None, *prefixes], strict=False) if p != before]
    read_anew = [prefix for prefix in changes if prefix]
    assert len(read_anew) == len(set(read_anew))


def read(batches: list[Batch]) -> int:
    return sum(len(batch.prefix) + batch.tokens for batch in batches)


SMALL = Costs(call=90, batch=8192, cached=10**6)


def test_short_contexts_with_long_continuations_are_read_whole() -> None:
    asked = [Encoded((i, 1, 2) * 5, (c,) * 20) for i in range(6) for c in range(2)]
    (batch,) = plan(asked, SMALL)
    assert not batch.split
    assert not batch.prefix


def test_long_contexts_are_read_once_for_all_choices() -> None:
    asked = [Encoded((i, 1, 2) * 100, (c,)) for i in range(6) for c in range(4)]
    batches = plan(asked, SMALL)
    assert all(batch.split for batch in batches)
    assert read(batches) < 2000 < sum(request.length for request in asked) / 3


def test_examples_are_read_once_beside_questions_without_them() -> None:
    examples = tuple(range(100, 400))
    asked = [Encoded((*examples, *[i] * 9), (5, 6)) for i in range(6)]
    asked += [Encoded((7, 8), (5, 6, i)) for i in range(6)]
    batches = plan(asked, SMALL)
    assert {batch.prefix for batch in batches} == {examples, ()}
    assert read(batches) < 2 * 300


def test_one_context_needs_no_prefix() -> None:
    batches = plan([Encoded((1,) * 300, (c, c)) for c in range(4)], SMALL)
    assert [(batch.prefix, batch.split) for batch in batches] == [((), True)]
