"""Runs on this machine: each worker's process has what its slot says, and ends with the study."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scripted_runs import runs_of

from olmo_mixlaw.study.local import LocalExecutor
from olmo_mixlaw.study.resources import Slot
from olmo_mixlaw.study.worker import Work

# In the place of training: what this process has been given, and a while to be looked at.
STANDS_IN = """
import json, os, time
from pathlib import Path
from olmo_mixlaw.study import trainers
def train_run(config):
    rank = os.environ.get("RANK", "0")
    said = {k: os.environ.get(k) for k in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "WORLD_SIZE")}
    import torch
    said |= {"cores": sorted(os.sched_getaffinity(0)), "torch": torch.get_num_threads()}
    said["pid"] = os.getpid()
    (config.parent / f"given{rank}.json.tmp").write_text(json.dumps(said))
    os.replace(config.parent / f"given{rank}.json.tmp", config.parent / f"given{rank}.json")
    time.sleep(float(os.environ.get("LINGER", 0)))
    raise ValueError("that was all")
trainers.train_run = train_run
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Every Python that begins from here trains as above."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(STANDS_IN)
    path = [str(tmp_path / "site"), str(Path(__file__).parents[2])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))


def carried_out(executor, runs, folders):
    """Every run's exit code, once all have ended."""
    codes, waiting, deadline = {}, list(runs), time.monotonic() + 120
    while waiting or len(codes) < len(runs):
        assert time.monotonic() < deadline
        begun = executor.submit(waiting[: executor.room()], folders) if waiting else []
        waiting = [run for run in waiting if run.run_id not in begun]
        codes |= {ended.run_id: ended.code for ended in executor.poll()}
        time.sleep(0.05)
    return codes


def given(folder, rank=0):
    return json.loads((folder / f"given{rank}.json").read_text())


@pytest.mark.slow
@pytest.mark.olmo
def test_each_process_sees_its_own_gpus_and_processors(stand_in, tmp_path):
    runs, folders = runs_of(tmp_path, 2)
    cores = sorted(os.sched_getaffinity(0))[:2]
    places = [Slot(("3",), (cores[0],)), Slot(("5",), (cores[-1],))]
    executor = LocalExecutor(places, Work([], threads=1), [])
    assert carried_out(executor, runs, folders) == {"r0": 1, "r1": 1}
    seen = [given(folders[run.run_id]) for run in runs]
    assert [s["CUDA_VISIBLE_DEVICES"] for s in seen] == ["3", "5"]
    assert [s["cores"] for s in seen] == [[cores[0]], [cores[-1]]]
    assert {s["OMP_NUM_THREADS"] for s in seen} == {"1"}
    assert "that was all" in json.loads((folders["r0"] / "error.json").read_text())["text"]


@pytest.mark.slow
@pytest.mark.olmo
def test_several_gpus_share_a_run_through_torchrun(stand_in, tmp_path):
    runs, folders = runs_of(tmp_path, 1)
    executor = LocalExecutor([Slot(("1", "2"))], Work([], threads=2, processes=2), [])
    assert carried_out(executor, runs, folders)["r0"] != 0
    seen = [given(folders["r0"], rank) for rank in (0, 1)]
    assert {s["CUDA_VISIBLE_DEVICES"] for s in seen} == {"1,2"}
    assert {s["WORLD_SIZE"] for s in seen} == {"2"}
    assert {s["torch"] for s in seen} == {2}
    assert seen[0]["pid"] != seen[1]["pid"]


@pytest.mark.slow
@pytest.mark.olmo
@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_on_gpus_ends_with_a_study_that_is_killed(processes, stand_in, tmp_path, monkeypatch):
    _, folders = runs_of(tmp_path, 1)
    monkeypatch.setenv("LINGER", "300")
    code = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from pathlib import Path
from scripted_runs import runs_of
from olmo_mixlaw.study.local import LocalExecutor
from olmo_mixlaw.study.resources import Slot
from olmo_mixlaw.study.worker import Work
runs, folders = runs_of(Path({str(tmp_path)!r}), 1)
LocalExecutor([Slot(("0",))], Work([], processes={processes}), []).submit(runs, folders)
time.sleep(300)
"""
    study = subprocess.Popen([sys.executable, "-c", code])
    files = [folders["r0"] / f"given{rank}.json" for rank in range(processes)]
    deadline = time.monotonic() + 100
    while not all(file.is_file() for file in files):
        assert time.monotonic() < deadline
        assert study.poll() is None
        time.sleep(0.1)
    study.kill()
    study.wait()
    pids = [json.loads(file.read_text())["pid"] for file in files]
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, "a run outlived its study"
        time.sleep(0.1)
