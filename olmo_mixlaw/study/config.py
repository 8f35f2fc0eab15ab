"""What a study file may say, read strictly and checked before anything runs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from olmo_mixlaw import schema
from olmo_mixlaw.datasets import open_dataset
from olmo_mixlaw.errors import ConfigError, unknown_name
from olmo_mixlaw.laws.law import resolve
from olmo_mixlaw.models.ladder import load_ladder
from olmo_mixlaw.registry import STUDIED_LAWS, TASKS
from olmo_mixlaw.runs.table import WEIGHT_TOLERANCE
from olmo_mixlaw.shipped import find_config

LEAST_VOCABULARY = 258


@dataclass
class TokenizerConfig:
    """A byte-level BPE trained on the study's own text; the models' embeddings fit it."""

    vocab_size: int = 1024
    characters: int = 4_000_000  # how much text it is trained on, over all domains


@dataclass
class EvaluationConfig:
    """What each finished run is scored on."""

    tasks: list[str] = field(default_factory=lambda: ["bio_recall"])
    heldout_tokens: int = 65_536  # a domain


@dataclass
class TargetConfig:
    """The run that the study is for: where losses are predicted and the mixture is chosen."""

    size: str = MISSING
    tokens: int = MISSING
    weights: dict[str, float] = field(default_factory=dict)  # of the objective; none: equal
    bounds: dict[str, list[float]] = field(default_factory=dict)  # domain -> [least, most]


@dataclass
class SlurmConfig:
    """What a run asks of the cluster; absent keys are left to the cluster's defaults."""

    minutes: int = 60
    cpus: int = 1
    gpus: int = 0
    memory_gb: float = 8
    partition: str | None = None
    account: str | None = None
    constraint: str | None = None


@dataclass
class StudyConfig:
    """A study file. Sizes x mixtures x tokens x seeds are trained, each a run."""

    name: str = MISSING
    output: str = MISSING
    ladder: str = MISSING
    sizes: list[str] = MISSING
    tokens: list[int] = MISSING
    domains: dict[str, str] = MISSING  # domain -> dataset URI
    mixtures: dict[str, dict[str, float]] = MISSING  # name -> ratios by tokens
    target: TargetConfig = MISSING
    seeds: list[int] = field(default_factory=lambda: [1])
    laws: list[str] = field(default_factory=lambda: list(STUDIED_LAWS))
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint_every: int = 250  # steps; a killed run goes on from its last checkpoint
    workers: int = 2  # runs side by side, one thread each
    slurm: SlurmConfig | None = None  # None: on this machine


def load_study(name: str | Path, overrides: tuple[str, ...] = ()) -> StudyConfig:
    """The study file at a path, or the shipped study of that name, checked in full.

    Raises `ConfigError` naming file, key and accepted values.
    """
    path = find_config("configs/studies", name)
    study = schema.load(path, StudyConfig, overrides)
    check(study, str(path))
    return study


def check(study: StudyConfig, where: str) -> None:
    """Everything that can be known to be wrong before the first run. Raises `ConfigError`."""
    for key in ("sizes", "tokens", "domains", "mixtures", "seeds", "laws"):
        if not getattr(study, key):
            raise ConfigError(f"{where}: {key}: at least one is needed")
    ladder = load_ladder(study.ladder, f"{where}: ladder")
    for key, size in [*(("sizes", s) for s in study.sizes), ("target.size", study.target.size)]:
        if size not in ladder.rungs:
            raise unknown_name("size", size, ladder.rungs, f"{where}: {key}")
    for domain, uri in study.domains.items():
        open_dataset(uri, where=f"{where}: domains.{domain}")
    for name, ratios in study.mixtures.items():
        check_ratios(ratios, study.domains, f"{where}: mixtures.{name}")
    if len(set(study.sizes)) == 1 and study.target.size not in study.sizes:
        raise ConfigError(
            f"{where}: target.size: {study.target.size}: runs of one size ({study.sizes[0]}) can't "
            "speak of another; add a second to sizes"
        )
    if len(set(study.tokens)) == 1 and study.target.tokens not in study.tokens:
        raise ConfigError(
            f"{where}: target.tokens: {study.target.tokens}: runs of one budget "
            f"({study.tokens[0]}) can't speak of another; add a second to tokens"
        )
    if study.tokenizer.vocab_size < LEAST_VOCABULARY:
        raise ConfigError(
            f"{where}: tokenizer.vocab_size: {study.tokenizer.vocab_size}: at least "
            f"{LEAST_VOCABULARY} (the bytes and two markers)"
        )
    for law in study.laws:
        resolve(law, f"{where}: laws")
    for task in study.evaluation.tasks:
        TASKS.get(task, f"{where}: evaluation.tasks")
    for key in ("weights", "bounds"):
        for domain in getattr(study.target, key):
            if domain not in study.domains:
                raise unknown_name("domain", domain, study.domains, f"{where}: target.{key}")
    for domain, bounds in study.target.bounds.items():
        if len(bounds) != 2 or not 0 <= bounds[0] <= bounds[1] <= 1:
            raise ConfigError(
                f"{where}: target.bounds.{domain}: {bounds}: expected [least, most] within 0 and 1"
            )
    numbers = {
        "tokens": min(study.tokens),
        "target.tokens": study.target.tokens,
        "workers": study.workers,
        "checkpoint_every": study.checkpoint_every,
        "evaluation.heldout_tokens": study.evaluation.heldout_tokens,
    }
    for key, value in numbers.items():
        if value <= 0:
            raise ConfigError(f"{where}: {key}: {value}: must be positive")


def check_ratios(ratios: dict[str, float], domains: dict[str, str], where: str) -> None:
    """Raises `ConfigError` unless the ratios name known domains, are in [0, 1] and sum to 1."""
    for domain, ratio in ratios.items():
        if domain not in domains:
            raise unknown_name("domain", domain, domains, where)
        if not (math.isfinite(ratio) and 0 <= ratio <= 1):
            raise ConfigError(f"{where}.{domain}: {ratio}: a ratio lies between 0 and 1")
    total = sum(ratios.values())
    if abs(total - 1) > WEIGHT_TOLERANCE:
        raise ConfigError(f"{where}: the ratios sum to {total:.6g}, not 1")
