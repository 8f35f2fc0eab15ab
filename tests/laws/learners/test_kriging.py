"""Kriging: what runs and budgets share, and what happens beyond the table."""

from __future__ import annotations

import numpy as np
import pytest
from law_tables import grid, transfer_losses, with_losses

from olmo_mixlaw.laws import fit
from olmo_mixlaw.laws.choice.holdout import mixture_ids
from olmo_mixlaw.laws.choice.uncertainty import coverage
from olmo_mixlaw.laws.fitted import Fit


def table_with_budget_luck():  # type: ignore[no-untyped-def]
    """Runs whose losses all move together, by 3 %, at each budget."""
    design = transfer_losses(grid(sizes=2, mixtures=12, budgets=5), noise=0.001)
    luck = np.random.default_rng(3).normal(0, 0.03, (5, design.losses.shape[1]))
    budget = np.unique(design.n_tokens, return_inverse=True)[1]
    return with_losses(design, design.losses * np.exp(luck[budget]))


def test_what_all_runs_of_a_budget_share_is_learnt() -> None:
    design = table_with_budget_luck()
    held = np.isin(mixture_ids(design), [2, 5, 9])
    errors = {}
    for law in ("modulated", "kriging"):
        test = design.take(held)
        guess = fit(law, design.take(~held)).predict(test.ratios, test.n_params, test.n_tokens)
        errors[law] = np.abs(guess / test.losses - 1).mean()
    assert errors["kriging"] < 0.25 * errors["modulated"]


def test_a_budget_never_seen_gets_no_luck_of_another() -> None:
    design = table_with_budget_luck()
    fitted = fit("kriging", design)
    [base] = fitted.law.parts(fitted)
    rows = (design.ratios[:12], 1e7, 2.9e9)
    moved = np.abs(np.log(fitted.predict(*rows) / base.predict(*rows))).mean()
    seen = np.abs(
        np.log(
            fitted.predict(design.ratios[:12], 1e7, 4e9)
            / base.predict(design.ratios[:12], 1e7, 4e9)
        )
    ).mean()
    assert moved < seen


def test_beyond_the_table_the_residual_stays_as_at_its_edge() -> None:
    design = transfer_losses(grid(sizes=3, mixtures=10), noise=0.01)
    fitted = fit("kriging", design, level=False)
    [base] = fitted.law.parts(fitted)
    h = design.ratios[:4]
    lift = [fitted.predict(h, n, 1e9) / base.predict(h, n, 1e9) for n in (1.6e8, 1.6e10)]
    np.testing.assert_allclose(lift[0], lift[1], rtol=1e-9)


def test_intervals_know_the_luck_of_a_budget_never_seen() -> None:
    design = table_with_budget_luck()
    fitted = fit("kriging", design)
    h = np.random.default_rng(5).dirichlet(np.ones(4), 6)
    known, new = (
        fitted.law.half_width(fitted, fitted.scene.inputs(h, 1e7, d), 0.9) for d in (4e9, 2.9e9)
    )
    assert (new.mean(0) > 2 * known.mean(0)).all()


def test_intervals_cover_held_mixtures_where_runs_are_many() -> None:
    covered = []
    for seed in range(3):
        design = transfer_losses(grid(sizes=2, mixtures=80, seed=seed), noise=0.01, seed=seed)
        held = mixture_ids(design) % 4 == 0
        covered.append(coverage(fit("kriging", design.take(~held)), design.take(held)))
    assert 0.85 <= np.mean(covered) <= 0.95


def test_kriging_survives_a_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    design = table_with_budget_luck()
    fitted = fit("kriging", design)
    again = Fit.load(fitted.save(tmp_path / "fit.json"))
    rows = (design.ratios, design.n_params, design.n_tokens)
    np.testing.assert_allclose(again.predict(*rows), fitted.predict(*rows), rtol=1e-12)


def test_the_slope_is_that_of_the_prediction_away_from_the_runs() -> None:
    design = transfer_losses(grid(sizes=2, mixtures=14, budgets=2), noise=0.01)
    fitted = fit("kriging", design)
    h = np.array([0.31, 0.23, 0.27, 0.19])
    slope = fitted.ratio_gradient(h, 2e7, 1.5e9)[0]
    step = 1e-5
    for i, j in ((0, 1), (2, 3)):
        along = np.zeros(4)
        along[i], along[j] = step, -step
        rise = fitted.predict(h + along, 2e7, 1.5e9) - fitted.predict(h - along, 2e7, 1.5e9)
        assert rise[0] / (2 * step) == pytest.approx(slope[:, i] - slope[:, j], rel=1e-4, abs=1e-7)
