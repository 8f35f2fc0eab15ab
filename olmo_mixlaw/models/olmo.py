"""OLMo's model with MoE layers: its own sequential block, of which only the feed-forward differs.

Nothing of OLMo is patched. A configuration without `moe` gives OLMo's own class.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from olmo.config import ActivationType, BlockType, InitFnType, ModelConfig
from olmo.initialization import init_normal
from olmo.model import BufferCache, OLMo, OLMoBlockGroup, OLMoSequentialBlock
from torch import Tensor, nn

from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.models.moe import MoE, MoEConfig
from olmo_mixlaw.models.routing import load_metrics

# What `moe_metrics` tells of every layer and of the whole model.
LOAD_METRICS = ("load_entropy", "dead_experts", "max_violation")


@dataclass
class MoEModelConfig(ModelConfig):
    """OLMo's model section with a `moe` section in it; without one, the model is dense."""

    moe: MoEConfig | None = None


@dataclass(frozen=True)
class InitStd:
    """Standard deviations of a block's weights: into a sublayer, and out of each."""

    into: float
    out_of_attention: float
    out_of_expert: float
    out_of_shared: float
    cutoff: float | None


def init_std(config: Any, layer_id: int) -> InitStd:
    """What OLMo's `init_fn` gives block `layer_id`; an output matrix's fan-in is what it reads."""
    cutoff, std = config.init_cutoff_factor, config.init_std
    if config.init_fn == InitFnType.normal:
        return InitStd(std, std, std, std, cutoff)
    if config.init_fn == InitFnType.mitchell:
        depth, width = 2 * (layer_id + 1), config.moe.expert_size
        return InitStd(
            into=1 / math.sqrt(config.d_model),
            out_of_attention=1 / math.sqrt(config.d_model * depth),
            out_of_expert=1 / math.sqrt(width * depth),
            out_of_shared=1 / math.sqrt(max(1, config.moe.shared_experts) * width * depth),
            cutoff=cutoff or 3.0,
        )
    if config.init_fn == InitFnType.full_megatron:
        out = std / math.sqrt(2.0 * config.n_layers)
        return InitStd(std, out, out, out, cutoff or 3.0)
    raise NotImplementedError(config.init_fn)


class MoEBlock(OLMoSequentialBlock):
    """OLMo's block with the MoE where its first projection was; the rest does nothing."""

    config: Any
    ff_proj: Any
    act: Any
    ff_out: Any

    def __init__(self, layer_id: int, config: Any, cache: BufferCache) -> None:
        # A one-unit feed-forward is built and dropped, in place of one of full width.
        narrow = dataclasses.replace(config, mlp_hidden_size=2)
        super().__init__(layer_id, narrow, cache)
        self.config = config
        self.ff_proj = MoE(config.d_model, config.moe, device=config.init_device)
        self.act = nn.Identity()
        self.ff_out = nn.Identity()

    def reset_parameters(self) -> None:
        for norm in (self.k_norm, self.q_norm, self.attn_norm, self.ff_norm):
            if norm is not None:
                norm.reset_parameters()
        std = init_std(self.config, self.layer_id)
        init_normal(self.att_proj, std.into, std.cutoff)
        init_normal(self.attn_out, std.out_of_attention, std.cutoff)
        self.ff_proj.reset_parameters(
            std.into, std.out_of_expert, std_shared=std.out_of_shared, cutoff=std.cutoff
        )


