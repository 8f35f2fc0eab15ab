"""Beside a real OLMES: every task of ours runs in it and scores as in the embedded scorer.

`OLMES_PYTHON` names the interpreter of an environment that has OLMES and this package:

    OLMES_PYTHON=~/olmes/.venv/bin/python pytest tests/evaluation/test_real_olmes.py -m slow
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rounding import SCORES

from olmo_mixlaw.evaluation import catalog, dumps, evaluate, read_scores
from olmo_mixlaw.evaluation.outputs import read_instances

PYTHON = os.environ.get("OLMES_PYTHON", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="OLMES_PYTHON names no interpreter with OLMES"),
]

BIO = "mixlaw:biography?n=40&seed=3&pools=major:12"
NAMES = [name for name in catalog.task_names() if name != "domain_loss"]
OWN = {"piqa": ("piqa", "plain_text"), "copa": ("super_glue", "copa")}
LIMIT = 6
# OLMES (5a51f50) takes the length of a batch of one for the number of an answer's tokens.
COUNTED_OTHERWISE = "per_token"
# Where bits a byte come first, OLMES puts its own multiple-choice metrics in a task's place.
REPLACED = ":bpb"


def olmes(*arguments: str, start: tuple[str, ...] = (), **variables: str) -> str:
    """Run `olmes` (or what `start` says) with the environment's own `python` first on PATH."""
    folder = Path(PYTHON).expanduser().parent
    environment = {
        **os.environ,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "PYTHONSAFEPATH": "1",  # the installed package, not the checkout that pytest runs in
        **variables,
    }
    found = subprocess.run(
        [*(start or (str(folder / "olmes"),)), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=1800,
    )
    assert found.returncode == 0, found.stdout[-2000:] + found.stderr[-4000:]
    return found.stdout + found.stderr


def model_options(model: Path) -> list[str]:
    values = {"model_path": str(model), "model_type": "hf", "dtype": "float32"}
    return ["--model", "tiny", "--model-args", json.dumps(values), "--batch-size", "4"]


def readable_by_older_releases(folder: Path) -> Path:
    """The folder, its tokenizer written so that older releases of transformers read it, too."""
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def model(llama: Callable[[int, int], Path]) -> Path:
    """A Llama-shaped folder with random weights, whose context holds a worked problem."""
    return readable_by_older_releases(llama(4, 2048))


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Every task of ours, with a dataset."""
    table = tmp_path_factory.mktemp("table") / "people.csv"
    rows = [f"Person {i},{1900 + i},City {i % 5}" for i in range(12)]
    table.write_text("\n".join(["name,year,city", *rows]) + "\n")
    datasets = {
        "bio_recall": BIO,
        "fact_recall": f"mixlaw:table?path={table}",
        "slope": "mixlaw:slope",
        "max_over_n": "mixlaw:max_over_n?n=3&high=10",
        "domain_loss": BIO,
    }
    found = []
    for name in NAMES:
        context: dict[str, Any] = {"dataset": datasets[name.partition(":")[0]]}
        spec: dict[str, Any] = {"task_name": name, "limit": LIMIT, "context_kwargs": context}
        if name == "domain_loss:documents":
            context["max_documents"] = LIMIT
        if catalog.make_task(name, {}).kind == "generate_until":
            spec["generation_kwargs"] = {"max_gen_toks": 24}
        found.append(spec)
    return found


@pytest.fixture(scope="module")
def theirs(model: Path, specs: list[dict[str, Any]], tmp_path_factory: Any) -> Path:
    """The folder that OLMES writes for every task of ours and two of its own."""
    from datasets import load_from_disk

    output = tmp_path_factory.mktemp("olmes")
    tasks = [{**spec, "task_name": spec["task_name"] + catalog.SUFFIX} for spec in specs]
    root = dumps.folder()
    assert root is not None
    for name, (dataset, part) in OWN.items():
        folder = tmp_path_factory.mktemp("data") / name
        folder.mkdir()
        data: Any = load_from_disk(str(root.parent / "hf_datasets" / dataset / part / "validation"))
        data.to_parquet(folder / "validation.parquet")
        tasks.append(
            {
                "task_name": name,
                "dataset_path": str(folder),
                "dataset_name": "default",
                "split": "validation",
                "num_shots": 0,
                "limit": 40,
            }
        )
    named = [x for task in tasks for x in ("--task", json.dumps(task))]
    words = ["--task", *named[1::2], *model_options(model), "--output-dir", str(output)]
    olmes(*words)
    return output


@pytest.fixture(scope="module")
def ours(model: Path, specs: list[dict[str, Any]], tmp_path_factory: Any) -> Path:
    """The folder that the embedded scorer writes for the same."""
    output = tmp_path_factory.mktemp("embedded")
    own = [
        {"task_name": f"{name}:rc_0shot", "limit": 40, "metadata": {"alias": name}} for name in OWN
    ]
    evaluate(model, [*specs, *own], output, device="cpu")
    return output


def test_launcher_lists_every_task_and_suite() -> None:
    listed = olmes("--list-tasks", "mixlaw")
    for name in NAMES:
        assert name + catalog.SUFFIX in listed
    suites = olmes("--list-task-suites", "mixlaw|attributes|reasoning")
    for name in ("mixlaw", "attributes", "reasoning"):
        assert f"  {name} (" in suites


@pytest.mark.parametrize("name", [*NAMES, *OWN])
def test_scores_equal_those_of_the_embedded_scorer(theirs: Path, ours: Path, name: str) -> None:
    frames = [read_scores(folder, tasks=[name]) for folder in (ours, theirs)]
    one, other = (frame.set_index("metric") for frame in frames)
    shared = [m for m in one.index if m in other.index and COUNTED_OTHERWISE not in m]
    missing = set(one.index) ^ set(other.index)
    if name in OWN:  # in-loop metrics are ours alone; OLMES counts answers that can't be read
        assert missing <= {"in_loop_len_norm", "in_loop_bpb", "no_answer"}
    elif name.endswith(REPLACED):
        assert {"bits_per_byte_corr", "sum_logits_corr"} <= set(shared)
    else:
        assert not missing
    assert "primary_score" in shared
    for metric in shared:
        value = one.loc[metric, "value"]
        assert other.loc[metric, "value"] == pytest.approx(value, rel=SCORES, abs=SCORES)
        assert other.loc[metric, "n_instances"] == one.loc[metric, "n_instances"]


@pytest.mark.parametrize("name", NAMES)
def test_single_documents_are_answered_alike(theirs: Path, ours: Path, name: str) -> None:
    one, other = (read_instances(folder, name) for folder in (ours, theirs))
    for frame in (one, other):
        frame["native_id"] = frame["native_id"].astype(str)
    shared = [c for c in one.columns if c in other.columns and COUNTED_OTHERWISE not in c]
    assert len(one) == LIMIT
    assert len(shared) > 2  # the document's number and name, and a metric
    pd.testing.assert_frame_equal(
        one[shared], other[shared], check_dtype=False, rtol=1e-5, atol=1e-5
    )


def test_fallback_without_start_up_file_averages_suites(model: Path, tmp_path: Path) -> None:
    start = (str(Path(PYTHON).expanduser()), "-m", "olmo_mixlaw", "olmes")
    words = [
        "--task",
        "attributes",
        "--task-args",
        json.dumps({"context_kwargs": {"dataset": BIO}}),
        "--limit",
        str(LIMIT),
        *model_options(model),
        "--output-dir",
        str(tmp_path / "olmes"),
    ]
    olmes(*words, start=start, OLMO_MIXLAW_NO_HOOK="1")
    theirs = read_scores(tmp_path / "olmes")
    specs = [
        {"task_name": task + catalog.SUFFIX, "limit": LIMIT, "context_kwargs": {"dataset": BIO}}
        for task in catalog.load_suite("attributes").tasks
    ]
    suite = tmp_path / "attributes.yaml"
    suite.write_text(json.dumps({"primary_metric": "macro", "tasks": specs}))
    ours = evaluate(model, [str(suite)], tmp_path / "embedded", device="cpu")
    assert set(theirs["task"]) == set(ours["task"])
    joined = ours.merge(theirs, on=["task", "metric"], suffixes=("", "_theirs"))
    assert len(joined) == len(ours) == len(theirs)
    assert list(joined["value_theirs"]) == pytest.approx(
        list(joined["value"]), rel=SCORES, abs=SCORES
    )


def test_a_short_context_is_kept_to_and_the_files_say_who_was_asked(
    llama: Callable[[int, int], Path], tmp_path: Path
) -> None:
    model = readable_by_older_releases(llama(5, 96))
    name = "domain_loss:documents"
    spec = {"task_name": name, "context_kwargs": {"dataset": BIO, "max_documents": LIMIT}}
    asked = json.dumps({**spec, "task_name": name + catalog.SUFFIX})
    olmes("--task", asked, *model_options(model), "--output-dir", str(tmp_path / "olmes"))
    ours = evaluate(model, [spec], tmp_path / "embedded", device="cpu")
    theirs = read_scores(tmp_path / "olmes", tasks=[name])
    joined = ours.merge(theirs, on="metric", suffixes=("", "_theirs"))
    assert list(joined["value_theirs"]) == pytest.approx(list(joined["value"]), rel=SCORES)
    (line,) = (tmp_path / "olmes" / "metrics-all.jsonl").read_text().splitlines()
    settings = json.loads(line)["task_config"]
    assert settings["model_max_length"] == 96
    assert settings["context_kwargs"]["dataset"] == BIO


def said(folder: Path) -> dict[str, str]:
    """What a model generated, by the document's name."""
    (file,) = folder.glob("*predictions.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return {row["native_id"]: row["model_output"][0]["continuation"] for row in rows}


def test_what_is_generated_in_a_short_context_follows_the_whole_prompt(
    llama: Callable[[int, int], Path], tmp_path: Path
) -> None:
    model = readable_by_older_releases(llama(6, 64))
    spec = {
        "task_name": "bio_recall:gen",
        "limit": LIMIT,
        "context_kwargs": {"dataset": BIO},
        "generation_kwargs": {"max_gen_toks": 60},  # OLMES would leave 4 tokens to the prompt
    }
    asked = json.dumps({**spec, "task_name": "bio_recall:gen" + catalog.SUFFIX})
    olmes("--task", asked, *model_options(model), "--output-dir", str(tmp_path / "olmes"))
    evaluate(model, [spec], tmp_path / "embedded", device="cpu")
    assert said(tmp_path / "olmes") == said(tmp_path / "embedded")


def test_requests_of_the_dumps_are_those_of_olmes() -> None:
    script = str(Path(__file__).with_name("real_olmes_requests.py"))
    printed = olmes(script, start=(str(Path(PYTHON).expanduser()), "-W", "ignore"))
    line = next(x for x in printed.splitlines() if x.startswith('{"'))
    found = json.loads(line)
    assert len(found) >= 30
    different = {name for name, count in found.items() if count["other"]}
    assert different == set(dumps.OTHER_THAN_OLMES)
