"""Runs are joined to the outputs named like them, whoever wrote those."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from law_tables import grid, table_of

from olmo_mixlaw.errors import DataError
from olmo_mixlaw.evaluation.of_runs import with_outputs
from olmo_mixlaw.runs import RunTable

OLMES = {
    "task_name": "quiz",
    "model_hash": "m",
    "task_config": {"primary_metric": "acc_raw", "metadata": {"alias": "quiz::olmes"}},
    "num_instances": 100,
}


def table() -> RunTable:
    return table_of(grid(sizes=1, mixtures=4))  # run0 to run3


def olmes(folder: Path, value: float, primary: str = "acc_raw") -> Path:
    folder.mkdir(parents=True)
    metrics = {"acc_raw": value, "acc_per_char": value / 2, "primary_score": value}
    record = {**OLMES, "metrics": metrics}
    record["task_config"] = {**OLMES["task_config"], "primary_metric": primary}
    (folder / "metrics-all.jsonl").write_text(json.dumps(record) + "\n")
    return folder


def harness(path: Path, value: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    results = {"arc_easy": {"acc,none": value, "acc_norm,none": value / 2, "alias": "arc_easy"}}
    counts = {"arc_easy": {"original": 100, "effective": 100}}
    content = {"results": results, "n-samples": counts, "model_name": path.stem, "configs": {}}
    path.write_text(json.dumps(content))
    return path


def test_a_run_has_the_scores_of_the_folder_named_like_it(tmp_path: Path) -> None:
    for i in range(4):
        olmes(tmp_path / f"run{i}" / ("eval" if i == 1 else ""), 0.1 * i)
    joined = with_outputs(table(), tmp_path)
    scores = joined.table.scores
    primary = scores[scores["metric"] == "primary_score"].set_index("run_id")["value"]
    assert dict(primary) == pytest.approx({f"run{i}": 0.1 * i for i in range(4)})
    assert set(scores["primary"]) == {"acc_raw"}
    assert set(scores["n_instances"]) == {100}
    assert joined.notes() == []


def test_what_lacks_what_is_said(tmp_path: Path) -> None:
    olmes(tmp_path / "run0", 0.4)
    olmes(tmp_path / "extra", 0.5)
    (tmp_path / "run2").mkdir()  # an evaluation that has not begun
    (tmp_path / ".cache").mkdir()
    joined = with_outputs(table(), tmp_path)
    assert joined.without == ["run1", "run2", "run3"]
    assert joined.strangers == ["extra"]
    without, strangers = joined.notes()
    assert without == f"{tmp_path}: 3 of 4 runs have no outputs: run1, run2, run3"
    assert strangers == f"{tmp_path}: outputs of no run, left out: extra"


def test_files_of_the_harness_and_the_metric_that_the_user_names(tmp_path: Path) -> None:
    for i in range(3):
        harness(tmp_path / f"run{i}.json", 0.3 + 0.1 * i)
    harness(tmp_path / "run3" / "results_2026-01-01T00-00-00.json", 0.6)
    scores = with_outputs(table(), tmp_path, ["f1", "acc_norm"]).table.scores
    assert set(scores["primary"]) == {"acc_norm"}
    assert set(scores["run_id"]) == {f"run{i}" for i in range(4)}
    assert "primary" not in with_outputs(table(), tmp_path).table.scores


def test_an_evaluators_word_holds(tmp_path: Path) -> None:
    olmes(tmp_path / "run0", 0.4)
    scores = with_outputs(table(), tmp_path, ["acc_per_char"]).table.scores
    assert set(scores["primary"]) == {"acc_raw"}


def test_runs_that_differ_in_their_primary_metric_are_refused(tmp_path: Path) -> None:
    olmes(tmp_path / "run0", 0.4)
    olmes(tmp_path / "run1", 0.4, "acc_per_char")
    with pytest.raises(DataError, match=r"'primary'.*the rows of a task differ"):
        with_outputs(table(), tmp_path)


def test_outputs_of_no_run_are_refused_with_the_nearest_names(tmp_path: Path) -> None:
    olmes(tmp_path / "step-run1", 0.4)
    with pytest.raises(DataError, match=r"outputs of no run of synthetic \(is 'step-run1' run"):
        with_outputs(table(), tmp_path)
    with pytest.raises(DataError, match="no such folder of outputs"):
        with_outputs(table(), tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="found: nothing"):
        with_outputs(table(), tmp_path / "empty")


def test_damage_is_named(tmp_path: Path) -> None:
    folder = olmes(tmp_path / "run0", 0.4)
    (folder / "metrics-all.jsonl").write_text('{"task_name": "qu')
    with pytest.raises(DataError, match=r"run0/metrics-all\.jsonl: line 1 is cut off"):
        with_outputs(table(), tmp_path)
