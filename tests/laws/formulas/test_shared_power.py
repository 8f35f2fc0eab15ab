"""One power a target: what its parameters mean, and which prior a table chooses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from law_tables import grid, losses_of, theta_of, transfer_losses, with_losses

from olmo_mixlaw.laws import Settings, fit
from olmo_mixlaw.laws.formulas.parameters import layout_of
from olmo_mixlaw.laws.formulas.shared_power import WORTH_SPREADS, SharedPower, ShrunkPowers
from olmo_mixlaw.laws.formulas.transfer import PowerTransfer
from olmo_mixlaw.laws.law import Scene
from olmo_mixlaw.runs import Design

LOOSE = Settings(strict=False)


def swarm(worth_sd: float, runs: int = 60, targets: int = 30) -> Design:
    """Runs of one size whose targets are no domains, with worths of this spread."""
    design = grid(sizes=1, mixtures=runs, domains=6)
    names = [f"task{t}" for t in range(targets)]
    design = replace(design, targets=names, losses=np.full((runs, targets), 1.0))
    rng = np.random.default_rng(0)
    worth = np.exp(-1 + worth_sd * rng.normal(size=(targets, 6)))
    share = (design.ratios**0.8) @ worth.T
    losses = 0.5 + 0.5 * share**-0.15
    return with_losses(design, losses * np.exp(0.002 * rng.normal(size=losses.shape)))


def test_powers_all_alike_are_power_transfers() -> None:
    design = grid(sizes=2, mixtures=5, budgets=2)
    scene = Scene.of(with_losses(design, np.full((len(design), 4), 3.0) + design.ratios))
    one, many = SharedPower(spread=1.0), PowerTransfer()
    theta = theta_of(one, scene)
    at, to = layout_of(one, scene).slices, layout_of(many, scene).slices
    wide = np.zeros((len(theta), len(many.parameters(scene, 0))))
    for part in to:
        wide[:, to[part]] = theta[:, at[part]]
    np.testing.assert_allclose(
        losses_of(one, theta, design, scene), losses_of(many, wide, design, scene), rtol=1e-12
    )


def test_sources_bend_the_shared_power() -> None:
    design = grid(sizes=1, mixtures=5)
    scene = Scene.of(with_losses(design, np.full((len(design), 4), 3.0) + design.ratios))
    law = ShrunkPowers(spread=1.0)
    slices = layout_of(law, scene).slices
    theta = theta_of(law, scene)
    theta[:, slices["d"]] = 0.0
    plain = theta[:, : slices["d"].start]
    np.testing.assert_allclose(
        losses_of(law, theta, design, scene),
        losses_of(SharedPower(spread=1.0), plain, design, scene),
        rtol=1e-12,
    )


@pytest.mark.parametrize(("spread", "chosen"), [(0.3, WORTH_SPREADS[0]), (3.0, WORTH_SPREADS[1])])
def test_the_spread_of_worths_is_chosen_by_the_evidence(spread: float, chosen: float) -> None:
    fitted = fit("shared_power", swarm(spread), settings=LOOSE)
    assert fitted.law == SharedPower(spread=chosen)


def test_a_spread_that_is_given_stays() -> None:
    assert fit(SharedPower(spread=0.7), transfer_losses(grid()), settings=LOOSE).law.spread == 0.7
