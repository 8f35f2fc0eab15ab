"""Choosing: the right law wins, splits leak nothing, noise is reported, stacks help."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from law_tables import grid, transfer_losses, with_losses

from olmo_mixlaw.advice import optimum
from olmo_mixlaw.errors import ConfigError, FitError, UnknownNameError
from olmo_mixlaw.laws import Settings, compare, fit
from olmo_mixlaw.laws.choice.holdout import (
    make_splits,
    mixture_ids,
    reaching_splits,
    run_ids,
    thinned,
)
from olmo_mixlaw.laws.choice.scoring import noise_floor
from olmo_mixlaw.laws.choice.selection import default_law
from olmo_mixlaw.laws.choice.uncertainty import bootstrap, interval
from olmo_mixlaw.laws.learners.stack import Stack, sound_weights, stacked_weights
from olmo_mixlaw.runs import Design


def test_the_law_that_made_the_table_is_chosen() -> None:
    design = transfer_losses(grid(sizes=3, mixtures=8), noise=0.003)
    result = compare(design, ["no_mixture", "transfer"])
    assert result.choice == "transfer"
    shown = result.frame.set_index(["law", "split"])
    assert shown.loc[("transfer", "held_mixtures"), "mixture_r2"] > 0.8
    assert shown.loc[("no_mixture", "held_mixtures"), "mixture_r2"] < 0.1
    assert "choice: transfer" in result.text()


def test_without_a_mixture_effect_the_small_law_is_chosen() -> None:
    design = grid(sizes=4, mixtures=8)
    losses = 2 + 0.8 * (design.n_params[:, None] / 1e7) ** -0.3 * np.ones(4)
    rng = np.random.default_rng(0)
    design = with_losses(design, losses * np.exp(0.005 * rng.normal(size=losses.shape)))
    assert compare(design, ["additive", "transfer", "no_mixture"]).choice == "no_mixture"


def test_held_mixtures_never_lie_on_both_sides() -> None:
    design = grid(sizes=3, mixtures=9, budgets=3)
    ids = mixture_ids(design)
    parts = [p for p in make_splits(design) if p.name == "held_mixtures"]
    assert len(parts) == 5
    for part in parts:
        assert not set(ids[part.train]) & set(ids[part.test])
    assert (np.sum([p.test for p in parts], axis=0) == 1).all()


def test_the_largest_size_is_held_out_whole() -> None:
    design = grid(sizes=3)
    part = next(p for p in make_splits(design) if p.name == "largest_size")
    assert design.n_params[part.test].min() > design.n_params[part.train].max()
    assert not [p for p in make_splits(grid(sizes=2)) if p.name == "largest_size"]


def test_checkpoints_of_a_run_are_one_cluster() -> None:
    design = grid(sizes=2, mixtures=3, budgets=4)
    assert len(np.unique(run_ids(design))) == 6


def test_two_sizes_reach_by_budget() -> None:
    parts = reaching_splits(grid(sizes=2, mixtures=3, budgets=4))
    assert [p.name for p in parts] == ["longest_budget"]


def test_thinning_keeps_a_rare_largest_size() -> None:
    design = grid(sizes=3, mixtures=50)
    few = design.take(np.r_[:100, 100:104])
    kept = thinned(few, 40, 0)
    assert len(kept) == 40
    assert set(range(100, 104)) <= set(kept)


def test_noise_floor_is_that_of_repeated_runs() -> None:
    one = transfer_losses(grid(mixtures=40), noise=0.01, seed=1)
    two = transfer_losses(grid(mixtures=40), noise=0.01, seed=2)
    both = with_losses(
        one.take(np.r_[np.arange(len(one)), np.arange(len(one))]),
        np.vstack([one.losses, two.losses]),
    )
    # Mean absolute value of a 1 % normal error, of two draws (their sd is .8 of it on average).
    assert noise_floor(both) == pytest.approx(0.8 * 0.8, rel=0.15)
    assert np.isnan(noise_floor(one))


def test_a_table_that_cannot_be_split_is_refused() -> None:
    with pytest.raises(FitError, match="can't be split"):
        compare(transfer_losses(grid(sizes=1, mixtures=2)), ["no_mixture"])


def test_a_law_that_cannot_be_fitted_keeps_its_row() -> None:
    design = transfer_losses(grid(sizes=3, mixtures=6), noise=0.003)
    single = design.take(design.n_params == design.n_params.max())
    result = compare(single, ["no_mixture", "transfer"])
    assert set(result.frame["law"]) == {"no_mixture", "transfer"}


def test_stack_weights_go_to_the_better_law() -> None:
    rng = np.random.default_rng(0)
    held = {
        "good": 0.002 * rng.normal(size=(200, 2)),
        "bad": 0.05 * rng.normal(size=(200, 2)) + 0.03,
    }
    weights = stacked_weights(held, 2)
    assert (weights["good"] > 0.9).all()
    np.testing.assert_allclose(weights["good"] + weights["bad"], 1.0)


def test_stack_of_opposite_errors_beats_both() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(300, 1))
    held = {"up": 0.01 * shared + 0.002, "down": -0.01 * shared + 0.002}
    weights = stacked_weights(held, 1)
    assert weights["up"][0] == pytest.approx(0.5, abs=0.05)


def test_beyond_the_table_only_laws_that_hold_up_twice_count() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(200, 1))
    near = {"a": 0.01 * noise, "b": 0.011 * noise, "lucky": 0.1 * noise, "short": 0.01 * noise}
    far = {"a": 0.02 * noise, "b": 0.022 * noise, "lucky": 0.019 * noise, "short": 0.2 * noise}
    weights = sound_weights(near, far, 1)
    assert {name: float(w[0]) for name, w in weights.items()} == {
        "a": 0.5,
        "b": 0.5,
        "lucky": 0.0,
        "short": 0.0,
    }
    only = sound_weights(near, {"lucky": far["lucky"], "short": far["short"]}, 1)
    assert only["lucky"][0] == 1.0


@pytest.mark.slow
def test_stack_is_no_worse_than_its_typical_member() -> None:
    design = transfer_losses(grid(sizes=3, mixtures=16), noise=0.004)
    held = np.isin(mixture_ids(design), [2, 5, 9])
    law = Stack(members=("transfer", "additive", "no_mixture"))
    errors = {}
    for candidate in (law, "no_mixture", "additive"):
        guess = fit(candidate, design.take(~held), settings=Settings(strict=False)).predict(
            design.ratios[held], design.n_params[held], design.n_tokens[held]
        )
        errors[str(candidate)] = np.abs(guess / design.losses[held] - 1).mean()
    assert errors[str(law)] <= min(errors["no_mixture"], errors["additive"]) * 1.1


def test_kriging_learns_what_the_law_misses() -> None:
    design = grid(sizes=1, mixtures=120, domains=3)
    bump = 0.15 * np.exp(-((design.ratios[:, :1] - 0.5) ** 2) / 0.02)
    design = with_losses(design, 3.0 + bump - 0.3 * design.ratios)
    held = np.arange(len(design)) % 4 == 0
    errors = []
    for law in ("modulated", "kriging"):
        guess = fit(law, design.take(~held)).predict(design.ratios[held])
        errors.append(np.abs(guess / design.losses[held] - 1).mean())
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.slow
def test_bootstrap_intervals_cover_held_rows() -> None:
    inside, total = 0, 0
    for seed in range(4):
        design = transfer_losses(grid(sizes=3, mixtures=14, seed=seed), noise=0.01, seed=seed)
        held = np.isin(mixture_ids(design), [1, 4, 8])
        train = design.take(~held)
        fitted = fit("transfer", train)
        rng = np.random.default_rng(seed)
        rows = (design.ratios[held], design.n_params[held], design.n_tokens[held])
        draws = [
            f.predict(*rows) * np.exp(fitted.noise * rng.normal(size=(held.sum(), 4)))
            for f in bootstrap(fitted, train, replicates=60, seed=seed)
        ]
        low, high = interval(np.array(draws), 0.9)
        truth = design.losses[held]
        inside += int(((truth >= low) & (truth <= high)).sum())
        total += truth.size
    assert 0.85 <= inside / total <= 0.97


def test_bootstrap_of_the_optimum_spreads_around_it() -> None:
    design = transfer_losses(grid(sizes=3, mixtures=10), noise=0.005)
    fitted = fit("transfer", design)
    fits = bootstrap(fitted, design, replicates=5)
    draws = np.array([optimum(other, 1e8, 1e9, starts=3).ratios for other in fits])
    assert draws.shape == (5, 4)
    np.testing.assert_allclose(draws.sum(1), 1.0)
    assert draws.std(0).max() > 0


def test_a_stack_counts_the_parameters_of_its_members() -> None:
    design = transfer_losses(grid(sizes=2, mixtures=8), noise=0.01)
    law = Stack(members=("additive", "transfer"))
    stacked = fit(law, design)
    alone = [fit(name, design).n_parameters for name in stacked.state["fits"]]
    assert stacked.n_parameters == sum(alone) + (len(alone) - 1) * len(design.targets)


def test_a_comparison_says_what_it_is_doing() -> None:
    lines: list[str] = []
    design = transfer_losses(grid(sizes=3, mixtures=6), noise=0.01)
    compare(design, ["no_mixture", "transfer"], progress=lines.append)
    assert [line.split()[0] for line in lines] == ["no_mixture", "transfer"]


def shouting(design: Design) -> Design:
    """Losses whose differences between mixtures are all in one target, the others' noise large."""
    rng = np.random.default_rng(3)
    losses = 2 + 0.2 * rng.normal(size=design.losses.shape) ** 2
    losses[:, 0] = 2 - 0.5 * np.sqrt(design.ratios[:, 0])
    return replace(design, losses=losses)


