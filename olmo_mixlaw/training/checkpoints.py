"""Which checkpoint a run goes on from, whether it fits, and what lies beside the checkpoints."""

from __future__ import annotations

import gzip
import logging
import shutil
import zipfile
from enum import Enum
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TextIO

import numpy as np
import torch
from olmo.torch_util import barrier, get_fs_local_rank, get_global_rank
from olmo.util import find_latest_checkpoint, is_url

from olmo_mixlaw import schema
from olmo_mixlaw.atomic import write_text
from olmo_mixlaw.errors import CheckpointError, MixlawError
from olmo_mixlaw.mixture.changes import changes
from olmo_mixlaw.training.config import MixTrainConfig, to_yaml
from olmo_mixlaw.training.trainer import STATE, MixTrainer

log = logging.getLogger(__name__)

# What a checkpoint's weights depend on: each of them must be as in the run that wrote it.
_SHAPE = (
    "vocab_size",
    "embedding_size",
    "d_model",
    "n_layers",
    "n_heads",
    "n_kv_heads",
    "mlp_hidden_size",
    "weight_tying",
    "include_bias",
    "attention_layer_norm",
    "layer_norm_type",
    "norm_after",
    "moe",
)
# What the weights were trained with, which may be changed on purpose (a longer context).
_FUNCTION = (
    "activation_type",
    "alibi",
    "attention_layer_norm_with_affine",
    "bias_for_layer_norm",
    "block_type",
    "clip_qkv",
    "embedding_layer_norm",
    "layer_norm_eps",
    "layer_norm_with_affine",
    "rope",
    "rope_theta",
    "scale_logits",
)


# What torch and OLMo raise for files that are cut, damaged or of another kind.
_UNREADABLE = (
    OSError,
    EOFError,
    RuntimeError,
    UnpicklingError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    zipfile.BadZipFile,
)


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def allow_trainer_state() -> None:
    """Let `torch.load` read what OLMo's checkpoints hold: paths, NumPy's generator state, shards.

    OLMo 0.6.0 loads without saying what it expects, which torch refuses since 2.6. These few
    types are harmless; anything else in a checkpoint is still refused.
    """
    import pathlib

    from numpy.core import multiarray
    from torch.distributed import _shard
    from torch.distributed.remote_device import _remote_device

    _reconstruct = multiarray._reconstruct  # type: ignore[attr-defined]
    sharded = _shard.sharded_tensor

    torch.serialization.add_safe_globals(
        [
            pathlib.PosixPath,
            pathlib.WindowsPath,
            np.ndarray,
            np.dtype,
            type(np.dtype(np.uint32)),
            _reconstruct,
            (_reconstruct, "numpy.core.multiarray._reconstruct"),
            (_reconstruct, "numpy._core.multiarray._reconstruct"),
            # Of sharded checkpoints, OLMo's default format under FSDP.
            _remote_device,
            sharded.ShardedTensor,
            sharded.ShardedTensor.ProcessGroupState,
            sharded.Shard,
            sharded.ShardMetadata,
            sharded.ShardedTensorMetadata,
            sharded.TensorProperties,
            sharded.metadata.MEM_FORMAT_ENCODING,
            _shard.sharding_spec.ChunkShardingSpec,
            _shard.sharding_spec.EnumerableShardingSpec,
            (_member, "builtins.getattr"),
        ]
    )


def _member(kind: type, name: str) -> Any:
    """What stands for `getattr`, by which pickles name a class in a class and members of enums."""
    from torch.distributed._shard.sharded_tensor import ShardedTensor

    found = getattr(kind, name, None)
    if found is not ShardedTensor.ProcessGroupState and not isinstance(found, Enum):
        raise UnpicklingError(f"{kind}.{name} is not expected in a checkpoint")
    return found


