"""Numbers that no run can have are refused by file, key and range, before any work."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("olmo")

from olmo_mixlaw.errors import ConfigError, UnknownNameError
from olmo_mixlaw.training.config import check, load
from olmo_mixlaw.training.custom_dataset import MixtureDataset
from olmo_mixlaw.training.launch import train

Write = Callable[..., Path]


def changed(write: Write, key: str, value: Any) -> Path:
    """The training file of the tests with one key changed."""
    path = write("bad")
    values = yaml.safe_load(path.read_text())
    section = values
    *outer, last = key.split(".")
    for name in outer:
        section = section.setdefault(name, {})
    section[last] = value
    path.write_text(yaml.safe_dump(values))
    return path


BAD = [
    ("model.max_sequence_length", -128, "at least 2"),
    ("model.max_sequence_length", 1, "at least 2"),
    ("model.d_model", -16, "at least 1"),
    ("model.n_heads", -2, "at least 1"),
    ("model.n_kv_heads", 0, "at least 1"),
    ("model.n_layers", 0, "at least 1"),
    ("model.n_layers", 2e12, "at least 1 and at most 100,000"),
    ("model.mlp_hidden_size", -176, "at least 1"),
    ("model.mlp_ratio", 0, "at least 1"),
    ("model.block_group_size", 0, "at least 1"),
    ("model.vocab_size", -1, "at least 1"),
    ("model.rope_theta", 0, "above 0"),
    ("model.layer_norm_eps", -1e-5, "above 0"),
    ("model.init_std", 0, "above 0"),
    ("model.attention_dropout", 1, "at least 0 and below 1"),
    ("model.residual_dropout", -0.1, "at least 0 and below 1"),
    ("model.embedding_dropout", 12e6, "at least 0 and below 1"),
    ("model.eos_token_id", -1, "at least 0"),
    ("optimizer.learning_rate", -0.1, "at least 0 and finite"),
    ("optimizer.learning_rate", math.inf, "at least 0 and finite"),
    ("optimizer.weight_decay", -0.1, "at least 0 and finite"),
    ("optimizer.betas", [900, 0.95], "at least 0 and below 1"),
    ("optimizer.betas", [0.9, -0.95], "at least 0 and below 1"),
    ("optimizer.eps", -1e-8, "at least 0 and at most 1"),
    ("tokenizer.train_vocab_size", 100, "at least 258"),
    ("tokenizer.train_vocab_size", 1e15, "at least 258 and at most 10,000,000"),
    ("scheduler.alpha_f", -0.1, "at least 0 and at most 1"),
    ("scheduler.t_warmup", -5, "at least 0 and finite"),
    ("data.num_workers", -1, "at least 0"),
    ("data.seed", -1, "at least 0"),
    ("seed", -1, "at least 0 and at most 4,294,967,295"),
    ("seed", 2**32, "at least 0 and at most 4,294,967,295"),
    ("save_interval", 0, "at least 1"),
    ("save_interval_unsharded", 0, "at least 1"),
    ("save_num_unsharded_checkpoints_to_keep", -2, "at least -1"),
    ("console_log_interval", 0, "at least 1"),
    ("device_eval_batch_size", 0, "at least 1"),
    ("max_grad_norm", -1, "above 0"),
    ("max_grad_norm", 0, "above 0"),
    ("time_limit", -1, "above 0"),
    ("stop_at", -1, "at least 1"),
    ("gen1_gc_interval", 0, "at least 1"),
]


@pytest.mark.parametrize(("key", "value", "range_"), BAD, ids=[f"{k}={v}" for k, v, _ in BAD])
def test_a_number_out_of_range_is_refused(write: Write, key: str, value: Any, range_: str) -> None:
    path = changed(write, key, value)
    with pytest.raises(ConfigError) as refused:
        train(path)
    said = str(refused.value)
    assert f"{path}: {key}: " in said
    assert f"it must be {range_}" in said
    assert not path.with_suffix("").exists()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model.n_heads", 3, "model.d_model: 16 can't be divided by n_heads, 3"),
        ("model.mlp_hidden_size", 33, "mlp_hidden_size: 33 can't be divided by 2"),
        ("model.eos_token_id", 10_000, "model.eos_token_id: 10000; the model has "),
        ("optimizer.weight_decay", 1e11, "weight_decay: 1e+11; times the learning rate"),
        (
            "data.instance_filter",
            {"repetition_max_count": 0},
            "data.instance_filter: repetition_max_count: 0; it must be at least 1",
        ),
        (
            "data.instance_filter",
            {"repetition_min_period": 14},
            "repetition_min_period: 14; it must be at most repetition_max_period, 13",
        ),
        (
            "evaluators",
            [{"label": "x", "type": "heldout", "device_eval_batch_size": 0}],
            "evaluators.0: device_eval_batch_size: 0; it must be at least 1",
        ),
    ],
)
def test_numbers_that_do_not_go_together_are_refused(
    write: Write, key: str, value: Any, said: str
) -> None:
    path = changed(write, key, value)
    with pytest.raises(ConfigError) as refused:
        train(path)
    assert said in str(refused.value)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("section", ["model", "optimizer", "data"])
def test_a_section_that_was_cut_off_is_refused(write: Write, section: str) -> None:
    with pytest.raises(ConfigError, match=f"{section}: expected a mapping, found None"):
        load(changed(write, section, None))


def test_the_least_and_the_greatest_are_accepted(write: Write) -> None:
    for key, value in (
        ("model.max_sequence_length", 2),
        ("optimizer.weight_decay", 0),
        ("optimizer.learning_rate", 0),
        ("scheduler.alpha_f", 1),
        ("seed", 2**32 - 1),
        ("save_num_checkpoints_to_keep", -1),
        ("save_interval", None),
        ("max_grad_norm", None),
    ):
        check(load(changed(write, key, value)), "run.yaml", 1, on_gpu=False)


def custom(write: Write, tmp_path: Path, **arguments: Any) -> MixtureDataset:
    """The tests' own sources, of which `high` is one token over and over."""
    values = yaml.safe_load(write("ours").read_text())
    same = tmp_path / "same.npy"
    np.full(4000, 7, np.uint16).tofile(same)
    sources = {**values["data"]["datasets"], "high": [str(same)]}
    mixture = tmp_path / "mixture.yaml"
    section = {"sources": sources, "ratios": {"low": 0.3, "high": 0.7}}
    mixture.write_text(yaml.safe_dump(section))
    return MixtureDataset(
        str(mixture),
        values["tokenizer"]["identifier"],
        300,
        16,
        0,
        n_steps=2,
        global_train_batch_size=8,
        **arguments,
    )


def test_a_custom_dataset_leaves_repetition_out_where_it_is_asked_to(
    write: Write, tmp_path: Path
) -> None:
    assert "instance_mask" not in custom(write, tmp_path)[0]
    limits = {"repetition_max_count": 8, "repetition_max_period": 3}
    found = custom(write, tmp_path, instance_filter=limits)
    items = [found[i] for i in range(16)]
    repeated = [bool((item["input_ids"] == 7).all()) for item in items]
    assert 0 < sum(repeated) < 16
    assert [not item["instance_mask"] for item in items] == repeated


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"repetition_max_counts": 3}, UnknownNameError, "instance_filter: unknown key"),
        ({"repetition_max_count": 0}, ConfigError, "repetition_max_count: 0; it must be at least"),
        ({"repetition_max_count": "8"}, ConfigError, "'8'; it must be a whole number"),
        ([8], ConfigError, "instance_filter: expected a mapping with"),
    ],
)
def test_a_filter_of_a_custom_dataset_is_checked(
    write: Write, tmp_path: Path, given: Any, error: type[ConfigError], said: str
) -> None:
    with pytest.raises(error, match=said):
        custom(write, tmp_path, instance_filter=given)