def test_the_objective_is_weighed_as_asked() -> None:
    design = shouting(grid(sizes=1, mixtures=30))
    laws = ["no_mixture", "power_transfer"]
    equal = compare(design, laws).frame
    first = compare(design, laws, target_weights={design.targets[0]: 1.0}).frame
    r2 = [f[f["law"] == "power_transfer"]["objective_r2"].iloc[0] for f in (equal, first)]
    assert r2[1] > 0.95 > r2[0]
    for column in ("mre", "mixture_r2"):  # of all losses, however they are weighed
        np.testing.assert_array_equal(equal[column], first[column])
    with pytest.raises(UnknownNameError, match="nowhere"):
        compare(design, laws, target_weights={"nowhere": 1.0})


def test_purposes_can_disagree_and_say_so() -> None:
    design = shouting(grid(sizes=1, mixtures=30))
    laws = ["no_mixture", "power_transfer"]
    weights = {design.targets[0]: 1.0}
    for purpose, other in (("forecast", "mixture"), ("mixture", "forecast")):
        result = compare(design, laws, purpose=purpose, target_weights=weights)
        again = compare(design, laws, purpose=other, target_weights=weights)
        assert (result.choice, result.other) == (again.other, again.choice)
        said = f"for a {other} it would be {result.other}" in result.text()
        assert said == (result.choice != result.other)
    mixture = compare(design, laws, purpose="mixture", target_weights=weights)
    assert mixture.choice == "power_transfer"
    assert set(mixture.noise_targets) == set(design.targets[1:])
    assert "3 of 4 targets are noise" in mixture.text()
    with pytest.raises(ConfigError, match="is none of forecast, mixture"):
        compare(design, laws, purpose="both")


def test_a_held_out_size_is_predicted_as_a_fit_would_be() -> None:
    design = transfer_losses(grid(sizes=4, mixtures=6), noise=0.01)
    with_level, without = (
        compare(design, ["transfer"], splits=("largest_size",), level=level)
        for level in (True, False)
    )
    [(part, guess)] = with_level.held["transfer"]
    fitted = fit("transfer", design.take(part.train), settings=Settings(strict=False))
    test = design.take(part.test)
    np.testing.assert_allclose(guess, fitted.predict(test.ratios, test.n_params, test.n_tokens))
    assert (guess != without.held["transfer"][0][1]).all()


def test_the_law_that_is_taken_unasked_fits_the_table() -> None:
    scales, one = grid(sizes=3, mixtures=12), grid(sizes=1, mixtures=24)
    assert default_law(transfer_losses(scales)) == "modulated"
    assert default_law(transfer_losses(one)) == "shared_power"
    assert default_law(transfer_losses(grid(sizes=2, mixtures=4))) == "transfer"
    alone = replace(one, domains=["all"], ratios=np.ones((len(one), 1)))
    assert default_law(alone) == "no_mixture"
