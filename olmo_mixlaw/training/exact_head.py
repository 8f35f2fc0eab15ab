"""Logits in fp32 where the rest of a model computes in bf16.

An exact match asks which token is the likeliest, and of bf16's logits 2 in 100 have another at
the top than the same numbers in fp32. The last layer alone is taken out of autocast, from the final
norm to the end of the forward pass, so that compiled blocks stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from olmo.model import OLMo
from torch.overrides import TorchFunctionMode


class _InFull(TorchFunctionMode):
    """Products with a matrix of `size` rows are taken in fp32."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.linear and args[1].shape[0] == self.size:
            with torch.autocast(args[0].device.type, enabled=False):
                return F.linear(*(one if one is None else one.float() for one in args))
        return func(*args, **(kwargs or {}))


@contextmanager
def exact_logits(model: OLMo) -> Iterator[None]:
    """The block's forward passes of `model` give logits in fp32, however it is wrapped."""
    size = model.config.embedding_size or model.config.vocab_size
    with ExitStack() as stack:

        def begin(*_: Any) -> None:
            stack.enter_context(_InFull(size))

        def end(*_: Any) -> None:
            stack.close()

        final_norm = model.transformer.get_submodule("ln_f")
        hooks = [final_norm.register_forward_hook(begin), model.register_forward_hook(end)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
