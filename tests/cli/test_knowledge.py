"""`olmo-mixlaw knowledge`, and `optimize --learn`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from olmo_mixlaw.runs import RunTable

Command = Callable[..., int]
PLAN = ("knowledge", "plan", "300k", "--ratio", 0.05, "--n-params", "1B", "--n-tokens", "100B")
RECALL = (0.01, 0.0, 0.02, 0.01, 0.9, 0.93, 0.92, 0.94)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A RunTable of eight ratios whose recall jumps between .2 and .25."""
    losses, scores = [], []
    for i, (ratio, recall) in enumerate(
        zip((0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5), RECALL, strict=True)
    ):
        name = f"r{i}"
        losses.append(
            {
                "run_id": name,
                "n_params": 7e7,
                "n_tokens": 32e9,
                "w_web": 1 - ratio,
                "w_bio": ratio,
                "domain": "web",
                "loss": 3.0,
            }
        )
        for metric, value in (("exact_match", recall), ("answer_bits", 9 - 8 * recall)):
            scores.append({"run_id": name, "task": "bio_recall", "metric": metric, "value": value})
    return RunTable(pd.DataFrame(losses), pd.DataFrame(scores)).save(tmp_path / "sweep")


def test_a_plan_is_printed_drawn_and_given_as_json(
    tmp_path: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    drawn = tmp_path / "plan.png"
    assert mixlaw(*PLAN, "--figure", drawn) == 0
    said = capsys.readouterr().out
    assert said.startswith("probably: 50% or more of 300,000 facts are known with probability 0.")
    assert "caution: 167 exposures a fact: about 100 are needed" in said
    assert drawn.stat().st_size > 10_000
    assert mixlaw(*PLAN, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert f"probability {found['probability']:.2f}" in said
    assert f"{found['ratio_needed']['enough']:.3g} is enough" in said
    assert found["nearest_measured"] in said
    assert mixlaw(*PLAN, "--warm", "--json") == 0
    assert json.loads(capsys.readouterr().out)["probability"] > found["probability"]
    assert mixlaw(*PLAN, "--barrier", "3,5,3", "--json") == 0
    assert json.loads(capsys.readouterr().out)["probability"] < found["probability"]


def test_a_plan_from_pure_runs_has_an_interval(
    tmp_path: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    losses, scores = [], []
    for n in (3e5, 1e6, 3e6, 1e7):
        about = {"run_id": f"w{n:g}", "n_params": n, "n_tokens": 1e9, "w_web": 1.0, "w_bio": 0.0}
        losses.append(about | {"domain": "web", "loss": 1.8 + 0.9 * (n / 1e6) ** -0.4})
    for e in (30.0, 100.0, 300.0, 1000.0):
        about = {"run_id": f"f{e:g}", "n_params": 1e5, "n_tokens": e * 5e5, "w_web": 0.0}
        losses.append(about | {"w_bio": 1.0, "domain": "web", "loss": 6.0})
        left = (20 - 2.0 * e / (e + 150) * 1e5 / 5e4) / 5
        scores.append({"run_id": f"f{e:g}", "task": "r", "metric": "answer_bits", "value": left})
    RunTable(pd.DataFrame(losses), pd.DataFrame(scores)).save(tmp_path / "pure")
    runs = ("--runs", tmp_path / "pure", "--bits", 20, "--tokens-each", 10)
    asked = ("knowledge", "plan", "50k", "--ratio", 0.1, "--n-params", 3e6, "--n-tokens", 1e9)
    assert mixlaw(*asked, *runs, "--json") == 0
    found = json.loads(capsys.readouterr().out)["optimum"]
    assert found["low"] < found["ratio"] < found["high"]
    assert mixlaw(*asked, *runs, "--web", "wiki") == 2
    assert "no domain 'wiki' (it has: web, bio)" in capsys.readouterr().err


def test_a_jump_is_detected_printed_drawn_and_given_as_json(
    tmp_path: Path, sweep: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    drawn = tmp_path / "jump.svg"
    assert mixlaw("knowledge", "detect", sweep, "--figure", drawn) == 0
    said = capsys.readouterr().out
    assert "transition: jump in recall, jump in bits (8 runs, 8 values)" in said
    assert drawn.stat().st_size > 10_000
    assert mixlaw("knowledge", "detect", sweep, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["found"] == 1
    (row,) = found["transitions"]
    assert f"10^{row['recall']['log10_evidence']:.1f}" in said


def test_threshold_popularity_of_a_file(
    tmp_path: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    items = pd.DataFrame({"popularity": range(1, 501), "correct": [0] * 250 + [1] * 250})
    items.to_csv(tmp_path / "items.csv", index=False)
    assert mixlaw("knowledge", "popularity", tmp_path / "items.csv", "--failures", 1) == 0
    assert "known from a popularity of 84 up: 417 items, 60.0% right" in capsys.readouterr().out
    items.drop(columns="popularity").to_csv(tmp_path / "bare.csv", index=False)
    assert mixlaw("knowledge", "popularity", tmp_path / "bare.csv") == 2
    assert "no column 'popularity'" in (error := capsys.readouterr().err)
    assert "add how often each item occurs" in error


def test_the_best_mixture_keeps_room_for_what_is_to_be_learned(
    fitted: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    learn = ("--learn", "math>=.9", "--facts", "math=100k", "--json")
    assert mixlaw("optimize", fitted, "--n-params", 1e9, "--n-tokens", 5e9, *learn) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mixture"]["math"] >= found["learned"]["math"] - 1e-4
    assert found["learned"]["math"] == pytest.approx(0.36, abs=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--learn", "math=.9"), "--learn: expected DOMAIN>=PART, found 'math=.9'"),
        (("--learn", "math>=.9"), "--learn: needs --facts math=FACTS, what there is to learn"),
        (("--facts", "math=300k"), "--facts: needs --learn math>=PART, how much of them"),
        (("--learn", "math>=x", "--facts", "math=3k"), "--learn: math>=x: 'x' is not a number"),
        (("--learn", "math>=2", "--facts", "math=3k"), "accuracy: lies between 0 and 1, found 2"),
        (("--learn", "math>=.9", "--facts", "math=1B"), "no ratio teaches 90% of 1,000,000,000"),
        (
            ("--learn", "math>=.9", "--facts", "math=3k", "--path", "1e9,1e9"),
            "--learn: holds at one size and budget; leave out --path",
        ),
    ],
)
def test_wrong_learning_goals_are_refused(
    fitted: Path,
    mixlaw: Command,
    capsys: pytest.CaptureFixture,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    assert mixlaw("optimize", fitted, "--n-params", 1e9, "--n-tokens", 1e9, *arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*PLAN, "--barrier", "2"), "--barrier: expected LOW,HIGH,SWEEPS, found '2'"),
        ((*PLAN, "--figure", "plan.doc"), "no figure is saved as 'doc'"),
        ((*PLAN[:4], 1.5, *PLAN[5:]), "ratio: lies between 0 and 1, found 1.5"),
        (("knowledge", "plan", "slope", *PLAN[3:]), "holds no facts that could be counted"),
        (("knowledge", "detect", "nowhere"), "nowhere: no such file"),
    ],
)
def test_wrong_questions_are_refused_in_one_line(
    mixlaw: Command, capsys: pytest.CaptureFixture, arguments: tuple[str, ...], message: str
) -> None:
    assert mixlaw(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_studies_of_phases_can_be_planned(
    mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    for name in ("phase-ratio", "phase-size", "phase-pure", "subsample", "compact"):
        assert mixlaw("study", "plan", name, "--json") == 0
        assert len(json.loads(capsys.readouterr().out)["runs"]) >= 12


def test_a_warm_arm_asks_for_the_study_that_it_goes_on_from(
    mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    assert mixlaw("study", "plan", "phase-warm-start") == 2
    error = capsys.readouterr().err
    assert "tokenizer.identifier: results/phase-warm/data/tokenizer.json" in error
    assert error.count("\n") == 1
