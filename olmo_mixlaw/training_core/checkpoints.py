"""Which checkpoint a run of OLMo-core goes on from, whether it fits, and where weights come from.

What a run is and what it was trained on stands in config.json of each of its checkpoints, so that
all of this is known before a model is built.
"""

from __future__ import annotations

import csv
import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmo_mixlaw.atomic import write_text
from olmo_mixlaw.errors import CheckpointError, ConfigError, MixlawError, first_line, first_of
from olmo_mixlaw.mixture.changes import changes, differences
from olmo_mixlaw.mixture.records import EVALS
from olmo_mixlaw.training_core import saved
from olmo_mixlaw.training_core.classes import require_core_classes
from olmo_mixlaw.training_core.config import CoreTrainConfig

if TYPE_CHECKING:
    from olmo_core.nn.transformer import TransformerConfig

log = logging.getLogger(__name__)

# Differences between two models that a message names.
MOST = 4

OURS = "olmo_mixlaw"
"""The key of config.json under which `config` and `mixture` of the run are kept."""

# What OLMo-core writes of a checkpoint before its own mark that it is whole.
_PARTS = ("train/rank0.pt", f"{saved.WEIGHTS}/{saved.INDEX}", ".metadata.json")
# How a model computes, which may differ between machines.
_KERNELS = ("backend", "use_flash", "dtype", "init_seed", "fused")


def latest(folder: Path) -> Path | None:
    """The newest checkpoint in the folder of a run that was written to its end, if there is one."""
    whole = [path for path in saved.steps(folder) if _is_whole(path)]
    return whole[-1] if whole else None


def _is_whole(path: Path) -> bool:
    return all((path / part).is_file() for part in _PARTS)


def remove_halves(folder: Path) -> None:
    """Clear what a run that was killed had begun to write: no checkpoint, and in its way."""
    for path in [*saved.steps(folder), *folder.glob("step*-tmp")]:
        if not _is_whole(path):
            shutil.rmtree(path)


def is_finished(folder: Path, newest: Path, last_step: int, evaluated: bool) -> bool:
    """Whether a run has nothing left to do: its last step is saved, and scored if `evaluated`."""
    if saved.step_of(newest) < last_step or not (newest / saved.CONFIG).is_file():
        return False
    return not evaluated or saved.step_of(newest) in _evaluated(folder)


def _evaluated(folder: Path) -> set[int]:
    file = folder / EVALS
    if not file.is_file():
        return set()
    with file.open(encoding="utf-8", newline="") as rows:
        return {int(row["step"]) for row in csv.DictReader(rows) if (row["step"] or "").isdigit()}


def keep_config(path: Path, values: dict[str, Any]) -> None:
    """Write config.json where a run was killed between a checkpoint and this file of it."""
    if not (path / saved.CONFIG).is_file():
        write_text(path / saved.CONFIG, json.dumps(values))


def check_resumed(
    path: Path,
    config: CoreTrainConfig,
    model: TransformerConfig,
    described: dict[str, Any],
    where: str,
) -> None:
    """Raise `CheckpointError` where the run can't go on from its checkpoint `path`.

    `model` is OLMo-core's configuration of it, `described` the mixture. Checkpoints without a
    config.json are left to the loader of data, which keeps the mixture too.
    """
    if not (path / saved.CONFIG).is_file():
        return
    was = saved.read_config(path)
    ours = was.get(OURS)
    if not isinstance(ours, dict) or "config" not in ours:
        raise CheckpointError(
            f"{where}: save_folder: {path} is of another run, not one of this trainer; "
            "use another folder"
        )
    check_model(was.get("model"), model, path, where)
    before = ours["config"].get("sequence_length")
    if before != config.sequence_length:
        raise CheckpointError(
            f"{where}: sequence_length: is {config.sequence_length}, but the checkpoint {path} "
            f"has {before}"
        )
    allowed = config.mixture is not None and config.mixture.allow_change
    if not allowed and (found := changes(ours.get("mixture", {}), described)):
        raise CheckpointError(
            f"{where}: the mixture is not that of the checkpoint {path}: {'; '.join(found)} "
            "(mixture.allow_change=true goes on all the same)"
        )


