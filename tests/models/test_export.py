"""Export to HuggingFace's own classes, under whichever major of transformers is installed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import (
    MOE,
    OWN,
    SHAPE,
    STOCK,
    assert_same_model,
    ids,
    load_hf,
    write_checkpoint,
    write_tokenizer,
)
from rounding import assert_same_logits

from olmo_mixlaw.cli.app import app, run
from olmo_mixlaw.errors import CheckpointError
from olmo_mixlaw.models import hf_folder as module
from olmo_mixlaw.models.export import export, load_checkpoint


@pytest.mark.parametrize("name", STOCK)
def test_stock_export_has_the_same_logits_and_greedy_text(tmp_path: Path, name: str) -> None:
    kind, changes = STOCK[name]
    checkpoint = write_checkpoint(tmp_path, dataclasses.replace(SHAPE, **changes))
    out = export(checkpoint, tmp_path / "hf")
    hf = load_hf(out)
    assert hf.config.model_type == kind
    assert_same_model(checkpoint, hf, out)


def norms(settings: dict[str, Any]) -> None:
    settings["rms_norm_eps"] /= 10


def rotation(settings: dict[str, Any]) -> None:
    settings["rope_theta"] *= 1.01
    settings["rope_parameters"]["rope_theta"] *= 1.01


@pytest.mark.parametrize("break_", [norms, rotation])
@pytest.mark.parametrize("name", ["llama", "olmo2", "olmoe"])
def test_an_export_wrong_by_a_little_is_told_from_rounding(
    tmp_path: Path, name: str, break_: Callable[[dict[str, Any]], None]
) -> None:
    checkpoint = write_checkpoint(tmp_path, dataclasses.replace(SHAPE, **STOCK[name][1]))
    out = export(checkpoint, tmp_path / "hf")
    settings = json.loads((out / "config.json").read_text())
    break_(settings)
    (out / "config.json").write_text(json.dumps(settings))
    with torch.no_grad():
        found, expected = load_hf(out)(ids()).logits, load_checkpoint(checkpoint)(ids()).logits
    with pytest.raises(AssertionError, match="not close"):
        assert_same_logits(found, expected)


def test_weights_in_several_files_load_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHARD_BYTES", 20_000)
    checkpoint = write_checkpoint(tmp_path, dataclasses.replace(SHAPE, **STOCK["olmoe"][1]))
    out = export(checkpoint, tmp_path / "hf")
    assert len(list(out.glob("model-*.safetensors"))) > 2
    assert_same_model(checkpoint, load_hf(out), out)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"moe": dataclasses.replace(MOE, shared_experts=1), "qk_norm": True}, "shared_experts: 1"),
        ({"moe": dataclasses.replace(MOE, router="sigmoid"), "qk_norm": True}, "router: sigmoid"),
        ({"moe": MOE}, "attention_layer_norm: false with moe"),
        ({"qk_norm": True}, "attention_layer_norm: true with norm_after: false"),
    ],
)
def test_an_export_that_no_stock_class_holds_names_the_switch(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    checkpoint = write_checkpoint(tmp_path, dataclasses.replace(SHAPE, **changes))
    with pytest.raises(CheckpointError, match="--own-class") as caught:
        export(checkpoint, tmp_path / "hf")
    assert said in str(caught.value)
    assert str(checkpoint / "config.yaml") in str(caught.value)
    assert not (tmp_path / "hf").exists()


@pytest.mark.parametrize(
    ("shape", "changes", "said"),
    [
        ({}, {"rope": False, "alibi": True}, "rope: false (has true); alibi: true (has false)"),
        ({"bias": True}, {}, "include_bias: true (has false)"),
        ({"norm": "default"}, {}, "layer_norm_type: default (has rms)"),
        ({"activation": "gelu"}, {}, "activation_type: gelu (has swiglu)"),
    ],
)
def test_an_export_that_no_class_holds_names_each_setting(
    tmp_path: Path, shape: dict[str, Any], changes: dict[str, Any], said: str
) -> None:
    checkpoint = write_checkpoint(tmp_path, dataclasses.replace(SHAPE, **shape), **changes)
    for own_class in (False, True):
        with pytest.raises(CheckpointError) as caught:
            export(checkpoint, tmp_path / "hf", own_class=own_class)
        assert said in str(caught.value)


def test_wrong_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.yaml"):
        export(tmp_path, tmp_path / "hf")
    checkpoint = write_checkpoint(tmp_path, SHAPE)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(CheckpointError, match="not an empty folder"):
        export(checkpoint, tmp_path / "full")
    with pytest.raises(CheckpointError, match="--tokenizer: nowhere"):
        export(checkpoint, tmp_path / "hf", tokenizer="nowhere")
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"give the tokenizer\.json with --tokenizer"):
        export(checkpoint, tmp_path / "hf")
    large = write_tokenizer(tmp_path / "large.json", 97)
    with pytest.raises(CheckpointError, match="has 97 tokens, the model 96"):
        export(checkpoint, tmp_path / "hf", tokenizer=large)
    (checkpoint / "model.pt").unlink()
    with pytest.raises(CheckpointError, match="only unsharded"):
        export(checkpoint, tmp_path / "hf", tokenizer=large)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_of_a_run_the_newest_checkpoint_is_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    checkpoint = write_checkpoint(folder, SHAPE)
    (folder / "latest-unsharded").symlink_to(checkpoint.name)
    out = tmp_path / "hf"
    assert run(app, ["export", "hf", str(tmp_path / "run"), str(out)]) == 0, capsys.readouterr().err
    assert_same_model(checkpoint, load_hf(out), out)
    capsys.readouterr()
    assert run(app, ["export", "hf", str(tmp_path / "none"), str(out)]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'none'}: no such model folder\n"


def test_commands_convert_there_and_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = write_checkpoint(tmp_path, dataclasses.replace(SHAPE, **OWN["shared"]))
    out, back = str(tmp_path / "hf"), str(tmp_path / "back-unsharded")
    assert run(app, ["export", "hf", str(checkpoint), out]) == 2
    error = capsys.readouterr().err
    assert "--own-class" in error
    assert error.count("\n") == 1
    assert run(app, ["export", "hf", str(checkpoint), out, "--own-class"]) == 0
    assert run(app, ["export", "olmo", out, back]) == 0
    assert "--reset_trainer_state" in capsys.readouterr().out
    assert (tmp_path / "back-unsharded" / "model.pt").is_file()
