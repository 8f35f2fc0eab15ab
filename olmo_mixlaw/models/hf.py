"""Our own transformers class, for what no stock class holds: shared experts, leading dense
layers, sigmoid routing, a selection bias, qk-norm with norms before.

Importing this module registers it with transformers' Auto classes. Its parameters bear OLMo's
names, and it computes what OLMo's block does in the same order, so logits differ by rounding only.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, PreTrainedModel
from transformers.configuration_utils import PretrainedConfig
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from olmo_mixlaw.models.moe import MoE
from olmo_mixlaw.models.moe_config import MoEConfig

_TIED = ("lm_head.weight", "model.wte.weight")
_MAJOR = int(transformers.__version__.split(".")[0])


class MixlawConfig(PretrainedConfig):
    """A decoder with rotary positions, RMS norms, SwiGLU and no biases; `moe` as `MoEConfig`.

    `intermediate_size` is the inner width of dense feed-forwards; `rope_base` OLMo's
    `rope_theta`.
    """

    model_type = "mixlaw"

    def __init__(
        self,
        vocab_size: int = 1024,
        hidden_size: int = 64,
        intermediate_size: int = 256,
        num_hidden_layers: int = 2,
        num_attention_heads: int = 4,
        num_key_value_heads: int = 4,
        max_position_embeddings: int = 128,
        rms_norm_eps: float = 1e-5,
        rope_base: float = 10_000.0,
        qk_norm: bool = False,
        norm_after: bool = False,
        tie_word_embeddings: bool = True,
        use_cache: bool = True,
        moe: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_key_value_heads
        self.max_position_embeddings = max_position_embeddings
        self.rms_norm_eps = rms_norm_eps
        self.rope_base = rope_base
        self.qk_norm = qk_norm
        self.norm_after = norm_after
        self.use_cache = use_cache
        self.moe = moe
        # Given to the base class by name: in major 4 it is an argument of its own there.
        kwargs["tie_word_embeddings"] = tie_word_embeddings
        super().__init__(**kwargs)


class RMSNorm(nn.Module):
    """x / rms(x) in fp32, times a weight."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        exact = x.to(torch.float32)
        exact = exact * torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * exact.to(x.dtype)


def rotary_tables(positions: Tensor, size: int, base: float) -> tuple[Tensor, Tensor]:
    """Sines and cosines (batch, 1, length, size) at integer `positions` (batch, length)."""
    power = torch.arange(0, size, 2, device=positions.device, dtype=torch.float) / size
    angles = positions.float()[:, :, None] * (1.0 / (base**power))
    angles = torch.cat((angles, angles), dim=-1)[:, None]
    return angles.sin(), angles.cos()


def rotate(x: Tensor, sin: Tensor, cos: Tensor) -> Tensor:
    """`x` (batch, heads, length, size) turned by its positions, in fp32."""
    exact = x.float()
    first, second = exact.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return (exact * cos + turned * sin).to(x.dtype)


