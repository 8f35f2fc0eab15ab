"""Checkpoints of small models, as OLMo-core itself writes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from olmo_core.distributed.checkpoint import save_model_and_optim_state
from olmo_core.nn.attention import (
    AttentionBackendName,
    GateConfig,
    GateGranularity,
    SlidingWindowAttentionConfig,
)
from olmo_core.nn.moe import MoEConfig, MoERouterConfig, MoEType
from olmo_core.nn.rope import YaRNRoPEScalingConfig
from olmo_core.nn.transformer import TransformerBlockType, TransformerConfig, TransformerType

from olmo_mixlaw.training_core import cpu_moe

BIO = "mixlaw:biography?n=12&pools=major:6,birth_city:8,university:8,employer:8&templates=2"
VOCAB, ROWS, LENGTH = 400, 512, 96  # the embedding has rows that no token has
WINDOWS = SlidingWindowAttentionConfig(
    force_full_attention_on_first_layer=False,
    force_full_attention_on_last_layer=True,
    pattern=[8, 8, 8, -1],
)


def olmo2(**changes: Any) -> TransformerConfig:
    shape: dict[str, Any] = {
        "d_model": 32,
        "vocab_size": ROWS,
        "n_layers": 2,
        "n_heads": 4,
        "qk_norm": True,
        "rope_theta": 10_000,
        "layer_norm_eps": 1e-6,
        "hidden_size_multiple_of": 32,
        "block_name": TransformerBlockType.reordered_norm,
    }
    return TransformerConfig.llama_like(**shape | changes)


def moe() -> TransformerConfig:
    return olmo2(
        name=TransformerType.moe,
        block_name=TransformerBlockType.moe_reordered_norm,
        feed_forward_moe=MoEConfig(
            name=MoEType.dropless,
            num_experts=4,
            hidden_size=16,
            router=MoERouterConfig(top_k=2),
            lb_loss_weight=0.01,
            z_loss_weight=0.001,
        ),
    )


# As a GPU's run names its attention; a checkpoint of it is read anywhere.
FLASH = AttentionBackendName.flash_2
SHAPES: dict[str, Callable[[], TransformerConfig]] = {
    "olmo2": olmo2,
    "olmo2-grouped": lambda: olmo2(n_kv_heads=2),
    "olmo2-tied": lambda: olmo2(tie_word_embeddings=True),
    "olmo3": lambda: olmo2(n_layers=4, sliding_window=WINDOWS, attn_backend=FLASH),
    "olmo3-long": lambda: olmo2(n_layers=4, sliding_window=WINDOWS).with_rope_scaling(
        YaRNRoPEScalingConfig(factor=4.0, old_context_len=32)
    ),
}
SHAPES_OF_ONE = {
    "moe": moe,
    "gated": lambda: olmo2(gate=GateConfig(granularity=GateGranularity.headwise)),
    "normalized": lambda: TransformerConfig.ngpt_like(
        d_model=32, vocab_size=ROWS, n_layers=2, n_heads=4
    ),
}


def write(folder: Path, shape: TransformerConfig, tokenizer_file: Path) -> tuple[Path, Any]:
    """A checkpoint, written by OLMo-core, with Adam's state; and the model that it is of."""
    cpu_moe.install()
    model = shape.build(init_device="cpu")
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draws) * 0.2 + (weight.ndim == 1))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(1, 4, dtype=torch.long)).sum().backward()
    save_model_and_optim_state(folder / "model_and_optim", model, optimizer)
    tokenizer = {"identifier": str(tokenizer_file), "eos_token_id": 0, "pad_token_id": 1}
    config = {
        "model": shape.as_config_dict(),
        "data_loader": {"tokenizer": {**tokenizer, "vocab_size": VOCAB}},
        "train_module": {"max_sequence_length": LENGTH},
        "trainer": {"save_folder": str(folder.parent)},
        "sources": {"bio": [BIO], "web": {"code": "mixlaw:text?corpus=code"}},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder, model.eval()


def edit(checkpoint: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    change(config)
    (checkpoint / "config.json").write_text(json.dumps(config))
