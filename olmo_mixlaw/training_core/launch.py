"""Train one model on OLMo-core: `train(config)` from Python, or this module under torchrun.

Everything that can be wrong with the configuration, the data or a checkpoint is found before
the model is built.
"""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from olmo_mixlaw.datasets import open_dataset
from olmo_mixlaw.datasets.uri import is_uri
from olmo_mixlaw.errors import ConfigError, first_line
from olmo_mixlaw.mixture.duration import steps_of
from olmo_mixlaw.mixture.opened import (
    Keys,
    Mixture,
    description,
    open_mixture,
    steps_until_exhausted,
)
from olmo_mixlaw.mixture.schedule import RunLength
from olmo_mixlaw.process import (
    command,
    expected_world_size,
    first_process_first,
    frozen_garbage,
    keep_freed_memory,
    trained,
)
from olmo_mixlaw.shipped import find_config
from olmo_mixlaw.training_core import checkpoints, process
from olmo_mixlaw.training_core.config import CoreTrainConfig, EvaluatorSection, check, load

if TYPE_CHECKING:
    from olmo_core.nn.transformer import TransformerConfig
    from olmo_core.train import Trainer

    from olmo_mixlaw.training_core.settings import Settings

log = logging.getLogger(__name__)

_KEYS = Keys("sources", "tokenizer.vocab_size", "tokenizer.eos_token_id")


def train(config: str | Path | CoreTrainConfig, overrides: Sequence[str] = ()) -> Path:
    """Train as `config` says; `overrides` are `key.sub=value` strings.

    Returns the folder of the final checkpoint, `save_folder/step{N}`. A run whose folder has
    checkpoints goes on from the last one; a finished one returns at once. Raises `ConfigError`,
    `DataError` or `CheckpointError` before any work, `NonFiniteLossError` and `StoppedError`
    after having saved a checkpoint.
    """
    if isinstance(config, CoreTrainConfig):
        where, config = "config", copy.deepcopy(config)
        if overrides:
            raise ConfigError("config: overrides need a file; change the CoreTrainConfig instead")
    else:
        where, config = str(config), load(config, overrides)
    on_gpu = torch.cuda.is_available()
    check(config, where, expected_world_size(), on_gpu)
    process.check_environment(where)
    with frozen_garbage(), process.restored_signals(), process.process_group(on_gpu) as device:
        return _train(config, where, device)


def _train(config: CoreTrainConfig, where: str, device: torch.device) -> Path:
    from olmo_core.distributed.utils import barrier, get_rank, get_world_size

    from olmo_mixlaw.training_core.endings import told_failures
    from olmo_mixlaw.training_core.settings import core_settings

    folder, world_size = Path(config.save_folder), get_world_size()
    n_steps = steps_of(config.max_duration, config.global_batch_size, where)
    newest = checkpoints.latest(folder)
    base = checkpoints.base(config, where) if newest is None else None
    model = _model(config, base or newest, where)
    run = RunLength(
        n_steps, config.global_batch_size // config.sequence_length, config.sequence_length
    )
    mixture = _open(config, run, model, where)
    ends_at = steps_until_exhausted(mixture, run)
    last_step = min(ends_at, config.stop_at or n_steps)
    described = description(mixture)
    settings = core_settings(
        config,
        model,
        where,
        n_steps=n_steps,
        last_step=last_step,
        world_size=world_size,
        on_gpu=device.type == "cuda",
    )
    kept = {
        **settings.as_config_dict(),
        "sources": config.sources,
        checkpoints.OURS: {"config": config.plain(), "mixture": described},
    }
    if newest is not None:
        checkpoints.check_resumed(newest, config, model, described, where)
        # Evaluators run at the end that was asked for, not at one before it.
        evaluated = bool(config.evaluators) and last_step == ends_at
        if checkpoints.is_finished(folder, newest, last_step, evaluated):
            log.info("%s: already trained", folder)
            return newest
    if get_rank() == 0:
        checkpoints.remove_halves(folder)
        checkpoints.save_config(config, folder)
        if newest is not None:
            checkpoints.keep_config(newest, kept)
    barrier()
    trainer = _trainer(config, settings, mixture, run, base, where, device)
    trainer.callbacks["config_saver"].config = kept
    with told_failures():
        trainer.fit()
    return folder / f"step{trainer.global_step}"


def _model(
    config: CoreTrainConfig, found: checkpoints.Base | Path | None, where: str
) -> TransformerConfig:
    """OLMo-core's configuration of the model; that of a checkpoint where the file has none."""
    from olmo_mixlaw.training_core.models import model_config
    from olmo_mixlaw.training_core.settings import tokenizer_settings

    if config.model is None:
        assert found is not None
        if isinstance(found, Path):
            found = checkpoints.Base(found, is_hf=False)
        return checkpoints.model_of(found, where)
    model = model_config(
        config.model, tokenizer_settings(config).padded_vocab_size(), f"{where}: model"
    )
    model.init_seed = config.seed
    if isinstance(found, checkpoints.Base):
        checkpoints.check_weights_fit(
            checkpoints.model_of(found, where), model, found.folder, where
        )
    return model


