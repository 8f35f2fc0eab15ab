"""Every schedule, ours or a package's, takes its own keys and options and refuses the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from olmo_mixlaw.errors import ConfigError, UnknownNameError
from olmo_mixlaw.mixture.config import MixtureConfig, build_schedule
from olmo_mixlaw.mixture.schedule import (
    KEYS,
    Constant,
    Knot,
    Linear,
    Pieces,
    RunLength,
    Schedule,
    ScheduleConfig,
)
from olmo_mixlaw.registry import SCHEDULES

LABELS = ("bio", "web")
RUN = RunLength(n_steps=1000, batch_size=16, sequence_length=128)
PLACE = "f.yaml: mixture.schedule"
KNOTS = [Knot(0, {"bio": 0.1, "web": 0.9}), Knot(1, {"bio": 0.5, "web": 0.5})]
# A value other than the default for every key that a schedule may have no use for.
GIVEN: dict[str, Any] = {"units": "steps", "knots": KNOTS, "file": "a.csv", "fit": "a.json"}


@dataclass(frozen=True)
class Power(Linear):
    """Knotted, with an option of its own."""

    exponent: float = 2.0
    n_lines = 32

    def curve(self, t: Any) -> Any:
        return t**self.exponent


@dataclass(frozen=True)
class BySize(Schedule):
    """Not knotted; asks for the size of the model."""

    share: float = 0.5
    n_params: int | None = None

    def pieces(self, run: RunLength) -> Pieces:
        share = self.share if self.n_params is None else 1 / self.n_params
        ratios = {self.labels[0]: share, self.labels[1]: 1 - share}
        return Constant(self.labels, self.where, ratios).pieces(run)


@dataclass(frozen=True, kw_only=True)
class Needing(BySize):
    """Has an option without a default."""

    top: float


class Bare(Schedule):
    """No dataclass and no field of its own."""

    def pieces(self, run: RunLength) -> Pieces:
        return Constant(self.labels, self.where, {self.labels[0]: 1.0}).pieces(run)


def ramp(fraction: float, labels: list[str], top: float = 1.0) -> dict[str, float]:
    return {labels[0]: top * fraction, labels[1]: 1 - top * fraction}


def needing(fraction: float, labels: list[str], top: float) -> dict[str, float]:
    return ramp(fraction, labels, top)


def open_ended(fraction: float, labels: list[str], **options: float) -> dict[str, float]:
    return ramp(fraction, labels, options.get("units", 1.0))


PACKAGED = {
    "power": Power,
    "by_size": BySize,
    "needing_class": Needing,
    "bare": Bare,
    "ramp": ramp,
    "needing_function": needing,
    "open_ended": open_ended,
}
KNOTTED: dict[str, Any] = {"knots": KNOTS, "units": "fraction"}
# What each schedule is built from: every key that it uses, and all the options that it must have.
SECTIONS: dict[str, dict[str, Any]] = {
    "stages": KNOTTED,
    "linear": KNOTTED,
    "cosine": KNOTTED,
    "exponential": KNOTTED,
    "csv": {"file": "ratios.csv", "units": "fraction"},
    "from_law": {"fit": "law.json"},
    "power": KNOTTED,
    "by_size": {},
    "needing_class": {"options": {"top": 0.5}},
    "bare": {},
    "ramp": {},
    "needing_function": {"options": {"top": 0.5}},
    "open_ended": {},
}
OPTIONS = {
    "exponential": ["rate"],
    "power": ["exponent"],
    "by_size": ["share"],
    "needing_class": ["share", "top"],
    "ramp": ["top"],
    "needing_function": ["top"],
    "from_law": ["kl", "lower", "max_epochs", "prior", "target_weights", "upper"],
}


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SCHEDULES, "_local", {**SCHEDULES._local, **PACKAGED})


def build(name: str, n_params: int | None = None, **section: Any) -> Schedule:
    config = MixtureConfig(schedule=ScheduleConfig(name, **section))
    return build_schedule(config, LABELS, "f.yaml: mixture", n_params=n_params)


def test_every_schedule_is_tried_here() -> None:
    assert {*SECTIONS, "constant"} >= set(SCHEDULES._builtin)
    assert set(PACKAGED) <= set(SECTIONS)


@pytest.mark.parametrize("name", SECTIONS)
def test_a_schedule_is_built_from_its_own_keys(name: str) -> None:
    found = build(name, **SECTIONS[name])
    assert isinstance(found, Schedule)
    assert found.labels == LABELS
    assert found.where == PLACE


@pytest.mark.parametrize("name", SECTIONS)
@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_a_schedule_has_no_use_for_is_refused(name: str, key: str) -> None:
    if key in SECTIONS[name]:
        return
    with pytest.raises(ConfigError) as error:
        build(name, **{**SECTIONS[name], key: GIVEN[key]})
    assert str(error.value) == f"{PLACE}.{key}: the schedule {name} has no use for it"


@pytest.mark.parametrize("name", sorted(set(SECTIONS) - {"open_ended"}))
def test_an_unknown_option_is_refused_with_the_accepted_ones(name: str) -> None:
    section = SECTIONS[name]
    options = {**section.get("options", {}), "unheard_of": 1}
    with pytest.raises(UnknownNameError, match="unknown option 'unheard_of'") as error:
        build(name, **{**section, "options": options}).pieces(RUN)
    assert str(error.value).startswith(f"{PLACE}.options: ")
    for accepted in OPTIONS.get(name, ["none"]):
        assert accepted in str(error.value).partition("known: ")[2]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("csv", "file"),
        ("from_law", "fit"),
        ("needing_class", "options.top"),
        ("needing_function", "options.top"),
    ],
)
def test_what_a_schedule_needs_is_asked_for(name: str, key: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(name)
    assert str(error.value) == f"{PLACE}.{key}: is missing; the schedule {name} needs it"


@pytest.mark.parametrize(
    ("name", "option"),
    [("exponential", "rate"), ("power", "exponent"), ("by_size", "share"), ("ramp", "top")],
)
def test_a_number_must_be_one(name: str, option: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(name, **{**SECTIONS[name], "options": {option: "fast"}})
    assert str(error.value) == f"{PLACE}.options.{option}: 'fast' is not a number"


def test_options_reach_the_schedule_that_has_them() -> None:
    cubic = build("power", **KNOTTED, options={"exponent": 3.0}).pieces(RUN)
    assert cubic.ratios(RUN.n_examples // 2)[0] == pytest.approx(0.1 + 0.4 / 8, abs=1e-3)
    half = build("ramp", options={"top": 0.5}).pieces(RUN)
    assert half.ratios(RUN.n_examples // 2)[0] == pytest.approx(0.25, abs=1e-6)
    # The name of a key of the section is an option like another one to a function.
    tenth = build("open_ended", options={"units": 0.1}).pieces(RUN)
    assert tenth.ratios(RUN.n_examples // 2)[0] == pytest.approx(0.05, abs=1e-6)


def test_the_size_of_the_model_reaches_the_schedule_that_asks_for_it() -> None:
    assert build("by_size", n_params=4).pieces(RUN).first[0].tolist() == [0.25, 0.75]
    assert build("by_size").pieces(RUN).first[0].tolist() == [0.5, 0.5]
