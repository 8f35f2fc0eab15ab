"""Intervals hold as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from law_tables import grid, transfer_losses

from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws import fit
from olmo_mixlaw.laws.choice.holdout import mixture_ids
from olmo_mixlaw.laws.choice.uncertainty import coverage, predicted_interval
from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.laws.learners.stack import Spread, Stack
from olmo_mixlaw.registry import STACKED_LAWS


def test_conformal_intervals_cover_errors_of_any_shape() -> None:
    rng = np.random.default_rng(0)
    known, new = rng.standard_t(3, size=(2, 4000, 2)) * [0.01, 0.1]
    spread = Spread.of(known)
    for level in (0.5, 0.8, 0.9, 0.95):
        inside = (np.abs(new) <= spread.half_width(level)).mean()
        assert inside == pytest.approx(level, abs=0.02)


def test_a_target_with_few_rows_leans_on_the_others() -> None:
    errors = np.full((200, 2), np.nan)
    errors[:, 0] = 0.01
    errors[0, 1] = 0.1
    size = Spread.of(errors).size
    assert size[0] == pytest.approx(0.01, rel=0.1)
    assert size[0] < size[1] < 0.05


@pytest.mark.slow
def test_intervals_of_the_stack_cover_held_mixtures() -> None:
    law = Stack(members=STACKED_LAWS[:5])
    covered = []
    for seed in range(3):
        design = transfer_losses(grid(sizes=3, mixtures=18, seed=seed), noise=0.01, seed=seed)
        held = np.isin(mixture_ids(design), [1, 4, 8, 11])
        fitted = fit(law, design.take(~held))
        covered.append(coverage(fitted, design.take(held)))
    assert 0.85 <= np.mean(covered) <= 0.96


def test_intervals_survive_a_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    design = transfer_losses(grid(sizes=2, mixtures=8), noise=0.01)
    law = Stack(members=("additive", "transfer"))
    fitted = fit(law, design)
    again = Fit.load(fitted.save(tmp_path / "fit.json"))
    rows = (design.ratios, design.n_params, design.n_tokens)
    np.testing.assert_allclose(predicted_interval(again, *rows), predicted_interval(fitted, *rows))
    low, high = predicted_interval(fitted, *rows, level=0.5)
    wide_low, wide_high = predicted_interval(fitted, *rows, level=0.95)
    assert (wide_low < low).all()
    assert (high < wide_high).all()


def test_a_level_that_is_no_probability_is_refused() -> None:
    design = transfer_losses(grid(sizes=2, mixtures=8), noise=0.01)
    with pytest.raises(FitError, match="level"):
        predicted_interval(fit("no_mixture", design), design.ratios, 4e7, 1e9, level=90)
