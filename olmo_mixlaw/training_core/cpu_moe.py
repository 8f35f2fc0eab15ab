"""OLMo-core's MoE kernels in plain PyTorch, for tensors that its own, in Triton, can't take.

Tokens are sorted by expert: row r of the sorted copies is copy `indices[r]`, of token
`indices[r] // top_k`, and `bins` (E,) says where each expert's rows end. A model without drops
works on the rows as they are; one with a capacity on bins of equal size (E, bin_size), in which
rows that don't fit are dropped and places without a row are zero. Sums are taken in float32.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

KERNELS = (
    "gather",
    "scatter",
    "scatter_wgrad",
    "binned_gather",
    "binned_scatter",
    "binned_scatter_wgrad",
)


def gather(
    x: Tensor, indices: Tensor, bin_ids: Any, weights: Tensor | None, bins: Any, top_k: int
) -> Tensor:
    """Tokens x (n, d) as sorted copies (n top_k, d), each times its weight, if any."""
    copies = x[indices // top_k]
    return copies if weights is None else _scaled(copies, weights[indices]).to(x.dtype)


def scatter(
    x: Tensor, indices: Tensor, bin_ids: Any, weights: Tensor | None, bins: Any, top_k: int
) -> Tensor:
    """Sorted copies x (n top_k, d) as tokens (n, d): each the sum of its weighted copies."""
    return _summed(x, indices, weights, indices, top_k)


def scatter_wgrad(
    x: Tensor, grad: Tensor, indices: Tensor, bin_ids: Any, bins: Any, top_k: int
) -> Tensor:
    """Gradient (n top_k,) of the weights of `scatter`, from that of its tokens, grad (n, d)."""
    return _weight_gradient(x, grad, indices, indices, top_k)


def binned_gather(
    x: Tensor, indices: Tensor, weights: Tensor | None, bins: Tensor, bin_size: int, top_k: int
) -> Tensor:
    """Tokens x (n, d) in bins (E, bin_size, d), each times its weight, if any."""
    expert, place, fits = _places(indices, bins, bin_size)
    out = x.new_zeros(len(bins), bin_size, x.shape[1])
    out[expert, place] = gather(x, indices[fits], None, weights, None, top_k)
    return out


def binned_scatter(
    x: Tensor, indices: Tensor, weights: Tensor | None, bins: Tensor, top_k: int
) -> Tensor:
    """Bins x (E, bin_size, d) as tokens (n, d): each the sum of its weighted copies that fit."""
    expert, place, fits = _places(indices, bins, x.shape[1])
    return _summed(x[expert, place], indices[fits], weights, indices, top_k)


def binned_scatter_wgrad(
    x: Tensor, grad: Tensor, indices: Tensor, bins: Tensor, top_k: int
) -> Tensor:
    """Gradient (n top_k,) of the weights of `binned_scatter`; 0 for copies that don't fit."""
    expert, place, fits = _places(indices, bins, x.shape[1])
    return _weight_gradient(x[expert, place], grad, indices[fits], indices, top_k)


def _places(indices: Tensor, bins: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Expert and place in its bin of each sorted row that fits, and which rows those are."""
    row = torch.arange(len(indices), device=indices.device, dtype=bins.dtype)
    expert = torch.searchsorted(bins, row, right=True)
    starts = torch.cat([bins.new_zeros(1), bins])
    place = row - starts[expert]
    fits = place < size
    return expert[fits], place[fits], fits


def _scaled(x: Tensor, weights: Tensor | None) -> Tensor:
    return x.float() if weights is None else x.float() * weights[:, None].float()


def _summed(
    rows: Tensor, copies: Tensor, weights: Tensor | None, indices: Tensor, top_k: int
) -> Tensor:
    """Tokens (n, d) as sums of `rows`, which are the copies of those numbers."""
    scaled = _scaled(rows, None if weights is None else weights[copies])
    out = scaled.new_zeros(len(indices) // top_k, rows.shape[1])
    return out.index_add_(0, copies // top_k, scaled).to(rows.dtype)


def _weight_gradient(
    rows: Tensor, grad: Tensor, copies: Tensor, indices: Tensor, top_k: int
) -> Tensor:
    products = (rows.float() * grad[copies // top_k].float()).sum(1)
    out = rows.new_zeros(len(indices))
    out[copies] = products.to(rows.dtype)
    return out


class ByDevice:
    """OLMo-core's kernels for tensors on a GPU, where it has them, and these for all others."""

    def __init__(self, triton: Any) -> None:
        for name in KERNELS:
            setattr(self, name, _chosen(getattr(sys.modules[__name__], name), triton, name))


def _chosen(plain: Callable[..., Tensor], triton: Any, name: str) -> Callable[..., Tensor]:
    if triton is None:
        return plain
    fused = getattr(triton, name)

    def kernel(x: Tensor, *args: Any) -> Tensor:
        return (fused if x.is_cuda else plain)(x, *args)

    return kernel


def install() -> None:
    """Let OLMo-core's MoE layers run in this process wherever their tensors are."""
    from olmo_core.ops import moe

    if not isinstance(moe.kernels, ByDevice):
        moe.kernels = ByDevice(moe.kernels)
