"""Schedules: the ratios they give, their units, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from olmo_mixlaw.errors import ConfigError, UnknownNameError
from olmo_mixlaw.mixture.config import MixtureConfig, build_schedule, resolve
from olmo_mixlaw.mixture.schedule import Knot, Pieces, RunLength, ScheduleConfig

LABELS = ("bio", "web")
RUN = RunLength(n_steps=1000, batch_size=16, sequence_length=128)
RISING = [Knot(0, {"bio": 0.1, "web": 0.9}), Knot(0.5, {"bio": 0.5, "web": 0.5})]


def pieces(run: RunLength = RUN, **schedule: object) -> Pieces:
    config = MixtureConfig(schedule=ScheduleConfig(**schedule))  # type: ignore[arg-type]
    return build_schedule(config, LABELS, "f.yaml: mixture").pieces(run)


def bio(at: Pieces, fraction: float) -> float:
    return float(at.ratios(round(fraction * RUN.n_examples))[0])


def test_stages_hold_until_the_next_one() -> None:
    found = pieces(name="stages", knots=RISING)
    assert [bio(found, x) for x in (0, 0.499, 0.5, 1)] == [0.1, 0.1, 0.5, 0.5]


def test_linear_goes_straight_and_holds_the_last_ratios() -> None:
    found = pieces(name="linear", knots=RISING)
    assert [round(bio(found, x), 6) for x in (0, 0.25, 0.5, 0.9)] == [0.1, 0.3, 0.5, 0.5]


def test_cosine_is_half_way_in_the_middle_and_flat_at_the_ends() -> None:
    found = pieces(name="cosine", knots=RISING)
    assert bio(found, 0.25) == pytest.approx(0.3, abs=1e-4)
    assert bio(found, 0.02) - 0.1 < 0.002
    for x in np.linspace(0, 0.5, 37):
        exact = 0.1 + 0.4 * (1 - np.cos(np.pi * x / 0.5)) / 2
        assert bio(found, x) == pytest.approx(exact, abs=4e-4)


@pytest.mark.parametrize("rate", [5.0, -5.0, 0.5])
def test_exponential_follows_its_rate(rate: float) -> None:
    found = pieces(name="exponential", knots=RISING, options={"rate": rate})
    for x in np.linspace(0, 0.5, 37):
        exact = 0.1 + 0.4 * np.expm1(-rate * x / 0.5) / np.expm1(-rate)
        assert bio(found, x) == pytest.approx(exact, abs=1e-3)


@pytest.mark.parametrize(
    ("units", "at"), [("fraction", 0.5), ("steps", 500), ("tokens", 500 * 16 * 128)]
)
def test_knots_mean_the_same_in_every_unit(units: str, at: float) -> None:
    knots = [RISING[0], Knot(at, RISING[1].ratios)]
    assert pieces(name="stages", units=units, knots=knots).borders == (0, 8000, 16000)


def test_a_step_function_is_read_from_csv(tmp_path: Path) -> None:
    path = tmp_path / "ratios.csv"
    path.write_text("at,web,bio\n0,0.9,0.1\n100,0.5,0.5\n900,0,1\n")
    found = pieces(name="csv", units="steps", file=str(path))
    assert found.borders == (0, 1600, 14400, 16000)
    assert found.first[:, 0].tolist() == [0.1, 0.5, 1.0]


def test_a_law_gives_the_ratios_of_its_optimum(tmp_path: Path) -> None:
    fit, run = _fitted(tmp_path)
    config = MixtureConfig(schedule=ScheduleConfig(name="from_law", fit=str(fit)))
    found = build_schedule(config, LABELS, "f.yaml: mixture", n_params=98_000).pieces(run)
    from olmo_mixlaw.advice import optimum
    from olmo_mixlaw.laws import Fit

    best = optimum(Fit.load(fit), 98_000.0, float(run.n_tokens)).mixture()
    assert found.is_constant
    assert found.first[0].tolist() == pytest.approx([best["bio"], best["web"]])
    with pytest.raises(ConfigError, match="has no source 'web'"):
        build_schedule(config, ("bio", "code"), "f.yaml: mixture").pieces(run)


def test_a_law_keeps_the_limits_and_names_the_section_in_its_refusals(tmp_path: Path) -> None:
    path, run = _fitted(tmp_path)

    def found(**options: object) -> Pieces:
        plan = ScheduleConfig(name="from_law", fit=str(path), options=options)
        config = MixtureConfig(schedule=plan)
        return build_schedule(config, LABELS, "f.yaml: mixture", n_params=98_000).pieces(run)

    assert found(upper={"bio": 0.2}).first[0, 0] <= 0.2 + 1e-6
    assert (
        found(available_tokens={"web": 2e5}, max_epochs=2).first[0, 1] <= 4e5 / run.n_tokens + 1e-6
    )
    for options in ({"lower": {"bios": 0.1}}, {"lower": 0.9}):
        with pytest.raises(ConfigError) as error:
            found(**options)
        assert str(error.value).startswith("f.yaml: mixture.schedule: ")


def _fitted(folder: Path) -> tuple[Path, RunLength]:
    """A law fitted to losses with a best share of biographies between 0 and 1."""
    import pandas as pd

    from olmo_mixlaw.laws import fit
    from olmo_mixlaw.runs import RunTable

    rows = []
    for i, share in enumerate(np.linspace(0.05, 0.95, 12)):
        for size in (6_000, 25_000, 98_000):
            for domain, own in (("bio", share), ("web", 1 - share)):
                loss = 1.5 + 0.4 * own**-0.4 + 300 / size
                rows.append(
                    {
                        "run_id": f"{i}-{size}",
                        "n_params": size,
                        "n_tokens": 2e6,
                        "w_bio": share,
                        "w_web": 1 - share,
                        "domain": domain,
                        "loss": loss,
                    }
                )
    fitted = fit("additive", RunTable(pd.DataFrame(rows)))
    path = folder / "law.json"
    fitted.save(path)
    return path, RUN


BAD = [
    ({"knots": []}, "knots: is empty"),
    ({"knots": [RISING[1]]}, "the first must be at 0"),
    ({"knots": [*RISING, Knot(0.5, {"web": 1.0})]}, "knots must be in rising order"),
    ({"knots": [RISING[0], Knot(2, {"web": 1.0})]}, "beyond 1, the end of the run"),
    ({"knots": [Knot(0, {"bio": 0.5, "web": 0.4})]}, "knots.0.ratios: the ratios sum to 0.9"),
    ({"knots": [Knot(0, {"bio": -0.5, "web": 1.5})]}, "bio: -0.5 is negative"),
    ({"knots": [Knot(0, {"bio": float("nan"), "web": 1})]}, "bio: nan is not a number"),
    ({"knots": [Knot(0, {"bios": 1.0})]}, "unknown source 'bios'; did you mean 'bio'?"),
    ({"knots": RISING, "units": "epochs"}, "unknown unit 'epochs'"),
    ({"name": "linaer", "knots": RISING}, "unknown schedule 'linaer'; did you mean 'linear'?"),
    ({"name": "linear", "knots": RISING, "options": {"rate": 1}}, "unknown option 'rate'"),
    ({"name": "exponential", "knots": RISING, "options": {"rate": 0}}, "accepted are -100 to 100"),
    ({"name": "csv"}, "schedule.file: is missing"),
    ({"name": "csv", "file": "none.csv"}, "none.csv: no such file"),
    ({"name": "from_law"}, "schedule.fit: is missing"),
    ({"name": "from_law", "fit": "none.json"}, "none.json: no such file"),
    ({"name": "constant"}, "constant ratios are given as"),
]


@pytest.mark.parametrize(("schedule", "message"), BAD)
def test_a_wrong_schedule_is_refused_with_file_and_key(schedule: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        pieces(**schedule)
    assert message in str(error.value)
    assert str(error.value).startswith("f.yaml: mixture")
    assert "\n" not in str(error.value)


def test_a_csv_with_a_wrong_column_or_cell_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ratios.csv"
    path.write_text("at,webb\n0,1\n")
    with pytest.raises(UnknownNameError, match="unknown source 'webb'; did you mean 'web'"):
        pieces(name="csv", file=str(path))
    path.write_text("at,web\n0,1\n0.5,x\n")
    with pytest.raises(ConfigError, match=r"ratios.csv: line 3: not a number"):
        pieces(name="csv", file=str(path))
    path.write_text("step,web\n0,1\n")
    with pytest.raises(ConfigError, match="column 'at' is missing"):
        pieces(name="csv", file=str(path))


def test_ratios_and_schedule_exclude_each_other() -> None:
    for config in (
        MixtureConfig(),
        MixtureConfig(ratios={"web": 1.0}, schedule=ScheduleConfig(knots=RISING)),
    ):
        with pytest.raises(ConfigError, match="needs either ratios or schedule"):
            build_schedule(config, LABELS)


def test_a_mixture_in_a_file_of_its_own_can_be_added_to(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("ratios: {web: 0.5, bio: 0.5}\n")
    config, where = resolve(MixtureConfig(file=str(path), seed=3), "f.yaml: mixture")
    assert (config.ratios, config.seed, where) == ({"web": 0.5, "bio": 0.5}, 3, str(path))
    both = MixtureConfig(file=str(path), ratios={"web": 1.0})
    with pytest.raises(ConfigError, match="ratios: is also set in"):
        resolve(both, "f.yaml: mixture")


def test_repetition_limits_are_read_by_policy() -> None:
    assert MixtureConfig().limit("web") is None
    assert MixtureConfig(max_epochs=4).limit("web") == 4
    assert MixtureConfig(repetition="refuse").limit("web") == 1
    assert MixtureConfig(max_epochs=4, source_epochs={"web": 2}).limit("web") == 2
    with pytest.raises(ConfigError, match="repeat sets no limit"):
        build_schedule(
            MixtureConfig(ratios={"web": 1.0}, repetition="repeat", max_epochs=2), LABELS
        )
