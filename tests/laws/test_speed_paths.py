"""The fast paths give what the plain ones give."""

from __future__ import annotations

import numpy as np
import pytest
from law_tables import theta_of
from test_formulas import COUPLED, scenes

from olmo_mixlaw.laws.coupled import CoupledLaw
from olmo_mixlaw.laws.fitting import resolve


@pytest.mark.parametrize("name", COUPLED)
def test_pooled_and_dense_normal_equations_agree(name: str) -> None:
    law = resolve(name)
    assert isinstance(law, CoupledLaw)
    rng = np.random.default_rng(0)
    for scene, inputs in scenes():
        theta = np.concatenate([theta_of(law, scene, seed=s) for s in (3, 4)])
        loss, slopes = law.evaluate_pooled(theta, inputs, scene, True)
        same, dense = law.evaluate(theta, inputs, scene, True)
        assert slopes is not None
        assert dense is not None
        np.testing.assert_array_equal(loss, same)
        pull, stiffness = rng.normal(size=(2, loss[0].size)), rng.uniform(size=(2, loss[0].size))
        gradient, matrix = slopes.normal(pull, stiffness)
        flat = dense.reshape(2, -1, theta.shape[1])
        np.testing.assert_allclose(gradient, np.einsum("mr,mrp->mp", pull, flat), atol=1e-10)
        np.testing.assert_allclose(
            matrix, np.einsum("mr,mrp,mrq->mpq", stiffness, flat, flat), atol=1e-10
        )
