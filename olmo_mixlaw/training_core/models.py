"""Models of OLMo-core: its own factories by name, and rungs of our ladders in its terms.

A `model:` section names a factory of `TransformerConfig` (`olmo2_190M`, `olmoe_1B_7B`, ...) with
overrides, or a shape with the keys of a rung. The same shape has the same parameters here, in
OLMo and in OLMo-core; what OLMo-core can't build is refused by the key that asks for it.
Reading a section needs no OLMo-core; making a model's configuration of it does.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from olmo_mixlaw import schema
from olmo_mixlaw.errors import ConfigError, first_line, unknown_name
from olmo_mixlaw.models.ladder import Rung
from olmo_mixlaw.models.moe_config import MoEConfig
from olmo_mixlaw.models.shape import Shape
from olmo_mixlaw.training_core.classes import CLASS, OF_CORE, classes, sections

if TYPE_CHECKING:
    from olmo_core.nn.transformer import TransformerConfig

# Ours -> OLMo-core's names.
NORMS = {"rms": "rms", "default": "default", "low_precision": "default"}
INITS = ("normal", "llama", "llama_depth", "fan_in")
CUTOFF = 3.0  # standard deviations; OLMo-core's is fixed
# Of a rung, what a tokenizer, a batch or a ladder says and no model.
NOT_THE_MODELS = frozenset(
    ["name", "training", "factory", "context", "vocab_size", "eos_token_id", "pad_token_id"]
)
# Fields of `TransformerConfig` from which its factories derive others.
FACTORY_ARGUMENTS = ("d_model", "n_layers", "name", "dtype")


@dataclass
class ModelSection:
    """The `model:` section of a training configuration: a factory, or a shape."""

    factory: str | None = None
    """A class method of OLMo-core's `TransformerConfig`, such as olmo2_190M or llama_like."""

    overrides: dict[str, Any] = field(default_factory=dict)
    """The factory's own arguments (`n_layers: 4`), and keys of the `TransformerConfig` that it
    makes, nested or with dots (`block.sequence_mixer.qk_norm.eps: 1e-5`)."""

    shape: dict[str, Any] = field(default_factory=dict)
    """A rung's keys (`d_model`, `n_layers`, `n_heads`, `mlp_size`, `moe`, ...) in place of both."""


def rung_section(rung: Rung) -> dict[str, Any]:
    """The `model:` section of a rung, as plain values for YAML."""
    if rung.factory:
        overrides = {"n_layers": rung.n_layers, "tie_word_embeddings": rung.tied}
        return {"factory": rung.factory, "overrides": overrides}
    values = dataclasses.asdict(rung)
    defaults = {key.name: key.default for key in dataclasses.fields(Rung)}
    kept = {k: v for k, v in values.items() if k not in NOT_THE_MODELS and v != defaults[k]}
    # What a shape is unless it says otherwise may change; whether tables are tied is too dear.
    return {"shape": {**kept, "tied": rung.tied}}


def rung_model(rung: Rung, where: str = "model") -> TransformerConfig:
    """OLMo-core's configuration of a rung, with its shape and every one of its counts.

    Raises `ConfigError` for what OLMo-core can't build, and for a rung of a factory that isn't
    what the factory makes.
    """
    if rung.factory is None:
        return _runs_anywhere(_of_shape(rung, where))
    section = schema.from_mapping(rung_section(rung), ModelSection, where)
    config = model_config(section, rung.vocab_size, where)
    made = (config.num_params, config.num_active_params)
    if made != (rung.n_total, rung.n_total - rung.n_params + rung.n_active):
        raise ConfigError(
            f"{where}: {rung.factory} has {config.num_params:,} parameters, the rung "
            f"{rung.n_total:,}; beside n_layers, tied, context and training, leave a factory's "
            "keys as they are"
        )
    return config


def model_config(section: ModelSection, vocab_size: int, where: str = "model") -> TransformerConfig:
    """The `TransformerConfig` that a section describes, for a tokenizer of `vocab_size`.

    MoE layers are made to run on any device. Raises `ConfigError` naming `where` and the key.
    """
    if bool(section.factory) == bool(section.shape):
        raise ConfigError(f"{where}: give either factory (with overrides) or shape")
    if section.factory:
        config = _of_factory(section.factory, section.overrides, vocab_size, where)
    elif section.overrides:
        raise ConfigError(f"{where}.overrides: are of a factory; write the keys into shape")
    else:
        values = {**section.shape, "vocab_size": vocab_size}
        # A tokenizer's own are checked where it is read.
        values |= {"eos_token_id": 0, "pad_token_id": 0}
        shape = schema.from_mapping(values, Shape, f"{where}.shape")
        shape.check(f"{where}.shape")
        config = _of_shape(shape, f"{where}.shape")
    return _runs_anywhere(config)


