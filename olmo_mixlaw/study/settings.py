"""The keys of a study file, and what they are where nothing is said."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from olmo_mixlaw.registry import STUDIED_LAWS


@dataclass
class TokenizerConfig:
    """A byte-level BPE trained on the study's own text, or a tokenizer that is there already.

    The models' embeddings fit it.
    """

    identifier: str | None = None  # a tokenizer's file, or the name of one that OLMo carries
    vocab_size: int = 1024  # of one that is trained
    characters: int = 4_000_000  # how much text it is trained on, over all domains


@dataclass
class EvaluationConfig:
    """What each finished run is scored on."""

    # Names, suites or mappings with `task_name`; None: what each domain that has questions is
    # asked by.
    tasks: list[Any] | None = None
    heldout_tokens: int = 65_536  # a domain
    truncate: bool = False  # cut prompts that are longer than a model's context, from the left
    # domain -> the dataset whose held-out text scores it, where the domain itself has none
    heldout: dict[str, str] = field(default_factory=dict)


@dataclass
class TargetConfig:
    """The run that the study is for: where losses are predicted and the mixture is chosen."""

    size: str = MISSING
    tokens: int = MISSING
    weights: dict[str, float] = field(default_factory=dict)  # of the objective; none: equal
    bounds: dict[str, list[float]] = field(default_factory=dict)  # domain -> [least, most]

    @property
    def lower(self) -> dict[str, float]:
        """The least ratio of each domain that is bounded."""
        return {domain: ends[0] for domain, ends in self.bounds.items()}

    @property
    def upper(self) -> dict[str, float]:
        """The greatest ratio of each domain that is bounded."""
        return {domain: ends[1] for domain, ends in self.bounds.items()}


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
class RunsConfig:
    """Some runs of a study's grid: one size and length, at some of the mixtures."""

    size: str = MISSING
    tokens: int = MISSING
    mixtures: list[str] = MISSING
    seeds: list[int] = field(default_factory=lambda: [1])


@dataclass
class StudyConfig:
    """A study file. Sizes x mixtures x tokens x seeds are trained, each a run."""

    name: str = MISSING
    output: str = MISSING
    ladder: str = MISSING
    sizes: list[str] = MISSING
    tokens: list[int] = MISSING
    domains: dict[str, str] = MISSING  # domain -> dataset URI, or token files
    mixtures: dict[str, dict[str, float]] = MISSING  # name -> ratios by tokens
    target: TargetConfig = MISSING
    trainer: str = "olmo"  # what trains the runs: olmo, or olmo-core
    match_repeats: bool = False  # cut every source, so that runs repeat it as the target will
    source_tokens: dict[str, float] = field(default_factory=dict)  # domain -> what it is cut to
    cuts: dict[str, dict[str, float]] = field(default_factory=dict)  # the same of single mixtures
    # A checkpoint of that trainer, or a run's folder, that every run goes on from; {size},
    # {tokens} and {seed} stand for the run's.
    base: str | None = None
    seeds: list[int] = field(default_factory=lambda: [1])
    runs: list[RunsConfig] = field(default_factory=list)  # where given, these alone are trained
    laws: list[str] = field(default_factory=lambda: list(STUDIED_LAWS))
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint_every: int = 250  # steps; a killed run goes on from its last checkpoint
    workers: int = 2  # runs side by side, one thread each
    slurm: SlurmConfig | None = None  # None: on this machine
