"""The self-consistent rule, its two regimes, and the barrier of a cold start."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olmo_mixlaw.advice.knowledge import Barrier, Facts, Outlook, Rule, calibrated, least_ratio
from olmo_mixlaw.advice.knowledge.barrier import NONE, PILOT
from olmo_mixlaw.advice.knowledge.storage import Storage
from olmo_mixlaw.errors import ConfigError, DataError

FACTS = Facts(320_000)


def critical_odds(rule: Rule, facts: Facts, n: float, tokens: float) -> float:
    ratio = rule.ratio_for(facts, n, tokens)[0]
    return ratio / (1 - ratio)


def test_the_published_threshold_solves_the_rule():
    ratio = Rule().ratio_for(FACTS, 70e6, 32e9)[0]
    e = ratio * 32e9 / 3.2e7
    kappa = 2.2 * e / (e + 120)
    slope = 0.283 * 4.952 * 70**-1.283 / 1e6
    assert ratio / (1 - ratio) * kappa == pytest.approx(3.2e7 * slope / np.log(2), rel=1e-4)
    assert ratio == pytest.approx(0.1756, abs=5e-4)


def test_capacity_sets_the_threshold_of_long_runs_and_exposures_that_of_short_ones():
    rule, long = Rule(), 1e15
    first, double = (critical_odds(rule, FACTS, n, long) for n in (1e9, 2e9))
    assert np.log2(double / first) == pytest.approx(-1.283, abs=0.01)
    assert critical_odds(rule, FACTS, 1e9, 10 * long) == pytest.approx(first, rel=1e-2)
    # Where storage never saturates: r ~ (N^-(alpha + 1) / S)^(1/2).
    few = Rule(storage=Storage(np.array([2.2]), np.array([1e6])))
    at, longer, larger = (
        critical_odds(few, Facts(1e3), n, tokens)
        for n, tokens in ((1e9, 1e10), (1e9, 4e10), (2e9, 1e10))
    )
    assert longer / at == pytest.approx(0.5, rel=0.02)
    assert np.log2(larger / at) == pytest.approx(-1.283 / 2, abs=0.02)


@given(st.floats(0.01, 0.9), st.floats(1.001, 1.1), st.floats(6.5, 10))
def test_more_of_anything_teaches_no_less(ratio, more, log_size):
    rule, n = Rule(), 10**log_size
    here = rule.known_part(FACTS, ratio, n, 32e9)[0]
    assert rule.known_part(FACTS, min(ratio * more, 0.99), n, 32e9)[0] >= here
    assert rule.known_part(FACTS, ratio, n * more, 32e9)[0] >= here
    assert rule.known_part(FACTS, ratio, n, 32e9 * more)[0] >= here
    fewer = replace(FACTS, n=FACTS.n / more)
    assert rule.known_part(fewer, ratio, n, 32e9)[0] >= here


def test_the_critical_size_is_where_the_critical_ratio_is_the_one_asked_for():
    size = Rule().size_for(FACTS, 0.2, 32e9, 0.5)[0]
    assert Rule().ratio_for(FACTS, size, 32e9, 0.5)[0] == pytest.approx(0.2, rel=1e-6)
    assert np.isnan(Rule().ratio_for(Facts(1e12), 1e6, 1e9, 0.5)[0])


def test_a_barrier_is_as_wide_as_three_sweeps_leave_it():
    low, middle, high = PILOT.quantile(np.array([0.05, 0.5, 0.95]))
    assert middle == pytest.approx(np.sqrt(1.4 * 2.3))
    assert low == 1.0  # never below: a cold start is no easier
    assert high == pytest.approx(4.82, abs=0.05)
    assert (NONE.draws(10) == 1).all()
    many = replace(PILOT, count=10)
    assert many.quantile(0.95) < PILOT.quantile(0.95)


def test_calibration_is_the_range_of_measured_over_predicted_odds():
    found = calibrated([0.2, 0.1], [0.4, 0.1])
    assert (found.low, found.high, found.count) == (pytest.approx(1.0), pytest.approx(8 / 3), 2)
    with pytest.raises(DataError, match="add sweeps, to two or more"):
        calibrated([0.2], [0.4])
    with pytest.raises(DataError, match="lie between 0 and 1"):
        calibrated([0.2, 0.3], [0.4, 1.0])
    with pytest.raises(ConfigError, match="must be positive and in order"):
        Barrier(2.0, 1.0, 3)
    with pytest.raises(ConfigError, match="2 to 10 tell how much they differ"):
        Barrier(1.0, 2.0, 1)


def test_the_least_ratio_teaches_with_the_stated_probability():
    least = least_ratio(FACTS, 1e9, 1e11, accuracy=0.9, probability=0.9)
    outlook = Outlook(FACTS, 1e9, 1e11, Rule())
    assert outlook.probability(least * 1.001, 0.9) >= 0.9 > outlook.probability(least * 0.98, 0.9)
    warm = least_ratio(FACTS, 1e9, 1e11, barrier=NONE)
    surer = least_ratio(FACTS, 1e9, 1e11, probability=0.97)
    assert warm < least < surer
    with pytest.raises(ConfigError, match="no ratio teaches 90% of 320,000 facts"):
        least_ratio(FACTS, 1e9, 1e9)
    with pytest.raises(ConfigError, match=r"accuracy: lies between 0 and 1, found 1\.2"):
        least_ratio(FACTS, 1e9, 1e11, accuracy=1.2)


def test_a_large_model_still_needs_its_exposures():
    outlook = Outlook(Facts(1000), 1e11, 1e9, Rule())
    assert outlook.probability(0.004, 0.5) == 0  # 40 exposures
    assert outlook.probability(0.021, 0.5) > 0.95  # 210
