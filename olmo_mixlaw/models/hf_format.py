"""Which transformers class holds an OLMo model, and how its settings and weights are called.

Plain dictionaries and tensors, without transformers: what is written loads under its majors 4
and 5, whose own `save_pretrained` write differently.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from olmo.config import ActivationType, BlockType, InitFnType, LayerNormType
from torch import Tensor

from olmo_mixlaw.errors import CheckpointError
from olmo_mixlaw.models.moe_config import MoEConfig
from olmo_mixlaw.models.olmo import MoEModelConfig

# model_type -> class of transformers (ours last).
CLASSES = {
    "llama": "LlamaForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
    "olmoe": "OlmoeForCausalLM",
    "flex_olmo": "FlexOlmoForCausalLM",
    "mixlaw": "MixlawForCausalLM",
}


# Keys of a config.json that every model has.
_COUNTS = (
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "vocab_size",
)


def impossible(config: Any) -> list[str]:
    """Settings of `config` that none of the classes has, each with what would be possible."""
    wanted = {
        "block_type": BlockType.sequential,
        "activation_type": ActivationType.swiglu,
        "layer_norm_type": LayerNormType.rms,
        "layer_norm_with_affine": True,
        "rope": True,
        "alibi": False,
        "include_bias": False,
        "scale_logits": False,
        "embedding_layer_norm": False,
        "clip_qkv": None,
    }
    if config.attention_layer_norm:
        wanted["attention_layer_norm_with_affine"] = True
    found = [
        f"{key}: {_plain(getattr(config, key))} (has {_plain(value)})"
        for key, value in wanted.items()
        if getattr(config, key) != value
    ]
    bias = config.bias_for_layer_norm
    if config.include_bias if bias is None else bias:
        found.append("bias_for_layer_norm: true (has false)")
    return found


def _plain(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def unlike_stock(config: Any) -> list[str]:
    """Settings of a model that only our own class has; [] if a stock class holds it."""
    moe: MoEConfig | None = config.moe
    qk = config.attention_layer_norm
    if moe is None:
        if qk != config.norm_after:
            return [f"attention_layer_norm: {_plain(qk)} with norm_after: {_plain(not qk)}"]
        return []
    plain = {
        "router": "softmax",
        "shared_experts": 0,
        "dense_layers": 0,
        "selection_bias": False,
        "gate_scale": 1.0,
    }
    found = [
        f"moe.{key}: {_plain(getattr(moe, key))}"
        for key, value in plain.items()
        if getattr(moe, key) != value
    ]
    return found if qk else [*found, "attention_layer_norm: false with moe"]


def choose_class(config: Any, own_class: bool, where: str) -> str:
    """The `model_type` to export to. Raises `CheckpointError`, which says what would make it
    possible, when there is none."""
    if missing := impossible(config):
        raise CheckpointError(
            f"{where}: no class of transformers or ours holds this model: {'; '.join(missing)}"
        )
    special = unlike_stock(config)
    if own_class:
        return "mixlaw"
    if special:
        raise CheckpointError(
            f"{where}: no class of transformers holds {', '.join(special)}; --own-class exports it "
            "to a class of ours, which loads with trust_remote_code=True"
        )
    if config.moe is None:
        return "olmo2" if config.norm_after else "llama"
    return "flex_olmo" if config.norm_after else "olmoe"


def hf_settings(config: Any, model_type: str) -> dict[str, Any]:
    """The `config.json` of the exported model."""
    rope = float(config.rope_theta)
    settings: dict[str, Any] = {
        "architectures": [CLASSES[model_type]],
        "model_type": model_type,
        "vocab_size": config.embedding_size or config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.effective_n_kv_heads,
        "intermediate_size": (config.mlp_hidden_size or config.mlp_ratio * config.d_model) // 2,
        "max_position_embeddings": config.max_sequence_length,
        "rms_norm_eps": config.layer_norm_eps,
        "tie_word_embeddings": config.weight_tying,
        "bos_token_id": None,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
        "initializer_range": config.init_std,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_cache": True,
        # What major 4 reads; major 5 reads torch_dtype too.
        "torch_dtype": "float32",
    }
    if model_type == "mixlaw":
        settings |= {
            "rope_base": rope,
            "qk_norm": config.attention_layer_norm,
            "norm_after": config.norm_after,
            "moe": None if config.moe is None else dataclasses.asdict(config.moe),
            "auto_map": {
                "AutoConfig": "modeling_mixlaw.MixlawConfig",
                "AutoModelForCausalLM": "modeling_mixlaw.MixlawForCausalLM",
            },
        }
        return settings
    # Major 4 reads the first, major 5 the second, and each has a default that the other ignores.
    settings["rope_theta"] = rope
    settings["rope_parameters"] = {"rope_type": "default", "rope_theta": rope}
    if model_type == "llama":
        settings |= {"mlp_bias": False, "head_dim": config.d_model // config.n_heads}
    if config.moe is not None:
        settings |= {
            "intermediate_size": config.moe.expert_size,
            "num_experts": config.moe.num_experts,
            "num_experts_per_tok": config.moe.top_k,
            "norm_topk_prob": config.moe.normalize_gates,
            "router_aux_loss_coef": config.moe.load_balance_weight,
            "output_router_logits": False,
        }
    if model_type == "olmoe":
        settings["clip_qkv"] = None
    return settings


def _norm_names(model_type: str) -> dict[str, str]:
    """OLMo's block norms and what transformers calls them."""
    if model_type in ("olmo2", "flex_olmo"):
        return {"attn_norm": "post_attention_layernorm", "ff_norm": "post_feedforward_layernorm"}
    return {"attn_norm": "input_layernorm", "ff_norm": "post_attention_layernorm"}


