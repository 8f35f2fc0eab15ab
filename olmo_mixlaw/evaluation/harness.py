"""Results of EleutherAI's lm-evaluation-harness, read into our rows.

Its files hold `results: {task: {"acc,none": ..., "acc_stderr,none": ...}}`; the part after the
comma is a filter, left out of the name where it is `none`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from olmo_mixlaw.errors import DataError

STDERR = "_stderr"


def files(folder: Path) -> list[Path]:
    """The result files in a folder, oldest first; their names end in the time."""
    return sorted(folder.rglob("results*.json"))


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of a result file, or of the newest in a folder. Raises `DataError`."""
    file = path if path.is_file() else files(path)[-1]
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise DataError(f"{file}: is cut off or not JSON") from None
    results = content.get("results") if isinstance(content, dict) else None
    if not isinstance(results, dict):
        raise DataError(f"{file}: holds no 'results' of the lm-evaluation-harness")
    model = json.dumps(
        [content.get("model_name"), (content.get("config") or {}).get("model_args")], sort_keys=True
    )
    hashes = {"task_hash": "", "model_hash": hashlib.md5(model.encode()).hexdigest()}
    samples = content.get("n-samples") or {}
    rows = []
    for task, metrics in results.items():
        count = (samples.get(task) or {}).get("effective") or metrics.get("sample_len") or 0
        rows += [
            {"task": task, "n_instances": int(count), **row, **hashes}
            for row in _metrics(file, task, metrics)
        ]
    return rows


def _metrics(file: Path, task: str, metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for key, value in metrics.items():
        name, _, chosen = key.partition(",")
        if name.endswith(STDERR) or not isinstance(value, (int, float)) or name == "sample_len":
            continue
        if not math.isfinite(value):
            raise DataError(f"{file}: {task}: {key} is {value}, not a number")
        error = metrics.get(f"{name}{STDERR}" + (f",{chosen}" if chosen else ""))
        rows.append(
            {
                "metric": name if chosen in ("", "none") else f"{name},{chosen}",
                "value": float(value),
                "stderr": float(error) if isinstance(error, (int, float)) else math.nan,
            }
        )
    return rows
