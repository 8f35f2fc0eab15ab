"""`plan_runs`: sizes for a far target, the same plan twice, what is refused, when it stops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from law_tables import grid, table_of, transfer_losses

from olmo_mixlaw.advice.design import Candidates, Target, plan_runs
from olmo_mixlaw.advice.design.belief import Question, beliefs_of
from olmo_mixlaw.advice.goal import MeanLoss
from olmo_mixlaw.errors import ConfigError, UnknownNameError
from olmo_mixlaw.laws.law import resolve
from olmo_mixlaw.runs import Design

DOMAINS = ["web", "code", "books"]
FAR = Target(2e9, 1e10, price=6 * 2e9 * 1e10)


def offered(sizes: int = 3, mixtures: int = 12, seed: int = 0) -> Candidates:
    """Sizes four times apart, 20 tokens a parameter, priced by 6 N D."""
    ratios = np.random.default_rng(seed).dirichlet(np.full(3, 2.0), mixtures)
    n = np.repeat(2e7 * 4.0 ** np.arange(sizes), mixtures)
    return Candidates(DOMAINS, np.tile(ratios, (sizes, 1)), n, 20 * n, 6 * n * 20 * n)


def made(candidates: Candidates, rows: np.ndarray) -> Design:
    """Runs of candidates, losses by a law that has no noise but these targets' own."""
    some = candidates.take(rows)
    share = some.ratios + 0.05
    losses = 1.5 + 40 * some.n_params[:, None] ** -0.25 + (some.n_tokens[:, None] * share) ** -0.2
    return Design(
        [f"run{i}" for i in range(len(some))],
        DOMAINS,
        DOMAINS,
        some.ratios,
        some.n_params,
        some.n_params,
        some.n_tokens,
        losses,
    )


def test_two_sizes_are_bought_for_a_far_target() -> None:
    candidates = offered()
    plan = plan_runs(candidates, target=FAR, budget=40 * candidates.price.min())
    assert len(np.unique(candidates.n_params[plan.rows])) >= 2
    assert candidates.price[plan.rows].sum() == pytest.approx(plan.spent)
    assert plan.spent <= 40 * candidates.price.min() * (1 + 1e-9)


def test_a_second_size_is_expected_to_forecast_better_than_one_alone() -> None:
    candidates, budget = offered(), 60 * offered().price.min()
    small = candidates.take(candidates.n_params == candidates.n_params.min())
    both = plan_runs(candidates, target=FAR, budget=budget)
    alone = plan_runs(replace(small, repeatable=True), target=FAR, budget=budget)
    assert both.expected_error[1] < 0.7 * alone.expected_error[1]
    assert alone.expected_error[0] == pytest.approx(both.expected_error[0], rel=0.3)


def test_the_same_seed_gives_the_same_plan() -> None:
    candidates = offered()
    first, second = (
        plan_runs(candidates, target=FAR, budget=1e18, batch=2e17, seed=3) for _ in range(2)
    )
    assert first.rows.tolist() == second.rows.tolist()
    assert first.batches == second.batches
    assert first.stop == second.stop


def test_a_larger_budget_is_expected_to_bring_no_less() -> None:
    candidates = offered()
    plans = [plan_runs(candidates, target=FAR, budget=budget) for budget in (1e17, 5e17, 3e18)]
    errors = [plan.expected_error[1] for plan in plans]
    assert errors == sorted(errors, reverse=True)
    assert plans[2].expected_regret[1] < plans[0].expected_regret[1] < plans[0].expected_regret[0]


def test_batches_cost_what_they_may_and_add_up() -> None:
    candidates = offered()
    plan = plan_runs(candidates, target=FAR, budget=1e18, batch=2e17)
    assert [b.first for b in plan.batches] == [0, *(b.last for b in plan.batches[:-1])]
    assert plan.batches[-1].last == len(plan.rows)
    before = 0.0
    for batch in plan.batches:
        runs = candidates.price[plan.rows[batch.first : batch.last]]
        assert runs.sum() <= 2e17 * (1 + 1e-9) or len(runs) == 1
        assert batch.spent == pytest.approx(before + runs.sum())
        before = batch.spent


