"""What is said of the time that is left: right where a study is even, and steady where it isn't."""

import itertools
import json
import sys
from pathlib import Path

import pytest

from olmo_mixlaw.study.estimate import Estimate, Work

ROOT = Path(__file__).parents[2]


def even(runs=4, steps=100, sizes=("a",), flops=None):
    """Works of `steps` steps, each size `runs` times."""
    flops = flops or dict.fromkeys(sizes, 1.0)
    return {
        f"{size}{i}": Work(f"{size}{i}", size, flops[size], steps)
        for size in sizes
        for i in range(runs)
    }


def test_nothing_is_said_while_nothing_is_known():
    estimate = Estimate(even(), 2)
    estimate.observe("a0", 0, 0.0)
    assert estimate.left(["a0"], ["a1"], 1.0) is None
    estimate.observe("a0", 1, 2.0)  # the first step says when it began, not how fast it is
    assert estimate.left(["a0"], ["a1"], 2.0) is None


def test_runs_are_laid_out_over_the_workers():
    estimate = Estimate(even(4), 2, {"a": 1.0}, scorings={"a": 10.0})
    # Each run: 5 s to begin, 100 steps, 10 s of scoring; two after each other on two workers.
    assert estimate.left([], list(estimate.works), 0.0) == pytest.approx(2 * 115)
    estimate = Estimate(even(4), 2, {"a": 1.0}, scorings={"a": 10.0})
    assert estimate.left([], list(estimate.works), 0.0, elsewhere=2) == pytest.approx(115)


def test_what_is_left_of_a_run_under_way_is_counted():
    estimate = Estimate(even(1), 1, {"a": 1.0}, scorings={"a": 10.0})
    for step in (10, 20, 30):
        estimate.observe("a0", step, float(step))
    assert estimate.left(["a0"], [], 30.0) == pytest.approx(70 + 10)
    assert estimate.left(["a0"], [], 30.0) == pytest.approx(80)


def test_a_run_that_goes_on_does_not_count_the_steps_it_had():
    estimate = Estimate(even(2, steps=1000), 1)
    estimate.observe("a0", 0, 0.0)
    estimate.observe("a0", 500, 8.0)  # from its checkpoint
    estimate.observe("a0", 600, 108.0)
    assert estimate.pace("a") == pytest.approx(1.0)


def test_sizes_that_have_not_run_lie_on_the_line_through_the_others():
    flops = {"a": 1e6, "b": 1e8, "c": 1e10, "d": 1e12}
    works = even(1, sizes=tuple(flops), flops=flops)
    estimate = Estimate(works, 1, {"a": 1.0, "c": 100.0})
    assert estimate.pace("b") == pytest.approx(10.0)
    assert estimate.pace("d") == pytest.approx(1000.0)
    # Neither does a larger size take less time, nor more than its operations.
    assert Estimate(works, 1, {"a": 1.0, "b": 0.5}).pace("c") == pytest.approx(0.5)
    assert Estimate(works, 1, {"a": 1.0, "b": 1e5}).pace("c") == pytest.approx(1e7)
    assert Estimate(works, 1, {"b": 2.0}).pace("a") == pytest.approx(0.2)


def test_one_slow_minute_does_not_change_an_hours_forecast():
    works = even(60, steps=60)
    estimate, now, said = Estimate(works, 1), 0.0, []
    for i, name in enumerate(list(works)[:4]):
        for step in range(1, 61):
            now += 10.0 if i == 2 and step < 7 else 1.0  # a minute at a tenth of the pace
            estimate.observe(name, step, now)
            if step % 20 == 0:
                left = estimate.left([name], list(works)[i + 1 :], now)
                if left is not None:
                    said.append(left)
        estimate.finished(name, now)
    ratios = [b / a for a, b in itertools.pairwise(said)]
    assert max(ratios) < 1.15
    assert min(ratios) > 0.9


def test_a_forecast_never_is_negative_or_grows_by_waiting():
    estimate = Estimate(even(1, steps=10), 1, {"a": 1.0})
    estimate.observe("a0", 5, 0.0)
    said = [estimate.left(["a0"], [], float(now)) for now in range(0, 200, 5)]
    assert all(b <= a for a, b in itertools.pairwise(said))
    assert min(said) >= 0.0


def test_a_recorded_study_is_forecast_without_jumps(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    studies = pytest.importorskip("studies")
    found = studies.estimates()
    # The forecast before this one: 62 min, 35, ..., 18, 35, 23, ..., a worst ratio of 3.
    assert found["said"] > 20
    assert found["worst_ratio"] < 1.3
    assert found["worst_rise"] < 1.1
    assert json.loads((ROOT / "benchmarks/data/progress.json").read_text())["workers"] == 2
    sys.modules.pop("studies", None)
