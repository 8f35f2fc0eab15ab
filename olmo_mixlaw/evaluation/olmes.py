"""The bridge to OLMES: our task definitions as its `Task` and `Metric` classes.

`task_configs` and `task_suites` run in OLMES's light launcher and import nothing of it;
`tasks` runs in its evaluator, once OLMES's own tasks are loaded.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any

from olmo_mixlaw.errors import ConfigError, MixlawError, complain
from olmo_mixlaw.evaluation import catalog, provenance
from olmo_mixlaw.evaluation.tasks import Task
from olmo_mixlaw.registry import TASKS

REGIME = "mixlaw"
# Keys that OLMES itself reads from context_kwargs; they are not ours to check.
OLMES_CONTEXT = (
    "description",
    "final_description",
    "system_prompt",
    "system_instruction",
    "assistant_prefix",
    "fewshot_as_multiturn",
    "truncation_size_when_saved",
)


@cache
def hosted() -> dict[str, Task]:
    """The tasks that OLMES can run, by name: all but those that need the tokens of text.

    A package's task that fails is left out, aloud, for OLMES would lose all of ours with it.
    """
    found: dict[str, Task] = {}
    for name in catalog.task_names():
        try:
            task = catalog.make_task(name, {})
        except Exception as error:
            owner = TASKS.get(name).__module__
            complain(f"task {name!r} of {owner} is left out: {type(error).__name__}: {error}")
            continue
        if task.kind != "chunks":
            found[name] = task
    return found


def task_configs() -> dict[str, dict[str, Any]]:
    """Settings of every variant, under `<name>::mixlaw`."""
    return {name + catalog.SUFFIX: _settings(name, task) for name, task in hosted().items()}


def task_suites() -> dict[str, dict[str, Any]]:
    """Our suites, with those of their tasks that OLMES can run under these names."""
    suites: dict[str, dict[str, Any]] = {}
    for suite in catalog.suite_names():
        loaded = catalog.load_suite(suite)
        names = [spec for spec in loaded.tasks if isinstance(spec, str)]
        cores = [name.removesuffix(catalog.SUFFIX) for name in names]
        tasks = [core + catalog.SUFFIX for core in cores if core in hosted()]
        if tasks:
            suites[suite] = {"tasks": tasks}
            if loaded.primary_metric and len(tasks) == len(loaded.tasks):
                suites[suite]["primary_metric"] = loaded.primary_metric
    return suites


@cache
def tasks() -> dict[str, type]:
    """OLMES task classes for every variant, by the name that its registry looks for."""
    return {name: _task_class(name, task) for name, task in hosted().items()}


def _settings(name: str, task: Task) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "task_name": name,
        "split": "test",
        "num_shots": 0,
        "primary_metric": task.config.primary_metric,
        "metadata": {"regimes": [REGIME]},
    }
    if task.config.context_kwargs:
        settings["context_kwargs"] = dict(task.config.context_kwargs)
    if task.config.primary_metric == "bits_per_byte_corr":
        settings["compute_gold_bpb"] = True  # OLMES refuses this metric otherwise
    return settings


def _task_class(name: str, task: Task) -> type:
    """OLMES's `Task` for one of our definitions."""
    from oe_eval.components.instances import RequestInstance
    from oe_eval.components.requests import (
        GenerateUntilRequest,
        LoglikelihoodRequest,
        LoglikelihoodRollingRequest,
        RequestType,
    )
    from oe_eval.tasks.base_task import Task as OlmesTask

    kind = task.kind
    defaults = _settings(name, task) | {
        "dataset_path": f"olmo_mixlaw/{name.partition(':')[0]}",
        "native_id_field": "id",
    }
    defaults.pop("task_name")
    defaults.pop("metadata")

    def made(request: Any, context: str) -> Any:
        if kind == "loglikelihood":
            return LoglikelihoodRequest(context=context, continuation=request.continuation)
        if kind == "loglikelihood_rolling":
            return LoglikelihoodRollingRequest(context=context)
        sampled = request.temperature > 0
        return GenerateUntilRequest(
            context=context,
            stop_sequences=list(request.stop),
            generation_kwargs={
                "max_gen_toks": request.max_tokens,
                "do_sample": sampled,
                "temperature": request.temperature if sampled else 0.0,
            },
        )

    class MixlawTask(OlmesTask):
        VERSION = 0
        REQUEST_TYPE = RequestType(kind)
        TASK_CONFIG_DEFAULTS = defaults

        def download(self, *args: Any, **kwargs: Any) -> None:
            """Nothing: documents are generated."""

        @property
        def definition(self) -> Task:
            if not hasattr(self, "_definition"):
                model = self.model_config or {}
                path = model.get("model_path") or model.get("model")
                self._definition = _definition(name, self.task_config, path)
            return self._definition

        def has_training_docs(self) -> bool:
            return False

        def has_validation_docs(self) -> bool:
            return False

        def has_test_docs(self) -> bool:
            return True

        def test_docs(self) -> list[dict[str, Any]]:
            return [self.definition.document(item) for item in self.definition.items()]

        def doc_to_text(self, doc: Mapping[str, Any]) -> str:
            return doc["query"]

        def doc_to_target(self, doc: Mapping[str, Any]) -> str:
            return " " + str(doc.get("answer", ""))

        def unconditioned_prompt(self) -> None:
            """None: otherwise every request would be made twice."""

        def construct_requests(self, doc: dict[str, Any], ctx: str, doc_id: int) -> list[Any]:
            requests = self.definition.requests(doc)
            repeated = [request for request in requests for _ in range(request.repeats)]
            return [
                RequestInstance(
                    request_type=kind,
                    doc=doc,
                    request=made(request, ctx),
                    idx=idx,
                    task_name=self.task_name,
                    doc_id=doc_id,
                    native_id=doc["id"],
                    label=doc.get("gold", 0),
                )
                for idx, request in enumerate(repeated)
            ]

        def make_metrics(self) -> list[Any]:
            self._metrics = [_metric(self.definition)]
            return self._metrics

    MixlawTask.__name__ = MixlawTask.__qualname__ = f"Mixlaw_{name.replace(':', '_')}"
    return MixlawTask


