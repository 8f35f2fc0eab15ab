"""What a task is, without a host: documents, what is asked of a model, how answers are scored.

A definition is written once. The embedded scorer runs it as it is; the OLMES bridge wraps
it in OLMES's own `Task` and `Metric` classes, so that both hosts agree by construction.
"""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from olmo_mixlaw.datasets.uri import SCHEME
from olmo_mixlaw.errors import ConfigError, ExtensionError, unknown_name

Kind = Literal["loglikelihood", "loglikelihood_rolling", "generate_until", "chunks"]
SUBSAMPLE_SEED = 1234  # OLMES's default for the choice of `limit` documents
MAX_TOKENS = 65_536  # of running text, where nothing else is said


@dataclass(frozen=True)
class Request:
    """One thing that a model is asked.

    `loglikelihood` scores `continuation` after `context`; `loglikelihood_rolling` scores the
    whole of `context`; `generate_until` continues `context` by at most `max_tokens` tokens up
    to one of `stop`, greedily or, with `temperature`, `repeats` times from `seed`.
    """

    context: str
    continuation: str = ""
    kind: Kind = "loglikelihood"
    stop: tuple[str, ...] = ()
    max_tokens: int = 0
    temperature: float = 0.0
    repeats: int = 1
    seed: int = 0


@dataclass(frozen=True)
class TaskConfig:
    """The settings of one task, under OLMES's names; `context_kwargs` holds what is ours."""

    task_name: str
    primary_metric: str = ""
    split: str = "test"
    limit: int | None = None
    random_subsample_seed: int | None = SUBSAMPLE_SEED
    num_shots: int = 0
    context_kwargs: Mapping[str, Any] = field(default_factory=dict)
    generation_kwargs: Mapping[str, Any] = field(default_factory=dict)
    metric_kwargs: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def alias(self) -> str:
        """What the task is called in tables: its alias, or else its name."""
        return str(self.metadata.get("alias") or self.task_name)

    def as_dict(self) -> dict[str, Any]:
        """The settings as plain values, for files."""
        return {
            "task_name": self.task_name,
            "task_core": self.task_name.split(":")[0],
            "split": self.split,
            "limit": self.limit,
            "num_shots": self.num_shots,
            "random_subsample_seed": self.random_subsample_seed,
            "primary_metric": self.primary_metric,
            "native_id_field": "id",
            "context_kwargs": dict(self.context_kwargs) or None,
            "generation_kwargs": dict(self.generation_kwargs) or None,
            "metric_kwargs": dict(self.metric_kwargs) or None,
            "metadata": dict(self.metadata),
        }


class Task(ABC):
    """A task with its settings. Subclasses name their `metrics`, the first being primary.

    A document is a dictionary with at least `id` and `query`. Metrics of one document are
    numbers under the names in `metrics`; `aggregate` makes the task's from them.
    """

    kind: ClassVar[Kind] = "loglikelihood"
    metrics: ClassVar[tuple[str, ...]] = ()
    parameters: ClassVar[tuple[str, ...]] = ()  # accepted keys of context_kwargs
    context: ClassVar[Mapping[str, Any]] = {}  # values of those where nothing else is said
    dataset_name: ClassVar[str] = ""  # the dataset that the task asks about, if only one will do
    # Without a `dataset` it stands for one task of every source that the model was trained on,
    # each with the parameters `dataset` and `domain`.
    every_source: ClassVar[bool] = False
    strict_prefix: ClassVar[bool] = True  # refuse tokenizers that break prefix stability

    def __init__(self, config: TaskConfig) -> None:
        if not self.metrics:
            raise ExtensionError(f"task {config.alias!r}: its class names no metrics")
        for key in config.context_kwargs:
            if key not in self.parameters:
                raise unknown_name("key", key, self.parameters, f"{config.alias}: context_kwargs")
        if not config.primary_metric:
            config = replace(config, primary_metric=self.metrics[0])
        elif config.primary_metric not in self.metrics:
            raise unknown_name(
                "metric", config.primary_metric, self.metrics, f"{config.alias}: primary_metric"
            )
        self.config = config

    @property
    def name(self) -> str:
        return self.config.alias

    def parameter(self, key: str, default: Any = None) -> Any:
        """A value of `context_kwargs`."""
        value = self.config.context_kwargs.get(key)
        return default if value is None else value

    def dataset_uri(self) -> str:
        """The dataset that the task asks about. Raises `ConfigError` if none is given."""
        uri = self.parameter("dataset")
        if not uri:
            raise ConfigError(
                f"{self.name}: context_kwargs.dataset is missing: give the URI that the model was "
                f"trained on, {SCHEME}{self.dataset_name or '<name>'}?... (a run of ours says it "
                "itself)"
            )
        return str(uri)

    def check(self) -> None:
        """Raises `ConfigError` where something is missing that the documents are made from."""
        if "dataset" in self.parameters:
            self.dataset_uri()

    @abstractmethod
    def items(self) -> Sequence[Any]:
        """What documents are made from: one a document, before `limit`."""

    def document(self, item: Any) -> dict[str, Any]:
        """The document of one item."""
        return item

    def documents(self) -> list[dict[str, Any]]:
        """The documents that are scored: all, or `limit` of them drawn as OLMES draws them."""
        drawn = draw(self.items(), self.config.limit, self.config.random_subsample_seed)
        return [self.document(item) for item in drawn]

    @abstractmethod
    def requests(self, document: Mapping[str, Any]) -> list[Request]:
        """What is asked about one document."""

    @abstractmethod
    def score(
        self, document: Mapping[str, Any], answers: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Metrics of one document from the model's answers, in the order of its requests."""

    def aggregate(
        self, documents: Sequence[Mapping[str, Any]], scores: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        """The task's metrics: unless said otherwise, the mean of each over documents."""
        return means(scores, self.metrics)


class TextTask(Task):
    """A task about running text, cut into whole sequences of tokens of the model's length.

    Only the embedded scorer can run one: OLMES doesn't hand out tokens. A document is a sequence,
    and its one answer has `sum_logits`, `num_tokens`, `text_logits` and `num_bytes`.
    """

    kind: ClassVar[Kind] = "chunks"
    parameters: ClassVar[tuple[str, ...]] = ("max_tokens", "sequence_length")

    @abstractmethod
    def texts(self) -> Iterable[str]:
        """The text, document by document; it is read as far as `max_tokens` go."""

    @property
    def max_tokens(self) -> int:
        return int(self.parameter("max_tokens", MAX_TOKENS))

    def items(self) -> Sequence[Any]:
        raise TypeError("sequences depend on the tokenizer: the scorer cuts `texts`")

    def requests(self, document: Mapping[str, Any]) -> list[Request]:
        raise TypeError("sequences depend on the tokenizer: the scorer cuts `texts`")


def means(scores: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> dict[str, float]:
    """The mean of each metric that the documents have, unweighted."""
    return {
        name: float(sum(float(row[name]) for row in scores) / len(scores))
        for name in metrics
        if scores and isinstance(scores[0].get(name), (int, float))
    }


def draw(documents: Sequence[Any], limit: int | float | None, seed: int | None) -> list[Any]:
    """`limit` of the documents, as OLMES takes them: sampled with `seed`, or the first ones.

    A `limit` below 1 is a share of the documents, rounded up.
    """
    if limit is None:
        return list(documents)
    count = math.ceil(limit * len(documents)) if limit < 1 else int(limit)
    if count >= len(documents):
        return list(documents)
    if seed is None:
        return list(documents[:count])
    return random.Random(seed).sample(list(documents), count)
