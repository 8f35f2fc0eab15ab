"""The plan: exact counts, every sequence once an epoch, any example without those before it."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmo_mixlaw.mixture.plan import Plan, floor_sum
from olmo_mixlaw.mixture.schedule import (
    Constant,
    Cosine,
    Exponential,
    Knot,
    Linear,
    Pieces,
    RunLength,
    Sampled,
    Stages,
)

LABELS = ("code", "math", "web")
KNOTS = [
    Knot(0.0, {"web": 0.9, "code": 0.1}),
    Knot(0.4, {"web": 0.3, "code": 0.001, "math": 0.699}),
    Knot(1.0, {"math": 1.0}),
]


def swinging(fraction: float, labels: list[str], height: float = 0.4) -> dict[str, float]:
    share = 0.5 + height * np.sin(20 * fraction)
    return {labels[0]: share, labels[1]: 1 - share}


SCHEDULES = {
    "constant": Constant(LABELS, ratios={"web": 0.7, "code": 0.2999, "math": 0.0001}),
    "stages": Stages(LABELS, knots=KNOTS),
    "linear": Linear(LABELS, knots=KNOTS),
    "cosine": Cosine(LABELS, knots=KNOTS),
    "exponential": Exponential(LABELS, knots=KNOTS),
    "function": Sampled(LABELS, function=swinging),
}


def plan_of(name: str, n_examples: int, sizes: tuple = (None, None, None), seed: int = 1) -> Plan:
    return Plan(SCHEDULES[name].pieces(RunLength(n_examples, 1, 128)), sizes, LABELS, seed)


@given(
    n=st.integers(0, 60), m=st.integers(1, 60), a=st.integers(-300, 300), b=st.integers(-300, 300)
)
def test_floor_sum_is_the_sum_of_floors(n: int, m: int, a: int, b: int) -> None:
    assert floor_sum(n, m, a, b) == sum((a * i + b) // m for i in range(n))


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_block_meets_its_ratios_to_within_one_example(name: str) -> None:
    plan = plan_of(name, 100_000)
    borders = sorted({*plan.pieces.borders, len(plan)})
    for begin, end in pairwise(borders):
        for start in range(begin, end, plan.block_size):
            stop = min(start + plan.block_size, end)
            sources, _ = plan.locate(np.arange(start, stop))
            achieved = np.bincount(sources, minlength=3)
            asked = plan.pieces.asked(start, stop)
            assert np.abs(achieved - asked).max() <= 1 + 1e-6


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_million_examples_have_the_asked_ratios(name: str) -> None:
    plan = plan_of(name, 1_000_000)
    achieved = plan.counts(len(plan)) / len(plan)
    asked = plan.pieces.asked(0, len(plan)) / len(plan)
    assert achieved.sum() == 1
    # Every piece of a schedule may add a fraction of an example: 21 of a million at most here.
    assert np.abs(achieved - asked).max() < 3e-5


@settings(max_examples=40)
@given(
    weights=st.lists(st.integers(0, 1000), min_size=3, max_size=3).filter(sum),
    end=st.lists(st.integers(0, 1000), min_size=3, max_size=3).filter(sum),
    length=st.integers(1, 5000),
    block=st.sampled_from([1, 7, 256]),
    seed=st.integers(0, 2**32),
)
def test_counts_agree_with_the_examples_and_indices_have_no_gap(
    weights: list[int], end: list[int], length: int, block: int, seed: int
) -> None:
    first, last = np.array([weights]) / sum(weights), np.array([end]) / sum(end)
    pieces = Pieces((0, length), first, last)
    plan = Plan(pieces, (None, None, None), LABELS, seed, block)
    sources, indices = plan.locate(np.arange(length))
    assert (plan.counts(length) == np.bincount(sources, minlength=3)).all()
    middle = length // 2
    assert (plan.counts(middle) == np.bincount(sources[:middle], minlength=3)).all()
    for k in range(3):
        drawn = np.sort(indices[sources == k])
        assert (drawn == np.arange(len(drawn))).all()
        if weights[k] == end[k] == 0:
            assert len(drawn) == 0


def test_any_example_is_found_without_those_before_it() -> None:
    whole = plan_of("linear", 20_000, (97, None, 5000))
    sources, indices = whole.locate(np.arange(20_000))
    for example in np.random.default_rng(0).integers(0, 20_000, 50):
        fresh = plan_of("linear", 20_000, (97, None, 5000))
        assert fresh[int(example)] == (sources[example], indices[example])


@pytest.mark.parametrize("size", [1, 2, 3, 100, 2047, 2048, 5000])
def test_an_epoch_gives_every_sequence_once_and_the_next_another_order(size: int) -> None:
    pieces = Constant(("a",), ratios={"a": 1.0}).pieces(RunLength(3 * size, 1, 8))
    plan = Plan(pieces, (size,), ("a",), 5, block_size=size)
    _, indices = plan.locate(np.arange(3 * size))
    epochs = indices.reshape(3, size)
    assert all((np.sort(epoch) == np.arange(size)).all() for epoch in epochs)
    if size >= 100:
        assert (epochs[0] != epochs[1]).any()
        assert (epochs[0] != np.arange(size)).any()


def test_the_order_in_a_block_is_shuffled_and_depends_on_the_seed() -> None:
    one, other = plan_of("constant", 1000, seed=1), plan_of("constant", 1000, seed=2)
    first, second = one.locate(np.arange(256))[0], other.locate(np.arange(256))[0]
    assert (first != second).any()
    assert (np.diff(np.flatnonzero(first == 2)) > 1).any()


def test_counts_over_any_stretch_stay_near_what_was_asked() -> None:
    plan = plan_of("cosine", 3_000_000)
    for stop in range(0, 3_000_000, 99_840):
        stop -= stop % plan.block_size
        drift = plan.counts(stop) - plan.pieces.asked(0, stop)
        # A block's own examples are shuffled, so a border inside one may differ by more.
        assert np.abs(drift).max() < 64


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_run_of_1e12_examples_costs_no_memory(name: str) -> None:
    tracemalloc.start()
    plan = plan_of(name, 10**12)
    source, index = plan[10**12 - 1]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000
    assert 0 <= source < 3
    assert 0 <= index < 10**12
    totals = plan.counts(10**12)
    assert np.abs(totals / 10**12 - plan.pieces.asked(0, 10**12) / 10**12).max() < 1e-8


def test_an_example_outside_the_run_is_an_error() -> None:
    with pytest.raises(IndexError, match="outside a run of 100"):
        plan_of("constant", 100)[100]


def test_first_beyond_finds_where_a_source_runs_out() -> None:
    plan = plan_of("constant", 10_000)
    example = plan.first_beyond(2, 500)
    assert plan.counts(example)[2] == 500
    assert plan.counts(example + 1)[2] == 501
    assert plan.first_beyond(1, 10_000) == 10_000
