"""A fit as a smooth surface: the same losses as the fit, exact slopes, whatever the law."""

from __future__ import annotations

import numpy as np
import pytest
from law_tables import grid, transfer_losses

from olmo_mixlaw.advice import optimum
from olmo_mixlaw.laws import Fit, Settings, fit
from olmo_mixlaw.laws.learners.stack import Stack
from olmo_mixlaw.runs import Design


def design(budgets: int = 2) -> Design:
    return transfer_losses(grid(sizes=2, mixtures=12, budgets=budgets), noise=0.004)


LAWS = ["transfer", "additive", "interaction", "competition_noise", "camel_dual", "kriging"]


@pytest.fixture(scope="module")
def stacked() -> Fit:
    law = Stack(members=("kriging:transfer", "additive", "competition_noise"))
    return fit(law, design(), settings=Settings(strict=False))


def check(fitted: Fit, n_params: float, n_tokens: float) -> None:
    ratios = np.random.default_rng(3).dirichlet(np.full(4, 3.0), 6)
    at = fitted.surface(n_params, n_tokens)
    losses, slopes = at(ratios, True)
    np.testing.assert_allclose(losses, fitted.predict(ratios, n_params, n_tokens), rtol=1e-9)
    assert slopes is not None
    step = 1e-6
    for k in range(4):
        high, low = ratios.copy(), ratios.copy()
        high[:, k] += step
        low[:, k] -= step
        slope = (at(high, False)[0] - at(low, False)[0]) / (2 * step)
        np.testing.assert_allclose(slopes[:, :, k], slope, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("where", [(1e7, 1e9), (3e8, 5e9)])
def test_a_surface_is_the_fit_with_exact_slopes(law: str, where: tuple[float, float]) -> None:
    check(fit(law, design(), settings=Settings(strict=False)), *where)


@pytest.mark.parametrize("where", [(1e7, 1e9), (3e8, 5e9)])
def test_so_is_that_of_a_stack(stacked: Fit, where: tuple[float, float]) -> None:
    check(stacked, *where)


def test_what_one_run_had_of_luck_does_not_draw_an_optimum() -> None:
    fitted = fit("kriging", design(budgets=4), settings=Settings(strict=False))
    tried = fitted.mixtures[3]
    near = tried + 1e-4 * np.array([1, -1, 1, -1])
    both = fitted.law.surface(fitted, 1e7, 1e9)(np.stack([tried, near]), False)[0]
    np.testing.assert_allclose(both[0], both[1], rtol=1e-3)


def test_trees_of_a_stack_take_part_in_what_is_reported() -> None:
    pytest.importorskip("lightgbm")
    law = Stack(members=("transfer", "regmix"))
    fitted = fit(law, design(), settings=Settings(strict=False))
    assert fitted.steps == ("regmix" in fitted.state["fits"])
    ratios = np.random.default_rng(3).dirichlet(np.full(4, 3.0), 6)
    smooth = fitted.surface(4e7, 1e9)(ratios, False)[0]
    whole = fitted.with_steps(smooth, ratios, 4e7, 1e9)
    np.testing.assert_allclose(whole, fitted.predict(ratios, 4e7, 1e9), rtol=1e-9)
    best = optimum(fitted, 4e7, 1e9)
    np.testing.assert_allclose(best.losses, fitted.predict(best.ratios, 4e7, 1e9)[0], rtol=1e-9)


def test_an_optimum_of_a_stack_beats_many_draws(stacked: Fit) -> None:
    draws = np.random.default_rng(0).dirichlet(np.ones(4), 5000)
    assert optimum(stacked, 1e8, 1e9).objective <= stacked.predict(draws, 1e8, 1e9).mean(1).min()
