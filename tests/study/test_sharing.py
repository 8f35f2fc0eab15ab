"""Processes that run one study in one folder share its runs, and end with the same table."""

import signal
import subprocess
import sys
import time

import pytest

from olmo_mixlaw.runs import RunTable

pytestmark = [pytest.mark.slow, pytest.mark.olmo]


def start(path, *options):
    command = [sys.executable, "-u", "-m", "olmo_mixlaw", "study", "run", str(path), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def table_of(folder):
    return {path.name: path.read_bytes() for path in sorted((folder / "table").iterdir())}


def until(condition):
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_two_share_the_runs_one_is_killed_and_a_seed_is_added(study_file, tmp_path):
    path, runs = study_file(), tmp_path / "out" / "runs"
    first, second = start(path, "workers=1"), start(path, "workers=1")
    until(lambda: len(list(runs.glob("*/checkpoints/metrics.csv"))) >= 2)
    # Each has one: they work on two at once.
    assert len(list(runs.glob("*/.claim-*"))) >= 2
    first.send_signal(signal.SIGKILL)
    first.communicate()
    third = start(path, "workers=1")
    said = [process.communicate(timeout=500)[0] for process in (second, third)]
    assert (second.returncode, third.returncode) == (0, 0), said
    assert all("report.html" in text for text in said)
    table = table_of(tmp_path / "out")
    assert RunTable.load(tmp_path / "out" / "table").losses["run_id"].nunique() == 6

    alone = tmp_path / "alone.yaml"
    alone.write_text(path.read_text().replace(str(tmp_path / "out"), str(tmp_path / "other")))
    process = start(alone)
    text = process.communicate(timeout=500)[0]
    assert process.returncode == 0, text
    assert table_of(tmp_path / "other") == table

    stamps = {p: p.stat().st_mtime_ns for p in runs.glob("*/run.json")}
    added = start(path, "seeds=[1,2]")
    text = added.communicate(timeout=500)[0]
    assert added.returncode == 0, text
    assert "6 of 12 runs are finished already" in text
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
