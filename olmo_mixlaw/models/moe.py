"""A Mixture-of-Experts feed-forward in plain PyTorch: it knows no trainer and no host model.

Its auxiliary loss enters the backward graph through the layer's own output, so whatever loss
the trainer computes stays as it is, with accumulation, DDP, FSDP and recomputation.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from olmo_mixlaw.models.moe_config import BACKENDS, ROUTERS, MoEConfig
from olmo_mixlaw.models.moe_ops import (
    from_experts,
    grouped_linear,
    plan_dispatch,
    swiglu,
    to_experts,
)
from olmo_mixlaw.models.routing import auxiliary_loss, load_metrics, route

__all__ = ["BACKENDS", "ROUTERS", "MoE", "MoEConfig", "StackedLinear"]

# The selection bias is kept as whole multiples of this: FSDP's mixed precision would cast a
# floating buffer to bf16, where a step of 0.001 is lost beside a bias of 0.5.
BIAS_UNIT = 2.0**-20


class _WithAuxiliary(torch.autograd.Function):
    """The identity on `y`, whose backward also starts the gradient of `auxiliary`.

    The backward of a micro-batch runs once, even where activation checkpointing runs its
    forward twice: so the load is counted there.
    """

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, auxiliary: Tensor | None, layer: MoE, counts: Tensor
    ) -> Tensor:
        ctx.layer, ctx.counts = layer, counts
        ctx.dtype = None if auxiliary is None else auxiliary.dtype
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        ctx.layer._count(ctx.counts)
        if ctx.dtype is None:
            return grad, None, None, None
        weight = ctx.layer.aux_scale * ctx.layer.aux_share
        return grad, torch.full((), weight, dtype=ctx.dtype, device=grad.device), None, None


class StackedLinear(nn.Linear):
    """E matrices (out, in) as the one weight of a linear layer, (E out, in).

    Two dimensions and the type are what OLMo's optimizer groups and FSDP expect of a weight.
    """

    def __init__(self, num: int, d_in: int, d_out: int, device: Any = None, dtype: Any = None):
        super().__init__(d_in, num * d_out, bias=False, device=device, dtype=dtype)
        self.num, self.d_out = num, d_out

    def matrices(self) -> Tensor:
        """The weight as (E, out, in)."""
        return self.weight.view(self.num, self.d_out, self.in_features)


class MoE(nn.Module):
    """Routed SwiGLU experts, and shared ones beside them, in place of a feed-forward.

    `aux_scale` is the share of one device batch that a micro-batch is (1 / accumulation steps),
    to be set by whoever splits batches; `aux_share` the share of this layer in the model's
    auxiliary loss (1 / MoE layers).
    """

    selection_bias: Tensor | None

    def __init__(
        self, d_model: int, config: MoEConfig, *, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        config.check(n_layers=config.dense_layers + 1)
        made: dict[str, Any] = {"device": device, "dtype": dtype}
        num, width = config.num_experts, config.expert_size
        self.d_model, self.config = d_model, config
        self.router = nn.Linear(d_model, num, bias=False, **made)
        self.gate_up = StackedLinear(num, d_model, 2 * width, **made)
        self.down = StackedLinear(num, width, d_model, **made)
        if config.shared_experts:
            shared = config.shared_experts * width
            self.shared_gate_up = nn.Linear(d_model, 2 * shared, bias=False, **made)
            self.shared_down = nn.Linear(shared, d_model, bias=False, **made)
        bias = torch.zeros(num, dtype=torch.int32, device=device) if config.selection_bias else None
        self.register_buffer("selection_bias", bias)
        self.aux_scale = 1.0
        self.aux_share = 1.0
        self._load: Tensor | None = None
        self._pending: Tensor | None = None
        self._moved: Tensor | None = None
        self._backwards = 0

    def reset_parameters(
        self,
        std_in: float = 0.02,
        std_out: float = 0.02,
        *,
        std_shared: float | None = None,
        cutoff: float | None = None,
    ) -> None:
        """Normal weights: `std_in` for router, gate and up, `std_out` for down, `std_shared` for
        that of the shared experts (unset: `std_out`).

        `cutoff` truncates at that many standard deviations. Elementwise, so it also works on the
        flat shards of FSDP.
        """
        outward = {"down": std_out, "shared_down": std_out if std_shared is None else std_shared}
        for name, child in self.named_children():
            assert isinstance(child, nn.Linear)
            std = outward.get(name, std_in)
            if cutoff is None:
                nn.init.normal_(child.weight, std=std)
            else:
                nn.init.trunc_normal_(child.weight, std=std, a=-cutoff * std, b=cutoff * std)
        if self.selection_bias is not None:
            self.selection_bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """(batch, sequence, d_model) to the same shape and type."""
        if torch.compiler.is_compiling():
            from olmo_mixlaw.models.uncompiled import call

            return call(self.compute, x)
        return self.compute(x)

    def compute(self, x: Tensor) -> Tensor:
        """`forward`, which only keeps this out of torch.compile's graphs."""
        config = self.config
        tokens = x.reshape(-1, self.d_model)
        dtype = tokens.dtype
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
        routing = route(tokens, self.router.weight, self._bias(), config)
        dispatch = plan_dispatch(routing.experts, config.num_experts)
        rows = to_experts(tokens.to(dtype), dispatch)
        both = grouped_linear(
            rows, self.gate_up.matrices().to(dtype), dispatch.ends, config.backend
        )
        rows = grouped_linear(
            swiglu(both), self.down.matrices().to(dtype), dispatch.ends, config.backend
        )
        out = from_experts(rows, routing.gates, dispatch)
        if config.shared_experts:
            out = out + self.shared_down(swiglu(self.shared_gate_up(tokens)))
        out = out.view(x.shape).to(x.dtype)
        if self.training and torch.is_grad_enabled():
            counts = dispatch.counts
            auxiliary = auxiliary_loss(routing, counts, math.prod(x.shape[:-2]), config)
            out = _WithAuxiliary.apply(out, auxiliary, self, counts)
        return out

    def _bias(self) -> Tensor | None:
        return None if self.selection_bias is None else self.selection_bias * BIAS_UNIT

    def _count(self, counts: Tensor) -> None:
        """Take in the load of one micro-batch; after the backward of a batch, move the bias."""
        self._load = counts.long() if self._load is None else self._load + counts
        if self.selection_bias is None or not self.config.bias_update_rate:
            return
        self._pending = counts.long() if self._pending is None else self._pending + counts
        self._backwards += 1
        if self._backwards == round(1 / self.aux_scale):
            # Not yet: activation checkpointing has still to run this layer's forward again, and
            # must choose the same experts.
            torch.autograd.Variable._execution_engine.queue_callback(self._move_bias)

    def _move_bias(self) -> None:
        """Raise the bias of experts below the mean load of the batch, lower the others."""
        assert self._pending is not None
        assert self.selection_bias is not None
        load = self._pending.clone()
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(load)
        step = round(self.config.bias_update_rate / BIAS_UNIT)
        # Whole numbers, so that every rank and every run moves the same way.
        self._moved = (step * torch.sign(load.sum() - len(load) * load)).int()
        self.selection_bias += self._moved
        self._pending, self._backwards = None, 0

    def forget_batch(self) -> None:
        """Undo what the backward of the last batch left here: its load and the bias's move."""
        if self._moved is not None:
            assert self.selection_bias is not None
            self.selection_bias -= self._moved
        self._load = self._pending = self._moved = None
        self._backwards = 0

    def take_load(self) -> Tensor | None:
        """Tokens of each expert since the last call, (E), on this process; None for none."""
        load, self._load = self._load, None
        return load

    def metrics(self) -> dict[str, float]:
        """`load_metrics` of the tokens since the last call, on this process; {} before use."""
        load = self.take_load()
        return {} if load is None else load_metrics(load)
