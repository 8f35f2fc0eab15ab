"""Write what a model scored in the files and keys that OLMES uses, each file atomically.

`metrics.json` sums up, `metrics-all.jsonl` has a line a task, `task-000-<name>-metrics.json`,
`-predictions.jsonl` and, if asked for, `-requests.jsonl` belong to one task.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from olmo_mixlaw import __version__
from olmo_mixlaw.atomic import open_atomic, write_text
from olmo_mixlaw.errors import DataError
from olmo_mixlaw.evaluation.language_model import LanguageModel
from olmo_mixlaw.evaluation.tasks import Task

WRITER = "olmo-mixlaw"
MOVED_PARTS = (
    3  # of a path's end, by which a folder that was moved is known: <run>/checkpoints/<step>
)


def task_file(folder: Path, index: int, name: str, kind: str) -> Path:
    """`task-000-<name>-<kind>`; a slash, which a file's name can't hold, becomes an underscore."""
    return folder / f"task-{index:03d}-{name.replace('/', '_')}-{kind}"


def config_hash(values: Mapping[str, Any]) -> str:
    return hashlib.md5(json.dumps(values, sort_keys=True).encode()).hexdigest()


def describe(model: LanguageModel, result: Mapping[str, Any]) -> dict[str, Any]:
    """A task's line: settings, hashes and metrics."""
    task: Task = result["task"]
    settings = task.config.as_dict()
    hashed = {k: v for k, v in settings.items() if k != "metadata"}
    return {
        "task_name": task.name,
        "task_hash": config_hash(hashed),
        "model_hash": model.hash,
        "model_config": model.config,
        "task_config": settings,
        "compute_config": {
            "writer": WRITER,
            "version": __version__,
            "dtype": model.dtype,
            "device": str(model.device),
            "prefix_token_id": model.prefix_token_id,
            "bos_token_id": model.bos_token_id,
        },
        "processing_time": result.get("processing_time", 0.0),
        "current_date": result["current_date"],
        "num_instances": result["num_instances"],
        "metrics": result["metrics"],
        "task_idx": result["task_idx"],
    }


def refuse_other_model(folder: Path, model_path: str) -> None:
    """Raise `DataError` if `folder` holds files of another model than the one at `model_path`.

    The same model may be scored again, also where its run's folder has been moved since.
    """
    for file in sorted(folder.glob("*metrics*.json*")) if folder.is_dir() else []:
        for config in _models_in(file):
            there = str(config.get("model_path") or config.get("model") or "")
            if there and not _same_model(there, model_path):
                raise DataError(
                    f"{file}: holds scores of {there}, not of {model_path}; choose another "
                    "--output-dir, or remove what is there"
                )


def _models_in(file: Path) -> Iterator[Mapping[str, Any]]:
    """The `model_config` of every record in a file; what can't be read is written anew."""
    for text in file.read_bytes().splitlines():
        try:
            config = json.loads(text).get("model_config")
        except (ValueError, AttributeError):
            continue
        if isinstance(config, Mapping):
            yield config


def _same_model(one: str, other: str) -> bool:
    """Whether two paths are of one model: the same place, or one that is gone and ends alike."""
    first, second = Path(one).resolve(), Path(other).resolve()
    moved = not first.exists() and first.parts[-MOVED_PARTS:] == second.parts[-MOVED_PARTS:]
    return one == other or first == second or moved


def write_task(
    folder: Path, model: LanguageModel, result: Mapping[str, Any], save_requests: bool
) -> None:
    """The files of one task."""
    line = describe(model, result)
    index, name = result["task_idx"], line["task_name"]
    hashes = {"task_hash": line["task_hash"], "model_hash": line["model_hash"]}
    _write_lines(
        task_file(folder, index, name, "predictions.jsonl"),
        ({**prediction, **hashes} for prediction in result["predictions"]),
    )
    if save_requests:
        _write_lines(task_file(folder, index, name, "requests.jsonl"), _requests(result))
    write_text(task_file(folder, index, name, "metrics.json"), json.dumps(line) + "\n")


def write_summary(folder: Path, model: LanguageModel, lines: Sequence[Mapping[str, Any]]) -> None:
    """`metrics-all.jsonl` and `metrics.json` from the lines of suites and tasks."""
    _write_lines(folder / "metrics-all.jsonl", lines)
    summary = {
        "all_primary_scores": [
            f"{line['task_name']}: {line['metrics']['primary_score']:.6}" for line in lines
        ],
        "tasks": [
            {"alias": line["task_name"]}
            | {k: line[k] for k in ("metrics", "num_instances", "processing_time", "task_config")}
            for line in lines
        ],
        "model_config": model.config,
    }
    write_text(folder / "metrics.json", json.dumps(summary) + "\n")


def _requests(result: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    task: Task = result["task"]
    documents = zip(result["documents"], result["requests"], strict=True)
    for doc_id, (document, requests) in enumerate(documents):
        for idx, request in enumerate(requests):
            yield {
                "request_type": request.kind,
                "doc": document,
                "request": {"context": request.context, "continuation": request.continuation},
                "idx": idx,
                "task_name": task.config.task_name,
                "doc_id": doc_id,
                "native_id": document.get("id"),
                "label": document.get("gold", 0),
            }


def _write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    with open_atomic(path) as file:
        for line in lines:
            file.write(json.dumps(line) + "\n")
