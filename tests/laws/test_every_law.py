"""What holds of every law, those of packages too: fit, file, parameters, comparison, optimum."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from law_tables import grid, transfer_losses, with_losses

from olmo_mixlaw import registry
from olmo_mixlaw.advice import near_optimal, optimum
from olmo_mixlaw.advice.schedule import FromLaw
from olmo_mixlaw.errors import ConfigError, FitError, UnknownNameError
from olmo_mixlaw.laws import Fit, Law, Settings, compare, fit
from olmo_mixlaw.laws.choice.uncertainty import bootstrap, predicted_interval
from olmo_mixlaw.laws.learners.stack import Stack
from olmo_mixlaw.mixture import RunLength
from olmo_mixlaw.runs import Design

LOOSE = Settings(strict=False)
SCALE = (8e7, 1e9)


class Nearest(Law):
    """The losses of the nearest mixture: a law as a package may bring it, with two methods."""

    name = "the nearest run"

    def fit(self, design: Design, *, seed: int, settings: Settings) -> Fit:
        state = {"ratios": design.ratios, "losses": design.losses}
        noise = np.full(len(design.targets), 0.05)
        return Fit.learnt(self, design, state=state, noise=noise, seed=seed, settings=settings)

    def predict(self, fit: Fit, inputs):  # type: ignore[no-untyped-def]
        gap = np.abs(inputs.ratios[:, None] - fit.state["ratios"]).sum(2)
        return fit.state["losses"][gap.argmin(1)]


# Laws are known before tests are collected; a package's stands among them.
NAMES = [*registry.LAWS.names(), "nearest", "kriging:two_pool", "kriging:nearest"]


@pytest.fixture(autouse=True)
def package() -> Iterator[None]:
    registry.LAWS.add("nearest", Nearest)
    yield
    del registry.LAWS._local["nearest"]


@pytest.fixture(autouse=True)
def fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """A law without a gradient is searched by draws; these tests need no fine search."""
    import sys

    monkeypatch.setattr(sys.modules["olmo_mixlaw.advice.optimum"], "DRAWS", 3000)


def table() -> Design:
    """Three sizes; the losses of one target fall into two groups, as `regimes` wants it."""
    design = transfer_losses(grid(sizes=3, mixtures=24), noise=0.004)
    losses = design.losses.copy()
    losses[:, 3] *= np.where(design.ratios[:, 3] > 0.2, 0.3, 1.0)
    return with_losses(design, losses)


_FITS: dict[str, Fit] = {}


def fitted(name: str) -> Fit:
    if name not in _FITS:
        _FITS[name] = fit(name, table(), settings=LOOSE)
    return _FITS[name]


@pytest.mark.parametrize("name", NAMES)
def test_every_law_survives_its_file(name: str, tmp_path: Path) -> None:
    first = fitted(name)
    path = first.save(tmp_path / "fit.json")
    again = Fit.load(path)
    assert json.loads(path.read_text())["law"]["name"] == name.partition(":")[0]
    design = table()
    rows = (design.ratios, design.n_params, design.n_tokens)
    np.testing.assert_allclose(first.predict(*rows), again.predict(*rows), rtol=1e-12)
    assert again.law == first.law
    assert again.size == first.size
    assert again.data_hash == first.data_hash
    assert again.n_parameters == first.n_parameters > 0
    assert repr(again) == repr(first)
    assert len(repr(first)) < 200


@pytest.mark.parametrize("name", NAMES)
def test_every_law_shows_its_parameters(name: str) -> None:
    shown = fitted(name).parameters
    assert list(shown) == ["target", "parameter", "value", "low", "high", "unit", "fixed"]
    assert shown["fixed"].dtype == bool
    free = shown[~shown["fixed"]]
    assert np.isfinite(free["value"].to_numpy(float)).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(3))
def test_every_law_obeys_every_limit_of_the_optimum(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    law = fitted(name)
    names = law.domains
    low = rng.uniform(0, 0.2, 4)
    high = low + rng.uniform(0.15, 0.5, 4)
    tokens = high * SCALE[1] * rng.uniform(0.6, 1.2, 4)
    limits = {
        "lower": dict(zip(names, low, strict=True)),
        "upper": dict(zip(names, high, strict=True)),
        "available_tokens": dict(zip(names, tokens / 2, strict=True)),
        "max_epochs": 2.0,
    }
    best = optimum(law, *SCALE, starts=4, **limits)
    most = np.minimum(high, tokens / SCALE[1])
    assert best.ratios.sum() == pytest.approx(1)
    assert (best.ratios >= low - 1e-6).all()
    assert (best.ratios <= most + 1e-6).all()
    assert np.isfinite(best.losses).all()
    ranges = near_optimal(law, best, 0.05, draws=64, **limits)
    assert (ranges["low"] >= low - 1e-6).all()
    assert (ranges["high"] <= most + 1e-6).all()
    assert (ranges["low"] <= ranges["high"]).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_schedule_from_every_law_obeys_its_options(name: str, tmp_path: Path) -> None:
    law = fitted(name)
    path = law.save(tmp_path / "fit.json")
    options = {"lower": {"web": 0.3}, "upper": {"math": 0.1}}
    schedule = FromLaw(
        tuple(law.domains), "run", fit=str(path), n_params=80_000_000, options=options
    )
    ratios = schedule.ratios(RunLength(1000, 1000, 1000))
    assert ratios["web"] >= 0.3 - 1e-6
    assert ratios["math"] <= 0.1 + 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kl": "1e-2"}, r"run\.options\.kl: expected a number such as .*found '1e-2'"),
        ({"available_tokens": {"web": "2e9"}}, r"run\.options\.available_tokens\.web: expected"),
        ({"kl": -1.0}, "run: kl: must be finite and not negative"),
        ({"prior": {"web": 1.0}, "kl": 1.0}, "run: prior: domain 'code' is missing"),
    ],
)
def test_options_of_a_schedule_are_numbers_within_range(
    options: dict, message: str, tmp_path: Path
) -> None:
    law = fitted("transfer")
    path = law.save(tmp_path / "fit.json")
    schedule = FromLaw(
        tuple(law.domains), "run", fit=str(path), n_params=80_000_000, options=options
    )
    with pytest.raises(ConfigError, match=message):
        schedule.ratios(RunLength(1000, 1000, 1000))


@pytest.mark.parametrize("name", NAMES)
def test_every_law_is_pulled_towards_a_prior(name: str) -> None:
    prior = dict(zip(fitted(name).domains, [0.1, 0.2, 0.3, 0.4], strict=True))
    far, near = (
        np.abs(
            optimum(fitted(name), *SCALE, prior=prior, kl=kl, starts=4).ratios
            - [0.1, 0.2, 0.3, 0.4]
        ).sum()
        for kl in (0.0, 100.0)
    )
    assert near <= max(0.2, far)
    assert near < 0.2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("limit", ["lower", "upper", "prior", "available_tokens", "target_weights"])
def test_every_law_refuses_a_misspelt_name(name: str, limit: str) -> None:
    with pytest.raises(UnknownNameError, match="wep"):
        optimum(fitted(name), *SCALE, **{limit: {"wep": 0.1}})


@pytest.mark.parametrize("name", NAMES)
def test_every_law_refuses_bounds_that_no_mixture_meets(name: str) -> None:
    with pytest.raises(ConfigError, match="no mixture meets the bounds"):
        optimum(fitted(name), *SCALE, upper=0.2)


@pytest.mark.parametrize("name", NAMES)
def test_every_law_has_intervals_and_refits(name: str) -> None:
    design = table()
    rows = (design.ratios, design.n_params, design.n_tokens)
    low, high = predicted_interval(fitted(name), *rows)
    assert (low < high).all()
    drawn = list(bootstrap(fitted(name), design, replicates=2)) if name != "stack" else []
    assert all(np.isfinite(other.predict(*rows)).all() for other in drawn)


@pytest.mark.parametrize("name", NAMES)
def test_a_surface_with_its_steps_is_the_fit_where_no_run_was(name: str) -> None:
    law = fitted(name)
    ratios = np.random.default_rng(4).dirichlet(np.full(4, 3.0), 5)
    at = law.law.surface(law, *SCALE)
    losses = law.law.with_steps(law, at(ratios, False)[0], law.scene.inputs(ratios, *SCALE))
    np.testing.assert_allclose(losses, law.predict(ratios, *SCALE), rtol=1e-9)
    if law.has_gradient:
        assert at(ratios, True)[1].shape == (5, 4, 4)
    else:
        with pytest.raises(FitError, match="no slope"):
            at(ratios, True)


def test_a_law_that_says_nothing_of_its_size_wins_no_tie() -> None:
    design = table()
    result = compare(design, ["no_mixture", "nearest"], folds=3)
    counts = result.frame.set_index("law")["n_parameters"]
    assert counts["nearest"].min() >= design.ratios.size + design.losses.size


def test_a_law_that_cannot_be_fitted_whole_wins_no_tie(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folds can be fitted, the whole table can't: it is scored and never the simplest."""
    design, plain = table(), Nearest.fit

    def fragile(self: Nearest, some: Design, *, seed: int, settings: Settings) -> Fit:
        if len(some) == len(design):
            raise FitError("too many runs")
        return plain(self, some, seed=seed, settings=settings)

    monkeypatch.setattr(Nearest, "fit", fragile)
    result = compare(design, ["no_mixture", "nearest"], folds=3, splits=["held_mixtures"])
    assert result.frame.set_index("law")["n_parameters"].isna()["nearest"]
    assert "<NA>" in result.text()


