"""The best mixture: found, within its bounds, and honest about how far it reaches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from law_tables import grid, transfer_losses

from olmo_mixlaw.advice import near_optimal, optimum
from olmo_mixlaw.advice.optimum import hull_distance, optimum_path
from olmo_mixlaw.errors import ConfigError, FitError, UnknownNameError
from olmo_mixlaw.laws import Fit, fit
from olmo_mixlaw.laws.choice.uncertainty import bootstrap


@pytest.fixture(scope="module")
def fitted() -> Fit:
    return fit("transfer", transfer_losses(grid(sizes=3, mixtures=10), noise=0.002))


def test_no_sampled_mixture_is_better(fitted: Fit) -> None:
    best = optimum(fitted, 1e8, 1e9, target_weights={"web": 3, "code": 1})
    draws = np.random.default_rng(0).dirichlet(np.ones(4), 20_000)
    weights = np.array([0.75, 0.25, 0, 0])
    assert best.objective <= (fitted.predict(draws, 1e8, 1e9) @ weights).min() + 1e-9
    assert best.ratios.sum() == pytest.approx(1)


def test_bounds_hold(fitted: Fit) -> None:
    best = optimum(fitted, 1e8, 1e9, lower={"math": 0.4}, upper={"web": 0.1})
    ratios = dict(zip(best.domains, best.ratios, strict=True))
    assert ratios["math"] >= 0.4 - 1e-9
    assert ratios["web"] <= 0.1 + 1e-9


def test_repetition_caps_hold(fitted: Fit) -> None:
    best = optimum(fitted, 1e8, 1e9, available_tokens={"code": 2e7}, max_epochs=2)
    assert dict(zip(best.domains, best.ratios, strict=True))["code"] <= 0.04 + 1e-9


def test_a_pull_moves_towards_the_prior(fitted: Fit) -> None:
    prior = {"web": 0.7, "code": 0.1, "wiki": 0.1, "math": 0.1}
    target = np.array(list(prior.values()))
    free, pulled = (optimum(fitted, 1e8, 1e9, prior=prior, kl=kl) for kl in (0.0, 1.0))
    assert np.abs(pulled.ratios - target).sum() < 0.2 * np.abs(free.ratios - target).sum()


def test_equal_exponents_make_the_optimum_independent_of_size(fitted: Fit) -> None:
    path = optimum_path(replace(fitted, level=None), [(1e7, 1e9), (1e10, 1e9)])
    np.testing.assert_allclose(
        path.loc[0, fitted.domains].to_numpy(float),
        path.loc[1, fitted.domains].to_numpy(float),
        atol=1e-4,
    )


def test_reaching_far_is_said(fitted: Fit) -> None:
    best = optimum(fitted, 1e12, 1e9, lower={"web": 0.999})
    assert any("outside every blend" in note for note in best.warnings)
    assert any("n_params" in note for note in best.warnings)
    assert not optimum(fitted, 1.6e8, 1e9).warnings


def test_a_flat_objective_has_wide_ranges(fitted: Fit) -> None:
    best = optimum(fitted, 1e8, 1e9)
    tight, wide = (near_optimal(fitted, best, t) for t in (1e-4, 3e-2))
    assert ((wide["high"] - wide["low"]) > (tight["high"] - tight["low"])).all()
    assert (tight["low"] <= tight["best"]).all()


def test_sampling_finds_nearly_the_same(fitted: Fit) -> None:
    exact, sampled = optimum(fitted, 1e8, 1e9), optimum(fitted, 1e8, 1e9, draws=20_000)
    assert exact.objective <= sampled.objective <= exact.objective + 0.01


def test_the_yaml_sums_to_one(fitted: Fit) -> None:
    import yaml

    best = optimum(fitted, 1e8, 1e9)
    ratios = yaml.safe_load(best.to_yaml())["mixture"]["ratios"]
    assert sum(ratios.values()) == pytest.approx(1.0, abs=1e-12)
    assert list(ratios) == fitted.domains


def test_hull_distance_of_a_blend_is_zero() -> None:
    mixtures = np.array([[1.0, 0, 0], [0, 1, 0]])
    assert hull_distance(np.array([0.3, 0.7, 0]), mixtures) == pytest.approx(0, abs=1e-5)
    assert hull_distance(np.array([0.0, 0, 1]), mixtures) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"lower": {"web": 0.6, "code": 0.6}}, "no mixture meets the bounds"),
        ({"upper": 0.1}, "no mixture meets the bounds"),
        ({"lower": {"web": 0.5}, "upper": {"web": 0.2}}, "bounds of domain 'web'"),
        ({"target_weights": {"web": -1}}, "must not be negative"),
    ],
)
def test_bounds_that_no_mixture_meets_are_refused(
    fitted: Fit, settings_: dict, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        optimum(fitted, 1e8, 1e9, **settings_)


def test_unknown_names_are_refused(fitted: Fit) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'web'"):
        optimum(fitted, 1e8, 1e9, lower={"wep": 0.1})
    with pytest.raises(UnknownNameError, match="target"):
        optimum(fitted, 1e8, 1e9, target_weights={"coda": 1})


def test_a_size_is_needed(fitted: Fit) -> None:
    with pytest.raises(FitError, match="n_params is needed"):
        optimum(fitted)


def test_the_predicted_loss_is_without_the_pull(fitted: Fit) -> None:
    best = optimum(fitted, 1e8, 1e9, kl=0.5)
    assert best.value == pytest.approx(fitted.predict(best.ratios, 1e8, 1e9).mean())
    middle = fitted.mixtures.mean(0)
    pull = 0.5 * float((best.ratios * np.log(best.ratios / middle)).sum())
    assert best.objective == pytest.approx(best.value + pull)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"kl": -0.1}, "kl: must be finite and not negative, found -0.1"),
        ({"kl": float("nan")}, "kl: must be finite and not negative, found nan"),
        ({"kl": 1, "prior": {"web": 1.0}}, "prior: domain 'code' is missing"),
        ({"prior": dict.fromkeys(("web", "code", "wiki", "math"), 0)}, "not all 0"),
        ({"target_weights": {"web": float("nan")}}, "weights must be finite"),
        ({"available_tokens": {"web": float("nan")}}, "available tokens: must be numbers"),
        ({"available_tokens": {"web": 1e9}, "max_epochs": 0}, "max_epochs: must be positive"),
        ({"available_tokens": {"web": 1e9}, "max_epochs": float("nan")}, "max_epochs: must be"),
        ({"cap_tokens": 1e9}, "cap_tokens: needs available_tokens"),
        ({"available_tokens": {"web": 1e9}, "cap_tokens": -1}, "a budget of -1 tokens"),
    ],
)
def test_limits_out_of_range_are_refused(fitted: Fit, settings_: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        optimum(fitted, 1e8, 1e9, **settings_)


def test_caps_count_for_the_run_that_the_mixture_is_for() -> None:
    """A swarm of one budget can't speak of another, but its mixture goes to a longer run."""
    table = transfer_losses(grid(sizes=1, mixtures=12), noise=0.002)
    swarm = fit("transfer", table, level=False)
    limits = {"available_tokens": {"web": 1e9}, "max_epochs": 2.0}
    with pytest.raises(FitError, match="one n_tokens only"):
        optimum(swarm, 1e7, 2e10, **limits)
    best = optimum(swarm, 1e7, 1e9, cap_tokens=2e10, **limits)
    assert best.ratios[best.domains.index("web")] <= 0.1 + 1e-9
    free = optimum(swarm, 1e7, 1e9, **limits)
    assert free.ratios[free.domains.index("web")] > 0.2


