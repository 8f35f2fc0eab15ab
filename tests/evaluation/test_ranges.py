"""A score is what its metric's name can mean, and its task's only where a rule says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from olmo_mixlaw.errors import DataError
from olmo_mixlaw.evaluation import read_scores
from olmo_mixlaw.evaluation.outputs import read_instances
from olmo_mixlaw.evaluation.ranges import range_of


def harness(**metrics: Any) -> dict[str, Any]:
    """A result file of the LM harness with one task."""
    return {"results": {"quiz": {"alias": "quiz", **metrics}}, "config": {"model": "hf"}}


def lighteval(**metrics: Any) -> dict[str, Any]:
    return {"results": {"quiz": metrics}, "config_general": {"model_name": "m"}}


def olmes(**metrics: Any) -> dict[str, Any]:
    return {
        "task_name": "quiz",
        "model_hash": "m",
        "task_config": {"primary_metric": "acc_raw"},
        "num_instances": 4,
        "metrics": metrics,
        "task_idx": 0,
    }


def olmo_eval(**metrics: Any) -> dict[str, Any]:
    nested = {name: {"exact": value} for name, value in metrics.items()}
    entry = {"task": "quiz", "metrics": nested, "primary_metric": "accuracy:exact"}
    return {"tasks": [entry], "config": {"model": "m"}}


def write(folder: Path, name: str, content: dict[str, Any]) -> Path:
    (folder / name).write_text(json.dumps(content))
    return folder


KINDS: dict[str, tuple[str, Any, str]] = {
    "harness": ("results_1.json", harness, "acc,none"),
    "lighteval": ("results_1.json", lighteval, "acc"),
    "olmes": ("task-000-quiz-metrics.json", olmes, "acc_raw"),
    "olmo-eval": ("metrics.json", olmo_eval, "accuracy"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("value", "said"),
    [
        (-1, "is -1, which is not within 0 and 1"),
        (2, "is 2, which is not within 0 and 1; divide percent by 100"),
        (45.5, "is 45.5, which is not within 0 and 1; divide percent by 100"),
        ("-0.25", "is -0.25, which is not within 0 and 1"),
        ("good", "is 'good', not a number"),
        ([0.5], r"is \[0.5\], not a number"),
        (True, "is True, not a number"),
    ],
)
def test_an_accuracy_that_can_be_none_is_refused_whoever_wrote_it(
    tmp_path: Path, kind: str, value: Any, said: str
) -> None:
    name, make, metric = KINDS[kind]
    with pytest.raises(DataError, match=rf"{name}.*quiz: acc\S* {said}"):
        read_scores(write(tmp_path, name, make(**{metric: value})))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0, 1, 0.625, "0.625", 1 + 1e-12])
def test_an_accuracy_is_read_as_it_stands(tmp_path: Path, kind: str, value: Any) -> None:
    name, make, metric = KINDS[kind]
    frame = read_scores(write(tmp_path, name, make(**{metric: value})))
    assert set(frame["value"]) == {float(value)}


def test_a_primary_score_has_the_range_of_its_metric(tmp_path: Path) -> None:
    name = "task-000-quiz-metrics.json"
    for value in (-0.1, 1e9, "a"):
        with pytest.raises(DataError, match="quiz: primary_score is "):
            read_scores(write(tmp_path, name, olmes(acc_raw=0.5, primary_score=value)))
    content = olmes(bits_per_byte=1.5, primary_score=1.5)
    content["task_config"]["primary_metric"] = "bits_per_byte"
    frame = read_scores(write(tmp_path, name, content))
    assert set(frame["value"]) == {1.5}


@pytest.mark.parametrize(
    ("metric", "allowed"),
    [
        ("acc_per_char", (0, 1)),
        ("prompt_level_strict_acc", (0, 1)),
        ("exact_match_major", (0, 1)),
        ("exact_match,strict-match", (0, 1)),
        ("pass@10", (0, 1)),
        ("accuracy:loose", (0, 1)),
        ("bpb:accuracy", (0, float("inf"))),
        ("extra_metrics:acc", (0, 1)),
        ("f1", (0, 100)),
        ("rougeL", (0, 100)),
        ("word_perplexity", (0, float("inf"))),
        ("bits_per_byte_corr", (0, float("inf"))),
        ("rouge1_diff", None),
        ("acc_delta", None),
        ("sum_logits_corr", None),
        ("num_tokens", None),
        ("accident_rate", None),
        ("mcc", None),
    ],
)
def test_a_name_says_its_range_or_nothing(metric: str, allowed: Any) -> None:
    assert range_of(metric) == allowed


def test_percent_of_f1_and_a_negative_loss(tmp_path: Path) -> None:
    frame = read_scores(write(tmp_path, "results_1.json", harness(**{"f1,none": 81.5})))
    assert frame["value"].tolist() == [81.5]
    with pytest.raises(DataError, match="quiz: word_perplexity is -3; it can't be below 0"):
        read_scores(write(tmp_path, "results_1.json", harness(**{"word_perplexity,none": -3})))


@pytest.mark.parametrize("error", [-0.5, float("inf")])
def test_a_standard_error_that_can_be_none_is_refused(tmp_path: Path, error: float) -> None:
    content = harness(**{"acc,none": 0.5, "acc_stderr,none": error})
    with pytest.raises(DataError, match=r"quiz: acc: its standard error is -?[0i]"):
        read_scores(write(tmp_path, "results_1.json", content))


def test_a_documents_score_is_checked_too(tmp_path: Path) -> None:
    write(tmp_path, "task-000-quiz-metrics.json", olmes(acc_raw=0.5))
    rows = [
        {"doc_id": i, "model_hash": "m", "metrics": {"acc_raw": v}} for i, v in ((0, 1), (1, 7))
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "task-000-quiz-predictions.jsonl").write_text(text)
    with pytest.raises(DataError, match=r"predictions\.jsonl: line 2: acc_raw is 7, which is not"):
        read_instances(tmp_path, "quiz")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"task_name": {"a": "quiz"}}, "task_name: .*: expected a text"),
        ({"task_name": 0.5}, "task_name: 0.5: expected a text"),
        ({"model_hash": ["m"]}, "model_hash: .*: expected a text"),
        ({"task_config": {"primary_metric": ["acc"]}}, "primary_metric: .*: expected a text"),
        ({"task_config": {"metadata": {"alias": ["a"]}}}, "metadata: alias: .*: expected a text"),
        ({"task_hash": {"a": 1}}, "task_hash: .*: expected a text"),
        ({"task_idx": [0]}, "task_idx: .*: expected a whole number"),
        ({"model_config": [{"model": "a"}]}, "model_config: expected a mapping"),
        ({"metrics": {"acc_raw": {"a": 0.25}}}, "acc_raw: .*: expected a number"),
        ({"num_instances": -4}, "num_instances: -4: expected a whole number of documents"),
        ({"num_instances": "many"}, "num_instances: 'many': expected a whole number of documents"),
        ({"num_instances": 3.5}, "num_instances: 3.5: expected a whole number of documents"),
    ],
)
def test_what_names_a_record_is_text(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    content = olmes(acc_raw=0.5) | change
    with pytest.raises(DataError, match=said):
        read_scores(write(tmp_path, "task-000-quiz-metrics.json", content))


@pytest.mark.parametrize("count", ["0x10", [40], 1e308, True])
def test_a_count_of_the_harness_is_a_number(tmp_path: Path, count: Any) -> None:
    content = harness(**{"acc,none": 0.5}) | {"n-samples": {"quiz": {"effective": count}}}
    with pytest.raises(DataError, match=r"n-samples\.quiz\.effective: .*: expected a whole number"):
        read_scores(write(tmp_path, "results_1.json", content))


def test_metrics_inside_metrics_are_none_of_the_harnesss(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"results\.quiz: a: .*: expected a number"):
        read_scores(write(tmp_path, "results_1.json", harness(a={"acc,none": 0.5})))


def test_what_is_no_date_is_none(tmp_path: Path) -> None:
    lines = [olmes(acc_raw=v) | {"current_date": d} for v, d in ((0.2, "-0.1"), (0.4, "soon"))]
    (tmp_path / "metrics-all.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    with pytest.raises(DataError, match=r"quiz: .* differ, and no date says which is newer"):
        read_scores(tmp_path)


def test_the_only_share_is_the_score_and_of_several_none_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = harness(**{"acc,none": 0.5, "perplexity,none": 12.0})
    frame = read_scores(write(tmp_path, "results_1.json", one))
    assert frame.attrs["primary"] == {"quiz": "acc"}
    assert frame.attrs["why"] == {"quiz": "the only score among its metrics"}
    assert capsys.readouterr().err == ""
    two = harness(**{"acc,none": 0.5, "acc_norm,none": 0.75})
    frame = read_scores(write(tmp_path, "results_1.json", two))
    assert frame.attrs["primary"] == {}
    assert frame.attrs["why"] == {"quiz": "its evaluator names none of acc, acc_norm"}
    said = capsys.readouterr().err
    assert "which metric is the score is not said: quiz (acc, acc_norm); choose" in said
    named = olmes(acc_raw=0.5, acc_per_char=0.75)
    (tmp_path / "named").mkdir()
    frame = read_scores(write(tmp_path / "named", "task-000-quiz-metrics.json", named))
    assert frame.attrs["why"] == {"quiz": "its evaluator names it"}


def test_a_primary_metric_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = olmes(acc_per_char=0.5)
    frame = read_scores(write(tmp_path, "task-000-quiz-metrics.json", content))
    assert set(frame["metric"]) == {"acc_per_char"}
    assert "primary_metric: 'acc_raw' is none of its metrics" in capsys.readouterr().err
