"""Several processes write what one writes; if one of them dies, the user hears of it once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from olmo_mixlaw.errors import ConfigError, MixlawError
from olmo_mixlaw.evaluation import evaluate, ranks
from olmo_mixlaw.evaluation.loading import load_model
from olmo_mixlaw.evaluation.ranks import RankError, Ranks

TASKS = ["bio_recall", "bio_recall:mc", "domain_loss", "domain_loss:documents", "bio_recall:gen"]
CHANGES = ("processing_time", "current_date")  # of two runs in one process, too


def arguments(model: Path, output: Path) -> list[str]:
    spec = '{"task_name": "domain_loss:documents", "context_kwargs": {"domain": "bio"}}'
    chosen = [spec if task == "domain_loss:documents" else task for task in TASKS]
    options = [x for task in chosen for x in ("-t", task)]
    return [str(model), *options, "-o", str(output), "--limit", "25", "--save-requests"]


def command(*prefix: str) -> list[str]:
    return [sys.executable, *prefix, "-m", "olmo_mixlaw", "evaluate"]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, capture_output=True, text=True, env=environment, timeout=600)


def contents(folder: Path) -> dict[str, str]:
    """Every file's text, times left out."""

    def without(value: object) -> object:
        if isinstance(value, dict):
            return {k: without(v) for k, v in value.items() if k not in CHANGES}
        return [without(v) for v in value] if isinstance(value, list) else value

    found = {}
    for path in sorted(folder.iterdir()):
        lines = path.read_text().splitlines()
        found[path.name] = "\n".join(json.dumps(without(json.loads(x))) for x in lines)
        if path.name.endswith(("-predictions.jsonl", "-requests.jsonl")):
            assert found[path.name] == path.read_text().rstrip("\n")
    return found


@pytest.fixture(scope="module")
def alone(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files that one process writes."""
    folder = tmp_path_factory.mktemp("alone") / "scores"
    found = run(*command(), *arguments(checkpoint, folder))
    assert found.returncode == 0, found.stderr
    return contents(folder)


@pytest.mark.slow
def test_two_processes_write_what_one_writes(
    checkpoint: Path, tmp_path: Path, alone: dict[str, str]
) -> None:
    found = run(*command(), *arguments(checkpoint, tmp_path / "two"), "--processes", "2")
    assert found.returncode == 0, found.stderr
    assert contents(tmp_path / "two") == alone
    assert found.stdout.count("written to") == 1


@pytest.mark.slow
def test_processes_of_torchrun_write_what_one_writes(
    checkpoint: Path, tmp_path: Path, alone: dict[str, str]
) -> None:
    launcher = command("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    found = run(*launcher, *arguments(checkpoint, tmp_path / "two"))
    assert found.returncode == 0, found.stderr
    assert contents(tmp_path / "two") == alone
    assert found.stdout.count("written to") == 1


@pytest.mark.slow
def test_process_that_dies_is_named_in_one_line(checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "scores"
    long = '{"task_name": "domain_loss", "context_kwargs": {"max_tokens": 20000000}}'
    words = [*command(), str(checkpoint), "-t", "bio_recall:major", "-t", long, "-o", str(output)]
    with subprocess.Popen(
        [*words, "--processes", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as parent:
        deadline = time.monotonic() + 300
        first = output / "task-000-bio_recall:major-metrics.json"
        while not first.exists() and parent.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        assert first.exists()
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        (worker,) = [int(pid) for pid in children]
        os.kill(worker, signal.SIGKILL)
        out, error = parent.communicate(timeout=300)
    assert parent.returncode == 2
    assert (
        error.strip()
        .splitlines()[-1]
        .startswith("error: scoring process 1 of 2 was ended by signal 9")
    )
    assert "Traceback" not in error + out
    assert not list(output.glob("metrics*"))
    assert json.loads(first.read_text())["metrics"]["exact_match"] >= 0
    assert {p.name[:8] for p in output.iterdir()} == {"task-000"}


@pytest.mark.slow
def test_users_mistake_is_told_before_processes_start(checkpoint: Path, tmp_path: Path) -> None:
    words = [str(checkpoint), "-t", "bio_recal", "-o", str(tmp_path), "--processes", "2"]
    found = run(*command(), *words)
    assert found.returncode == 2
    assert found.stderr.count("\n") == 1
    assert found.stderr.startswith("error: unknown task 'bio_recal'")


def test_a_share_is_every_nth_batch() -> None:
    shares = [Ranks(rank, 3).share(range(8)) for rank in range(3)]
    assert sorted(i for share in shares for i in share) == list(range(8))


def test_failure_elsewhere_is_raised_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ranks, "_all", lambda self, mine: [mine, ({}, "ValueError: broken")])
    with pytest.raises(RankError, match="scoring process 1 of 2: ValueError: broken"):
        Ranks(0, 2).gather(dict)
    monkeypatch.setattr(Ranks, "_all", lambda self, mine: [mine, ({1: "b"}, "")])
    assert Ranks(0, 2).gather(lambda: {0: "a"}) == {0: "a", 1: "b"}

    def fail() -> dict[int, str]:
        raise MixlawError("mine")

    with pytest.raises(MixlawError, match="mine"):
        Ranks(0, 2).gather(fail)


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert ranks.of_launcher() == ranks.ALONE


@pytest.mark.parametrize("processes", [0, -1])
def test_wrong_number_of_processes_is_refused(
    checkpoint: Path, tmp_path: Path, processes: int
) -> None:
    with pytest.raises(ConfigError, match="expected 1 or more"):
        evaluate(checkpoint, ["bio_recall"], tmp_path, processes=processes)


def test_loaded_model_has_one_process(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="for a model's folder"):
        evaluate(load_model(checkpoint), ["bio_recall"], tmp_path, processes=2)


def test_command_line_offers_processes() -> None:
    from olmo_mixlaw.cli.evaluate import evaluate as evaluate_command

    assert "--processes" in CliRunner().invoke(evaluate_command, ["--help"]).output
