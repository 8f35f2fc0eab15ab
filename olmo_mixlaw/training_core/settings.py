"""From a training file to OLMo-core's own configurations, and what its checkpoints keep of them."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar

from olmo_core.config import Config, DType
from olmo_core.data import TokenizerConfig
from olmo_core.distributed.parallel import DataParallelType
from olmo_core.exceptions import OLMoConfigurationError
from olmo_core.nn.transformer import TransformerConfig
from olmo_core.optim import (
    WSD,
    ConstantWithWarmup,
    CosWithWarmup,
    LinearWithWarmup,
    OptimConfig,
    Scheduler,
)
from olmo_core.train import Duration, TrainerConfig
from olmo_core.train.callbacks import (
    CheckpointerCallback,
    ConfigSaverCallback,
    ConsoleLoggerCallback,
)
from olmo_core.train.train_module import TransformerDataParallelConfig, TransformerTrainModuleConfig

from olmo_mixlaw.errors import ConfigError, first_line, unknown_name
from olmo_mixlaw.training_core.classes import CLASS, OF_CORE, classes
from olmo_mixlaw.training_core.config import CoreTrainConfig, SchedulerSection

Built = TypeVar("Built", bound=Config)

# What names the class of a nested setting in OLMo-core's files.
_KIND = (CLASS, "type")
_TRUSTED = (*OF_CORE, "olmo_mixlaw.")
# Beside what OLMo-core prints by itself.
_SHOWN = ("mixture/*", "eval/*")


@dataclass(frozen=True)
class Settings:
    """All that OLMo-core is built from, but data and what is added to its Trainer."""

    model: TransformerConfig
    tokenizer: TokenizerConfig
    train_module: TransformerTrainModuleConfig
    trainer: TrainerConfig

    def as_config_dict(self) -> dict[str, Any]:
        """What config.json of a checkpoint says, under the names of OLMo-core's scripts."""
        parts = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return {name: part.as_config_dict() for name, part in parts.items()}


def tokenizer_settings(config: CoreTrainConfig) -> TokenizerConfig:
    section = config.tokenizer
    return TokenizerConfig(
        vocab_size=section.vocab_size,
        eos_token_id=section.eos_token_id,
        pad_token_id=section.pad_token_id,
        identifier=section.identifier,
    )


def core_settings(
    config: CoreTrainConfig,
    model: TransformerConfig,
    where: str,
    *,
    n_steps: int,
    last_step: int,
    world_size: int,
    on_gpu: bool,
) -> Settings:
    """`config` in OLMo-core's words. `last_step` is where a run of `n_steps` may end before.

    Raises `ConfigError` for names and keys that OLMo-core doesn't know.
    """
    try:
        train_module = _train_module(config, where, world_size, on_gpu)
        trainer = _trainer(config, n_steps, last_step, on_gpu)
        return Settings(
            model,
            tokenizer_settings(config),
            _laid_over(train_module, config.train_module, f"{where}: train_module"),
            _laid_over(trainer, config.trainer_config, f"{where}: trainer_config"),
        )
    except OLMoConfigurationError as error:
        raise ConfigError(f"{where}: {first_line(error)}") from None


def _train_module(
    config: CoreTrainConfig, where: str, world_size: int, on_gpu: bool
) -> TransformerTrainModuleConfig:
    parallel = _parallel(config, world_size)
    sharded = parallel is not None and parallel.name != DataParallelType.ddp
    half = DType.bfloat16 if config.precision == "bf16" else None
    if parallel is not None and sharded:
        parallel.param_dtype = half
    return TransformerTrainModuleConfig(
        rank_microbatch_size=config.rank_microbatch_size or config.global_batch_size // world_size,
        max_sequence_length=config.sequence_length,
        optim=_optimizer(config, where, fused=not on_gpu and parallel is None),
        scheduler=_scheduler(config.scheduler, config.optimizer.lr),
        max_grad_norm=config.max_grad_norm,
        z_loss_multiplier=config.z_loss_multiplier,
        compile_model=config.compile and on_gpu,
        dp_config=parallel,
        autocast_precision=None if sharded else half,
    )


