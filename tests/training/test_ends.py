"""However a run ends, a good checkpoint is left and the next start goes on from it."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("olmo")

from olmo_mixlaw.errors import CheckpointError, NonFiniteLossError, StoppedError
from olmo_mixlaw.training import trainer as module
from olmo_mixlaw.training.config import load
from olmo_mixlaw.training.launch import train
from olmo_mixlaw.training.trainer import MixTrainer

Write = Callable[..., Path]


@pytest.mark.parametrize("moe", [None, {"selection_bias": True, "expert_size": 16}])
def test_a_broken_loss_saves_the_state_before_its_step(
    write: Write, monkeypatch: pytest.MonkeyPatch, moe: dict[str, Any] | None
) -> None:
    model = {**load(write("plain")).plain()["model"], "moe": moe}
    whole = train(write("whole", model=model))
    forward = MixTrainer.model_forward

    def breaking(self: MixTrainer, *args: object, **kwargs: object) -> tuple:
        losses, z_losses, logits = forward(self, *args, **kwargs)  # type: ignore[arg-type]
        return losses * float("inf" if self.global_step == 6 else 1), z_losses, logits

    monkeypatch.setattr(MixTrainer, "model_forward", breaking)
    config = write("broken", model=model)
    with pytest.raises(NonFiniteLossError, match="the loss of step 6 is not finite") as error:
        train(config)
    assert "the checkpoint of step 5 is in" in str(error.value)
    weights = torch.load(config.with_suffix("") / "step5-unsharded" / "model.pt", weights_only=True)
    assert all(torch.isfinite(value).all() for value in weights.values())
    monkeypatch.undo()
    final = train(config)
    metrics = [folder / "metrics.csv" for folder in (final.parent, whole.parent)]
    assert metrics[0].read_bytes() == metrics[1].read_bytes()
    ends = [torch.load(path / "model.pt", weights_only=True) for path in (final, whole)]
    assert all(torch.equal(ends[0][name], value) for name, value in ends[1].items())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_after_its_step_with_a_checkpoint(
    write: Write, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    whole = train(write("whole"))
    step = MixTrainer.train_batch

    def signalled(self: MixTrainer, batch: dict) -> tuple:
        if self.global_step == 6:
            os.kill(os.getpid(), number)
        return step(self, batch)

    monkeypatch.setattr(MixTrainer, "train_batch", signalled)
    config = write("stopped")
    before = signal.getsignal(number)
    with pytest.raises(StoppedError, match="the checkpoint of step 6") as error:
        train(config)
    assert error.value.signal == number
    assert signal.getsignal(number) == before
    monkeypatch.undo()
    final = train(config)
    assert (final.parent / "metrics.csv").read_bytes() == (
        whole.parent / "metrics.csv"
    ).read_bytes()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
    ],
)
def test_a_full_disk_ends_the_run_and_keeps_the_last_checkpoint(
    write: Write, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    save = torch.save

    def full(state: object, path: Path, *args: object) -> None:
        if "step8" in str(path) and "optim" in str(path):
            raise error
        save(state, path, *args)

    monkeypatch.setattr(torch, "save", full)
    config = write()
    folder = config.with_suffix("")
    with pytest.raises(CheckpointError) as raised:
        train(config)
    assert "no space left to save the checkpoint of step 8" in str(raised.value)
    assert "the last complete checkpoint is step 4" in str(raised.value)
    assert sorted(path.name for path in folder.glob("step*")) == ["step4-unsharded"]
    monkeypatch.undo()
    assert train(config).name == "step12-unsharded"


def test_a_really_full_disk_is_recognised(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises((OSError, RuntimeError)) as error:
        torch.save({"w": torch.zeros(1_000_000)}, "/dev/full")
    assert module.disk_is_full(error.value)
    assert not module.disk_is_full(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def launch(config: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "olmo_mixlaw.training.launch", str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
def test_sigterm_from_outside_ends_with_143(write: Write) -> None:
    config = write(max_duration=100_000, save_interval_unsharded=100_000)
    run = launch(config)
    metrics = config.with_suffix("") / "metrics.csv"
    while run.poll() is None and not (metrics.is_file() and metrics.stat().st_size > 1000):
        time.sleep(0.05)
    run.terminate()
    output, _ = run.communicate(timeout=300)
    assert run.returncode == 143
    assert b"stopped by signal 15; the checkpoint of step" in output
    assert len(list(config.with_suffix("").glob("step*-unsharded"))) == 1


def _train_in_child(config: Path) -> int:
    """Train in a forked child, which has everything imported already."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            torch.set_num_threads(1)
            train(config)
            code = 0
        finally:
            os._exit(code)
    return child


def test_run_killed_in_its_first_checkpoint_starts_again(write: Write) -> None:
    config = write("killed", max_duration=4)
    half = config.with_suffix("") / "step2-unsharded-tmp"
    half.mkdir(parents=True)
    (half / "model.pt").write_bytes(b"cut off")
    assert train(config).name == "step4-unsharded"
    assert not half.exists()


@pytest.mark.slow
def test_twenty_runs_killed_at_random_moments_all_end_the_same(write: Write) -> None:
    changes = {
        "max_duration": 60,
        "save_interval_unsharded": 7,
        "save_num_unsharded_checkpoints_to_keep": 2,
        "metrics_interval": 5,
    }
    whole = train(write("whole", **changes))
    expected = (whole.parent / "metrics.csv").read_bytes()
    started = time.monotonic()
    assert os.waitpid(_train_in_child(write("timed", **changes)), 0)[1] == 0
    seconds = time.monotonic() - started
    chance = random.Random(0)
    for number in range(20):
        config = write(f"killed{number}", **changes)
        killed = False
        for _ in range(40):
            child = _train_in_child(config)
            # Less than a whole run takes, so that each is killed; checkpoints bring it to its end.
            deadline = time.monotonic() + seconds * chance.uniform(0.1, 0.8)
            status = None
            while status is None and time.monotonic() < deadline:
                found, code = os.waitpid(child, os.WNOHANG)
                status = code if found else None
                time.sleep(0.005)
            if status is None:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                killed = True
            elif status != 0:
                pytest.fail(f"run {number} ended by itself with status {status}")
            elif killed:
                break
            else:  # the machine is faster than when it was timed: once more, and sooner
                seconds *= 0.5
                shutil.rmtree(config.with_suffix(""))
        assert killed
        folder = config.with_suffix("")
        if not (folder / "step60-unsharded").is_dir():
            train(config)
        assert (folder / "metrics.csv").read_bytes() == expected
        final = torch.load(folder / "step60-unsharded" / "model.pt", weights_only=True)
        reference = torch.load(whole / "model.pt", weights_only=True)
        assert all(torch.equal(final[key], reference[key]) for key in reference)
