"""Every law: exact slopes, and what must hold of any loss."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from law_tables import COUPLED, SEPARABLE, grid, losses_of, scenes, theta_of, with_losses

from olmo_mixlaw.laws.law import Scene, resolve


@pytest.mark.parametrize("name", SEPARABLE + COUPLED)
def test_jacobian_equals_finite_differences(name: str) -> None:
    law = resolve(name)
    for scene, inputs in scenes():
        theta = theta_of(law, scene, seed=3)
        loss, slopes = law.evaluate(theta, inputs, scene, True)
        assert slopes is not None
        free = np.array([p.sd > 0 for p in law.parameters(scene, 0)])
        for column in np.flatnonzero(free):
            step = np.zeros(theta.shape[1])
            step[column] = 1e-6
            up, down = (law.evaluate(theta + s * step, inputs, scene)[0] for s in (1, -1))
            np.testing.assert_allclose(
                (up - down) / 2e-6, slopes[..., column], atol=2e-7, rtol=1e-5
            )
        assert np.isfinite(loss).all()


@pytest.mark.parametrize("name", SEPARABLE + COUPLED)
def test_ratio_gradient_equals_finite_differences(name: str) -> None:
    law = resolve(name)
    for scene, inputs in scenes():
        theta = theta_of(law, scene, seed=4)
        exact = law.ratio_gradient(theta, inputs, scene)
        for k in range(scene.n_domains):
            step = np.zeros(scene.n_domains)
            step[k] = 1e-6
            up, down = (
                law.evaluate(theta, replace(inputs, ratios=inputs.ratios + s * step), scene)[0]
                for s in (1, -1)
            )
            np.testing.assert_allclose((up - down) / 2e-6, exact[..., k], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    "name", [n for n in SEPARABLE + COUPLED if n not in ("bimix", "exponential", "log_linear")]
)
def test_loss_is_above_its_floor(name: str) -> None:
    law = resolve(name)
    scene, inputs = scenes()[0]
    theta = theta_of(law, scene, seed=5)
    names = [p.name for p in law.parameters(scene, 0)]
    bottoms = np.array([i for i, n in enumerate(names) if n == "E" or n.startswith("E[")])
    loss = law.evaluate(theta, inputs, scene)[0]
    floor = np.exp(theta[:, bottoms])
    assert (loss > (floor[:, None] if law.coupled else floor)).all()


@settings(max_examples=25)
@given(
    st.integers(0, 10_000),
    st.sampled_from(["transfer", "power_transfer", "competition", "camel_shares", "camel_dual"]),
)
def test_more_of_a_domain_lowers_its_own_loss(seed: int, name: str) -> None:
    """Along h_i, the others rescaled. Lent tokens are worth less than own ones here."""
    law = resolve(name)
    scene, _ = scenes()[0]
    theta = theta_of(law, scene, seed=seed, spread=0.2)
    rng = np.random.default_rng(seed)
    base = rng.dirichlet(np.ones(4))
    rest = base[1:] / base[1:].sum()
    shares = np.array([0.1, 0.3, 0.6])
    ratios = np.c_[shares, (1 - shares)[:, None] * rest]
    inputs = scene.inputs(ratios, 1e7, 1e9)
    loss = law.evaluate(theta, inputs, scene)[0]
    own = loss[0, :, 0] if law.coupled else loss[0]
    assert (np.diff(own) < 0).all()


@settings(max_examples=15)
@given(
    st.permutations(range(4)),
    st.sampled_from(["competition", "competition_noise", "camel_shares", "camel_dual"]),
)
def test_renaming_domains_renames_losses(order: list[int], name: str) -> None:
    law = resolve(name)
    scene, inputs = scenes()[0]
    items = [p.name for p in law.parameters(scene, 0)]
    theta = theta_of(law, scene, seed=7)
    value = dict(zip(items, theta[0], strict=True))
    names = [scene.domains[i] for i in order]
    moved = replace(scene, domains=names, targets=names, low=scene.low[order])
    again = np.array([[value[p.name] for p in law.parameters(moved, 0)]])
    loss = law.evaluate(theta, inputs, scene)[0]
    other = law.evaluate(again, replace(inputs, ratios=inputs.ratios[:, order]), moved)[0]
    np.testing.assert_allclose(other, loss[:, :, order], rtol=1e-9)


def test_one_domain_is_chinchilla() -> None:
    """K = 1: transfer and additive fall as N and D alone, like the law without a mixture."""
    design = grid(sizes=3, mixtures=2, budgets=2, domains=1)
    design = with_losses(design, np.full((len(design), 1), 3.0))
    scene = Scene.of(design)
    theta = theta_of(resolve("no_mixture"), scene)
    transfer = np.concatenate([theta, np.zeros((1, 1))], axis=1)
    np.testing.assert_allclose(
        losses_of(resolve("transfer"), transfer, design, scene),
        losses_of(resolve("no_mixture"), theta, design, scene),
        rtol=1e-10,
    )


def test_unlimited_size_leaves_floor_and_data_term() -> None:
    law = resolve("transfer")
    scene, _ = scenes()[0]
    theta = theta_of(law, scene)
    at = {p.name: i for i, p in enumerate(law.parameters(scene, 0))}
    huge = scene.inputs(np.array([[1.0, 0, 0, 0]]), 1e60, 1e9)
    expected = np.exp(theta[0, at["E"]]) + np.exp(
        theta[0, at["B"]] - np.exp(theta[0, at["beta"]]) * huge.log_d[0]
    )
    assert law.evaluate(theta, huge, scene)[0][0, 0] == pytest.approx(expected, rel=1e-6)


def test_transfer_is_finite_without_the_own_domain() -> None:
    law = resolve("transfer")
    scene, _ = scenes()[0]
    inputs = scene.inputs(np.array([[0.0, 0.5, 0.5, 0.0]]), 1e7, 1e9)
    assert np.isfinite(law.evaluate(theta_of(law, scene), inputs, scene)[0]).all()
