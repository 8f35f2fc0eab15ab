"""MoE models through OLMo's real Trainer: learning, resuming, continuing imported weights."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

pytest.importorskip("olmo")

from olmo_mixlaw.models.export import export, import_hf, load_checkpoint, read_model_config
from olmo_mixlaw.models.export import model_section as section_of
from olmo_mixlaw.models.moe import MoE
from olmo_mixlaw.models.moe_config import MoEConfig
from olmo_mixlaw.models.olmo import build_model
from olmo_mixlaw.models.shape import Shape

SHAPE = Shape(
    d_model=32,
    n_layers=2,
    n_heads=2,
    mlp_size=48,
    vocab_size=300,
    context=32,
    qk_norm=True,
    moe=MoEConfig(
        num_experts=8,
        top_k=2,
        expert_size=16,
        router="sigmoid",
        normalize_gates=True,
        selection_bias=True,
        shared_experts=1,
        dense_layers=1,
    ),
)
STEP = round(SHAPE.moe.bias_update_rate * 2**20)  # of the selection bias, a batch


def write_config(folder: Path, model: dict[str, Any], name: str, **changes: Any) -> Path:
    config = {
        "run_name": name,
        "seed": 3,
        "model": model,
        "tokenizer": {"identifier": str(folder / "tokenizer.json"), "train_vocab_size": 300},
        "data": {"datasets": {"bio": ["mixlaw:biography?n=16&seed=1"]}},
        "mixture": {"ratios": {"bio": 1.0}},
        "optimizer": {"name": "adamw", "learning_rate": 3e-3, "weight_decay": 0.0},
        "scheduler": {"name": "wsd", "t_warmup": 1, "alpha_f": 0.0},
        "max_duration": 8,
        "global_train_batch_size": 8,
        "device_train_microbatch_size": 4,
        "max_grad_norm": 1.0,
        "precision": "fp32",
        "distributed_strategy": "ddp",
        "ddp": {},
        "save_folder": str(folder / name),
        "save_overwrite": True,
        "save_interval": None,
        "save_interval_unsharded": 4,
        "console_log_interval": 1000,
        "metrics_interval": 4,
        **changes,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_same_weights_and_biases(tmp_path: Path) -> None:
    from olmo_mixlaw.training.launch import train

    model = SHAPE.olmo_model()
    # Rows of three steps: the checkpoint of step 4 lies within one.
    whole = train(write_config(tmp_path, model, "whole", metrics_interval=3))
    halves = write_config(tmp_path, model, "halves", metrics_interval=3)
    train(halves, ["stop_at=4"])
    resumed = train(halves)
    rows = [(path.parent / "metrics.csv").read_bytes() for path in (whole, resumed)]
    assert rows[0] == rows[1]
    assert b"moe_00_max_violation" in rows[0]
    expected, found = (torch.load(p / "model.pt", weights_only=True) for p in (whole, resumed))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    (bias,) = (value for name, value in expected.items() if "selection_bias" in name)
    # Eight batches of two micro-batches each move the bias eight times, not sixteen.
    assert bias.any()
    assert bias.abs().max() <= 8 * STEP


@pytest.mark.slow
def test_rows_tell_how_evenly_the_experts_were_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from olmo_mixlaw.training.launch import train

    counted: list[tuple[int, torch.Tensor]] = []
    count = MoE._count

    def noting(layer: MoE, counts: torch.Tensor) -> None:
        counted.append((id(layer), counts.double()))
        count(layer, counts)

    monkeypatch.setattr(MoE, "_count", noting)
    three = dataclasses.replace(SHAPE, n_layers=3)
    final = train(write_config(tmp_path, three.olmo_model(), "run", metrics_interval=2))
    with open(final.parent / "metrics.csv", newline="", encoding="utf-8") as file:
        rows = [
            {key: float(value or "nan") for key, value in row.items()}
            for row in csv.DictReader(file)
        ]
    # A backward reaches the last layer first; two micro-batches a step, two steps a row.
    last, first = dict.fromkeys(layer for layer, _ in counted)
    assert len(rows) == 4
    for i, row in enumerate(rows):
        violations = []
        for number, layer in enumerate((first, last)):
            counts = [found for which, found in counted if which == layer]
            load = torch.stack(counts[4 * i : 4 * i + 4]).sum(0)
            assert load.sum() == 2 * 8 * 32 * 2  # steps, sequences, tokens, experts a token
            violations.append(float(load.max() / load.mean() - 1))
            assert row[f"moe_{number:02d}_max_violation"] == pytest.approx(violations[-1])
            assert row[f"moe_{number:02d}_dead_experts"] == float((load == 0).double().mean())
        assert row["moe_max_violation"] == pytest.approx(sum(violations) / 2)
        assert 0 < row["moe_load_entropy"] <= 1


def _compiler() -> bool:
    return any(shutil.which(name) for name in ("cc", "gcc", "clang"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"activation_checkpointing": "whole_layer"},
        {"device_train_microbatch_size": 8},
        pytest.param(
            {"compile": {}}, marks=pytest.mark.skipif(not _compiler(), reason="no C compiler")
        ),
    ],
    ids=["checkpointing", "no-accumulation", "compile"],
)
def test_how_a_batch_is_computed_changes_nothing(tmp_path: Path, change: dict[str, Any]) -> None:
    """Neither weights beyond rounding, nor how often and where the selection bias moves."""
    from olmo_mixlaw.training.launch import train

    # The sequence loss has a mean over sequences, so it doesn't depend on micro-batches; OLMoE's
    # does, by its definition.
    moe = dataclasses.replace(SHAPE.moe, load_balance_weight=0.0, sequence_balance_weight=1e-3)
    model = dataclasses.replace(SHAPE, moe=moe).olmo_model()
    ends = [
        torch.load(train(path) / "model.pt", weights_only=True)
        for path in (
            write_config(tmp_path, model, "plain", max_duration=3),
            write_config(tmp_path, model, "changed", max_duration=3, **change),
        )
    ]
    for name, value in ends[0].items():
        if "selection_bias" in name:
            # A token whose experts are nearly level may go to another: one move the other way.
            assert value.abs().max() == 3 * STEP
            assert (ends[1][name] - value).abs().max() <= 2 * STEP
        else:
            torch.testing.assert_close(ends[1][name], value, rtol=1e-3, atol=2e-5, msg=name)


@pytest.mark.slow
def test_imported_weights_are_trained_further(tmp_path: Path) -> None:
    """At a learning rate of 0 the run ends with the weights that were imported."""
    from olmo_mixlaw.training.launch import train

    moe = MoEConfig(num_experts=8, top_k=2, expert_size=16)
    shape = dataclasses.replace(SHAPE, moe=moe)
    train(write_config(tmp_path, shape.olmo_model(), "first", max_duration=2))
    out = export(tmp_path / "first" / "step2-unsharded", tmp_path / "hf")
    imported = import_hf(out, tmp_path / "step0-unsharded")
    again = write_config(
        tmp_path,
        section_of(read_model_config(imported)),
        "again",
        optimizer={"name": "adamw", "learning_rate": 0.0, "weight_decay": 0.0},
        load_path=str(imported),
        reset_optimizer_state=True,
        reset_trainer_state=True,
        max_duration=2,
    )
    final = train(again)
    before, after = (torch.load(p / "model.pt", weights_only=True) for p in (imported, final))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert type(load_checkpoint(final)) is type(build_model(shape.olmo_model()))
