"""Repeated tokens: what a run that repeats counts as, and what tables say of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from law_tables import grid, table_of, transfer_losses

from olmo_mixlaw.errors import DataError, FitError, UnknownNameError
from olmo_mixlaw.laws import Fit, fit
from olmo_mixlaw.laws.law import Settings
from olmo_mixlaw.laws.learners.stack import Stack
from olmo_mixlaw.laws.repetition import MIDDLE, Repetition, available_of, epochs_of
from olmo_mixlaw.runs import Design, RunTable

LOOSE = Settings(strict=False)
TRUE = Repetition(worth=8.0, memory=2.0, passes=30.0)


def repeating(budgets: int, domains: int = 3, noise: float = 0.002) -> Design:
    """Runs of which about half repeat each domain, with losses by `TRUE` over a transfer law."""
    rng = np.random.default_rng(0)
    design = grid(sizes=2, mixtures=10, budgets=budgets, domains=domains)
    few = rng.random((len(design), domains)) < 0.5
    design = replace(design, available=np.where(few, 1e8, 5e9))
    return with_repeats(design, replace(TRUE, budgets_vary=budgets > 1), noise)


def with_repeats(design: Design, repetition: Repetition, noise: float) -> Design:
    fresh = transfer_losses(replace(repetition.applied(design)), noise=noise)
    assert design.available is not None
    at = (design.ratios, design.n_params, design.n_tokens, design.available)
    return replace(design, losses=fresh.losses * repetition.by_heart(*at)[0][:, None])


@pytest.fixture(scope="module", params=[1, 2], ids=["one budget", "two budgets"])
def design(request: pytest.FixtureRequest) -> Design:
    return repeating(request.param)


@pytest.fixture(scope="module")
def fitted(design: Design) -> Fit:
    return fit("transfer", design, settings=LOOSE)


@pytest.mark.parametrize("vary", [True, False])
def test_without_repeats_nothing_changes(vary: bool) -> None:
    h = np.array([[0.25, 0.75], [1.0, 0.0]])
    repetition = Repetition(budgets_vary=vary)
    for available in (np.array([np.inf, np.inf]), np.array([1e9, 2e9])):
        ratios, budgets = repetition.effective(h, 1e9, available)
        np.testing.assert_allclose(ratios, h, rtol=1e-12)
        np.testing.assert_allclose(budgets, 1e9, rtol=1e-12)
        factor, slope = repetition.by_heart(h, 1e8, 1e9, available)
        assert (factor == 1).all()
        assert (slope == 0).all()


def test_repeats_that_are_worth_nothing_leave_the_tokens_that_are_there() -> None:
    repetition = Repetition(worth=1e-9)
    ratios, budgets = repetition.effective(np.array([[0.5, 0.5]]), 8e9, np.array([1e9, np.inf]))
    np.testing.assert_allclose(budgets, 5e9)
    np.testing.assert_allclose(ratios, [[0.2, 0.8]])


def test_effective_tokens_are_those_of_the_paper() -> None:
    # arXiv 2305.16264, equation 5, one domain: U + U r (1 - exp(-R / r)).
    repetition = Repetition(worth=15.0)
    _, budgets = repetition.effective(np.ones((1, 1)), 4e9, np.array([1e9]))
    np.testing.assert_allclose(budgets, 1e9 * (1 + 15 * (1 - np.exp(-3 / 15))))


def test_more_tokens_of_a_domain_are_worth_more_but_less_and_less() -> None:
    budgets = np.geomspace(1e8, 1e12, 60)
    ones = np.ones((60, 1))
    _, worth = Repetition().effective(ones, budgets, np.array([1e9]))
    part = worth / budgets
    assert (np.diff(worth) >= 0).all()
    assert (np.diff(part) <= 1e-12).all()
    assert worth[-1] <= 1e9 * (1 + MIDDLE[0])


def test_what_is_learnt_by_heart_grows_with_size_and_repeats_and_ends() -> None:
    ones, unique = np.ones((50, 1)), np.array([1e9])
    times = Repetition().by_heart(ones, 5e9, np.geomspace(1e9, 1e14, 50), unique)[0]
    sizes = Repetition().by_heart(ones, np.geomspace(1e6, 1e14, 50), 1e12, unique)[0]
    for factor in (times, sizes):
        assert (np.diff(factor) >= 0).all()
        assert 1 <= factor[0] < 1.001
        assert factor[-1] <= 4.5
    assert sizes[-1] > 4.4


def test_a_source_cut_in_two_is_as_one() -> None:
    repetition = Repetition()
    whole = repetition.by_heart(np.array([[0.6, 0.4]]), 1e9, 6e10, np.array([1e9, np.inf]))[0]
    halves = repetition.by_heart(
        np.array([[0.3, 0.3, 0.4]]), 1e9, 6e10, np.array([5e8, 5e8, np.inf])
    )[0]
    assert whole[0] > 1.01
    np.testing.assert_allclose(whole, halves, rtol=1e-12)


def test_slopes_of_the_parts_are_those_of_differences() -> None:
    repetition, available = Repetition(), np.array([1e8, 3e8, np.inf])
    h = np.random.default_rng(0).dirichlet([2, 2, 2], 5)
    _, slope = repetition.by_heart(h, 1e9, 2e10, available)
    worth = repetition.slope(h, 2e10, available)
    for k in range(3):
        step = 1e-6 * np.eye(3)[k]
        more, fewer = (
            repetition.by_heart(x, 1e9, 2e10, available)[0] for x in (h + step, h - step)
        )
        np.testing.assert_allclose(slope[:, k], (more - fewer) / 2e-6, rtol=1e-5, atol=1e-8)
        kept = replace(repetition, budgets_vary=False)
        more, fewer = (kept.effective(x, 2e10, available)[0] for x in (h + step, h - step))
        np.testing.assert_allclose(worth[:, k], (more - fewer)[:, k] / 2e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "law", ["transfer", "kriging", Stack(members=("transfer", "additive", "regmix"))]
)
def test_slopes_of_a_fit_are_those_of_differences(design: Design, law: object) -> None:
    at = fit(law, design, settings=LOOSE, repeats=8.0)  # type: ignore[arg-type]
    fitted = at.having([1e8, 3e8, 5e9])
    surface = fitted.surface(1.7e8, float(design.n_tokens[-1]))
    h = np.random.default_rng(1).dirichlet([2, 2, 2], 3)
    _, slope = surface(h, True)
    assert slope is not None
    for k in range(3):
        step = 1e-5 * np.eye(3)[k]
        numbers = (surface(h + step, False)[0] - surface(h - step, False)[0]) / 2e-5
        np.testing.assert_allclose(slope[:, :, k], numbers, rtol=1e-4, atol=1e-6)


def test_a_table_says_what_repeats_are_worth(fitted: Fit) -> None:
    found = fitted.repetition
    assert found is not None
    assert found.spread is not None
    assert abs(np.log(found.worth / TRUE.worth)) < max(3 * found.spread[0], 0.1)
    low, high = found.interval or (0.0, 0.0)
    assert low < found.worth < high
    assert found.spread[0] < 0.3


def test_one_domain_says_what_repeats_are_worth_and_what_is_learnt_by_heart() -> None:
    plain = grid(sizes=4, mixtures=2, budgets=6, domains=2)
    d = plain.n_tokens
    design = Design(
        [f"r{i}" for i in range(len(d))],
        ["all"],
        ["loss"],
        np.ones((len(d), 1)),
        plain.n_params,
        plain.n_active,
        d,
        np.ones((len(d), 1)),
        available=np.resize([3e7, 1e8, 1e9, 1e11], len(d))[:, None],
    )
    true = replace(TRUE, worth=6.0, memory=1.5, passes=20.0)
    fresh = true.applied(design)
    n, d = fresh.n_params / 4e7, fresh.n_tokens / 1e9
    losses = (2 + 0.5 * n**-0.3 + 0.6 * d**-0.3)[:, None] / fresh.losses
    design = replace(design, losses=losses)
    found = fit("no_mixture", design, settings=LOOSE).repetition
    assert found is not None
    np.testing.assert_allclose(
        [found.worth, found.memory, found.passes], [6.0, 1.5, 20.0], rtol=0.1
    )
    fixed = fit("no_mixture", design, settings=LOOSE, repeats=3.0).repetition
    assert fixed is not None
    assert fixed.worth == pytest.approx(3.0, rel=1e-3)


def test_held_out_runs_that_repeat_are_predicted(design: Design) -> None:
    some = np.arange(len(design)) % 4 == 0
    fitted, test = fit("transfer", design.take(~some), settings=LOOSE), design.take(some)
    aware = fitted.predict(test.ratios, test.n_params, test.n_tokens, available=test.available)
    blind = fit("transfer", replace(design.take(~some), available=None), settings=LOOSE).predict(
        test.ratios, test.n_params, test.n_tokens
    )
    errors = [np.abs(guess / test.losses - 1).mean() for guess in (aware, blind)]
    assert errors[0] < 0.012
    assert errors[0] < 0.5 * errors[1]


def test_a_table_without_repeats_keeps_the_prior_and_says_so() -> None:
    design = transfer_losses(grid(sizes=2, mixtures=8), noise=0.002)
    plain = fit("transfer", design)
    assert plain.repetition is None
    known = fit("transfer", design, available=dict.fromkeys(design.domains, 1e12))
    assert known.repetition is not None
    assert not known.repetition.is_fitted
    assert known.repetition.worth == MIDDLE[0]
    rows = known.parameters.set_index("parameter").loc["repeats.worth"]
    assert bool(rows["fixed"])
    np.testing.assert_allclose(known.theta, plain.theta)


def test_one_fit_answers_for_several_targets(design: Design, fitted: Fit) -> None:
    h, at = np.full((1, 3), 1 / 3), (1.6e8, float(design.n_tokens[-1]))
    assert fitted.repetition is not None
    assert fitted.repetition.available is None  # runs differ
    losses = [
        fitted.predict(h, *at, available=tokens).mean()
        for tokens in (None, {"web": 1e12}, {"web": 1e7}, {"web": 1e6})
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    assert losses[1] < losses[2] < losses[3]
    same = fitted.having({"web": 1e7}).predict(h, *at).mean()
    assert same == losses[2]


def test_a_saved_fit_repeats_as_before(design: Design, fitted: Fit, tmp_path: Path) -> None:
    fitted = fitted.having({"code": 2e7})
    again = Fit.load(fitted.save(tmp_path / "fit.json"))
    h, at = np.full((1, 3), 1 / 3), (1.6e8, float(design.n_tokens[-1]))
    np.testing.assert_array_equal(again.predict(h, *at), fitted.predict(h, *at))
    assert again.repetition is not None
    assert fitted.repetition is not None
    assert again.repetition.spread == fitted.repetition.spread
    np.testing.assert_array_equal(again.repetition.epochs, fitted.repetition.epochs)


def test_a_table_keeps_what_its_domains_have(design: Design, tmp_path: Path) -> None:
    frame = table_of(design).losses
    assert design.available is not None
    row = frame["run_id"].map({run: i for i, run in enumerate(design.run_ids)})
    for k, name in enumerate(design.domains):
        frame[f"available_{name}"] = design.available[row, k]
    frame.loc[frame["run_id"] == "run0", "available_web"] = np.nan
    table = RunTable(frame)
    again = RunTable.load(table.save(tmp_path / "table")).design()
    assert again.available is not None
    assert np.isinf(again.available[0, 0])
    np.testing.assert_array_equal(again.available[1:], design.available[1:])
    np.testing.assert_array_equal(again.take(np.array([2])).available, again.available[2:3])


@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        ({"available_web": 1e9}, DataError, "column 'available_code' is missing"),
        ({"available_wep": 1e9}, UnknownNameError, "'wep'"),
        ({"available_web": -1.0, "available_code": 1e9}, DataError, "must be positive and finite"),
        ({"available_web": np.inf, "available_code": 1e9}, DataError, "positive and finite"),
        (
            {"available_web": "5B", "available_code": 1e9},
            DataError,
            "is not a number; write 5e\\+09",
        ),
    ],
)
def test_wrong_available_tokens_are_refused(
    edit: dict[str, object], error: type[Exception], message: str
) -> None:
    frame = pd.DataFrame(
        {"run_id": ["a", "b"], "w_web": 0.5, "w_code": 0.5, "domain": "web", "loss": 3.0}
    )
    with pytest.raises(error, match=message):
        RunTable(frame.assign(**edit), source="runs.csv")


def test_rows_of_a_run_that_differ_are_refused() -> None:
    frame = pd.DataFrame(
        {"run_id": "a", "w_web": 1.0, "domain": ["web", "code"], "loss": 3.0}
    ).assign(available_web=[1e9, np.nan])
    with pytest.raises(DataError, match=r"line 3, column .*the rows of a run differ"):
        RunTable(frame, source="runs.csv")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"wep": 1e9}, "no domain 'wep'"),
        ({"web": -1.0}, "tokens of domain 'web' must be positive"),
        ({"code": "many"}, "must be numbers"),
        ([1e9], "tokens of .* domains, the table has 2"),
    ],
)
def test_wrong_tokens_of_a_target_are_refused(given: object, message: str) -> None:
    with pytest.raises(FitError, match=message):
        available_of(given, ["web", "code"])


def test_budgets_are_needed() -> None:
    design = transfer_losses(grid(sizes=2, mixtures=8), noise=0.002)
    blind = replace(design, n_tokens=np.full(len(design), np.nan))
    with pytest.raises(FitError, match="give n_tokens"):
        fit("transfer", blind, available={"web": 1e9})
    with pytest.raises(FitError, match="repeats: the table has no tokens"):
        fit("transfer", design, repeats=5.0)


def test_epochs_of_a_domain_without_end_are_none() -> None:
    epochs = epochs_of(np.array([[0.5, 0.5]]), np.array([1e9]), np.array([1e8, np.inf]))
    np.testing.assert_allclose(epochs, [[5.0, 0.0]])
