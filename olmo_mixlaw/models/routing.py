"""Choose the experts of each token, and the losses that keep them in use.

All of it in fp32 at least, whatever the model computes in: in bf16 two experts often tie.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from olmo_mixlaw.models.moe_config import MoEConfig
from olmo_mixlaw.models.moe_ops import pick


class Routing(NamedTuple):
    """`experts` and `gates` are (N, k), in ascending order of expert; the others (N, E)."""

    experts: Tensor
    gates: Tensor
    logits: Tensor
    scores: Tensor


def route(x: Tensor, weight: Tensor, bias: Tensor | None, config: MoEConfig) -> Routing:
    """Send each of the N tokens in `x` (N, d) to its `top_k` experts.

    `weight` (E, d) is the router; `bias` (E) is added to the scores only to choose by, so that
    the gates stay what the scores say (arXiv 2408.15664, Eq. 3).
    """
    exact = torch.promote_types(x.dtype, torch.float32)
    with torch.autocast(x.device.type, enabled=False):
        logits = F.linear(x.to(exact), weight.to(exact))
        scores = logits.sigmoid() if config.router == "sigmoid" else logits.softmax(-1)
        preferred = scores.detach() if bias is None else scores.detach() + bias
        chosen = preferred.topk(config.top_k, dim=-1).indices
        gates = pick(scores, chosen)
        if config.normalize_gates:
            gates = gates / gates.sum(-1, keepdim=True)
        if config.gate_scale != 1:
            gates = gates * config.gate_scale
        experts, slot = chosen.sort(-1)
        return Routing(experts, pick(gates, slot), logits, scores)


def shares(routing: Routing, config: MoEConfig) -> Tensor:
    """Scores that sum to 1 over the experts, (N, E)."""
    if config.router == "softmax":
        return routing.scores
    return routing.scores / routing.scores.sum(-1, keepdim=True)


def load_balance_loss(counts: Tensor, share: Tensor) -> Tensor:
    """E sum_e f_e P_e; 1 when balanced (arXiv 2101.03961, Eq. 4).

    f: share of the pairs that went to each expert, from `counts` (..., E), a constant.
    P: mean over tokens of `share` (..., T, E). Averaged over the leading dimensions.
    """
    fraction = counts.to(share.dtype) / counts.sum(-1, keepdim=True)
    return counts.shape[-1] * (fraction * share.mean(-2)).sum(-1).mean()


def z_loss(logits: Tensor) -> Tensor:
    """Mean squared log-partition of the router (arXiv 2202.08906, Eq. 5)."""
    return logits.logsumexp(-1).square().mean()


def auxiliary_loss(
    routing: Routing, counts: Tensor, n_sequences: int, config: MoEConfig
) -> Tensor | None:
    """The weighted sum of the losses that `config` asks for, a scalar; None if it asks for none.

    `counts` (E) are the tokens of each expert; the N tokens are `n_sequences` of equal length.
    """
    terms = []
    num_experts = counts.shape[0]
    if config.load_balance_weight:
        balance = load_balance_loss(counts, shares(routing, config))
        terms.append(config.load_balance_weight * balance)
    if config.sequence_balance_weight:
        pairs = routing.experts.view(n_sequences, -1)
        offset = torch.arange(n_sequences, device=pairs.device).unsqueeze(1) * num_experts
        # Not bincount, which asks the GPU for the largest number; of ones, any order is exact.
        at = (pairs + offset).reshape(-1)
        of_sequence = at.new_zeros(offset.numel() * num_experts).scatter_add_(
            0, at, torch.ones_like(at)
        )
        share = shares(routing, config).view(n_sequences, -1, num_experts)
        balance = load_balance_loss(of_sequence.view(n_sequences, num_experts), share)
        terms.append(config.sequence_balance_weight * balance)
    if config.z_loss_weight:
        terms.append(config.z_loss_weight * z_loss(routing.logits))
    return torch.stack(terms).sum() if terms else None


def load_metrics(load: Tensor) -> dict[str, float]:
    """How evenly the experts of one layer were used, from the tokens of each, (E); {} for none.

    `load/<e>`: share of the pairs; `load_entropy`: of these shares, over its highest, so 1
    when even; `dead_experts`: share of experts without a token; `max_violation`: highest
    load over the mean, less 1 (arXiv 2408.15664, Eq. 4).
    """
    if not load.any():
        return {}
    share = load.double().cpu() / float(load.sum())
    entropy = -torch.xlogy(share, share).sum() / math.log(len(share)) if len(share) > 1 else 1.0
    return {
        "load_entropy": float(entropy),
        "dead_experts": float((share == 0).double().mean()),
        "max_violation": float(share.max() * len(share) - 1),
        **{f"load/{e:03d}": float(one) for e, one in enumerate(share)},
    }