def to_load(config: MixTrainConfig, where: str) -> Path | None:
    """The checkpoint that the run starts from: its own latest, else `load_path`, else none."""
    if config.try_load_latest_save:
        for folder in (config.save_folder, config.remote_save_folder):
            if folder is not None and (latest := find_latest_checkpoint(folder)) is not None:
                return latest if is_url(latest) else Path(latest)  # type: ignore[return-value]
    if config.load_path is None:
        return None
    if is_url(config.load_path):
        return config.load_path  # type: ignore[return-value]
    path = Path(config.load_path)
    if not path.is_dir():
        raise CheckpointError(f"{where}: load_path: {path}: no such checkpoint folder")
    return path


def keeps_position(config: MixTrainConfig) -> bool:
    """Whether the run goes on in the data where the checkpoint left off."""
    return config.restore_dataloader and not config.reset_trainer_state


def is_of_this_run(path: Path, config: MixTrainConfig) -> bool:
    """Whether the checkpoint `path` lies in the run's own folder."""
    return not is_url(path) and path.resolve().parent == Path(config.save_folder).resolve()


def keep_own_state(path: Path, config: MixTrainConfig) -> None:
    """Resets are for the checkpoint that a run begins from, not for its own, when it goes on."""
    if config.load_path is not None and is_of_this_run(path, config):
        if not is_url(config.load_path) and path.resolve() == Path(config.load_path).resolve():
            return
        config.reset_trainer_state = config.reset_optimizer_state = False


def check_whole(path: Path, config: MixTrainConfig, where: str) -> None:
    """Raise `CheckpointError` for an unsharded checkpoint that was not written to its end."""
    if is_url(path) or not path.name.endswith("-unsharded"):
        return
    for name in ("model", "optim", "train"):
        if name == "optim" and config.reset_optimizer_state:
            continue
        # OLMo prefers the second, and falls back to the third in checkpoints of its first year.
        files = [path / f"{name}.pt", path / f"{name}.safetensors"]
        files += [path / "other.pt"] if name == "train" else []
        there = [file for file in files if file.is_file()]
        # torch.save writes a zip archive, whose table of contents comes last.
        if not there or (there[0].suffix == ".pt" and not zipfile.is_zipfile(there[0])):
            problem = "is not whole" if there else "is missing"
            raise CheckpointError(
                f"{where}: {there[0] if there else files[0]}: {problem}; was its writing cut "
                f"short? Remove {path} to go on from the checkpoint before it"
            )


def check_shape(path: Path, config: MixTrainConfig, where: str) -> None:
    """Raise `CheckpointError` if the checkpoint's model is not the one of `config`."""
    if is_url(path):
        return
    file = path / "config.yaml"
    if not file.is_file():
        raise CheckpointError(f"{where}: {path}: is not an OLMo checkpoint (no config.yaml)")
    try:
        theirs = schema.read_mapping(file).get("model", {})
    except MixlawError as error:
        raise CheckpointError(f"{where}: {path}: {error}") from None
    if not isinstance(theirs, dict):
        raise CheckpointError(f"{where}: {file}: model: is no mapping of keys")
    theirs, ours = _written_out(theirs), _written_out(config.plain()["model"])
    for key in (*_SHAPE, *_FUNCTION):
        if key not in theirs and key != "moe":
            continue
        was, now = theirs.get(key), ours.get(key)
        if was == now or (key == "vocab_size" and was == ours["embedding_size"]):
            # Where a model comes from HuggingFace, only its embedding says how many tokens it has.
            continue
        if key in _FUNCTION:
            log.warning("%s: model.%s: is %s; %s was trained with %s", where, key, now, path, was)
            continue
        raise CheckpointError(
            f"{where}: model.{key}: is {now}, but the checkpoint {path} has {was}"
        )


