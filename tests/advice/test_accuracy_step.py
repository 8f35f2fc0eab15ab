"""The second step: exact slopes, and curves found again although losses or floors mislead."""

from __future__ import annotations

import numpy as np
import pytest

from olmo_mixlaw.advice.accuracy_step import PRIOR, Curves, Rows, _accuracy, fit_curves

RNG = np.random.default_rng(3)
KAPPA, XI, HI, FLOOR = 5.0, 0.9, 0.95, 0.25


def curve(loss: np.ndarray, low: float = FLOOR) -> np.ndarray:
    """The true accuracy at a loss over the least one seen."""
    return low + (HI - low) / (1 + np.exp(-KAPPA * (XI - loss)))


def fitted(measured: np.ndarray, expected: np.ndarray, accuracy: np.ndarray) -> Curves:
    """A task's curve; the least loss is made exactly 1, so that kappa and xi are the truth's."""
    shape = (1, len(measured))
    zeros = np.zeros(shape, int)
    rows = Rows(measured[None], accuracy[None], np.ones(shape), zeros, zeros, np.ones((1, 2)))
    found = fit_curves(rows, expected[None], np.array([FLOOR]), huber=3.0)
    scale = float(found.least[0])
    theta = found.theta.copy()
    theta[0, :2] += [-np.log(scale), theta[0, 1] * (scale - 1)]
    return Curves(theta, found.noise, found.floors, np.ones(1))


def test_slopes_are_those_of_the_accuracy() -> None:
    theta = PRIOR[0] + 0.5 * PRIOR[1] * RNG.normal(size=(3, 5))
    floors, least = np.array([0.0, 0.25, 0.5]), np.array([0.8, 1.0, 3.0])
    expected = least[:, None] * RNG.uniform(1.0, 1.6, size=(3, 7))
    loss = expected * RNG.uniform(0.9, 1.1, size=(3, 7))
    floors[0] = 0.2
    _, slopes = _accuracy(theta, floors, least, loss, expected)
    for p in range(5):
        step = np.zeros(5)
        step[p] = 1e-6
        high, low = (_accuracy(theta + s, floors, least, loss, expected)[0] for s in (step, -step))
        np.testing.assert_allclose(slopes[..., p], (high - low) / 2e-6, rtol=1e-6, atol=1e-9)


def test_a_loss_that_is_measured_with_error_does_not_flatten_the_curve() -> None:
    expected = np.linspace(1.0, 1.7, 120)
    measured = expected * np.exp(0.15 * RNG.normal(size=120))
    found = fitted(measured, expected, curve(expected))
    asked = np.array([[0.8], [1.1], [1.5]])
    # Accuracies are exact here, so only the priors hold the curve off: a hundredth.
    np.testing.assert_allclose(found.accuracy(asked)[:, 0], curve(asked[:, 0]), atol=0.01)
    assert 1 / (1 + np.exp(-found.theta[0, 4])) < 0.1
    naive = fitted(measured, measured, curve(expected)).accuracy(asked)[:, 0]
    assert abs(naive - curve(asked[:, 0])).max() > 0.03


def test_a_loss_that_shows_what_a_run_can_do_is_believed() -> None:
    expected = np.linspace(1.0, 1.7, 120)
    measured = expected * np.exp(0.05 * RNG.normal(size=120))
    found = fitted(measured, expected, curve(measured))
    assert 1 / (1 + np.exp(-found.theta[0, 4])) > 0.9


@pytest.mark.parametrize("low", [0.21, 0.25, 0.28])
def test_where_a_task_starts_is_found_near_chance(low: float) -> None:
    loss = np.linspace(1.0, 2.5, 80)
    found = fitted(loss, loss, curve(loss, low))
    assert found.low[0] == pytest.approx(low, abs=0.005)


def test_a_task_without_chance_never_starts_below_nothing() -> None:
    loss = np.linspace(1.0, 2.5, 40)
    rows = Rows(
        loss[None], np.maximum(curve(loss, 0.0), 1e-3)[None], np.ones((1, 40)),
        np.zeros((1, 40), int), np.zeros((1, 40), int), np.ones((1, 2)),
    )  # fmt: skip
    assert fit_curves(rows, loss[None], np.zeros(1), huber=3.0).low[0] >= 0
