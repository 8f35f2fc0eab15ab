"""Threshold popularity, the size that it tells, and the time to learn."""

from __future__ import annotations

import numpy as np
import pytest

from olmo_mixlaw.advice.knowledge import size_from_threshold, threshold_popularity
from olmo_mixlaw.advice.knowledge.horizon import time_to_learn
from olmo_mixlaw.errors import DataError

COUNTS = np.repeat(np.geomspace(10, 1e5, 200).round(), 20)


def test_the_threshold_is_where_the_running_accuracy_falls_below_the_level():
    known = (COUNTS > 1000).astype(float)
    found = threshold_popularity(COUNTS, known, target=0.6, failures=1)
    at_least = known[found.popularity <= COUNTS]
    above = known[found.popularity < COUNTS]
    assert at_least.mean() < 0.6 <= above.mean()
    assert found.items == len(at_least)
    later = threshold_popularity(COUNTS, known, target=0.6, failures=5)
    assert np.sum(np.unique(COUNTS) >= later.popularity) == 4 + np.sum(
        np.unique(COUNTS) >= found.popularity
    )


def test_no_failure_is_counted_before_fifty_items():
    counts = np.arange(400, 0, -1.0)
    known = (counts > 150).astype(float)
    known[:20] = 0  # the most popular ones are wrong by bad luck
    found = threshold_popularity(counts, known, target=0.6, failures=5)
    assert found.popularity < 150
    hasty = threshold_popularity(counts, known, target=0.6, failures=5, least_items=1)
    assert "below the level from the start" in hasty.verdict


@pytest.mark.parametrize(
    ("counts", "known", "verdict"),
    [
        (COUNTS, np.ones(len(COUNTS)), "never crosses: the rarest items leave"),
        (COUNTS, np.zeros(len(COUNTS)), "below the level from the start"),
        (np.full(100, 7.0), np.ones(100), "ties only: all items are equally popular; add items"),
    ],
)
def test_where_there_is_no_threshold_the_reason_is_given(counts, known, verdict):
    found = threshold_popularity(counts, known)
    assert np.isnan(found.popularity)
    assert verdict in found.verdict


def test_popularity_without_counts_is_refused():
    with pytest.raises(DataError, match="1 of 3 items have no count; add how often each occurs"):
        threshold_popularity([1, np.nan, 3], [1, 1, 0])
    with pytest.raises(DataError, match="2 popularities for 3 answers"):
        threshold_popularity([1, 2], [1, 1, 0])
    with pytest.raises(DataError, match="correct is within 0 to 1"):
        threshold_popularity([1, 2], [1, 40])


def test_a_size_is_told_by_its_threshold():
    sizes = np.array([7e7, 1.6e8, 4.1e8, 1e9])
    rng = np.random.default_rng(1)
    thresholds = 1e4 * (sizes / 1e8) ** -1.15 * np.exp(0.05 * rng.normal(size=4))
    found = size_from_threshold(sizes, thresholds, 1e4 * 3.0**-1.15)
    assert found.slope == pytest.approx(-1.15, abs=0.1)
    assert found.low < 3e8 < found.high
    assert found.n_params == pytest.approx(3e8, rel=0.15)
    with pytest.raises(DataError, match="2 sizes with a threshold; add known models, to 3"):
        size_from_threshold(sizes[:2], thresholds[:2], 1.0)
    with pytest.raises(DataError, match="thresholds don't fall with size"):
        size_from_threshold(sizes, thresholds[::-1], 1.0)


def test_both_forms_of_the_time_to_learn_are_told_apart():
    ratios = np.array([0.3, 0.35, 0.4, 0.5, 0.6, 0.8])
    slow = time_to_learn(ratios, np.exp(-0.255 + 1.514 / ratios))
    assert (slow.better, slow.told_apart) == ("exponential", True)
    assert slow.constants["exponential"] == pytest.approx((-0.255, 1.514))
    assert slow.tokens(0.45) == pytest.approx(np.exp(-0.255 + 1.514 / 0.45))
    power = time_to_learn(ratios, 2 * ratios**-3.0)
    assert power.better == "power law"
    assert power.constants["power law"][1] == pytest.approx(3.0)
    some = time_to_learn([0.1, *ratios], [np.nan, *(2 * ratios**-3.0)])
    assert some.left_out == 1
    with pytest.raises(DataError, match="2 ratios reach the level; add longer runs"):
        time_to_learn([0.1, 0.3, 0.4], [np.nan, 2.0, 1.0])
