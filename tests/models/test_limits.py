"""Sizes and rules that no model has are refused where a ladder is read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.models.ladder import ladders, load_ladder
from olmo_mixlaw.models.limits import Limit

SHAPE = {"n_layers": 2, "n_heads": 2, "context": 64, "mlp_size": 64, "d_model": 16}
MOE = {"num_experts": 4, "top_k": 2, "expert_size": 8}


def write(folder: Path, training: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A ladder of one rung."""
    path = folder / "ladder.yaml"
    rung = {**SHAPE, **changes}
    path.write_text(yaml.safe_dump({"training": training or {}, "rungs": {"a": rung}}))
    return path


@pytest.mark.parametrize(
    ("key", "value", "range_"),
    [
        ("tokens_per_param", -1, "above 0 and at most 100,000,000"),
        ("tokens_per_param", 0, "above 0"),
        ("tokens_per_param", 2e13, "above 0 and at most"),
        ("tokens_per_param", math.inf, "above 0 and at most"),
        ("batch_sequences", -8, "at least 1"),
        ("batch_sequences", 0, "at least 1"),
        ("learning_rate", -0.001, "above 0 and finite"),
        ("learning_rate", 0, "above 0 and finite"),
        ("learning_rate", math.inf, "above 0 and finite"),
        ("warmup_fraction", -0.1, "at least 0 and below 1"),
        ("warmup_fraction", 1, "at least 0 and below 1"),
        ("decay_fraction", 0, "above 0 and at most 1"),
        ("decay_fraction", 1.5, "above 0 and at most 1"),
        ("weight_decay", -0.1, "at least 0 and finite"),
    ],
)
def test_a_rule_of_training_is_refused_with_file_key_and_range(
    tmp_path: Path, key: str, value: float, range_: str
) -> None:
    path = write(tmp_path, training={key: value})
    with pytest.raises(ConfigError) as refused:
        load_ladder(path)
    assert f"{path}: rungs.a.training: {key}: " in str(refused.value)
    assert f"it must be {range_}" in str(refused.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("d_model", -16),
        ("d_model", "12M"),
        ("n_layers", 0),
        ("n_layers", 2e12),
        ("n_heads", -2),
        ("n_kv_heads", 0),
        ("mlp_size", -64),
        ("mlp_size", 64e12),
        ("context", -64),
        ("context", 1),
        ("vocab_size", 0),
        ("norm_eps", 0),
        ("norm_eps", math.inf),
        ("rope_theta", -1),
        ("init_std", -0.02),
        ("init_cutoff", 0),
        ("eos_token_id", -1),
        ("pad_token_id", 1024),
    ],
)
def test_a_shape_that_no_model_has_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    path = write(tmp_path, **{key: value})
    with pytest.raises(ConfigError, match=rf"ladder\.yaml: rungs\.a: {key}: .*; it must be "):
        load_ladder(path)


@pytest.mark.parametrize("key", ["load_balance_weight", "gate_scale", "bias_update_rate"])
def test_weights_of_experts_are_finite(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"rungs\.a: moe: {key}: inf; it must be "):
        load_ladder(write(tmp_path, moe={**MOE, key: math.inf}))


def test_a_decay_that_leaves_nothing_of_a_weight_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, training={"weight_decay": "12M", "learning_rate": 0.001})
    with pytest.raises(ConfigError, match=r"weight_decay: 1\.2e\+07; times the learning rate"):
        load_ladder(path)
    rung = load_ladder(write(tmp_path, training={"weight_decay": 100, "learning_rate": 0.001}))
    assert rung.rung("a").weight_decay == 100


def test_what_is_right_stays_right(tmp_path: Path) -> None:
    training = {"tokens_per_param": 0.5, "batch_sequences": 1, "warmup_fraction": 0}
    rung = load_ladder(write(tmp_path, training=training, context=2)).rung("a")
    assert rung.n_steps() == math.ceil(0.5 * rung.n_active / 2)
    assert len(list(ladders())) >= 3


@pytest.mark.parametrize(
    ("limit", "value", "holds"),
    [
        (Limit(0, 1), 0, True),
        (Limit(0, 1), 1, True),
        (Limit(0, 1, above=True), 0, False),
        (Limit(0, 1, below=True), 1, False),
        (Limit(0), math.inf, False),
        (Limit(0), math.nan, False),
        (Limit(-1), -1, True),
    ],
)
def test_a_limit_holds_from_end_to_end(limit: Limit, value: float, holds: bool) -> None:
    assert limit.holds(value) is holds
