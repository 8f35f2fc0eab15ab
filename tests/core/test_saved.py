"""Checkpoints of OLMo-core on disk, as far as they are read without OLMo-core."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from olmo_mixlaw.errors import CheckpointError
from olmo_mixlaw.evaluation.loading import load_model
from olmo_mixlaw.evaluation.provenance import newest_checkpoint, record_of
from olmo_mixlaw.training_core import saved


def step(run: Path, number: int, config: dict[str, Any] | None = None) -> Path:
    folder = run / f"step{number}"
    (folder / "model_and_optim").mkdir(parents=True)
    (folder / "model_and_optim" / ".metadata").write_bytes(b"")
    (folder / "config.json").write_text(json.dumps(config or {}))
    return folder


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    last = step(tmp_path, 1000)
    step(tmp_path, 200)
    (tmp_path / "step2000-tmp" / "model_and_optim").mkdir(parents=True)
    (tmp_path / "config.json").write_text("{}")  # what a launcher may leave beside them
    assert newest_checkpoint(tmp_path) == last
    assert newest_checkpoint(last) == last


def test_without_olmo_core_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    folder = step(tmp_path, 1)
    monkeypatch.setattr(saved, "version", lambda name: "0.1.0")
    with pytest.raises(CheckpointError, match=r"release 3 or later, found 0\.1\.0: pip install"):
        load_model(folder, device="cpu")
    monkeypatch.setattr(saved, "version", absent)
    with pytest.raises(CheckpointError, match=r"needs: pip install 'olmo-mixlaw\[olmo-core\]'"):
        load_model(folder, device="cpu")


TOKENIZER = {"identifier": "allenai/dolma2-tokenizer", "eos_token_id": 100257}
LAYOUTS = {
    "loader": {"data_loader": {"tokenizer": TOKENIZER}, "dataset": {"sequence_length": 64}},
    "dataset": {"dataset": {"tokenizer": TOKENIZER, "sequence_length": 64}, "model": {}},
    "list": {"dataset": [{"tokenizer": TOKENIZER}], "train_module": {"max_sequence_length": 64}},
    "top": {"tokenizer": TOKENIZER, "sequence_length": 64},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_settings_are_found_where_scripts_put_them(name: str) -> None:
    assert saved.tokenizer_section(LAYOUTS[name]) == TOKENIZER
    assert saved.sequence_length(LAYOUTS[name]) == 64


def test_settings_that_say_nothing() -> None:
    assert saved.tokenizer_section({"data_loader": {"tokenizer": None}}) == {}
    assert saved.sequence_length({"sequence_length": "auto"}) == 2048
    assert saved.sources({"dataset": {"paths": []}}) == {}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"sources": {"a": ["x"], "b": {"c": ["y", "z"]}}}, {"a": ["x"], "b/c": ["y", "z"]}),
        ({"dataset": {"paths": ["x.npy", "y.npy"]}}, {"data": ["x.npy", "y.npy"]}),
    ],
)
def test_what_a_run_read_is_found(
    tmp_path: Path, config: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert record_of(step(tmp_path, 1, config)).sources == expected


@pytest.mark.parametrize("text", ["{", "[]", "1"])
def test_a_config_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    folder = step(tmp_path, 1)
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json: (not valid JSON|holds no settings)"):
        record_of(folder)
