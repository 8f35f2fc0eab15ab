"""A run on OLMo-core so small that it trains in a second: 16 wide, on two short token files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from olmo_mixlaw.datasets import train_tokenizer

LENGTH, BATCH, STEPS, VOCABULARY = 16, 128, 12, 300
LABELS = ("high", "low")


def write_tokens(folder: Path) -> Path:
    """`folder`, with a tokenizer and the memmaps of two sources that differ."""
    train_tokenizer([f"{i} is {i * i}" for i in range(300)], VOCABULARY, folder / "tokenizer.json")
    rng = np.random.default_rng(0)
    for name, top, count in (("low", 60, 4000), ("high", 290, 40_000)):
        rng.integers(2, top, count).astype(np.uint16).tofile(folder / f"{name}.npy")
    return folder


def example(tokens: Path, save_folder: Path, **changes: Any) -> dict[str, Any]:
    """A training file as a mapping, its top-level keys replaced by `changes`."""
    values: dict[str, Any] = {
        "trainer": "olmo-core",
        "run_name": "tiny",
        "seed": 3,
        "model": {
            "factory": "llama_like",
            "overrides": {
                "d_model": 16,
                "n_heads": 2,
                "n_layers": 1,
                "hidden_size_multiple_of": 16,
                "qk_norm": True,
                "block_name": "reordered_norm",
            },
        },
        "tokenizer": {
            "identifier": str(tokens / "tokenizer.json"),
            "vocab_size": VOCABULARY,
            "eos_token_id": 0,
            "pad_token_id": 1,
        },
        "sequence_length": LENGTH,
        "global_batch_size": BATCH,
        "sources": {label: [str(tokens / f"{label}.npy")] for label in LABELS},
        "mixture": {"ratios": {"low": 0.3, "high": 0.7}, "block_size": 32},
        "optimizer": {"lr": 1e-2},
        "scheduler": {"name": "cosine", "warmup": 2, "alpha_f": 0.1},
        "max_duration": STEPS,
        "save_folder": str(save_folder),
        "save_interval": 4,
        "metrics_interval": 1,
        "console_interval": 100,
    }
    return {**values, **changes}


def write_run(tokens: Path, place: Path, name: str, **changes: Any) -> Path:
    """The training file `place/name.yaml` of a run in `place/name`."""
    path = place / f"{name}.yaml"
    values = example(tokens, place / name, **changes)
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path
