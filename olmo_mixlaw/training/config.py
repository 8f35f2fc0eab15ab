"""OLMo's training configuration with our keys: `mixture`, `model.moe`, evaluators, schedulers.

Everything else is OLMo's, under OLMo's names. The checkpoints' own `config.yaml` leaves our
unset keys out, so that plain OLMo can read them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Optional

from olmo.config import (
    DataConfig,
    EvaluatorConfig,
    ModelConfig,
    SchedulerConfig,
    SchedulerType,
    TokenizerConfig,
    TrainConfig,
)
from omegaconf import OmegaConf

from olmo_mixlaw import schema
from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.mixture.config import MixtureConfig
from olmo_mixlaw.mixture.duration import steps_of
from olmo_mixlaw.models.moe_config import MoEConfig
from olmo_mixlaw.training.numbers import check_numbers

TRAINER = "ai2-olmo"
# OLMo's own kinds of evaluator; the others are ours.
OLMO_EVALUATORS = ("downstream", "lm")
STOCK_SCHEDULERS = [str(name.value) for name in SchedulerType]

# Keys of the scheduler that may be whole or not, so that nothing else makes numbers of them.
_NUMBERS = ("t_warmup", "t_max", "grad_clip_warmup_steps")

# Annotations here are read by omegaconf, which wants the spelled-out unions.
# ruff: noqa: UP045


@dataclass
class MixModelConfig(ModelConfig):
    """OLMo's model, with a Mixture-of-Experts feed-forward if `moe` is set."""

    moe: Optional[MoEConfig] = None


@dataclass
class MixSchedulerConfig(SchedulerConfig):
    """OLMo's learning-rate schedule, or another one by name (`wsd`, `ladder`, entry points)."""

    name: str = "cosine_with_warmup"  # type: ignore[assignment]
    decay_fraction: Optional[float] = None
    """wsd, ladder: the last part of the run, in which the rate falls (0.2 and 0.1 if unset)."""


@dataclass
class MixTokenizerConfig(TokenizerConfig):
    """A tokenizer's file, or a name that OLMo knows."""

    train_vocab_size: Optional[int] = None
    """Train a byte-level BPE of this size on the run's own sources if the file isn't there."""


@dataclass
class MixEvaluatorConfig(EvaluatorConfig):
    """OLMo's in-loop evaluators, `heldout` (loss a domain) and `exact_match` (recall)."""

    type: str = "lm"  # type: ignore[assignment]
    datasets: Optional[dict[str, str]] = None
    """heldout, exact_match: dataset URIs by domain; every source of the mixture if left out."""

    n_items: int = 256
    """Held-out sequences a domain, or questions a dataset."""


@dataclass
class MixTrainConfig(TrainConfig):
    """A training run. Differs from OLMo's defaults where a comment says so."""

    model: MixModelConfig = field(default_factory=MixModelConfig)
    scheduler: MixSchedulerConfig = field(default_factory=MixSchedulerConfig)
    tokenizer: MixTokenizerConfig = field(default_factory=MixTokenizerConfig)
    evaluators: list[MixEvaluatorConfig] = field(default_factory=list)  # type: ignore[assignment]
    mixture: Optional[MixtureConfig] = None
    metrics_interval: int = 10
    """Steps between two rows of metrics.csv."""

    # A run that is started again goes on from its last checkpoint.
    try_load_latest_save: bool = True
    # The plan says which example comes when, so a list of them is only written on request.
    save_data_indices: bool = False
    # OLMo collects garbage by hand at every step, for the sake of FSDP.
    gen1_gc_interval: Optional[int] = None
    # A cancelled run ends with its checkpoint, not some steps after it.
    extra_steps_after_cancel: int = 0

    def save(self, path: Any) -> None:
        """Write this configuration so that plain OLMo can read it wherever it could run it."""
        values = self.plain()
        for key in ("mixture", "metrics_interval"):
            values.pop(key)
        values["scheduler"].pop("decay_fraction")
        values["tokenizer"].pop("train_vocab_size")
        values["evaluators"] = [
            {key: value for key, value in item.items() if key not in ("datasets", "n_items")}
            for item in values["evaluators"]
            if item["type"] in OLMO_EVALUATORS
        ]
        Path(path).write_text(to_yaml(values), encoding="utf-8")

    def plain(self) -> dict[str, Any]:
        """This configuration as a mapping for YAML, all of it but an unset `model.moe`."""
        values = _plain(self)
        if self.model.moe is None:
            values["model"].pop("moe")
        return values


