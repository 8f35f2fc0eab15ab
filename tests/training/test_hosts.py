"""Beside OLMo: its own scripts with our URIs, several processes, and what we rely on in it."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("olmo")

from olmo.config import TrainConfig
from olmo.data import IterableDataset
from olmo.train import Trainer
from uris import write as write_uri

from olmo_mixlaw.datasets.uri import parse
from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.mixture.schedule import Constant, Pieces, RunLength, Schedule
from olmo_mixlaw.registry import SCHEDULES
from olmo_mixlaw.training.custom_dataset import MixtureDataset
from olmo_mixlaw.training.hook import build_for_olmo, mixture_of, wrap_olmo_data
from olmo_mixlaw.training.launch import train
from olmo_mixlaw.training.loader import MixtureBatches
from olmo_mixlaw.training.model import count_params

Write = Callable[..., Path]

# A checkout of OLMo's main branch, for the tests that run its script.
OLMO_MAIN = Path(os.environ.get("OLMO_MAIN", "/nowhere"))
SCRIPT = OLMO_MAIN / "scripts" / "train.py"


def test_olmo_has_what_is_overridden_and_called() -> None:
    for name in (
        "model_forward",
        "train_micro_batch",
        "train_batch",
        "train_step",
        "fit",
        "eval",
        "close",
        "_save_checkpoint",
        "trainer_state_dict",
        "load_trainer_state_dict",
        "restore_rng_state",
        "get_labels",
        "should_log_this_step",
        "save_checkpoint",
        "restore_checkpoint",
        "log_metrics_to_console",
    ):
        assert callable(getattr(Trainer, name)), name
    taken = inspect.signature(Trainer.train_micro_batch).parameters
    assert list(taken) == ["self", "micro_batch", "batch_size_in_tokens"]
    taken = inspect.signature(Trainer.model_forward).parameters
    assert list(taken) == ["self", "batch", "loss_reduction", "compute_z_loss"]
    assert issubclass(MixtureBatches, IterableDataset)
    source = inspect.getsource(Trainer)
    for used in ("self.dataset.total_size", "self.dataset.epoch", "self.dataset.start_index"):
        assert used in source, used


def test_the_hook_leaves_configurations_without_our_uris_alone() -> None:
    calls = []
    module = ModuleType("olmo.data")
    module.build_train_dataloader = lambda config, **rest: calls.append((config, rest))
    wrap_olmo_data(module)
    wrapped = module.build_train_dataloader
    wrap_olmo_data(module)
    assert module.build_train_dataloader is wrapped
    config = SimpleNamespace(data=SimpleNamespace(paths=["a.npy"], datasets=None))
    wrapped(config, rank=1)
    assert calls == [(config, {"rank": 1})]


def test_uris_say_their_ratios_or_name_one_mixture_file(tmp_path: Path) -> None:
    uris = {"a": ["mixlaw:biography?n=4&ratio=0.25&pools=major:5"], "b": ["mixlaw:text?ratio=0.75"]}
    config, stripped = mixture_of(uris, "run")
    assert config.ratios == {"a": 0.25, "b": 0.75}
    assert stripped == {"a": ["mixlaw:biography?n=4&pools=major:5"], "b": ["mixlaw:text"]}
    assert mixture_of({"a": ["mixlaw:text"]}, "run") == (None, {"a": ["mixlaw:text"]})
    path = tmp_path / "m.yaml"
    config, stripped = mixture_of({"data": [f"mixlaw:mixture?config={path}"]}, "run")
    assert (config.file, stripped) == (str(path), {})
    with pytest.raises(ConfigError, match=r"data.datasets.b: says no share of the mixture"):
        mixture_of({"a": ["mixlaw:text?ratio=0.5"], "b": ["b.npy"]}, "run")
    with pytest.raises(ConfigError, match="must be the only URI"):
        mixture_of({"data": [f"mixlaw:mixture?config={path}", "b.npy"]}, "run")
    with pytest.raises(ConfigError, match=r"ratio: 'x' is not a number"):
        mixture_of({"a": ["mixlaw:text?ratio=x"]}, "run")
    with pytest.raises(ConfigError, match=r"expected mixlaw:mixture\?config=FILE"):
        mixture_of({"data": [f"mixlaw:mixture?confg={path}"]}, "run")


@given(name=st.text(st.one_of(st.sampled_from(" +%&=?#é"), st.characters(codec="utf-8"))))
def test_a_path_of_any_letters_is_read_once_and_stays_itself(name: str) -> None:
    values = {"path": f"/x/{name}.txt", "ratio": ".5"}
    uris = {"a": [write_uri("text", values)], "b": ["mixlaw:slope?ratio=.5"]}
    config, stripped = mixture_of(uris, "run")
    assert config.ratios == {"a": 0.5, "b": 0.5}
    assert parse(stripped["a"][0]) == ("text", {"path": f"/x/{name}.txt"})
    config, _ = mixture_of({"data": [write_uri("mixture", {"config": f"/x/{name}"})]}, "run")
    assert config.file == f"/x/{name}"


def plain_olmo(write: Write, tmp_path: Path, **changes: Any) -> tuple[dict[str, Any], Path]:
    """A training file of plain OLMo's whose data is one of our mixture files."""
    values = yaml.safe_load(write("ours").read_text())
    mixture = tmp_path / "mixture.yaml"
    schedule = {
        "name": "linear",
        "units": "steps",
        "knots": [
            {"at": 0, "ratios": {"low": 0.9, "high": 0.1}},
            {"at": 10, "ratios": {"low": 0.2, "high": 0.8}},
        ],
    }
    mixture.write_text(
        yaml.safe_dump({"sources": values["data"]["datasets"], "schedule": schedule})
    )
    for key in ("mixture", "metrics_interval"):
        values.pop(key)
    values["data"] = {"paths": [f"mixlaw:mixture?config={mixture}"]}
    values["model"].update(init_device="cpu", precision="fp32")
    values.update(save_overwrite=True, console_log_interval=1, stop_at=12, **changes)
    return values, mixture


