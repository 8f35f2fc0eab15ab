"""A model that can be scored: states with a key-value cache, its head, tokenizer and identity."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from olmo_mixlaw.evaluation.head import Head

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer


class Reads(Protocol):
    """What is needed of a model to say whether a text fits it."""

    @property
    def max_length(self) -> int: ...

    @property
    def prefix_token_id(self) -> int: ...

    def encode(self, texts: Sequence[str]) -> list[list[int]]: ...


class LanguageModel(ABC):
    """A causal language model with its tokenizer.

    `max_length` is the longest sequence in tokens, `eos_token_id` ends documents. `bos_token_id`
    is the token that the tokenizer puts before every text by itself, None where it puts none.
    `config` is what goes into files as the model's. `head` makes logits of the states that `read`
    gives; without one, those are the logits already.
    """

    max_length: int
    vocab_size: int
    eos_token_id: int
    bos_token_id: int | None = None
    device: Any
    dtype: str
    config: dict[str, Any]
    head: Head | None = None
    # What batches are planned by; `body` counts parameters without the embeddings.
    n_layers: int = 2
    width: int = 64
    body: int = 100_000

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        tokenizer.no_truncation()
        tokenizer.no_padding()

    @cached_property
    def tokenizer_hash(self) -> str:
        return hashlib.md5(self.tokenizer.to_str().encode()).hexdigest()

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that has no context: its start, or else the end of another."""
        return self.eos_token_id if self.bos_token_id is None else self.bos_token_id

    @property
    def hash(self) -> str:
        """MD5 of the model's configuration, the identity that result files carry."""
        return hashlib.md5(json.dumps(self.config, sort_keys=True).encode()).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""
        batch = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in batch]

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    @abstractmethod
    def read(
        self, ids: torch.Tensor, cache: Any = None, keep_cache: bool = False
    ) -> tuple[torch.Tensor, Any]:
        """States (B, T, d) after each of `ids` (B, T), and the cache that holds them too.

        `cache` holds what was read before.
        """

    @abstractmethod
    def take(self, cache: Any, rows: torch.Tensor) -> Any:
        """The cache of the sequences `rows` (which may repeat)."""

    def logits(
        self, ids: torch.Tensor, cache: Any = None, last: int = 0, keep_cache: bool = False
    ) -> tuple[torch.Tensor, Any]:
        """Logits (B, T, V) of `read`, or with `last` those of the last `last` positions."""
        states, cache = self.read(ids, cache, keep_cache)
        states = states[:, -last:]
        return (states if self.head is None else self.head.logits(states)), cache


class TorchModel(LanguageModel):
    """A model that is a PyTorch module, with its weights on one device and of one type."""

    def __init__(
        self,
        model: Any,
        tokenizer: Tokenizer,
        config: dict[str, Any],
        *,
        max_length: int,
        vocab_size: int,
        eos_token_id: int,
        n_layers: int,
        width: int,
    ) -> None:
        super().__init__(tokenizer)
        self.model = model.eval()
        weights = list(model.parameters())
        self.device, self.dtype = weights[0].device, str(weights[0].dtype).removeprefix("torch.")
        self.config = config
        self.max_length, self.vocab_size, self.eos_token_id = max_length, vocab_size, eos_token_id
        self.n_layers, self.width = n_layers, width
        self.head = self.find_head()
        embeddings = sum(w.numel() for w in weights if vocab_size in w.shape)
        self.body = max(1, sum(w.numel() for w in weights) - embeddings)

    @abstractmethod
    def find_head(self) -> Head | None:
        """The module's head, if its logits can be made of its last states."""


