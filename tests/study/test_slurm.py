"""Jobs of Slurm, against commands that answer as Slurm would."""

import json
import os
from pathlib import Path

import pytest
from scripted_runs import runs_of

from olmo_mixlaw.cli import app as cli
from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.study import slurm
from olmo_mixlaw.study.config import load_study
from olmo_mixlaw.study.executor import Ended
from olmo_mixlaw.study.slurm import ACTIVE, STATES, SlurmExecutor, script
from olmo_mixlaw.study.worker import Work

# Takes what it is given, but arrays or all jobs where `refuses` says why: numbers from 101 on.
SBATCH = """
if [ -e refuses ] && grep -q "$(cat refused 2> /dev/null)" "$1"; then cat refuses >&2; exit 1; fi
cp "$1" submitted$(ls submitted* 2> /dev/null | wc -l)
echo "Submitted batch job $((100 + $(ls submitted* | wc -l)))"
"""


@pytest.fixture
def answers(tmp_path, monkeypatch):
    """A folder of commands like Slurm's; returns a function that sets what squeue says."""
    place = tmp_path / "cluster"
    place.mkdir()
    commands = {
        "sbatch": f"#!/bin/sh\ncd {place}{SBATCH}",
        "squeue": f"#!/bin/sh\ncd {place}\n[ -e down ] && exec ls down/no\ncat queue\n",
        "srun": "#!/bin/sh\n",
    }
    for name, text in commands.items():
        (place / name).write_text(text)
        (place / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "SETTLE", 0.0)

    def say(*rows):
        (place / "queue").write_text("".join(f"{row}\n" for row in rows))
        return place

    say()
    return say


@pytest.fixture
def study(study_file):
    def asked(*overrides):
        return load_study(study_file(), ("slurm={partition: main}", *overrides))

    return asked


def executor_of(study, tmp_path, count=3):
    runs, folders = runs_of(Path(study.output), count)
    said = []
    return SlurmExecutor(study, Work([]), said.append), runs, folders, said


def test_runs_go_as_one_array_whose_limit_is_the_workers(answers, study, tmp_path):
    place = answers()
    executor, runs, folders, said = executor_of(study("workers=2"), tmp_path)
    assert executor.room() >= 3
    assert executor.submit(runs, folders) == ["r0", "r1", "r2"]
    assert "#SBATCH --array=0-2%2" in (place / "submitted0").read_text()
    jobs = [json.loads((folders[f"r{i}"] / "job.json").read_text())["job"] for i in range(3)]
    assert jobs == ["101_0", "101_1", "101_2"]
    assert said == [
        f"submitted 3 runs as job 101; logs: log.txt in their folders, Slurm's own in "
        f"{tmp_path / 'out' / 'slurm'}/101*"
    ]
    assert executor.room() < 0  # the array keeps two at a time: nothing may run beside it


@pytest.mark.parametrize("state", sorted(ACTIVE))
def test_a_job_that_is_not_over_is_waited_for(state, answers, study, tmp_path):
    executor, runs, folders, _ = executor_of(study(), tmp_path, 1)
    executor.submit(runs, folders)
    answers(f"101|x|{state}")
    assert executor.poll() == []


@pytest.mark.parametrize("state", [*sorted(STATES), None])
def test_a_job_that_is_over_ended_as_slurm_says(state, answers, study, tmp_path):
    executor, runs, folders, _ = executor_of(study(), tmp_path, 2)
    executor.submit(runs, folders)
    answers("101_0|x|RUNNING", *([f"101_1|x|{state}"] if state else []))
    note = f"job 101_1: {state or 'not in the queue'}"
    assert executor.poll() == [Ended("r1", state=STATES.get(state, "lost"), note=note)]
    assert executor.poll() == []


