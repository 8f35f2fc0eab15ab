"""Send tokens to experts and back, sorted by expert, with no token dropped.

Every sum runs in a fixed order (a token's experts in ascending number), forward and backward,
so the same batch gives the same bits on every run; there is no atomic addition.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from olmo_mixlaw.errors import ConfigError

# torch.nn.functional.grouped_mm reads rows in pieces of 16 bytes.
_ALIGNMENT_BYTES = 16
# Its CUDA kernel has room for so many groups.
_MOST_GROUPS = 1024
_GROUPED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Dispatch:
    """Where each of the N x k (token, expert) pairs lies once they are sorted by expert.

    `token` (N k): the token of each sorted row. `row` (N, k): the sorted rows of each token, in
    ascending order of expert. `ends` (E): the row after each expert's last.
    """

    token: Tensor
    row: Tensor
    ends: Tensor

    @property
    def counts(self) -> Tensor:
        """Tokens of each expert, (E)."""
        return torch.diff(self.ends, prepend=self.ends.new_zeros(1))


def plan_dispatch(experts: Tensor, num_experts: int) -> Dispatch:
    """Sort the pairs of `experts` (N, k), each row ascending, by expert and then by token."""
    n, k = experts.shape
    flat = experts.reshape(-1)
    sorted_experts, order = flat.sort(stable=True)
    row = torch.empty_like(order)
    row[order] = torch.arange(n * k, device=order.device)
    each = torch.arange(num_experts, device=flat.device)
    ends = torch.searchsorted(sorted_experts, each, right=True)
    return Dispatch(token=order // k, row=row.view(n, k), ends=ends.to(torch.int32))


def _sum_rows(rows: Tensor, row: Tensor) -> Tensor:
    """out[n] = sum over j of rows[row[n, j]], in the order of j."""
    total = rows.index_select(0, row[:, 0])
    for j in range(1, row.shape[1]):
        total += rows.index_select(0, row[:, j])
    return total


class _Scatter(torch.autograd.Function):
    """Copy each token to the rows of its experts; the gradient is summed back in order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, token: Tensor, row: Tensor) -> Tensor:
        ctx.save_for_backward(row)
        return x.index_select(0, token)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _sum_rows(grad, ctx.saved_tensors[0]), None, None


class _Gather(torch.autograd.Function):
    """out[n] = sum over j of gates[n, j] * y[row[n, j]], in the order of j."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, gates: Tensor, token: Tensor, row: Tensor) -> Tensor:
        gates = gates.to(y.dtype)
        ctx.save_for_backward(y, gates, token, row)
        total = y.index_select(0, row[:, 0]).mul_(gates[:, :1])
        for j in range(1, row.shape[1]):
            # Not addcmul_: it rounds once, transformers' experts twice, and exported logits would
            # differ in the last bit.
            total += y.index_select(0, row[:, j]).mul_(gates[:, j : j + 1])
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        y, gates, token, row = ctx.saved_tensors
        grad_rows = grad.index_select(0, token)
        dots = (grad_rows * y).sum(-1)
        by_row = gates.new_empty(row.numel()).index_copy_(0, row.reshape(-1), gates.reshape(-1))
        return grad_rows.mul_(by_row.unsqueeze(-1)), dots[row], None, None


class _SwiGLU(torch.autograd.Function):
    """silu(first half) * second half, which keeps its input only and recomputes the rest."""

    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        ctx.save_for_backward(both)
        gate, up = both.chunk(2, dim=-1)
        return F.silu(gate) * up

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (both,) = ctx.saved_tensors
        gate, up = both.chunk(2, dim=-1)
        result = torch.empty_like(both)
        to_gate, to_up = result.chunk(2, dim=-1)
        torch.mul(F.silu(gate), grad, out=to_up)
        to_gate.copy_(torch.ops.aten.silu_backward(grad * up, gate))
        return result


class _Pick(torch.autograd.Function):
    """values[n, index[n, j]], for indices that differ within a row."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.shape = values.shape
        return values.gather(1, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        return grad.new_zeros(ctx.shape).scatter_(1, index, grad), None


def to_experts(x: Tensor, dispatch: Dispatch) -> Tensor:
    """Rows of `x` (N, d), one for each pair, sorted by expert: (N k, d)."""
    return _Scatter.apply(x, dispatch.token, dispatch.row)


def from_experts(y: Tensor, gates: Tensor, dispatch: Dispatch) -> Tensor:
    """Sum of each token's rows of `y` (N k, d), weighted by its `gates` (N, k): (N, d).

    The gates must stand in ascending order of expert, as in the dispatch.
    """
    return _Gather.apply(y, gates, dispatch.token, dispatch.row)


def swiglu(both: Tensor) -> Tensor:
    """silu(gate) * up of rows (M, 2 h) that hold gate and up side by side: (M, h)."""
    return _SwiGLU.apply(both)


def pick(values: Tensor, index: Tensor) -> Tensor:
    """`values.gather(1, index)` with a gradient that needs no atomic addition."""
    return _Pick.apply(values, index)


def can_group(x: Tensor, weight: Tensor) -> bool:
    """Whether torch's grouped matmul takes these rows (M, in) and weights (E, out, in)."""
    if not hasattr(F, "grouped_mm") or x.dtype not in _GROUPED_DTYPES:
        return False
    wide = _ALIGNMENT_BYTES // x.element_size()
    if x.shape[-1] % wide or weight.shape[1] % wide:
        return False
    if x.is_cuda:
        if weight.shape[0] > _MOST_GROUPS:
            return False
        return x.dtype == torch.bfloat16 and torch.cuda.get_device_capability(x.device) >= (8, 0)
    return x.device.type == "cpu"


def grouped_linear(x: Tensor, weight: Tensor, ends: Tensor, backend: str) -> Tensor:
    """x[rows of e] @ weight[e].T for every expert e: (M, in) and (E, out, in) give (M, out).

    `backend` is one of `moe_config.BACKENDS`. Raises `ConfigError` where `grouped_mm` is asked
    for and this dtype, device or width has none.
    """
    if backend == "grouped_mm" and not can_group(x, weight):
        raise ConfigError(
            f"moe.backend: grouped_mm takes no {x.dtype} on {x.device.type} with widths "
            f"{x.shape[-1]} and {weight.shape[1]}; set auto or loop"
        )
    if backend == "loop" or not can_group(x, weight):
        edges = [0, *ends.tolist()]
        parts = zip(edges, edges[1:], weight.unbind(0), strict=False)
        return torch.cat([F.linear(x[a:b], one) for a, b, one in parts])
    return F.grouped_mm(x, weight.transpose(-2, -1), offs=ends)
