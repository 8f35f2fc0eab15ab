"""Draws: every limit met, sums exact, the same for a seed, nested, apart, about the prior."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist
from source_trees import flat, nested, trees_and_limits

from olmo_mixlaw.errors import ConfigError, MixlawError
from olmo_mixlaw.swarm.draws import METHODS, STRENGTHS, Draw, draw
from olmo_mixlaw.swarm.limits import Limits, limits_of
from olmo_mixlaw.swarm.placing import within
from olmo_mixlaw.swarm.sources import SourceTree

BOTH = pytest.mark.parametrize("method", METHODS)
TOKENS = [400e9, 120e9, 60e9, 15e9, 4e9, 1e9]


def free(tree: SourceTree) -> Limits:
    return limits_of(tree)


@BOTH
@settings(max_examples=40)
@given(trees_and_limits(), st.integers(0, 100))
def test_every_mixture_meets_every_limit_and_sums_to_1(
    method: str, case: tuple[SourceTree, Limits], seed: int
) -> None:
    tree, limits = case
    found = draw(40, tree.prior, limits, Draw(method, seed=seed, apart=0))
    assert np.abs(found.sum(1) - 1).max() < 1e-12
    assert (found >= limits.low - 1e-12).all()
    assert (found <= limits.high + 1e-12).all()
    assert ((found == 0) | (found >= limits.least_ratio)).all()
    for group in limits.whole.all():
        total = found[:, list(group.units)].sum(1)
        assert (total >= group.low - 1e-9).all()
        assert (total <= group.high + 1e-9).all()
    assert not limits.broken(found).any()


@BOTH
@settings(max_examples=20)
@given(trees_and_limits(), st.integers(1, 60), st.integers(0, 100))
def test_a_swarm_begins_with_every_smaller_one(
    method: str, case: tuple[SourceTree, Limits], n: int, seed: int
) -> None:
    tree, limits = case
    how = Draw(method, seed=seed, apart=0)
    np.testing.assert_array_equal(
        draw(60, tree.prior, limits, how)[:n], draw(n, tree.prior, limits, how)
    )


@BOTH
def test_a_swarm_that_grows_keeps_its_mixtures_and_adds_those_of_a_larger_one(method: str) -> None:
    tree = flat(TOKENS)
    how = Draw(method, seed=3)
    small = draw(30, tree.prior, free(tree), how)
    grown = draw(50, tree.prior, free(tree), how, small)
    np.testing.assert_array_equal(grown, draw(50, tree.prior, free(tree), how))
    other = draw(50, tree.prior, free(tree), Draw(method, seed=4), small)
    np.testing.assert_array_equal(other[:30], small)
    assert not np.array_equal(other[30:], grown[30:])


@BOTH
@pytest.mark.parametrize("apart", [0.01, 0.05, 0.2])
def test_no_two_mixtures_are_nearer_than_asked(method: str, apart: float) -> None:
    tree = flat(TOKENS)
    found = draw(60, tree.prior, free(tree), Draw(method, apart=apart))
    assert 0.5 * pdist(found, "cityblock").min() >= apart
    begun = found[:5]
    grown = draw(60, tree.prior, free(tree), Draw(method, seed=9, apart=apart), begun)
    assert 0.5 * pdist(grown, "cityblock").min() >= apart


def test_more_mixtures_apart_than_there_is_room_for_are_refused() -> None:
    tree = flat([1.0, 1.0])
    with pytest.raises(ConfigError, match=r"only \d of 50 mixtures lie 0.3 or more apart"):
        draw(50, tree.prior, free(tree), Draw(apart=0.3))


def test_dirichlet_mixtures_have_the_prior_for_their_mean() -> None:
    tree = flat(TOKENS)
    found = draw(4000, tree.prior, free(tree), Draw(apart=0))
    # Three standard errors of a mean of 4000 ratios, whose variance is at most p (1 - p).
    error = 3 * np.sqrt(tree.prior * (1 - tree.prior) / len(found))
    assert (np.abs(found.mean(0) - tree.prior) < error).all()


def test_the_strength_says_how_far_from_the_prior_mixtures_are() -> None:
    tree = flat(TOKENS)
    for strength in (1.0, 10.0, 100.0):
        how = Draw(min_strength=strength, max_strength=strength, apart=0)
        found = draw(4000, tree.prior, free(tree), how)
        # The variance of a Dirichlet at this strength.
        expected = tree.prior * (1 - tree.prior) / (strength + 1)
        np.testing.assert_allclose(found.var(0)[:3], expected[:3], rtol=0.1)


def test_a_low_temperature_makes_the_prior_flatter() -> None:
    tree = flat(TOKENS)
    found = draw(2000, tree.prior, free(tree), Draw(temperature=1e-6, apart=0))
    np.testing.assert_allclose(found.mean(0), 1 / 6, atol=0.03)


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("temperature", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("bounds", [{}, {"at_most": {"s0": 0.4, "s1": 0.3}}])
def test_the_ends_of_all_settings_give_mixtures_within_limits(
    strength: float, temperature: float, bounds: dict
) -> None:
    tree = flat([1e13, 1e9, 1e3, 1.0])
    limits = limits_of(tree, **bounds)
    how = Draw(min_strength=strength, max_strength=strength, temperature=temperature, apart=0)
    found = within_one_block(tree, limits, how)
    assert np.isfinite(found).all()
    assert not limits.broken(found).any()


def within_one_block(tree: SourceTree, limits: Limits, how: Draw) -> np.ndarray:
    """The first candidates, before any is left out for being a second time the same."""
    return within(limits, *next(iter(METHODS[how.method](tree.prior, limits, how))))


def test_sobol_mixtures_are_uniform_on_the_simplex() -> None:
    tree = flat([1.0, 1.0, 1.0])
    found = draw(512, tree.prior, free(tree), Draw("sobol", apart=0))
    # The three corners and the middle that halving the sides cuts off have equal areas.
    corners = (found > 0.5).mean(0)
    np.testing.assert_allclose(corners, 0.25, atol=0.01)
    # A ratio is above x with probability (1 - x)^2.
    for x in (0.1, 0.3, 0.7):
        np.testing.assert_allclose((found > x).mean(0), (1 - x) ** 2, atol=0.02)


def test_sobol_spreads_a_small_source_over_what_its_cap_allows() -> None:
    tree = flat([1.0] * 8)
    limits = limits_of(tree, at_most={"s0": 0.01})
    found = draw(512, tree.prior, limits, Draw("sobol", apart=0))[:, 0]
    share = np.histogram(found, bins=4, range=(0, 0.01))[0] / len(found)
    assert share.min() > 0.12


@BOTH
def test_the_floors_take_their_part_and_the_rest_varies(method: str) -> None:
    tree = flat(TOKENS)
    limits = limits_of(tree, at_least={"s5": 0.3}, keep=["s4"], least_ratio=0.002)
    found = draw(100, tree.prior, limits, Draw(method))
    assert found[:, 5].min() >= 0.3
    assert found[:, 5].max() > 0.32
    assert found[:, 4].min() >= 0.002
    assert np.ptp(found[:, 0]) > 0.2


@BOTH
def test_sources_that_nothing_can_move_stay_where_they_are(method: str) -> None:
    tree = flat(TOKENS)
    limits = limits_of(tree, at_least={"s0": 0.4}, at_most={"s0": 0.4, "s5": 0.0})
    found = draw(20, tree.prior, limits, Draw(method))
    np.testing.assert_allclose(found[:, 0], 0.4, atol=1e-12)
    assert (found[:, 5] == 0).all()
    one = flat([5.0])
    np.testing.assert_array_equal(draw(1, one.prior, free(one), Draw(method)), [[1.0]])


@BOTH
def test_limits_that_leave_one_mixture_give_it(method: str) -> None:
    tree = flat([1.0, 1.0, 1.0])
    limits = limits_of(tree, at_most={"s0": 0.2, "s1": 0.3, "s2": 0.5})
    np.testing.assert_allclose(
        draw(1, tree.prior, limits, Draw(method)), [[0.2, 0.3, 0.5]], atol=1e-12
    )


def test_tight_ceilings_bring_back_what_the_least_ratio_left_out() -> None:
    tree = flat([100.0, 1.0, 1.0, 1.0])
    limits = limits_of(tree, at_most={f"s{i}": 0.3 for i in range(4)}, least_ratio=0.15)
    found = draw(200, tree.prior, limits, Draw(apart=0))
    assert not limits.broken(found).any()
    assert ((found == 0) | (found >= 0.15)).all()


def test_pinned_parts_keep_their_ratios() -> None:
    tree = nested()
    found = tree.expand(draw(50, tree.prior, free(tree), Draw()))
    high, low = found[:, 1], found[:, 2]
    np.testing.assert_allclose(3 * high, low, rtol=1e-12)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"method": "grid"}, "unknown method 'grid'"),
        ({"min_strength": 0.0}, "strengths 0 to 5: expected 1e-06 <= min-strength"),
        ({"min_strength": 9.0}, "strengths 9 to 5"),
        ({"temperature": 0.0}, "temperature: 0; it must be above 0"),
        ({"apart": 1.0}, "apart: 1; expected 0 or more, and below 1"),
    ],
)
def test_draws_that_make_no_sense_are_refused(options: dict, problem: str) -> None:
    with pytest.raises(MixlawError, match=problem):
        Draw(**options)
