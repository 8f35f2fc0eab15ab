"""Where a study stands, from its folder alone."""

import json
import re
import time

import pytest

from olmo_mixlaw.cli import app as cli
from olmo_mixlaw.study import paces as module
from olmo_mixlaw.study.claims import Claims
from olmo_mixlaw.study.config import load_study
from olmo_mixlaw.study.failures import Failure, put_aside
from olmo_mixlaw.study.folders import write_configs, write_study
from olmo_mixlaw.study.paces import say_left
from olmo_mixlaw.study.plan import plan
from olmo_mixlaw.study.status import status_of


@pytest.fixture
def begun(study_file, tmp_path):
    """The folder of the tiny study, of whose six runs none has begun."""
    study = load_study(study_file())
    out = tmp_path / "out"
    write_study(study, out)
    write_configs(study, plan(study), out, out / "data" / "tokenizer.json")
    return out


def at_step(run, step):
    (run / "checkpoints").mkdir(exist_ok=True)
    rows = "".join(f"{s},3.0\n" for s in range(1, step + 1))
    (run / "checkpoints" / "metrics.csv").write_text(f"step,loss\n{rows}")


def finish(run, seconds=20.0):
    said = {"seconds": {"train": seconds, "evaluate": 2.0}}
    (run / "run.json").write_text(json.dumps(said))


def test_each_run_is_in_the_state_that_its_folder_shows(begun):
    runs = begun / "runs"
    finish(runs / "w32-low-40k-s1")
    at_step(runs / "w32-mid-40k-s1", 7)
    claims = Claims()
    claims.take(runs / "w32-mid-40k-s1")
    at_step(runs / "w32-high-40k-s1", 9)
    put_aside(runs / "w32-high-40k-s1", Failure("w32-high-40k-s1", "diverged", "its loss is nan"))
    at_step(runs / "w16-low-40k-s1", 3)
    said = {run.run_id: str(run) for run in status_of(begun).runs}
    steps = plan(load_study(begun))[0].steps
    assert said == {
        "w32-low-40k-s1": "finished",
        "w32-mid-40k-s1": f"running at step 7 of {steps} ({claims.holder})",
        "w32-high-40k-s1": f"failed at step 9 of {steps} (its loss is nan)",
        "w16-low-40k-s1": f"begun at step 3 of {steps}",
        "w16-mid-40k-s1": "waiting",
        "w16-high-40k-s1": "waiting",
    }


def test_totals_count_every_step_of_every_run(begun):
    runs, planned = begun / "runs", plan(load_study(begun))
    finish(runs / "w32-low-40k-s1")
    at_step(runs / "w16-low-40k-s1", 3)
    found = status_of(begun)
    steps = {run.run_id: run.steps for run in planned}
    assert sum(run.step for run in found.runs) == steps["w32-low-40k-s1"] + 3
    flops = {run.run_id: run.rung.training_flops(run.n_tokens) for run in planned}
    part = 3 / steps["w16-low-40k-s1"]
    made = flops["w32-low-40k-s1"] + part * flops["w16-low-40k-s1"]
    assert found.done == pytest.approx(made / sum(flops.values()))
    assert found.summary().startswith("1 of 6 runs finished, 1 begun, ")
    assert not found.is_over


def test_a_folder_without_its_study_still_counts(tmp_path):
    run = tmp_path / "runs" / "a"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("run_name: a\nmax_duration: 40\n")
    at_step(run, 10)
    found = status_of(tmp_path)
    assert found.summary() == "0 of 1 runs finished, 1 begun, 10 of 40 steps, 25 % of the compute"


def test_runs_that_no_plan_has_are_counted_apart(begun):
    (begun / "runs" / "old").mkdir()
    (begun / "runs" / "old" / "config.yaml").write_text("x: 1\n")
    assert status_of(begun).summary().endswith("1 more in the folder that its plan doesn't have")


def test_the_time_left_is_that_of_who_runs_it_or_of_what_is_finished(begun, monkeypatch):
    assert status_of(begun).left is None
    for run in (begun / "runs").glob("w32-*"):
        finish(run)
    left = status_of(begun).left
    # Three small runs on two workers: each less than a large one, and two after each other.
    assert 20 < left < 2 * 27 + 1
    say_left(begun, 500.0)
    assert status_of(begun).left == pytest.approx(500.0, abs=5)
    now = time.time()
    for later in (now + 1000, now - 1000):  # old, or by a clock that jumped
        monkeypatch.setattr(module.time, "time", lambda later=later: later)
        assert status_of(begun).left == left


def test_what_is_over_is_watched_no_longer(begun, capsys, monkeypatch):
    looks = []

    def sleep(_):
        looks.append(1)
        for run in (begun / "runs").iterdir():
            finish(run)

    monkeypatch.setattr("olmo_mixlaw.cli.study.time.sleep", sleep)
    assert cli.run(cli.app, ["study", "status", str(begun), "--watch"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("0 of 6 runs finished, 0 of ")
    assert re.fullmatch(r"6 of 6 runs finished, (\d+) of \1 steps, 100 % of the compute", lines[-1])
    assert looks == [1]
    assert lines[1:-1] == [f"{run.run_id:28} finished" for run in status_of(begun).runs]


def test_status_as_json(begun, capsys):
    finish(begun / "runs" / "w32-low-40k-s1")
    assert cli.run(cli.app, ["study", "status", str(begun), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["finished"], said["running"], said["failed"], len(said["runs"])) == (1, 0, 0, 6)
    first = said["runs"][0]
    assert first["run_id"] == "w32-low-40k-s1"
    assert first["finished"] is True
    assert first["step"] == first["steps"] == said["steps"]


def test_a_damaged_estimate_is_no_estimate(begun):
    for text in ("", "{", "[]", '{"left": "x", "at": 1}', '{"left": 3}'):
        (begun / module.ESTIMATE).write_text(text)
        assert status_of(begun).left is None
