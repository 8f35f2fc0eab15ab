"""Errors between mixtures: what is counted, what cancels, and what a file keeps of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from law_tables import grid, transfer_losses, with_losses

from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws import Fit, fit
from olmo_mixlaw.laws.choice.differences import (
    LEAST_NEAR,
    USUAL_DRIFT,
    Differences,
    differences,
    hull_distance,
    reach_of,
)
from olmo_mixlaw.laws.choice.holdout import make_splits
from olmo_mixlaw.laws.choice.selection import held_out, measured
from olmo_mixlaw.laws.law import resolve
from olmo_mixlaw.runs import Design

EQUAL = np.full(4, 0.25)


def held_by(design: Design, guess: np.ndarray) -> Differences:
    """What is found where every fold predicts `guess` for all rows."""
    parts = make_splits(design, ("held_mixtures",))
    found = differences(resolve("transfer"), design, held=[(part, guess) for part in parts])
    assert found is not None
    return found


def test_an_error_of_level_is_none_between_mixtures() -> None:
    design = transfer_losses(grid(sizes=1, mixtures=12))
    found = held_by(design, 1.07 * design.losses)
    assert found.typical(EQUAL) == pytest.approx(0, abs=1e-9)
    assert found.r2(EQUAL) == pytest.approx(1)


def test_the_mean_of_all_mixtures_explains_nothing() -> None:
    design = transfer_losses(grid(sizes=1, mixtures=12))
    same = np.broadcast_to(design.losses.mean(0), design.losses.shape)
    assert held_by(design, same).r2(EQUAL) == pytest.approx(0, abs=1e-9)


def test_what_is_known_by_heart_explains_nothing() -> None:
    """A law that repeats what it was fitted to, and knows nothing else."""
    design = transfer_losses(grid(sizes=1, mixtures=40))
    held = []
    for part in make_splits(design, ("held_mixtures",)):
        mean = design.losses[part.train].mean(0)
        held.append((part, np.where(part.train[:, None], design.losses, mean)))
    found = differences(resolve("transfer"), design, held=held)
    assert found is not None
    assert -0.1 < found.r2(EQUAL) <= 0


def test_independent_errors_have_twice_their_variance_at_any_distance() -> None:
    design = transfer_losses(grid(sizes=1, mixtures=150))
    noise = np.exp(np.random.default_rng(0).normal(0, 0.01, design.losses.shape))
    found = held_by(design, design.losses * noise)
    one = np.array([1.0, 0, 0, 0])
    for distance in (0.0, found.usual, 2 * found.usual):
        assert found.variance(one, distance) ** 0.5 == pytest.approx(0.01 * 2**0.5, rel=0.15)
    # Those of several targets average out.
    assert found.typical(EQUAL) == pytest.approx(0.01 * 2**0.5 / 2, rel=0.15)


def test_errors_that_grow_with_distance_are_known_as_such() -> None:
    design = transfer_losses(grid(sizes=1, mixtures=100))
    tilt = np.exp(0.1 * design.ratios[:, :1] - 0.1 * design.ratios[:, 1:2])
    found = held_by(design, design.losses * tilt)
    near, usual, far = (found.variance(EQUAL, x * found.usual) for x in (0.0, 1.0, 2.0))
    assert near == pytest.approx(LEAST_NEAR * found.error[0].mean(), rel=1e-6)  # luck is left
    assert far - near == pytest.approx(4 * (usual - near), rel=1e-6)


def test_a_missing_loss_leaves_the_others_as_they_are() -> None:
    design = transfer_losses(grid(sizes=1, mixtures=40))
    guess = design.losses * np.exp(np.random.default_rng(0).normal(0, 0.01, design.losses.shape))
    gap = design.losses.copy()
    gap[::2, 0] = np.nan
    whole, some = held_by(design, guess), held_by(with_losses(design, gap), guess)
    np.testing.assert_allclose(some.error[0][1:, 1:], whole.error[0][1:, 1:])
    assert some.error[0][0, 0] == pytest.approx(whole.error[0][0, 0], rel=0.6)


def test_the_largest_size_alone_counts_where_it_has_mixtures_enough() -> None:
    design = transfer_losses(grid(sizes=2, mixtures=12))
    small = (design.n_params == design.n_params.min())[:, None]
    noise = np.exp(np.random.default_rng(0).normal(0, 0.1, design.losses.shape))
    found = held_by(design, design.losses * np.where(small, noise, 1.0))
    assert found.typical(EQUAL) == pytest.approx(0, abs=1e-9)
    few = design.take(np.arange(len(design)) % 12 < 6)
    found = held_by(few, few.losses * np.where(small[: len(few)], noise[: len(few)], 1.0))
    assert found.typical(EQUAL) > 0.01


@pytest.mark.parametrize("sizes", [1, 2, 3])
def test_a_size_is_held_out_where_there_are_two(sizes: int) -> None:
    design = transfer_losses(grid(sizes=sizes, mixtures=8), noise=0.002)
    found = differences(resolve("transfer"), design)
    assert found is not None
    if sizes == 1:
        assert (found.beyond_mixtures, found.reach) == (0, 0.0)
        assert found.drift(EQUAL) == USUAL_DRIFT
        assert np.isnan(found.beyond_r2(EQUAL))
    else:
        assert found.beyond_mixtures == 8
        assert found.reach == pytest.approx(np.log(4))
        assert found.beyond_r2(EQUAL) > 0.8
        assert 0 < found.drift(EQUAL) < 2 * USUAL_DRIFT


def test_too_few_mixtures_tell_nothing() -> None:
    design = transfer_losses(grid(sizes=3, mixtures=2))
    assert differences(resolve("transfer"), design) is None
    same = replace(design, ratios=np.full_like(design.ratios, 0.25))
    assert differences(resolve("transfer"), same) is None


def test_a_fit_keeps_them_in_its_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    design = transfer_losses(grid(sizes=2, mixtures=8), noise=0.002)
    fitted = fit("transfer", design)
    assert Differences.of(fitted) is None
    found = differences(fitted.law, design)
    assert found is not None
    known = replace(fitted, provenance=fitted.provenance | found.record())
    again = Differences.of(Fit.load(known.save(tmp_path / "fit.json")))
    assert again is not None
    np.testing.assert_array_equal(again.error, found.error)
    assert again.variance(EQUAL, 0.3) == found.variance(EQUAL, 0.3)
    # Those of other targets say nothing of these.
    other = replace(known, scene=replace(known.scene, targets=["a", "b", "c", "d"]))
    assert Differences.of(other) is None
    for key, value in (("error", [1.0]), ("usual", None), ("weight", "x"), ("more", 1)):
        record = known.provenance["differences"] | {key: value}
        broken = replace(known, provenance=known.provenance | {"differences": record})
        with pytest.raises(FitError, match="are damaged; fit again"):
            Differences.of(broken)


def test_one_pass_gives_scores_and_differences() -> None:
    design = transfer_losses(grid(sizes=2, mixtures=8), noise=0.002)
    law = resolve("transfer")
    scores, between = measured(law, design)
    assert scores == held_out(law, design)
    known = differences(law, design)
    assert between is not None
    assert known is not None
    np.testing.assert_allclose(between.error, known.error)


def test_reach_counts_size_and_budget_beyond_the_table() -> None:
    assert reach_of(1e8, 1e9, 1e8, 1e9) == 0
    assert reach_of(1e7, 1e8, 1e8, 1e9) == 0
    assert reach_of(4e8, 1e9, 1e8, 1e9) == pytest.approx(np.log(4))
    assert reach_of(4e8, 2e9, 1e8, 1e9) == pytest.approx(np.log(8))
    assert reach_of(np.nan, 2e9, np.nan, 1e9) == pytest.approx(np.log(2))


def test_farther_outside_than_any_mixture_held_out() -> None:
    design = transfer_losses(grid(sizes=1, mixtures=10), noise=0.002)
    found = differences(resolve("transfer"), design)
    assert found is not None
    assert found.outdone(found.outside, 0.0) == 1
    assert found.outdone(3 * found.outside, 0.0) == pytest.approx(3)
    assert found.outdone(0.5 * found.outside, 10.0) == 1
    assert hull_distance(design.ratios[0], design.ratios) == pytest.approx(0, abs=1e-5)
