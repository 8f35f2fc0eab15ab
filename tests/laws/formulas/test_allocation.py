"""The division of capacity: the dual solution against a convex solver, and its limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmo_mixlaw.laws.formulas.allocation import allocate


def solve(h: np.ndarray, c: np.ndarray, b: np.ndarray, head: float, size: float) -> np.ndarray:
    with np.errstate(divide="ignore"):
        u = np.log(h) + np.log(c) + np.log(b)
    log_size = np.full((1, 1), np.log(size))
    return np.exp(allocate(u[None], b[None], float(np.log(head)), log_size).log_x[0])


@pytest.mark.parametrize("seed", range(4))
def test_division_equals_a_convex_solver(seed: int) -> None:
    cvxpy = pytest.importorskip("cvxpy")
    rng = np.random.default_rng(seed)
    h, c, b = rng.dirichlet(np.ones(5)), rng.uniform(0.3, 3, 5), rng.uniform(0.05, 1.0, 5)
    head, size = 0.3, 8.8
    b = np.round(b, 2)
    x = solve(h, c, b, head, size)
    variable = cvxpy.Variable(5)
    cost = sum(h[i] * c[i] * cvxpy.power(variable[i], -float(b[i])) for i in range(5))
    problem = cvxpy.Problem(
        cvxpy.Minimize(cost), [cvxpy.sum(variable) == size + 4 * head, variable >= head]
    )
    problem.solve(solver=cvxpy.CLARABEL)
    objective = float((h * c * x**-b).sum())
    assert objective == pytest.approx(problem.value, rel=1e-6)
    np.testing.assert_allclose(x, variable.value, rtol=2e-3)


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.integers(1, 64), st.sampled_from([1e-6, 0.02, 0.4, 0.9]))
def test_the_division_obeys_the_conditions_of_an_optimum(seed: int, k: int, head: float) -> None:
    """Karush, Kuhn and Tucker's: one price above the head, none higher at it, nothing left over."""
    rng = np.random.default_rng(seed)
    h, c = rng.dirichlet(np.full(k, 0.3)) + 1e-9, np.exp(rng.normal(size=k))
    b = rng.uniform(0.02, 1.5, k)
    u = np.log(h) + np.log(c) + np.log(b)
    found = allocate(u[None], b[None], float(np.log(head)), np.full((1, 1), np.log(float(k))))
    x = np.exp(found.log_x[0])
    log_price = u - (1 + b) * found.log_x[0]
    assert np.abs(log_price - found.mu[0])[found.active[0]].max() < 1e-10
    assert (log_price <= found.mu[0] + 1e-10).all()
    assert abs(x.sum() / (k + (k - 1) * head) - 1) < 1e-10
    assert (x >= head * (1 - 1e-12)).all()


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.integers(2, 64))
def test_a_domain_without_a_share_has_the_head_alone(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    h = rng.dirichlet(np.full(k, 0.3))
    h[rng.integers(k)] = 0.0
    x = solve(h, np.exp(rng.normal(size=k)), rng.uniform(0.02, 1.5, k), 0.01, float(k))
    assert x.sum() == pytest.approx(k + (k - 1) * 0.01, rel=1e-9)
    assert (x >= 0.01 * (1 - 1e-12)).all()
    assert x[h == 0] == pytest.approx(0.01)


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_equal_exponents_scale_with_capacity(seed: int) -> None:
    """With one exponent the shares don't depend on C, so neither does the best mixture."""
    rng = np.random.default_rng(seed)
    h, c = rng.dirichlet(np.ones(6)) + 1e-3, np.exp(rng.normal(size=6))
    small, large = (solve(h, c, np.full(6, 0.3), 1e-12, s) / s for s in (1.0, 1e4))
    np.testing.assert_allclose(small, large, rtol=1e-8)


def test_large_batches_are_solved_together() -> None:
    rng = np.random.default_rng(0)
    u, b = rng.normal(size=(8, 200, 64)), rng.uniform(0.05, 1, (8, 1, 64))
    found = allocate(u, b, np.log(1e-3), np.full((8, 200, 1), np.log(64.0)))
    np.testing.assert_allclose(np.exp(found.log_x).sum(-1), 64.063, rtol=1e-9)
