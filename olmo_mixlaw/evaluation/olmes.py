"""The bridge to OLMES: our task definitions as its `Task` and `Metric` classes.

`task_configs` and `task_suites` run in OLMES's light launcher and import nothing of it;
`tasks` runs in its evaluator, once OLMES's own tasks are loaded.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from olmo_mixlaw.errors import ConfigError, MixlawError, complain
from olmo_mixlaw.evaluation import catalog, olmes_model, provenance
from olmo_mixlaw.evaluation.tasks import Request, Task
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
    """Our suites, with those of their tasks that OLMES can run under these names.

    Without a task that stands for one of each source: in OLMES one name is one task, so that such
    a suite would stop at it for a model of several sources.
    """
    suites: dict[str, dict[str, Any]] = {}
    for suite in catalog.suite_names():
        loaded = catalog.load_suite(suite)
        names = [spec for spec in loaded.tasks if isinstance(spec, str)]
        cores = [name.removesuffix(catalog.SUFFIX) for name in names]
        known = {name for name, task in hosted().items() if not task.every_source}
        tasks = [core + catalog.SUFFIX for core in cores if core in known]
        if tasks:
            suites[suite] = {"tasks": tasks}
            if loaded.primary_metric and len(tasks) == len(loaded.tasks):
                suites[suite]["primary_metric"] = loaded.primary_metric
    return suites


@cache
def tasks() -> dict[str, type]:
    """OLMES task classes for every variant, by the name that its registry looks for.

    Under the names of ours that OLMES can't run stands what ends it with a line that says so.
    """
    unhosted = [name for name in catalog.task_names() if TASKS.get(name).kind == "chunks"]
    refused = [word for name in unhosted for word in (name, name + catalog.SUFFIX)]
    return {
        **{name: _task_class(name, task) for name, task in hosted().items()},
        **{word: _refusal(word) for word in refused},
    }


def _refusal(word: str) -> type:
    """What OLMES makes of a task that it can't run: nothing, and one line on standard error."""

    class Unhosted:
        def __init__(self, **kwargs: Any) -> None:
            try:
                _refuse_unhosted(word)
            except ConfigError as error:
                sys.exit(f"error: {error}")

    return Unhosted


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
    if task.config.primary_metric == "bits_per_byte_corr" and _takes("compute_gold_bpb"):
        settings["compute_gold_bpb"] = True  # OLMES refuses this metric otherwise
    return settings


def _takes(setting: str) -> bool:
    """Whether the tasks of this OLMES have a setting (it ends at one that it doesn't know)."""
    try:
        from oe_eval.default_configs import TASK_DEFAULTS
    except ModuleNotFoundError:
        return True
    return setting in TASK_DEFAULTS


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

    def made(request: Request) -> Any:
        if kind == "loglikelihood":
            return LoglikelihoodRequest(context=request.context, continuation=request.continuation)
        if kind == "loglikelihood_rolling":
            return LoglikelihoodRollingRequest(context=request.context)
        sampled = request.temperature > 0
        return GenerateUntilRequest(
            context=request.context,
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
                if not hasattr(OlmesTask, "set_model"):
                    olmes_model.say_unknown(name, kind)
                path = olmes_model.folder_of(getattr(self, "model_config", None) or {})
                self._definition = _definition(name, self.task_config, path)
                _write_down(self, self._definition)
            return self._definition

        def set_model(self, model: Any, model_config: Mapping[str, Any]) -> None:
            super().set_model(model, model_config)
            olmes_model.keep_to_context(name, self.task_config, model, model_config)
            self._reader = olmes_model.reader_of(self.task_config, model, model_config)

        def asked(self, doc: Mapping[str, Any], ctx: Any) -> list[Request]:
            """What is asked about a document after OLMES's prompt, as the model can take it."""
            query, requests = self.doc_to_text(doc), self.definition.requests(doc)
            try:
                contexts = [olmes_model.placed(ctx, query, r.context) for r in requests]
                asked = [replace(r, context=c) for r, c in zip(requests, contexts, strict=True)]
                reader = getattr(self, "_reader", None)
                # The prompt of a chat isn't text yet.
                if reader is None or not all(isinstance(c, str) for c in contexts):
                    return asked
                return olmes_model.fitted(self.definition, asked, reader)
            except MixlawError as error:
                sys.exit(f"error: {error}")

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
            requests = self.asked(doc, ctx)
            repeated = [request for request in requests for _ in range(request.repeats)]
            return [
                RequestInstance(
                    request_type=kind,
                    doc=doc,
                    request=made(request),
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


def _write_down(task: Any, definition: Task) -> None:
    """Say in OLMES's files what is asked about, and let the task's hash depend on it.

    OLMES has taken the hash before it knows the model, but writes it after.
    """
    from oe_eval.default_configs import TASK_DEFAULTS
    from oe_eval.utils import hash_dict

    context = {**(task.task_config.get("context_kwargs") or {}), **definition.config.context_kwargs}
    task.task_config["context_kwargs"] = context
    if isinstance(getattr(task, "_task_hash", None), dict):
        task._task_hash.update(hash_dict(task.task_config, TASK_DEFAULTS))


def _definition(name: str, settings: Mapping[str, Any], model: str | None) -> Task:
    """Our definition with OLMES's settings, and the dataset that the model's record names.

    A user's mistake ends OLMES with our one line rather than a traceback.
    """
    context = settings.get("context_kwargs") or {}
    for key, only in (("num_shots", 0), ("split", "test")):
        if settings.get(key) not in (None, only):
            sys.exit(
                f"error: {name}: {key}: {settings[key]!r}: tasks of olmo-mixlaw have {only!r} only "
                "(examples would be drawn from the questions that are asked)"
            )
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


def _refuse_unhosted(word: str) -> None:
    """Raises `ConfigError` for a task that OLMES can't run, saying which to ask for."""
    name = word.removesuffix(catalog.SUFFIX)
    if name in TASKS.names() and TASKS.get(name).kind == "chunks":
        other = f"{name}:documents"
        instead = f"ask for {other}{catalog.SUFFIX}, or " if other in hosted() else ""
        raise ConfigError(
            f"{word}: needs the tokens of text, which OLMES doesn't hand out; {instead}score it "
            f"with: olmo-mixlaw evaluate MODEL -t {name}"
        )


def launch(arguments: list[str]) -> int:
    """What `olmes` does, in this process, so that our tables hold without a start-up file.

    Returns the exit code. Raises `ConfigError` if OLMES is not installed, or for a task that it
    can't run.
    """
    import importlib

    for word in arguments:
        _refuse_unhosted(word)

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
