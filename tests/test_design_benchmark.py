"""The benchmark of which runs to buy: what a pool sells, what strategies buy, what is reached."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import design
import design_bayes
import tables
from design_plans import planned
from design_pools import Pool, families, half_held, largest_held, mixtures_held
from design_strategies import ORDERS, affordable, strategies_for

from olmo_mixlaw.runs import Design

MIXTURES, SMALL, LARGE, HELD = 8, 2e7, 8e7, 3e8
BUDGETS = (1e9, 2e9)


def made(
    sizes: tuple[float, ...], budgets: tuple[float, ...] = BUDGETS, count: int = MIXTURES
) -> Design:
    """Every mixture at every size and budget, losses by a law without luck."""
    ratios = np.random.default_rng(3).dirichlet(np.ones(3), count)
    rows = [(n, d, m) for n in sizes for d in budgets for m in range(count)]
    n, d = (np.array([row[i] for row in rows]) for i in (0, 1))
    each = ratios[[row[2] for row in rows]]
    size = 0.4 * (n / 1e8) ** -0.3 + 0.3 * (d / 1e9) ** -0.3
    losses = 1.5 + size[:, None] + 0.5 * np.exp(-2 * each[:, :2])
    names = [f"run{i}" for i in range(len(rows))]
    return Design(names, ["a", "b", "c"], ["a", "b"], each, n, n, d, losses)


@pytest.fixture
def pool() -> Pool:
    whole = made((SMALL, LARGE, HELD))
    top = whole.n_params == HELD
    held = whole.take(top & (whole.n_tokens == max(BUDGETS)))
    return Pool("tiny", whole.take(~top), held)


def test_a_run_is_sold_with_its_checkpoints_at_the_price_of_its_longest_budget(pool: Pool) -> None:
    assert len(pool) == 2 * MIXTURES
    assert set(pool.price) == {6 * SMALL * 2e9, 6 * LARGE * 2e9}
    rows = pool.bought(np.array([0, 3]))
    assert len(rows) == 4
    assert sorted(rows.n_tokens) == [1e9, 1e9, 2e9, 2e9]
    longest = rows.losses[rows.n_tokens == 2e9].mean(1)
    assert np.sort(pool.objective(np.array([0, 3]))) == pytest.approx(np.sort(longest))


@pytest.mark.parametrize("name", ORDERS)
def test_no_strategy_spends_more_than_its_budget_or_buys_twice(name: str, pool: Pool) -> None:
    parts = (0.05, 0.2, 0.5, 1.0)
    total = pool.price.sum()
    for part, runs in zip(
        parts, strategies_for(pool)[name](pool, [p * total for p in parts], 1), strict=True
    ):
        assert len(set(runs)) == len(runs)
        assert pool.price[runs].sum() <= part * total * (1 + 1e-9)


def test_strategies_spend_on_sizes_as_they_say(pool: Pool) -> None:
    def order(name: str) -> np.ndarray:
        return ORDERS[name](pool, np.random.default_rng(0))

    size, mixture = pool.n_params, pool.mixture
    assert set(size[order("Olmix-like")]) == {SMALL}
    assert set(size[order("largest size")]) == {LARGE}
    both = order("two sizes")
    assert len(both) == MIXTURES
    assert (mixture[both[::2]] == mixture[both[1::2]]).all()
    camel = order("CAMEL-like")
    assert sorted(camel) == list(range(len(pool)))
    assert len(set(mixture[camel[:MIXTURES]])) == MIXTURES  # no mixture twice while others are left
    assert (size[camel[:MIXTURES]] == SMALL).sum() == MIXTURES // 2
    first = order("Dirichlet")[:10]  # four small runs cost what a large one does
    assert (
        pool.price[first[size[first] == SMALL]].sum()
        == pool.price[first[size[first] == LARGE]].sum()
    )


def test_spread_takes_the_furthest_mixture_next(pool: Pool) -> None:
    order = ORDERS["spread"](pool, np.random.default_rng(0))
    assert sorted(order) == list(range(len(pool)))
    points, small = np.sqrt(pool.ratios), order[pool.n_params[order] == SMALL]
    near = [
        min(np.linalg.norm(points[small[:i]] - points[run], axis=1))
        for i, run in enumerate(small)
        if i > 1
    ]
    assert near[0] > 2 * near[-1]


def test_a_run_that_does_not_fit_is_passed_over(pool: Pool) -> None:
    small, large = np.flatnonzero(pool.n_params == SMALL), np.flatnonzero(pool.n_params == LARGE)
    order = np.r_[small[0], large[0], small[1]]
    runs = affordable(pool, order, 2.5 * pool.price[small[0]])
    assert runs.tolist() == [small[0], small[1]]


def test_one_scale_leaves_the_orders_that_differ() -> None:
    one = made((SMALL,), (1e9,))
    pool = Pool("one", one.take(np.arange(5)), one.take(np.arange(5, 8)))
    assert list(strategies_for(pool)) == ["full grid", "spread"]


def test_the_planner_spends_its_budget_in_batches_that_hold_the_earlier_ones(pool: Pool) -> None:
    total = pool.price.sum()
    some, more, every = planned(pool, [0.3 * total, 0.6 * total, total], 0)
    assert set(some) < set(more) < set(every)
    assert sorted(every) == list(range(len(pool)))
    assert 0.2 * total < pool.price[some].sum() <= 0.3 * total * (1 + 1e-9)
    assert [pool.price[some].sum() for _ in range(2)] == [
        pool.price[planned(pool, [0.3 * total], 0)[0]].sum() for _ in range(2)
    ]


def test_without_botorch_its_baseline_is_left_out_and_said_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(design_bayes.importlib.util, "find_spec", lambda name: None)
    assert design_bayes.bayesian() == {}
    assert "botorch is not installed" in capsys.readouterr().out


def test_the_judge_scores_a_law_that_knows_the_truth_as_right(pool: Pool) -> None:
    judge = design.Judge(pool, "no_mixture")
    plain = judge(np.arange(len(pool)))
    assert np.isnan(list(judge(np.array([], int)).values())).all()
    better = design.Judge(pool, "modulated")(np.arange(len(pool)))
    assert better["mre"] < plain["mre"]
    assert better["regret"] == 0.0
    assert better["rho"] == pytest.approx(1.0)


def test_rows_and_what_was_reached(pool: Pool) -> None:
    strategies = {"full grid": strategies_for(pool)["full grid"]}
    rows = design.rows_of(pool, strategies, (0.5, 1.0), 0, "no_mixture")
    assert [row["fraction"] for row in rows] == [0.5, 1.0]
    assert rows[1]["spent"] == 1.0
    assert rows[1]["size_shares"] == [0.2, 0.8]
    found = pd.DataFrame(
        {
            "table": "t",
            "strategy": ["full grid"] * 3 + ["other"] * 3,
            "fraction": [0.2, 0.5, 1.0] * 2,
            "spent": [0.2, 0.5, 1.0] * 2,
            "mre": [3.0, 1.2, 1.0, 1.05, np.nan, 1.0],
            "regret": 0.0,
        }
    )
    line = design.reached(found).set_index("strategy")
    assert line["reached_at"].to_dict() == {"full grid": 1.0, "other": 0.2}
    assert line.loc["full grid", "half_over_full"] == pytest.approx(1.2)
    equal = design.at_equal_compute(found.assign(mre=[3.0, 1.0, 1.0, 1.5, 2.0, 1.0]))
    assert equal.loc["full grid"].to_dict() == {"t": 1.0, "all": 1.0}
    assert equal.loc["other", "t"] == pytest.approx(1.0)  # half and twice


def table(design_: Design, **more: object) -> tables.Table:
    return tables.Table("t", "t", lambda: design_, **more)  # type: ignore[arg-type]


def test_the_largest_scale_is_held_out_and_never_for_sale() -> None:
    pool = largest_held(table(made((SMALL, LARGE, HELD))), 0)
    assert pool.sizes.tolist() == [SMALL, LARGE]
    assert set(pool.held.n_params) == {HELD}
    assert set(pool.held.n_tokens) == {max(BUDGETS)}


def test_of_one_scale_mixtures_are_held_out_by_the_seed() -> None:
    whole = made((SMALL,), (1e9,), count=12)
    first, again, other = (mixtures_held(table(whole), seed) for seed in (0, 0, 1))
    assert len(first.held) == 3
    assert not set(first.held.run_ids) & set(first.design.run_ids)
    assert first.held.run_ids == again.held.run_ids != other.held.run_ids


def test_half_of_the_runs_at_the_target_are_for_sale() -> None:
    pool = half_held(table(made((1e6, 6e7, 1e9), (1e9,))), 0)
    assert len(pool.held) == MIXTURES // 2
    assert (pool.n_params == 1e9).sum() == MIXTURES // 2
    assert (pool.n_params == 1e6).sum() == MIXTURES


def test_tasks_of_a_family_are_one_target() -> None:
    losses = np.array([[1.0, 3.0, 5.0, 2.0]])
    one = np.ones(1)
    tasks = ["mmlu_law:rc", "mmlu_art:rc", "piqa:rc", "mmlu"]
    found = families(
        Design(["r"], ["a", "b"], tasks, one[:, None] * [0.5, 0.5], one, one, one, losses)
    )
    assert found.targets == ["mmlu", "others"]
    assert found.losses.tolist() == [[2.0, 5.0]]