def _definition(name: str, settings: Mapping[str, Any], model: str | None) -> Task:
    """Our definition with OLMES's settings, and the dataset that the model's record names.

    A user's mistake ends OLMES with our one line rather than a traceback.
    """
    context = settings.get("context_kwargs") or {}
    keys = ("primary_metric", "generation_kwargs", "metric_kwargs")
    ours = {key: settings.get(key) for key in keys}
    try:
        task = catalog.make_task(
            name,
            {
                **ours,
                "context_kwargs": {k: v for k, v in context.items() if k not in OLMES_CONTEXT},
            },
        )
        record = provenance.record_of(model) if model else provenance.Record()
        found = provenance.with_datasets([task], record)
        if len(found) > 1:
            labels = ", ".join(str(t.parameter("domain")) for t in found)
            raise ConfigError(
                f"{name}: the model's run has several sources ({labels}); in OLMES say which in "
                "context_kwargs.domain"
            )
        provenance.refuse_contaminated(found, record)
        found[0].check()
    except MixlawError as error:
        sys.exit(f"error: {error}")
    return found[0]


def _metric(definition: Task) -> Any:
    """OLMES's `Metric` that asks our definition."""
    from oe_eval.metrics.metric import Metric

    class MixlawMetric(Metric):
        def process_one_doc(self, group_lst: list[dict[str, Any]]) -> dict[str, Any]:
            ordered = sorted(group_lst, key=lambda request: request["idx"])
            return definition.score(ordered[0]["doc"], [r["model_resps"] for r in ordered])

        def aggregate_to_task(self, primary_metric: str | None = None) -> dict[str, Any]:
            documents = {r["doc_id"]: r["doc"] for r in self._scores_for_requests}
            rows = self._scores_for_docs
            scores = definition.aggregate(
                [documents[row["doc_id"]] for row in rows], [row["metrics"] for row in rows]
            )
            primary = primary_metric or definition.config.primary_metric
            self._scores_for_task = {**scores, "primary_score": scores[primary]}
            return self._scores_for_task

    return MixlawMetric()


def launch(arguments: list[str]) -> int:
    """What `olmes` does, in this process, so that our tables hold without a start-up file.

    Returns the exit code. Raises `ConfigError` if OLMES is not installed.
    """
    import importlib

    from olmo_mixlaw.plugin import TABLES, extend_olmes

    try:
        launcher = importlib.import_module("oe_eval.launch")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "oe_eval":
            raise
        raise ConfigError(
            "OLMES (oe_eval) is not installed beside olmo-mixlaw; install it from its repository, "
            "or score the same tasks with: olmo-mixlaw evaluate"
        ) from None
    for name in ("oe_eval.configs.tasks", "oe_eval.configs.task_suites"):
        extend_olmes(sys.modules[name])
    settings = vars(launcher._parser.parse_args(arguments))
    shown = settings["dry_run"]
    found = launcher.launch_eval({**settings, "dry_run": True})
    if shown or not isinstance(found, Mapping):
        return found if isinstance(found, int) else 0
    evaluator = importlib.import_module("oe_eval.run_eval")
    for name in TABLES:
        if name in sys.modules:
            extend_olmes(sys.modules[name])
    command = shlex.split(found["command"])
    evaluator.run_eval(vars(evaluator._parser.parse_args(command[command.index("-m") + 2 :])))
    return 0
