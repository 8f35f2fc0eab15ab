"""HuggingFace folders become OLMo checkpoints: those that we wrote, and transformers' own."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import transformers
from checkpoints import OWN, SHAPE, STOCK, ids, write_checkpoint
from rounding import assert_same_logits

from olmo_mixlaw.errors import CheckpointError
from olmo_mixlaw.models.export import export, import_hf, load_checkpoint


@pytest.mark.parametrize("name", [*STOCK, *OWN])
def test_back_conversion_returns_every_bit(tmp_path: Path, name: str) -> None:
    changes = STOCK[name][1] if name in STOCK else OWN[name]
    checkpoint = write_checkpoint(tmp_path, dataclasses.replace(SHAPE, **changes))
    out = export(checkpoint, tmp_path / "hf", own_class=name in OWN)
    back = import_hf(out, tmp_path / "back-unsharded")
    before, after = (torch.load(p / "model.pt", weights_only=True) for p in (checkpoint, back))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    with torch.no_grad():
        expected = load_checkpoint(checkpoint)(ids()).logits
        assert torch.equal(load_checkpoint(back)(ids()).logits, expected)
    text = (back / "config.yaml").read_text()
    assert ("moe:" in text) == (SHAPE.moe is not None or "moe" in changes)


@pytest.mark.parametrize("kind", ["Olmo2", "Olmoe"])
def test_models_of_transformers_become_olmo_checkpoints(tmp_path: Path, kind: str) -> None:
    """Random weights in the layout of public OLMo-2 and OLMoE checkpoints."""
    torch.manual_seed(0)
    common = {
        "vocab_size": 96,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
        "pad_token_id": 1,
        "eos_token_id": 0,
        "bos_token_id": None,
        "tie_word_embeddings": False,
    }
    if kind == "Olmoe":
        common |= {"num_experts": 8, "num_experts_per_tok": 2}
    config = getattr(transformers, f"{kind}Config")(**common)
    hf = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    hf.save_pretrained(tmp_path / "hf", max_shard_size="20KB")
    olmo = load_checkpoint(import_hf(tmp_path / "hf", tmp_path / "step0-unsharded"))
    with torch.no_grad():
        assert_same_logits(olmo(ids()).logits, hf(ids()).logits)


def test_wrong_models_are_not_imported(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, SHAPE)
    hf = export(checkpoint, tmp_path / "hf")
    with pytest.raises(CheckpointError, match="ends in -unsharded"):
        import_hf(hf, tmp_path / "back")
    settings = json.loads((hf / "config.json").read_text())
    for change, said in (
        ({"model_type": "gpt2"}, "'gpt2' has no counterpart"),
        ({"hidden_act": "gelu"}, "hidden_act: 'gelu'"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "'yarn'"),
        ({"head_dim": 16}, "head_dim: 16 x 4 heads"),
        ({"num_hidden_layers": 4}, "no weight 'model.layers.3"),
        ({"intermediate_size": 44}, "but config.json makes it"),
    ):
        (hf / "config.json").write_text(json.dumps({**settings, **change}))
        with pytest.raises(CheckpointError, match=said):
            import_hf(hf, tmp_path / "back-unsharded")
    (hf / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(CheckpointError, match="hidden_size: missing"):
        import_hf(hf, tmp_path / "back-unsharded")
