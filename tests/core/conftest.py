"""A run on OLMo-core so small that it trains in a second. Skipped where its version 3 is not."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pytest
import yaml

os.environ.setdefault("OMP_NUM_THREADS", "1")

LENGTH, ROWS, STEPS, VOCABULARY = 16, 8, 12, 300
MAJOR = "3"


def core_is_there() -> bool:
    """Whether ai2-olmo-core 3 is installed; ai2-olmo brings a much older one."""
    try:
        return version("ai2-olmo-core").partition(".")[0] == MAJOR
    except PackageNotFoundError:
        return False


# Where it isn't, files that import it must not even be collected.
collect_ignore_glob = [] if core_is_there() else ["test_*.py"]


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer, the token files of two sources that differ, and mixtures."""
    from olmo_mixlaw.datasets import train_tokenizer

    folder = tmp_path_factory.mktemp("tokens")
    train_tokenizer([f"{i} is {i * i}" for i in range(300)], VOCABULARY, folder / "tokenizer.json")
    rng = np.random.default_rng(0)
    for name, top, count in (("low", 60, 4000), ("high", 290, 40_000)):
        rng.integers(2, top, count).astype(np.uint16).tofile(folder / f"{name}.npy")
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