def _parallel(config: CoreTrainConfig, world_size: int) -> TransformerDataParallelConfig | None:
    section = config.data_parallel
    if section is None:
        name = DataParallelType.ddp
        return TransformerDataParallelConfig(name=name) if world_size > 1 else None
    return TransformerDataParallelConfig(
        name=DataParallelType(section.name),
        num_replicas=section.num_replicas,
        shard_degree=section.shard_degree,
    )


def _optimizer(config: CoreTrainConfig, where: str, fused: bool) -> OptimConfig:
    """`fused`: one kernel for all parameters, where torch would loop over them on a CPU."""
    section, known = config.optimizer, OptimConfig.get_registered_names()
    if section.name not in known:
        raise unknown_name("optimizer", section.name, known, f"{where}: optimizer.name")
    kind = OptimConfig.get_registered_class(section.name)
    accepted = {item.name for item in dataclasses.fields(kind) if item.init}
    given = {
        item.name: value
        for item in dataclasses.fields(section)
        if item.name != "name" and (value := getattr(section, item.name)) is not None
    }
    for key in given:
        if key not in accepted:
            raise ConfigError(
                f"{where}: optimizer.{key}: {section.name} has no such setting "
                f"(it has {', '.join(sorted(accepted))})"
            )
    if "betas" in given:
        given["betas"] = tuple(given["betas"])
    if fused and "fused" in accepted:
        given["fused"] = True
    return kind(**given)


def _scheduler(section: SchedulerSection, lr: float) -> Scheduler:
    if section.name == "wsd":
        return WSD(
            warmup=section.warmup,
            decay_fraction=section.decay_fraction,
            decay_min_lr=section.alpha_f * lr,
        )
    if section.name == "cosine":
        return CosWithWarmup(warmup=section.warmup, alpha_f=section.alpha_f)
    if section.name == "linear":
        return LinearWithWarmup(warmup=section.warmup, alpha_f=section.alpha_f)
    return ConstantWithWarmup(warmup=section.warmup)


def _trainer(config: CoreTrainConfig, n_steps: int, last_step: int, on_gpu: bool) -> TrainerConfig:
    """The Trainer; its step-0 and asynchronous checkpoints can hang beside other exchanges."""
    console = ConsoleLoggerCallback(log_interval=config.console_interval)
    console.metrics = [*console.metrics, *_SHOWN]
    return TrainerConfig(
        save_folder=config.save_folder,
        # What is there and is to be kept has been looked at before.
        save_overwrite=True,
        max_duration=Duration.steps(n_steps),
        hard_stop=Duration.steps(last_step) if last_step < n_steps else None,
        metrics_collect_interval=config.console_interval,
        async_bookkeeping=None if on_gpu else False,
        callbacks={
            "checkpointer": CheckpointerCallback(
                save_interval=config.save_interval,
                max_checkpoints=config.keep_checkpoints,
                save_async=False,
                pre_train_checkpoint=False,
            ),
            "config_saver": ConfigSaverCallback(),
            "console_logger": console,
        },
    )


def _laid_over(built: Built, values: dict[str, Any], place: str) -> Built:
    """`built` with the user's `values` for OLMo-core's own keys. Raises `ConfigError`."""
    if not values:
        return built
    known = [item.name for item in dataclasses.fields(built) if item.init]
    for key in values:
        if key not in known:
            raise unknown_name("key", key, known, place)
    _require_trusted(values, place)
    plain = built.as_dict(
        exclude_private_fields=True, include_class_name=True, include_registered_name=True
    )
    try:
        return type(built).from_dict(_merged(plain, values))
    except (OLMoConfigurationError, TypeError, ValueError, LookupError, AttributeError) as error:
        raise ConfigError(f"{place}: {first_line(error)}") from None
    except ImportError as error:
        raise ConfigError(f"{place}: {error}") from None


def _merged(below: Any, above: Any) -> Any:
    """`above` over `below`, key by key, but whole where it is of a kind of its own."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return copy.deepcopy(above)
    if any(above.get(key, below.get(key)) != below.get(key) for key in _KIND):
        return copy.deepcopy(above)
    return {**below, **{key: _merged(below.get(key), value) for key, value in above.items()}}


def _require_trusted(values: Any, place: str) -> None:
    """Only OLMo-core's classes, and ours, are made by name: a file mustn't run others."""
    for where, name in classes(values, place):
        if not name.startswith(_TRUSTED):
            raise ConfigError(f"{where}: {CLASS}: {name}: expected a class of olmo_core")
