"""Regimes: targets whose losses jump."""

from __future__ import annotations

import numpy as np
import pytest
from law_tables import grid, transfer_losses, with_losses

from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws import Settings, fit
from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.laws.learners.regimes import Regimes, find_cuts
from olmo_mixlaw.runs import Design

LOOSE = Settings(strict=False)


def cliff(mixtures: int = 120, sizes: int = 1) -> Design:
    """The first target is learnt only above 30 % of the first domain; the others are smooth."""
    design = transfer_losses(grid(sizes=sizes, mixtures=mixtures), noise=0.002)
    losses = design.losses.copy()
    losses[:, 0] *= np.where(design.ratios[:, 0] > 0.3, 0.6, 1.0)
    return with_losses(design, losses)


def test_a_jump_is_found_and_only_there() -> None:
    design = cliff()
    cut, high = find_cuts(design)
    assert np.isfinite(cut).tolist() == [True, False, False, False]
    np.testing.assert_array_equal(high[:, 0], design.ratios[:, 0] <= 0.3)


def test_sizes_alone_are_no_regimes() -> None:
    design = transfer_losses(grid(sizes=2, mixtures=30), noise=0.002)
    small = design.n_params == design.n_params.min()
    design = with_losses(design, design.losses * np.where(small, 2.0, 1.0)[:, None])
    assert not np.isfinite(find_cuts(design)[0]).any()


def test_a_law_in_each_regime_beats_one_law() -> None:
    pytest.importorskip("lightgbm")
    design = cliff()
    held = np.arange(len(design)) % 4 == 0
    error = {}
    for law in ("kriging", "regimes"):
        guess = fit(law, design.take(~held), settings=LOOSE).predict(design.ratios[held])
        error[law] = np.abs(guess / design.losses[held] - 1).mean(0)
    assert error["regimes"][0] < 0.5 * error["kriging"][0]
    np.testing.assert_allclose(error["regimes"][1:], error["kriging"][1:], rtol=0.02)


def test_a_table_without_a_jump_is_refused() -> None:
    pytest.importorskip("lightgbm")
    with pytest.raises(FitError, match="two groups"):
        fit("regimes", transfer_losses(grid(sizes=1, mixtures=40), noise=0.002), settings=LOOSE)


def test_regimes_survive_a_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("lightgbm")
    design = cliff(60)
    fitted = fit(Regimes(base="modulated"), design, settings=LOOSE)
    again = Fit.load(fitted.save(tmp_path / "fit.json"))
    np.testing.assert_allclose(again.predict(design.ratios), fitted.predict(design.ratios))
    assert again.ratio_gradient(design.ratios).shape == (60, 4, 4)
    assert again.n_parameters > sum(part.n_parameters for part in again.law.parts(again))
