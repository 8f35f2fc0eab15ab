"""Start weights for OLMo-core out of a public OLMo 2 or OLMo 3 folder, as mid-training wants."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from olmo_mixlaw.errors import CheckpointError, first_line
from olmo_mixlaw.models.hf_folder import read_safetensors
from olmo_mixlaw.training_core.saved import require_core

if TYPE_CHECKING:
    from olmo_core.nn.transformer import TransformerConfig

FAMILIES = ("olmo2", "olmo3")
SLIDING, FULL = "sliding_attention", "full_attention"


def weights_from_hf(folder: str | Path) -> tuple[TransformerConfig, dict[str, Tensor]]:
    """OLMo-core's settings and weights (fp32) of the model in the HuggingFace folder `folder`.

    The model that the settings build has the same logits as the folder's. Raises
    `CheckpointError` for a family other than OLMo 2 and OLMo 3, settings that OLMo-core's have
    no word for, or weights that don't fit them.
    """
    settings, state = _read(folder, shapes_alone=False)
    return settings, {name: value.to(torch.float32) for name, value in state.items()}


def settings_from_hf(folder: str | Path) -> TransformerConfig:
    """The settings alone, as checked, without reading the weights' data."""
    return _read(folder, shapes_alone=True)[0]


def _read(folder: str | Path, shapes_alone: bool) -> tuple[TransformerConfig, dict[str, Tensor]]:
    folder = Path(folder)
    require_core(folder)
    from olmo_core.nn.hf import convert_state_from_hf
    from transformers import AutoConfig

    file = folder / "config.json"
    if not file.is_file():
        raise CheckpointError(f"{folder}: is not a HuggingFace model folder (no config.json)")
    try:
        theirs = AutoConfig.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{file}: {str(error).splitlines()[0]}") from None
    settings = model_settings(theirs, file)
    weights = read_safetensors(folder, shapes_alone)
    try:
        state = convert_state_from_hf(theirs, weights, model_type=theirs.model_type)
    except (RuntimeError, ValueError, KeyError) as error:
        reason = first_line(error)
        raise CheckpointError(f"{folder}: its weights don't fit config.json: {reason}") from None
    _check_fit(settings, state, folder)
    return settings, state


def model_settings(theirs: Any, file: Path) -> TransformerConfig:
    """OLMo-core's settings for `theirs`, those of a model of transformers read from `file`."""
    from olmo_core.nn.attention import SlidingWindowAttentionConfig
    from olmo_core.nn.feed_forward import FeedForwardConfig
    from olmo_core.nn.transformer import TransformerBlockType, TransformerConfig

    if theirs.model_type not in FAMILIES:
        raise CheckpointError(
            f"{file}: model_type: {theirs.model_type}: expected {' or '.join(FAMILIES)}"
        )
    for key, only in (("hidden_act", "silu"), ("attention_bias", False)):
        if getattr(theirs, key) != only:
            raise CheckpointError(f"{file}: {key}: {getattr(theirs, key)}: expected {only}")
    kinds = list(getattr(theirs, "layer_types", None) or [FULL] * theirs.num_hidden_layers)
    rotary = theirs.rope_parameters  # of each kind of layer in OLMo 3, of all in OLMo 2
    by_kind = {kind: rotary.get(kind, rotary) for kind in set(kinds)}
    bases = {float(of_kind["rope_theta"]) for of_kind in by_kind.values()}
    if len(bases) > 1:
        raise CheckpointError(f"{file}: rope_theta: {sorted(bases)}: expected one for all layers")
    [base] = bases
    if SLIDING in by_kind and _scaling(by_kind[SLIDING], file) is not None:
        raise CheckpointError(f"{file}: rope_parameters: expected no scaling in sliding layers")
    window = None
    if SLIDING in kinds:
        window = SlidingWindowAttentionConfig(
            pattern=[theirs.sliding_window if kind == SLIDING else -1 for kind in kinds],
            force_full_attention_on_first_layer=False,
            force_full_attention_on_last_layer=False,
        )
    settings = TransformerConfig.llama_like(
        d_model=theirs.hidden_size,
        vocab_size=theirs.vocab_size,
        n_layers=theirs.num_hidden_layers,
        n_heads=theirs.num_attention_heads,
        n_kv_heads=theirs.num_key_value_heads,
        head_dim=getattr(theirs, "head_dim", None),
        qk_norm=True,
        layer_norm_eps=theirs.rms_norm_eps,
        rope_theta=int(base),
        sliding_window=window,
        block_name=TransformerBlockType.reordered_norm,
        feed_forward=FeedForwardConfig(hidden_size=theirs.intermediate_size, bias=False),
        tie_word_embeddings=bool(theirs.tie_word_embeddings),
    )
    scaling = _scaling(by_kind[FULL], file) if FULL in by_kind else None
    return settings if scaling is None else settings.with_rope_scaling(scaling)


def _scaling(rotary: dict[str, Any], file: Path) -> Any:
    """OLMo-core's settings of how rotary positions are stretched; None where they aren't."""
    from olmo_core.nn.rope import PIRoPEScalingConfig, YaRNRoPEScalingConfig

    kind = rotary.get("rope_type", "default")
    if kind == "default":
        return None
    if kind == "linear":
        return PIRoPEScalingConfig(factor=rotary["factor"])
    if kind != "yarn":
        raise CheckpointError(f"{file}: rope_type: {kind}: expected default, linear or yarn")
    found = YaRNRoPEScalingConfig(
        factor=rotary["factor"],
        beta_fast=int(rotary.get("beta_fast") or 32),
        beta_slow=int(rotary.get("beta_slow") or 1),
        old_context_len=int(rotary["original_max_position_embeddings"]),
    )
    wanted = rotary.get("attention_factor")
    ours = found.get_attention_rescale_factor()
    if wanted is not None and abs(wanted - ours) > 1e-6:
        raise CheckpointError(f"{file}: attention_factor: {wanted}: expected {ours:.6f}, as YaRN's")
    return found


def _check_fit(settings: Any, state: dict[str, Tensor], folder: Path) -> None:
    expected = settings.build(init_device="meta").state_dict()
    for name in sorted(expected.keys() ^ state.keys()):
        wrong = "lack" if name in expected else "have, beside those of the model,"
        raise CheckpointError(f"{folder}: its weights {wrong} what OLMo-core calls {name}")
    for name, value in expected.items():
        if state[name].shape != value.shape:
            raise CheckpointError(
                f"{folder}: {name} is {tuple(state[name].shape)}, but config.json makes it "
                f"{tuple(value.shape)}"
            )
