"""Jobs of Slurm: against commands that answer as Slurm would, and on a real cluster of one node."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
import yaml
from scripted_runs import runs_of

from olmo_mixlaw.cli import app as cli
from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.runs import RunTable
from olmo_mixlaw.study import slurm
from olmo_mixlaw.study.config import load_study
from olmo_mixlaw.study.executor import Ended
from olmo_mixlaw.study.plan import plan
from olmo_mixlaw.study.slurm import ACTIVE, STATES, SlurmExecutor, script
from olmo_mixlaw.study.worker import Work

NODE = Path(__file__).with_name("slurm_node.sh")
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


def test_absent_cluster_is_one_clear_line(study_file, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", "")
    path = study_file([("workers: 2", "workers: 2\nslurm: {}")])
    assert cli.run(cli.app, ["study", "run", str(path)]) == 2
    assert capsys.readouterr().err == "error: slurm: sbatch is not found on this machine\n"
    assert not (tmp_path / "out").exists()


def slurm_is_here():
    path = os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin"
    commands = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scontrol")
    return (
        hasattr(os, "geteuid")
        and os.geteuid() == 0
        and all(shutil.which(name, path=path) for name in commands)
    )


on_a_cluster = [
    pytest.mark.slow,
    pytest.mark.olmo,
    pytest.mark.skipif(not slurm_is_here(), reason="needs root and Slurm's daemons"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A private cluster of one node with two processors; the environment in which it is reached."""
    folder = tmp_path_factory.mktemp("slurm")
    daemons = subprocess.Popen(["sh", str(NODE), str(folder)])
    try:
        deadline = time.monotonic() + 60
        while not (folder / "environment").is_file():
            assert daemons.poll() is None, (folder / "slurmctld.out").read_text()[-2000:]
            assert time.monotonic() < deadline, (folder / "slurmctld.log").read_text()[-2000:]
            time.sleep(0.2)
        path = os.environ["PATH"] + ":/usr/sbin:/usr/bin"
        yield {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}
    finally:
        daemons.terminate()
        daemons.wait(60)


@pytest.fixture
def begin(cluster):
    """Starts a study on the cluster; it is ended with the test, however that ends."""
    studies = []

    def started(arguments):
        kept = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        studies.append(subprocess.Popen(arguments, env=cluster, **kept))
        return studies[-1]

    yield started
    for study in studies:
        study.kill()
        study.wait()
        study.stdout.close()
    subprocess.run(["scancel", "--me"], env=cluster, capture_output=True)


def command(path, *options):
    return [sys.executable, "-m", "olmo_mixlaw", "study", "run", str(path), *options]


def table_of(folder, without=()):
    """The losses and scores of a study, as they stand in its files, but for some runs."""
    frames = [pd.read_csv(folder / "table" / name, dtype=str) for name in FILES]
    return [f[~f["run_id"].isin(without)].reset_index(drop=True) for f in frames]


FILES = ("losses.csv", "scores.csv")


def processes_of(run):
    """The processes that write a run's log."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if os.readlink(entry) == str(run / "log.txt"):
                found.add(int(entry.parts[2]))
    return found


def hang(run, over):
    """Stop a run's processes until it is over; Slurm wakes them when their time is up."""
    while not over.wait(0.2):
        for pid in processes_of(run):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)


def wait_for(condition, seconds, process):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


TWELVE = """mixtures:
  m1: {wiki: 0.9, bio: 0.1}
  m2: {wiki: 0.8, bio: 0.2}
  m3: {wiki: 0.7, bio: 0.3}
  m4: {wiki: 0.5, bio: 0.5}
  m5: {wiki: 0.4, bio: 0.6}
  m6: {wiki: 0.2, bio: 0.8}
"""


