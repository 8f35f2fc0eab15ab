import fcntl
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from small_disk import in_small_disk

from olmo_mixlaw.cli import app as cli
from olmo_mixlaw.runs import RunTable

pytestmark = pytest.mark.slow


def start(path, *options, **kwargs):
    command = [sys.executable, "-m", "olmo_mixlaw", "study", "run", str(path), *options]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kwargs
    )


def finish(path, *options):
    process = start(path, *options)
    out, _ = process.communicate(timeout=400)
    assert process.returncode == 0, out
    return out


def is_free(lock):
    """Whether no process holds the lock of a run."""
    with open(lock) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def table_bytes(folder):
    return {p.name: p.read_bytes() for p in sorted((Path(folder) / "table").iterdir())}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, study_text):
    """A study that ran to its end: its file and its output folder."""
    folder = tmp_path_factory.mktemp("undisturbed")
    path = folder / "tiny.yaml"
    path.write_text(study_text.format(output=folder / "out"))
    return path, folder / "out", finish(path)


def test_study_ends_with_table_fits_proposal_and_report(undisturbed):
    _, output, said = undisturbed
    table = RunTable.load(output / "table")
    assert table.losses["run_id"].nunique() == 6
    assert table.domains == table.targets == ["wiki", "bio"]
    assert (table.scores["task"] == "bio_recall").any()
    assert {p.name for p in (output / "fits").iterdir()} == {"no_mixture.json", "transfer.json"}
    report = (output / "report.html").read_text()
    assert report.count("<svg") >= 5
    assert not re.search(r'(src|href)="(https?:)?//', report)
    assert str(output / "report.html") in said
    assert "proposed mixture for w64" in said


def test_proposed_configuration_trains(undisturbed, tmp_path):
    _, output, _ = undisturbed
    config = yaml.safe_load((output / "proposed.yaml").read_text())
    ratios = config["mixture"]["ratios"]
    assert abs(sum(ratios.values()) - 1) < 1e-9
    assert 0.1 <= ratios["bio"] <= 0.9
    command = [
        sys.executable,
        "-m",
        "olmo_mixlaw",
        "train",
        str(output / "proposed.yaml"),
        "--max_duration=2",
        f"--save_folder={tmp_path / 'run'}",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "mixture.json").is_file()


def test_finished_study_is_not_trained_again(undisturbed):
    path, output, _ = undisturbed
    before = table_bytes(output)
    stamps = {p: p.stat().st_mtime_ns for p in output.glob("runs/*/run.json")}
    assert "all 6 runs are finished already" in finish(path)
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    assert table_bytes(output) == before


def test_killed_study_goes_on_and_ends_with_the_same_table(undisturbed, study_file, tmp_path):
    _, reference, _ = undisturbed
    path = study_file()
    runs, rng = tmp_path / "out" / "runs", random.Random(0)
    for least_finished in (0, 2, 4):
        process = start(path)
        while True:  # until a run is under way after so many
            finished = len(list(runs.glob("*/run.json")))
            begun = len(list(runs.glob("*/checkpoints/metrics.csv")))
            assert process.poll() is None
            if finished >= least_finished and begun > finished:
                break
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 0.5))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        deadline = time.monotonic() + 120
        while not all(is_free(lock) for lock in runs.glob("*/.lock")):
            assert time.monotonic() < deadline, "a run outlived its study"
            time.sleep(0.1)
    finish(path)
    assert table_bytes(tmp_path / "out") == table_bytes(reference)


def test_five_kills_of_the_whole_group_leave_the_same_table(undisturbed, study_file, tmp_path):
    _, reference, _ = undisturbed
    path, rng = study_file(), random.Random(5)
    for _ in range(5):
        process = start(path, start_new_session=True)
        time.sleep(rng.uniform(4, 12))
        if process.poll() is not None:
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    finish(path)
    assert table_bytes(tmp_path / "out") == table_bytes(reference)


def test_folder_of_another_study_is_refused(undisturbed, tmp_path, capsys):
    path, output, _ = undisturbed
    shutil.copytree(output, tmp_path / "out")
    text = path.read_text().replace(str(output), str(tmp_path / "out"))
    other = tmp_path / "other.yaml"
    other.write_text(text.replace("characters: 200_000", "characters: 300_000"))
    assert cli.run(cli.app, ["study", "run", str(other)]) == 2
    assert "tokenizer.characters was 200000, now 300000" in capsys.readouterr().err
    other.write_text(text.replace("sizes: [w16, w32]", "sizes: [w16, w32, w96]"))
    assert cli.run(cli.app, ["study", "report", str(other)]) == 2
    assert "isn't finished" in capsys.readouterr().err