def to_yaml(values: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    """A value as YAML knows it; what omegaconf does, at a tenth of its time."""
    if is_dataclass(value):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def load(path: str | Path, overrides: Sequence[str] = ()) -> MixTrainConfig:
    """Read a training file. Raises `ConfigError` naming file and key, before any work."""
    values = schema.read_mapping(path)
    return from_mapping(values, str(path), overrides)


def from_mapping(
    values: dict[str, Any], where: str, overrides: Sequence[str] = ()
) -> MixTrainConfig:
    """`values` as a training configuration; `where` (the file) goes into every error."""
    from olmo.util import clean_opt

    if (trainer := values.get("trainer", TRAINER)) != TRAINER:
        raise ConfigError(
            f"{where}: trainer: {trainer!r} is not trained here; start it with olmo-mixlaw train, "
            "or torchrun -m olmo_mixlaw.training_core.launch"
        )
    values = {key: value for key, value in values.items() if key != "trainer"}
    MixTrainConfig._register_resolvers()
    for key in ("model", "optimizer", "data"):  # OLMo looks into them before they are read
        if not isinstance(values.get(key, {}), dict):
            raise ConfigError(f"{where}: {key}: expected a mapping, found {values[key]!r}")
    updated = MixTrainConfig.update_legacy_settings(OmegaConf.create(values))
    plain = OmegaConf.to_container(updated, resolve=False)
    assert isinstance(plain, dict)
    scheduler = plain.get("scheduler")
    if isinstance(scheduler, dict):
        plain["scheduler"] = {key: _number(key, value) for key, value in scheduler.items()}
    changes = []
    for item in overrides:
        key, _, value = clean_opt(item).partition("=")
        changes.append(f"{key}={_number(key.removeprefix('scheduler.'), value)}")
    return schema.from_mapping(plain, MixTrainConfig, where, changes)  # type: ignore[arg-type]


def _number(key: str, value: Any) -> Any:
    """A value of the scheduler as OLMo reads it: 5e12 is a number to it, and text to YAML 1.1."""
    if key not in _NUMBERS or not isinstance(value, str):
        return value
    try:
        return float(value) if "e" in value.lower() else value
    except ValueError:
        return value


def max_steps(config: MixTrainConfig, where: str, epoch: int | None = None) -> int:
    """The steps of a whole run, whether `max_duration` counts steps, tokens or epochs.

    `epoch` are the steps of one epoch, None for a mixture, which has none. Raises `ConfigError`
    for epochs of a mixture, and for no steps at all.
    """
    batch = config.global_train_batch_size * config.model.max_sequence_length
    return steps_of(config.max_duration, batch, where, epoch)


def check(config: MixTrainConfig, where: str, world_size: int, on_gpu: bool) -> None:
    """Raise `ConfigError` for what can't run on `world_size` processes, before any work."""
    batch, micro = config.global_train_batch_size, config.device_train_microbatch_size
    if batch < 1 or batch % world_size:
        raise ConfigError(
            f"{where}: global_train_batch_size: {batch} can't be shared by {world_size} processes; "
            f"give a multiple of {world_size}"
        )
    if micro < 1:
        raise ConfigError(f"{where}: device_train_microbatch_size: {micro} must be at least 1")
    check_numbers(config, where)
    if config.precision not in (None, "fp32", "amp_bf16"):
        why = "; OLMo scales no loss for it" if config.precision == "amp_fp16" else ""
        raise ConfigError(
            f"{where}: precision: {config.precision!r}; accepted are fp32, amp_bf16{why}"
        )
    if not on_gpu and config.precision not in (None, "fp32"):
        raise ConfigError(
            f"{where}: precision: {config.precision} needs a GPU, and none is found; set fp32"
        )
    if not on_gpu and config.distributed_strategy == "fsdp":
        raise ConfigError(
            f"{where}: distributed_strategy: fsdp needs a GPU, and none is found; set ddp"
        )
    if config.distributed_strategy == "fsdp" and config.sharded_checkpointer == "torch_new":
        from olmo.checkpoint import RemoteFileSystemReader

        # OLMo 0.6.0 writes them with any torch, but a run could never go on from one.
        if RemoteFileSystemReader.__abstractmethods__:
            raise ConfigError(
                f"{where}: sharded_checkpointer: torch_new: this torch can't read such checkpoints "
                "back; use torch_legacy"
            )
    if config.fused_loss and importlib.util.find_spec("flash_attn") is None:
        raise ConfigError(
            f"{where}: fused_loss: true needs flash_attn, which isn't installed; set false"
        )
    if config.distributed_strategy is None:
        raise ConfigError(f"{where}: distributed_strategy: is empty; accepted are ddp and fsdp")
    if config.model.moe is not None:
        config.model.moe.check(config.model.n_layers, f"{where}: model.moe")
    _check_pairs(config, where, on_gpu)
    size = config.model.embedding_size or config.model.vocab_size
    if size < config.model.vocab_size:
        raise ConfigError(
            f"{where}: model.embedding_size: {size} is below vocab_size {config.model.vocab_size}"
        )


def _check_pairs(config: MixTrainConfig, where: str, on_gpu: bool) -> None:
    """Raise `ConfigError` for settings that work one by one and break each other."""
    moe, sharded = config.model.moe is not None, config.distributed_strategy == "fsdp"
    wrapping = config.fsdp.wrapping_strategy if sharded and config.fsdp is not None else None
    if moe and wrapping == "size_based":
        raise ConfigError(
            f"{where}: fsdp.wrapping_strategy: size_based shards the matrices of experts, which "
            "are read as a whole; set by_block"
        )
    if config.model.weight_tying and str(wrapping or "").endswith("_and_size"):
        raise ConfigError(
            f"{where}: fsdp.wrapping_strategy: {wrapping} shards the embedding by itself, and with "
            "model.weight_tying the last layer reads it too; set by_block or untie them"
        )
    if config.model.init_device == "meta" and on_gpu and not sharded:
        raise ConfigError(
            f"{where}: model.init_device: meta leaves weights without values under "
            f"{config.distributed_strategy}; leave it out, or set distributed_strategy to fsdp"
        )
    if moe and config.compile is not None and config.compile.fullgraph:
        raise ConfigError(
            f"{where}: compile.fullgraph: a mixture of experts can't be one graph; set false"
        )


def sources(config: TrainConfig) -> dict[str, list[str]]:
    """The URIs and paths of `data`, by source label; `data.paths` are one source, `data`."""
    data: DataConfig = config.data
    if data.datasets:
        return {label: list(data.datasets[label]) for label in sorted(data.datasets)}
    return {"data": list(data.paths)} if data.paths else {}
