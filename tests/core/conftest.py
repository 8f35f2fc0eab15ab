"""Runs on OLMo-core so small that each trains in a second. Skipped where its version 3 is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from tiny_core import write_tokens

from olmo_mixlaw.errors import CheckpointError
from olmo_mixlaw.training_core import saved

os.environ.setdefault("OMP_NUM_THREADS", "1")


def core_is_there() -> bool:
    """Whether ai2-olmo-core 3 is installed; ai2-olmo brings a much older one."""
    try:
        saved.require_core("tests")
    except CheckpointError:
        return False
    return True


# Where it isn't, files that import it at their top must not even be collected; the others skip what
# needs it by themselves.
collect_ignore = [] if core_is_there() else ["test_callback.py", "test_data.py", "test_scripts.py"]


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer, the token files of two sources that differ, and mixtures."""
    folder = write_tokens(tmp_path_factory.mktemp("tokens"))
    sources = {label: [str(folder / f"{label}.npy")] for label in ("low", "high")}
    ramp = {
        "name": "linear",
        "knots": [
            {"at": 0, "ratios": {"low": 0.25, "high": 0.75}},
            {"at": 1, "ratios": {"low": 0.75, "high": 0.25}},
        ],
    }
    for name, mixture in {
        "ramp": {"schedule": ramp},
        "flat": {"ratios": {"low": 0.25, "high": 0.75}},
    }.items():
        text = yaml.safe_dump({"sources": sources, "block_size": 16, **mixture})
        (folder / f"{name}.yaml").write_text(text)
    return folder


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from core_checkpoints import BIO, VOCAB

    from olmo_mixlaw.datasets import open_dataset, train_tokenizer

    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    dataset = open_dataset(BIO)
    train_tokenizer((dataset.document(i) for i in range(300)), VOCAB, path)
    return path


@pytest.fixture
def checkpoint(tmp_path: Path, tokenizer_file: Path) -> Path:
    from core_checkpoints import olmo2, write

    return write(tmp_path / "run" / "step2", olmo2(), tokenizer_file)[0]
