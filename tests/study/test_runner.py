"""What is made of runs that end without a result is the same whatever carries them out."""

import io
import json
import time

import pytest
from scripted_runs import Scripted, runs_of

from olmo_mixlaw.study import claims, runner
from olmo_mixlaw.study.claims import Claims
from olmo_mixlaw.study.executor import Ended
from olmo_mixlaw.study.failures import AGAIN, FAILED, KINDS, NO_FAULT, Failure, put_aside, summary
from olmo_mixlaw.study.runner import MOST_LOST, Progress, StudyError, newest_step, run_all

KILLED = Ended("", -9)


def test_every_run_is_carried_out_within_the_room_there_is(tmp_path):
    runs, folders = runs_of(tmp_path, 5)
    executor = Scripted(at_once=2)
    assert run_all(runs, folders, executor) == {}
    assert executor.submitted == [run.run_id for run in runs]
    assert executor.most == 2
    assert executor.closed


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"disk"}))
def test_a_failure_is_tried_again_by_rule_and_then_put_aside(kind, tmp_path):
    runs, folders = runs_of(tmp_path)
    executor = Scripted({"r1": [(kind, "bad")] * 9})
    failed = run_all(runs, folders, executor, retries=2)
    tries = 1 + MOST_LOST if kind in NO_FAULT else 3 if kind in AGAIN else 1
    assert executor.submitted.count("r1") == tries
    assert list(failed) == ["r1"]
    assert (failed["r1"].kind, failed["r1"].reason) == (kind, "bad")
    assert json.loads((folders["r1"] / FAILED).read_text())["reason"] == "bad"
    assert {"r0", "r2"} <= {p.parent.name for p in tmp_path.glob("runs/*/run.json")}


def test_one_that_succeeds_at_the_second_try_has_not_failed(tmp_path):
    runs, folders = runs_of(tmp_path)
    assert run_all(runs, folders, Scripted({"r1": [KILLED]})) == {}
    assert not (folders["r1"] / FAILED).exists()


def test_retries_can_be_none(tmp_path):
    runs, folders = runs_of(tmp_path)
    failed = run_all(runs, folders, Scripted({"r1": [KILLED]}), retries=0)
    assert failed["r1"].kind == "killed"
    assert "SIGKILL" in failed["r1"].reason


@pytest.mark.parametrize("state", ["timeout", "node", "preempted", "lost"])
def test_time_that_runs_out_costs_no_try_while_the_run_gets_further(state, tmp_path):
    runs, folders = runs_of(tmp_path)
    ends = [(step, Ended("", state=state)) for step in range(1, 9)]
    executor = Scripted({"r1": ends})
    assert run_all(runs, folders, executor, retries=0) == {}
    assert executor.submitted.count("r1") == 9
    assert newest_step(folders["r1"]) == 8


def test_a_killed_run_is_given_up_though_it_gets_further(tmp_path):
    runs, folders = runs_of(tmp_path)
    ends = {"r1": [(step, KILLED) for step in range(1, 9)]}
    assert list(run_all(runs, folders, Scripted(ends), retries=1)) == ["r1"]


def test_what_was_put_aside_is_left_there_until_it_is_asked_for(tmp_path, capsys):
    runs, folders = runs_of(tmp_path)
    run_all(runs, folders, Scripted({"r1": [("refused", "no such domain")]}))
    again = Scripted()
    assert list(run_all(runs, folders, again)) == ["r1"]
    assert again.submitted == []
    assert "r1: failed before (no such domain), left aside" in capsys.readouterr().out
    assert run_all(runs, folders, again, retry_failed=True) == {}
    assert again.submitted == ["r1"]
    assert not (folders["r1"] / FAILED).exists()


def test_another_configuration_is_tried_without_being_asked_for(tmp_path):
    runs, folders = runs_of(tmp_path)
    run_all(runs, folders, Scripted({"r1": [("refused", "no")]}))
    (folders["r1"] / "config.yaml").write_text("run_name: mended\n")
    assert run_all(runs, folders, Scripted()) == {}