def _runs_anywhere(config: TransformerConfig) -> TransformerConfig:
    """The same; if it has experts, this process can now run them without a GPU too."""
    if config.num_active_params != config.num_params:
        from olmo_mixlaw.training_core import cpu_moe

        cpu_moe.install()
    return config


def factories() -> list[str]:
    """The names of OLMo-core's factories of models, in its own order."""
    from olmo_core.nn.transformer import TransformerConfig

    return [
        name
        for name, member in vars(TransformerConfig).items()
        if isinstance(member, classmethod)
        and "vocab_size" in inspect.signature(getattr(TransformerConfig, name)).parameters
    ]


def _of_factory(
    name: str, overrides: Mapping[str, Any], vocab_size: int, where: str
) -> TransformerConfig:
    from olmo_core.nn.transformer import TransformerConfig

    known = factories()
    if name not in known:
        raise unknown_name("factory of OLMo-core", name, known, f"{where}.factory")
    keys = {item.name for item in dataclasses.fields(TransformerConfig)} - {*FACTORY_ARGUMENTS}
    given = {k: v for k, v in overrides.items() if k.split(".")[0] not in keys}
    laid = {k: v for k, v in overrides.items() if k not in given}
    if "vocab_size" in laid:
        raise ConfigError(f"{where}.overrides.vocab_size: is the tokenizer's, {vocab_size}")
    config = _made(name, given, vocab_size, f"{where}.overrides")
    values = config.as_config_dict()
    _without_absent_kernels(values)
    for key, value in laid.items():
        _lay(values, key.split("."), value, f"{where}.overrides.{key}")
    _check_classes(values, f"{where}.overrides")
    try:
        return TransformerConfig.from_dict(values)
    except Exception as error:  # of whatever part of OLMo-core has a key or value that is wrong
        raise ConfigError(f"{where}.overrides: {first_line(error)}") from None


def _made(name: str, given: Mapping[str, Any], vocab_size: int, where: str) -> TransformerConfig:
    """What a factory makes of arguments. Raises `ConfigError` for one that it doesn't take."""
    from olmo_core.nn.transformer import TransformerConfig

    factory = getattr(TransformerConfig, name)
    try:
        config = factory(vocab_size=vocab_size, **given)
    except Exception as error:  # its arguments reach into every part of a model
        raise ConfigError(f"{where}: {name}: {first_line(error)}") from None
    if _drops_arguments(factory, vocab_size):
        for key, value in given.items():
            if getattr(config, key, None) == value:
                continue
            rest = {k: v for k, v in given.items() if k != key}
            if factory(vocab_size=vocab_size, **rest) == config:
                raise ConfigError(
                    f"{where}.{key}: {name} takes no notice of it (or has it); set a key of "
                    "what it makes instead, such as block.feed_forward_moe.num_experts"
                )
    return config


def _drops_arguments(factory: Any, vocab_size: int) -> bool:
    """Whether a factory takes any argument and says nothing of those that it doesn't know."""
    try:
        factory(vocab_size=vocab_size, **{"no such argument": None})
    except TypeError:
        return False
    except Exception:  # it misses an argument, so it is one that knows its own
        return False
    return True


def _without_absent_kernels(values: dict[str, Any]) -> None:
    """Attention in PyTorch's own kernels where those that a factory asks for aren't installed."""
    from olmo_core.nn.attention import AttentionBackendName

    for _, section in sections(values):
        name = section.get("backend")
        if isinstance(name, str) and str(section.get(CLASS)).endswith("AttentionConfig"):
            try:
                AttentionBackendName(name).assert_supported()
            except RuntimeError:
                section["backend"] = str(AttentionBackendName.torch)


def _lay(values: dict[str, Any], path: list[str], value: Any, where: str) -> None:
    """Set a nested key; a mapping is laid over the one that is there."""
    *above, last = path
    for part in above:
        inner = values.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{where}: {part} is {inner!r} and holds no keys")
        values = inner
    below = values.get(last)
    if isinstance(value, Mapping) and isinstance(below, dict):
        for key, inner in value.items():
            _lay(below, [str(key)], inner, f"{where}.{key}")
    else:
        values[last] = value


def _check_classes(values: dict[str, Any], where: str) -> None:
    for _, name in classes(values):
        if not name.startswith(OF_CORE):
            raise ConfigError(f"{where}: {CLASS}: {name}: expected a class of olmo_core")


