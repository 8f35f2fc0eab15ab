"""The shape of one transformer, and what can be counted from it without building it.

Conventions: `n_params` and `n_active` leave out both embedding tables (input and output);
those are `n_embedding`. A token of MoE goes through `top_k` routed and all shared experts.
The counts equal those of OLMo's own model built from `olmo_model()`, parameter by parameter.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from olmo_mixlaw.errors import ConfigError, unknown_name
from olmo_mixlaw.models import limits
from olmo_mixlaw.models.limits import Limit
from olmo_mixlaw.models.moe_config import MoEConfig

ACTIVATIONS = ("swiglu", "gelu", "relu")
NORMS = ("rms", "default", "low_precision")
LIMITS = {
    "d_model": limits.SIZE,
    "n_layers": Limit(1, limits.MOST_LAYERS),
    "n_heads": limits.SIZE,
    "n_kv_heads": limits.SIZE,
    "head_dim": limits.SIZE,
    "mlp_size": Limit(0, limits.MOST_SIZE),
    "vocab_size": limits.SIZE,
    # One token has none after it to predict.
    "context": Limit(2, limits.MOST_SIZE),
    "norm_eps": limits.POSITIVE,
    "rope_theta": limits.POSITIVE,
    "eos_token_id": Limit(0, limits.MOST_SIZE),
    "pad_token_id": Limit(0, limits.MOST_SIZE),
    "init_std": limits.POSITIVE,
    "init_cutoff": limits.POSITIVE,
    **{
        f"latent_attention.{key}": limits.SIZE
        for key in ("kv_rank", "rope_size", "key_size", "value_size")
    },
    "latent_attention.query_rank": Limit(0, limits.MOST_SIZE),
}
# Of the experts, what their own check leaves open.
MOE_LIMITS = {
    "num_experts": limits.SIZE,
    "top_k": limits.SIZE,
    "expert_size": limits.SIZE,
    "shared_experts": Limit(0, limits.MOST_SIZE),
    "load_balance_weight": limits.NOT_NEGATIVE,
    "sequence_balance_weight": limits.NOT_NEGATIVE,
    "z_loss_weight": limits.NOT_NEGATIVE,
    "bias_update_rate": limits.NOT_NEGATIVE,
    "gate_scale": limits.POSITIVE,
}


@dataclass
class LatentAttention:
    """DeepSeek's multi-head latent attention: to count public models by, OLMo has none.

    Widths (arXiv 2405.04434, section 2.1): of the compressed keys and values, the rotary part,
    the rest of a key, a value, and of the compressed query (0: not compressed).
    """

    kv_rank: int = 512
    rope_size: int = 64
    key_size: int = 128
    value_size: int = 128
    query_rank: int = 0

    def n_params(self, d_model: int, n_heads: int) -> int:
        key = self.key_size + self.rope_size
        query = (
            d_model * self.query_rank + self.query_rank + self.query_rank * n_heads * key
            if self.query_rank
            else d_model * n_heads * key
        )
        down = d_model * (self.kv_rank + self.rope_size) + self.kv_rank
        up = self.kv_rank * n_heads * (self.key_size + self.value_size)
        return query + down + up + n_heads * self.value_size * d_model


@dataclass(frozen=True)
class Shape:
    """A decoder as OLMo's sequential block builds it; `moe` replaces the feed-forward."""

    d_model: int
    n_layers: int
    n_heads: int
    mlp_size: int = 0
    """Inner width of a dense feed-forward, after the gate. Unused when every layer is MoE."""
    n_kv_heads: int | None = None
    head_dim: int | None = None
    """Width of one head; unset: d_model / n_heads, the only one that OLMo can build."""
    vocab_size: int = 1024
    context: int = 128
    """Training sequence length, in tokens."""
    tied: bool = True
    """One table for input embeddings and output."""
    activation: str = "swiglu"
    norm: str = "rms"
    norm_eps: float = 1e-5
    qk_norm: bool = False
    norm_after: bool = False
    bias: bool = False
    rope_theta: int = 10_000
    eos_token_id: int = 0
    pad_token_id: int = 1
    init_fn: str = "normal"
    init_std: float = 0.02
    init_cutoff: float | None = 3.0
    latent_attention: LatentAttention | None = None
    moe: MoEConfig | None = None

    def check(self, where: str = "") -> None:
        """Raise `ConfigError` for a shape that no model can have; `where` names file and key."""
        place = f"{where}: " if where else ""
        limits.check(self, LIMITS, where)
        for key in ("eos_token_id", "pad_token_id"):
            if getattr(self, key) >= self.vocab_size:
                raise ConfigError(
                    f"{place}{key}: {getattr(self, key)}; it must be below vocab_size, "
                    f"{self.vocab_size}"
                )
        if self.activation not in ACTIVATIONS:
            raise unknown_name("activation", self.activation, ACTIVATIONS, f"{place}activation")
        if self.norm not in NORMS:
            raise unknown_name("norm", self.norm, NORMS, f"{place}norm")
        if self.latent_attention is None:
            if self.head_dim is None and self.d_model % self.n_heads:
                raise ConfigError(
                    f"{place}d_model {self.d_model} doesn't divide into {self.n_heads} heads"
                )
            if self.head_size % 2:
                raise ConfigError(
                    f"{place}d_model {self.d_model} over {self.n_heads} heads gives a head size "
                    f"of {self.head_size}; rotary embeddings need an even one"
                )
        if self.kv_heads < 1 or self.n_heads % self.kv_heads:
            raise ConfigError(
                f"{place}n_heads {self.n_heads} doesn't divide into {self.kv_heads} key-value heads"
            )
        if self.dense_layers and self.mlp_size < 1:
            raise ConfigError(
                f"{place}mlp_size is {self.mlp_size}, but {self.dense_layers} of the "
                f"{self.n_layers} layers are dense; it must be at least 1"
            )
        if self.moe is not None:
            self.moe.check(self.n_layers, f"{place}moe")
            limits.check(self.moe, MOE_LIMITS, f"{place}moe")
            if self.activation != "swiglu" or self.bias:
                raise ConfigError(
                    f"{place}experts are SwiGLU without bias; with `moe` set, "
                    "activation must be swiglu and bias false"
                )

    @property
    def kv_heads(self) -> int:
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    @property
    def head_size(self) -> int:
        return self.d_model // self.n_heads if self.head_dim is None else self.head_dim

    @property
    def dense_layers(self) -> int:
        """Layers whose feed-forward is dense."""
        return self.n_layers if self.moe is None else self.moe.dense_layers

    @property
    def attention_params(self) -> int:
        """Weights of one layer's attention, with its biases, without norms."""
        if self.latent_attention is not None:
            return self.latent_attention.n_params(self.d_model, self.n_heads)
        d, kv = self.d_model, self.kv_heads * self.head_size
        q = self.n_heads * self.head_size
        bias = q + d + 2 * kv if self.bias else 0
        return 2 * d * q + 2 * d * kv + bias

    @property
    def mlp_params(self) -> int:
        """Weights of one dense feed-forward."""
        d, h = self.d_model, self.mlp_size
        inner = 2 * h if self.activation == "swiglu" else h
        return d * inner + h * d + (inner + d if self.bias else 0)

    @property
    def norm_params(self) -> int:
        """Weights of all norms."""
        d = self.d_model
        parts = 2 if self.bias else 1
        layer = 2 * d
        if self.qk_norm:
            layer += (self.n_heads + self.kv_heads) * self.head_size
        return parts * (self.n_layers * layer + d)

    def _n_params(self, routed: int) -> int:
        experts = 0
        if self.moe is not None:
            one = 3 * self.d_model * self.moe.expert_size
            router = self.d_model * self.moe.num_experts
            layer = router + (routed + self.moe.shared_experts) * one
            experts = (self.n_layers - self.dense_layers) * layer
        dense = self.dense_layers * self.mlp_params
        return self.n_layers * self.attention_params + dense + experts + self.norm_params

    @property
    def n_params(self) -> int:
        """All parameters but the embedding tables."""
        return self._n_params(self.moe.num_experts if self.moe else 0)

    @property
    def n_active(self) -> int:
        """Parameters that one token goes through, without the embedding tables."""
        return self._n_params(self.moe.top_k if self.moe else 0)

    @property
    def n_head(self) -> int:
        """The output table, when it is one of its own."""
        return 0 if self.tied else self.vocab_size * (self.d_model + self.bias)

    @property
    def n_embedding(self) -> int:
        """Parameters of the embedding tables: one if tied, else two."""
        return self.vocab_size * self.d_model + self.n_head

    @property
    def n_total(self) -> int:
        """Every parameter, with the embedding tables."""
        return self.n_params + self.n_embedding

    @property
    def sparsity(self) -> float:
        """All parameters over active ones, both without embeddings; 1 for a dense model."""
        return self.n_params / self.n_active

    @property
    def flops_per_token(self) -> float:
        """Floating-point operations to train on one token, forward and backward.

        6 a weight that multiplies (active ones and the output table; norms don't), and
        12 n_layers d_model context / 2 for causal attention scores (arXiv 2001.08361, 2.1).
        """
        weights = self.n_active - self.norm_params + self.vocab_size * self.d_model
        return 6 * weights + 6 * self.n_layers * self.attention_width * self.context

    @property
    def attention_width(self) -> int:
        """Heads times the mean of a key's and a value's size."""
        if self.latent_attention is None:
            return self.n_heads * self.head_size
        a = self.latent_attention
        return self.n_heads * (a.key_size + a.rope_size + a.value_size) // 2

    @property
    def training_bytes(self) -> int:
        """Weights, gradients and Adam's two moments, 4 bytes each; activations not counted."""
        return 16 * self.n_total

    def olmo_model(self, **overrides: Any) -> dict[str, Any]:
        """The `model:` section of an OLMo configuration; `overrides` replace its keys.

        Raises `ConfigError` for latent attention and heads of a width of their own, which OLMo
        can't build.
        """
        if self.latent_attention is not None:
            raise ConfigError(
                "latent_attention is there to count public models by; OLMo has no such "
                "attention, so set n_heads and n_kv_heads instead"
            )
        if self.head_dim is not None and self.head_dim * self.n_heads != self.d_model:
            raise ConfigError(
                f"head_dim: OLMo has no heads of a width of their own; d_model {self.d_model} over "
                f"{self.n_heads} heads of {self.head_dim} can be trained by OLMo-core"
            )
        gated = 2 if self.activation == "swiglu" else 1
        section: dict[str, Any] = {
            "d_model": self.d_model,
            "n_heads": self.n_heads,
            "n_kv_heads": self.kv_heads,
            "n_layers": self.n_layers,
            # OLMo's width is that of gate and value together.
            "mlp_hidden_size": gated * (self.mlp_size or self.d_model),
            "activation_type": self.activation,
            "block_type": "sequential",
            "rope": True,
            "rope_theta": self.rope_theta,
            "flash_attention": False,
            "attention_dropout": 0.0,
            "residual_dropout": 0.0,
            "embedding_dropout": 0.0,
            "attention_layer_norm": self.qk_norm,
            "norm_after": self.norm_after,
            "layer_norm_type": self.norm,
            "layer_norm_eps": self.norm_eps,
            "include_bias": self.bias,
            "bias_for_layer_norm": self.bias,
            "max_sequence_length": self.context,
            "vocab_size": self.vocab_size,
            "embedding_size": self.vocab_size,
            "weight_tying": self.tied,
            "eos_token_id": self.eos_token_id,
            "pad_token_id": self.pad_token_id,
            "init_fn": self.init_fn,
            "init_std": self.init_std,
            "init_cutoff_factor": self.init_cutoff,
        }
        if self.moe is not None:
            section["moe"] = dataclasses.asdict(self.moe)
        return section | overrides
