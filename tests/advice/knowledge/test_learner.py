"""The learner of bounded capacity against closed forms, and what must hold of any division."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmo_mixlaw.advice.knowledge import Facts, FactSet, TextSet, allocate, fact_set
from olmo_mixlaw.advice.knowledge.facts import parts_of_power_law
from olmo_mixlaw.advice.knowledge.learner import (
    critical_capacity,
    critical_odds,
    known_part,
    threshold_exposures,
)
from olmo_mixlaw.errors import ConfigError

TEXT = TextSet(scale=50.0, exponent=0.3)
FACTS = Facts(n=1000, bits=40, tokens=100)
positive = st.floats(0.05, 20.0)


@given(st.lists(st.tuples(positive, st.floats(0.1, 1.0)), min_size=2, max_size=4), positive)
def test_texts_alone_share_as_in_closed_form(sets, capacity):
    ratios = np.linspace(1, 2, len(sets))
    found = allocate(ratios, [TextSet(a, x) for a, x in sets], capacity)
    slopes = [
        r * a * x * m ** -(1 + x) for r, (a, x), m in zip(ratios, sets, found.bits, strict=True)
    ]
    assert found.bits.sum() == pytest.approx(capacity, rel=1e-9)
    assert slopes == pytest.approx([found.price] * len(sets), rel=1e-6)


@given(st.floats(0.001, 0.999), st.floats(3.0, 6.5))
def test_facts_beside_text_get_what_the_closed_form_says(ratio, log_capacity):
    capacity = 10**log_capacity
    found = allocate([ratio, 1 - ratio], [fact_set(FACTS), TEXT], capacity)
    closed = float(known_part(TEXT, FACTS, capacity, np.array(ratio)))
    assert found.bits[0] / FACTS.bits_in_all == pytest.approx(closed, abs=1e-6)
    assert found.bits.sum() == pytest.approx(capacity, rel=1e-9)


@given(st.floats(0.01, 0.98), st.floats(1.0, 1.02), st.floats(3.0, 6.5))
def test_a_larger_ratio_teaches_no_less(ratio, more, log_capacity):
    parts = known_part(TEXT, FACTS, 10**log_capacity, np.array([ratio, ratio * more]))
    assert parts[1] >= parts[0]


@given(st.permutations([0, 1, 2, 3]), st.floats(2.0, 6.0))
def test_the_order_of_the_sets_is_of_no_matter(order, log_capacity):
    groups = FactSet(np.array([2e-5, 1e-5, 1e-5]), np.array([300.0, 500.0, 700.0]))
    sets = [TEXT, fact_set(FACTS), groups, TextSet(5.0, 0.5)]
    ratios = np.array([0.4, 0.3, 0.2, 0.1])
    straight = allocate(ratios, sets, 10**log_capacity)
    turned = allocate(ratios[order], [sets[i] for i in order], 10**log_capacity)
    assert turned.bits == pytest.approx(straight.bits[order], rel=1e-6, abs=1e-6)


def test_what_ties_at_the_price_is_split_in_proportion():
    one, other = (FactSet(np.array([1e-3]), np.array([bits])) for bits in (100.0, 300.0))
    found = allocate([0.5, 0.5], [one, other], 200.0)
    assert found.bits == pytest.approx([50.0, 150.0])
    assert found.price == pytest.approx(0.5e-3, rel=1e-6)


def test_the_web_alone_takes_all_and_facts_alone_no_more_than_they_hold():
    web = allocate([0.0, 1.0], [fact_set(FACTS), TEXT], 1e4)
    assert web.bits == pytest.approx([0.0, 1e4])
    facts = allocate([1.0, 0.0], [fact_set(FACTS), TEXT], 1e6)
    assert facts.bits == pytest.approx([FACTS.bits_in_all, 0.0])
    assert facts.price == 0.0
    assert facts.losses[0] == pytest.approx(0.0, abs=1e-12)


def test_a_fact_worth_less_than_the_price_gets_nothing_and_the_rest_is_learned_by_rank():
    ratio, groups = 0.5, fact_set(FACTS, parts_of_power_law(20, 1.5))
    found = allocate([ratio, 1 - ratio], [groups, TEXT], 2e4)
    learned = groups.learned(found.bits[0])
    worth = ratio * groups.chances
    assert (learned[worth < found.price * (1 - 1e-6)] == 0).all()
    assert learned[worth > found.price * (1 + 1e-6)] == pytest.approx(
        groups.bits[worth > found.price * (1 + 1e-6)]
    )
    assert 0 < (learned > 0).sum() < 20
    # The threshold in exposures is that of the fact which is worth just the price.
    assert threshold_exposures(found.price, 1e9) == pytest.approx(found.price * 1e9)


def test_the_critical_ratio_and_the_critical_capacity_are_one_line():
    odds = critical_odds(TEXT, FACTS, 3e4)
    ratio = odds / (1 + odds)
    assert critical_capacity(TEXT, FACTS, ratio) == pytest.approx(3e4)
    at = known_part(TEXT, FACTS, 3e4, np.array([0.999 * ratio, 1.05 * ratio]))
    assert at[0] == 0
    assert at[1] > 0


def test_losses_are_those_of_the_bits():
    found = allocate([0.3, 0.7], [fact_set(FACTS), TEXT], 3e4)
    assert found.losses[1] == pytest.approx(50.0 * found.bits[1] ** -0.3)
    left = FACTS.bits_in_all - found.bits[0]
    assert found.losses[0] == pytest.approx(left / FACTS.tokens_a_pass)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: allocate([1.0], [TEXT], 0.0), "capacity must be positive and finite, found 0"),
        (lambda: allocate([1.0, 2.0], [TEXT], 1.0), "needs one ratio a set"),
        (lambda: allocate([-1.0], [TEXT], 1.0), "finite and not negative"),
        (lambda: TextSet(0.0, 1.0), "scale and exponent must be positive"),
        (lambda: FactSet(np.ones(2), np.ones(3)), "two rows of one length"),
    ],
)
def test_wrong_input_is_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