def test_a_stack_takes_any_member_and_keeps_its_optimum() -> None:
    for members in (("nearest", "transfer"), ("nearest",)):
        stacked = fit(Stack(members=members), table(), settings=LOOSE)
        assert stacked.has_gradient == ("transfer" in stacked.state["fits"])
        best = optimum(stacked, *SCALE, upper=0.4)
        assert best.ratios.max() <= 0.4 + 1e-6
        np.testing.assert_allclose(best.losses, stacked.predict(best.ratios, *SCALE)[0], rtol=1e-9)


def test_laws_are_compared_under_the_names_that_were_asked_for() -> None:
    design = table()
    result = compare(design, ["nearest", "kriging:transfer", "kriging"], folds=3)
    assert set(result.frame["law"]) == {"nearest", "kriging:transfer", "kriging"}
    assert result.choice in result.held
    fit(result.choice, design)
    with pytest.raises(ConfigError, match="'nearest' is to be compared twice"):
        compare(design, ["nearest", "nearest"])


def test_a_law_that_stands_on_none_says_so() -> None:
    with pytest.raises(ConfigError, match="'transfer' stands on no other law"):
        fit("transfer:kriging", table())
    with pytest.raises(UnknownNameError, match="did you mean 'two_pool'"):
        fit("kriging:two_pol", table())


def test_a_law_of_no_registry_is_not_saved(tmp_path: Path) -> None:
    class Unknown(Nearest):
        pass

    with pytest.raises(FitError, match="Unknown is in no registry"):
        fit(Unknown(), table()).save(tmp_path / "fit.json")
    assert not list(tmp_path.iterdir())
