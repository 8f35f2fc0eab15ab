"""Advice on repeats: what a small source is worth, and whether a swarm repeats as its target."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from law_tables import grid, transfer_losses

from olmo_mixlaw.advice import optimum
from olmo_mixlaw.advice.repetition import cuts, matching
from olmo_mixlaw.errors import ConfigError, FitError, UnknownNameError
from olmo_mixlaw.laws import Fit, fit
from olmo_mixlaw.runs import Design

AT = (1.6e8, 4e9)


@pytest.fixture(scope="module")
def design() -> Design:
    return transfer_losses(grid(sizes=3, mixtures=10, budgets=3, domains=3), noise=0.002)


@pytest.fixture(scope="module")
def fitted(design: Design) -> Fit:
    return fit("transfer", design)


def test_the_optimum_leaves_a_source_as_it_shrinks(fitted: Fit) -> None:
    shares, losses = [], []
    for tokens in (1e12, 3e8, 1e8, 3e7, 1e6):
        best = optimum(fitted, *AT, available_tokens={"code": tokens})
        shares.append(best.ratios[best.domains.index("code")])
        losses.append(best.value)
    free = optimum(fitted, *AT)
    assert shares[0] == pytest.approx(free.ratios[1], abs=1e-3)
    assert (np.diff(shares) < 0).all()
    assert (np.diff(losses) > 0).all()
    # It is still worth repeating: no cap of its own.
    assert shares[3] * AT[1] > 4 * 3e7


def test_no_mixture_is_better_than_an_optimum_that_repeats(fitted: Fit) -> None:
    tokens = {"code": 5e7, "web": 1e9}
    best = optimum(fitted, *AT, available_tokens=tokens)
    draws = np.random.default_rng(0).dirichlet(np.ones(3), 4000)
    asked = fitted.predict(draws, *AT, available=tokens).mean(1)
    assert best.value <= asked.min() + 1e-6


def test_a_cap_on_epochs_is_asked_for(fitted: Fit) -> None:
    tokens = {"code": 3e7}
    capped = optimum(fitted, *AT, available_tokens=tokens, max_epochs=2)
    assert capped.epochs is not None
    assert capped.epochs[1] <= 2 + 1e-6
    with pytest.raises(ConfigError, match="max_epochs: needs available_tokens"):
        optimum(fitted, *AT, max_epochs=2)


def test_epochs_are_told_and_those_that_no_run_saw(fitted: Fit, design: Design) -> None:
    best = optimum(fitted, *AT, available_tokens={"code": 3e7})
    assert best.epochs is not None
    np.testing.assert_allclose(best.epochs, [0, best.ratios[1] * AT[1] / 3e7, 0])
    assert any("no run of the table repeats" in note for note in best.warnings)
    assert optimum(fitted, *AT).epochs is None
    seen = replace(design, available=np.full((len(design), 3), 1e8))
    known = fit("transfer", seen)
    few = optimum(known, *AT, available_tokens={"code": 2e9})
    assert not any("run would see" in note for note in few.warnings)
    many = optimum(known, *AT, available_tokens={"code": 1e6}, lower={"code": 0.3})
    assert any("no run of the table saw them so often" in note for note in many.warnings)


def test_a_source_without_tokens_is_left_out(fitted: Fit) -> None:
    best = optimum(fitted, *AT, available_tokens={"code": 0.0})
    assert best.ratios[1] == pytest.approx(0, abs=1e-9)


def test_a_swarm_of_one_budget_answers_for_a_longer_run() -> None:
    swarm = fit("transfer", transfer_losses(grid(sizes=3, mixtures=10, domains=3), noise=0.002))
    long = optimum(swarm, 1e7, 1e9, available_tokens={"code": 2e9}, cap_tokens=2e10)
    here = optimum(swarm, 1e7, 1e9, available_tokens={"code": 1e8})
    np.testing.assert_allclose(long.ratios, here.ratios, atol=1e-6)
    np.testing.assert_allclose(long.epochs, here.epochs, rtol=1e-5)
    unsaid = optimum(swarm, 1e7, available_tokens={"code": 2e9}, cap_tokens=2e10)
    np.testing.assert_allclose(unsaid.ratios, here.ratios, atol=1e-6)


def test_a_swarm_that_never_repeats_is_told_how_to(design: Design) -> None:
    h, tokens = np.array([0.5, 0.3, 0.2]), {"web": 1e12, "code": 3e9, "wiki": 6e9}
    found = matching(design, h, tokens, 1e11)
    assert found.domains == ["web", "code", "wiki"]
    np.testing.assert_allclose(found.target, [0.05, 10, 10 / 3])
    assert found.unmatched == ("code", "wiki")
    # Four billion tokens a run, a twenty-fifth of the target's.
    np.testing.assert_allclose(found.cut, [4e10, 1.2e8, 2.4e8])
    assert "code: the target sees it 10 times" in found.text()
    assert "cut it to 1.2e+08 tokens" in found.text()


def test_a_swarm_cut_so_is_matched(design: Design) -> None:
    h, tokens = np.array([0.5, 0.3, 0.2]), {"web": 1e12, "code": 3e9, "wiki": 6e9}
    one = design.take(design.n_tokens == 4e9)
    one = replace(one, ratios=np.tile(h, (len(one), 1)))
    cut = cuts(np.array([1e12, 3e9, 6e9]), 4e9, 1e11)
    swarm = replace(one, available=np.tile(cut, (len(one), 1)))
    found = matching(swarm, h, tokens, 1e11)
    assert not found.unmatched
    assert "as the target will" in found.text()
    np.testing.assert_allclose(found.swarm, found.target)


def test_matching_needs_budgets_and_known_domains(design: Design) -> None:
    h = np.array([0.5, 0.3, 0.2])
    with pytest.raises(FitError, match="no domain 'cod'"):
        matching(design, h, {"cod": 1e9}, 1e11)
    with pytest.raises(FitError, match="the tokens of the swarm's runs"):
        matching(replace(design, n_tokens=np.full(len(design), np.nan)), h, {"code": 1e9}, 1e11)
    with pytest.raises(FitError, match="ratios of 2 domains"):
        matching(design, h[:2], {"code": 1e9}, 1e11)


def test_unknown_domains_of_an_optimum_are_refused(fitted: Fit) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'code'"):
        optimum(fitted, *AT, available_tokens={"coda": 1e9})