class MoEOLMo(OLMo):
    """OLMo with MoE layers after `moe.dense_layers` of its own blocks."""

    config: Any

    def __init__(self, config: Any, init_params: bool = True) -> None:
        # OLMo's constructor builds its own blocks: it is given one, and that is replaced.
        one = dataclasses.replace(config, n_layers=1, block_group_size=1, mlp_hidden_size=2)
        super().__init__(one, init_params=False)
        self.config = config
        cache = BufferCache()
        dense = config.moe.dense_layers
        blocks = [
            (OLMoSequentialBlock if i < dense else MoEBlock)(i, config, cache)
            for i in range(config.n_layers)
        ]
        del self.transformer["blocks"]
        size = config.block_group_size
        if size > 1:
            groups = [
                OLMoBlockGroup(config, i, blocks[i : i + size]) for i in range(0, len(blocks), size)
            ]
            self.transformer["block_groups"] = nn.ModuleList(groups)
        else:
            self.transformer["blocks"] = nn.ModuleList(blocks)
        for layer in self.moe_layers():
            layer.aux_share = 1 / (config.n_layers - dense)
        if init_params and config.init_device != "meta":
            self.reset_parameters()

    def moe_layers(self) -> list[MoE]:
        """The MoE feed-forwards, from the first layer to the last."""
        return moe_layers(self)

    def set_accumulation(self, micro_batches: int) -> None:
        """Say how many micro-batches a device batch is split into, for the auxiliary loss."""
        for layer in self.moe_layers():
            layer.aux_scale = 1 / micro_batches

    def num_inactive_params(self) -> int:
        """Parameters of the routed experts that a token doesn't go through."""
        moe = self.config.moe
        unused = (moe.num_experts - moe.top_k) * 3 * self.config.d_model * moe.expert_size
        return unused * (self.config.n_layers - moe.dense_layers)

    def num_active_params(self, include_embedding: bool = True) -> int:
        """Parameters that one token goes through, by the convention of `num_params`."""
        return self.num_params(include_embedding) - self.num_inactive_params()

    def _make_state_dict_compatible(
        self, state_dict: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, set[str]]]:
        """Also restore the selection biases: under FSDP, OLMo copies in parameters only, after
        it has passed the whole state through here."""
        state_dict, names = super()._make_state_dict_compatible(state_dict)
        for name, buffer in self.named_buffers():
            found = state_dict.get(name.replace("_fsdp_wrapped_module.", ""))
            if found is not None and not buffer.is_meta:
                buffer.copy_(found)
        return state_dict, names

    @property
    def num_fwd_flops(self) -> int:
        """Forward FLOPs a token by OLMo's rule, over active parameters."""
        return super().num_fwd_flops - 2 * self.num_inactive_params()

    @property
    def num_bck_flops(self) -> int:
        """Backward FLOPs a token by OLMo's rule, over active parameters."""
        return super().num_bck_flops - 4 * self.num_inactive_params()


def check_model(config: Any, where: str = "model") -> None:
    """Raise `ConfigError` for a `model:` section that has `moe` and can't be built."""
    moe = getattr(config, "moe", None)
    if moe is None:
        return
    moe.check(config.n_layers, f"{where}.moe")
    if config.block_type != BlockType.sequential:
        raise ConfigError(f"{where}.block_type: {config.block_type} has no MoE; use sequential")
    if config.activation_type != ActivationType.swiglu:
        raise ConfigError(
            f"{where}.activation_type: experts are SwiGLU, not {config.activation_type}; use swiglu"
        )
    if config.d_model % config.n_heads:
        raise ConfigError(
            f"{where}.d_model: {config.d_model} doesn't divide into {config.n_heads} heads"
        )
    if config.n_heads % config.effective_n_kv_heads:
        raise ConfigError(
            f"{where}.n_heads: {config.n_heads} doesn't divide into "
            f"{config.effective_n_kv_heads} key-value heads"
        )


def build_model(config: Any, *, init_params: bool = True) -> OLMo:
    """OLMo's model for a `ModelConfig`, one with a `moe` field, or the mapping of either.

    Raises `ConfigError` for experts that can't be built. With `init_device: meta` no weight is
    set until `reset_parameters()`.
    """
    if isinstance(config, Mapping):
        values = dict(config)
        moe = values.pop("moe", None)
        if isinstance(moe, Mapping):
            moe = MoEConfig(**moe)
        config = MoEModelConfig(**values, moe=moe)
    check_model(config)
    if getattr(config, "moe", None) is None:
        return OLMo(config, init_params=init_params)
    return MoEOLMo(config, init_params=init_params)


def moe_layers(model: nn.Module) -> list[MoE]:
    """The MoE feed-forwards of a model, from the first layer to the last; [] for a dense one."""
    return [module for module in model.modules() if isinstance(module, MoE)]


def moe_metrics(load: Tensor) -> dict[str, float]:
    """How evenly the experts were used, from the tokens of each, (MoE layers, E); {} for none.

    `moe/load_entropy`, `moe/dead_experts` and `moe/max_violation` are means over layers;
    `moe/<layer>/...` is each MoE layer's own, its load per expert among them.
    """
    found = [load_metrics(one) for one in load]
    result: dict[str, float] = {}
    if not found or not all(found):
        return result
    for key in LOAD_METRICS:
        result[f"moe/{key}"] = sum(one[key] for one in found) / len(found)
    for i, one in enumerate(found):
        result |= {f"moe/{i:02d}/{key}": value for key, value in one.items()}
    return result
