"""N as total, active or effective parameters: rho is found, recorded, used, or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from law_tables import RHO, moe_design

from olmo_mixlaw.errors import ConfigError, FitError
from olmo_mixlaw.laws import Fit, fit
from olmo_mixlaw.laws.choice.uncertainty import bootstrap
from olmo_mixlaw.laws.fitting import profile
from olmo_mixlaw.laws.sizes import effective


@pytest.fixture(scope="module")
def fitted() -> Fit:
    return fit("transfer", moe_design(), capacity="effective")


def test_rho_is_recovered_with_its_interval(fitted: Fit) -> None:
    assert fitted.size.rho == pytest.approx(RHO, abs=0.03)
    low, high = fitted.size.interval
    assert low < RHO + 0.03
    assert high > RHO - 0.03
    row = fitted.parameters.set_index("parameter").loc["rho"]
    assert row["value"] == fitted.size.rho
    assert fitted.n_parameters == fit("transfer", moe_design()).n_parameters + 1


def test_effective_capacity_predicts_another_sparsity() -> None:
    design = moe_design(noise=0.001)
    seen = design.n_params / design.n_active < 30
    held = design.take(~seen)
    errors = {}
    for capacity in ("total", "active", "effective"):
        fitted = fit("transfer", design.take(seen), capacity=capacity)
        guess = fitted.predict(held.ratios, held.n_params, held.n_tokens, n_active=held.n_active)
        errors[capacity] = np.abs(guess / held.losses - 1).mean()
    assert errors["effective"] < 0.005
    assert errors["effective"] < 0.2 * min(errors["total"], errors["active"])


def test_a_fit_keeps_its_capacity_on_disk(tmp_path: Path) -> None:
    fitted = fit("transfer", moe_design(), capacity="effective", rho=0.5)
    again = Fit.load(fitted.save(tmp_path / "fit.json"))
    assert again.size.kind == "effective"
    assert again.size.rho == 0.5
    h = np.full(4, 0.25)
    np.testing.assert_allclose(
        again.predict(h, 1e9, 1e9, n_active=1e8), fitted.predict(h, 1e9, 1e9, n_active=1e8)
    )


def test_active_and_total_are_the_ends_of_rho() -> None:
    design, h = moe_design(), np.full(4, 0.25)
    for capacity, rho in (("active", 0.0), ("total", 1.0)):
        plain = fit("transfer", design, capacity=capacity)
        fixed = fit("transfer", design, capacity="effective", rho=rho)
        np.testing.assert_allclose(
            plain.predict(h, 1e9, 1e9, n_active=2e8), fixed.predict(h, 1e9, 1e9, n_active=2e8)
        )


def test_the_bootstrap_lets_rho_vary(fitted: Fit) -> None:
    fits = list(bootstrap(fitted, moe_design(), replicates=6))
    assert len(fits) == 6
    assert len({f.size.rho for f in fits}) == 5
    h = np.full(4, 0.25)
    draws = [f.predict(h, 4e9, 1e9, n_active=1e8)[0, 0] for f in fits]
    assert np.std(draws) > 0
    middle = fitted.predict(h, 4e9, 1e9, n_active=1e8)[0, 0]
    assert np.mean(draws) == pytest.approx(middle, rel=0.02)


@pytest.mark.slow
def test_laws_without_a_formula_take_part() -> None:
    fitted = fit("kriging", moe_design(), capacity="effective")
    assert fitted.size.rho == pytest.approx(RHO, abs=0.05)


def test_one_sparsity_is_refused() -> None:
    with pytest.raises(FitError, match=r"rho needs 2 models off the most common sparsity .*8.*0"):
        fit("transfer", moe_design(sparsities=(8,)), capacity="effective")
    one_off = moe_design(sparsities=(8,))
    one_off.n_params[0] *= 2
    with pytest.raises(FitError, match="4 models have 1"):
        fit("transfer", one_off, capacity="effective")
    assert fit("transfer", moe_design(sparsities=(8,)), capacity="active").size.rho == 0


def test_counts_must_be_there_and_in_order() -> None:
    design = moe_design()
    design.n_active[3] = np.nan
    with pytest.raises(FitError, match="run 'run3' lacks n_params or n_active"):
        fit("transfer", design, capacity="active")
    design.n_active[3] = 2 * design.n_params[3]
    with pytest.raises(FitError, match="run 'run3' has n_active"):
        fit("transfer", design, capacity="effective")
    with pytest.raises(ConfigError, match="none of total, active, effective"):
        fit("transfer", moe_design(), capacity="sparse")
    with pytest.raises(ConfigError, match="rho: 2 is not within"):
        fit("transfer", moe_design(), capacity="effective", rho=2)


def test_a_prediction_needs_the_active_count() -> None:
    fitted = fit("transfer", moe_design(), capacity="active")
    with pytest.raises(FitError, match="capacity is active: n_active is needed"):
        fitted.predict(np.full(4, 0.25), 1e9, 1e9)


@settings(max_examples=40)
@given(st.floats(0, 1), st.floats(1, 500))
def test_capacity_lies_between_the_counts(rho: float, sparsity: float) -> None:
    size = float(effective(1e8 * sparsity, 1e8, rho))
    assert 1e8 * (1 - 1e-9) <= size <= 1e8 * sparsity * (1 + 1e-9)


@given(st.floats(0, 1), st.floats(50, 5000))
def test_the_profile_finds_a_parabolas_bottom(bottom: float, steepness: float) -> None:
    rho, (low, high) = profile(lambda r: steepness * (r - bottom) ** 2)
    assert rho == pytest.approx(bottom, abs=0.02)
    half = np.sqrt(0.5 / steepness)
    if half < bottom < 1 - half:
        assert high - low == pytest.approx(2 * half, rel=0.1)


def test_an_end_of_the_range_has_an_interval_inside_it() -> None:
    rho, (low, high) = profile(lambda r: 30 * np.sqrt(r))
    assert rho == low == 0
    assert 0 < high < 0.01


@pytest.mark.parametrize("capacity", ["active", "effective"])
def test_a_table_without_active_counts_has_no_active_capacity(capacity: str) -> None:
    design = replace(moe_design(), active_known=False)
    with pytest.raises(FitError, match="the table has no n_active; add that column"):
        fit("transfer", design, capacity=capacity)
