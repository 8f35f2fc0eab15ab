"""A run so small that it trains in a second: 16-wide models on two short token files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

os.environ.setdefault("OMP_NUM_THREADS", "1")

LENGTH, BATCH = 16, 8


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer and the memmaps of two sources that differ."""
    from olmo_mixlaw.datasets import train_tokenizer

    folder = tmp_path_factory.mktemp("tokens")
    train_tokenizer([f"{i} is {i * i}" for i in range(300)], 300, folder / "tokenizer.json")
    rng = np.random.default_rng(0)
    for name, top, count in (("low", 60, 4000), ("high", 290, 40_000)):
        rng.integers(2, top, count).astype(np.uint16).tofile(folder / f"{name}.npy")
    return folder


@pytest.fixture
def write(tokens: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write a training file; keyword arguments replace its top-level keys."""

    def write(name: str = "run", /, **changes: Any) -> Path:
        values = example(tokens, tmp_path / name)
        values.update(changes)
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        return path

    return write


def example(tokens: Path, save_folder: Path) -> dict[str, Any]:
    return {
        "run_name": "tiny",
        "seed": 3,
        "model": {
            "d_model": 16,
            "n_heads": 2,
            "n_layers": 1,
            "mlp_hidden_size": 32,
            "activation_type": "swiglu",
            "layer_norm_type": "rms",
            "rope": True,
            "weight_tying": True,
            "include_bias": False,
            "max_sequence_length": LENGTH,
            "vocab_size": 300,
            "embedding_size": 320,
            "eos_token_id": 0,
            "pad_token_id": 1,
            "attention_dropout": 0.0,
            "residual_dropout": 0.0,
            "embedding_dropout": 0.0,
            "init_fn": "normal",
            "init_std": 0.02,
        },
        "tokenizer": {"identifier": str(tokens / "tokenizer.json")},
        "data": {"datasets": {label: [str(tokens / f"{label}.npy")] for label in ("low", "high")}},
        "mixture": {"ratios": {"low": 0.3, "high": 0.7}, "block_size": 32},
        "optimizer": {"name": "adamw", "learning_rate": 1e-2},
        "scheduler": {"name": "cosine_with_warmup", "t_warmup": 2, "alpha_f": 0.1},
        "distributed_strategy": "ddp",
        "ddp": {},
        "precision": "fp32",
        "max_duration": 12,
        "global_train_batch_size": BATCH,
        "device_train_microbatch_size": BATCH,
        "max_grad_norm": 1.0,
        "save_folder": str(save_folder),
        "save_interval": None,
        "save_interval_unsharded": 4,
        "console_log_interval": 100,
        "metrics_interval": 1,
    }