class Block(nn.Module):
    """Attention and feed-forward, each with its norm before it or (`norm_after`) after it."""

    def __init__(self, config: MixlawConfig, index: int) -> None:
        super().__init__()
        d, eps = config.hidden_size, config.rms_norm_eps
        self.index, self.norm_after = index, config.norm_after
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.kv_size = d // self.heads * self.kv_heads
        self.att_proj = nn.Linear(d, d + 2 * self.kv_size, bias=False)
        self.attn_out = nn.Linear(d, d, bias=False)
        self.attn_norm, self.ff_norm = RMSNorm(d, eps), RMSNorm(d, eps)
        self.q_norm = RMSNorm(d, eps) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(self.kv_size, eps) if config.qk_norm else nn.Identity()
        moe = None if config.moe is None else MoEConfig(**config.moe)
        self.ff_proj: nn.Module
        if moe is not None and index >= moe.dense_layers:
            self.ff_proj = MoE(d, moe)
        else:
            self.ff_proj = nn.Linear(d, 2 * config.intermediate_size, bias=False)
            self.ff_out = nn.Linear(config.intermediate_size, d, bias=False)

    def attention(
        self, x: Tensor, tables: tuple[Tensor, Tensor], mask: Tensor | None, cache: Any
    ) -> Tensor:
        batch, length, d = x.shape
        q, k, v = self.att_proj(x).split((d, self.kv_size, self.kv_size), dim=-1)
        q, k = self.q_norm(q), self.k_norm(k)
        q = rotate(q.view(batch, length, self.heads, -1).transpose(1, 2), *tables)
        k = rotate(k.view(batch, length, self.kv_heads, -1).transpose(1, 2), *tables)
        v = v.view(batch, length, self.kv_heads, -1).transpose(1, 2)
        if cache is not None:
            k, v = cache.update(k, v, self.index)
        if self.kv_heads != self.heads:
            k = k.repeat_interleave(self.heads // self.kv_heads, dim=1)
            v = v.repeat_interleave(self.heads // self.kv_heads, dim=1)
        causal = mask is None and length > 1
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        return self.attn_out(out.transpose(1, 2).reshape(batch, length, d))

    def feed_forward(self, x: Tensor) -> Tensor:
        x = self.ff_proj(x)
        if isinstance(self.ff_proj, MoE):
            return x
        up, gate = x.chunk(2, dim=-1)
        return self.ff_out(F.silu(gate) * up)

    def forward(
        self, x: Tensor, tables: tuple[Tensor, Tensor], mask: Tensor | None, cache: Any
    ) -> Tensor:
        if self.norm_after:
            x = x + self.attn_norm(self.attention(x, tables, mask, cache))
            return x + self.ff_norm(self.feed_forward(x))
        x = x + self.attention(self.attn_norm(x), tables, mask, cache)
        return x + self.feed_forward(self.ff_norm(x))


class Decoder(nn.Module):
    """Embedding, blocks and last norm, under OLMo's names."""

    def __init__(self, config: MixlawConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList([Block(config, i) for i in range(config.num_hidden_layers)])
        self.ln_f = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """States (batch, length, width); `attention_mask` (batch, past + length) 0 at padding."""
        x = self.wte(input_ids) if inputs_embeds is None else inputs_embeds
        length = x.shape[1]
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache()
        past = 0 if past_key_values is None else int(past_key_values.get_seq_length())
        if position_ids is None:
            position_ids = torch.arange(past, past + length, device=x.device)[None]
        size = self.config.hidden_size // self.config.num_attention_heads
        tables = rotary_tables(position_ids, size, self.config.rope_base)
        mask = attention_mask_of(attention_mask, past, length, x.device)
        for block in self.blocks:
            x = block(x, tables, mask, past_key_values)
        return BaseModelOutputWithPast(
            last_hidden_state=self.ln_f(x), past_key_values=past_key_values
        )


class MixlawForCausalLM(PreTrainedModel, GenerationMixin):
    """OLMo's decoder for causal language modelling; attention by torch's fused kernel."""

    config_class = MixlawConfig
    config: MixlawConfig
    base_model_prefix = "model"
    _supports_sdpa = True
    _tied_weights_keys: Any = dict([_TIED]) if _MAJOR >= 5 else [_TIED[0]]

    def __init__(self, config: MixlawConfig) -> None:
        super().__init__(config)
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: weights come from a checkpoint, and new ones keep torch's initialisation."""

    def get_input_embeddings(self) -> nn.Module:
        return self.model.wte

    def set_input_embeddings(self, value: Any) -> None:
        self.model.wte = value

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: Any) -> None:
        self.lm_head = new_embeddings

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits (batch, length, vocabulary); with `labels` also the mean loss in nats a token.

        `logits_to_keep` as elsewhere in transformers: how many positions from the end, or which,
        need logits (0: all). The rest is `Decoder`'s.
        """
        states = self.model(
            input_ids, attention_mask, position_ids, past_key_values, inputs_embeds, use_cache
        )
        x = states.last_hidden_state
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(x[:, kept])
        loss = None
        if labels is not None:
            loss = F.cross_entropy(
                logits[:, :-1].float().reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1)
            )
        return CausalLMOutputWithPast(
            loss=loss, logits=logits, past_key_values=states.past_key_values
        )


def attention_mask_of(
    padding: Tensor | None, past: int, length: int, device: torch.device
) -> Tensor | None:
    """Where a query may look, (batch or 1, 1, length, past + length), True if it may.

    None where plain causal attention, or one query after everything, needs no mask.
    """
    padded = padding is not None and not bool(padding.all())
    if not padded and (past == 0 or length == 1):
        return None
    keys = torch.arange(past + length, device=device)
    allowed = keys[None, :] <= torch.arange(past, past + length, device=device)[:, None]
    allowed = allowed[None, None]
    if padded:
        assert padding is not None
        allowed = allowed & padding[:, None, None, :].bool()
        # A padded query sees nothing; it may see itself, since a softmax of nothing is NaN.
        allowed = allowed | (keys[None, :] == keys[past:, None])
    return allowed


AutoConfig.register(MixlawConfig.model_type, MixlawConfig, exist_ok=True)
AutoModelForCausalLM.register(MixlawConfig, MixlawForCausalLM, exist_ok=True)