def test_a_fit_that_cant_tell_mixtures_apart_says_so_first(fitted: Fit) -> None:
    plain = fit("no_mixture", transfer_losses(grid(sizes=3, mixtures=6)))
    best = optimum(plain, 1e8, 1e9)
    assert best.no_answer.startswith("NO ANSWER: no_mixture knows no mixture")
    assert best.to_yaml().startswith("# NO ANSWER")
    poor = replace(fitted, provenance=fitted.provenance | {"mixture_r2": -0.43})
    assert "explains less than their mean does (R2 -0.43)" in optimum(poor, 1e8, 1e9).no_answer
    assert not optimum(fitted, 1e8, 1e9).no_answer


def test_a_fit_without_sizes_or_budgets_speaks_of_none() -> None:
    design = transfer_losses(grid(sizes=1, mixtures=12), noise=0.002)
    none = np.full(len(design), np.nan)
    bare = fit("transfer", replace(design, n_params=none, n_active=none, n_tokens=none))
    assert optimum(bare).ratios.sum() == pytest.approx(1)
    with pytest.raises(FitError, match="the table has no n_params, so it can't speak of 7e"):
        optimum(bare, 7e9)
    with pytest.raises(FitError, match="the table has no n_tokens, so it can't speak of 1e"):
        bare.predict(np.full(4, 0.25), n_tokens=1e9)
    for bad in (-1.0, 0.0, np.inf):
        with pytest.raises(FitError, match="must be positive"):
            bare.predict(np.full(4, 0.25), n_params=bad)


def test_refits_weigh_in_the_mixture_of_least_expected_loss() -> None:
    design = transfer_losses(grid(sizes=2, mixtures=10), noise=0.02)
    fitted = fit("power_transfer", design)
    refits = list(bootstrap(fitted, design, replicates=8))
    scale = (4e7, 1e9)
    one, many = optimum(fitted, *scale), optimum(fitted, *scale, refits=refits)

    def expected(ratios: np.ndarray) -> float:
        losses = [f.predict(ratios, *scale).mean() for f in (fitted, *refits)]
        return float(np.mean(losses))

    assert expected(many.ratios) < expected(one.ratios) - 1e-6
    # What is reported is the fit's own prediction of that mixture.
    np.testing.assert_allclose(many.losses, fitted.predict(many.ratios, *scale)[0], rtol=1e-9)
    assert many.value > one.value
    same = optimum(fitted, *scale, refits=[fitted])
    np.testing.assert_allclose(same.ratios, one.ratios, atol=1e-4)
