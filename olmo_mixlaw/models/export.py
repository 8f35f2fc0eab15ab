"""OLMo checkpoints to HuggingFace folders and back, with the tokenizer.

Weights keep their bits, and the exported model gives the same logits but for rounding.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from olmo_mixlaw import schema
from olmo_mixlaw.carried import carried
from olmo_mixlaw.errors import CheckpointError, ConfigError, first_line
from olmo_mixlaw.models import remote_code
from olmo_mixlaw.models.hf_folder import (
    read_json,
    read_safetensors,
    whole_folder,
    write_json,
    write_safetensors,
    write_tokenizer,
    write_yaml,
)
from olmo_mixlaw.models.hf_format import choose_class, hf_settings, olmo_settings, to_hf, to_olmo
from olmo_mixlaw.models.olmo import MoEModelConfig, build_model


def export(
    checkpoint: str | Path,
    out: str | Path,
    *,
    tokenizer: str | Path | None = None,
    own_class: bool = False,
) -> Path:
    """Write the unsharded OLMo `checkpoint` as the HuggingFace folder `out`; returns it.

    `tokenizer` (a tokenizer.json) replaces the one that the checkpoint's configuration names.
    `own_class` exports to `olmo_mixlaw.models.hf`, which holds shared experts, leading dense
    layers and sigmoid routing, and whose code is written beside the weights. Raises
    `CheckpointError` for a model that no class holds, or weights that don't fit their config.
    """
    checkpoint, out = Path(checkpoint), Path(out)
    config = read_model_config(checkpoint)
    kind = choose_class(config, own_class, str(checkpoint / "config.yaml"))
    vocabulary = find_tokenizer(checkpoint, tokenizer)
    state = fitting_weights(config, checkpoint)
    with whole_folder(out) as folder:
        start = write_tokenizer(
            folder,
            vocabulary,
            size=config.embedding_size or config.vocab_size,
            eos_token_id=config.eos_token_id,
            pad_token_id=config.pad_token_id,
            max_length=config.max_sequence_length,
        )
        write_json(folder / "config.json", {**hf_settings(config, kind), "bos_token_id": start})
        generation = {
            "bos_token_id": start,
            "eos_token_id": config.eos_token_id,
            "pad_token_id": config.pad_token_id,
        }
        write_json(folder / "generation_config.json", {**generation, "do_sample": False})
        if kind == "mixlaw":
            remote_code.write(folder)
        write_safetensors(folder, to_hf(config, kind, state))
        # Evaluation asks what the model was trained on, and refuses tasks made from that text.
        if read := schema.read_mapping(checkpoint / "config.yaml").get("data"):
            write_yaml(folder / "training_data.yaml", read)
    return out


def import_hf(source: str | Path, out: str | Path) -> Path:
    """Write the HuggingFace folder `source` as an OLMo checkpoint `out`, to train it further.

    OLMo's Trainer takes it as `load_path` with `reset_optimizer_state` and
    `reset_trainer_state`. `out` ends in `-unsharded`, by which OLMo knows the format. Raises
    `CheckpointError` for an architecture that OLMo hasn't, or weights that don't fit it.
    """
    source, out = Path(source), Path(out)
    if not out.name.endswith("-unsharded"):
        raise CheckpointError(f"{out}: the name of an OLMo checkpoint ends in -unsharded")
    file = source / "config.json"
    if not file.is_file():
        raise CheckpointError(f"{source}: is not a HuggingFace model folder (no config.json)")
    settings = read_json(file)
    try:
        config = olmo_settings(settings, str(file))
    except KeyError as error:
        raise CheckpointError(f"{file}: {error.args[0]}: missing") from None
    except (TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise CheckpointError(f"{file}: a value is of another type ({error})") from None
    state = to_olmo(config, settings["model_type"], read_safetensors(source), str(source))
    _check_fit(config, state, source, "config.json")
    with whole_folder(out) as folder:
        section = model_section(config)
        vocabulary = source / "tokenizer.json"
        top: dict[str, Any] = {"model": section}
        if vocabulary.is_file():
            shutil.copyfile(vocabulary, folder / "tokenizer.json")
            top["tokenizer"] = {"identifier": str((out / "tokenizer.json").absolute())}
        write_yaml(folder / "config.yaml", top)
        torch.save(state, folder / "model.pt")
        # OLMo reads these even when it is told to start with neither.
        torch.save({}, folder / "train.pt")
        torch.save({}, folder / "optim.pt")
    return out


def read_model_config(checkpoint: Path) -> MoEModelConfig:
    """The model section of an OLMo checkpoint's configuration. Raises `CheckpointError`."""
    from olmo.exceptions import OLMoConfigurationError

    file = checkpoint / "config.yaml"
    if not file.is_file():
        raise CheckpointError(f"{checkpoint}: is not an OLMo checkpoint (no config.yaml)")
    if not isinstance(schema.read_mapping(file).get("model"), dict):
        raise CheckpointError(f"{file}: model: missing")
    try:
        config = MoEModelConfig.load(file, key="model", validate_paths=False)
    except OLMoConfigurationError as error:
        raise CheckpointError(f"{file}: model: {str(error).splitlines()[0]}") from None
    config.init_device = "cpu"
    return config