def test_a_study_that_was_moved_reports_goes_on_and_is_scored(
    undisturbed, tmp_path, capsys, request
):
    _, output, _ = undisturbed
    there = tmp_path / "moved"
    shutil.copytree(output, there, symlinks=True)
    hidden = output.rename(output.with_name("hidden"))
    request.addfinalizer(lambda: hidden.rename(output))
    run, other = there / "runs" / "w16-low-40k-s1", there / "runs" / "w16-mid-40k-s1"
    for model in (run, run / "checkpoints" / "latest-unsharded"):
        asked = ["evaluate", str(model), "-t", "bio_recall", "-o", str(tmp_path / "scores")]
        assert cli.run(cli.app, asked) == 0, capsys.readouterr().err
    asked = ["export", "hf", str(run / "checkpoints" / "latest-unsharded"), str(tmp_path / "hf")]
    assert cli.run(cli.app, asked) == 0
    assert cli.run(cli.app, ["study", "report", str(there)]) == 0
    (run / "run.json").unlink()
    shutil.rmtree(other)
    finish(there)
    assert table_bytes(there) == table_bytes(hidden)


def test_status_counts_finished_runs(undisturbed, capsys, tmp_path):
    _, output, _ = undisturbed
    assert cli.run(cli.app, ["study", "status", str(output)]) == 0
    assert "6 of 6 runs finished" in capsys.readouterr().out
    assert cli.run(cli.app, ["study", "status", str(tmp_path)]) == 2
    assert "no study here" in capsys.readouterr().err


def test_domain_without_held_out_documents_is_refused_before_training(study_file, tmp_path, capsys):
    text = tmp_path / "all.txt"
    text.write_text("one two three\n\n" * 3)
    path = study_file([("text?corpus=wikipedia", f"text?path={text}&heldout=0")])
    assert cli.run(cli.app, ["study", "run", str(path)]) == 2
    assert "domains.wiki: " in (error := capsys.readouterr().err)
    assert "no document is held out" in error


def test_a_run_that_fails_is_put_aside_and_the_rest_is_reported(
    undisturbed, study_file, tmp_path, capsys
):
    _, reference, _ = undisturbed
    path = study_file()
    blocked = tmp_path / "out" / "runs" / "w32-low-40k-s1" / "checkpoints"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("a file where a folder should be")
    process = start(path)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 2, out
    last = out.strip().splitlines()[-1]
    assert last.startswith("error: 1 of 6 runs failed: w32-low-40k-s1 (")
    assert str(blocked.parent / "log.txt") in last
    assert "it is started again" in out  # once: what can't be read may be read later
    failed = json.loads((blocked.parent / "failed.json").read_text())
    assert (failed["kind"], failed["attempts"]) == ("io", 2)
    assert failed["last_lines"]
    table = RunTable.load(tmp_path / "out" / "table")
    assert table.losses["run_id"].nunique() == 5
    assert (tmp_path / "out" / "report.html").is_file()
    report = tmp_path / "out" / "report.html"
    report.unlink()
    assert cli.run(cli.app, ["study", "report", str(path)]) == 2
    assert "1 of 6 runs failed: w32-low-40k-s1" in capsys.readouterr().err
    assert report.is_file()
    blocked.unlink()
    process = start(path)
    out, _ = process.communicate(timeout=100)
    assert process.returncode == 2
    assert "w32-low-40k-s1: failed before (" in out
    finish(path, "--retry-failed")
    assert not (blocked.parent / "failed.json").exists()
    assert table_bytes(tmp_path / "out") == table_bytes(reference)


def test_a_full_disk_stops_the_study_and_nothing_is_lost(undisturbed, study_file, tmp_path):
    _, reference, _ = undisturbed
    path, out = study_file(), tmp_path / "out"
    out.mkdir()
    code = f"""
import json, subprocess, sys, time
from contextlib import suppress
from pathlib import Path
command = [sys.executable, "-m", "olmo_mixlaw", "study", "run", {str(path)!r}]
streams = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
out = Path({str(out)!r})
study = subprocess.Popen(command, **streams)
while study.poll() is None and not list(out.glob("runs/*/checkpoints/metrics.csv")):
    time.sleep(0.05)
with suppress(OSError), open(out / "filler", "wb", buffering=0) as filler:
    while True:
        filler.write(bytes(4096))
said, _ = study.communicate()
aside = [str(p) for p in out.glob("runs/*/failed.json")]
(out / "filler").unlink()
again = subprocess.run(command, **streams)
table = {{p.name: p.read_text() for p in (out / "table").iterdir()}}
print(json.dumps([study.returncode, said, aside, again.returncode, table]))
"""
    done = in_small_disk(out, "16m", "", code)
    code, said, aside, again, table = json.loads(done.stdout)
    assert code == 2, said
    last = said.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "space" in last
    assert "Traceback" not in said
    assert aside == []
    assert again == 0
    assert {name: text.encode() for name, text in table.items()} == table_bytes(reference)


@pytest.mark.parametrize("line", ["study tiny", "preparing", "prepared in", "0/6 done"])
def test_an_interrupt_is_one_word_whenever_it_comes(study_file, line):
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "olmo_mixlaw", "study", "run", str(study_file())],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert any(said.startswith(line) for said in process.stdout)
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=100)
    assert process.returncode == 130
    assert error.strip() == "stopped"