def test_a_plan_stops_where_the_next_batch_wouldnt_pay() -> None:
    """A target that costs little more than its small runs is not worth many of them."""
    candidates = offered()
    cheap = replace(FAR, price=3e17)
    how = {"target": cheap, "budget": 2e19, "batch": 1e18}
    whole = plan_runs(candidates, **how)
    assert whole.pays is not None
    assert whole.pays < len(whole.batches)
    early = plan_runs(candidates, stop_early=True, **how)
    assert len(early.batches) == whole.pays
    assert early.spent == (whole.batches[whole.pays - 1].spent if whole.pays else 0.0)
    assert "stops there" in early.stop or "no run pays" in early.stop


def test_runs_made_already_are_not_bought_again() -> None:
    """What a size at hand has told makes its like worth less than the other's."""
    candidates = offered()
    small = np.flatnonzero(candidates.n_params == candidates.n_params.min())
    budget = 90 * float(candidates.price.min())
    fresh = plan_runs(candidates, target=FAR, budget=budget, laws=["transfer"])
    seen = made(candidates, small)
    after = plan_runs(candidates, target=FAR, budget=budget, laws=["transfer"], seen=seen)
    assert after.expected_error[0] < fresh.expected_error[0]
    assert np.isin(fresh.rows, small).any()
    assert not np.isin(after.rows, small).any()
    again = replace(candidates, repeatable=True)
    repeated = plan_runs(again, target=FAR, budget=budget, laws=["transfer"], seen=seen)
    assert np.isin(repeated.rows, small).any()


def test_where_all_was_run_nothing_is_left_to_choose() -> None:
    candidates = offered(sizes=2)
    seen = made(candidates, np.arange(len(candidates)))
    with pytest.raises(ConfigError, match="every one was run already"):
        plan_runs(candidates, target=FAR, budget=1e18, seen=seen)


@pytest.mark.parametrize("law", ["regmix_fast", "kriging", "competition", "log_linear"])
def test_every_kind_of_law_can_be_planned_for(law: str) -> None:
    """With a formula, without one, coupled, and without terms in N and D."""
    design = table_of(transfer_losses(grid(sizes=3, mixtures=8), noise=0.003)).design()
    n = np.repeat(np.unique(design.n_params), 6)
    ratios = np.random.default_rng(0).dirichlet(np.ones(len(design.domains)), 6)
    d = np.full(len(n), float(design.n_tokens.max()))
    candidates = Candidates(design.domains, np.tile(ratios, (3, 1)), n, d, 6 * n * d)
    target = Target(float(2 * n.max()), float(d.max()))
    plan = plan_runs(
        candidates, laws=[law], target=target, budget=candidates.price.sum() / 3, seen=design
    )
    assert len(plan.rows)
    # By some hundred worlds: of a law of steps, runs elsewhere tell next to nothing.
    assert 0 <= plan.expected_regret[1] <= 1.2 * plan.expected_regret[0]
    assert plan.expected_error[1] <= plan.expected_error[0]


def test_a_law_without_a_formula_knows_nothing_before_the_first_run() -> None:
    with pytest.raises(ConfigError, match=r"'kriging.*' has no prior.*laws with a formula"):
        plan_runs(offered(), laws=["kriging"], target=FAR, budget=1e18)


def test_at_the_runs_made_a_belief_knows_no_more_than_their_luck() -> None:
    """Linearised, n repeats of a run leave its mean uncertain by less than noise / sqrt(n)."""
    candidates = offered(mixtures=6)
    rows = np.repeat(np.arange(6), 8)
    seen = made(candidates, rows)
    question = Question.of(
        candidates, FAR, candidates.ratios[:6], seen, DOMAINS, MeanLoss.of(None, DOMAINS), 0
    )
    [belief] = beliefs_of(question, resolve("transfer"))
    spread = np.sqrt((belief.runs[:, :6] ** 2).sum(2))
    # Rows of one size and mixture count as one run: its checkpoints.
    assert (spread <= belief.noise[:, None] * (1 + 1e-6)).all()
    unseen = np.sqrt((belief.runs[:, 12:] ** 2).sum(2))
    assert unseen.mean() > 2 * spread.mean()


