"""Choosing runs on linear Gaussians: gains in closed form, budgets kept, exchanges that gain."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmo_mixlaw.advice.design import choose
from olmo_mixlaw.advice.design.belief import Belief
from olmo_mixlaw.advice.design.choose import MOST_RUNS, Chooser, State, View, view_of
from olmo_mixlaw.advice.design.regret import SUREST, contrasts, outcomes


def view(seed: int = 0, targets: int = 2, runs: int = 12, width: int = 5, aims: int = 3) -> View:
    rng = np.random.default_rng(seed)
    aim = rng.normal(size=(targets, width, aims))
    return View(
        law=f"law{seed}",
        runs=rng.normal(size=(targets, runs, width)),
        aim=aim / np.sqrt((aim**2).sum()),
        variance=rng.uniform(0.05, 0.5, targets),
        weight=1.0,
    )


def left_after(some: View, rows: list[int]) -> float:
    """The aim's variance after runs, by the textbook's formula for each target."""
    total = 0.0
    for t in range(len(some.aim)):
        made = some.runs[t, rows]
        within = made @ made.T + some.variance[t] * np.eye(len(rows))
        after = np.eye(made.shape[1]) - made.T @ np.linalg.inv(within) @ made
        total += float(np.trace(some.aim[t].T @ after @ some.aim[t]))
    return total


def chooser(views: list[View], price: np.ndarray, budget: float, **options: bool) -> Chooser:
    scale = np.arange(len(price)) % 2
    return Chooser(views, price, scale, budget, **options)


def test_gains_are_those_of_the_closed_form() -> None:
    some = view()
    state = State.of(some, [3])
    for row, gain in enumerate(state.gains()):
        expected = left_after(some, [3]) - left_after(some, [3, row])
        assert gain == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_adding_runs_one_by_one_is_the_same_as_all_at_once() -> None:
    some, rows = view(), [1, 4, 4, 7]
    state, whole = State.of(some), State.of(some, rows)
    for row in rows:
        state.add(row)
    for name in ("covariance", "reach", "own", "pull", "left"):
        assert np.allclose(getattr(state, name), getattr(whole, name), atol=1e-10)


def test_what_a_run_is_missed_by_is_what_is_left_without_it() -> None:
    some, rows = view(), [0, 2, 5]
    lost = State.of(some, rows).losses(rows)
    for i in range(len(rows)):
        rest = rows[:i] + rows[i + 1 :]
        assert lost[i] == pytest.approx(left_after(some, rest) - left_after(some, rows), rel=1e-8)


def test_the_first_run_is_the_one_of_most_gain_a_price() -> None:
    some = view()
    price = np.random.default_rng(1).uniform(1, 3, 12)
    budget = 8.0
    gains = np.array([left_after(some, []) - left_after(some, [row]) for row in range(12)])
    found = chooser([some], price, budget).greedy(np.arange(12))
    assert found.rows[0] == int((gains / (price + budget / MOST_RUNS)).argmax())
    assert found.left == pytest.approx(left_after(some, found.rows), rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    budget=st.floats(1.0, 40.0),
    repeatable=st.booleans(),
    worst=st.booleans(),
)
def test_no_plan_exceeds_its_budget_or_repeats_unasked(
    seed: int, budget: float, repeatable: bool, worst: bool
) -> None:
    price = np.random.default_rng(seed).uniform(1.0, 9.0, 12)
    price[0] = 1.0
    views = [view(seed), view(seed + 1)]
    found = chooser(views, price, budget, repeatable=repeatable, worst=worst).plan()
    assert found.rows
    assert price[found.rows].sum() <= budget * (1 + 1e-9)
    assert found.spent == pytest.approx(price[found.rows].sum())
    assert repeatable or len(set(found.rows)) == len(found.rows)
    affordable = price <= budget - found.spent
    affordable[found.rows] &= repeatable
    assert not affordable.any()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_a_plan_is_no_worse_than_the_greedy_one_it_began_with(seed: int) -> None:
    price = np.random.default_rng(seed).uniform(1.0, 9.0, 12)
    some = chooser([view(seed)], price, 15.0)
    first, found = some.greedy(np.arange(12)), some.plan()
    assert found.left <= first.left + 1e-12
    assert left_after(view(seed), found.rows) == pytest.approx(found.left, rel=1e-8)


def test_what_can_be_repeated_is_bought_again() -> None:
    """One run alone says anything of the aim."""
    one = View(
        "law",
        runs=np.array([[[1.0, 0.0], [0.0, 1.0]]]),
        aim=np.array([[[1.0], [0.0]]]),
        variance=np.array([1.0]),
        weight=1.0,
    )
    found = Chooser([one], np.ones(2), np.zeros(2, int), 3.0, repeatable=True).plan()
    assert found.rows == [0, 0, 0]
    assert found.left == pytest.approx(1 / 4)


def test_for_the_worst_law_its_own_runs_are_bought() -> None:
    """Two laws that each learn from one run only: half known and half not is worse than both."""

    def law(name: str, row: int, weight: float) -> View:
        runs = np.zeros((1, 2, 1))
        runs[0, row] = 1.0
        return View(name, runs, np.ones((1, 1, 1)), np.array([0.5]), weight)

    def bought(worst: bool) -> list[int]:
        return (
            Chooser(
                [law("a", 0, 0.9), law("b", 1, 0.1)], np.ones(2), np.zeros(2, int), 4.0, True, worst
            )
            .plan()
            .rows
        )

    assert sorted(bought(worst=True)) == [0, 0, 1, 1]
    assert bought(worst=False).count(0) > 2


def belief(noise: float = 0.1) -> Belief:
    """Three mixtures with values of their own; a run for each measures it."""
    return Belief(
        law="law",
        runs=np.eye(3)[None],
        goal=np.eye(3)[None],
        mean=np.array([1.0, 1.0, 1.0]),
        noise=np.array([noise]),
        by_budget=0.1,
    )


def test_before_any_run_the_regret_is_the_mean_less_the_expected_least() -> None:
    """The expected least of three standard normals is -.8463 (order statistics)."""
    regret, error = outcomes(belief(), np.zeros(0, int), [0], 0)[0]
    assert regret == pytest.approx(0.846, abs=0.12)
    assert error == pytest.approx(np.hypot(1.0, SUREST))


def test_runs_that_measure_every_mixture_leave_no_regret() -> None:
    after = outcomes(belief(noise=1e-6), np.arange(3), [0, 1, 2, 3], 0)
    assert after[3, 0] == pytest.approx(0, abs=1e-6)
    assert (np.diff(after[:, 0]) <= 0).all()
    assert after[3, 1] == pytest.approx(SUREST, rel=1e-3)


def test_the_same_worlds_are_drawn_for_every_plan() -> None:
    """What the first runs bring does not depend on those after them."""
    whole = outcomes(belief(), np.array([0, 1, 2]), [1, 3], 0)
    alone = outcomes(belief(), np.array([0, 1]), [1, 2], 0)
    assert whole[0] == pytest.approx(alone[0])


def test_contrasts_hold_the_variance_between_mixtures_that_may_be_best() -> None:
    apart = contrasts(belief(), 2000, 0)
    total = float((apart**2).sum())
    assert total == pytest.approx(2 / 3, abs=0.02)  # three unit vectors about their mean


@pytest.mark.parametrize("error_part", [0.0, 0.3, 1.0])
def test_a_views_aim_has_a_variance_of_one_before_any_run(error_part: float) -> None:
    found = view_of(belief(), 1.0, error_part, 0)
    assert State.of(found).left == pytest.approx(1.0)


def test_a_budget_is_not_left_over_for_more_tiny_runs_than_a_plan_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choose, "MOST_RUNS", 5)
    some = view(runs=60)
    price = np.where(np.arange(60) < 50, 0.001, 1.0)
    found = Chooser([some], price, np.where(price < 1, 0, 1), 4.0).plan()
    assert len(found.rows) <= 5
    assert (price[found.rows] == 1).any()
    tiny = chooser([some], price, 4.0).greedy(np.arange(50))
    assert found.left < tiny.left
