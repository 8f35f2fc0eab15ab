"""Train one model: `train(config)` from Python, or this module under `python -m` or torchrun.

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

import torch
from olmo.optim import build_optimizer
from olmo.torch_util import barrier, get_global_rank, get_world_size, seed_all
from torch.utils.data import DataLoader

from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.mixture import accounting
from olmo_mixlaw.mixture.opened import Mixture, description, steps_until_exhausted
from olmo_mixlaw.mixture.records import EVAL_COLUMNS, EVALS, METRICS, Record
from olmo_mixlaw.mixture.schedule import RunLength
from olmo_mixlaw.process import command, is_first, trained
from olmo_mixlaw.shipped import find_config
from olmo_mixlaw.training import checkpoints, plain, process
from olmo_mixlaw.training.config import MixTrainConfig, check, load, max_steps
from olmo_mixlaw.training.config import sources as source_uris
from olmo_mixlaw.training.evaluators import build_evaluators, check_evaluators
from olmo_mixlaw.training.loader import build_loader
from olmo_mixlaw.training.model import build_distributed, build_model, n_params
from olmo_mixlaw.training.schedulers import build_scheduler, check_scheduler
from olmo_mixlaw.training.sources import open_for
from olmo_mixlaw.training.tally import Tally
from olmo_mixlaw.training.trainer import MixTrainer

log = logging.getLogger(__name__)


def train(config: str | Path | MixTrainConfig, overrides: Sequence[str] = ()) -> Path:
    """Train as `config` says; `overrides` are `key.sub=value` strings.

    Returns the folder of the final, unsharded checkpoint. A run whose folder has checkpoints
    goes on from the last one; a finished one returns at once. Raises `ConfigError`, `DataError`
    or `CheckpointError` before any work, `NonFiniteLossError` and `StoppedError` after having
    saved a checkpoint.
    """
    if isinstance(config, MixTrainConfig):
        where, config = "config", copy.deepcopy(config)
        if overrides:
            raise ConfigError("config: overrides need a file; change the MixTrainConfig instead")
    else:
        where, config = str(config), load(config, overrides)
    on_gpu = torch.cuda.is_available()
    check(config, where, process.expected_world_size(), on_gpu)
    check_scheduler(config, where)
    check_evaluators(config, where)
    checkpoints.allow_trainer_state()
    with process.frozen_garbage(), process.process_group(on_gpu) as device:
        return _train(config, where, device)


def _train(config: MixTrainConfig, where: str, device: torch.device) -> Path:
    epoch = plain.check_training(config, where) if plain.is_plain(config) else None
    plain.check_evaluation(config, where)
    n_steps = max_steps(config, where, epoch)
    run = RunLength(n_steps, config.global_train_batch_size, config.model.max_sequence_length)
    _fill_in(config, n_steps, device)
    load_path = checkpoints.to_load(config, where)
    if load_path is not None:
        checkpoints.keep_own_state(load_path, config)
        checkpoints.check_whole(load_path, config, where)
        checkpoints.check_shape(load_path, config, where)
    mixture = _open(config, run, where)
    described = {}
    if mixture is not None:
        n_steps = steps_until_exhausted(mixture, run)
        described = description(mixture)
        if load_path is not None and not mixture.config.allow_change:
            checkpoints.check_mixture(load_path, described, config, where)
    folder = Path(config.save_folder)
    if load_path is None or not checkpoints.is_of_this_run(load_path, config):
        checkpoints.start_afresh(config, where)
    elif not config.evaluators and load_path == folder / f"step{n_steps}-unsharded":
        log.info("%s: already trained", folder)
        return load_path
    if get_global_rank() == 0:
        checkpoints.save_config(config, folder)
    barrier()
    # Not before it is kept: a run that is made longer later is not to stop where this one does.
    config.stop_at = min(config.stop_at or n_steps, n_steps)

    seed_all(config.seed)
    loader = _loader(config, mixture, n_steps)
    evaluators = build_evaluators(config, device, where)
    model = build_model(config)
    size = n_params(model)  # of the whole model: a process of FSDP will have a shard of it
    dist_model = build_distributed(config, model, device)
    optim = build_optimizer(config, dist_model)
    if device.type == "cpu":
        _fuse(optim)
        process.keep_freed_memory()
    _start_wandb(config)
    trainer = MixTrainer(
        cfg=config,
        epoch=config.epoch,
        model=model,
        dist_model=dist_model,
        optim=optim,
        scheduler=build_scheduler(config, size),
        train_loader=loader,
        device=device,
        evaluators=evaluators,
        indices_file=checkpoints.open_indices(config),
        mixture=mixture,
        n_steps=n_steps,
        mixture_description=described,
        evals=_evals(folder, bool(evaluators)),
    )
    trainer.metrics = _metrics(folder, trainer.tally)
    with trainer, process.stop_signals(trainer):
        if load_path is not None:
            config.load_path = str(load_path)
            checkpoints.restore(trainer, load_path, config)
        trainer.fit()
    # Counting exposures of a long run takes its time, and nobody is to wait for it.
    barrier()
    if mixture is not None and get_global_rank() == 0:
        accounting.write(
            folder,
            accounting.account(mixture, trainer.global_step, run.batch_size, run.sequence_length),
        )
    return folder / f"step{trainer.global_step}-unsharded"


def _fill_in(config: MixTrainConfig, n_steps: int, device: torch.device) -> None:
    """Values that OLMo's script computes, and ones that a finished run can't do without."""
    config.precision = config.precision or ("amp_bf16" if device.type == "cuda" else "fp32")
    config.model.precision = config.precision
    config.device_train_batch_size = config.global_train_batch_size // get_world_size()
    config.device_train_microbatch_size = min(
        config.device_train_microbatch_size, config.device_train_batch_size
    )
    config.device_train_grad_accum = -(
        -config.device_train_batch_size // config.device_train_microbatch_size
    )
    if device.type == "cpu":
        config.model.init_device = "cpu"
    # Without an interval OLMo saves no unsharded checkpoint, not even the last one.
    if config.save_interval_unsharded is None:
        config.save_interval_unsharded = n_steps
    if config.save_num_unsharded_checkpoints_to_keep == 0:
        config.save_num_unsharded_checkpoints_to_keep = 1
    if config.optimizer.no_decay_norm_and_bias is not None:
        config.optimizer.decay_norm_and_bias = not config.optimizer.no_decay_norm_and_bias
        config.optimizer.decay_embeddings = not config.optimizer.no_decay_norm_and_bias
        config.optimizer.no_decay_norm_and_bias = None


def _open(config: MixTrainConfig, run: RunLength, where: str) -> Mixture | None:
    """The mixture of the run; None where plain memmaps are to be read as OLMo reads them.

    What a mixture file says is filled in, so that `config` names the sources that were read.
    """
    if plain.is_plain(config):
        return None
    uris = source_uris(config)
    size = config.tokenizer.train_vocab_size
    mixture = open_for(config, config.mixture, uris, run, where, train_vocab_size=size)
    if mixture.config.sources:
        config.data.datasets = mixture.config.sources
    if config.mixture is not None:
        config.mixture = replace(mixture.config, sources=None)
    return mixture


def _loader(config: MixTrainConfig, mixture: Mixture | None, n_steps: int) -> DataLoader:
    if mixture is not None:
        return build_loader(config, mixture, n_steps)
    from olmo.data import build_train_dataloader

    return build_train_dataloader(config)


def _metrics(folder: Path, tally: Tally) -> Record | None:
    """metrics.csv, which the first process writes."""
    if tally.mixture is None or get_global_rank() != 0:
        return None
    return Record(folder / METRICS, tally.columns)


def _evals(folder: Path, has_evaluators: bool) -> Record | None:
    if not has_evaluators or get_global_rank() != 0:
        return None
    return Record(folder / EVALS, EVAL_COLUMNS)


def _fuse(optim: torch.optim.Optimizer) -> None:
    """One kernel for all parameters: on a CPU torch loops over them unless told so."""
    for group in optim.param_groups:
        if "fused" in group:
            group["fused"], group["foreach"] = True, False


def _start_wandb(config: MixTrainConfig) -> None:
    if config.wandb is None or (get_global_rank() != 0 and config.wandb.rank_zero_only):
        return
    import wandb

    folder = Path(config.save_folder) / "wandb"
    folder.mkdir(parents=True, exist_ok=True)
    wandb.init(
        dir=str(folder),
        project=config.wandb.project,
        entity=config.wandb.entity,
        group=config.wandb.group,
        name=config.wandb.name or config.run_name,
        tags=config.wandb.tags,
        config=config.asdict(exclude=["wandb"]),
    )


def run(config: str, overrides: Sequence[str]) -> int:
    """Train from a command line, whose console OLMo sets up; the exit code.

    `config` is a file, or the name of a shipped one. 2 for a mistake, 128 + n for signal n. Errors
    of all processes are those of the first.
    """
    from olmo.util import add_cached_path_clients, prepare_cli_environment

    prepare_cli_environment()
    quiet_hosts()
    if not is_first():
        logging.getLogger().setLevel(logging.WARNING)  # the first process says it for all
    add_cached_path_clients()
    return trained(lambda: train(find_config("configs/train", config), overrides))


def quiet_hosts() -> None:
    """Leave out warnings of OLMo's dependencies that a user can do nothing about."""
    import warnings

    warnings.filterwarnings("ignore", message=".*register_new_resolver.*")
    warnings.filterwarnings("ignore", message=".*Disabling autocast.*")


def main(arguments: Sequence[str] | None = None) -> int:
    """`CONFIG [--key.sub=value ...]`, where CONFIG is a file or a shipped name."""
    return command(run, "olmo_mixlaw.training.launch", arguments)


if __name__ == "__main__":
    sys.exit(main())
