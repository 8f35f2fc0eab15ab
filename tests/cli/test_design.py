"""`olmo-mixlaw design`: prices, files, what is said, and mistakes that are refused at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from olmo_mixlaw.advice.design.offer import draw_mixtures
from olmo_mixlaw.advice.design.prices import DOLLARS, FLOPS, HOURS, Prices, parse_budget
from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.study.config import load_study
from olmo_mixlaw.study.plan import plan as runs_of_study

Command = Callable[..., int]
LADDER = ("--ladder", "micro-dense", "--rung", "w16", "--rung", "w32", "--rung", "w64")
TARGET = ("--n-params", "4e5", "--n-tokens", "2M")
SOME = ("--domains", "web,code,books", "--mixtures", "12", "--laws", "transfer")
FIRST = ("design", *LADDER, *TARGET, *SOME)


def test_a_plan_is_printed_and_written(
    mixlaw: Command, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out, figure = tmp_path / "plan.csv", tmp_path / "plan.png"
    assert mixlaw(*FIRST, "--budget", "2e13", "--write", out, "--figure", figure) == 0
    said = capsys.readouterr().out
    runs = pd.read_csv(out)
    assert runs["price"].sum() <= 2e13
    shares = runs[["w_web", "w_code", "w_books"]].sum(axis=1)
    assert np.allclose(shares, 1)
    assert f"{runs['seeds'].sum()} runs, " in said
    assert "is then expected to be" in said
    for size, some in runs.groupby("size"):
        assert f"{some['seeds'].sum()} of {size}" in said
    assert figure.stat().st_size > 10_000


def test_json_says_what_the_text_says(mixlaw: Command, capsys: pytest.CaptureFixture) -> None:
    assert mixlaw(*FIRST, "--budget", "2e13", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["price_unit"] == "FLOPs"
    assert found["spent"] == pytest.approx(sum(run["price"] for run in found["runs"]))
    assert sum(row["runs"] for row in found["by_size"]) == sum(r["seeds"] for r in found["runs"])
    assert sum(row["share"] for row in found["by_size"]) == pytest.approx(1)
    assert found["expected_regret"]["after"] < found["expected_regret"]["before"]
    assert found["batches"][-1]["error"] == found["expected_error"]["after"]
    assert found["laws"] == {"transfer": 1.0}


def test_a_table_gives_sizes_and_what_is_known(
    folder: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    how = ("--table", folder / "table", "--n-params", "2B", "--n-tokens", "1e9")
    assert mixlaw("design", *how, "--budget", "1e18", "--laws", "transfer", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    sizes = {row["size"] for row in found["by_size"]}
    assert sizes <= {"10M", "40M", "160M"}
    assert {"size", "n_params", "n_tokens", "seeds", "price"} < set(found["runs"][0])
    assert mixlaw("design", *how, "--budget", "1e18", "--target-weight", "mmlu=1") == 2
    assert "unknown target 'mmlu'" in capsys.readouterr().err


def test_families_are_weighed_by_a_goal_file(
    mixlaw: Command, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    goal, names = tmp_path / "goal.yaml", ("--target", "gsm8k", "--target", "mbpp")
    goal.write_text("math: [gsm8k]\n")
    found = []
    for how in (("--goal", goal), ("--target-weight", "gsm8k=1"), ()):
        assert mixlaw(*FIRST, *names, "--budget", "1e13", *how, "--json") == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1] != found[2]
    goal.write_text("qa: [hellaswag]\n")
    assert mixlaw(*FIRST, *names, "--budget", "1e13", "--goal", goal) == 2
    assert "unknown task 'hellaswag'" in capsys.readouterr().err


def test_bounds_hold_in_every_run(mixlaw: Command, tmp_path: Path) -> None:
    out = tmp_path / "plan.csv"
    bounds = ("--at-least", "web=0.4", "--at-most", "code=0.2")
    assert mixlaw(*FIRST, "--budget", "2e13", *bounds, "--write", out) == 0
    runs = pd.read_csv(out)
    assert (runs["w_web"] >= 0.4 - 1e-9).all()
    assert (runs["w_code"] <= 0.2 + 1e-9).all()


def test_sources_that_end_are_cut_so_that_runs_repeat_as_the_target(
    mixlaw: Command, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "plan.csv"
    assert mixlaw(*FIRST, "--budget", "2e13", "--available", "code=200k", "--write", out) == 0
    assert "cut sources so that runs repeat them as the target will" in capsys.readouterr().out
    runs = pd.read_csv(out)
    share = np.minimum(runs["n_tokens"] / 2e6, 1)
    assert np.allclose(runs["available_code"], 2e5 * share)
    assert "available_web" not in runs


def test_a_study_is_written_that_trains_the_runs(
    mixlaw: Command, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "next.yaml"
    how = ("--study", "micro", "--n-params", "4e5", "--n-tokens", "2M", "--mixtures", "10")
    rungs = ("--rung", "w16", "--rung", "w32", "--laws", "transfer", "--seed", "1")
    assert (
        mixlaw("design", *how, *rungs, "--budget", "3e12", "--repeat", "--json", "--write", out)
        == 0
    )
    runs = json.loads(capsys.readouterr().out)["runs"]
    study = load_study(out)
    trained = runs_of_study(study)
    assert len(trained) == sum(run["seeds"] for run in runs)
    assert {run.rung.name for run in trained} == {run["size"] for run in runs}
    assert all(sum(ratios.values()) == pytest.approx(1) for ratios in study.mixtures.values())
    low, high = study.target.bounds["bio"]
    assert all(low - 1e-4 <= ratios["bio"] <= high + 1e-4 for ratios in study.mixtures.values())


def test_the_same_seed_plans_the_same(mixlaw: Command, capsys: pytest.CaptureFixture) -> None:
    found = []
    for seed in (0, 0, 1):
        assert mixlaw(*FIRST, "--budget", "1e13", "--seed", seed, "--json") == 0
        found.append(json.loads(capsys.readouterr().out)["runs"])
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_hours_and_dollars_are_prices_of_the_same_runs(
    mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    """1e9 FLOPs a second at 40 %: a budget of so many FLOPs, hours or dollars buys the same."""
    found = []
    hours = 2e13 / (0.4e9 * 3600)
    gpu = ("--gpu-flops", "1e9")
    for how in (
        ("--budget", "2e13"),
        ("--budget", f"{hours} gpu-hours", *gpu),
        ("--budget", f"${2 * hours}", *gpu, "--dollars-per-gpu-hour", "2"),
    ):
        assert mixlaw(*FIRST, *how, "--json") == 0
        found.append(json.loads(capsys.readouterr().out))
    names = ("size", "n_tokens", "w_web")
    first, *others = ([tuple(run[k] for k in names) for run in one["runs"]] for one in found)
    assert all(sorted(other) == sorted(first) for other in others)
    assert found[1]["price_unit"] == HOURS
    assert found[2]["spent"] == pytest.approx(2 * found[1]["spent"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--budget", "1"), "budget: 1 buys no run; the cheapest candidate costs 1.9"),
        (("--budget", "lots"), "--budget: 'lots'; write 1e20 (FLOPs), '40 gpu-hours' or '$500'"),
        (("--budget", "3 gpu-hours"), "give --gpu-flops, or --tokens-per-second SIZE=NUMBER"),
        (
            ("--budget", "$3", "--gpu-flops", "1e9"),
            "a budget in dollars: give --dollars-per-gpu-hour",
        ),
        (("--budget", "2e13", "--batch", "$2"), "--batch: '$2' is in dollars, the budget in FLOPs"),
        (("--budget", "2e13", "--n-tokens", "1T"), "don't reach: the longest has"),
        (("--budget", "2e13", "--target-weight", "mmlu=1"), "unknown target 'mmlu'"),
        (("--budget", "2e13", "--at-least", "web=0.8", "--at-least", "code=0.4"), "no mixture"),
        (("--budget", "2e13", "--at-most", "wiki=0.8"), "unknown domain 'wiki'"),
        (("--budget", "2e13", "--prior", "web=1"), "--prior: domain 'code' is missing"),
        (("--budget", "2e13", "--max-epochs", "4"), "--max-epochs: needs --available"),
        (("--budget", "2e13", "--rung", "w17"), "unknown rung of ladder micro-dense 'w17'"),
        (("--budget", "2e13", "--n-params", "1000", "--n-tokens", "1M"), ""),
        (("--budget", "2e13", "--write", "plan.txt"), "--write plan.txt: expected a file that"),
        (("--budget", "2e13", "--write", "plan.yaml"), "give --study"),
        (("--budget", "2e13", "--figure", "plan.doc"), "--figure"),
        (("--budget", "2e13", "--laws", "nonsense"), "nonsense"),
        (("--budget", "2e13", "--domains", "web"), "a mixture needs two sources or more"),
        (("--budget", "2e13", "--domains", "web,web"), "a name stands there twice"),
        (("--budget", "2e13", "--mixtures", "5000"), "15,000 are more than 12,000"),
        (("--budget", "2e13", "--multiple", "0"), "--multiple: must be above 0"),
    ],
)
def test_mistakes_are_said_before_any_work(
    options: tuple[str, ...], said: str, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    code = mixlaw(*FIRST, *options)
    found = capsys.readouterr().err
    if said:
        assert code == 2
        assert said in found
        assert found.count("\n") == 1
    else:
        assert code == 0  # rungs that are named may be larger than the target


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "give a --ladder of sizes to choose from, or a table of runs (--table)"),
        (("--rung", "w16"), "--rung: needs --ladder"),
        (("--ladder", "micro-dense"), ""),
        (("--ladder", "olmo-dense"), "no rung is smaller than the target's 400k parameters"),
    ],
)
def test_sizes_must_come_from_somewhere(
    options: tuple[str, ...], said: str, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    code = mixlaw("design", *TARGET, *SOME, "--budget", "2e13", *options)
    assert code == (2 if said else 0)
    assert said in capsys.readouterr().err


def test_sources_must_be_named(mixlaw: Command, capsys: pytest.CaptureFixture) -> None:
    assert mixlaw("design", *LADDER, *TARGET, "--budget", "2e13") == 2
    assert "--domains: name the sources" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("1e20", (1e20, FLOPS)),
        ("3.5e18 flops", (3.5e18, FLOPS)),
        ("40 gpu-hours", (40.0, HOURS)),
        ("1 GPU-hour", (1.0, HOURS)),
        ("$1,500.50", (1500.5, DOLLARS)),
        ("500 dollars", (500.0, DOLLARS)),
    ],
)
def test_budgets_are_read_as_people_write_them(text: str, amount: tuple[float, str]) -> None:
    assert parse_budget(text) == amount


@pytest.mark.parametrize("text", ["", "$", "-3", "0", "inf", "$5 gpu-hours", "4 bananas", "1e999"])
def test_other_budgets_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--budget"):
        parse_budget(text)


def test_measured_speeds_go_before_the_peak() -> None:
    prices = Prices(HOURS, peak=1e9, utilisation=0.5, speeds={1e6: 1000.0}, fixed=0.25)
    n, d = np.array([1e6, 2e6]), np.array([3.6e6, 3.6e6])
    found = prices.of(n, d, 6 * n * d)
    assert found == pytest.approx([1.25, 6 * 2e6 * 3.6e6 / 0.5e9 / 3600 + 0.25])


def test_mixtures_are_drawn_within_bounds_about_the_prior() -> None:
    prior, low, high = np.array([0.6, 0.3, 0.1]), np.array([0.1, 0, 0]), np.array([1.0, 0.5, 0.3])
    found = draw_mixtures(400, prior, low, high, 0)
    assert np.allclose(found.sum(1), 1)
    assert ((found >= low - 1e-9) & (found <= high + 1e-9)).all()
    assert found[0] == pytest.approx(prior)
    free = draw_mixtures(4000, prior, np.zeros(3), np.ones(3), 0)
    assert free.mean(0) == pytest.approx(prior, abs=0.02)
