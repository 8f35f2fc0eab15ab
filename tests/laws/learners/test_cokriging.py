"""Cokriging: one kernel for all targets, refits that keep its scales, and its bounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from law_tables import grid, transfer_losses, with_losses
from scipy.optimize import approx_fprime

from olmo_mixlaw.laws import Fit, Settings, fit
from olmo_mixlaw.laws.choice.holdout import mixture_ids
from olmo_mixlaw.laws.learners import coregion, residual
from olmo_mixlaw.laws.learners import process as learners_process
from olmo_mixlaw.laws.learners.coregion import fit_coregion
from olmo_mixlaw.runs import Design

LOOSE = Settings(strict=False)
RNG = np.random.default_rng


def swarm(runs: int = 36, targets: int = 40, noise: float = 0.01) -> Design:
    """Runs of one size whose targets follow three shapes of the mixture, more or less."""
    design = grid(sizes=1, mixtures=runs, domains=6)
    rng = RNG(0)
    shapes = np.stack([np.sqrt(design.ratios[:, k]) for k in range(3)], axis=1)
    mixed = shapes @ rng.normal(size=(3, targets))
    losses = np.exp(0.3 * mixed + noise * rng.normal(size=(runs, targets)))
    return replace(design, targets=[f"task{t}" for t in range(targets)], losses=losses)


def process(noise: float = 0.01):  # type: ignore[no-untyped-def]
    design = swarm(noise=noise)
    x, y = np.sqrt(design.ratios), np.log(design.losses)
    return x, y, fit_coregion(x, y, {}, RNG(0))


def test_the_slope_of_the_posterior_is_exact() -> None:
    rng = RNG(0)
    x, z = rng.normal(size=(30, 3)), rng.normal(size=(30, 2))
    label = rng.integers(0, 6, 30)
    same = [(label[:, None] == label).astype(float)]
    phi = 0.5 * rng.normal(size=1 + 3 + 1 + 3 + 1 + 2)
    rest = (x, z, same, np.zeros_like(phi), np.ones_like(phi))
    _, slope = coregion._cost(phi, *rest)
    numeric = approx_fprime(phi, lambda p: coregion._cost(p, *rest)[0], 1e-6)
    np.testing.assert_allclose(slope, numeric, atol=1e-3)


def test_the_slope_of_the_mean_is_exact() -> None:
    x, _, found = process()
    at = x[:2] + 0.05
    numeric = approx_fprime(at[0], lambda p: found.mean(np.stack([p, at[1]]))[0], 1e-6)
    np.testing.assert_allclose(found.slope(at)[0], numeric, atol=1e-4)


def test_a_row_counted_twice_is_that_row_twice() -> None:
    x, y, found = process()
    counts = np.where(np.arange(len(x)) % 3 == 0, 2, 1)
    counted = found.refitted(x, y, {}, counts.astype(float))
    doubled = np.repeat(np.arange(len(x)), counts)
    repeated = found.refitted(x[doubled], y[doubled], {}, np.ones(len(doubled)))
    at = x[:5] + 0.03
    np.testing.assert_allclose(counted.mean(at), repeated.mean(at), rtol=1e-6, atol=1e-8)


def test_a_refit_to_all_rows_is_the_fit() -> None:
    x, y, found = process()
    again = found.refitted(x, y, {}, np.ones(len(x)))
    np.testing.assert_allclose(again.mean(x), found.mean(x), rtol=1e-9)


def test_losses_that_are_missing_are_filled_in_from_the_others() -> None:
    design = swarm()
    losses = design.losses.copy()
    losses[RNG(1).random(losses.shape) < 0.1] = np.nan
    whole, holes = fit("cokriging", design), fit("cokriging", with_losses(design, losses))
    gap = np.log(holes.predict(design.ratios) / design.losses)
    kept = np.log(whole.predict(design.ratios) / design.losses)
    assert np.abs(gap).mean() < 1.5 * np.abs(kept).mean()


def test_targets_together_learn_what_each_alone_can_not() -> None:
    design = swarm(runs=30, noise=0.05)
    held = mixture_ids(design) % 3 == 0
    test = design.take(held)
    error = {}
    for law in ("cokriging", "kriging:no_mixture"):
        guess = fit(law, design.take(~held), settings=LOOSE).predict(test.ratios)
        error[law] = np.abs(np.log(guess / test.losses)).mean()
    assert error["cokriging"] < 0.9 * error["kriging:no_mixture"]


@pytest.mark.parametrize("law", ["cokriging", "kriging"])
def test_refits_of_a_process_are_those_of_its_rows(law: str) -> None:
    """Rows with no count are not seen: their losses may be anything."""
    design = transfer_losses(grid(sizes=2, mixtures=10), noise=0.01)
    fitted = fit(law, design)
    counts = np.ones((1, len(design)), int)
    counts[0, ::4] = 0
    wrong = design.losses.copy()
    wrong[::4] *= 3
    rows = (design.ratios, design.n_params, design.n_tokens)
    [one] = fitted.law.refits(fitted, design, counts)
    [other] = fitted.law.refits(fitted, with_losses(design, wrong), counts)
    np.testing.assert_allclose(one.predict(*rows), other.predict(*rows), rtol=1e-9)
    assert not np.allclose(one.predict(*rows), fitted.predict(*rows), rtol=1e-6)


@pytest.mark.parametrize("law", ["cokriging", "kriging"])
def test_a_long_table_is_sampled(law: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residual, "MOST_ROWS", 50)
    design = transfer_losses(grid(sizes=3, mixtures=40), noise=0.01)
    fitted = fit(law, design)
    [base] = fitted.law.parts(fitted)
    assert base.n_rows == 50
    assert fitted.n_rows == len(design)
    assert fitted.scene.n_range == base.scene.n_range == (1e7, 1.6e8)
    error = np.log(fitted.predict(design.ratios, design.n_params, design.n_tokens) / design.losses)
    assert np.abs(error).mean() < 0.02


def test_cokriging_survives_a_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    design = transfer_losses(grid(sizes=2, mixtures=8, budgets=3), noise=0.01)
    fitted = fit("cokriging:transfer", design)
    again = Fit.load(fitted.save(tmp_path / "fit.json"))
    inputs = fitted.scene.inputs(design.ratios[:4], 2e7, 1e9)
    np.testing.assert_allclose(
        again.law.half_width(again, inputs, 0.9), fitted.law.half_width(fitted, inputs, 0.9)
    )


@pytest.mark.parametrize("law", ["cokriging", "kriging"])
def test_predictions_in_blocks_are_those_at_once(law: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = fit(law, transfer_losses(grid(sizes=2, mixtures=10), noise=0.01))
    ratios = RNG(3).dirichlet(np.ones(4), 50)
    whole = fitted.predict(ratios, 2e7, 1e9)
    monkeypatch.setattr(learners_process, "KERNEL_NUMBERS", 70)
    np.testing.assert_allclose(fitted.predict(ratios, 2e7, 1e9), whole, rtol=1e-10)
