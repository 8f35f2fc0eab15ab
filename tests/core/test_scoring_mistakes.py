"""What can be wrong with a checkpoint of OLMo-core, or with a folder to begin from, is said."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from olmo_mixlaw.errors import CheckpointError
from olmo_mixlaw.training_core import saved

try:
    saved.require_core("tests")
except CheckpointError as reason:
    pytest.skip(str(reason), allow_module_level=True)

from core_checkpoints import LENGTH, VOCAB, edit, olmo2, write
from tokenizers import Tokenizer

from olmo_mixlaw.evaluation.loading import load_model
from olmo_mixlaw.training_core.from_hf import weights_from_hf
from olmo_mixlaw.training_core.to_hf import export


def no_index(folder: Path) -> None:
    (folder / "model_and_optim" / ".metadata").unlink()


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def lost_shard(folder: Path) -> None:
    for file in (folder / "model_and_optim").glob("*.distcp"):
        file.unlink()


def cut_shard(folder: Path) -> None:
    for file in (folder / "model_and_optim").glob("*.distcp"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])


def cut_index(folder: Path) -> None:
    file = folder / "model_and_optim" / ".metadata"
    file.write_bytes(file.read_bytes()[:100])


def code_in_index(folder: Path) -> None:
    class Runs:
        def __reduce__(self) -> Any:
            return (Path.touch, (folder / "ran",))

    (folder / "model_and_optim" / ".metadata").write_bytes(pickle.dumps(Runs()))


def other_class(folder: Path) -> None:
    edit(folder, lambda config: config["model"].update(_CLASS_="subprocess.Popen"))


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no index": (no_index, r"has no \.metadata: the checkpoint is half-written"),
    "no config": (no_config, "has no config.json: half-written"),
    "lost shard": (lost_shard, "missing: the checkpoint is half-written"),
    "cut shard": (cut_shard, "cut short: the checkpoint is half-written"),
    "cut index": (cut_index, r"\.metadata: can't be read"),
    "code in index": (code_in_index, "which no index does"),
    "other class": (other_class, "subprocess.Popen: expected a class of olmo_core"),
    "no model": (lambda f: edit(f, lambda c: c.pop("model")), "key 'model' is missing"),
    "other width": (
        lambda f: edit(f, lambda c: c["model"].update(vocab_size=600)),
        r"embeddings.weight is \(512, 32\), but config.json makes it \(600, 32\)",
    ),
    "more layers": (
        lambda f: edit(f, lambda c: c["model"].update(n_layers=3)),
        r"lacks the weight blocks\.2\.",
    ),
    "no tokenizer": (lambda f: edit(f, lambda c: c.pop("data_loader")), "identifier is missing"),
    "no end": (
        lambda f: edit(f, lambda c: c["data_loader"]["tokenizer"].pop("eos_token_id")),
        "tokenizer.eos_token_id is missing",
    ),
    "tokenizer gone": (
        lambda f: edit(f, lambda c: c["data_loader"]["tokenizer"].update(identifier="a/b")),
        "'a/b' is not there; give its tokenizer.json with --tokenizer",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_with_a_checkpoint_is_said(checkpoint: Path, name: str) -> None:
    spoil, message = BROKEN[name]
    spoil(checkpoint)
    with pytest.raises(CheckpointError, match=message) as error:
        load_model(checkpoint, device="cpu")
    assert str(checkpoint) in str(error.value)
    assert not (checkpoint / "ran").exists()


def test_a_tokenizer_of_more_tokens_than_the_model_is_refused(
    tmp_path: Path, tokenizer_file: Path
) -> None:
    folder, _ = write(tmp_path / "step2", olmo2(vocab_size=VOCAB - 8), tokenizer_file)
    with pytest.raises(CheckpointError, match="the tokenizer has 400 tokens"):
        load_model(folder, device="cpu")


def test_a_given_tokenizer_replaces_the_one_that_is_named(
    checkpoint: Path, tmp_path: Path, tokenizer_file: Path
) -> None:
    edit(checkpoint, lambda config: config["data_loader"]["tokenizer"].update(identifier="a/b"))
    assert load_model(checkpoint, tokenizer=tokenizer_file, device="cpu").max_length == LENGTH
    Tokenizer.from_file(str(tokenizer_file)).save(str(tmp_path / "run" / "b"))
    assert load_model(checkpoint, device="cpu").max_length == LENGTH  # beside the run, by its name


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model_type", "llama", "model_type: llama: expected olmo2 or olmo3"),
        ("hidden_act", "gelu", "hidden_act: gelu: expected silu"),
        ("intermediate_size", 64, "feed_forward.w1.weight is"),
        ("num_hidden_layers", 1, "its weights don't fit config.json: .*layers.1"),
        ("num_hidden_layers", 3, "its weights lack what OLMo-core calls blocks.2"),
    ],
)
def test_a_folder_that_cannot_be_begun_from_is_refused(
    checkpoint: Path, tmp_path: Path, key: str, value: Any, message: str
) -> None:
    out = export(checkpoint, tmp_path / "hf")
    edit(out, lambda settings: settings.update({key: value}))
    with pytest.raises(CheckpointError, match=message):
        weights_from_hf(out)
