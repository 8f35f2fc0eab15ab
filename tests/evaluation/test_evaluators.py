"""Files of the LM harness, lighteval and olmo-eval: nothing dropped, no model for another."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from olmo_mixlaw.errors import DataError, MixlawError
from olmo_mixlaw.evaluation import read_scores


def harness(model: str = "hf/small", date: float | None = 1000.0, **tasks: float) -> dict[str, Any]:
    """A result file of the harness with an accuracy a task."""
    results = {
        name: {"alias": name, "acc,none": value, "acc_stderr,none": 0.01}
        for name, value in tasks.items()
    }
    return {
        "results": results,
        "n-samples": {name: {"original": 90, "effective": 60} for name in tasks},
        "config": {"model": "hf", "model_args": f"pretrained={model}"},
        "model_name": model,
        **({"date": date} if date else {}),
    }


def write(path: Path, content: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def values(frame: pd.DataFrame, column: str = "value") -> dict[tuple[str, str], float]:
    return dict(zip(zip(frame["task"], frame["metric"], strict=True), frame[column], strict=True))


def test_two_models_under_one_folder_are_refused_unless_one_is_chosen(tmp_path: Path) -> None:
    write(tmp_path / "a" / "results_2026-01-02T00-00-00.json", harness("hf/a", 20.0, arc=0.4))
    write(tmp_path / "z" / "results_2026-01-01T00-00-00.json", harness("hf/z", 10.0, arc=0.9))
    with pytest.raises(DataError, match=r"scores of 2 models \(\w+ hf/[az] hf pretrained=hf/"):
        read_scores(tmp_path)
    digest = read_scores(tmp_path / "a")["model_hash"].iloc[0]
    assert values(read_scores(tmp_path, model_hash=digest)) == {("arc", "acc"): 0.4}


@pytest.mark.parametrize("dated", [True, False], ids=["date", "name"])
def test_the_newest_of_several_runs_holds_and_the_others_are_named(
    tmp_path: Path, dated: bool
) -> None:
    # The later run is in the folder that comes first.
    times = {"a": "2026-03-01T08-00-00.5", "b": "2026-01-01T08-00-00.5"}
    for folder, value, seconds in (("a", 0.7, 3e9), ("b", 0.2, 1e9)):
        content = harness(date=seconds if dated else None, arc=value)
        write(tmp_path / folder / f"results_{times[folder]}.json", content)
    frame = read_scores(tmp_path)
    assert values(frame) == {("arc", "acc"): 0.7}
    (note,) = frame.attrs["duplicates"]
    assert note.startswith("arc: kept a/results_2026-03")
    assert "left out b/results_2026-01" in note


def test_a_run_again_with_the_same_values_is_named_too(tmp_path: Path) -> None:
    for seconds in (100.0, 200.0):
        write(tmp_path / f"results_{seconds:.0f}.json", harness(date=seconds, arc=0.5))
    assert len(read_scores(tmp_path).attrs["duplicates"]) == 1


def test_runs_of_one_task_without_any_date_are_refused(tmp_path: Path) -> None:
    for name, value in (("results_a", 0.5), ("results_b", 0.6)):
        write(tmp_path / f"{name}.json", harness(date=None, arc=value))
    with pytest.raises(DataError, match=r"arc: results_a.json and results_b.json differ, and no"):
        read_scores(tmp_path)


def test_files_with_a_task_each_are_put_together(tmp_path: Path) -> None:
    write(tmp_path / "results_1.json", harness(date=1e6, arc=0.5))
    write(tmp_path / "results_2.json", harness(date=2e6, boolq=0.6, piqa=0.7))
    frame = read_scores(tmp_path)
    assert set(frame["task"]) == {"arc", "boolq", "piqa"}
    assert frame.attrs["duplicates"] == []


def test_a_group_has_the_documents_of_its_tasks(tmp_path: Path) -> None:
    content = harness(m_one=0.4, m_two=0.6, other=0.5)
    content["results"] |= {"m": {"acc,none": 0.5, "alias": "m"}, "all_m": {"acc,none": 0.5}}
    content["group_subtasks"] = {"m": ["m_one", "m_two"], "all_m": ["m", "m_two"], "other": []}
    counts = values(read_scores(write(tmp_path / "r.json", content)), "n_instances")
    assert counts["m", "acc"] == counts["all_m", "acc"] == 120
    assert counts["other", "acc"] == 60
    del content["n-samples"]["m_one"]
    counts = values(read_scores(write(tmp_path / "r.json", content)), "n_instances")
    assert np.isnan(counts["m", "acc"])


def test_the_harness_of_before_says_no_number_of_documents(tmp_path: Path) -> None:
    content = {
        "results": {"arc": {"acc": 0.3, "acc_stderr": 0.02, "acc_norm": 0.4}},
        "versions": {"arc": 0},
        "config": {"model": "gpt2", "model_args": "pretrained=small", "limit": None},
    }
    frame = read_scores(write(tmp_path / "results.json", content))
    assert values(frame) == {("arc", "acc"): 0.3, ("arc", "acc_norm"): 0.4}
    assert frame["n_instances"].isna().all()
    assert frame["stderr"].iloc[0] == 0.02


def test_numbers_written_as_text_are_numbers_and_other_text_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = harness(arc=0.5)
    content["results"]["arc"] |= {"f1,none": "0.25", "note,none": "skipped"}
    frame = read_scores(write(tmp_path / "results.json", content))
    assert values(frame)["arc", "f1"] == 0.25
    assert "arc: not numbers, left out: note ('skipped')" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "value"), [("n-samples", {"arc": 3}), ("results", {"arc": 0.5}), ("config", "hf")]
)
def test_a_harness_file_of_another_shape_is_named(tmp_path: Path, key: str, value: Any) -> None:
    path = write(tmp_path / "results.json", harness(arc=0.5) | {key: value})
    with pytest.raises(DataError, match=rf"results\.json: {key}.*expected a mapping"):
        read_scores(path)


def lighteval(model: str = "org/small") -> dict[str, Any]:
    scores = {"custom|quiz:a|5": 0.2, "custom|quiz:b|5": 0.6, "custom|quiz:_average|5": 0.4}
    return {
        "config_general": {"model_name": model, "model_sha": "abc"},
        "results": {
            **{name: {"acc": value, "acc_stderr": 0.02} for name, value in scores.items()},
            "all": {"acc": 0.4, "acc_stderr": 0.02},
        },
        "versions": {},
        "config_tasks": {
            "custom|quiz:a": {"original_num_docs": 50, "effective_num_docs": 40},
            "custom|quiz:b": {"original_num_docs": 50, "effective_num_docs": 10},
        },
    }


def test_lightevals_mean_over_everything_is_no_task(tmp_path: Path) -> None:
    frame = read_scores(write(tmp_path / "results_2026-01-01T00-00-00.5.json", lighteval()))
    counts = values(frame, "n_instances")
    assert counts == {
        ("custom|quiz:a|5", "acc"): 40,
        ("custom|quiz:b|5", "acc"): 10,
        ("custom|quiz:_average|5", "acc"): 50,
    }


def test_lightevals_models_are_told_apart(tmp_path: Path) -> None:
    for model in ("org/small", "org/large"):
        path = tmp_path / model / "results_2026-01-01T00-00-00.5.json"
        write(path, lighteval(model))
    with pytest.raises(
        DataError, match=r"2 models .*org/large abc.*org/small abc|org/small.*large"
    ):
        read_scores(tmp_path)


def olmo_eval(**changes: Any) -> dict[str, Any]:
    """A `metrics.json` of olmo-eval with two tasks."""
    return {
        "timestamp": "2026-05-01T10:00:00.25",
        "config": {"model": "small", "provider": "vllm", "model_hash": "m7"},
        "tasks": [
            {
                "task": "quiz:mc",
                "metrics": {"accuracy": {"exact": 0.25, "loose": 0.5}, "bpb": {"gold": 1.5}},
                "num_instances": 80,
                "primary_metric": "accuracy:loose",
                "task_hash": "t7",
            },
            {"task": "text", "metrics": {"bpb": {"gold": 0.9}}, "num_instances": 0},
        ],
        "summary": {"text": {"metric": "bpb:gold", "score": 0.9}},
        "errors": [],
        **changes,
    }


@pytest.mark.parametrize("named", ["folder", "file"])
def test_a_folder_of_olmo_eval_is_read(tmp_path: Path, named: str) -> None:
    path = write(tmp_path / "metrics.json", olmo_eval())
    frame = read_scores(tmp_path if named == "folder" else path)
    assert values(frame) == {
        ("quiz:mc", "accuracy:exact"): 0.25,
        ("quiz:mc", "accuracy:loose"): 0.5,
        ("quiz:mc", "bpb:gold"): 1.5,
        ("quiz:mc", "primary_score"): 0.5,
        ("text", "bpb:gold"): 0.9,
        ("text", "primary_score"): 0.9,
    }
    assert frame.attrs["primary"] == {"quiz:mc": "accuracy:loose", "text": "bpb:gold"}
    assert set(frame["model_hash"]) == {"m7"}
    assert set(frame[frame["task"] == "quiz:mc"]["n_instances"]) == {80}
    assert frame[frame["task"] == "text"]["n_instances"].isna().all()


def test_olmo_evals_several_models_are_told_apart(tmp_path: Path) -> None:
    tasks = [{**olmo_eval()["tasks"][0], "model": name} for name in ("small", "large")]
    models = {"models": {"small": {"model": "small"}, "large": {"model": "l", "model_hash": "m8"}}}
    write(tmp_path / "metrics.json", olmo_eval(config=models, tasks=tasks, summary={}))
    with pytest.raises(DataError, match=r"scores of 2 models \(\w+ \w+, \w+ \w+\)"):
        read_scores(tmp_path)
    assert len(read_scores(tmp_path, model_hash="m8")) == 4


def test_olmo_evals_failed_tasks_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = [*olmo_eval()["tasks"], {"task": "broken", "metrics": {}, "num_instances": 0}]
    errors = [{"task": "broken", "error": "out of memory"}]
    write(tmp_path / "metrics.json", olmo_eval(tasks=tasks, errors=errors))
    assert set(read_scores(tmp_path)["task"]) == {"quiz:mc", "text"}
    said = capsys.readouterr().err
    assert "tasks[2]: broken has no metrics and is left out" in said
    assert "olmo-eval says that broken failed" in said


def test_an_entry_of_another_shape_is_named(tmp_path: Path) -> None:
    write(tmp_path / "metrics.json", olmo_eval(tasks=[{"metrics": {}}]))
    with pytest.raises(
        DataError, match=r"metrics.json: tasks\[0\]: expected a mapping with 'task'"
    ):
        read_scores(tmp_path)


def test_files_of_two_evaluators_in_one_folder_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "metrics.json", olmo_eval())
    write(tmp_path / "b" / "results.json", harness(arc=0.5))
    with pytest.raises(DataError, match=r"two evaluators \(metrics.json and b/results.json\)"):
        read_scores(tmp_path)


def olmes() -> dict[str, Any]:
    """A record of OLMES."""
    return {
        "task_name": "a",
        "task_hash": "t1",
        "model_hash": "m1",
        "model_config": {"model": "tiny"},
        "current_date": "2026-01-01 00:00:00 UTC",
        "task_config": {
            "primary_metric": "acc",
            "context_kwargs": {"dataset": "d"},
            "metadata": {"alias": "a"},
        },
        "num_instances": 4,
        "metrics": {"acc": 0.5, "extra_metrics": {"f1": 0.5}},
        "task_idx": 0,
    }


def grouped() -> dict[str, Any]:
    content = harness(one=0.4, two=0.6)
    content["results"]["both"] = {"acc,none": 0.5}
    return {**content, "group_subtasks": {"both": ["one", "two"]}}


def with_models() -> dict[str, Any]:
    tasks = [{**olmo_eval()["tasks"][0], "model": "small", "primary_metric": None}]
    summary = {"small": {"quiz:mc": {"metric": "accuracy:exact", "score": 0.25}}}
    return olmo_eval(config={"models": {"small": {"model": "s"}}}, tasks=tasks, summary=summary)


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in nested mappings and lists."""
    yield place
    items = (
        value if isinstance(value, dict) else dict(enumerate(value if type(value) is list else ()))
    )
    for key, inner in items.items():
        yield from places(inner, (*place, key))


def changed(value: Any, place: tuple[Any, ...], junk: Any) -> Any:
    if not place:
        return junk
    copy = value.copy()
    copy[place[0]] = changed(value[place[0]], place[1:], junk)
    return copy


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("results.json", grouped()),
        ("results.json", lighteval()),
        ("metrics.json", olmo_eval()),
        ("metrics.json", with_models()),
        ("task-000-a-metrics.json", olmes()),
        ("metrics.json", {"tasks": [{"alias": "a", "metrics": {"acc": 0.5}}], "model_config": {}}),
    ],
)
def test_whatever_stands_in_a_file_it_is_read_or_refused(
    tmp_path: Path, name: str, content: dict[str, Any]
) -> None:
    for place in places(content):
        for junk in (None, 7, -1.5, 10**400, float("nan"), True, "x", [], [3], {}, {"x": {}}):
            write(tmp_path / name, changed(content, place, junk))
            with contextlib.suppress(MixlawError):
                read_scores(tmp_path)
