"""Small OLMo checkpoints, dense and MoE, and what two libraries must say alike of each."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from rounding import assert_same_logits
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor

pytest.importorskip("olmo")

import olmo_mixlaw.models.hf  # noqa: F401  registers our class
from olmo_mixlaw.models.export import load_checkpoint
from olmo_mixlaw.models.moe_config import MoEConfig
from olmo_mixlaw.models.olmo import build_model
from olmo_mixlaw.models.shape import Shape

# Tokens whose experts every MoE model below chooses by 500 eps of a gate or more: rounding changes
# no choice.
SEED_OF_CLEAR_CHOICES = 118

MOE = MoEConfig(num_experts=8, top_k=2, expert_size=16)
SHAPE = Shape(d_model=32, n_layers=3, n_heads=4, mlp_size=48, vocab_size=96, context=64)
DEEPSEEK = dataclasses.replace(
    MOE,
    router="sigmoid",
    selection_bias=True,
    normalize_gates=True,
    gate_scale=2.5,
    shared_experts=2,
    dense_layers=1,
)
OLMO2 = {"qk_norm": True, "norm_after": True}
OLMOE = {"qk_norm": True, "moe": MOE}
STOCK: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-gqa-untied": ("llama", {"n_kv_heads": 2, "tied": False}),
    "olmo2": ("olmo2", OLMO2),
    "olmo2-gqa-untied": ("olmo2", {**OLMO2, "n_kv_heads": 2, "tied": False}),
    "olmo2-odd-width": ("olmo2", {**OLMO2, "mlp_size": 40}),
    "olmo2-theta-eps": ("olmo2", {**OLMO2, "rope_theta": 500_000, "norm_eps": 1e-6}),
    "olmoe": ("olmoe", OLMOE),
    "olmoe-gqa-untied": ("olmoe", {**OLMOE, "n_kv_heads": 2, "tied": False}),
    "olmoe-normalised": ("olmoe", {**OLMOE, "moe": dataclasses.replace(MOE, normalize_gates=True)}),
    "olmoe-top-4": ("olmoe", {**OLMOE, "moe": dataclasses.replace(MOE, top_k=4)}),
    "flex-olmo": ("flex_olmo", {**OLMO2, "moe": MOE}),
    "flex-olmo-gqa-untied": ("flex_olmo", {**OLMO2, "moe": MOE, "n_kv_heads": 2, "tied": False}),
}
OWN: dict[str, dict[str, Any]] = {
    "shared": {"moe": dataclasses.replace(MOE, shared_experts=1)},
    "deepseek": {"moe": DEEPSEEK, "qk_norm": True, "n_kv_heads": 2},
    "deepseek-odd-widths": {
        "moe": dataclasses.replace(DEEPSEEK, expert_size=20, top_k=4),
        "mlp_size": 40,
    },
    "deepseek-norm-after": {"moe": DEEPSEEK, **OLMO2, "tied": False},
    "dense-qk-before": {"qk_norm": True},
    "dense-after-no-qk": {"norm_after": True, "n_kv_heads": 2},
    "olmoe-as-own": OLMOE,
    "olmo2-as-own": {**OLMO2, "tied": False},
}


def write_tokenizer(path: Path, size: int = 96) -> Path:
    words = {"<eos>": 0, "<pad>": 1, **{f"w{i}": i for i in range(2, size)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(path))
    return path


def write_checkpoint(folder: Path, shape: Shape, **changes: Any) -> Path:
    """A checkpoint as OLMo writes it, of random weights with logits that differ."""
    torch.manual_seed(0)
    section = shape.olmo_model(init_std=0.3, init_device="cpu", **changes)
    model = build_model(section)
    for name, parameter in model.named_parameters():
        if "norm" in name or "ln_f" in name:
            parameter.data.uniform_(0.5, 1.5)
    for name, buffer in model.named_buffers():
        assert name.endswith("selection_bias")
        buffer.copy_(torch.randint(-100_000, 100_000, buffer.shape))
    checkpoint = folder / "step10-unsharded"
    checkpoint.mkdir()
    tokenizer = write_tokenizer(folder / "tokenizer.json")
    (checkpoint / "config.yaml").write_text(
        yaml.safe_dump({"model": section, "tokenizer": {"identifier": str(tokenizer)}})
    )
    torch.save(model.state_dict(), checkpoint / "model.pt")
    return checkpoint


def load_hf(folder: Path) -> Any:
    """transformers' model of a folder that has all its weights and no other."""
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(info.values()), info
    return model.eval()


def ids(batch: int = 3, length: int = 40) -> Tensor:
    """Tokens to read, (batch, length); fewer are the beginning of more."""
    seed = torch.Generator().manual_seed(SEED_OF_CLEAR_CHOICES)
    return torch.randint(2, 96, (3, 40), generator=seed)[:batch, :length]


@torch.no_grad()
def assert_same_model(checkpoint: Path, hf: Any, folder: Path) -> None:
    """The same logits, and the same greedy text by either library's own generation."""
    olmo = load_checkpoint(checkpoint)
    expected = olmo(ids()).logits
    assert expected.std() > 0.3
    assert_same_logits(hf(ids()).logits, expected)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer("w5 w17 w40 w2", return_tensors="pt")["input_ids"]
    assert prompt.tolist() == [[5, 17, 40, 2]]
    theirs = hf.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, do_sample=False
    )[0, 4:]
    assert_same_text(olmo, prompt, theirs)


def assert_same_text(olmo: Any, prompt: Tensor, theirs: Tensor) -> None:
    """What OLMo's model says greedily after `prompt`, as far as both libraries go on."""
    ours = olmo.generate(prompt, max_steps=12, beam_size=1).token_ids[0, 0]
    # Each library ends after <eos> in its own way.
    length = min(len(ours), len(theirs))
    assert torch.equal(ours[:length], theirs[:length])
    assert length == 12 or 0 in ours.tolist()