def _written_out(model: dict[str, Any]) -> dict[str, Any]:
    """A model section with the sizes that follow from others where they are left out."""
    found = dict(model)
    if "n_heads" in found and found.get("n_kv_heads") is None:
        found["n_kv_heads"] = 1 if found.get("multi_query_attention") else found["n_heads"]
    if "vocab_size" in found and not found.get("embedding_size"):
        found["embedding_size"] = found["vocab_size"]
    if found.get("mlp_hidden_size") is None and {"mlp_ratio", "d_model"} <= found.keys():
        found["mlp_hidden_size"] = found["mlp_ratio"] * found["d_model"]
    if found.get("bias_for_layer_norm") is None and "include_bias" in found:
        found["bias_for_layer_norm"] = found["include_bias"]
    return found


def check_mixture(
    path: Path, described: dict[str, Any], config: MixTrainConfig, where: str
) -> None:
    """Refuse to go on in other data than the checkpoint was trained on."""
    if not keeps_position(config) or is_url(path) or not (path / "train.pt").is_file():
        return
    try:
        state = torch.load(path / "train.pt", map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise CheckpointError(f"{path / 'train.pt'}: can't be read: {_reason(error)}") from error
    was = state.get(STATE, {}).get("mixture")
    if not was:
        return
    if found := changes(was, described):
        raise CheckpointError(
            f"{where}: the mixture is not that of the checkpoint {path}: {'; '.join(found)} "
            "(mixture.allow_change=true goes on all the same)"
        )


def start_afresh(config: MixTrainConfig, where: str) -> None:
    """Refuse a folder that holds another run, or clear it if `save_overwrite` allows that.

    A checkpoint that was being written when its run was killed is no run: it is cleared.
    """
    folder = Path(config.save_folder)
    found = [path for path in folder.glob("step*") if path.is_dir()]
    halves = [path for path in found if path.name.endswith("-tmp")]
    runs = [path for path in found if path not in halves]
    latest = [path for path in folder.glob("latest*") if path.is_symlink()]
    if runs and not config.save_overwrite:
        raise CheckpointError(
            f"{where}: save_folder: {folder} holds the checkpoints of another run; "
            "set save_overwrite: true to replace them, or try_load_latest_save: true to go on"
        )
    barrier()
    if get_fs_local_rank() == 0:
        for link in latest:
            link.unlink()
        for path in runs + halves:
            shutil.rmtree(path)
        folder.mkdir(parents=True, exist_ok=True)
    barrier()


def save_config(config: MixTrainConfig, folder: Path) -> None:
    """Keep the whole configuration of the run beside its checkpoints."""
    write_text(folder / "config.yaml", to_yaml(config.plain()))


def open_indices(config: MixTrainConfig) -> TextIO | None:
    """The list of example numbers that `save_data_indices` asks for; a resumed run adds to it."""
    if not config.save_data_indices:
        return None
    path = Path(config.save_folder) / "data-indices" / f"rank{get_global_rank()}.tsv.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    return gzip.open(path, "at")


def restore(trainer: MixTrainer, path: Path, config: MixTrainConfig) -> None:
    """Load a checkpoint into `trainer`. Raises `CheckpointError` if it can't be read."""
    try:
        trainer.restore_checkpoint(
            path,
            load_optimizer_state=not config.reset_optimizer_state,
            load_trainer_state=not config.reset_trainer_state,
            sharded_checkpointer=config.load_path_sharded_checkpointer,
        )
    except _UNREADABLE as error:
        raise CheckpointError(f"{path}: can't be restored: {_reason(error)}") from error
    # OLMo takes this step's checkpoint for not yet saved, and would write it again at the end.
    if str(path).rstrip("/").endswith("-unsharded"):
        trainer.last_unsharded_checkpoint_step = trainer.global_step
    else:
        trainer.last_sharded_checkpoint_step = trainer.global_step
    if config.reset_optimizer_state and not config.reset_trainer_state:
        from olmo.optim import BoltOnWarmupScheduler

        trainer.scheduler = BoltOnWarmupScheduler.wrap(
            trainer.scheduler,
            trainer.global_step,
            int(trainer.global_step + config.scheduler.t_warmup),
        )