def test_a_full_disk_ends_the_study_and_puts_nothing_aside(tmp_path):
    runs, folders = runs_of(tmp_path)
    executor = Scripted({"r0": [("disk", "No space left on device")]})
    with pytest.raises(StudyError, match="make room and start the study again"):
        run_all(runs, folders, executor)
    assert executor.closed
    assert not list(tmp_path.glob(f"runs/*/{FAILED}"))
    assert run_all(runs, folders, Scripted()) == {}


def test_runs_under_way_are_waited_for_and_not_started_twice(tmp_path):
    runs, folders = runs_of(tmp_path)
    executor = Scripted(under_way=["r2"])
    executor._folders = folders
    assert run_all(runs, folders, executor) == {}
    assert executor.submitted == ["r0", "r1"]


def test_finished_runs_are_told_of(tmp_path):
    runs, folders = runs_of(tmp_path, 6)
    calls = []
    run_all(runs, folders, Scripted({"r1": [("refused", "no")]}), finished=lambda: calls.append(1))
    assert len(calls) == 5


def test_the_summary_names_runs_reasons_and_what_to_do(tmp_path):
    runs, folders = runs_of(tmp_path, 6)
    ends = {f"r{i}": [("refused", f"reason {i}")] for i in range(5)}
    said = summary(run_all(runs, folders, Scripted(ends)), len(runs), folders)
    assert said.startswith("5 of 6 runs failed: r0 (reason 0), r1 (reason 1), r2 (reason 2) and 2")
    assert str(folders["r0"] / "log.txt") in said
    assert "--retry-failed" in said


def test_a_clock_that_jumps_changes_nothing(tmp_path, monkeypatch):
    runs, folders = runs_of(tmp_path)
    jumps = iter([1e9, 0.0, 2e9, -1e9] * 1000)
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    assert run_all(runs, folders, Scripted({"r1": [KILLED]})) == {}


def test_more_steps_than_planned_leave_no_time_below_none(tmp_path, monkeypatch):
    runs, folders = runs_of(tmp_path)
    out, ticks = io.StringIO(), iter(range(0, 1000, 30))
    monkeypatch.setattr(runner.time, "monotonic", lambda: float(next(ticks)))
    progress = Progress(runs, folders, 0, 2, out)
    (folders["r0"] / "checkpoints").mkdir()
    for step in (5, 90):
        (folders["r0"] / "checkpoints" / "metrics.csv").write_text(f"step,loss\n{step},3\n")
        progress.show(runs[:1], [])
    assert "-" not in out.getvalue()
    assert out.getvalue().count("left") == 1


def test_what_others_work_on_is_waited_for_and_what_they_finish_is_taken_as_it_is(tmp_path):
    runs, folders = runs_of(tmp_path)
    theirs, ended = Claims(), []
    assert theirs.take(folders["r0"])
    assert theirs.take(folders["r1"])
    executor = Scripted(at_once=1)
    poll = executor.poll

    def others_end():
        """The others end one of theirs at every look: one is finished, one is put aside."""
        if not ended:
            (folders["r0"] / "run.json").write_text('{"seconds": {"train": 1, "evaluate": 1}}')
            theirs.drop(folders["r0"])
        else:
            put_aside(folders["r1"], Failure("r1", "refused", "theirs"))
            theirs.drop(folders["r1"])
        ended.append(1)
        return poll() if executor.under_way else []

    executor.poll = others_end
    failed = run_all(runs, folders, executor)
    assert executor.submitted == ["r2"]
    assert {name: failure.reason for name, failure in failed.items()} == {"r1": "theirs"}


def test_runs_that_others_have_taken_over_are_left_to_them(tmp_path, monkeypatch):
    runs, folders = runs_of(tmp_path, 1)
    monkeypatch.setattr(claims, "BEAT", 0.0)
    executor = Scripted()
    poll = executor.poll

    def taken_over():
        if executor.left:
            return poll()
        number = max(int(p.name.rpartition("-")[2]) for p in folders["r0"].glob(".claim-*"))
        (folders["r0"] / f".claim-{number + 1}").write_text("{}")  # had, and let go again
        return []

    executor.poll = taken_over
    assert run_all(runs, folders, executor) == {}
    assert executor.left == ["r0"]
    assert executor.submitted == ["r0", "r0"]
