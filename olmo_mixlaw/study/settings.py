"""The keys of a study file, and what they are where nothing is said."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from olmo_mixlaw.registry import STUDIED_LAWS

if TYPE_CHECKING:
    from olmo_mixlaw.advice.optimum import Limits


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
    # What would be trained otherwise, that the proposal is compared with: one of the mixtures by
    # its name, or ratios.
    current: Any = None

    @property
    def limits(self) -> Limits:
        """The target's weights and bounds, as `optimum` and all that follows it take them."""
        return {"target_weights": self.weights or None, "lower": self.lower, "upper": self.upper}

    @property
    def lower(self) -> dict[str, float]:
        """The least ratio of each domain that is bounded."""
        return {domain: ends[0] for domain, ends in self.bounds.items()}

    @property
    def upper(self) -> dict[str, float]:
        """The greatest ratio of each domain that is bounded."""
        return {domain: ends[1] for domain, ends in self.bounds.items()}


@dataclass
class TrainingConfig:
    """How runs are computed, whatever computes them."""

    precision: str = "fp32"  # or bf16: mixed, with weights in fp32
    micro_batch: int | None = None  # sequences that one process handles at a time; None: all
    device: str = "auto"  # cpu, cuda (there must be one), or auto: a GPU where there is one


@dataclass
class LocalConfig:
    """What each run has of this machine; None: one of its GPUs in turn, and one thread."""

    gpus: int | None = None  # of its own; several share a run, a process each
    threads: int | None = None  # a process; each run keeps to processors of its own


@dataclass
class SlurmConfig:
    """What a run asks of the cluster; absent keys are left to the cluster's defaults."""

    minutes: int = 60
    cpus: int = 1  # a node
    gpus: int = 0  # a node; several, or several nodes, share a run, a process a GPU
    memory_gb: float = 8  # a node
    nodes: int = 1
    partition: str | None = None
    account: str | None = None
    constraint: str | None = None
    qos: str | None = None
    setup: list[str] = field(default_factory=list)  # lines of shell before a run: module load
    sbatch: dict[str, str] = field(default_factory=dict)  # more of sbatch's own options


@dataclass
class RunsConfig:
    """Some runs of a study's grid: one size and length, at some of the mixtures."""

    size: str = MISSING
    tokens: int = MISSING
    mixtures: list[str] = MISSING
    seeds: list[int] = field(default_factory=lambda: [1])


@dataclass
class GridConfig:
    """Every mixture whose ratios are multiples of `step`, within limits."""

    step: float = MISSING
    at_least: dict[str, float] = field(default_factory=dict)
    at_most: dict[str, float] = field(default_factory=dict)


@dataclass
class SwarmConfig:
    """`n` mixtures drawn about a prior, as `olmo-mixlaw swarm` draws them.

    Without a prior all domains weigh the same. The other defaults are those of
    `olmo_mixlaw.swarm.draws`.
    """

    n: int = MISSING
    method: str = "dirichlet"
    seed: int = 0
    prior: dict[str, float] = field(default_factory=dict)
    min_strength: float | None = None
    max_strength: float | None = None
    temperature: float = 1.0
    apart: float | None = None
    least_ratio: float | None = None
    at_least: dict[str, float] = field(default_factory=dict)
    at_most: dict[str, float] = field(default_factory=dict)
    keep: list[str] = field(default_factory=list)  # domains that every mixture has


@dataclass
class PlannerConfig:
    """The runs that tell most about the target for a budget, as `olmo-mixlaw design` plans them.

    Offered are the study's sizes and tokens at `n` drawn mixtures within the target's bounds, and
    at those that are listed.
    """

    budget: str = MISSING  # FLOPs
    n: int = 200
    seed: int = 0
    laws: list[str] = field(default_factory=list)  # to be told apart; none: the planner's own


@dataclass
class TableConfig:
    """Mixtures of a CSV with a column a domain, as `olmo-mixlaw swarm` writes one."""

    path: str = MISSING


@dataclass
class DrawnConfig:
    """How mixtures are made that the file doesn't list; `listed` are the names of those it does."""

    grid: GridConfig | None = None
    swarm: SwarmConfig | None = None
    planner: PlannerConfig | None = None
    table: TableConfig | None = None
    listed: list[str] = field(default_factory=list)


@dataclass
class StudyConfig:
    """A study file. Sizes x mixtures x tokens x seeds are trained, each a run."""

    name: str = MISSING
    output: str = MISSING
    ladder: str = MISSING
    domains: dict[str, str] = MISSING  # domain -> dataset URI, or token files
    target: TargetConfig = MISSING
    sizes: list[str] = field(default_factory=list)  # those of `runs`, where these are given
    tokens: list[int] = field(default_factory=list)  # likewise
    mixtures: dict[str, dict[str, float]] = field(default_factory=dict)  # name -> ratios by tokens
    drawn: DrawnConfig | None = None  # stands in files as a recipe among the mixtures
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
    training: TrainingConfig = field(default_factory=TrainingConfig)
    local: LocalConfig = field(default_factory=LocalConfig)
    slurm: SlurmConfig | None = None  # None: on this machine
    retries: int = 1  # tries more of a run that was killed, ran out of time or memory