def test_a_plain_olmo_configuration_gets_the_planned_batches(write: Write, tmp_path: Path) -> None:
    values, mixture = plain_olmo(write, tmp_path)
    config = TrainConfig.new(**values)
    loader = build_for_olmo(config, world_size=1, rank=0)
    batches = [batch["input_ids"] for batch in loader]
    assert len(batches) == 12
    assert all(batch.shape == (8, 16) for batch in batches)
    custom = MixtureDataset(
        str(mixture),
        values["tokenizer"]["identifier"],
        300,
        16,
        0,
        n_steps=12,
        global_train_batch_size=8,
        seed=3,
        shuffle_seed=3,
    )
    order = IterableDataset(custom, 8, seed=3, shuffle=True, world_size=1, rank=0)
    rows = torch.stack([item["input_ids"] for item in order])[: 12 * 8]
    assert torch.equal(torch.cat(batches), rows)


def test_a_custom_dataset_that_is_shuffled_takes_no_schedule(write: Write, tmp_path: Path) -> None:
    values, mixture = plain_olmo(write, tmp_path)
    with pytest.raises(ConfigError, match=r"give args\.shuffle_seed the run's seed"):
        MixtureDataset(
            str(mixture),
            values["tokenizer"]["identifier"],
            300,
            16,
            0,
            n_steps=12,
            global_train_batch_size=8,
        )


@dataclass(frozen=True)
class BySize(Schedule):
    """A package's schedule that asks for the size of the model."""

    n_params: int | None = None

    def pieces(self, run: RunLength) -> Pieces:
        assert self.n_params is not None
        share = 1 / self.n_params
        return Constant(self.labels, ratios={"low": share, "high": 1 - share}).pieces(run)


