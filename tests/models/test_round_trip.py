"""A model goes to HuggingFace and back and trains on under the file that trained it first."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from checkpoints import SHAPE, STOCK, write_checkpoint

from olmo_mixlaw.cli.app import app, run
from olmo_mixlaw.errors import CheckpointError
from olmo_mixlaw.models.export import export, import_hf, load_checkpoint
from olmo_mixlaw.training.launch import train

# What these leave out follows from other keys, and comes back written out.
SECTIONS: dict[str, dict[str, Any]] = {
    "llama": {"mlp_hidden_size": 96},
    "heads": {"mlp_ratio": 6, "n_kv_heads": None, "embedding_size": 128, "weight_tying": False},
    "grouped": {"mlp_ratio": 2, "n_kv_heads": 2, "attention_layer_norm": True, "norm_after": True},
    "one": {"mlp_ratio": 4, "multi_query_attention": True, "attention_layer_norm": True}
    | {"norm_after": True, "bias_for_layer_norm": None},
}


def training(folder: Path, section: dict[str, Any]) -> Path:
    model = {
        "d_model": 32,
        "n_heads": 4,
        "n_layers": 2,
        "activation_type": "swiglu",
        "layer_norm_type": "rms",
        "layer_norm_with_affine": True,
        "rope": True,
        "weight_tying": True,
        "include_bias": False,
        "bias_for_layer_norm": False,
        "max_sequence_length": 16,
        "vocab_size": 96,
        "embedding_size": None,
        "eos_token_id": 0,
        "pad_token_id": 1,
        "attention_dropout": 0.0,
        "residual_dropout": 0.0,
        "embedding_dropout": 0.0,
        "init_fn": "normal",
    }
    np.random.default_rng(0).integers(2, 96, 4000).astype(np.uint16).tofile(folder / "web.npy")
    write_checkpoint(folder, SHAPE)
    path = folder / "run.yaml"
    values = {
        "model": model | section,
        "tokenizer": {"identifier": str(folder / "tokenizer.json")},
        "data": {"datasets": {"web": [str(folder / "web.npy")]}},
        "mixture": {"ratios": {"web": 1.0}},
        "optimizer": {"name": "adamw", "learning_rate": 1e-2},
        "distributed_strategy": "ddp",
        "ddp": {},
        "max_duration": 4,
        "global_train_batch_size": 4,
        "device_train_microbatch_size": 4,
        "save_folder": str(folder / "run"),
        "save_interval": None,
        "metrics_interval": 1,
    }
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.parametrize("name", SECTIONS)
def test_a_model_that_comes_back_trains_under_its_own_file(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = training(tmp_path, SECTIONS[name])
    final = train(config)
    assert run(app, ["export", "hf", str(final), str(tmp_path / "hf")]) == 0
    back = tmp_path / "back" / "step0-unsharded"
    assert run(app, ["export", "olmo", str(tmp_path / "hf"), str(back)]) == 0
    more = [
        f"--load_path={back}",
        "--reset_optimizer_state=true",
        "--reset_trainer_state=true",
        f"--save_folder={tmp_path / 'more'}",
    ]
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        again = train(config, more)
    assert not [m for m in caplog.messages if "was trained with" in m]
    straight = [f"--load_path={final}", *more[1:3], f"--save_folder={tmp_path / 'straight'}"]
    expected = losses(train(config, straight))
    assert losses(again) == pytest.approx(expected, rel=1e-5)
    # The weights are the trained ones: a new model would start where the first run did.
    assert expected[0] < losses(final)[0] - 0.05


def losses(final: Path) -> list[float]:
    rows = (final.parent / "metrics.csv").read_text().splitlines()[1:]
    return [float(row.split(",")[2]) for row in rows]


def test_other_weights_are_refused_and_another_function_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    final = train(training(tmp_path, SECTIONS["llama"]))
    config = tmp_path / "run.yaml"
    more = [f"--load_path={final}", "--reset_trainer_state=true", f"--save_folder={tmp_path}/more"]
    with pytest.raises(CheckpointError, match=r"model\.n_kv_heads: is 2, but .* has 4"):
        train(config, [*more, "--model.n_kv_heads=2"])
    with caplog.at_level(logging.WARNING):
        train(config, [*more, "--model.rope_theta=500000"])
    (said,) = [m for m in caplog.messages if "was trained with" in m]
    assert "model.rope_theta: is 500000" in said
    assert said.endswith("was trained with 10000")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("n_layers", 2, r"has, beside those of the model, the weight transformer\.blocks\.2\."),
        ("n_layers", 4, r"lacks the weight transformer\.blocks\.3\."),
        ("d_model", 48, r"is \(\d+, 32\), but config\.yaml makes it"),
        ("n_kv_heads", 1, r"att_proj\.weight is \(96, 32\), but config\.yaml makes it \(48, 32\)"),
        ("mlp_hidden_size", 80, r"ff_\w+\.weight is .* but config\.yaml makes it"),
        (
            "embedding_size",
            128,
            r"wte\.weight is \(96, 32\), but config\.yaml makes it \(128, 32\)",
        ),
        ("weight_tying", False, r"lacks the weight transformer\.ff_out\.weight"),
        ("attention_layer_norm", True, r"lacks the weight transformer\.blocks\.0\.k_norm"),
        ("n_heads", 5, r"model: can't be built: "),
    ],
)
def test_weights_that_the_config_does_not_fit_are_not_exported(
    tmp_path: Path, key: str, value: Any, message: str
) -> None:
    checkpoint = write_checkpoint(tmp_path, SHAPE)
    values = yaml.safe_load((checkpoint / "config.yaml").read_text())
    values["model"][key] = value
    (checkpoint / "config.yaml").write_text(yaml.safe_dump(values))
    for own_class in (False, True):
        if key == "attention_layer_norm" and not own_class:
            continue  # no stock class holds it
        with pytest.raises(CheckpointError, match=message) as error:
            export(checkpoint, tmp_path / "hf", own_class=own_class)
        assert str(error.value).startswith(str(checkpoint))
        assert "\n" not in str(error.value)
        assert not (tmp_path / "hf").exists()
    if key != "attention_layer_norm":
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(checkpoint)


def test_experts_that_the_config_does_not_fit_are_not_exported(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, dataclasses.replace(SHAPE, **STOCK["olmoe"][1]))
    values = yaml.safe_load((checkpoint / "config.yaml").read_text())
    values["model"]["moe"]["num_experts"] = 4
    (checkpoint / "config.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(CheckpointError, match=r"but config\.yaml makes it"):
        export(checkpoint, tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def test_files_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, SHAPE)
    hf = export(checkpoint, tmp_path / "hf")
    whole = (checkpoint / "model.pt").read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no weights"):
        (checkpoint / "model.pt").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"model\.pt: can't be read") as error:
            export(checkpoint, tmp_path / "other")
        assert "\n" not in str(error.value)
    torch.save([1, 2], checkpoint / "model.pt")
    with pytest.raises(CheckpointError, match="holds no weights by name"):
        export(checkpoint, tmp_path / "other")
    back = tmp_path / "back-unsharded"
    shutil.copytree(hf, tmp_path / "cut")
    weights = (hf / "model.safetensors").read_bytes()
    (tmp_path / "cut" / "model.safetensors").write_bytes(weights[:200])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: can't be read"):
        import_hf(tmp_path / "cut", back)
    settings = json.loads((hf / "config.json").read_text())
    for text, message in (
        ("{", "not valid JSON"),
        ("[]", "holds no settings by name"),
        (json.dumps({**settings, "hidden_size": "wide"}), "hidden_size: 'wide' is no number"),
        (json.dumps({**settings, "num_hidden_layers": 2.5}), "num_hidden_layers: 2.5 is no"),
        (json.dumps({**settings, "num_attention_heads": 0}), "num_attention_heads: 0 is no"),
        (json.dumps({**settings, "rope_parameters": 3}), "a value is of another type"),
    ):
        (hf / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match=message) as error:
            import_hf(hf, back)
        assert "\n" not in str(error.value)
    assert not back.exists()


def test_an_end_of_text_that_is_none_is_warned_of_on_export(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = write_checkpoint(tmp_path, SHAPE)
    assert run(app, ["export", "hf", str(checkpoint), str(tmp_path / "right")]) == 0
    assert "eos_token_id" not in capsys.readouterr().err
    values = yaml.safe_load((checkpoint / "config.yaml").read_text())
    values["model"]["eos_token_id"] = 7
    (checkpoint / "config.yaml").write_text(yaml.safe_dump(values))
    assert run(app, ["export", "hf", str(checkpoint), str(tmp_path / "wrong")]) == 0
    said = capsys.readouterr().err
    assert "model.eos_token_id: 7 is 'w7' here; this tokenizer's end of text, '<eos>', is 0" in said