def _of_shape(shape: Shape, where: str) -> TransformerConfig:
    """OLMo-core's configuration of a shape. Raises `ConfigError` for what it can't build."""
    from olmo_core.nn.attention import AttentionConfig
    from olmo_core.nn.feed_forward import FeedForwardConfig
    from olmo_core.nn.layer_norm import LayerNormConfig, LayerNormType
    from olmo_core.nn.lm_head import LMHeadConfig
    from olmo_core.nn.rope import RoPEConfig
    from olmo_core.nn.transformer import (
        InitMethod,
        TransformerBlockConfig,
        TransformerBlockType,
        TransformerConfig,
        TransformerType,
    )

    check_shape(shape, where)
    norm = LayerNormConfig(
        name=LayerNormType(NORMS[shape.norm]),
        eps=shape.norm_eps,
        bias=shape.bias,
        full_precision=False if shape.norm == "low_precision" else None,
    )
    attention = AttentionConfig(
        n_heads=shape.n_heads,
        n_kv_heads=shape.n_kv_heads,
        head_dim=shape.head_dim,
        bias=shape.bias,
        rope=RoPEConfig(theta=shape.rope_theta),
        qk_norm=norm if shape.qk_norm else None,
    )
    kinds = TransformerBlockType

    def block(dense: bool) -> TransformerBlockConfig:
        names = [kinds.moe, kinds.moe_reordered_norm]
        if dense:
            names = [kinds.default, kinds.reordered_norm]
        feed_forward = FeedForwardConfig(hidden_size=shape.mlp_size, bias=shape.bias)
        return TransformerBlockConfig(
            name=names[shape.norm_after],
            sequence_mixer=attention,
            feed_forward=feed_forward if dense else None,
            feed_forward_moe=None if dense else _moe(shape),
            layer_norm=norm,
        )

    dense = range(shape.dense_layers if shape.moe else 0)
    return TransformerConfig(
        name=TransformerType.moe if shape.moe else TransformerType.default,
        d_model=shape.d_model,
        vocab_size=shape.vocab_size,
        n_layers=shape.n_layers,
        block=block(dense=shape.moe is None),
        block_overrides={i: block(dense=True) for i in dense} or None,
        lm_head=LMHeadConfig(layer_norm=norm, bias=shape.bias),
        init_method=InitMethod(shape.init_fn),
        init_std=shape.init_std,
        tie_word_embeddings=shape.tied,
    )


def check_shape(shape: Shape, where: str) -> None:
    """Raise `ConfigError` for a shape that OLMo-core can't build; it needn't be installed."""
    if shape.latent_attention is not None:
        raise ConfigError(
            f"{where}: latent_attention: OLMo-core has no such attention; set n_heads and "
            "n_kv_heads instead"
        )
    if shape.activation != "swiglu":
        raise ConfigError(
            f"{where}: activation: {shape.activation}: OLMo-core's feed-forward is gated; "
            "use swiglu"
        )
    if shape.init_fn not in INITS:
        raise unknown_name("init_fn of OLMo-core", shape.init_fn, INITS, f"{where}: init_fn")
    if shape.init_cutoff != CUTOFF:
        raise ConfigError(
            f"{where}: init_cutoff: {shape.init_cutoff}: OLMo-core cuts at {CUTOFF:g}"
        )
    if shape.moe is not None:
        _check_moe(shape.moe, where)


def _check_moe(moe: MoEConfig, where: str) -> None:
    if moe.gate_scale != 1:
        raise ConfigError(f"{where}: moe.gate_scale: {moe.gate_scale:g}: OLMo-core's gates keep 1")
    if moe.sequence_balance_weight > 0 and moe.load_balance_weight > 0:
        raise ConfigError(
            f"{where}: moe.sequence_balance_weight: OLMo-core balances sequences or batches; set "
            "one of it and load_balance_weight to 0"
        )


def _moe(shape: Shape) -> Any:
    """The experts of a layer, none of whose tokens are dropped.

    Shared experts are one of their joint width, mixed as OLMo-core does: a share of
    1 / (top_k + 1) beside the routed ones.
    """
    from olmo_core.nn.feed_forward import FeedForwardConfig
    from olmo_core.nn.moe import MoEConfig, MoERouterConfig, MoEType
    from olmo_core.nn.moe.loss import MoELoadBalancingLossGranularity as Granularity
    from olmo_core.nn.moe.router import MoERouterGatingFunction as Gating

    ours = shape.moe
    assert ours is not None
    by_sequence = ours.sequence_balance_weight > 0
    shared = ours.shared_experts * ours.expert_size
    return MoEConfig(
        name=MoEType.dropless,
        num_experts=ours.num_experts,
        hidden_size=ours.expert_size,
        router=MoERouterConfig(
            top_k=ours.top_k,
            gating_function=Gating(ours.router),
            normalize_expert_weights=1.0 if ours.normalize_gates else None,
            bias_gamma=(ours.bias_update_rate or None) if ours.selection_bias else None,
        ),
        shared_mlp=FeedForwardConfig(hidden_size=shared, bias=False) if shared else None,
        lb_loss_weight=ours.sequence_balance_weight or ours.load_balance_weight or None,
        lb_loss_granularity=Granularity.instance if by_sequence else Granularity.local_batch,
        z_loss_weight=ours.z_loss_weight or None,
    )