def to_hf(
    config: Any, model_type: str, state: Mapping[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """OLMo's weights under the names of `model_type`, one after the other, each a view."""
    if model_type == "mixlaw":
        for name, tensor in state.items():
            head = name.removeprefix("transformer.")
            yield ("lm_head.weight" if head == "ff_out.weight" else f"model.{head}"), tensor
        return
    yield "model.embed_tokens.weight", state["transformer.wte.weight"]
    yield "model.norm.weight", state["transformer.ln_f.weight"]
    if not config.weight_tying:
        yield "lm_head.weight", state["transformer.ff_out.weight"]
    kv = config.d_model // config.n_heads * config.effective_n_kv_heads
    for i in range(config.n_layers):
        ours, theirs = f"transformer.blocks.{i}.", f"model.layers.{i}."
        for ours_norm, theirs_norm in _norm_names(model_type).items():
            yield f"{theirs}{theirs_norm}.weight", state[f"{ours}{ours_norm}.weight"]
        fused = state[f"{ours}att_proj.weight"].split([config.d_model, kv, kv])
        for letter, weight in zip("qkv", fused, strict=True):
            yield f"{theirs}self_attn.{letter}_proj.weight", weight
        yield f"{theirs}self_attn.o_proj.weight", state[f"{ours}attn_out.weight"]
        if config.attention_layer_norm:
            for norm in ("q_norm", "k_norm"):
                yield f"{theirs}self_attn.{norm}.weight", state[f"{ours}{norm}.weight"]
        if config.moe is None:
            up, gate = state[f"{ours}ff_proj.weight"].chunk(2)
            yield f"{theirs}mlp.up_proj.weight", up
            yield f"{theirs}mlp.gate_proj.weight", gate
            yield f"{theirs}mlp.down_proj.weight", state[f"{ours}ff_out.weight"]
            continue
        yield f"{theirs}mlp.gate.weight", state[f"{ours}ff_proj.router.weight"]
        gate_up = state[f"{ours}ff_proj.gate_up.weight"].chunk(config.moe.num_experts)
        down = state[f"{ours}ff_proj.down.weight"].chunk(config.moe.num_experts)
        for e, (both, out) in enumerate(zip(gate_up, down, strict=True)):
            gate, up = both.chunk(2)
            yield f"{theirs}mlp.experts.{e}.gate_proj.weight", gate
            yield f"{theirs}mlp.experts.{e}.up_proj.weight", up
            yield f"{theirs}mlp.experts.{e}.down_proj.weight", out


def olmo_settings(settings: Mapping[str, Any], where: str) -> MoEModelConfig:
    """OLMo's model section for a `config.json`. Raises `CheckpointError` for what OLMo lacks."""
    kind = settings.get("model_type")
    if kind not in CLASSES:
        raise CheckpointError(
            f"{where}: model_type: {kind!r} has no counterpart in OLMo "
            f"(known: {', '.join(sorted(CLASSES))})"
        )
    rope = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    kind_of_rope = rope.get("rope_type", rope.get("type", "default"))
    unlike = {
        "rope_parameters.rope_type": (kind_of_rope, "default"),
        "hidden_act": (settings.get("hidden_act", "silu"), "silu"),
        "attention_bias": (settings.get("attention_bias", False), False),
        "mlp_bias": (settings.get("mlp_bias", False), False),
    }
    for key, (found, needed) in unlike.items():
        if found != needed:
            raise CheckpointError(f"{where}: {key}: {found!r}; OLMo has only {needed!r}")
    for key in _COUNTS:
        if type(settings[key]) is not int or settings[key] < 1:
            raise CheckpointError(f"{where}: {key}: {settings[key]!r} is no number above 0")
    d_model, heads = settings["hidden_size"], settings["num_attention_heads"]
    head_size = settings.get("head_dim") or d_model // heads
    if head_size * heads != d_model:
        raise CheckpointError(
            f"{where}: head_dim: {head_size} x {heads} heads is not hidden_size {d_model}, as OLMo "
            "needs it"
        )
    own = kind == "mixlaw"
    moe: MoEConfig | None = None
    if own and settings.get("moe"):
        moe = MoEConfig(**settings["moe"])
    elif kind in ("olmoe", "flex_olmo"):
        moe = MoEConfig(
            num_experts=settings["num_experts"],
            top_k=settings["num_experts_per_tok"],
            expert_size=settings["intermediate_size"],
            normalize_gates=settings.get("norm_topk_prob", False),
            load_balance_weight=settings.get("router_aux_loss_coef", 0.01),
        )
    eos = settings.get("eos_token_id")
    eos = eos[0] if isinstance(eos, list) else eos
    pad = settings.get("pad_token_id")
    theta = settings.get("rope_base") if own else rope.get("rope_theta", settings.get("rope_theta"))
    return MoEModelConfig(
        d_model=d_model,
        n_heads=heads,
        n_kv_heads=settings.get("num_key_value_heads") or heads,
        n_layers=settings["num_hidden_layers"],
        mlp_hidden_size=2 * settings["intermediate_size"],
        activation_type=ActivationType.swiglu,
        block_type=BlockType.sequential,
        rope=True,
        rope_theta=int(theta or 10_000),
        clip_qkv=settings.get("clip_qkv"),
        attention_layer_norm=settings["qk_norm"] if own else kind != "llama",
        norm_after=settings["norm_after"] if own else kind in ("olmo2", "flex_olmo"),
        layer_norm_type=LayerNormType.rms,
        layer_norm_eps=settings["rms_norm_eps"],
        include_bias=False,
        bias_for_layer_norm=False,
        attention_dropout=0.0,
        residual_dropout=0.0,
        embedding_dropout=0.0,
        max_sequence_length=settings["max_position_embeddings"],
        vocab_size=settings["vocab_size"],
        embedding_size=settings["vocab_size"],
        weight_tying=settings.get("tie_word_embeddings", False),
        eos_token_id=0 if eos is None else eos,
        pad_token_id=(eos or 0) if pad is None else pad,
        init_fn=InitFnType.normal,
        init_std=settings.get("initializer_range", 0.02),
        init_device="cpu",
        moe=moe,
    )


def to_olmo(
    config: Any, model_type: str, state: Mapping[str, Tensor], where: str
) -> dict[str, Tensor]:
    """The weights of a `model_type` under OLMo's names. Raises `CheckpointError` for a missing
    one."""
    import torch

    def take(name: str) -> Tensor:
        if name not in state:
            raise CheckpointError(f"{where}: no weight {name!r}, which a {model_type} model has")
        return state[name]

    found: dict[str, Tensor] = {}
    if model_type == "mixlaw":
        for name, tensor in state.items():
            if name != "lm_head.weight":
                found[f"transformer.{name.removeprefix('model.')}"] = tensor
            elif not config.weight_tying:
                found["transformer.ff_out.weight"] = tensor
        return found
    found["transformer.wte.weight"] = take("model.embed_tokens.weight")
    found["transformer.ln_f.weight"] = take("model.norm.weight")
    if not config.weight_tying:
        found["transformer.ff_out.weight"] = take("lm_head.weight")
    for i in range(config.n_layers):
        ours, theirs = f"transformer.blocks.{i}.", f"model.layers.{i}."
        for ours_norm, theirs_norm in _norm_names(model_type).items():
            found[f"{ours}{ours_norm}.weight"] = take(f"{theirs}{theirs_norm}.weight")
        parts = [take(f"{theirs}self_attn.{letter}_proj.weight") for letter in "qkv"]
        found[f"{ours}att_proj.weight"] = torch.cat(parts)
        found[f"{ours}attn_out.weight"] = take(f"{theirs}self_attn.o_proj.weight")
        if config.attention_layer_norm:
            for norm in ("q_norm", "k_norm"):
                found[f"{ours}{norm}.weight"] = take(f"{theirs}self_attn.{norm}.weight")
        if config.moe is None:
            parts = [take(f"{theirs}mlp.{part}_proj.weight") for part in ("up", "gate")]
            found[f"{ours}ff_proj.weight"] = torch.cat(parts)
            found[f"{ours}ff_out.weight"] = take(f"{theirs}mlp.down_proj.weight")
            continue
        found[f"{ours}ff_proj.router.weight"] = take(f"{theirs}mlp.gate.weight")
        experts = f"{theirs}mlp.experts."
        if f"{experts}gate_up_proj" in state:
            # Major 5 keeps experts stacked: (E, 2 inner, d) and (E, d, inner).
            found[f"{ours}ff_proj.gate_up.weight"] = take(f"{experts}gate_up_proj").flatten(0, 1)
            found[f"{ours}ff_proj.down.weight"] = take(f"{experts}down_proj").flatten(0, 1)
            continue
        every = range(config.moe.num_experts)
        gate_up = [
            take(f"{experts}{e}.{part}_proj.weight") for e in every for part in ("gate", "up")
        ]
        found[f"{ours}ff_proj.gate_up.weight"] = torch.cat(gate_up)
        down = [take(f"{experts}{e}.down_proj.weight") for e in every]
        found[f"{ours}ff_proj.down.weight"] = torch.cat(down)
    return found