def _open(config: CoreTrainConfig, run: RunLength, model: TransformerConfig, where: str) -> Mixture:
    """The mixture of the run; `config` names the sources that were read afterwards."""
    with first_process_first():
        mixture = open_mixture(
            config.mixture,
            config.sources,
            run,
            tokenizer=config.tokenizer.identifier,
            vocab_size=config.tokenizer.vocab_size,
            eos_token_id=config.tokenizer.eos_token_id,
            seed=config.seed,
            memmap_dtype=config.memmap_dtype,
            where=where,
            n_params=model.num_non_embedding_params,
            train_vocab_size=config.tokenizer.train_vocab_size,
            keys=_KEYS,
        )
    if mixture.config.sources:
        config.sources = mixture.config.sources
    if config.mixture is not None:
        config.mixture = replace(mixture.config, sources=None)
    return mixture


def _trainer(
    config: CoreTrainConfig,
    settings: Settings,
    mixture: Mixture,
    run: RunLength,
    base: checkpoints.Base | None,
    where: str,
    device: torch.device,
) -> Trainer:
    """OLMo-core's Trainer with all that it needs, at step 0 or before it has loaded its state."""
    from olmo_core.distributed.utils import get_fs_local_rank, get_rank, get_world_size
    from olmo_core.exceptions import OLMoConfigurationError
    from olmo_core.utils import seed_all

    from olmo_mixlaw.training_core.data import MixtureDataLoader

    seed_all(config.seed)
    if device.type == "cpu":
        keep_freed_memory()
    try:
        module = settings.train_module.build(settings.model.build(init_device="meta"), device)
        group = module.dp_process_group
        loader = MixtureDataLoader(
            mixture,
            n_steps=run.n_steps,
            sequence_length=run.sequence_length,
            tokenizer=settings.tokenizer,
            work_dir=config.save_folder,
            global_batch_size=config.global_batch_size,
            dp_world_size=get_world_size(group),
            dp_rank=get_rank(group),
            fs_local_rank=get_fs_local_rank(),
            num_workers=config.num_workers,
            target_device_type=device.type,
        )
        trainer_config = settings.trainer.with_callbacks(_callbacks(config, mixture, where))
        if base is not None and not base.is_hf:
            # Weights alone: a checkpoint of the run itself is always loaded whole.
            trainer_config = trainer_config.replace(
                load_path=str(base.folder), load_trainer_state=False, load_optim_state=False
            )
        trainer = trainer_config.build(module, loader)
    except OLMoConfigurationError as error:
        raise ConfigError(f"{where}: {first_line(error)}") from None
    if base is not None and base.is_hf:
        checkpoints.load_hf(base, module.model)
    return trainer


def _callbacks(config: CoreTrainConfig, mixture: Mixture, where: str) -> dict[str, Any]:
    """What a mixture adds to OLMo-core's own callbacks, by name."""
    from olmo_mixlaw.training_core.callback import MixtureCallback
    from olmo_mixlaw.training_core.endings import EndingsCallback
    from olmo_mixlaw.training_core.evaluators import MixtureEvaluatorConfig

    found: dict[str, Any] = {
        "mixture": MixtureCallback(interval=config.metrics_interval),
        "endings": EndingsCallback(),
    }
    for i, section in enumerate(config.evaluators):
        found[f"evaluator_{i}"] = MixtureEvaluatorConfig(
            kind=section.kind,
            label=section.label,
            datasets=_datasets(section, mixture, f"{where}: evaluators[{i}]"),
            tokenizer=config.tokenizer.identifier,
            eos_token_id=config.tokenizer.eos_token_id,
            pad_token_id=config.tokenizer.pad_token_id,
            n_items=section.n_items,
            eval_interval=section.eval_interval,
        )
    return found


def _datasets(section: EvaluatorSection, mixture: Mixture, where: str) -> dict[str, str]:
    """The datasets of an evaluator by domain: those it names, or the mixture's own."""
    found = section.datasets or {
        label: uri
        for label, uris in zip(mixture.labels, mixture.uris, strict=True)
        for uri in uris[:1]
        if len(uris) == 1 and is_uri(uri)
    }
    if not found:
        raise ConfigError(
            f"{where}: no source of the run is a dataset; name datasets as {{domain: uri}}"
        )
    for domain, uri in found.items():
        open_dataset(uri, f"{where}.datasets.{domain}")
    return found


def run(config: str, overrides: Sequence[str]) -> int:
    """Train from a command line, whose console OLMo-core sets up; the exit code.

    `config` is a file, or the name of a shipped one. 2 for a mistake, 128 + n for signal n. Errors
    of all processes are those of the first.
    """

    def checked() -> Path:
        path = find_config("configs/train", config)
        process.check_environment(str(path))
        process.prepare_console()
        return train(path, overrides)

    return trained(checked)


def main(arguments: Sequence[str] | None = None) -> int:
    """`CONFIG [--key.sub=value ...]`, where CONFIG is a file or a shipped name."""
    return command(run, "olmo_mixlaw.training_core.launch", arguments)


if __name__ == "__main__":
    sys.exit(main())
