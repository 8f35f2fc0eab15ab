"""Eq. 1 and Eq. 3 with their head: exact slopes, a generic solver, and the limits of H."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from law_tables import grid, scenes, theta_of, with_losses
from scipy.optimize import minimize

from olmo_mixlaw.laws.law import Inputs, Scene, resolve

NAMES = ["competition", "competition_noise"]


def column(name: str, scene: Scene, part: str) -> int:
    return [p.name for p in resolve(name).parameters(scene, 0)].index(part)


def with_head(name: str, scene: Scene, head: float, seed: int = 3) -> np.ndarray:
    theta = theta_of(resolve(name), scene, seed=seed)
    theta[:, column(name, scene, "H")] = np.log(head)
    return theta


def rows(scene: Scene) -> Inputs:
    """One mixture without the first domain, and one that gives it nearly everything."""
    ratios = np.array([[0.0, 0.2, 0.5, 0.3], [0.94, 0.01, 0.02, 0.03]])
    return scene.inputs(ratios, np.array([1e7, 4e7]), 1.5e9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("head", [0.02, 0.3, 0.6])
def test_slopes_by_the_head_are_exact(name: str, head: float) -> None:
    law, (scene, _) = resolve(name), scenes()[0]
    theta, at, inputs = with_head(name, scene, head), column(name, scene, "H"), rows(scenes()[0][0])
    _, slopes = law.evaluate(theta, inputs, scene, True)
    assert slopes is not None
    step = np.zeros(theta.shape[1])
    step[at] = 1e-5
    up, down = (law.evaluate(theta + s * step, inputs, scene)[0] for s in (1, -1))
    np.testing.assert_allclose(slopes[..., at], (up - down) / 2e-5, rtol=1e-7, atol=1e-9)
    # The domain without a share has the head alone, and gains by it.
    assert slopes[0, 0, 0, at] < 0


@pytest.mark.parametrize("name", NAMES)
def test_slopes_in_their_own_form_are_those_written_out(name: str) -> None:
    law, (scene, _) = resolve(name), scenes()[0]
    theta, inputs = with_head(name, scene, 0.3), rows(scenes()[0][0])
    pull, stiffness = np.random.default_rng(0).uniform(0.5, 2, (2, 1, 8))
    _, short = law.residuals(theta, inputs, scene, True)
    gradient, matrix = short.normal(pull, stiffness)
    full = short.dense().reshape(1, 8, -1)
    np.testing.assert_allclose(gradient[0], pull[0] @ full[0], atol=1e-12)
    np.testing.assert_allclose(matrix[0], full[0].T @ (stiffness[0][:, None] * full[0]), atol=1e-12)


@pytest.mark.parametrize("head", [0.05, 0.5])
def test_losses_are_those_of_a_generic_solver(head: float) -> None:
    law, (scene, _) = resolve("competition"), scenes()[0]
    theta, inputs = with_head("competition", scene, head), rows(scene)
    bottom, c, b = np.exp(theta[0, :12]).reshape(3, 4)
    losses = law.evaluate(theta, inputs, scene)[0][0]
    for ratios, log_n, loss in zip(inputs.ratios, inputs.log_n, losses, strict=True):
        total = 4 * np.exp(log_n) + 3 * head
        shared = np.where(
            ratios > 0, (total - head * (ratios == 0).sum()) / (ratios > 0).sum(), head
        )
        found = minimize(
            lambda x, h=ratios: float((h * c * x**-b).sum()),
            shared,
            jac=lambda x, h=ratios: -h * c * b * x ** (-b - 1),
            bounds=[(head, None)] * 4,
            constraints={"type": "eq", "fun": lambda x, t=total: x.sum() - t},
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        np.testing.assert_allclose(loss, bottom + c * found.x**-b, rtol=1e-5)


def test_without_a_head_all_of_n_is_divided() -> None:
    """H -> 0 is the problem sum x = N: the losses go there, and nothing depends on H any more."""
    law, (scene, _) = resolve("competition"), scenes()[0]
    ratios = np.array([[0.1, 0.2, 0.4, 0.3]])
    inputs = scene.inputs(ratios, 2e7, 1e9)
    theta = with_head("competition", scene, 1e-9)
    bottom, c, b = np.exp(theta[0, :12]).reshape(3, 4)
    x = ((law.evaluate(theta, inputs, scene)[0][0, 0] - bottom) / c) ** (-1 / b)
    assert x.sum() == pytest.approx(4 * np.exp(inputs.log_n[0]), rel=1e-7)
    price = ratios[0] * c * b * x ** (-b - 1)
    np.testing.assert_allclose(price, price[0], rtol=1e-6)


def test_one_domain_has_all_of_n_whatever_the_head() -> None:
    design = grid(sizes=3, mixtures=2, domains=1)
    design = with_losses(design, np.full((len(design), 1), 3.0))
    scene = Scene.of(design)
    law = resolve("competition")
    inputs = scene.inputs(design.ratios, design.n_params, design.n_tokens)
    theta = theta_of(law, scene)
    bottom, c, b = np.exp(theta[0, :3])
    expected = bottom + c * np.exp(-b * inputs.log_n)
    np.testing.assert_allclose(law.evaluate(theta, inputs, scene)[0][0, :, 0], expected, rtol=1e-10)
    head = law.parameters(scene, 0)[column("competition", scene, "H")]
    assert head.sd == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_model_smaller_than_the_head_has_finite_losses(name: str) -> None:
    law, (scene, _) = resolve(name), scenes()[0]
    theta = with_head(name, scene, 0.9)
    tiny = replace(rows(scene), log_n=np.full(2, -9.0))
    loss, slopes = law.evaluate(theta, tiny, scene, True)
    assert slopes is not None
    assert np.isfinite(loss).all()
    assert np.isfinite(slopes).all()
    assert not slopes[..., column(name, scene, "H")].any()


def test_the_head_never_exceeds_the_smallest_model() -> None:
    for scene, _ in scenes():
        item = resolve("competition").parameters(scene, 0)[column("competition", scene, "H")]
        smallest = scene.n_range[0] / scene.n_ref if scene.has_n else 1.0
        pools = 4 + sum(own < 0 for own in scene.own)
        assert np.exp(item.upper) < pools * smallest
        assert item.lower < item.mean < item.upper