class OlmoModel(TorchModel):
    """A model of OLMo's trainer."""

    def __init__(self, model: Any, tokenizer: Tokenizer, config: dict[str, Any]) -> None:
        shape = model.config
        super().__init__(
            model,
            tokenizer,
            config,
            max_length=int(shape.max_sequence_length),
            # Rows that only pad the embedding have a share of the probability, as in training.
            vocab_size=int(shape.embedding_size or shape.vocab_size),
            eos_token_id=int(shape.eos_token_id),
            n_layers=int(shape.n_layers),
            width=int(shape.d_model),
        )

    def find_head(self) -> Head:
        parts, shape = self.model.transformer, self.model.config
        scale = shape.d_model**-0.5 if shape.scale_logits else 1.0
        if shape.weight_tying:
            return Head(parts.wte.weight, scale=scale)
        return Head(parts.ff_out.weight, parts.ff_out.bias, scale)

    def read(
        self, ids: torch.Tensor, cache: Any = None, keep_cache: bool = False
    ) -> tuple[torch.Tensor, Any]:
        found: list[torch.Tensor] = []

        def keep(module: Any, inputs: Any, states: torch.Tensor) -> torch.Tensor:
            found.append(states)
            return states[:, :0]  # OLMo's forward makes logits of what it is given

        hook = self.model.transformer.ln_f.register_forward_hook(keep)
        try:
            output = self.model(ids, past_key_values=cache, use_cache=keep_cache)
        finally:
            hook.remove()
        return found[0], output.attn_key_values

    def take(self, cache: Any, rows: torch.Tensor) -> Any:
        return [(k.index_select(0, rows), v.index_select(0, rows)) for k, v in cache]


class HuggingFaceModel(TorchModel):
    """A causal model of the transformers library."""

    def __init__(
        self,
        model: Any,
        tokenizer: Tokenizer,
        config: dict[str, Any],
        eos_token_id: int,
        bos_token_id: int | None = None,
    ) -> None:
        shape = model.config
        self.bos_token_id = bos_token_id
        super().__init__(
            model,
            tokenizer,
            config,
            max_length=max_length_of(shape),
            vocab_size=int(shape.vocab_size),
            eos_token_id=eos_token_id,
            n_layers=int(getattr(shape, "num_hidden_layers", None) or self.n_layers),
            width=int(getattr(shape, "hidden_size", None) or self.width),
        )

    def find_head(self) -> Head | None:
        """The module's head, tried against the module's own logits of two tokens."""
        import torch

        layer, shape = self.model.get_output_embeddings(), self.model.config
        if not isinstance(layer, torch.nn.Linear) or self.model.base_model is self.model:
            return None
        scale = float(getattr(shape, "logit_scale", None) or 1.0)
        scale /= float(getattr(shape, "logits_scaling", None) or 1.0)
        head = Head(
            layer.weight, layer.bias, scale, getattr(shape, "final_logit_softcapping", None)
        )
        ids = torch.tensor([[self.eos_token_id, 1]], device=self.device)
        with torch.inference_mode():
            theirs = self.model(input_ids=ids, use_cache=False).logits.float()
            states = self.model.base_model(input_ids=ids, use_cache=False)[0]
            if states.shape[-1] != layer.in_features:
                return None
            ours = head.logits(states).float()
        same = torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4, equal_nan=True)
        return head if same else None

    def read(
        self, ids: torch.Tensor, cache: Any = None, keep_cache: bool = False
    ) -> tuple[torch.Tensor, Any]:
        import torch
        from transformers import DynamicCache

        if keep_cache and cache is None:
            cache = DynamicCache(config=self.model.config)
        past = cache.get_seq_length() if cache is not None else 0
        positions = torch.arange(past, past + ids.shape[1], device=ids.device)[None]
        body = self.model if self.head is None else self.model.base_model
        output = body(
            input_ids=ids,
            past_key_values=cache,
            use_cache=cache is not None,
            position_ids=positions.expand(ids.shape[0], -1),
        )
        return output[0], output.past_key_values

    def take(self, cache: Any, rows: torch.Tensor) -> Any:
        import copy

        # Selecting rows makes new tensors, so the copy may share everything else.
        taken = copy.copy(cache)
        taken.layers = [copy.copy(layer) for layer in cache.layers]
        taken.batch_select_indices(rows)
        return taken


# What families of models call the longest sequence that they were made for.
CONTEXT_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "max_sequence_length",
    "max_seq_len",
)


def stated_length(config: Any) -> int | None:
    """The longest input that the configuration of a HuggingFace model says; None if it doesn't."""
    for key in CONTEXT_KEYS:
        found = getattr(config, key, None)
        if isinstance(found, int) and found > 0:
            return found
    return None


def max_length_of(config: Any) -> int:
    """The longest input of a HuggingFace model; OLMES's default where it doesn't say."""
    return stated_length(config) or 2048
