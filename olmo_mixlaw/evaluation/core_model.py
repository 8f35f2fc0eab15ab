"""A checkpoint of OLMo-core as a model to score, with a key-value cache of our own.

OLMo-core caches keys only in flash attention on a GPU. Its attention asks a cache where it
stands and hands it to what computes the attention; both are replaced here by ones that run on any
device, with full and with sliding windows.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from olmo_mixlaw.datasets.tokenizer import load_tokenizer
from olmo_mixlaw.errors import CheckpointError, DataError
from olmo_mixlaw.evaluation.head import Head
from olmo_mixlaw.evaluation.language_model import TorchModel
from olmo_mixlaw.training_core import saved, saved_model

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class CoreModel(TorchModel):
    """A model of OLMo-core.

    Where every layer is attention whose keys can be kept, `read` keeps them; another model
    (recurrent layers, scalable softmax, attention sinks) reads what came before again.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Tokenizer,
        config: dict[str, Any],
        *,
        max_length: int,
        eos_token_id: int,
    ) -> None:
        super().__init__(
            model,
            tokenizer,
            config,
            max_length=max_length,
            vocab_size=int(model.vocab_size),
            eos_token_id=eos_token_id,
            n_layers=int(model.n_layers),
            width=int(model.d_model),
        )
        if self.head is not None:
            self.norm = model.lm_head.norm
            model.lm_head = None  # so the module gives its last states
        self.layers = [block.attention for block in model.blocks.values()]
        self.remembers = all(map(_can_keep_keys, self.layers))
        if self.remembers:
            for layer in self.layers:
                layer.backend = _Attention(layer.backend)

    def find_head(self) -> Head | None:
        from olmo_core.nn.lm_head import LMHead

        head = self.model.lm_head
        return Head(head.w_out.weight, head.w_out.bias) if type(head) is LMHead else None

    def read(self, ids: Tensor, cache: Any = None, keep_cache: bool = False) -> tuple[Tensor, Any]:
        if not self.remembers:
            whole = ids if cache is None else torch.cat([cache, ids], dim=1)
            return self._states(whole)[:, -ids.shape[1] :], whole if keep_cache else None
        if cache is None and not keep_cache:
            return self._states(ids), None
        kept = [_Keys(*pair) for pair in cache or [(None, None)] * len(self.layers)]
        for layer, keys in zip(self.layers, kept, strict=True):
            layer.kv_cache_manager = keys
        try:
            states = self._states(ids)
        finally:
            for layer in self.layers:
                layer.kv_cache_manager = None
        return states, [(keys.keys, keys.values) for keys in kept]

    def _states(self, ids: Tensor) -> Tensor:
        states = self.model(ids)
        return states if self.head is None or self.norm is None else self.norm(states)

    def take(self, cache: Any, rows: Tensor) -> Any:
        if isinstance(cache, Tensor):
            return cache.index_select(0, rows)
        return [(k.index_select(0, rows), v.index_select(0, rows)) for k, v in cache]


class _Keys:
    """Keys and values (B, T, H, D) that a layer has read, as OLMo-core asks its caches."""

    def __init__(self, keys: Tensor | None, values: Tensor | None) -> None:
        self.keys, self.values = keys, values

    def current_position(self) -> int:
        return 0 if self.keys is None else self.keys.shape[1]

    def add(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        if self.keys is not None and self.values is not None:
            keys, values = torch.cat([self.keys, keys], 1), torch.cat([self.values, values], 1)
        self.keys, self.values = keys, values
        return keys, values

    def record_leftpad(self, pads: Any) -> None:
        """Sequences are padded on the right."""

    def update_seqlen(self, count: int) -> None:
        """`add` has counted them."""


class _Attention(nn.Module):
    """Attention to what was read before too; without that, OLMo-core's own."""

    cp_enabled = False  # OLMo-core asks whether a sequence is spread over devices

    def __init__(self, plain: Any) -> None:
        super().__init__()
        self.plain = plain
        self.scale, self.window_size = plain.scale, plain.window_size
        self.repeats = plain.n_heads // plain.n_kv_heads

    def forward(
        self,
        qkv: tuple[Tensor, Tensor, Tensor],
        *,
        kv_cache_manager: _Keys | None = None,
        **others: Any,
    ) -> Tensor:
        before = 0 if kv_cache_manager is None else kv_cache_manager.current_position()
        if kv_cache_manager is not None:
            qkv = (qkv[0], *kv_cache_manager.add(*qkv[1:]))
        if before == 0:
            return self.plain(qkv, **others)
        query, keys, values = (part.transpose(1, 2) for part in qkv)
        states = scaled_dot_product_attention(
            query,
            keys.repeat_interleave(self.repeats, dim=1),
            values.repeat_interleave(self.repeats, dim=1),
            attn_mask=self._seen(query.shape[2], before, query.device),
            scale=self.scale,
        )
        return states.transpose(1, 2).contiguous()

    def _seen(self, count: int, before: int, device: torch.device) -> Tensor | None:
        """Which of the keys (before + count) each of the last `count` tokens attends to."""
        back = self.window_size[0]  # so many tokens before its own; below 0: all
        if count == 1 and not 0 <= back < before:
            return None
        keys = torch.arange(before + count, device=device)[None]
        own = torch.arange(before, before + count, device=device)[:, None]
        return (keys <= own) & (keys >= own - back) if back >= 0 else keys <= own


def _can_keep_keys(layer: Any) -> bool:
    from olmo_core.nn.attention import Attention
    from olmo_core.nn.attention.backend import TorchAttentionBackend

    return (
        isinstance(layer, Attention)
        and type(layer.backend) is TorchAttentionBackend
        and not getattr(layer, "scalable_softmax", False)
        and getattr(layer, "sinks", None) is None
    )


def load_core(
    path: Path,
    tokenizer: str | Path | None,
    device: torch.device,
    dtype: str,
    identity: dict[str, Any],
) -> CoreModel:
    """The model in OLMo-core's checkpoint `path`; `identity` is what files say of it.

    `tokenizer` replaces the one of the run's settings. Raises `CheckpointError`.
    """
    config = saved.read_config(path)
    named = saved.tokenizer_section(config)
    vocabulary = _tokenizer(path, tokenizer or named.get("identifier"))
    end = named.get("eos_token_id")
    if type(end) is not int:
        raise CheckpointError(f"{path / saved.CONFIG}: tokenizer.eos_token_id is missing")
    model = saved_model.load_model(path)
    if vocabulary.get_vocab_size() > model.vocab_size or not 0 <= end < model.vocab_size:
        raise CheckpointError(
            f"{path}: the tokenizer has {vocabulary.get_vocab_size()} tokens and ends texts with "
            f"{end}, the model has {model.vocab_size}"
        )
    model = model.to(device=device, dtype=getattr(torch, dtype))
    length = saved.sequence_length(config)
    identity = {**identity, "max_length": length}
    return CoreModel(model, vocabulary, identity, max_length=length, eos_token_id=end)


def _tokenizer(path: Path, identifier: str | Path | None) -> Tokenizer:
    try:
        return load_tokenizer(saved.find_tokenizer(path, identifier))
    except DataError as error:
        raise CheckpointError(f"{path}: {error}") from None