@pytest.mark.parametrize("_", [pytest.param(0, marks=on_a_cluster)])
def test_one_killed_one_out_of_time_one_bad_and_the_rest_as_on_this_machine(
    _, cluster, begin, study_file, tmp_path
):
    listed = "mixtures:" + study_file().read_text().partition("mixtures:")[2].partition("laws:")[0]
    path = study_file([(listed, TWELVE), ("checkpoint_every: 5", "checkpoint_every: 500")])
    runs = tmp_path / "out" / "runs"
    bad = runs / "w16-m6-40k-s1"
    bad.mkdir(parents=True)
    (bad / "checkpoints").write_text("a file where a folder should be")
    process = begin(command(path, "slurm={minutes: 3, memory_gb: 1.5}", "retries=0"))
    hung, killed = runs / "w32-m1-40k-s1", runs / "w32-m2-40k-s1"
    wait_for(lambda: processes_of(hung), 60, process)
    over = threading.Event()
    stopper = threading.Thread(target=hang, args=(hung, over))
    stopper.start()
    try:
        wait_for(lambda: processes_of(killed), 60, process)
        job = json.loads((killed / "job.json").read_text())["job"]
        subprocess.run(["scancel", job], env=cluster, check=True)
        said, _ = process.communicate(timeout=900)
    finally:
        over.set()
        stopper.join()
    assert process.returncode == 2, said
    assert "3 of 12 runs failed: " in said.splitlines()[-1]
    kinds = {p.parent.name: json.loads(p.read_text())["kind"] for p in runs.glob("*/failed.json")}
    assert kinds == {hung.name: "timeout", killed.name: "killed", bad.name: "io"}
    assert len(list(runs.glob("*/run.json"))) == 9
    local = tmp_path / "local"
    done = subprocess.run(command(path, f"output={local}"), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for ours, theirs in zip(
        table_of(tmp_path / "out"), table_of(local, without=kinds), strict=True
    ):
        pd.testing.assert_frame_equal(ours, theirs)
    (bad / "checkpoints").unlink()
    again = command(path, "slurm={minutes: 9, memory_gb: 1.5}", "--retry-failed")
    done = subprocess.run(again, env=cluster, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in FILES:
        assert (tmp_path / "out" / "table" / name).read_bytes() == (
            local / "table" / name
        ).read_bytes()


@pytest.mark.parametrize("_", [pytest.param(0, marks=on_a_cluster)])
def test_runs_of_a_lost_node_go_on_and_a_killed_study_finds_its_jobs(
    _, cluster, begin, study_file, tmp_path
):
    path = study_file([("sizes: [w16, w32]", "sizes: [w32]"), ("[no_mixture, transfer]", "[]")])
    asked = command(path, "target.size=w32", "slurm={minutes: 9, memory_gb: 1.5}")
    runs = tmp_path / "out" / "runs"
    study = begin(asked)
    wait_for(lambda: len(list(runs.glob("*/checkpoints/metrics.csv"))) == 2, 90, study)
    study.kill()
    study.communicate()
    node = subprocess.run(
        ["sinfo", "-h", "-o", "%n"], env=cluster, capture_output=True, text=True
    ).stdout.strip()
    update = ["scontrol", "update", f"nodename={node}"]
    subprocess.run([*update, "state=down", "reason=lost"], env=cluster, check=True)
    begun = {p: json.loads(p.read_text())["job"] for p in runs.glob("*/job.json")}
    again = begin(asked)
    time.sleep(8)
    # It may have come back by itself, and then doesn't take this.
    subprocess.run([*update, "state=resume"], env=cluster, capture_output=True)
    said, _ = again.communicate(timeout=400)
    assert again.returncode == 0, said
    assert "submitted" not in said
    assert {p: json.loads(p.read_text())["job"] for p in runs.glob("*/job.json")} == begun
    assert RunTable.load(tmp_path / "out" / "table").losses["run_id"].nunique() == 3


@pytest.mark.parametrize("_", [pytest.param(0, marks=on_a_cluster)])
def test_processes_of_a_job_share_a_run_through_torchrun(
    _, cluster, study_file, tmp_path, monkeypatch
):
    from olmo_mixlaw.study.prepare import prepare
    from olmo_mixlaw.study.run import write_configs
    from olmo_mixlaw.study.runner import run_all
    from olmo_mixlaw.study.scoring import tasks

    for name in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(name, cluster[name])
    study = load_study(
        study_file(), ("slurm={minutes: 9, cpus: 2, memory_gb: 3}", "sizes=w16", "target.size=w16")
    )
    runs = plan(study)[:1]
    output = tmp_path / "out"
    folders = write_configs(study, runs, output, prepare(study, output / "data"))
    work = Work(tasks(study), processes=2)
    assert run_all(runs, folders, SlurmExecutor(study, work)) == {}
    folder = folders[runs[0].run_id]
    checkpoint = folder / "checkpoints" / "latest-unsharded" / "config.yaml"
    trained = yaml.safe_load(checkpoint.read_text())
    assert trained["device_train_batch_size"] == trained["global_train_batch_size"] // 2
    assert (tmp_path / "out" / "slurm").is_dir()
    assert list((folder / "eval").iterdir())