def test_a_schedule_learns_the_size_of_the_model_from_either_script(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SCHEDULES, "_local", {"by_size": BySize})
    values, mixture = plain_olmo(write, tmp_path)
    section = yaml.safe_load(mixture.read_text())
    mixture.write_text(yaml.safe_dump({**section, "schedule": {"name": "by_size"}}))
    config = TrainConfig.new(**values)
    state = torch.get_rng_state()
    size = count_params(config)
    assert torch.equal(torch.get_rng_state(), state)
    loader = build_for_olmo(config, world_size=1, rank=0)
    assert loader.dataset.mixture.plan.pieces.first[0, 1] == pytest.approx(1 / size)
    final = train(write(data={}, mixture={"file": str(mixture)}, max_duration=1))
    record = json.loads((final.parent / "mixture.json").read_text())
    assert record["sources"]["low"]["asked_ratio"] == pytest.approx(1 / size)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled", **more}


@pytest.mark.slow
@pytest.mark.skipif(not SCRIPT.is_file(), reason="OLMO_MAIN names no checkout of OLMo")
def test_the_main_branchs_own_script_trains_on_our_uris(write: Write, tmp_path: Path) -> None:
    """The same plan by URIs and as a custom dataset: the same weights in the end."""
    finals = []
    for kind in ("uris", "custom"):
        folder = tmp_path / kind
        values, mixture = plain_olmo(
            write, tmp_path, distributed_strategy="single", no_pre_train_checkpoint=True
        )
        values.update(save_folder=str(folder), ddp=None)
        if kind == "custom":
            arguments = {
                "config": str(mixture),
                "tokenizer": values["tokenizer"]["identifier"],
                "vocab_size": 300,
                "sequence_length": 16,
                "eos_token_id": 0,
                "n_steps": 12,
                "global_train_batch_size": 8,
                "seed": 3,
                "shuffle_seed": 3,
            }
            name = "olmo_mixlaw.training.custom_dataset.MixtureDataset"
            collate = {"input_id_field": "input_ids"}
            values["data"] = {
                "custom_dataset": {"name": name, "args": arguments, "collate_config": collate}
            }
        path = tmp_path / f"{kind}.yaml"
        path.write_text(yaml.safe_dump(values))
        alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
        done = subprocess.run(
            [sys.executable, str(SCRIPT), str(path)],
            env=environment(PYTHONPATH=str(OLMO_MAIN), MASTER_PORT=str(free_port()), **alone),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        finals.append(torch.load(folder / "step12-unsharded" / "model.pt", weights_only=True))
    assert all(torch.equal(finals[0][key], finals[1][key]) for key in finals[0])


def torchrun(config: Path, *overrides: str) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc-per-node=2",
            f"--master-port={free_port()}",
            "-m",
            "olmo_mixlaw.training.launch",
            str(config),
            *overrides,
        ],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def read(path: Path) -> np.ndarray:
    return np.genfromtxt(path, delimiter=",", names=True)


@pytest.mark.slow
def test_two_processes_train_as_one_and_resume_exactly_or_alone(write: Write) -> None:
    one = read(train(write("one")).parent / "metrics.csv")
    config = write("two")
    torchrun(config)
    folder = config.with_suffix("")
    two = read(folder / "metrics.csv")
    assert (two["tokens_low"] == one["tokens_low"]).all()
    for column in ("loss", "loss_low", "loss_high"):
        np.testing.assert_allclose(two[column], one[column], rtol=1e-4)
    stopped = write("stopped")
    torchrun(stopped, "--stop_at=5")
    moved = write("moved")
    shutil.copytree(stopped.with_suffix(""), moved.with_suffix(""), symlinks=True)
    torchrun(stopped)
    other = stopped.with_suffix("")
    assert (other / "metrics.csv").read_bytes() == (folder / "metrics.csv").read_bytes()
    assert (other / "mixture.json").read_bytes() == (folder / "mixture.json").read_bytes()
    weights = [
        torch.load(path / "step12-unsharded" / "model.pt", weights_only=True)
        for path in (folder, other)
    ]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    # The same checkpoint goes on with one process: the same batches, sums in another order.
    alone = read(train(moved).parent / "metrics.csv")
    assert (alone["tokens_low"] == one["tokens_low"]).all()
    np.testing.assert_allclose(alone["loss"], one["loss"], rtol=1e-4)
