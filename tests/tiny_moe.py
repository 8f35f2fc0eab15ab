"""A small MoE model by either router, tokens for it and its loss, for one process or several."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from olmo_mixlaw.models.moe_config import MoEConfig
from olmo_mixlaw.models.shape import Shape

SHAPE = Shape(
    d_model=32,
    n_layers=4,
    n_heads=4,
    mlp_size=40,
    vocab_size=64,
    context=16,
    moe=MoEConfig(num_experts=8, top_k=2, expert_size=16, shared_experts=1, dense_layers=1),
)
SIGMOID = MoEConfig(
    num_experts=8,
    top_k=2,
    expert_size=16,
    router="sigmoid",
    normalize_gates=True,
    selection_bias=True,
    bias_update_rate=0.01,
    load_balance_weight=0.0,
    sequence_balance_weight=1e-3,
    z_loss_weight=0.0,
)
BOTH_ROUTERS = {"softmax": SHAPE.moe, "sigmoid": SIGMOID}


def tokens(batch: int = 4, length: int = 16, seed: int = 0) -> Tensor:
    return torch.randint(0, 64, (batch, length), generator=torch.Generator().manual_seed(seed))


def loss_of(model: nn.Module, ids: Tensor) -> Tensor:
    logits = model(ids).logits
    return F.cross_entropy(logits[:, :-1].reshape(-1, 64), ids[:, 1:].reshape(-1))
