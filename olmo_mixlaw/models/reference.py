"""How far a device's arithmetic is from fp64 on a CPU, for a small dense and a small MoE model."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from olmo_mixlaw.models.olmo import build_model

SHAPE: dict[str, Any] = {
    "d_model": 128,
    "n_heads": 4,
    "n_layers": 2,
    "mlp_hidden_size": 512,
    "vocab_size": 512,
    "max_sequence_length": 128,
    "activation_type": "swiglu",
    "layer_norm_type": "rms",
    "rope": True,
    "weight_tying": False,
    "include_bias": False,
    "init_fn": "mitchell",
    "attention_dropout": 0.0,
    "residual_dropout": 0.0,
    "embedding_dropout": 0.0,
}
EXPERTS = {"num_experts": 16, "top_k": 2, "expert_size": 64}
# The most that rounding explains of logits and gradient after two layers; not of experts in bf16:
# where two are all but tied, another is chosen.
LIMITS = {
    ("dense", "fp32"): (1e-4, 1e-3),
    ("moe", "fp32"): (1e-4, 1e-3),
    ("dense", "bf16"): (0.05, 0.1),
    ("moe", "bf16"): None,
}
KINDS = {"dense": SHAPE, "moe": {**SHAPE, "moe": EXPERTS}}


def against_fp64(kind: str, device: str, precision: str, seed: int = 0) -> tuple[float, float]:
    """The largest error of logits, and of a gradient, over the largest value that fp64 gives.

    `kind` is one of `KINDS`; `precision` is fp32, or bf16 as autocast has it, whose experts may
    be others than fp64's wherever two are all but tied.
    """
    torch.manual_seed(seed)
    exact = build_model(KINDS[kind]).double()
    model = build_model(KINDS[kind])
    model.load_state_dict({name: value.float() for name, value in exact.state_dict().items()})
    exact.load_state_dict({name: value.double() for name, value in model.state_dict().items()})
    tokens = torch.randint(SHAPE["vocab_size"], (4, SHAPE["max_sequence_length"]))
    half = precision == "bf16"
    found = _passed(model.to(device), tokens.to(device), half)
    expected = _passed(exact, tokens, False)
    logits, gradient = (
        (a - b).abs().max() / b.abs().max() for a, b in zip(found, expected, strict=True)
    )
    return float(logits), float(gradient)


def _passed(
    model: nn.Module, tokens: torch.Tensor, half: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and all gradients of the mean loss as one vector, in fp64 on the CPU."""
    with torch.autocast(tokens.device.type, dtype=torch.bfloat16, enabled=half):
        logits = model(tokens).logits
    loss = nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2).to(torch.promote_types(logits.dtype, torch.float32)),
        tokens[:, 1:],
    )
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return logits.detach().double().cpu(), gradient.double().cpu()
