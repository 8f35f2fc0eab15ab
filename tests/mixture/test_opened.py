"""A run's sources, opened for any trainer: what is read, what is refused, and where it points."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from olmo_mixlaw.datasets import train_tokenizer
from olmo_mixlaw.errors import MixlawError
from olmo_mixlaw.mixture import config as mixture_config
from olmo_mixlaw.mixture.config import MixtureConfig
from olmo_mixlaw.mixture.opened import Mixture, description, open_mixture, steps_until_exhausted
from olmo_mixlaw.mixture.schedule import RunLength

RUN = RunLength(n_steps=20, batch_size=8, sequence_length=16)
HALVES = {"high": 0.5, "low": 0.5}
STAGES = {
    "name": "stages",
    "units": "steps",
    "knots": [{"at": 0, "ratios": {"low": 1.0}}, {"at": 10, "ratios": {"high": 1.0}}],
}

# What a mixture must not know of: trainers, and what only some schedules need.
FOREIGN = ("training", "laws", "advice", "evaluation", "study", "models")

Open = Callable[..., Mixture]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer, and the memmaps of two sources: 20 and 200 sequences of 16."""
    folder = tmp_path_factory.mktemp("sources")
    train_tokenizer([f"{i} is {i * i}" for i in range(300)], 300, folder / "tokenizer.json")
    for name, count in (("low", 320), ("high", 3200)):
        (np.arange(count) % 290).astype(np.uint16).tofile(folder / f"{name}.npy")
    return folder


@pytest.fixture
def uris(folder: Path) -> dict[str, list[str]]:
    return {label: [str(folder / f"{label}.npy")] for label in ("low", "high")}


@pytest.fixture
def opened(folder: Path) -> Open:
    def opened(config: MixtureConfig | None, uris: dict[str, list[str]], **more: Any) -> Mixture:
        given = {"tokenizer": str(folder / "tokenizer.json"), "vocab_size": 300, **more}
        return open_mixture(config, uris, RUN, eos_token_id=0, seed=3, where="run.yaml", **given)

    return opened


def write(path: Path, **section: Any) -> MixtureConfig:
    """A mixture file, and the section that names it."""
    path.write_text(yaml.safe_dump(section))
    return MixtureConfig(file=str(path))


def test_nothing_here_imports_a_trainer_or_a_law() -> None:
    code = "import sys, olmo_mixlaw.mixture.opened; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "olmo_mixlaw.mixture.opened" in loaded
    for host in ("olmo", "torch", "transformers", *(f"olmo_mixlaw.{n}" for n in FOREIGN)):
        assert host not in loaded, host


def test_the_sources_of_a_mixture_file_are_those_of_the_run(
    opened: Open, uris: dict[str, list[str]], tmp_path: Path
) -> None:
    here = opened(MixtureConfig(ratios=HALVES), uris)
    whole = opened(write(tmp_path / "m.yaml", ratios=HALVES, sources=uris), {})
    assert whole.labels == here.labels == ("high", "low")
    assert whole.uris == here.uris
    examples = np.arange(RUN.n_examples)
    for one, other in zip(whole.sequences(examples), here.sequences(examples), strict=True):
        assert (one == other).all()


def test_a_single_source_needs_no_mixture(opened: Open, uris: dict[str, list[str]]) -> None:
    mixture = opened(None, {"high": uris["high"]})
    assert mixture.plan.pieces.first.tolist() == [[1.0]]
    assert description(mixture)["schedule"] == {"name": "constant"}
    assert steps_until_exhausted(mixture, RUN) == RUN.n_steps


