"""Training files with the keys of OLMo's official ones, shrunk by overrides, run."""

from __future__ import annotations

import csv
import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

pytest.importorskip("olmo")

from olmo_mixlaw.errors import MixlawError
from olmo_mixlaw.training.config import load
from olmo_mixlaw.training.launch import train

Write = Callable[..., Path]

# As the official files: interpolations, numbers that YAML 1.1 takes for text, epochs, a filter.
OFFICIAL = """
run_name: large
seed: 6198
dry_run: false
wandb: {name: "${run_name}", project: some-project}
model:
  d_model: 512
  n_heads: 4
  n_layers: 8
  mlp_ratio: 8
  weight_tying: false
  alibi: false
  rope: true
  rope_theta: 500000
  flash_attention: true
  attention_dropout: 0.0
  attention_layer_norm: true
  include_bias: false
  block_type: sequential
  layer_norm_type: rms
  layer_norm_with_affine: true
  layer_norm_eps: 1e-6
  bias_for_layer_norm: false
  attention_layer_norm_with_affine: true
  norm_after: true
  activation_type: swiglu
  residual_dropout: 0.0
  embedding_dropout: 0.0
  max_sequence_length: 1024
  vocab_size: 300
  embedding_size: 320
  eos_token_id: 0
  pad_token_id: 1
  init_device: meta
  init_fn: normal
  init_std: 0.02
  init_cutoff_factor: 3
softmax_auxiliary_loss: true
auxiliary_loss_multiplier: 1e-5
compile: null
optimizer:
  name: adamw
  learning_rate: 3.0e-4
  weight_decay: 0.1
  eps: 1e-8
  decay_norm_and_bias: true
  decay_embeddings: false
  betas: [0.9, 0.95]
  metrics_log_interval: 10
scheduler:
  name: cosine_with_warmup
  units: tokens
  t_warmup: 8388608000
  t_max: 5e12
  alpha_f: 0.1
  warmup_min_lr: 0.0
  grad_clip_warmup_steps: 2e9
  grad_clip_warmup_factor: 5
tokenizer: {truncate_direction: right}
save_folder: runs/${run_name}
remote_save_folder: null
save_overwrite: false
save_interval: 1000
save_interval_ephemeral: 250
save_num_checkpoints_to_keep: -1
sharded_checkpointer: olmo_core
save_interval_unsharded: null
save_num_unsharded_checkpoints_to_keep: -1
load_path: null
max_duration: 1ep
global_train_batch_size: 1024
device_train_microbatch_size: 2
precision: amp_bf16
distributed_strategy: fsdp
fsdp: {wrapping_strategy: by_block_and_size, precision: mixed, sharding_strategy: FULL_SHARD}
activation_checkpointing: whole_layer
max_grad_norm: 1.0
max_grad_norm_ratio: null
speed_monitor: {window_size: 1}
gen1_gc_interval: 1
eval_interval: ${save_interval}
eval_subset_num_batches: -1
device_eval_batch_size: ${device_train_microbatch_size}
evaluators:
  - {label: some-task, type: downstream}
data:
  pad_direction: right
  memmap_dtype: uint16
  num_workers: 32
  drop_last: true
  pin_memory: true
  prefetch_factor: 8
  persistent_workers: true
  instance_filter: {repetition_max_period: 13, repetition_min_period: 1, repetition_max_count: 32}
  paths: [no/such/part-0.npy]
"""
SMALLER = [
    "--wandb=null",
    "--model.d_model=16",
    "--model.n_heads=2",
    "--model.n_layers=1",
    "--model.max_sequence_length=64",
    "--model.flash_attention=false",
    "--precision=fp32",
    "--distributed_strategy=ddp",
    "--fsdp=null",
    "--ddp.find_unused_params=false",
    "--activation_checkpointing=null",
    "--evaluators=[]",
    "--global_train_batch_size=4",
    "--device_train_microbatch_size=4",
    "--data.num_workers=0",
]


@pytest.fixture
def official(tokens: Path, tmp_path: Path) -> tuple[Path, list[str]]:
    """A file of their kind, and what makes it small enough for one core."""
    path = tmp_path / "large.yaml"
    path.write_text(OFFICIAL)
    places = [f"--save_folder={tmp_path / 'run'}"]
    places.append(f"--tokenizer.identifier={tokens / 'tokenizer.json'}")
    return path, [*SMALLER, *places]


def test_an_official_file_runs_for_its_epoch(
    official: tuple[Path, list[str]], tokens: Path
) -> None:
    path, smaller = official
    final = train(path, [*smaller, f"--data.paths=[{tokens / 'low.npy'}]"])
    assert final.name == f"step{4000 // 64 // 4}-unsharded"
    kept = load(final.parent / "config.yaml")
    assert kept.scheduler.t_max == 5e12
    assert kept.scheduler.grad_clip_warmup_steps == 2e9


def test_an_official_file_runs_on_a_mixture(
    official: tuple[Path, list[str]], tokens: Path, tmp_path: Path
) -> None:
    path, smaller = official
    data = [f"--data.datasets.{label}=[{tokens}/{label}.npy]" for label in ("low", "high")]
    mixture = ["--mixture.ratios.low=0.25", "--mixture.ratios.high=0.75", "--data.paths=null"]
    changes = [*smaller, *data, *mixture]
    with pytest.raises(MixlawError, match="'1ep' counts epochs, which a mixture doesn't have"):
        train(path, changes)
    final = train(path, [*changes, "--max_duration=3", "--scheduler.t_max=4e12"])
    assert final.name == "step3-unsharded"
    assert load(final.parent / "config.yaml").scheduler.t_max == 4e12


