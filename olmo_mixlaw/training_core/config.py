"""A training file for OLMo-core's Trainer: `trainer: olmo-core`, and what it is made of.

Batches are counted in tokens, as OLMo-core does. Whatever has no key here can be said in
OLMo-core's own words under `train_module` and `trainer_config`. Nothing here needs OLMo-core.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from olmo_mixlaw import schema
from olmo_mixlaw.errors import ConfigError, unknown_name
from olmo_mixlaw.mixture.config import MixtureConfig
from olmo_mixlaw.mixture.records import KINDS
from olmo_mixlaw.training_core.models import ModelSection

TRAINER = "olmo-core"
SCHEDULERS = ("wsd", "cosine", "linear", "constant")
PARALLEL = ("ddp", "fsdp", "hsdp")
PRECISIONS = ("fp32", "bf16")

# What splits a sequence or a model over processes: losses can't be told by source there.
_SPLITTING = ("tp_config", "cp_config", "pp_config")
# OLMo-core's keys that a key of ours stands for.
_OURS = {
    "train_module": {
        "max_sequence_length": "sequence_length",
        "rank_microbatch_size": "rank_microbatch_size",
    },
    "trainer_config": {
        "save_folder": "save_folder",
        "load_path": "load_path",
        "max_duration": "max_duration",
    },
}


@dataclass
class TokenizerSection:
    """The tokenizer's file, and the ids that matter to training."""

    identifier: str
    eos_token_id: int
    pad_token_id: int
    vocab_size: int
    """Entries of the tokenizer; the model has the next multiple of 128."""

    train_vocab_size: int | None = None
    """Train a byte-level BPE of this size on the run's own sources if the file isn't there."""


@dataclass
class OptimizerSection:
    """One of OLMo-core's optimizers; what is left out is as OLMo-core has it."""

    lr: float
    name: str = "adamw"
    weight_decay: float | None = None
    betas: tuple[float, float] | None = None
    eps: float | None = None


@dataclass
class SchedulerSection:
    """The learning rate over a run: `wsd`, `cosine`, `linear` or `constant` after a warm-up."""

    name: str = "wsd"
    warmup: int = 0
    """Steps."""

    decay_fraction: float = 0.1
    """wsd: the last part of the run, in which the rate falls."""

    alpha_f: float = 0.0
    """wsd, cosine, linear: the rate at the end, as a part of the highest."""


@dataclass
class ParallelSection:
    """How several processes share the work."""

    name: str = "ddp"
    num_replicas: int | None = None
    """hsdp: copies of the model."""

    shard_degree: int | None = None
    """hsdp: processes that share one copy."""


@dataclass
class EvaluatorSection:
    """`heldout` (loss a domain) or `exact_match` (recall), while the run goes on."""

    kind: str
    label: str | None = None
    """The metrics' name in evals.csv; the kind if left out."""

    datasets: dict[str, str] | None = None
    """Dataset URIs by domain; every source of the mixture that is a dataset if left out."""

    n_items: int = 256
    """Held-out sequences a domain, or questions a dataset."""

    eval_interval: int = 1000
    """Steps; and at the end."""