def check_model(was: Any, model: TransformerConfig, path: Path, where: str) -> None:
    """Raise `CheckpointError` if a model's settings in config.json differ from those of `model`."""
    if found := _model_changes(was, model):
        raise CheckpointError(
            f"{where}: model: is not that of the checkpoint {path}: {first_of(found, MOST)}"
        )


def check_weights_fit(
    theirs: TransformerConfig, ours: TransformerConfig, folder: Path, where: str
) -> None:
    """Raise `CheckpointError` unless `ours` has the weights of `theirs`, name by name.

    What it makes of them may be changed on purpose (a longer context), and is said.
    """
    was, now = (
        {
            name: tuple(value.shape)
            for name, value in one.build(init_device="meta").named_parameters()
        }
        for one in (theirs, ours)
    )
    if found := differences(was, now):
        raise CheckpointError(
            f"{where}: model: doesn't take the weights of load_path {folder}: "
            f"{first_of(found, MOST)}"
        )
    for change in _model_changes(theirs.as_config_dict(), ours):
        log.warning("%s: model: %s (in %s)", where, change, folder)


def _model_changes(was: Any, model: TransformerConfig) -> list[str]:
    now = json.loads(json.dumps(model.as_config_dict()))
    return differences(_shape(was), _shape(now))


def _shape(settings: Any) -> Any:
    """A model's settings without those that say how, not what, it computes."""
    if isinstance(settings, dict):
        return {key: _shape(value) for key, value in settings.items() if key not in _KERNELS}
    return settings


@dataclass(frozen=True)
class Base:
    """Where the weights of step 0 come from: `folder`, of OLMo-core or of HuggingFace."""

    folder: Path
    is_hf: bool


def base(config: CoreTrainConfig, where: str) -> Base | None:
    """What `load_path` names: a checkpoint, the newest in a run's folder, or a HuggingFace folder.

    Raises `CheckpointError`.
    """
    if config.load_path is None:
        return None
    path, place = Path(config.load_path), f"{where}: load_path"
    if not path.is_dir():
        raise CheckpointError(f"{place}: {path}: no such checkpoint folder")
    if saved.is_checkpoint(path):
        if not saved.is_whole(path):
            raise CheckpointError(f"{place}: {path}: is not whole; was its writing cut short?")
        return Base(path, is_hf=False)
    try:
        newest = saved.newest(path)
    except MixlawError as error:
        raise CheckpointError(f"{place}: {error}") from None
    if newest is not None:
        return Base(newest, is_hf=False)
    if not (path / saved.CONFIG).is_file():
        raise CheckpointError(
            f"{place}: {path}: neither a checkpoint of OLMo-core or a run's folder of them, "
            "nor a HuggingFace folder (no config.json)"
        )
    return Base(path, is_hf=True)


def model_of(found: Base, where: str) -> TransformerConfig:
    """OLMo-core's configuration of the model in `found`. Raises `CheckpointError`."""
    from olmo_core.nn.transformer import TransformerConfig

    if found.is_hf:
        from olmo_mixlaw.training_core.from_hf import settings_from_hf

        return settings_from_hf(found.folder)
    settings = saved.read_config(found.folder).get("model")
    if not isinstance(settings, dict):
        raise CheckpointError(f"{where}: load_path: {found.folder / saved.CONFIG}: has no model")
    require_core_classes(settings, found.folder / saved.CONFIG)
    try:
        return TransformerConfig.from_dict(settings)
    except Exception as error:  # whatever OLMo-core makes of settings that it can't build
        place = f"{found.folder / saved.CONFIG}: model"
        raise CheckpointError(f"{place}: {first_line(error)}") from None


def load_hf(found: Base, model: Any) -> None:
    """Fill `model`, whole or in shards, with the weights of a HuggingFace folder."""
    from olmo_core.distributed.utils import get_rank
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    from olmo_mixlaw.training_core.from_hf import weights_from_hf

    state: dict[str, Any] = {}
    if get_rank() == 0:
        state = dict(weights_from_hf(found.folder)[1])
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(model, state, options=options)


def save_config(config: CoreTrainConfig, folder: Path) -> None:
    """Keep the whole configuration of the run beside its checkpoints."""
    import yaml

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"save_folder: {folder}: {error.strerror}") from None
    text = yaml.safe_dump(config.plain(), sort_keys=False, allow_unicode=True)
    write_text(folder / "config.yaml", text)
