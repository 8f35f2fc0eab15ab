"""Scores read back are those that were written, whoever wrote them; damage is named."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from olmo_mixlaw.errors import DataError, UnknownNameError
from olmo_mixlaw.evaluation import evaluate, read_scores
from olmo_mixlaw.evaluation.outputs import read_instances
from olmo_mixlaw.runs import RunTable

TASKS = [{"task_name": "bio_recall", "limit": 20}, {"task_name": "bio_recall:mc", "limit": 6}]


@pytest.fixture
def scored(checkpoint: Path, tmp_path: Path) -> tuple[pd.DataFrame, Path]:
    return evaluate(checkpoint, TASKS, tmp_path / "out", save_requests=True), tmp_path / "out"


def line(task: str, value: float, index: int | None = 0, **changes: Any) -> dict[str, Any]:
    """A record as OLMES writes it."""
    return {
        "task_name": task,
        "task_hash": "t1",
        "model_hash": "m1",
        "model_config": {"model": "tiny"},
        "current_date": "2026-01-01 00:00:00 UTC",
        "task_config": {"primary_metric": "acc_raw", "metadata": {"alias": f"{task}::olmes"}},
        "num_instances": 4,
        "metrics": {"acc_raw": value, "primary_score": value, "extra_metrics": {"num_tokens": 3.0}},
        "task_idx": index,
        **changes,
    }


def write_all(folder: Path, *lines: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    text = "".join(json.dumps(item) + "\n" for item in lines)
    (folder / "metrics-all.jsonl").write_text(text)
    return folder


def test_what_is_read_is_what_was_returned(scored: tuple[pd.DataFrame, Path]) -> None:
    frame, folder = scored
    pd.testing.assert_frame_equal(read_scores(folder), frame, check_exact=True)
    assert set(frame["task"]) == {"bio_recall", "bio_recall:mc"}


def test_scoring_again_gives_the_same_files(checkpoint: Path, tmp_path: Path) -> None:
    first = evaluate(checkpoint, TASKS, tmp_path / "a")
    second = evaluate(checkpoint, TASKS, tmp_path / "b")
    pd.testing.assert_frame_equal(first, second, check_exact=True)
    name = "task-000-bio_recall-predictions.jsonl"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_files_have_the_keys_that_olmes_documents(scored: tuple[pd.DataFrame, Path]) -> None:
    _, folder = scored
    record = json.loads((folder / "task-000-bio_recall-metrics.json").read_text())
    assert set(record) == {
        "task_name",
        "task_hash",
        "model_hash",
        "model_config",
        "task_config",
        "compute_config",
        "processing_time",
        "current_date",
        "num_instances",
        "metrics",
        "task_idx",
    }
    lines = (folder / "task-000-bio_recall-predictions.jsonl").read_text().splitlines()
    assert len(lines) == record["num_instances"] == 20
    assert set(json.loads(lines[0])) == {
        "doc_id",
        "native_id",
        "metrics",
        "model_output",
        "label",
        "task_hash",
        "model_hash",
    }
    request = json.loads(
        (folder / "task-000-bio_recall-requests.jsonl").read_text().splitlines()[0]
    )
    assert set(request) == {
        "request_type",
        "doc",
        "request",
        "idx",
        "task_name",
        "doc_id",
        "native_id",
        "label",
    }
    summary = json.loads((folder / "metrics.json").read_text())
    assert set(summary) == {"all_primary_scores", "tasks", "model_config"}


def test_standard_error_is_that_of_the_documents(scored: tuple[pd.DataFrame, Path]) -> None:
    frame, folder = scored
    bits = read_instances(folder, "bio_recall")["answer_bits"]
    row = frame[(frame["task"] == "bio_recall") & (frame["metric"] == "answer_bits")].iloc[0]
    assert row["value"] == pytest.approx(bits.mean())
    assert row["stderr"] == pytest.approx(bits.std(ddof=1) / math.sqrt(len(bits)))
    major = frame[frame["metric"] == "answer_bits_major"].iloc[0]
    assert 1 < major["n_instances"] < 20
    assert major["stderr"] > 0


def test_scores_become_rows_of_a_run_table(scored: tuple[pd.DataFrame, Path]) -> None:
    frame, _ = scored
    losses = pd.DataFrame(
        [{"run_id": "r", "w_bio": 1.0, "n_params": 1, "n_tokens": 1, "domain": "bio", "loss": 1.0}]
    )
    table = RunTable(losses, frame.assign(run_id="r", n_params=1, n_active=1, n_tokens=1))
    assert len(table.scores) == len(frame)


def test_summary_of_both_generations(tmp_path: Path) -> None:
    now = {
        "all_primary_scores": ["a: 0.5"],
        "tasks": [
            {
                "alias": "a::olmes",
                "metrics": {"acc_raw": 0.5},
                "num_instances": 4,
                "processing_time": 1.0,
                "task_config": {},
            }
        ],
        "model_config": {"model": "tiny"},
    }
    before = {
        "all_primary_scores": ["a: 0.5"],
        "metrics": [
            {
                "task": "a",
                "acc_raw": 0.5,
                "num_instances": 4,
                "task_config": {"metadata": {"alias": "a::olmes"}},
            }
        ],
        "model_config": {"model": "tiny"},
    }
    for summary in (now, before):
        (tmp_path / "metrics.json").write_text(json.dumps(summary))
        frame = read_scores(tmp_path)
        assert frame[["task", "metric", "value", "n_instances"]].to_numpy().tolist() == [
            ["a::olmes", "acc_raw", 0.5, 4]
        ]


def test_aggregates_and_extra_metrics_are_read(tmp_path: Path) -> None:
    suite = line("core", 0.4, None, num_instances=8)
    frame = read_scores(write_all(tmp_path / "o", suite, line("a", 0.5)))
    assert set(frame["task"]) == {"core::olmes", "a::olmes"}
    assert set(frame["metric"]) == {"acc_raw", "primary_score", "num_tokens"}
    assert set(frame["model_hash"]) == {"m1"}


def test_run_that_was_stopped_is_read_from_its_tasks(scored: tuple[pd.DataFrame, Path]) -> None:
    frame, folder = scored
    (folder / "metrics-all.jsonl").unlink()
    (folder / "metrics.json").unlink()
    pd.testing.assert_frame_equal(read_scores(folder), frame, check_exact=True)


def test_newest_of_two_records_holds_and_is_reported(tmp_path: Path) -> None:
    older = line("a", 0.1, current_date="2025-01-01 00:00:00 UTC")
    frame = read_scores(write_all(tmp_path / "o", line("a", 0.5), older))
    assert set(frame[frame["metric"] == "acc_raw"]["value"]) == {0.5}
    (note,) = frame.attrs["duplicates"]
    assert note.startswith("a::olmes: kept metrics-all.jsonl (2026-01-01")
    same = read_scores(write_all(tmp_path / "p", line("a", 0.5), line("a", 0.5)))
    assert same.attrs["duplicates"] == []


def test_mixed_models_are_refused_unless_one_is_chosen(tmp_path: Path) -> None:
    folder = write_all(tmp_path / "o", line("a", 0.5), line("b", 0.6, 1, model_hash="m2"))
    with pytest.raises(DataError, match=r"scores of 2 models \(m1, m2\)"):
        read_scores(folder)
    assert set(read_scores(folder, model_hash="m2")["task"]) == {"b::olmes"}
    with pytest.raises(UnknownNameError, match="unknown model_hash 'm3'"):
        read_scores(folder, model_hash="m3")


def test_predictions_of_another_model_are_refused(scored: tuple[pd.DataFrame, Path]) -> None:
    _, folder = scored
    path = folder / "task-000-bio_recall-predictions.jsonl"
    rows = [json.loads(text) for text in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**row, "model_hash": "x"}) + "\n" for row in rows))
    with pytest.raises(DataError, match="predictions of model x"):
        read_scores(folder)


@pytest.mark.parametrize("name", ["metrics-all.jsonl", "task-000-bio_recall-predictions.jsonl"])
def test_truncated_file_is_named_with_its_line(
    scored: tuple[pd.DataFrame, Path], name: str
) -> None:
    _, folder = scored
    text = (folder / name).read_text()
    (folder / name).write_text(text[: len(text) // 2])
    with pytest.raises(DataError, match=rf"{name}: line \d+ is cut off"):
        read_scores(folder)


def test_value_that_is_not_a_number_is_named(tmp_path: Path) -> None:
    folder = write_all(tmp_path / "o", line("a", float("nan")))
    with pytest.raises(DataError, match=r"metrics-all\.jsonl: a::olmes: acc_raw is nan"):
        read_scores(folder)


def test_missing_task_and_unknown_metric_are_named(scored: tuple[pd.DataFrame, Path]) -> None:
    _, folder = scored
    with pytest.raises(UnknownNameError, match="unknown task 'slope'"):
        read_scores(folder, tasks=["slope"])
    with pytest.raises(UnknownNameError, match="unknown metric 'exact_mach'; did you mean"):
        read_scores(folder, metrics=["exact_mach"])
    with pytest.raises(UnknownNameError, match="unknown task"):
        read_instances(folder, "slope")
    few = read_scores(folder, tasks=["bio_recall"], metrics=["exact_match"])
    assert len(few) == 1


def test_folder_without_scores_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_scores(tmp_path / "missing")
    with pytest.raises(DataError, match=r"holds no metrics-all\.jsonl"):
        read_scores(tmp_path)


def test_record_without_metrics_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a record without 'metrics'"):
        read_scores(write_all(tmp_path / "o", {"task_name": "a"}))


HARNESS = {
    "results": {
        "arc_easy": {
            "alias": "arc_easy",
            "acc,none": 0.3,
            "acc_stderr,none": 0.01,
            "acc_norm,none": 0.35,
            "acc_norm_stderr,none": 0.02,
        },
        "gsm8k": {
            "alias": "gsm8k",
            "exact_match,strict-match": 0.0,
            "exact_match_stderr,strict-match": "N/A",
        },
    },
    "n-samples": {"arc_easy": {"original": 2376, "effective": 100}},
    "config": {"model": "hf", "model_args": "pretrained=tiny"},
}


def test_harness_results_are_read(tmp_path: Path) -> None:
    path = tmp_path / "tiny" / "results_2026-01-01T00-00-00.json"
    path.parent.mkdir()
    path.write_text(json.dumps(HARNESS))
    for where in (path, tmp_path):
        frame = read_scores(where).set_index(["task", "metric"])
        assert frame.loc[("arc_easy", "acc"), "value"] == 0.3
        assert frame.loc[("arc_easy", "acc"), "stderr"] == 0.01
        assert frame.loc[("arc_easy", "acc_norm"), "n_instances"] == 100
        assert np.isnan(frame.loc[("gsm8k", "exact_match,strict-match"), "stderr"])
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(DataError, match="holds no 'results'"):
        read_scores(tmp_path / "other.json")


def test_scores_that_olmes_kept_of_another_model_are_refused(tmp_path: Path) -> None:
    # OLMES found the first model's task files, kept them, and named the second in its summary.
    folder = write_all(tmp_path / "o", line("a", 0.5))
    (folder / "task-000-a-metrics.json").write_text(json.dumps(line("a", 0.5)))
    for asked in ({"model": "other"}, {"model": "tiny", "revision": "step2"}):
        summary = {"all_primary_scores": [], "tasks": [], "model_config": asked}
        (folder / "metrics.json").write_text(json.dumps(summary))
        with pytest.raises(DataError, match=r"metrics\.json: model_config\.\w+ is .* but metrics-"):
            read_scores(folder)
    summary = {"tasks": [], "model_config": {"model": "tiny", "dtype": "float32"}}
    (folder / "metrics.json").write_text(json.dumps(summary))
    assert len(read_scores(folder)) == 3


def test_a_task_with_and_without_the_suffix_is_one_task(tmp_path: Path) -> None:
    plain = {"metadata": {"alias": "bio_recall"}}
    suffixed = {"metadata": {"alias": "bio_recall::mixlaw"}}
    older = line("bio_recall", 0.2, task_config=plain, current_date="2025-01-01 00:00:00 UTC")
    folder = write_all(tmp_path / "o", older, line("bio_recall", 0.3, task_config=suffixed))
    frame = read_scores(folder, metrics=["acc_raw"])
    assert frame[["task", "value"]].to_numpy().tolist() == [["bio_recall", 0.3]]
    assert frame.attrs["duplicates"][0].startswith("bio_recall: kept")
    alone = write_all(tmp_path / "p", line("bio_recall", 0.3, task_config=suffixed))
    for name in ("bio_recall", "bio_recall::mixlaw"):
        assert set(read_scores(alone, tasks=[name])["task"]) == {"bio_recall::mixlaw"}


def test_two_datasets_under_one_name_are_refused(tmp_path: Path) -> None:
    lines = [
        line(
            "bio_recall",
            value,
            task_config={"context_kwargs": {"dataset": f"mixlaw:biography?n={n}"}},
            current_date=f"2026-01-0{n} 00:00:00 UTC",
        )
        for n, value in ((1, 0.2), (2, 0.9))
    ]
    with pytest.raises(DataError, match=r"bio_recall is of two datasets \(mixlaw:biography\?n=1 "):
        read_scores(write_all(tmp_path / "o", *lines))


@pytest.mark.parametrize("date", ["2026-01-01 00:00:00 UTC", None])
def test_records_that_differ_without_a_later_date_are_refused(
    tmp_path: Path, date: str | None
) -> None:
    lines = [line("a", value, current_date=date) for value in (0.5, 0.6)]
    with pytest.raises(DataError, match=r"a::olmes: .* differ, and no date says which is newer"):
        read_scores(write_all(tmp_path / "o", *lines))


def test_the_primary_metric_is_the_score_where_none_is_written(tmp_path: Path) -> None:
    metrics = {"acc_per_char": 0.9, "acc_raw": 0.4}
    frame = read_scores(write_all(tmp_path / "o", line("a", 0.0, metrics=metrics)))
    assert dict(zip(frame["metric"], frame["value"], strict=True)) == {
        **metrics,
        "primary_score": 0.4,
    }
    assert frame.attrs["primary"] == {"a::olmes": "acc_raw"}


def test_two_metrics_of_one_name_stay_two(tmp_path: Path) -> None:
    metrics = {"acc": 0.4, "extra_metrics": {"acc": 0.1, "f1": "0.25"}}
    frame = read_scores(write_all(tmp_path / "o", line("a", 0.0, metrics=metrics)))
    assert dict(zip(frame["metric"], frame["value"], strict=True)) == {
        "acc": 0.4,
        "extra_metrics:acc": 0.1,
        "f1": 0.25,
    }


def test_a_number_of_documents_that_is_not_said_is_no_zero(tmp_path: Path) -> None:
    for count in (0, None):
        folder = write_all(tmp_path / str(count), line("a", 0.5, num_instances=count))
        assert read_scores(folder)["n_instances"].isna().all()


@pytest.mark.parametrize(
    ("summary", "message"),
    [
        ({"tasks": [{"metrics": {}}]}, r"tasks\[0\]: expected a mapping with 'alias'"),
        ({"tasks": [{"alias": "a"}]}, r"tasks\[0\]: a record without 'metrics'"),
        ({"metrics": [{"acc": 0.5}]}, r"metrics\[0\]: expected a mapping with 'task'"),
        ({"tasks": {"a": 1}}, r"tasks: expected a list"),
        ({"tasks": [{"alias": "a", "metrics": [1]}]}, "a: metrics: expected a mapping"),
    ],
)
def test_a_summary_of_another_shape_is_named(
    tmp_path: Path, summary: dict[str, Any], message: str
) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps({**summary, "model_config": {}}))
    with pytest.raises(DataError, match=rf"metrics\.json: {message}"):
        read_scores(tmp_path)
