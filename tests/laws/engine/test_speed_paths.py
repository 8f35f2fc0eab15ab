"""The fast paths give what the plain ones give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from law_tables import COUPLED, grid, scenes, theta_of, transfer_losses
from scipy.stats import multivariate_normal, norm

from olmo_mixlaw.laws import Settings, fit
from olmo_mixlaw.laws.engine import solver
from olmo_mixlaw.laws.formulas.coupled import CoupledLaw
from olmo_mixlaw.laws.law import Scene, resolve
from olmo_mixlaw.laws.learners import process


@pytest.mark.parametrize("name", COUPLED)
def test_pooled_and_dense_normal_equations_agree(name: str) -> None:
    law = resolve(name)
    assert isinstance(law, CoupledLaw)
    rng = np.random.default_rng(0)
    for scene, inputs in scenes():
        theta = np.concatenate([theta_of(law, scene, seed=s) for s in (3, 4)])
        loss, slopes = law._pooled(theta, inputs, scene, True)
        same, dense = law.evaluate(theta, inputs, scene, True)
        assert slopes is not None
        assert dense is not None
        np.testing.assert_allclose(loss, same, rtol=1e-12)
        pull, stiffness = rng.normal(size=(2, loss[0].size)), rng.uniform(size=(2, loss[0].size))
        gradient, matrix = slopes.normal(pull, stiffness)
        flat = dense.reshape(2, -1, theta.shape[1])
        np.testing.assert_allclose(gradient, np.einsum("mr,mrp->mp", pull, flat), atol=1e-10)
        np.testing.assert_allclose(
            matrix, np.einsum("mr,mrp,mrq->mpq", stiffness, flat, flat), atol=1e-10
        )


def test_elimination_of_blocks_solves_the_whole_system(monkeypatch: pytest.MonkeyPatch) -> None:
    law = resolve("camel_hybrid")
    assert isinstance(law, CoupledLaw)
    scene, inputs = scenes()[1]
    theta = np.concatenate([theta_of(law, scene, seed=s) for s in (3, 4)])
    loss, slopes = law._pooled(theta, inputs, scene, True)
    assert slopes is not None
    size = loss[0].size
    right, matrix = slopes.normal(np.ones((2, size)), np.ones((2, size)))
    matrix += 0.1 * np.eye(theta.shape[1])
    blocks = law._blocks(theta, inputs, scene)
    assert len(np.unique(blocks)) == blocks.size
    monkeypatch.setattr(solver, "MANY_PARAMETERS", 1)
    np.testing.assert_allclose(
        solver._solved(matrix, right, blocks), solver._solved(matrix, right, None), rtol=1e-8
    )


@pytest.mark.parametrize("name", ["transfer", "competition_noise"])
def test_refits_together_are_refits_one_by_one(name: str) -> None:
    design = transfer_losses(grid(mixtures=8, budgets=2), noise=0.01)
    fitted = fit(name, design, settings=Settings(strict=False, starts=2))
    weights = np.random.default_rng(0).integers(0, 3, size=(3, len(design))).astype(float)
    together = list(fitted.law.refits(fitted, design, weights, iterations=30, tolerance=1e-5))
    for each, weight in zip(together, weights, strict=True):
        (alone,) = fitted.law.refits(fitted, design, weight[None], iterations=30, tolerance=1e-5)
        np.testing.assert_allclose(each.theta, alone.theta, rtol=1e-9)
        np.testing.assert_allclose(each.theta_sd, alone.theta_sd, rtol=1e-6)
    assert not np.allclose(together[0].theta, fitted.theta)


def test_weights_count_rows() -> None:
    """A row of weight 2 is a row that stands there twice, and one of weight 0 is absent."""
    design = transfer_losses(grid(mixtures=8), noise=0.01)
    fitted = fit("transfer", design, settings=Settings(strict=False, starts=2))
    weight = np.random.default_rng(1).integers(0, 3, size=len(design))
    how = {"iterations": 60, "tolerance": 1e-5}
    (counted,) = fitted.law.refits(fitted, design, weight[None].astype(float), **how)
    rows = np.repeat(np.arange(len(design)), weight)
    (written,) = fitted.law.refits(fitted, design.take(rows), np.ones((1, len(rows))), **how)
    np.testing.assert_allclose(counted.theta, written.theta, atol=1e-4)


@pytest.mark.parametrize("name", ["power_transfer", "additive", "joint", "interaction"])
def test_repeated_mixtures_are_computed_once_alike(name: str) -> None:
    design = transfer_losses(grid(mixtures=4, sizes=3, budgets=3), noise=0.01)
    law, scene = resolve(name), Scene.of(design)
    inputs = scene.inputs(design.ratios, design.n_params, design.n_tokens)
    compact = inputs.compact()
    assert compact.mixtures is not None
    assert len(compact.mixtures[0]) == 4
    theta = theta_of(law, scene, seed=2)
    for plain, once in zip(
        law.evaluate(theta, inputs, scene, True),
        law.evaluate(theta, compact, scene, True),
        strict=True,
    ):
        np.testing.assert_allclose(plain, once, rtol=1e-12)


def test_posterior_of_the_scales_and_its_slopes_are_exact() -> None:
    rng = np.random.default_rng(0)
    x, y, group = rng.normal(size=(12, 3)), rng.normal(size=12), rng.integers(4, size=12)
    phi, mean, sd = rng.normal(size=6) * 0.3, np.zeros(6), np.full(6, 1.5)
    below = np.tril_indices(12, -1)
    square = (x[below[0]] - x[below[1]]) ** 2
    same = (group[below[0]] == group[below[1]])[None].astype(float)

    def cost(at: np.ndarray) -> tuple[float, np.ndarray]:
        return process._posterior_cost(at, below, square, same, y, mean, sd)

    value, slopes = cost(phi)
    scaled = process.Process(phi[:5], {"run": float(np.exp(2 * phi[5]))}, x, y)
    covariance = process._covariance(x, scaled, {"run": group})
    covariance += (np.exp(2 * phi[1]) + process.NUGGET**2) * np.eye(12)
    covariance = np.tril(covariance) + np.tril(covariance, -1).T
    density = multivariate_normal.logpdf(y, np.zeros(12), covariance)
    density += norm.logpdf(phi, mean, sd).sum()
    constant = 6 * np.log(2 * np.pi) + 3 * np.log(2 * np.pi) + np.log(sd).sum()
    assert value == pytest.approx(-density - constant, rel=1e-9)
    for column, step in enumerate(1e-6 * np.eye(6)):
        rise = (cost(phi + step)[0] - cost(phi - step)[0]) / 2e-6
        assert rise == pytest.approx(slopes[column], rel=1e-5)


@settings(max_examples=50)
@given(st.integers(0, 10_000))
def test_a_step_to_the_edge_of_its_box_beats_one_that_is_cut_off(seed: int) -> None:
    rng = np.random.default_rng(seed)
    root, gradient = rng.normal(size=(1, 6, 6)), 3 * rng.normal(size=(1, 6))
    matrix, extra = root @ root.transpose(0, 2, 1), np.full((1, 6), 0.1)
    held, box = rng.random((1, 6)) < 0.2, rng.uniform(0.1, 2.0, size=(2, 1, 6))
    damped = matrix + extra[..., None] * np.eye(6)

    def model(step: np.ndarray) -> float:
        return float((gradient * step).sum() + 0.5 * step[0] @ damped[0] @ step[0])

    found = solver._step(matrix, gradient, extra, held, -box[0], box[1], None)
    assert (found[held] == 0).all()
    assert ((found >= -box[0]) & (found <= box[1])).all()
    wide = solver._step(matrix, gradient, extra, held, -1e9 * box[0], 1e9 * box[1], None)
    free = np.flatnonzero(~held[0])
    exact = -np.linalg.solve(damped[0][np.ix_(free, free)], gradient[0, free])
    np.testing.assert_allclose(wide[0, free], exact, rtol=1e-8)
    cut = np.clip(wide, -box[0], box[1])
    assert model(found) <= model(cut) + 1e-9
