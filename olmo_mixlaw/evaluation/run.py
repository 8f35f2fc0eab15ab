"""Score a model on tasks and write what it scored, in the files that OLMES writes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from olmo_mixlaw.errors import ConfigError, MixlawError
from olmo_mixlaw.evaluation import catalog, chunks, files, generation, provenance, scorer, suites
from olmo_mixlaw.evaluation.language_model import LanguageModel
from olmo_mixlaw.evaluation.loading import load_model
from olmo_mixlaw.evaluation.outputs import COLUMNS, rows_of
from olmo_mixlaw.evaluation.processes import started
from olmo_mixlaw.evaluation.ranks import ALONE, Ranks, device_of
from olmo_mixlaw.evaluation.tasks import Request, Task, TextTask

CUTS_KEPT = 16
# Sequences of held-out text, kept for the next model of this process with the same tokenizer.
_CUT: dict[tuple[Any, ...], chunks.Chunks] = {}

Answers = list[list[dict[str, Any]]]  # for each document, an answer to each request


def evaluate(
    model: str | Path | LanguageModel,
    tasks: Iterable[str | Mapping[str, Any]],
    output_dir: str | Path,
    *,
    limit: int | float | None = None,
    truncate: bool = False,
    save_requests: bool = False,
    tokenizer: str | Path | None = None,
    device: str | None = None,
    dtype: str = "float32",
    allow_contaminated: bool = False,
    processes: int = 1,
    ranks: Ranks = ALONE,
    progress: Callable[[str], None] | None = None,
) -> pd.DataFrame:
    """Score `model` (a folder, or one that is loaded) on `tasks`; files go to `output_dir`.

    The folder of a run stands for its newest checkpoint.
    A task is a name, a suite, or a mapping with `task_name` and settings. Where a task about a
    dataset names none, the one that the model was trained on is taken from its own record.
    `processes` of this machine share the work; under torchrun every process calls this with its
    `ranks` instead. The first writes, and all return a frame with a row per task and metric:
    `task, metric, value, n_instances, stderr, task_hash, model_hash`.
    Raises a `MixlawError` for anything wrong with what was asked, as far as can be known before
    the model is loaded; among those a model that was trained on a task's own text, and a folder
    with another model's scores. If a process
    ends early, files of the tasks that were finished before stay, each whole.
    """
    tasks = list(tasks)
    asked = catalog.resolve(tasks, {"limit": limit} if limit is not None else None)
    if not isinstance(model, LanguageModel):
        model = provenance.newest_checkpoint(model)
    record = provenance.record_of(model)
    resolved = provenance.with_datasets(asked, record)
    if not allow_contaminated:
        provenance.refuse_contaminated(resolved, record)
    files.refuse_other_model(Path(output_dir), _path_of(model))
    for task in resolved:
        task.check()
    if processes != 1:
        if processes < 1 or isinstance(model, LanguageModel) or ranks != ALONE:
            raise ConfigError(
                f"processes: {processes}: expected 1 or more, for a model's folder, and none of "
                "them started by torchrun"
            )
        shared: dict[str, Any] = {
            "tasks": tasks,
            "model": str(model),
            "output_dir": str(output_dir),
            "limit": limit,
            "truncate": truncate,
            "tokenizer": str(tokenizer) if tokenizer else None,
            "device": device,
            "dtype": dtype,
            "allow_contaminated": allow_contaminated,
        }
        with started(processes, shared) as group:
            return evaluate(**shared, save_requests=save_requests, ranks=group, progress=progress)
    loaded = (
        model
        if isinstance(model, LanguageModel)
        else load_model(model, tokenizer=tokenizer, device=device or device_of(ranks), dtype=dtype)
    )
    results = []
    for index, task in enumerate(resolved):
        began = time.monotonic()
        result = _score(loaded, task, index, truncate, ranks)
        result["processing_time"] = time.monotonic() - began
        results.append(result)
        if ranks.first:
            files.write_task(Path(output_dir), loaded, result, save_requests)
        if progress and ranks.first:
            primary = result["metrics"].get("primary_score")
            progress(f"{task.name}: {task.config.primary_metric} = {primary:.6g}")
    lines = [files.describe(loaded, result) for result in results]
    averages = suites.averages(tasks, lines)
    if ranks.first:
        files.write_summary(Path(output_dir), loaded, averages + lines)
    rows = [row for line in averages for row in rows_of(line["task_name"], line, [])]
    rows += [
        row
        for line, result in zip(lines, results, strict=True)
        for row in rows_of(result["task"].name, line, result["predictions"])
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _path_of(model: LanguageModel | Path) -> str:
    """Where a model lies, as files name it."""
    if isinstance(model, LanguageModel):
        return str(model.config.get("model_path") or model.config["model"])
    return str(model.resolve())


def _score(
    model: LanguageModel, task: Task, index: int, truncate: bool, ranks: Ranks
) -> dict[str, Any]:
    """Everything that files say of one task: metrics, predictions and requests."""
    if isinstance(task, TextTask):  # its documents are known once the tokenizer is
        documents, requests, answers = _answer_chunks(model, task, ranks)
    else:
        documents = task.documents()
        if not documents:
            raise MixlawError(f"{task.name}: the task has no documents")
        requests = [task.requests(document) for document in documents]
        answers = _answer(model, task, requests, truncate, ranks)
    scores = [task.score(d, a) for d, a in zip(documents, answers, strict=True)]
    metrics: dict[str, Any] = dict(task.aggregate(documents, scores))
    metrics["primary_score"] = metrics[task.config.primary_metric]
    predictions = [
        {
            "doc_id": i,
            "native_id": d.get("id"),
            "metrics": s,
            "model_output": a,
            "label": d.get("gold", 0),
        }
        for i, (d, s, a) in enumerate(zip(documents, scores, answers, strict=True))
    ]
    return {
        "task_idx": index,
        "task": task,
        "metrics": metrics,
        "predictions": predictions,
        "requests": requests,
        "documents": documents,
        "num_instances": len(documents),
        "current_date": datetime.now(tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
    }


def _answer(
    model: LanguageModel,
    task: Task,
    requests: Sequence[Sequence[Request]],
    truncate: bool,
    ranks: Ranks,
) -> Answers:
    flat = [request for group in requests for request in group]
    found: list[dict[str, Any]]
    if task.kind == "loglikelihood":
        encoded = scorer.encode_pairs(
            model,
            [(r.context, r.continuation) for r in flat],
            strict=task.strict_prefix,
            truncate=truncate,
            where=task.name,
        )
        found = [one.as_dict() for one in scorer.loglikelihoods(model, encoded, ranks)]
    elif task.kind == "loglikelihood_rolling":
        found = scorer.rolling(model, [request.context for request in flat], ranks)
    else:
        found = generation.generate(model, flat, task.name, ranks)
    answers: Answers = []
    position = 0
    for group in requests:
        count = sum(request.repeats for request in group)
        answers.append(found[position : position + count])
        position += count
    return answers


def _answer_chunks(
    model: LanguageModel, task: TextTask, ranks: Ranks
) -> tuple[list[dict[str, Any]], list[list[Request]], Answers]:
    length = int(task.parameter("sequence_length", model.max_length))
    settings = json.dumps(dict(task.config.context_kwargs), sort_keys=True, default=str)
    key = (
        type(task),
        settings,
        model.tokenizer_hash,
        model.eos_token_id,
        model.bos_token_id,
        length,
    )
    if key not in _CUT:
        while len(_CUT) >= CUTS_KEPT:
            del _CUT[next(iter(_CUT))]
        _CUT[key] = chunks.cut(
            task.texts(),
            model.tokenizer,
            model.eos_token_id,
            length,
            task.max_tokens,
            task.name,
            model.bos_token_id,
        )
    documents = [{"id": str(i), "query": ""} for i in range(len(_CUT[key].ids))]
    answers = scorer.score_chunks(model, _CUT[key], ranks)
    return documents, [[] for _ in documents], [[answer] for answer in answers]
