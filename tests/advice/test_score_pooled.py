"""Scores from what runs have in common: exact where it can be, calibrated where it can't."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmo_mixlaw.advice.scores import pooled
from olmo_mixlaw.advice.scores.pooled import MEAN_SD, fit_pooled, linear, matern, same
from olmo_mixlaw.errors import FitError


def drawn(seed: int, runs: int = 60, tasks: int = 8) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Tasks linear in three features, half of the variance noise; a kernel that says nothing."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(runs, 3))
    values = x @ rng.normal(size=(3, tasks)) / np.sqrt(3) + rng.normal(size=(runs, tasks))
    return values, {"features": linear(x), "label": same(rng.integers(0, 20, runs))}


def test_the_kernel_that_matters_gets_the_variance_and_intervals_hold() -> None:
    inside = []
    for seed in range(4):
        values, kernels = drawn(seed)
        seen = values.copy()
        seen[40:] = np.nan
        found = fit_pooled(seen, kernels)
        by_kernel = dict(zip(found.kernels, found.variances.mean(0), strict=True))
        assert by_kernel["features"] > 3 * by_kernel["label"]
        off = (found.mean - values)[40:] / found.sd[40:]
        inside.append(np.abs(off) < 1.645)
        # The features' half of the variance is predicted, the noise's isn't.
        assert (off * found.sd[40:]).std() < 1.2 < values[40:].std() + 0.1
    # 640 scores: 90 % with a standard error of 1.2 %, more by their being 8 tasks of one draw.
    assert 0.85 <= np.mean(inside) <= 0.95


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_slopes_of_the_likelihood_are_exact(seed: int) -> None:
    values, kernels = drawn(seed, runs=20, tasks=1)
    task = pooled._Task.of(values[:, 0], np.arange(18), 1.3, list(kernels.values()))
    p = np.random.default_rng(seed).normal(-1, 1, 2)
    for i, step in enumerate(1e-5 * np.eye(2)):
        rise = task.log_likelihood(p + step)[0] - task.log_likelihood(p - step)[0]
        assert task.log_likelihood(p)[1][i] == pytest.approx(rise / 2e-5, rel=1e-5, abs=1e-6)


def test_an_error_left_out_is_that_of_a_fit_without_the_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pooled, "NOISE", np.array([0.3]))
    values, kernels = drawn(0, runs=15, tasks=1)
    task = pooled._Task.of(values[:, 0], np.arange(15), 1.0, list(kernels.values()))
    p = np.array([-0.5, -1.5])
    covariance = sum(v * k for v, k in zip(np.exp(p), kernels.values(), strict=True)) + MEAN_SD**2
    for i in (0, 7):
        rest = np.delete(np.arange(15), i)
        among = covariance[np.ix_(rest, rest)] + 0.3 * np.eye(14)
        pull = np.linalg.solve(among, covariance[rest, i])
        spread = np.sqrt(covariance[i, i] + 0.3 - pull @ covariance[rest, i])
        off = (task.value[i] - pull @ task.value[rest]) / spread
        assert task.left_out(p)[i] == pytest.approx(off, rel=1e-9)


def test_a_task_may_have_a_kernel_of_its_own_or_none() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=40)
    values = np.c_[x, rng.normal(size=40)] + 0.05 * rng.normal(size=(40, 2))
    values[30:] = np.nan
    found = fit_pooled(values, {"even": np.eye(40)}, {"own": [np.outer(x, x), None]})
    # Noise of .05 on a slope seen 30 times; the prior's own pull is as small.
    np.testing.assert_allclose(found.mean[30:, 0], x[30:], atol=0.25)
    assert found.mean[30:, 1].std() < 0.05


def test_few_values_are_scaled_like_the_others_and_none_are_refused() -> None:
    values, kernels = drawn(1)
    values[2:, 0] = np.nan
    found = fit_pooled(values, kernels)
    assert 0.3 < found.sd[10, 0] / found.sd[10, 1:].mean() < 3
    values[:, 0] = np.nan
    with pytest.raises(FitError, match="column 1 has no value"):
        fit_pooled(values, kernels)


def test_kernels_are_covariances() -> None:
    x = np.random.default_rng(0).normal(size=(12, 3))
    for kernel in (matern(x, 0.7), linear(x), same(list("aabbccddeeff"))):
        np.testing.assert_allclose(kernel, kernel.T)
        assert np.linalg.eigvalsh(kernel).min() > -1e-10
    np.testing.assert_allclose(np.diag(matern(x, 0.7)), 1.0)
    still = linear(np.c_[x, np.ones(12)])
    np.testing.assert_allclose(still, linear(x))
