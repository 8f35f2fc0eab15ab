"""A dense checkpoint of OLMo-core as a HuggingFace folder, with its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from olmo_mixlaw.errors import CheckpointError, first_line
from olmo_mixlaw.models.hf_folder import (
    whole_folder,
    write_json,
    write_safetensors,
    write_tokenizer,
    write_yaml,
)
from olmo_mixlaw.training_core import saved, saved_model

PROBE_TOKENS = 64
# Of the largest logit; rounding in another order of the same sums is a hundredth of it.
TOLERANCE = 1e-4


def export(checkpoint: str | Path, out: str | Path, *, tokenizer: str | Path | None = None) -> Path:
    """Write OLMo-core's `checkpoint` as the HuggingFace folder `out`; returns it.

    `tokenizer` (a tokenizer.json) replaces the one that the run's settings name. Raises
    `CheckpointError` for a model that no class of transformers holds: the folder's logits are
    compared with the checkpoint's before it gets its name.
    """
    checkpoint, out = Path(checkpoint), Path(out)
    file = checkpoint / saved.CONFIG
    config = saved.read_config(checkpoint)
    named = saved.tokenizer_section(config)
    if type(named.get("eos_token_id")) is not int:
        raise CheckpointError(f"{file}: tokenizer.eos_token_id is missing")
    vocabulary = saved.find_tokenizer(checkpoint, tokenizer or named.get("identifier"))
    model = saved_model.load_model(checkpoint)
    if model.is_moe:
        raise CheckpointError(
            f"{file}: a mixture of experts, which OLMo-core can't convert for this release of "
            "transformers; `evaluate` reads the checkpoint itself"
        )
    length = saved.sequence_length(config)
    with whole_folder(out) as folder:
        start = write_tokenizer(
            folder,
            vocabulary,
            size=model.vocab_size,
            eos_token_id=named["eos_token_id"],
            pad_token_id=named.get("pad_token_id"),
            max_length=length,
        )
        tokens = {
            "bos_token_id": start,
            "eos_token_id": named["eos_token_id"],
            "pad_token_id": named.get("pad_token_id"),
        }
        settings, state = _converted(model, file)
        settings |= {**tokens, "max_position_embeddings": length}
        write_json(folder / "config.json", settings)
        write_json(folder / "generation_config.json", {**tokens, "do_sample": False})
        write_safetensors(folder, iter(state.items()))
        if read := saved.sources(config):
            write_yaml(folder / "training_data.yaml", {"datasets": read})
        _check_logits(folder, model, file)
    return out


def _converted(model: Any, file: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Settings and weights under the names of transformers."""
    from olmo_core.nn.hf import convert_state_to_hf, get_hf_config

    try:
        theirs = get_hf_config(model)
        state = convert_state_to_hf(theirs, model.state_dict())
    except (NotImplementedError, RuntimeError, ValueError, AttributeError) as error:
        reason = first_line(error)
        raise CheckpointError(f"{file}: model: has no class in transformers: {reason}") from None
    if theirs.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    settings = theirs.to_dict()
    settings["architectures"] = [f"{type(theirs).__name__.removesuffix('Config')}ForCausalLM"]
    settings["dtype"] = str(next(model.parameters()).dtype).removeprefix("torch.")
    rotary = next(iter(model.blocks.values())).attention.rope
    if rotary is not None:
        settings["rope_theta"] = rotary.theta  # where major 4 looks for it
        _set_base(settings, rotary.theta)
    return settings, state


def _set_base(settings: dict[str, Any], base: float) -> None:
    """Sliding layers too have the run's base of rotary positions, not the class's."""
    parameters = settings.get("rope_parameters") or {}
    nested = [value for value in parameters.values() if isinstance(value, dict)]
    for of_kind in nested or [parameters]:
        of_kind["rope_theta"] = base


def _check_logits(folder: Path, model: Any, file: Path) -> None:
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(
        str(folder), local_files_only=True, dtype=torch.float32
    )
    draws = torch.Generator().manual_seed(0)
    ids = torch.randint(model.vocab_size, (1, PROBE_TOKENS), generator=draws)
    with torch.inference_mode():
        ours, found = model(ids), theirs.eval()(input_ids=ids).logits
    worst = float((found - ours).abs().max() / ours.abs().max().clamp_min(1e-6))
    if not worst <= TOLERANCE:
        raise CheckpointError(
            f"{file}: model: as {type(theirs).__name__} its logits are others (by {worst:.1e} of "
            "the largest); `evaluate` reads the checkpoint itself"
        )
