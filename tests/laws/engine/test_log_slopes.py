"""Slopes of log losses by the parameters, for every formula; a scene wider than the runs."""

from __future__ import annotations

import numpy as np
import pytest
from law_tables import grid, transfer_losses

from olmo_mixlaw.laws.engine.formula import Formula
from olmo_mixlaw.laws.law import Scene, Settings, resolve
from olmo_mixlaw.registry import LAWS

FORMULAS = sorted(
    name
    for name in LAWS.names()
    if isinstance(LAWS.get(name), type) and issubclass(LAWS.get(name), Formula)
)
STEP = 1e-5


@pytest.mark.parametrize("name", FORMULAS)
def test_log_slopes_are_those_of_the_log_losses(name: str) -> None:
    law: Formula = resolve(name).candidates()[-1]
    design = transfer_losses(grid(sizes=2, mixtures=4, budgets=2))
    scene = Scene.of(design)
    inputs = scene.inputs(design.ratios + 0.0, design.n_params, design.n_tokens)
    prior = law.prior(scene)
    theta = np.clip(prior.mean + 0.1 * np.minimum(prior.sd, 0.5), prior.lower, prior.upper)
    slopes = law.log_slopes(theta, inputs, scene)
    assert slopes.shape == (scene.n_targets, len(design), theta.shape[1])

    def logs(at: np.ndarray) -> np.ndarray:
        loss, _ = law.evaluate(at, inputs, scene)
        return np.log(loss[0].T if law.coupled else loss)

    rng = np.random.default_rng(0)
    for _ in range(3):
        way = np.where(prior.sd > 0, rng.normal(size=theta.shape), 0.0)
        change = (logs(theta + STEP * way) - logs(theta - STEP * way)) / (2 * STEP)
        found = np.einsum("trp,tp->tr", slopes, np.broadcast_to(way, (len(slopes), way.shape[1])))
        assert np.allclose(found, change, rtol=1e-4, atol=1e-6)


def test_a_scene_of_more_runs_has_terms_that_only_the_prior_knows() -> None:
    """Runs of one size, in a scene of two: alpha stays at its prior, errors and all."""
    both = transfer_losses(grid(sizes=2, mixtures=6))
    small = both.take(both.n_params == both.n_params.min())
    law, settings = resolve("transfer"), Settings(strict=False)
    found = law.fit(small, seed=0, settings=settings, scene=Scene.of(both))
    names = [item.name for item in law.parameters(found.scene, 0)]
    alpha = names.index("alpha")
    prior = law.prior(found.scene)
    assert found.theta_sd[:, alpha] == pytest.approx(prior.sd[:, alpha], rel=0.2)
    alone = law.fit(small, seed=0, settings=settings)
    assert "alpha" not in [item.name for item in law.parameters(alone.scene, 0)]
    # At the size that was run both say the same of it.
    at = (small.ratios, small.n_params, small.n_tokens)
    assert found.predict(*at) == pytest.approx(alone.predict(*at), rel=2e-2)
    assert found.predict(*at) == pytest.approx(small.losses, rel=2e-2)
