"""Our loader beside OLMo-core's own on the same token files: ratios met, and time a batch.

Two sources are asked for at 0.7 and 0.3. OLMo-core mixes them by its SourceMixture and its numpy
loader, which shuffles; we by a plan. Of both, the share of the first source is counted in windows
of 256 examples, over the whole run. A batch's time is processor time of this process, which does
all of the work, in turns; the median of five rounds. Goal: every window within one example of
what is asked, and no more time than OLMo-core's.

    python benchmarks/core_loader.py [--tokens 2e7]

Needs an environment with the extra `olmo-core`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import record
import yaml
from olmo_core.data import (
    NumpyDataLoaderConfig,
    NumpyDatasetDType,
    NumpyFSLDatasetConfig,
    TokenizerConfig,
)
from olmo_core.data.source_mixture import (
    SourceMixtureConfig,
    SourceMixtureDatasetConfig,
    SourceMixtureList,
)
from olmo_core.train import Duration

from olmo_mixlaw.datasets import train_tokenizer
from olmo_mixlaw.training_core.scripts import MixtureDatasetConfig, MixtureLoaderConfig

ASKED = {"first": 0.7, "second": 0.3}
LENGTH, ROWS, WINDOW, REPEATS = 1024, 8, 256, 5
# Ids below are of the first source, so that a sequence tells where it comes from.
BORDER, TOP = 150, 290


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokens", type=float, default=2e7, help="how many tokens a run has")
    steps = int(parser.parse_args().tokens) // (LENGTH * ROWS)
    with tempfile.TemporaryDirectory() as folder:
        write_sources(Path(folder), steps * ROWS * LENGTH)
        loaders = {
            "olmo-mixlaw": lambda seed: ours(Path(folder), steps, seed),
            "OLMo-core": lambda seed: theirs(Path(folder), steps, seed),
        }
        shares = {name: windows(build(1)) for name, build in loaders.items()}
        times: dict[str, list[float]] = {name: [] for name in loaders}
        for _ in range(REPEATS):
            for name, build in loaders.items():
                times[name].append(seconds_a_batch(build(1)))
    figures = {name: figure(shares[name], times[name]) for name in loaders}
    print(f"{'loader':12} {'asked':>6} {'windows':>8} {'least':>7} {'most':>7} {'us a batch':>11}")
    for name, one in figures.items():
        print(
            f"{name:12} {ASKED['first']:6.2f} {one['windows']:8d} {one['least']:7.4f} "
            f"{one['most']:7.4f} {one['microseconds_a_batch']:11.1f}"
        )
    record.save(
        "core_loader",
        figures,
        asked=ASKED,
        sequence_length=LENGTH,
        sequences_a_batch=ROWS,
        window=WINDOW,
        steps=steps,
        repeats=REPEATS,
    )


def figure(shares: np.ndarray, times: list[float]) -> dict[str, Any]:
    return {
        "windows": len(shares),
        "least": float(shares.min()),
        "most": float(shares.max()),
        "mean": float(shares.mean()),
        "microseconds_a_batch": statistics.median(times) * 1e6,
    }


def write_sources(folder: Path, tokens: int) -> None:
    """Token files as large as the run, so that no source repeats, and a mixture of them."""
    train_tokenizer([f"{i} is {i * i}" for i in range(300)], 300, folder / "tokenizer.json")
    rng = np.random.default_rng(0)
    for label, low, high in (("first", 2, BORDER), ("second", BORDER, TOP)):
        ids = rng.integers(low, high, tokens).astype(np.uint16)
        ids[LENGTH // 2 :: LENGTH // 2] = 0  # documents end
        ids.tofile(folder / f"{label}.npy")
    mixture = {
        "sources": {label: [str(folder / f"{label}.npy")] for label in ASKED},
        "ratios": ASKED,
        "block_size": WINDOW,
    }
    (folder / "mixture.yaml").write_text(yaml.safe_dump(mixture))


def tokenizer(folder: Path) -> TokenizerConfig:
    return TokenizerConfig(
        vocab_size=300, eos_token_id=0, pad_token_id=1, identifier=str(folder / "tokenizer.json")
    )


def ours(folder: Path, steps: int, seed: int) -> Any:
    dataset = MixtureDatasetConfig(
        tokenizer=tokenizer(folder),
        mixture=str(folder / "mixture.yaml"),
        sequence_length=LENGTH,
        max_duration=Duration.steps(steps),
        work_dir=str(folder),
    )
    return MixtureLoaderConfig(global_batch_size=LENGTH * ROWS, seed=seed).build(dataset.build())


def theirs(folder: Path, steps: int, seed: int) -> Any:
    mixture = SourceMixtureDatasetConfig(
        source_list=SourceMixtureList(
            sources=[
                SourceMixtureConfig(
                    source_name=label, target_ratio=ratio, paths=[str(folder / f"{label}.npy")]
                )
                for label, ratio in ASKED.items()
            ]
        ),
        requested_tokens=steps * LENGTH * ROWS,
        global_batch_size=LENGTH * ROWS,
        seed=seed,
        render_tables=False,
        quiet=True,
    )
    dataset = NumpyFSLDatasetConfig.from_src_mix(
        mixture,
        tokenizer=tokenizer(folder),
        sequence_length=LENGTH,
        dtype=NumpyDatasetDType.uint16,
        work_dir=str(folder),
    )
    loader = NumpyDataLoaderConfig(
        global_batch_size=LENGTH * ROWS, seed=seed, work_dir=str(folder), num_threads=0
    )
    return loader.build(dataset.build())


def started(loader: Any) -> Iterable[dict[str, Any]]:
    loader.reshuffle(epoch=1)
    return loader


def windows(loader: Any) -> np.ndarray:
    """The share of the first source in each whole window of the run."""
    first = [(batch["input_ids"].max(dim=1).values < BORDER).numpy() for batch in started(loader)]
    found = np.concatenate(first)
    whole = len(found) // WINDOW
    return found[: whole * WINDOW].reshape(whole, WINDOW).mean(axis=1)


def seconds_a_batch(loader: Any) -> float:
    batches = iter(started(loader))
    next(batches)
    start, count = time.process_time(), 0
    for _ in batches:
        count += 1
    return (time.process_time() - start) / count


if __name__ == "__main__":
    main()