def read_weights(checkpoint: Path) -> dict[str, Tensor]:
    """The weights of an unsharded OLMo checkpoint, mapped from disk. Raises `CheckpointError`."""
    file = checkpoint / "model.pt"
    if not file.is_file():
        raise CheckpointError(
            f"{checkpoint}: no model.pt; only unsharded checkpoints (`save_interval_unsharded`) "
            "can be exported"
        )
    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, OSError, EOFError, ValueError, UnpicklingError) as error:
        reason = first_line(error)
        raise CheckpointError(f"{file}: can't be read: {reason}") from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise CheckpointError(f"{file}: holds no weights by name")
    return state


def fitting_weights(config: MoEModelConfig, checkpoint: Path) -> dict[str, Tensor]:
    """The weights of `checkpoint` under OLMo's names of today, which `config` must agree with.

    Raises `CheckpointError` for one that is missing, one too many, or another shape.
    """
    model = _empty_model(config, checkpoint / "config.yaml")
    state, _ = model._make_state_dict_compatible(dict(read_weights(checkpoint)))
    _check_fit(config, state, checkpoint, "config.yaml")
    return state


def load_checkpoint(checkpoint: str | Path) -> Any:
    """OLMo's model, dense or MoE, of an unsharded checkpoint, ready to evaluate on the CPU."""
    checkpoint = Path(checkpoint)
    config = read_model_config(checkpoint)
    state = fitting_weights(config, checkpoint)
    model = build_model(config, init_params=False)
    model.load_state_dict(state)
    return model.eval()


def model_section(config: MoEModelConfig) -> dict[str, Any]:
    """`config` as plain values for YAML; without `moe` it is one that OLMo itself reads."""
    from omegaconf import OmegaConf

    section = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    assert isinstance(section, dict)
    if section.get("moe") is None:
        section.pop("moe", None)
    return {str(key): value for key, value in section.items()}


def find_tokenizer(checkpoint: Path, given: str | Path | None) -> Path:
    """The tokenizer.json to export: `given`, or what the checkpoint's configuration names, or
    one that lies in the checkpoint. Raises `CheckpointError`."""
    if given is not None:
        if not Path(given).is_file():
            raise CheckpointError(f"--tokenizer: {given}: no such file")
        return Path(given)
    section = schema.read_mapping(checkpoint / "config.yaml").get("tokenizer") or {}
    name = section.get("identifier")
    if name and Path(name).is_file():
        return Path(name)
    if (checkpoint / "tokenizer.json").is_file():
        return checkpoint / "tokenizer.json"
    if name and (file := carried(name)):
        return file
    raise CheckpointError(
        f"{checkpoint / 'config.yaml'}: tokenizer.identifier: {name!r} is no file here; give the "
        "tokenizer.json with --tokenizer"
    )


def _empty_model(config: MoEModelConfig, file: Path) -> Any:
    """The model of `config`, without memory for its weights. Raises `CheckpointError`."""
    from olmo.exceptions import OLMoConfigurationError

    try:
        return build_model(dataclasses.replace(config, init_device="meta"), init_params=False)
    except (OLMoConfigurationError, ConfigError, AssertionError, ZeroDivisionError) as error:
        reason = first_line(error)
        raise CheckpointError(f"{file}: model: can't be built: {reason}") from None


def _check_fit(config: MoEModelConfig, state: Mapping[str, Tensor], where: Path, file: str) -> None:
    """Raise `CheckpointError` unless `state` has exactly the weights of the model, in shape.

    `where` is the folder of the weights, `file` the configuration in it.
    """
    model = _empty_model(config, where / file)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    for name in sorted(expected.keys() ^ state.keys()):
        missing = "lacks" if name in expected else "has, beside those of the model,"
        raise CheckpointError(f"{where}: {missing} the weight {name}")
    for name, shape in expected.items():
        if state[name].shape != shape:
            raise CheckpointError(
                f"{where}: {name} is {tuple(state[name].shape)}, but {file} makes it {tuple(shape)}"
            )