def test_runs_that_repeat_as_the_target_are_planned_for_effective_text() -> None:
    """A source that ends is worth less of the target's mixture."""
    candidates = offered()
    ends = np.array([np.inf, 2e8, np.inf])
    cut = ends[None] * (candidates.n_tokens / FAR.n_tokens)[:, None]
    some = replace(candidates, available=cut)
    mixtures = np.array([[0.2, 0.6, 0.2], [0.6, 0.2, 0.2]])
    target = replace(FAR, mixtures=mixtures, available=ends)
    asked = Question.of(some, target, mixtures, None, DOMAINS, MeanLoss.of(None, DOMAINS), 0)
    assert (asked.heart > 1).all()
    assert asked.target.ratios[0, 1] < 0.6
    assert (asked.candidates.n_tokens < some.n_tokens).any()
    whole = Question.of(
        candidates,
        replace(target, available=None),
        mixtures,
        None,
        DOMAINS,
        MeanLoss.of(None, DOMAINS),
        0,
    )
    law = resolve("transfer")
    # Of two mixtures that are alike but for names, the one with more of what ends loses.
    with_end, without = (beliefs_of(q, law)[0].mean for q in (asked, whole))
    assert without[0] == pytest.approx(without[1])
    assert with_end[0] > with_end[1]
    assert len(plan_runs(some, target=target, budget=1e18).rows)


def test_weights_that_name_no_target_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="'mmlu'"):
        plan_runs(offered(), target=FAR, budget=1e18, goal_weights={"mmlu": 1.0})


def test_only_what_is_weighed_counts() -> None:
    """The mixtures bought for one target alone lean to what tells of it."""
    candidates = offered()
    plan = plan_runs(candidates, target=FAR, budget=1e18, goal_weights={"code": 1.0})
    assert plan.expected_regret[0] > 0


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"budget": 1e10}, r"budget: 1e\+10 buys no run; the cheapest candidate costs 4.8e\+16"),
        ({"budget": np.nan}, "buys no run"),
        ({"target": replace(FAR, n_tokens=1e13)}, "don't reach.*offer longer runs"),
        ({"target": replace(FAR, n_params=-1.0)}, "target: n_params must be positive"),
        ({"error_part": 2.0}, "error_part: must be 0 to 1"),
        ({"across": "best"}, "across.*mean, worst"),
        ({"batch": 0.0}, "batch: must be positive"),
        ({"laws": []}, "laws: none is named"),
        ({"laws": ["nonsense"]}, "nonsense"),
    ],
)
def test_what_no_plan_can_be_made_of_is_refused(change: dict, what: str) -> None:
    how = {"target": FAR, "budget": 1e18} | change
    with pytest.raises(ConfigError, match=what):
        plan_runs(offered(), **how)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"price": np.full(36, np.nan)}, "price of row 1 is nan; it must be positive"),
        ({"n_params": np.zeros(36)}, "n_params of row 1"),
        ({"ratios": np.full((36, 3), 0.5)}, "must sum to 1"),
        ({"ratios": np.ones((36, 2)) / 2}, "for 3 domains"),
        ({"price": np.ones(3)}, r"price has shape \(3,\), not \(36,\)"),
    ],
)
def test_candidates_that_are_none_are_refused(change: dict, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        plan_runs(replace(offered(), **change), target=FAR, budget=1e18)


def test_runs_of_other_domains_are_refused() -> None:
    candidates = offered()
    seen = replace(made(candidates, np.arange(12)), domains=["a", "b", "c"])
    with pytest.raises(ConfigError, match=r"domains are web, code, books.*already a, b, c"):
        plan_runs(candidates, target=FAR, budget=1e18, seen=seen)


def test_runs_without_sizes_are_refused() -> None:
    candidates = offered()
    seen = replace(made(candidates, np.arange(12)), n_params=np.full(12, np.nan))
    with pytest.raises(ConfigError, match="n_params and n_tokens are needed in every run"):
        plan_runs(candidates, target=FAR, budget=1e18, seen=seen)