def test_a_fused_loss_without_its_library_is_refused(official: tuple[Path, list[str]]) -> None:
    path, smaller = official
    if importlib.util.find_spec("flash_attn") is not None:
        pytest.skip("it is installed")
    with pytest.raises(MixlawError, match="fused_loss: true needs flash_attn"):
        train(path, [*smaller, "--fused_loss=true"])


def test_domains_called_no_and_yes_come_back_from_our_own_files(write: Write, tokens: Path) -> None:
    data = {"datasets": {"no": [str(tokens / "low.npy")], "yes": [str(tokens / "high.npy")]}}
    ratios = {"no": 0.25, "yes": 0.75}
    final = train(write(data=data, mixture={"ratios": ratios}, max_duration=4))
    for kept in (final / "config.yaml", final.parent / "config.yaml"):
        assert set(yaml.safe_load(kept.read_text())["data"]["datasets"]) == {"no", "yes"}
    again = load(final.parent / "config.yaml")
    assert again.mixture is not None
    assert again.mixture.ratios == ratios
    assert train(final.parent / "config.yaml", ["max_duration=6"]).name == "step6-unsharded"
    with open(final.parent / "metrics.csv") as file:
        last = list(csv.DictReader(file))[-1]
    assert {"loss_no", "loss_yes"} <= set(last)


def test_a_domain_that_yaml_takes_for_a_truth_value_is_to_be_quoted(
    write: Write, tokens: Path
) -> None:
    path = write()
    text = path.read_text().replace("low:", "no:")
    path.write_text(text)
    with pytest.raises(MixlawError, match=r"data\.datasets: the key False .* quotes"):
        train(path)


def repeating(tokens: Path, path: Path) -> Path:
    """Every second sequence of 16 tokens is one token over and over."""
    ids = np.fromfile(tokens / "high.npy", np.uint16).reshape(-1, 16)
    ids[1::2] = 7
    ids.tofile(path)
    return path


def filtered(**limits: int) -> dict[str, int]:
    limits = {"repetition_max_count": 8, "repetition_min_period": 1} | limits
    return {"repetition_max_period": 3} | limits


@pytest.mark.parametrize("accumulated", [1, 2])
def test_the_instance_filter_leaves_the_same_losses_out_as_olmos_own(
    write: Write, tokens: Path, tmp_path: Path, accumulated: int
) -> None:
    from olmo.data.memmap_dataset import MemMapDataset

    from olmo_mixlaw.training.loader import repeats

    limits = load(write(data={"paths": ["x"], "instance_filter": filtered()})).data.instance_filter
    assert limits is not None
    path = repeating(tokens, tmp_path / "half.npy")
    theirs = MemMapDataset(path, chunk_size=16, instance_filter_config=limits)
    kept = [bool(theirs[i]["instance_mask"]) for i in range(40)]
    assert kept == [True, False] * 20
    rows = np.fromfile(path, np.uint16).reshape(-1, 16)[:40].astype(np.int64)
    assert [not repeats(row, limits) for row in rows] == kept
    data = {"datasets": {"web": [str(path)]}, "instance_filter": filtered()}
    config = write(
        data=data, mixture={"ratios": {"web": 1.0}}, device_train_microbatch_size=8 // accumulated
    )
    final = train(config)
    model = torch.load(final / "model.pt", weights_only=True)
    assert all(torch.isfinite(value).all() for value in model.values())
    with open(final.parent / "metrics.csv") as file:
        metrics = list(csv.DictReader(file))
    # A model that saw the other half would know token 7; the loss of what is left stays at chance.
    assert abs(float(metrics[0]["loss"]) - np.log(320)) < 0.3
    assert float(metrics[-1]["loss"]) > 5
    every = train(
        write("every", data={"datasets": {"web": [str(path)]}}, mixture={"ratios": {"web": 1.0}})
    )
    with open(every.parent / "metrics.csv") as file:
        assert float(list(csv.DictReader(file))[-1]["loss"]) < 5


def test_a_batch_of_nothing_but_repetition_has_no_loss(write: Write, tmp_path: Path) -> None:
    path = tmp_path / "same.npy"
    np.full(4000, 7, np.uint16).tofile(path)
    data = {"datasets": {"web": [str(path)]}, "instance_filter": filtered()}
    final = train(write(data=data, mixture={"ratios": {"web": 1.0}}, max_duration=2))
    with open(final.parent / "metrics.csv") as file:
        assert [row["loss"] for row in csv.DictReader(file)] == ["", ""]


@pytest.mark.parametrize(
    ("name", "units", "at", "warned"),
    [
        ("stages", "tokens", 12 * 8 * 16, True),
        ("stages", "tokens", 11 * 8 * 16, False),
        ("stages", "steps", 13, True),
        ("stages", "fraction", 1.0, True),
        ("linear", "steps", 12, False),
        ("linear", "steps", 100, True),
    ],
)
def test_a_stage_beyond_the_runs_end_is_warned_of(
    write: Write, caplog: pytest.LogCaptureFixture, name: str, units: str, at: float, warned: bool
) -> None:
    knots: list[dict[str, Any]] = [
        {"at": 0, "ratios": {"low": 0.5, "high": 0.5}},
        {"at": at, "ratios": {"low": 0.1, "high": 0.9}},
    ]
    schedule = {"name": name, "units": units, "knots": knots}
    with caplog.at_level(logging.WARNING):
        train(write(mixture={"schedule": schedule}))
    said = [message for message in caplog.messages if "beyond the run" in message]
    assert len(said) == warned
    if warned:
        assert "mixture.schedule.knots.1.at" in said[0]
        assert "ends after 12 steps (1536 tokens)" in said[0]