@dataclass
class CoreTrainConfig:
    """A training run on OLMo-core. Sizes of batches are in tokens."""

    tokenizer: TokenizerSection
    sequence_length: int
    global_batch_size: int
    max_duration: str
    """Steps (1000) or tokens (2e9T)."""

    optimizer: OptimizerSection
    save_folder: str
    trainer: str = TRAINER
    run_name: str = "run"
    seed: int = 0
    model: ModelSection | None = None
    """May be left out with `load_path`, whose model it is then."""

    rank_microbatch_size: int | None = None
    """Tokens that one process handles at a time; its whole share of a batch if left out."""

    sources: dict[str, list[str]] = field(default_factory=dict)
    """URIs and paths by label, unless a mixture file names them."""

    mixture: MixtureConfig | None = None
    memmap_dtype: str = "uint16"
    num_workers: int = 0
    """Processes that read data, beside each that trains."""

    scheduler: SchedulerSection = field(default_factory=SchedulerSection)
    max_grad_norm: float | None = 1.0
    z_loss_multiplier: float | None = None
    data_parallel: ParallelSection | None = None
    """ddp if left out where there are several processes."""

    precision: str = "fp32"
    compile: bool = False
    """Compile the model, where there is a GPU."""

    save_interval: int | None = None
    """Steps between two checkpoints; the last step's is always saved."""

    keep_checkpoints: int | None = None
    """How many of them are kept; all if left out."""

    stop_at: int | None = None
    """A step to end at before `max_duration`, which goes on to shape the learning rate."""

    load_path: str | None = None
    """Where weights come from at step 0, with a fresh optimizer: a checkpoint of OLMo-core, the
    folder of a run (its newest), or a HuggingFace folder of OLMo 2 or 3."""

    evaluators: list[EvaluatorSection] = field(default_factory=list)
    metrics_interval: int = 10
    """Steps between two rows of metrics.csv."""

    console_interval: int = 10
    """Steps between two progress lines."""

    train_module: dict[str, Any] = field(default_factory=dict)
    """Keys of OLMo-core's TransformerTrainModuleConfig, laid over what the keys above say."""

    trainer_config: dict[str, Any] = field(default_factory=dict)
    """Keys of OLMo-core's TrainerConfig, laid over what the keys above say."""

    def plain(self) -> dict[str, Any]:
        """This configuration as a mapping for YAML or JSON."""
        return asdict(self)


def load(path: str | Path, overrides: Sequence[str] = ()) -> CoreTrainConfig:
    """Read a training file. Raises `ConfigError` naming file and key, before any work."""
    return from_mapping(schema.read_mapping(path), str(path), overrides)


def from_mapping(
    values: Mapping[str, Any], where: str, overrides: Sequence[str] = ()
) -> CoreTrainConfig:
    """`values` as a training configuration; `where` (the file) goes into every error."""
    trainer = values.get("trainer", TRAINER)
    if trainer != TRAINER:
        raise ConfigError(
            f"{where}: trainer: {trainer!r} is not trained here; start it with "
            "olmo-mixlaw train, or torchrun -m olmo_mixlaw.training.launch"
        )
    return schema.from_mapping(values, CoreTrainConfig, where, overrides)


def check(config: CoreTrainConfig, where: str, world_size: int, on_gpu: bool) -> None:
    """Raise `ConfigError` for what can't run on `world_size` processes, before any work."""
    _check_names(config, where)
    _check_batch(config, where, world_size)
    _check_numbers(config, where)
    if config.precision != "fp32" and not on_gpu:
        raise ConfigError(
            f"{where}: precision: {config.precision} needs a GPU, and none is found; set fp32"
        )
    if config.model is None and config.load_path is None:
        raise ConfigError(f"{where}: model: is missing; only with load_path can it be left out")
    for section, ours in _OURS.items():
        for key, key_of_ours in ours.items():
            if key in getattr(config, section):
                raise ConfigError(f"{where}: {section}.{key}: say it as {key_of_ours}")
    for key in _SPLITTING:
        if config.train_module.get(key) is not None:
            raise ConfigError(
                f"{where}: train_module.{key}: losses can't be told by source where sequences or "
                "the model are split over processes; use data_parallel (ddp, fsdp, hsdp)"
            )
    _check_parallel(config, where, world_size)


def _check_names(config: CoreTrainConfig, where: str) -> None:
    if config.scheduler.name not in SCHEDULERS:
        raise unknown_name(
            "learning-rate schedule", config.scheduler.name, SCHEDULERS, f"{where}: scheduler.name"
        )
    if config.precision not in PRECISIONS:
        raise unknown_name("precision", config.precision, PRECISIONS, f"{where}: precision")
    if config.data_parallel is not None and config.data_parallel.name not in PARALLEL:
        raise unknown_name(
            "parallelism", config.data_parallel.name, PARALLEL, f"{where}: data_parallel.name"
        )
    labels = [one.label or one.kind for one in config.evaluators]
    for i, evaluator in enumerate(config.evaluators):
        if labels.count(labels[i]) > 1:
            raise ConfigError(f"{where}: evaluators[{i}].label: {labels[i]!r} is used twice")
        if evaluator.kind not in KINDS:
            raise unknown_name("evaluator", evaluator.kind, KINDS, f"{where}: evaluators[{i}].kind")


