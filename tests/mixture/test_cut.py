"""Sources cut short, so that a run repeats them as a longer one would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from olmo_mixlaw.datasets import train_tokenizer
from olmo_mixlaw.errors import ConfigError, UnknownNameError
from olmo_mixlaw.mixture.config import MixtureConfig
from olmo_mixlaw.mixture.opened import Mixture, open_mixture
from olmo_mixlaw.mixture.schedule import RunLength

RUN = RunLength(n_steps=20, batch_size=8, sequence_length=16)
ENDLESS = "mixlaw:biography?n=8&seed=1&templates=1&pools=middle:0,birth_date:12,employer:4"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer, and two sources of 50 and 200 sequences of 16, none of them alike."""
    folder = tmp_path_factory.mktemp("sources")
    train_tokenizer([f"{i} is {i * i}" for i in range(300)], 300, folder / "tokenizer.json")
    for name, count in (("low", 50), ("high", 200)):
        tokens = np.arange(16 * count) // 16 % 290
        tokens.astype(np.uint16).tofile(folder / f"{name}.npy")
    return folder


def opened(folder: Path, more: dict[str, list[str]] | None = None, **section: Any) -> Mixture:
    uris = {name: [str(folder / f"{name}.npy")] for name in ("low", "high")} | (more or {})
    ratios = dict.fromkeys(uris, 1 / len(uris))
    return open_mixture(
        MixtureConfig(ratios=ratios, **section),
        uris,
        RUN,
        tokenizer=str(folder / "tokenizer.json"),
        vocab_size=300,
        eos_token_id=0,
        seed=3,
        where="run.yaml",
    )


def test_a_source_is_cut_to_its_tokens_at_random_and_repeats(folder: Path) -> None:
    mixture = opened(folder, source_tokens={"high": 10 * 16 + 5})
    assert mixture.plan.sizes == (10, 50)
    rows, sources = mixture.sequences(np.arange(RUN.n_examples))
    seen = np.unique(rows[sources == 0][:, 0], return_counts=True)
    assert len(seen[0]) == 10
    assert (seen[1] == 8).all()  # 80 of 160 examples
    assert seen[0].max() > 20  # not the first ones alone
    again = opened(folder, source_tokens={"high": 165}).sequences(np.arange(RUN.n_examples))[0]
    np.testing.assert_array_equal(rows, again)


def test_a_share_cuts_every_source_that_ends(folder: Path) -> None:
    mixture = opened(folder, {"bio": [ENDLESS]}, source_share=0.1, source_tokens={"low": 32})
    assert dict(zip(mixture.labels, mixture.plan.sizes, strict=True)) == {
        "bio": None,
        "high": 20,
        "low": 2,
    }


def test_a_source_without_end_is_cut_by_tokens(folder: Path) -> None:
    mixture = opened(folder, {"bio": [ENDLESS]}, source_tokens={"bio": 64})
    assert dict(zip(mixture.labels, mixture.plan.sizes, strict=True))["bio"] == 4
    rows, sources = mixture.sequences(np.arange(RUN.n_examples))
    assert len(np.unique(rows[sources == 0], axis=0)) == 4


def test_a_cut_beyond_the_source_leaves_it_whole(folder: Path) -> None:
    whole, same = opened(folder), opened(folder, source_tokens={"low": 1e9}, source_share=1.0)
    assert same.plan.sizes == whole.plan.sizes


@pytest.mark.parametrize(
    ("section", "error", "message"),
    [
        ({"source_tokens": {"lo": 99}}, UnknownNameError, "did you mean 'low'"),
        ({"source_tokens": {"low": 15}}, ConfigError, "fewer than one sequence of 16"),
        ({"source_tokens": {"low": 0}}, ConfigError, "source_tokens.low: 0; it must be above 0"),
        ({"source_share": 1.5}, ConfigError, "source_share: 1.5; it is a part of 1"),
        ({"source_share": 0.0}, ConfigError, "source_share: 0; it must be above 0"),
    ],
)
def test_wrong_cuts_are_refused(
    folder: Path, section: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        opened(folder, **section)