def test_a_mixture_file_is_read_once(
    opened: Open, uris: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, read = [], mixture_config.read_mixture
    monkeypatch.setattr(
        mixture_config, "read_mixture", lambda *given: (reads.append(given), read(*given))[1]
    )
    section = write(tmp_path / "m.yaml", ratios=HALVES, sources=uris, max_epochs=9)
    mixture = opened(section, {})
    steps_until_exhausted(mixture, RUN)
    description(mixture)
    assert len(reads) == 1


def test_what_a_file_says_counts_as_if_it_stood_in_the_section(
    opened: Open, uris: dict[str, list[str]], tmp_path: Path
) -> None:
    """Its schedule is described, its limits hold, and its errors name it."""
    path = tmp_path / "m.yaml"
    mixture = opened(write(path, schedule=STAGES), uris)
    assert description(mixture)["schedule"] == {
        **STAGES,
        "file": None,
        "fit": None,
        "options": {},
        "examples": RUN.n_examples,
    }
    limited = opened(write(path, schedule=STAGES, repetition="stop", max_epochs=2), uris)
    assert steps_until_exhausted(limited, RUN) == 5
    refused = opened(write(path, schedule=STAGES, max_epochs=2), uris)
    with pytest.raises(MixlawError, match=r"source 'low' has 20 sequences") as error:
        steps_until_exhausted(refused, RUN)
    assert str(error.value).startswith(f"{path}: ")


def test_a_source_is_described_by_what_it_holds(
    opened: Open, uris: dict[str, list[str]], tmp_path: Path
) -> None:
    def contents(uris: dict[str, list[str]], **ratios: float) -> dict[str, Any]:
        found = description(opened(MixtureConfig(ratios=ratios), uris))["sources"]
        return {label: source.get("content") for label, source in found.items()}

    whole = contents(uris, **HALVES)
    moved = tmp_path / "moved.npy"
    moved.write_bytes(Path(uris["low"][0]).read_bytes())
    assert contents({**uris, "low": [str(moved)]}, **HALVES) == whole
    assert contents({**uris, "low": uris["high"]}, **HALVES)["low"] == whole["high"]
    tokens = np.fromfile(moved, np.uint16)
    tokens[100] += 1
    tokens.tofile(moved)
    changed = contents({**uris, "low": [str(moved)]}, **HALVES)
    assert changed["high"] == whole["high"]
    assert changed["low"] != whole["low"]
    texts = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "t.txt").write_text("\n\n".join(f"{i} is {i * i}" for i in range(99)))
        text = {**uris, "low": [f"mixlaw:text?path={tmp_path / name}/t.txt"]}
        config = MixtureConfig(ratios=HALVES, cache_dir=str(tmp_path / name))
        texts.append(description(opened(config, text))["sources"]["low"])
    assert texts[0]["uris"] != texts[1]["uris"]
    assert texts[0]["content"] == texts[1]["content"]
    endless = {"low": ["mixlaw:biography?n=20"], "high": ["/nowhere"]}
    assert contents(endless, low=1.0, high=0.0) == {"low": None, "high": "unused"}


def test_a_source_of_ratio_0_is_never_opened(opened: Open, uris: dict[str, list[str]]) -> None:
    more = {**uris, "none": ["mixlaw:text?path=/nowhere"]}
    mixture = opened(MixtureConfig(ratios={**HALVES, "none": 0.0}), more)
    assert mixture.plan.sizes == (200, 20, None)
    with pytest.raises(AssertionError, match="ratio 0"):
        mixture.sources[2].sequence(0)


def test_a_tokenizer_is_trained_on_the_sources_where_there_is_none(
    opened: Open, uris: dict[str, list[str]], tmp_path: Path
) -> None:
    path = tmp_path / "new.json"
    people = {"people": ["mixlaw:biography?n=20"]}
    opened(None, people, tokenizer=str(path), train_vocab_size=300)
    assert path.is_file()
    with pytest.raises(MixlawError, match=r"run\.yaml: data\.datasets: no source has text"):
        opened(
            MixtureConfig(ratios=HALVES),
            uris,
            tokenizer=str(tmp_path / "none.json"),
            train_vocab_size=300,
        )


@pytest.mark.parametrize("in_file", [False, True])
def test_errors_of_a_source_name_the_place_that_names_it(
    opened: Open, tmp_path: Path, in_file: bool
) -> None:
    wrong, path = {"low": ["mixlaw:biografy?n=4"]}, tmp_path / "m.yaml"
    section, uris = MixtureConfig(ratios={"low": 1.0}), wrong
    if in_file:
        section, uris = write(path, ratios={"low": 1.0}, sources=wrong), {}
    with pytest.raises(MixlawError, match="unknown dataset 'biografy'") as error:
        opened(section, uris)
    place = f"{path}.sources.low" if in_file else "run.yaml: data.datasets.low"
    assert str(error.value).startswith(f"{place}: ")


def test_sources_are_named_once_and_mixed_on_purpose(
    opened: Open, uris: dict[str, list[str]], tmp_path: Path
) -> None:
    whole = write(tmp_path / "m.yaml", ratios=HALVES, sources=uris)
    with pytest.raises(MixlawError, match="names some too, in data; keep one of the two"):
        opened(whole, uris)
    with pytest.raises(MixlawError, match=r"run\.yaml: data: names no source, .*m\.yaml\.sources"):
        opened(write(tmp_path / "m.yaml", ratios=HALVES), {})
    with pytest.raises(MixlawError, match="mixture: is missing; say in what ratios to mix"):
        opened(None, uris)
    with pytest.raises(MixlawError, match=r"model\.vocab_size: 200 is below the 300 entries"):
        opened(MixtureConfig(ratios=HALVES), uris, vocab_size=200)