def _check_batch(config: CoreTrainConfig, where: str, world_size: int) -> None:
    length, batch = config.sequence_length, config.global_batch_size
    if length < 2:
        raise ConfigError(f"{where}: sequence_length: {length}; it must be at least 2 tokens")
    if batch < 1 or batch % length:
        raise ConfigError(
            f"{where}: global_batch_size: {batch} tokens are not whole sequences of {length}; "
            f"give {_near(batch, length)}"
        )
    if batch // length % world_size:
        raise ConfigError(
            f"{where}: global_batch_size: {batch} tokens ({batch // length} sequences) can't be "
            f"shared by {world_size} processes; give {_near(batch, length * world_size)}"
        )
    micro, share = config.rank_microbatch_size, batch // world_size
    if micro is not None and (micro < 1 or micro % length or share % micro):
        raise ConfigError(
            f"{where}: rank_microbatch_size: {micro} tokens; it must be whole sequences of "
            f"{length} and divide the {share} tokens that a process has of a batch"
        )


def _near(count: int, of: int) -> int:
    """The multiple of `of` that is nearest to `count`, and not 0."""
    return max(1, round(count / of)) * of


def _check_numbers(config: CoreTrainConfig, where: str) -> None:
    least = {
        "metrics_interval": 1,
        "console_interval": 1,
        "save_interval": 1,
        "keep_checkpoints": 1,
        "stop_at": 1,
        "num_workers": 0,
        "seed": 0,
    }
    for key, bound in least.items():
        value = getattr(config, key)
        if value is not None and value < bound:
            raise ConfigError(f"{where}: {key}: {value}; it must be at least {bound}")
    schedule = config.scheduler
    if schedule.warmup < 0:
        raise ConfigError(f"{where}: scheduler.warmup: {schedule.warmup}; it must be at least 0")
    for key in ("decay_fraction", "alpha_f"):
        if not 0 <= (value := getattr(schedule, key)) <= 1:
            raise ConfigError(f"{where}: scheduler.{key}: {value:g}; it must lie in 0 to 1")
    if not 0 < config.optimizer.lr < float("inf"):
        raise ConfigError(f"{where}: optimizer.lr: {config.optimizer.lr:g}; it must be above 0")
    for key in ("max_grad_norm", "z_loss_multiplier"):
        if (value := getattr(config, key)) is not None and not value > 0:
            raise ConfigError(f"{where}: {key}: {value:g}; it must be above 0")
    for i, evaluator in enumerate(config.evaluators):
        for key in ("n_items", "eval_interval"):
            if getattr(evaluator, key) < 1:
                raise ConfigError(
                    f"{where}: evaluators[{i}].{key}: {getattr(evaluator, key)}; it must be at "
                    "least 1"
                )


def _check_parallel(config: CoreTrainConfig, where: str, world_size: int) -> None:
    section = config.data_parallel
    if section is None:
        return
    for item in fields(section):
        if item.name == "name" or (value := getattr(section, item.name)) is None:
            continue
        if section.name != "hsdp":
            raise ConfigError(f"{where}: data_parallel.{item.name}: is of hsdp alone")
        if value < 1 or world_size % value:
            raise ConfigError(
                f"{where}: data_parallel.{item.name}: {value} doesn't divide {world_size} processes"
            )
    if section.num_replicas and section.shard_degree:
        product = section.num_replicas * section.shard_degree
        if product != world_size:
            raise ConfigError(
                f"{where}: data_parallel: num_replicas x shard_degree is {product}, "
                f"but there are {world_size} processes"
            )