def test_a_study_that_is_started_again_finds_its_jobs(answers, study, tmp_path):
    asked = study("name=a b|c")
    first, runs, folders, _ = executor_of(asked, tmp_path)
    first.submit(runs, folders)
    token = next((tmp_path / "out" / "slurm").glob("*.json")).stem
    name = next(
        line.partition("=")[2]
        for line in (answers() / "submitted0").read_text().splitlines()
        if "--job-name" in line
    )
    assert name == f"a_b_c-{token}"
    answers(
        f"101_0|{name}|COMPLETED",
        f"101_1|{name}|RUNNING",
        f"101_2|{name}|PENDING",
        "102_0|other-abcd|RUNNING",
        "103|a|b|RUNNING",
    )
    again = SlurmExecutor(asked, Work([]))
    assert again.adopt(runs, lambda _: True) == ["r1", "r2"]
    answers(f"101_1|{name}|NODE_FAIL", f"101_2|{name}|PENDING")
    assert again.poll() == [Ended("r1", state="node", note="job 101_1: NODE_FAIL")]


def test_a_slurm_that_rejects_is_one_clear_error(answers, study, tmp_path, capsys):
    place = answers()
    (place / "refuses").write_text("sbatch: error: x\nsbatch: error: Invalid partition name\n")
    executor, runs, folders, _ = executor_of(study(), tmp_path)
    with pytest.raises(ConfigError) as refused:
        executor.submit(runs, folders)
    assert str(refused.value).startswith("slurm: sbatch refused the job: sbatch: error: Invalid p")
    assert capsys.readouterr().err == ""
    assert not list((tmp_path / "out" / "slurm").glob("*.json"))
    assert not list((tmp_path / "out").glob("runs/*/job.json"))


def test_a_limit_on_jobs_is_kept_to(answers, study, tmp_path):
    place = answers()
    executor, runs, folders, _ = executor_of(study("workers=1"), tmp_path)
    (place / "refuses").write_text("sbatch: error: QOSMaxSubmitJobPerUserLimit\n")
    (place / "refused").write_text("^#SBATCH --array")
    assert executor.submit(runs, folders) == ["r0"]
    assert executor.room() == 0


def test_a_controller_that_is_away_for_a_while_is_waited_for(answers, study, tmp_path, monkeypatch):
    place = answers("101|x|RUNNING")
    executor, runs, folders, _ = executor_of(study(), tmp_path, 1)
    executor.submit(runs, folders)
    (place / "down").touch()
    assert executor.poll() == []
    (place / "down").unlink()
    assert executor.poll() == []
    (place / "down").touch()
    monkeypatch.setattr(slurm, "AWAY", -1.0)
    with pytest.raises(ConfigError, match="squeue failed: "):
        executor.poll()


def test_the_script_says_what_was_asked_for(study):
    asked = study(
        "workers=4",
        "slurm={minutes: 90, cpus: 6, gpus: 2, nodes: 2, memory_gb: 1.5, partition: p, qos: q,"
        " setup: [module load cuda], sbatch: {exclude: n1}}",
    )
    lines = script(asked, 12).splitlines()
    for line in (
        *("--array=0-11%4", "--time=90", "--cpus-per-task=6", "--gpus-per-node=2", "--nodes=2"),
        *("--mem=1536MB", "--partition=p", "--qos=q", "--exclude=n1", "--requeue"),
        "--ntasks-per-node=1",
    ):
        assert f"#SBATCH {line}" in lines
    assert lines.index("module load cuda") < len(lines) - 2
    assert not any("--array" in line for line in script(asked, 1).splitlines())


def test_a_dry_run_starts_nothing_and_needs_no_cluster(study_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "")
    path = study_file([("workers: 2", "workers: 2\nslurm: {minutes: 7}")])
    assert cli.run(cli.app, ["study", "run", str(path), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "#SBATCH --array=0-5%2\n" in said
    assert "#SBATCH --time=7\n" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.olmo
def test_absent_cluster_is_one_clear_line(study_file, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", "")
    path = study_file([("workers: 2", "workers: 2\nslurm: {}")])
    assert cli.run(cli.app, ["study", "run", str(path)]) == 2
    assert capsys.readouterr().err == "error: slurm: sbatch is not found on this machine\n"
    assert not (tmp_path / "out").exists()
