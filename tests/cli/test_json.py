"""`--json`: one document on standard output that says what the text says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from law_tables import scored_study, task_ladder

from olmo_mixlaw.cli.answer import jsonable
from olmo_mixlaw.cli.app import app, run
from olmo_mixlaw.cli.fit_ladder import fit_ladder

Command = Callable[..., int]
SCALE = ("--n-params", "4e7", "--n-tokens", "1e9")


def only_json(text: str) -> Any:
    """The one document of a standard output; NaN and Infinity are none of JSON's."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def said_by_fit(found: dict[str, Any]) -> list[str]:
    held, one = found["held_out"], found["parameters"][0]
    return [
        f"{found['law']}: {found['formula']}\n",
        f"{found['runs']} runs, {found['n_parameters']} parameters",
        f"error on the runs fitted {found['training_error_percent']:.3f} %",
        f"held-out error {held['mre_percent']:.3f} %",
        f"R2 between mixtures held out {held['mixture_r2']:.3f}",
        f" {one['parameter']} ",
        f"{one['value']:.4g}",
        f"{one['low']:.4g}",
        f"{one['high']:.4g}",
    ]


def said_by_compare(found: dict[str, Any]) -> list[str]:
    rows = [f"{row['mre_percent']:.3f}" for row in found["rows"]]
    assert all(row["noise_floor_percent"] is None for row in found["rows"])  # no repeated runs
    return [*rows, f"choice: {found['choice']}, for a forecast ({found['reason']})"]


def said_by_optimize(found: dict[str, Any]) -> list[str]:
    assert sum(found["mixture"].values()) == pytest.approx(1)
    assert found["level"] is None
    losses = [f"  {row['target']:22s} {row['loss']:.4f}" for row in found["losses"]]
    ratios = [f"{row['domain']} {found['mixture'][row['domain']]:.4f}" for row in found["ranges"]]
    ends = [f"{row['low']:.4f} {row['high']:.4f}" for row in found["ranges"]]
    mean = f"predicted mean loss {found['objective']['value']:.4f} {found['unit']}"
    path = [f"{row['objective']:.4f}" for row in found["path"]]
    [judged] = found["verdicts"]
    assert judged["low"] < judged["gain"] < judged["high"]
    cautions = [f"caution: {note}" for note in found["warnings"]]
    assert cautions
    return [*losses, *ratios, *ends, mean, *path, *cautions, judged["sentence"]]


def said_by_predict(found: dict[str, Any]) -> list[str]:
    written = pd.read_csv(found["saved"], float_precision="round_trip")
    rows = pd.DataFrame(found["rows"])
    for column in ("loss", "low", "high"):
        np.testing.assert_array_equal(rows[column], written[column])
    return [f"{len(rows)} rows predicted by {found['law']}, in {found['unit']}"]


def said_by_ladder(found: dict[str, Any]) -> list[str]:
    return [f"{rung['rung']} {rung['d_model']} {rung['n_layers']}" for rung in found["rungs"]]


CASES: dict[str, tuple[tuple[str, ...], Callable[[Any], list[str]]]] = {
    "fit": (("--table", "table", "--law", "transfer", "--out", "f.json"), said_by_fit),
    "compare": (("--table", "table", "--laws", "no_mixture,transfer"), said_by_compare),
    "optimize": (("fit.json", "--path", "2e10,1e9", *SCALE, "--near-optimal"), said_by_optimize),
    "predict": (("fit.json", "--query", "table/losses.csv", "--interval"), said_by_predict),
    "evaluate": (("--list-tasks",), lambda found: [*found["tasks"], *found["suites"]]),
    "ladder list": ((), lambda found: [f"{one['name']} " for one in found]),
    "ladder show": (("micro-dense",), said_by_ladder),
    "ladder make": (("--active", "12M"), lambda found: [f"# {found['n_params']:,} parameters"]),
    "data ledger": (
        ("mixlaw:biography?n=12",),
        lambda found: [f"{row['quantity']} " for row in found],
    ),
    "study plan": (("micro",), lambda found: [f"{len(found['runs'])} runs, ", found["output"]]),
    "doctor": ((), lambda found: [one["text"] for one in found]),
}


def squeezed(text: str) -> str:
    return "\n".join(" ".join(line.split()) for line in text.splitlines())


