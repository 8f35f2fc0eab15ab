"""`trainer: olmo-core` with OLMo-core's real Trainer: runs end well, go on, begin anew."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_core import LABELS, STEPS, write_run, write_tokens

from olmo_mixlaw.errors import CheckpointError, MixlawError, NonFiniteLossError, StoppedError
from olmo_mixlaw.training_core import process

try:
    process.check_environment("tests")
except MixlawError as reason:
    pytest.skip(str(reason), allow_module_level=True)

from olmo_core.train.train_module import TransformerTrainModule

from olmo_mixlaw.training_core import launch
from olmo_mixlaw.training_core.config import load
from olmo_mixlaw.training_core.launch import train
from olmo_mixlaw.training_core.saved_model import load_model
from olmo_mixlaw.training_core.to_hf import export

Write = Callable[..., Path]
WIDE = {"factory": "llama_like", "overrides": {"d_model": 32, "n_heads": 2, "n_layers": 1}}
FLAT = {"lr": 1e-30, "weight_decay": 0.0}  # moves no weight in fp32


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokens(tmp_path_factory.mktemp("tokens"))


@pytest.fixture
def write(tokens: Path, tmp_path: Path) -> Write:
    def write(name: str = "run", **changes: Any) -> Path:
        return write_run(tokens, tmp_path, name, **changes)

    return write


@pytest.fixture(scope="module")
def whole(tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last checkpoint of a run that was never stopped."""
    return train(write_run(tokens, tmp_path_factory.mktemp("whole"), "whole"))


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_model(checkpoint).state_dict()


def assert_equal(one: Path, other: Path) -> None:
    """The same weights, and the same rows of metrics.csv, to the last bit."""
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    rows = [(path.parent / "metrics.csv").read_text().splitlines() for path in (one, other)]
    assert rows[0] == rows[1]
    assert len(rows[0]) == STEPS + 1


def test_a_run_leaves_checkpoints_and_what_it_did(whole: Path) -> None:
    folder = whole.parent
    assert whole.name == f"step{STEPS}"
    assert {path.name for path in folder.glob("step*")} == {"step4", "step8", "step12"}
    kept = json.loads((whole / "config.json").read_text())
    assert kept["model"]["d_model"] == 16
    assert kept["model"]["init_seed"] == 3
    assert kept["tokenizer"]["vocab_size"] == 300
    assert sorted(kept["sources"]) == sorted(LABELS)
    assert kept["olmo_mixlaw"]["config"]["global_batch_size"] == 128
    assert load(folder / "config.yaml").plain() == kept["olmo_mixlaw"]["config"]
    shares = json.loads((folder / "mixture.json").read_text())
    assert shares
    assert not dict(os.environ).keys() & {"RANK", "MASTER_PORT", "OLMO_SHARED_FS"}


