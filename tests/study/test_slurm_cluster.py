"""Jobs of Slurm on a real cluster of one node, which is made for the tests and ended with them."""

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

from olmo_mixlaw.runs import RunTable
from olmo_mixlaw.study.config import load_study
from olmo_mixlaw.study.plan import plan
from olmo_mixlaw.study.slurm import SlurmExecutor
from olmo_mixlaw.study.worker import Work

NODE = Path(__file__).with_name("slurm_node.sh")


def slurm_is_here():
    path = os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin"
    commands = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scontrol")
    return (
        hasattr(os, "geteuid")
        and os.geteuid() == 0
        and all(shutil.which(name, path=path) for name in commands)
    )


pytestmark = [
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


def test_one_killed_one_out_of_time_one_bad_and_the_rest_as_on_this_machine(
    cluster, begin, study_file, tmp_path
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
    # Slurm counts in minutes: rather than three of them, this one has the one that it is in.
    late = json.loads((hung / "job.json").read_text())["job"]
    subprocess.run(["scontrol", "update", f"jobid={late}", "timelimit=1"], env=cluster, check=True)
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


def test_runs_of_a_lost_node_go_on_and_a_killed_study_finds_its_jobs(
    cluster, begin, study_file, tmp_path
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


def test_processes_of_a_job_share_a_run_through_torchrun(
    cluster, study_file, tmp_path, monkeypatch
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
