"""The stack: what it tries, what it drops, and which targets it calls noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from law_tables import grid, transfer_losses, with_losses

from olmo_mixlaw.laws import Settings, compare, fit
from olmo_mixlaw.laws.choice.holdout import sampled_splits
from olmo_mixlaw.laws.choice.scoring import mixture_scores, noisy
from olmo_mixlaw.laws.engine.progress import report, reporting
from olmo_mixlaw.laws.law import resolve
from olmo_mixlaw.laws.learners import stack
from olmo_mixlaw.laws.learners.stack import Bench, Stack, noise_targets
from olmo_mixlaw.laws.learners.weighing import centred
from olmo_mixlaw.runs import Design

LOOSE = Settings(strict=False)


def with_noise_target() -> Design:
    """The last target has nothing to do with the mixture."""
    design = transfer_losses(grid(sizes=2, mixtures=20), noise=0.003)
    losses = design.losses.copy()
    losses[:, 3] = 3 * np.exp(0.1 * np.random.default_rng(0).normal(size=len(design)))
    return with_losses(design, losses)


def test_a_target_that_is_noise_is_named() -> None:
    design = with_noise_target()
    assert noise_targets(fit(Stack(members=("transfer", "additive")), design)) == ["math"]
    result = compare(design, ["transfer", "no_mixture"], splits=["held_mixtures"])
    assert result.choice == "transfer"
    assert result.noise_targets == ("math",)


def test_a_target_far_worse_than_others_is_noise_too() -> None:
    names = ["a", "b", "c"]
    assert noisy(names, np.array([0.9, 0.2, 0.9]), np.array([1.0, 20.0, 1.5])) == ["b"]
    assert noisy(names, np.array([0.9, -0.1, np.nan]), np.array([1.0, 1.0, 1.0])) == ["b"]


def test_mixture_scores_of_each_target_know_no_level() -> None:
    truth = np.array([[1.0, 2.0], [2.0, 1.0], [3.0, np.nan], [4.0, 3.0]])
    cell = np.zeros(4, int)
    r2, mre = mixture_scores(truth, truth + 0.5, cell)
    np.testing.assert_allclose(r2, 1.0)
    np.testing.assert_allclose(mre, 100 * np.nanmean(0.5 / truth, axis=0))


def test_errors_are_centred_where_size_and_budget_are_the_same() -> None:
    errors = np.array([[1.0], [3.0], [np.nan], [5.0], [5.5]])
    found = centred(errors, np.array([0, 0, 0, 1, 1]))
    np.testing.assert_allclose(found, [[-1.0], [1.0], [np.nan], [-0.25], [0.25]])


def test_a_stack_says_what_it_is_doing_to_whoever_listens() -> None:
    lines: list[str] = []
    design = transfer_losses(grid(sizes=3, mixtures=6), noise=0.003)
    with reporting(lines.append):
        fit(Stack(members=("transfer", "no_mixture")), design)
    report("nobody listens")
    assert lines == [
        "stack: transfer (1 of 2)",
        "stack: no_mixture (2 of 2)",
        "stack: largest size held out",
    ]


def bench(design: Design) -> Bench:
    return Bench(design, design, sampled_splits(design, 4, 0), 0, LOOSE)


def test_held_out_refits_predict_as_fits_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    design = transfer_losses(grid(sizes=2, mixtures=16), noise=0.003)
    whole = bench(design)
    whole.try_out("transfer", resolve("transfer"))
    monkeypatch.setattr(stack, "SHORT", 0)
    quick = bench(design)
    quick.try_out("transfer", resolve("transfer"))
    gap = whole.held["transfer"] - quick.held["transfer"]
    assert np.abs(gap).mean() < 0.1 * np.abs(whole.held["transfer"]).mean()
    assert (gap != 0).any()


def test_laws_on_the_same_law_share_its_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "SHORT", 0)
    one = bench(transfer_losses(grid(sizes=2, mixtures=16), noise=0.003))
    for name in ("transfer", "kriging:transfer", "cokriging:transfer"):
        one.try_out(name, resolve(name))
    bases = [one.fits[name].state["base"] for name in one.fits if ":" in name]
    assert all(base is one.fits["transfer"] for base in bases)
    assert len(bases) == 2


def test_of_many_targets_a_law_far_behind_on_a_few_is_not_fitted_to_all() -> None:
    design = transfer_losses(grid(sizes=2, mixtures=20), noise=0.003)
    many = replace(
        design,
        targets=[f"{name}{i}" for i in range(11) for name in design.targets],
        losses=np.tile(design.losses, (1, 11)),
    )
    lean = Stack(members=("transfer", "cokriging:transfer", "additive", "no_mixture"))
    trial = bench(many).on_few(6)
    trial.try_out("transfer", resolve("transfer"))
    assert not trial.holds_up("no_mixture", resolve("no_mixture"))
    assert trial.holds_up("cokriging:transfer", resolve("cokriging:transfer"))
    fitted = fit(lean, many)
    assert "no_mixture" not in fitted.state["fits"]


def test_a_slow_law_far_behind_on_the_first_fold_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stack, "SHORT", 0)
    one = bench(transfer_losses(grid(sizes=2, mixtures=20), noise=0.003))
    for name in ("transfer", "regmix_fast"):
        one.try_out(name, resolve(name))
    assert list(one.fits) == ["transfer"]