def test_a_finished_run_returns_at_once(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_trainer", None)
    assert train(whole.parent / "config.yaml") == whole


@pytest.mark.parametrize("step", [1, 4, 7])
def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(
    write: Write, whole: Path, step: int
) -> None:
    path = write()
    assert train(path, [f"stop_at={step}"]).name == f"step{step}"
    assert_equal(train(path), whole)


def test_what_a_killed_run_left_half_written_is_no_checkpoint(write: Write, whole: Path) -> None:
    path = write()
    at = train(path, ["stop_at=8"])
    (at / ".metadata.json").unlink()  # OLMo-core's own mark, written last
    (at.parent / "step4" / "config.json").unlink()  # and what comes after it
    assert_equal(train(path), whole)
    assert (at.parent / "step4" / "config.json").is_file()


def test_a_broken_loss_ends_with_the_state_before_its_step(
    write: Write, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = TransformerTrainModule.model_forward

    def breaking(self: Any, *args: Any, **kwargs: Any) -> Any:
        out = forward(self, *args, **kwargs)
        if self.trainer.global_step != 6:
            return out
        return out._replace(loss=out.loss * float("nan"), ce_loss=out.ce_loss * float("nan"))

    monkeypatch.setattr(TransformerTrainModule, "model_forward", breaking)
    path = write()
    with pytest.raises(NonFiniteLossError, match="step 6"):
        train(path)
    left = path.with_suffix("") / "step5"
    assert all(torch.isfinite(value).all() for value in weights(left).values())
    monkeypatch.undo()
    assert_equal(train(path), whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_after_its_step(
    write: Write, whole: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    step = TransformerTrainModule.train_batch

    def signalled(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.trainer.global_step == 6:
            os.kill(os.getpid(), number)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(TransformerTrainModule, "train_batch", signalled)
    path, before = write(), signal.getsignal(number)
    with pytest.raises(StoppedError, match="step 6") as error:
        train(path)
    assert error.value.signal == number
    assert signal.getsignal(number) == before
    assert (path.with_suffix("") / "step6" / "config.json").is_file()
    monkeypatch.undo()
    assert_equal(train(path), whole)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"mixture": {"ratios": {"low": 0.4, "high": 0.6}, "block_size": 32}}, "mixture is not that"),
    ({"seed": 4}, "seed was 3, is 4"),
    ({"sequence_length": 32}, "sequence_length: is 32, but the checkpoint"),
    ({"model": WIDE}, "model: is not that of the checkpoint"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[text for _, text in REFUSED])
def test_a_run_does_not_go_on_as_another(
    write: Write, whole: Path, change: dict, message: str
) -> None:
    path = write(**change)
    shutil.copytree(whole.parent, path.with_suffix(""))
    with pytest.raises(CheckpointError, match=message):
        train(path)
    assert len(list(path.with_suffix("").glob("step*"))) == 3


def test_another_mixture_is_allowed_on_request(write: Write) -> None:
    train(write(), ["stop_at=6"])
    changed = {"ratios": {"low": 0.4, "high": 0.6}, "allow_change": True}
    assert train(write(mixture=changed)).name == f"step{STEPS}"


TOKENIZER = {"vocab_size": 9, "eos_token_id": 0, "pad_token_id": 1}
KNOWN: list[tuple[dict[str, Any], str]] = [
    ({"model": {"factory": "olmo2_190m"}}, "'olmo2_190m'; did you mean 'olmo2_190M'"),
    ({"optimizer": {"name": "adamv", "lr": 1}}, "unknown optimizer 'adamv'; did you mean 'adam'"),
    ({"optimizer": {"name": "lion", "lr": 1, "eps": 1}}, "optimizer.eps: lion has no such setting"),
    ({"train_module": {"compile": True}}, "train_module: unknown key 'compile'; did you mean"),
    ({"train_module": {"optim": {"lr": "much"}}}, "train_module: Failed to construct 'optim'"),
    ({"trainer_config": {"callback": {}}}, "trainer_config: unknown key 'callback'; did you"),
    (
        {"trainer_config": {"callbacks": {"x": {"_CLASS_": "os.system"}}}},
        "trainer_config.callbacks.x: _CLASS_: os.system: expected a class of olmo_core",
    ),
    ({"max_duration": "2ep"}, "max_duration: '2ep' counts epochs"),
    ({"tokenizer": {**TOKENIZER, "identifier": "none.json"}}, "none.json: no such tokenizer file"),
    ({"mixture": {"ratios": {"lwo": 0.3, "high": 0.7}}}, "unknown source 'lwo'; did you mean"),
    ({"sources": {}}, "bad.yaml: sources: names no source, and "),
    ({"sources": {label: ["none.npy"] for label in LABELS}}, "sources.high: none.npy: no such"),
    ({"tokenizer": {**TOKENIZER, "identifier": "tokenizer.json"}}, "tokenizer.vocab_size: 9 is"),
    ({"evaluators": [{"kind": "heldout"}]}, "evaluators[0]: no source of the run is a dataset"),
    ({"load_path": "nowhere"}, "load_path: nowhere: no such checkpoint folder"),
    ({"load_path": "/tmp"}, "load_path: /tmp: neither a checkpoint of OLMo-core"),
]


@pytest.mark.parametrize(("change", "message"), KNOWN, ids=[text for _, text in KNOWN])
def test_a_name_that_olmo_core_does_not_know_is_told_before_any_work(
    write: Write, tokens: Path, monkeypatch: pytest.MonkeyPatch, change: dict, message: str
) -> None:
    monkeypatch.chdir(tokens)
    path = write("bad", **change)
    with pytest.raises(MixlawError) as error:
        train(path)
    assert message in str(error.value)
    assert "bad.yaml" in str(error.value)
    assert not list(path.with_suffix("").glob("step*"))


URI = "mixlaw:biography?n=8&pools=major:4,birth_city:4,university:4,employer:4"
HELDOUT = {"kind": "heldout", "datasets": {"bio": URI}, "n_items": 4, "eval_interval": 5}


def test_evaluators_score_the_last_step_even_if_it_was_killed_before(write: Write) -> None:
    path = write(evaluators=[HELDOUT])
    last = train(path)
    evals = last.parent / "evals.csv"
    rows = evals.read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "5", "10", "12"]
    assert all("eval/heldout/bio/" in row for row in rows[1:])
    evals.write_text("".join(f"{row}\n" for row in rows[:-1]))
    assert train(path) == last
    assert evals.read_text().splitlines() == rows


def test_a_source_that_may_not_repeat_ends_the_run(write: Write) -> None:
    ratios = {"low": 0.9, "high": 0.1}  # 250 sequences of low
    mixture = {"ratios": ratios, "repetition": "stop", "max_epochs": 1}
    path = write(mixture=mixture, max_duration=60, save_interval=None, evaluators=[HELDOUT])
    last = train(path)
    step = last.name.removeprefix("step")
    assert 250 / 0.9 / 8 - 4 < int(step) <= 250 / 0.9 / 8
    for name in ("metrics.csv", "evals.csv"):  # the end is recorded, wherever it is
        assert (last.parent / name).read_text().splitlines()[-1].split(",")[0] == step
    assert train(path) == last


def test_olmo_cores_own_keys_are_laid_over_last(write: Write) -> None:
    last = train(
        write(
            optimizer={"name": "skip_step_adamw", "lr": 1e-2},
            scheduler={"name": "wsd"},
            train_module={
                "scheduler": {"type": "linear_with_warmup", "warmup": 3},
                "optim": {"weight_decay": 0.25},
            },
            trainer_config={"callbacks": {"checkpointer": {"max_checkpoints": 1}}},
        )
    )
    # OLMo-core removes an old one only at the step after the new one.
    assert {path.name for path in last.parent.glob("step*")} == {"step8", "step12"}
    kept = json.loads((last / "config.json").read_text())["train_module"]
    assert kept["scheduler"]["type"] == "linear_with_warmup"
    assert (kept["optim"]["type"], kept["optim"]["weight_decay"]) == ("skip_step_adamw", 0.25)
    assert kept["optim"]["lr"] == 1e-2


@pytest.mark.parametrize("of", ["checkpoint", "run", "hf"])
@pytest.mark.parametrize("model", [True, False])
def test_a_run_starts_from_other_weights_with_a_fresh_optimizer(
    write: Write, whole: Path, tokens: Path, tmp_path: Path, of: str, model: bool
) -> None:
    base = {"checkpoint": whole, "run": whole.parent, "hf": tmp_path / "hf"}[of]
    if of == "hf":
        export(whole, base, tokenizer=tokens / "tokenizer.json")
    changes: dict[str, Any] = {} if model else {"model": None}
    path = write(load_path=str(base), optimizer=FLAT, max_duration=2, seed=9, **changes)
    last = train(path)
    assert last.name == "step2"
    ours, theirs = weights(last), weights(whole)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    shutil.rmtree(last)  # and goes on from its own, whatever its base
    assert train(path, ["save_interval=1"]).name == "step2"


def test_weights_of_another_shape_are_refused(write: Write, whole: Path) -> None:
    with pytest.raises(CheckpointError, match="model: doesn't take the weights of load_path"):
        train(write(load_path=str(whole), model=WIDE))


# Whole processes: OLMo-core alone takes ten seconds to import.


def command(path: Path, processes: int = 1) -> list[str]:
    module = ["-m", "olmo_mixlaw.training_core.launch", str(path)]
    if processes == 1:
        return [sys.executable, *module]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    several = [f"--nproc-per-node={processes}", f"--master-port={port}"]
    return [sys.executable, "-m", "torch.distributed.run", *several, *module]


@pytest.mark.slow
def test_sigterm_from_outside_ends_with_143(write: Write) -> None:
    path = write(max_duration=100_000, save_interval=100_000)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        command(path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    )
    metrics = path.with_suffix("") / "metrics.csv"
    while child.poll() is None and not (metrics.is_file() and metrics.stat().st_size > 1000):
        time.sleep(0.05)
    child.terminate()
    output, _ = child.communicate(timeout=300)
    assert child.returncode == 143, output.decode()
    assert b"stopped" in output
    assert b"Traceback" not in output
    assert len(list(path.with_suffix("").glob("step*/config.json"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "fsdp", "hsdp"])
def test_two_processes_train_as_one_does(write: Write, whole: Path, name: str) -> None:
    path = write(data_parallel={"name": name})
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command(path, 2), "--stop_at=8"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("trained:") == 1
    ours, theirs = weights(path.with_suffix("") / "step8"), weights(whole.parent / "step8")
    for key, value in ours.items():
        torch.testing.assert_close(value, theirs[key], rtol=1e-4, atol=1e-5)
    # Saved on two, resumed on one.
    last = train(path)
    for key, value in weights(last).items():
        torch.testing.assert_close(value, weights(whole)[key], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_mistake_on_two_processes_is_one_line(write: Write) -> None:
    path = write(global_batch_size=16 * 7)
    done = subprocess.run(command(path, 2), capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr.count("can't be shared by 2 processes") == 1


FULL = """
import resource, signal, sys
from olmo_mixlaw.training_core.launch import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
sys.exit(main([sys.argv[1]]))
"""


def test_a_disk_that_takes_no_more_is_one_line_and_the_last_whole_checkpoint_stays(
    write: Write,
) -> None:
    path = write()
    train(path, ["stop_at=4"])
    arguments = [sys.executable, "-c", FULL, str(path), "20000"]
    ended = subprocess.run(arguments, capture_output=True, text=True)
    assert ended.returncode == 2
    said = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    assert "a checkpoint can't be read or written" in said[0]
    assert "File too large" in said[0]
    assert train(path).name == "step12"
