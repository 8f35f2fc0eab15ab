"""Logits in fp32 where the rest of a model of OLMo-core computes in bf16.

As `olmo_mixlaw.training.exact_head` does for OLMo 0.6, and for its reason: an exact match asks
which token is the likeliest, and bf16 rounds two logits to one. Weights that FSDP gathers in bf16
stay so; the product and its sum are taken in fp32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F


@contextmanager
def exact_logits(model: Any) -> Iterator[None]:
    """The block's forward passes of `model`, a `Transformer`, give logits in fp32."""
    head = model.lm_head
    last = head.w_out

    def in_full(hidden: torch.Tensor) -> torch.Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            bias = None if last.bias is None else last.bias.float()
            return F.linear(hidden.float(), last.weight.float(), bias)

    # What was compiled holds the product as it was.
    compiled, head._compiled_call_impl = head._compiled_call_impl, None
    last.forward = in_full
    try:
        yield
    finally:
        del last.forward
        head._compiled_call_impl = compiled
