"""OLMo-core's own model out of one of its checkpoints, in one process and without its trainer.

Weights come straight from the shards, whatever number of ranks wrote them. A checkpoint's index
is a pickle: it is read as plain data only, and shards as tensors only, so that a folder from
elsewhere can't run code.
"""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.distributed import checkpoint as dist_cp
from torch.distributed.checkpoint import filesystem
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from olmo_mixlaw.errors import CheckpointError, MixlawError, first_line
from olmo_mixlaw.training_core.classes import CLASS, classes, require_core_classes
from olmo_mixlaw.training_core.saved import CONFIG, INDEX, WEIGHTS, read_config, require_core

# What says how a run trained, which older releases kept in the model's settings.
_OF_TRAINING = ("compile", "dp_config", "tp_config", "float8_config")
# Fused kernels that want a GPU of their own, and what computes the same anywhere.
_PLAIN = {"fused_rms": "rms", "cute_rms": "rms"}


def load_model(folder: str | Path) -> Any:
    """OLMo-core's model of the checkpoint `folder`, on the CPU, ready to evaluate.

    Raises `CheckpointError` for a checkpoint that is half-written, whose weights don't fit its
    configuration, or whose model can't be built here.
    """
    folder = Path(folder)
    model = build_model(read_config(folder), folder / CONFIG)
    read_weights(folder, model)
    return model.eval()


def build_model(config: dict[str, Any], where: str | Path) -> Any:
    """The model that a run's settings describe, on the CPU, its weights not set.

    Attention and norms are PyTorch's own, which compute the same as fused ones everywhere.
    """
    section = config.get("model")
    if not isinstance(section, dict):
        raise CheckpointError(f"{where}: key 'model' is missing")
    require_core_classes(section, where)
    require_core(where)
    from olmo_core.nn.transformer import TransformerConfig

    plain = {key: value for key, value in section.items() if key not in _OF_TRAINING}
    try:
        shape = TransformerConfig.from_dict(_without_kernels(plain))
        if any(name.endswith("MoEConfig") for _, name in classes(section)):
            from olmo_mixlaw.training_core import cpu_moe

            cpu_moe.install()
        model = shape.build(init_device="meta")
    except MixlawError:
        raise
    except Exception as error:  # whatever OLMo-core makes of settings that it can't build
        raise CheckpointError(f"{where}: model: can't be built: {first_line(error)}") from None
    model.to_empty(device=torch.device("cpu"))
    for module in model.modules():  # what to_empty left undefined and no checkpoint holds
        if not isinstance(module, torch.nn.Linear | torch.nn.Embedding) and hasattr(
            module, "reset_parameters"
        ):
            module.reset_parameters()
    if model.tie_word_embeddings:
        model._tie_weights()
    return model


def read_weights(folder: Path, model: torch.nn.Module) -> None:
    """Fill `model` with the weights of the checkpoint `folder`. Raises `CheckpointError`."""
    shards = folder / WEIGHTS
    if not (shards / INDEX).is_file():
        raise CheckpointError(f"{shards}: has no {INDEX}: the checkpoint is half-written")
    reader = _Reader(shards)
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    _check(reader.index, state, shards)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")
            dist_cp.load(state, storage_reader=reader, no_dist=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise CheckpointError(f"{shards}: can't be read: {first_line(error)}") from None
    except dist_cp.CheckpointException as error:
        reasons = [first_line(reason) for reason, _ in error.failures.values()]
        raise CheckpointError(f"{shards}: can't be read: {'; '.join(reasons)}") from None


def _check(index: Metadata, state: dict[str, torch.Tensor], shards: Path) -> None:
    """Raise `CheckpointError` unless the shards hold every weight, in shape, and are whole."""
    there = index.state_dict_metadata
    saved = {name for name in there if name.startswith("model.")}
    for name in sorted(saved ^ state.keys()):
        wrong = "lacks" if name in state else "has, beside those of the model,"
        raise CheckpointError(f"{shards}: {wrong} the weight {name.removeprefix('model.')}")
    for name, ours in state.items():
        theirs = there[name]
        if not isinstance(theirs, TensorStorageMetadata) or theirs.size != ours.shape:
            found = tuple(getattr(theirs, "size", ()))
            raise CheckpointError(
                f"{shards}: {name.removeprefix('model.')} is {found}, but {CONFIG} makes it "
                f"{tuple(ours.shape)}"
            )
    needed: dict[str, int] = {}
    for place, info in index.storage_data.items():
        if place.fqn in state:
            if Path(info.relative_path).name != info.relative_path:
                raise CheckpointError(f"{shards / INDEX}: {info.relative_path}: not a file here")
            end = info.offset + info.length
            needed[info.relative_path] = max(needed.get(info.relative_path, 0), end)
    for name, size in needed.items():
        file = shards / name
        if not file.is_file() or file.stat().st_size < size:
            wrong = "cut short" if file.is_file() else "missing"
            raise CheckpointError(f"{file}: {wrong}: the checkpoint is half-written")


class _Reader(dist_cp.FileSystemReader):
    """PyTorch's reader of shards, with an index that is read as plain data."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        file = folder / INDEX
        try:
            with file.open("rb") as stream:
                self.index = _PlainData(stream).load()
        except Exception as error:  # damaged pickles fail in any way
            raise CheckpointError(f"{file}: can't be read: {first_line(error)}") from None
        if not isinstance(self.index, Metadata):
            raise CheckpointError(f"{file}: is no index of a checkpoint")

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return self.index


class _PlainData(pickle.Unpickler):
    """Reads a pickle of nothing but what an index is made of."""

    INDEX_CLASSES = frozenset(
        {
            "BytesStorageMetadata",
            "ChunkStorageMetadata",
            "Metadata",
            "MetadataIndex",
            "StorageMeta",
            "TensorProperties",
            "TensorStorageMetadata",
            "_MEM_FORMAT_ENCODING",
        }
    )
    NAMES = frozenset(
        {
            ("torch", "Size"),
            ("torch.serialization", "_get_layout"),
            ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
            ("torch.distributed.checkpoint.planner", "_Checkpointable"),
            ("collections", "OrderedDict"),
            ("builtins", "set"),
            ("builtins", "frozenset"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("olmo_core.distributed.checkpoint.filesystem", "_StorageInfo"):
            return filesystem._StorageInfo  # has the same fields
        data_type = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        of_index = module == "torch.distributed.checkpoint.metadata" and name in self.INDEX_CLASSES
        if of_index or data_type or (module, name) in self.NAMES:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no index does")


def _without_kernels(settings: Any) -> Any:
    """Settings of a model with attention and norms that run on any device."""
    if isinstance(settings, list):
        return [_without_kernels(value) for value in settings]
    if not isinstance(settings, dict):
        return settings
    plain = {key: _without_kernels(value) for key, value in settings.items()}
    kind = str(settings.get(CLASS, "")).rpartition(".")[2]
    if kind == "AttentionConfig":
        plain |= {"backend": "torch", "use_flash": None}
    if kind == "LayerNormConfig":
        plain["name"] = _PLAIN.get(str(plain.get("name")), plain.get("name"))
    return plain