@pytest.mark.parametrize("command", CASES)
def test_the_document_says_what_the_text_says(
    command: str,
    fitted: Path,
    mixlaw: Command,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(fitted.parent)
    arguments, said = CASES[command]
    code = mixlaw(*command.split(), *arguments)
    shown = squeezed(capsys.readouterr().out) + "\n"
    assert mixlaw(*command.split(), *arguments, "--json") == code
    out, err = capsys.readouterr()
    found = only_json(out)
    if command in ("fit", "compare", "optimize", "predict"):
        assert found["unit"] == "nats"
        assert {"no_answer", "warnings", "saved"} <= set(found)
    for text in said(found):
        assert squeezed(text) in shown
    assert "Traceback" not in err


def commands_with_answers() -> list[str]:
    """Every command, and every one inside a group, whose answer is no file or model."""
    import click

    found = []
    for name in app.list_commands(click.Context(app)):
        command = app.get_command(click.Context(app), name)
        inner = getattr(command, "commands", {})
        found += [f"{name} {part}" for part in inner] or [name]
    return found


MAKES_FILES = {"data show", "data make", "train", "olmes"} | {
    f"export {what}" for what in ("hf", "olmo", "mixture")
}


@pytest.mark.parametrize("command", [c for c in commands_with_answers() if c not in MAKES_FILES])
def test_every_command_that_answers_has_the_option(
    command: str, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    assert mixlaw(*command.split(), "--help") == 0
    assert "--json" in capsys.readouterr().out


def test_no_answer_is_a_field(
    folder: Path, mixlaw: Command, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert mixlaw("fit", "--table", "table", "--law", "no_mixture", "--json") == 0
    assert only_json(capsys.readouterr().out)["no_answer"].startswith("NO ANSWER")
    assert mixlaw("optimize", "fit.json", *SCALE, "--json") == 0
    assert only_json(capsys.readouterr().out)["no_answer"].startswith("NO ANSWER")
    assert mixlaw("compare", "--table", "table", "--laws", "no_mixture", "--json") == 0
    assert only_json(capsys.readouterr().out)["no_answer"].startswith("NO ANSWER")


def test_an_answer_is_no_refusal_and_notes_go_to_standard_error(
    folder: Path, mixlaw: Command, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    how = ("--table", "table", "--bootstrap", 10, "--figure", "f.svg", "--no-held-out", "--json")
    assert mixlaw("fit", *how) == 0
    out, err = capsys.readouterr()
    found = only_json(out)
    assert (found["no_answer"], found["held_out"], found["level"]) == (None, None, 0.9)
    assert "24 runs, 4 domains" in err
    assert "saved to fit.json" in err
    assert "drew f.svg" in err
    assert mixlaw("fit", "--table", "nowhere.csv", "--json") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: nowhere.csv: no such file\n"


def test_a_benchmark_is_part_of_the_answer(
    tmp_path: Path, mixlaw: Command, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scored_study().save("table")
    chance = ("--chance", "quiz=.25", "--chance", "coding=.25")
    assert mixlaw("fit", "--table", "table", "--benchmark", "s.json", *chance, "--json") == 0
    benchmark = only_json(capsys.readouterr().out)["benchmark"]
    assert [task["task"] for task in benchmark["tasks"]] == ["quiz", "coding"]
    assert mixlaw("optimize", "fit.json", *SCALE, "--benchmark", "s.json", "--json") == 0
    found = only_json(capsys.readouterr().out)
    mean = np.mean(list(found["scores"].values()))
    assert found["objective"]["what"] == "mean score, maximised"
    assert found["objective"]["value"] == pytest.approx(mean)


def test_a_model_is_scored_into_a_document(
    tmp_path: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip("olmo")
    from checkpoints import SHAPE, write_checkpoint

    model = write_checkpoint(tmp_path, SHAPE)
    task = {"dataset": "mixlaw:text?corpus=wikipedia", "domain": "wiki", "max_tokens": 256}
    asked = json.dumps({"task_name": "domain_loss", "context_kwargs": task})
    assert mixlaw("evaluate", model, "-t", asked, "-o", tmp_path / "out", "--json") == 0
    out, err = capsys.readouterr()
    found = only_json(out)
    loss = next(row for row in found["scores"] if row["metric"] == "loss")
    assert loss["task"] == "domain_loss:wiki"
    assert loss["value"] > 0
    assert f"written to {found['saved']}" in err


def test_a_ladder_of_tasks_answers_in_json(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    task_ladder(noise=0.005).to_csv(tmp_path / "tasks.csv", index=False)
    how = ["--table", str(tmp_path / "tasks.csv"), "--out", str(tmp_path), "--replicates", "0"]
    assert run(fit_ladder, [*how, "--target", "large=1e10,1e11", "--json"]) == 0
    found = only_json(capsys.readouterr().out)
    assert found["unit"] == "accuracy"
    assert {row["model"] for row in found["predictions"]} == {"large"}
    assert all(row["low"] is None for row in found["predictions"])


def test_numbers_are_plain_and_unknown_ones_null() -> None:
    frame = pd.DataFrame({"a": [1.5, np.nan], "b": pd.array([1, None], dtype="Int64")})
    assert jsonable(frame) == [{"a": 1.5, "b": 1}, {"a": None, "b": None}]
    given = {"x": np.float32(0.5), "y": np.array([np.inf, 2]), "z": Path("a"), 3: (np.int64(4),)}
    assert jsonable(given) == {"x": 0.5, "y": [None, 2.0], "z": "a", "3": [4]}
