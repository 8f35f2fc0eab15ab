"""The search over mixtures: minima found, bounds kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmo_mixlaw.advice.simplex import project, search


@settings(max_examples=50)
@given(st.integers(0, 10_000))
def test_projection_lands_on_the_bounded_simplex(seed: int) -> None:
    rng = np.random.default_rng(seed)
    low, high = np.full(5, 0.05), np.array([0.2, 0.3, 1, 1, 1])
    result = project(rng.normal(size=5), low, high)
    assert result.sum() == pytest.approx(1)
    assert (result >= low - 1e-6).all()
    assert (result <= high + 1e-6).all()


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(2, 20))
def test_a_convex_function_is_minimised_on_the_bounded_simplex(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    centre, weight = rng.dirichlet(np.ones(k)), rng.uniform(0.5, 2, k)

    def objective(h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return (weight * (h - centre) ** 2).sum(1), 2 * weight * (h - centre)

    low, high = np.zeros(k), np.ones(k)
    best = search(objective, rng.dirichlet(np.ones(k), 4), low, high)[0]
    np.testing.assert_allclose(best, centre, atol=2e-3)
    high[int(centre.argmax())] = 0.5 * centre.max()
    held = search(objective, rng.dirichlet(np.ones(k), 4), low, high)[0]
    assert (held <= high + 1e-9).all()
    assert held[int(centre.argmax())] == pytest.approx(high.min(), abs=2e-3)
