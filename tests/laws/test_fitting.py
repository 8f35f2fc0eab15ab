"""Fitting: what was put in comes out, the same each time, and trouble is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from law_tables import SEPARABLE, grid, losses_of, table_of, theta_of, transfer_losses, with_losses

from olmo_mixlaw.errors import DataError, FitError, UnknownNameError
from olmo_mixlaw.laws import Fit, Settings, fit
from olmo_mixlaw.laws.law import Scene, resolve

RECOVERED = [*SEPARABLE, "competition", "competition_noise", "camel_shares", "camel_dual"]


def made_by(name: str, mixtures: int, noise: float, seed: int = 0) -> tuple:
    """A design whose losses the law itself made, and the losses without noise."""
    law = resolve(name)
    design = grid(sizes=3, mixtures=mixtures, budgets=2, seed=seed)
    design = with_losses(design, 3.0 + 0.3 * design.ratios)
    scene = Scene.of(design)
    truth = losses_of(law, theta_of(law, scene, seed=11, spread=0.3), design, scene)
    rng = np.random.default_rng(seed)
    return with_losses(design, truth * np.exp(noise * rng.normal(size=truth.shape))), truth


@pytest.mark.parametrize("name", RECOVERED)
def test_a_law_recovers_its_own_losses(name: str) -> None:
    design, truth = made_by(name, mixtures=12, noise=0.003)
    fitted = fit(name, design, settings=Settings(starts=3))
    guess = fitted.predict(design.ratios, design.n_params, design.n_tokens)
    assert np.abs(guess / truth - 1).mean() < 0.003


@pytest.mark.slow
@pytest.mark.parametrize("name", ["transfer", "additive", "two_pool", "exponential", "competition"])
def test_error_shrinks_with_the_square_root_of_rows(name: str) -> None:
    errors = []
    for mixtures in (12, 48, 192):
        each = []
        for seed in range(3):
            design, truth = made_by(name, mixtures, noise=0.01, seed=seed)
            guess = fit(name, design).predict(design.ratios, design.n_params, design.n_tokens)
            each.append(np.sqrt(np.mean((guess / truth - 1) ** 2)))
        errors.append(np.mean(each))
    slope = np.polyfit(np.log([12, 48, 192]), np.log(errors), 1)[0]
    assert -0.75 < slope < -0.3


def test_parameters_of_transfer_are_found() -> None:
    design = transfer_losses(grid(sizes=4, mixtures=30, budgets=3), noise=0.0005)
    values = fit("transfer", design).parameters.query("target == 'web'").set_index("parameter")
    assert values.loc["beta", "value"] == pytest.approx(0.3, rel=0.15)
    assert values.loc["T[code]", "value"] == pytest.approx(0.1, rel=0.25)
    assert values.loc["T[web]", "fixed"]
    assert (values["low"] <= values["value"]).all()


@pytest.mark.parametrize("name", RECOVERED)
def test_same_seed_gives_the_same_fit(name: str) -> None:
    """To the last bit, wherever in memory the numbers happen to lie."""
    design, rng = made_by(name, mixtures=6, noise=0.01)[0], np.random.default_rng()
    fits = []
    for _ in range(8):
        litter = [np.empty(n) for n in rng.integers(1, 3000, size=20)]
        fits.append(fit(name, design, seed=3, settings=Settings(starts=2, strict=False)).theta)
        del litter
    for theta in fits[1:]:
        np.testing.assert_array_equal(theta, fits[0])


def test_a_fit_survives_its_file(tmp_path: Path) -> None:
    design = transfer_losses(grid(), noise=0.01)
    for law in ("transfer", "kriging", "camel_shares"):
        fitted = fit(law, design, settings=Settings(strict=False))
        again = Fit.load(fitted.save(tmp_path / f"{law}.json"))
        rows = (design.ratios, design.n_params, design.n_tokens)
        np.testing.assert_allclose(fitted.predict(*rows), again.predict(*rows), rtol=1e-12)
        np.testing.assert_allclose(fitted.ratio_gradient(*rows), again.ratio_gradient(*rows))
        assert again.data_hash == fitted.data_hash


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('{"format": 1}')
    with pytest.raises(DataError, match=r"bad\.json: not a saved fit"):
        Fit.load(tmp_path / "bad.json")


def test_too_few_runs_are_refused_with_the_number_missing() -> None:
    design = transfer_losses(grid(sizes=2, mixtures=3))
    with pytest.raises(FitError, match="6 runs with a loss on 'web' for 8 parameters; 2 more"):
        fit("transfer", design)


def test_a_domain_never_varied_is_named() -> None:
    design = transfer_losses(grid(mixtures=8))
    ratios = np.c_[
        np.full(len(design), 0.25),
        design.ratios[:, 1:] / design.ratios[:, 1:].sum(1, keepdims=True) * 0.75,
    ]
    with pytest.raises(FitError, match="ratio of domain 'web' is the same in all 24 runs"):
        fit("transfer", replace(design, ratios=ratios))


def test_one_size_drops_the_size_term_and_refuses_another_size() -> None:
    design = transfer_losses(grid(sizes=1, mixtures=16), noise=0.002)
    fitted = fit("transfer", design, level=False)
    assert not fitted.parameters["parameter"].isin(["A", "alpha"]).any()
    with pytest.raises(FitError, match="one n_params only"):
        fitted.predict(design.ratios, 1e9, 1e9)


def test_ratios_that_do_not_sum_are_refused() -> None:
    fitted = fit("transfer", transfer_losses(grid()))
    with pytest.raises(FitError, match=r"sum to 0\.9"):
        fitted.predict(np.array([0.3, 0.2, 0.2, 0.2]), 1e8, 1e9)
    with pytest.raises(FitError, match="4 domains"):
        fitted.predict(np.array([0.5, 0.5]), 1e8, 1e9)


def test_losses_of_nothing_are_refused() -> None:
    design = grid()
    with pytest.raises(FitError, match="no losses"):
        fit("transfer", with_losses(design, np.full((len(design), 4), np.nan)))


def test_a_diverged_fit_is_never_returned() -> None:
    design = transfer_losses(grid())
    losses = design.losses.copy()
    losses[0] = np.inf
    with pytest.raises(FitError):
        fit("transfer", with_losses(design, losses))


def test_an_unknown_law_names_the_closest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'transfer'"):
        fit("tranfser", transfer_losses(grid()))


def test_missing_targets_are_ignored() -> None:
    design = transfer_losses(grid(mixtures=10), noise=0.002)
    losses = design.losses.copy()
    losses[::3, 1] = np.nan
    guess = fit("transfer", with_losses(design, losses)).predict(
        design.ratios, design.n_params, design.n_tokens
    )
    assert np.abs(guess / design.losses - 1).mean() < 0.01


def test_an_outlier_moves_a_robust_fit_less_than_least_squares() -> None:
    design = transfer_losses(grid(mixtures=12), noise=0.002)
    spoilt = design.losses.copy()
    spoilt[5, 0] *= 1.5
    moved = []
    for huber in (3.0, 1e9):
        clean, other = (
            fit("transfer", with_losses(design, losses), settings=Settings(huber=huber)).predict(
                design.ratios, design.n_params, design.n_tokens
            )
            for losses in (design.losses, spoilt)
        )
        moved.append(np.abs(other / clean - 1).mean())
    assert moved[0] < 0.5 * moved[1]
    assert moved[0] < 0.002


def test_a_run_table_fits_as_its_design() -> None:
    design = transfer_losses(grid(), noise=0.01)
    np.testing.assert_allclose(
        fit("transfer", table_of(design)).theta, fit("transfer", design).theta
    )
