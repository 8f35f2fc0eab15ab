"""Suites that say how are averaged as OLMES averages them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from olmo_mixlaw.errors import UnknownNameError
from olmo_mixlaw.evaluation import evaluate, read_scores, suites


def line(task: str, count: int, metrics: dict[str, Any]) -> dict[str, Any]:
    return {
        "task_name": task,
        "task_hash": task,
        "model_hash": "m",
        "num_instances": count,
        "processing_time": 1.0,
        "metrics": metrics,
        "task_idx": 0,
        "task_config": {"task_name": task, "primary_metric": "acc_raw", "metadata": {}},
    }


def test_averages_by_hand() -> None:
    lines = [
        line(
            "a",
            1,
            {
                "acc_raw": 1.0,
                "primary_score": 1.0,
                "only_a": 2.0,
                "total_price": 3,
                "extra_metrics": {"length": 4.0},
            },
        ),
        line(
            "b",
            3,
            {
                "acc_raw": 0.0,
                "primary_score": 0.5,
                "total_price": 4,
                "note": "text",
                "extra_metrics": {"length": 8.0},
            },
        ),
    ]
    record = suites.average("both", "macro", lines)
    assert record["metrics"] == {
        "acc_raw_micro": 0.25,
        "acc_raw_macro": 0.5,
        "primary_score_micro": 0.625,
        "primary_score_macro": 0.75,
        "primary_score": 0.75,
        "total_price": 7.0,
        "extra_metrics": {"length_micro": 7.0, "length_macro": 6.0},
    }
    assert (record["task_name"], record["task_idx"], record["num_instances"]) == ("both", None, 4)
    assert record["task_config"]["metadata"]["alias"] == "both"
    assert record["task_config"]["metadata"]["num_tasks"] == 2
    assert suites.average("both", "micro", lines)["metrics"]["primary_score"] == 0.625


def test_suite_is_averaged_once_all_its_tasks_are_scored(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("primary_metric: micro\ntasks: [a, {task_name: x, metadata: {alias: b}}]\n")
    lines = [line("a", 1, {"primary_score": 1.0}), line("b", 1, {"primary_score": 0.0})]
    assert [r["task_name"] for r in suites.averages([str(path)], lines)] == ["mine"]
    assert not suites.averages([str(path)], lines[:1])
    assert not suites.averages(["a", "b"], lines)


def test_unknown_average_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("primary_metric: mean\ntasks: [a]\n")
    with pytest.raises(UnknownNameError, match=r"mine\.yaml: unknown primary_metric 'mean'"):
        suites.load_suite(str(path))


def test_files_of_a_suite_begin_with_its_average(checkpoint: Path, tmp_path: Path) -> None:
    frame = evaluate(checkpoint, ["attributes"], tmp_path, limit=2)
    pd.testing.assert_frame_equal(read_scores(tmp_path), frame, check_exact=True)
    records = [json.loads(x) for x in (tmp_path / "metrics-all.jsonl").read_text().splitlines()]
    assert [r["task_idx"] for r in records] == [None, 0, 1, 2, 3, 4]
    values = frame[frame["metric"] == "primary_score"].set_index("task")["value"]
    assert values["attributes"] == pytest.approx(values.drop("attributes").mean())
    summary = json.loads((tmp_path / "metrics.json").read_text())
    assert summary["tasks"][0]["alias"] == "attributes"
