"""`olmo-mixlaw scores`: from folders that the embedded scorer writes to a mixture and its gains."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from law_tables import grid, score_of, table_of, transfer_losses

from olmo_mixlaw.advice.scores import Scores, fit_scores
from olmo_mixlaw.cli.app import app, run
from olmo_mixlaw.evaluation.files import describe, write_summary, write_task
from olmo_mixlaw.evaluation.of_runs import with_outputs
from olmo_mixlaw.runs import RunTable

Command = Callable[..., int]
QUESTIONS = 300
SCALE = ("--n-params", "1.6e8", "--n-tokens", "1e9")
CHANCE = {"quiz": 0.25, "coding": 0.25}
GOAL = "know: {weight: 3, tasks: [quiz]}\nmake: [coding]\n"


def write_outputs(folder: Path, run_id: str, right: dict[str, np.ndarray]) -> None:
    """What `evaluate` writes for one model: `right` says which of a task's questions it knows."""
    named = {"model": run_id, "model_path": run_id}
    model: Any = SimpleNamespace(
        hash=run_id, config=named, dtype="float32", device="cpu", prefix_token_id=0, bos_token_id=0
    )
    lines = []
    for index, (task, known) in enumerate(right.items()):
        settings = {"task_name": task, "primary_metric": "acc_raw", "metadata": {"alias": task}}
        config = SimpleNamespace(as_dict=lambda settings=settings: dict(settings))
        rows = [
            {"doc_id": i, "native_id": str(i), "metrics": {"acc_raw": int(k)}, "label": 0}
            for i, k in enumerate(known)
        ]
        share = float(known.mean())
        result = {
            "task": SimpleNamespace(name=task, config=config),
            "task_idx": index,
            "predictions": rows,
            "num_instances": len(rows),
            "metrics": {"acc_raw": share, "primary_score": share},
            "current_date": "2026-01-01 00:00:00 UTC",
        }
        write_task(folder, model, result, save_requests=False)
        lines.append(describe(model, result))
    write_summary(folder, model, lines)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 runs of three sizes in `table`, and what an evaluator wrote of 23 in `outputs`."""
    folder = tmp_path_factory.mktemp("study")
    design = transfer_losses(grid(sizes=3, mixtures=8), noise=0.003)
    table_of(design).save(folder / "table")
    rng = np.random.default_rng(0)
    for i, run_id in enumerate(design.run_ids[:-1]):
        right = {
            task: rng.random(QUESTIONS) < score_of(design.losses[i], task) for task in CHANCE
        } | {"riddle": rng.random(QUESTIONS) < 0.25}
        write_outputs(folder / "outputs" / run_id, run_id, right)
    (folder / "goal.yaml").write_text(GOAL)
    return folder


@pytest.fixture
def arguments(study: Path) -> list[str]:
    chance = [f"--chance={task}=.25" for task in (*CHANCE, "riddle")]
    where = [str(study / "outputs"), "--table", str(study / "table"), *SCALE]
    return ["scores", *where, "--law", "transfer", "--bootstrap", "10", *chance]


@pytest.fixture
def command(arguments: list[str]) -> Command:
    return lambda *more: run(app, [*arguments, *(str(item) for item in more)])


def found(capsys: pytest.CaptureFixture) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out)


def directly(study: Path) -> Scores:
    joined = with_outputs(RunTable.load(study / "table"), study / "outputs")
    return fit_scores(joined.table, "transfer", chance={**CHANCE, "riddle": 0.25})


def test_the_answer_is_that_of_the_fit(
    study: Path, command: Command, capsys: pytest.CaptureFixture
) -> None:
    out, mixture = study / "scores.json", study / "best.yaml"
    goal = ("--goal", study / "goal.yaml", "--out", out, "--mixture", mixture)
    assert command(*goal, "--json") == 0
    said, scores = found(capsys), directly(study)
    ratios = np.array(list(said["mixture"].values()))
    current = np.array([row["current"] for row in said["mixtures"]])
    design = RunTable.load(study / "table").design()
    np.testing.assert_allclose(current, design.ratios[:8].mean(0))
    assert said["current_is"] == "the mean of the 8 mixtures tried"
    both = scores.predict(np.stack([current, ratios / ratios.sum()]), 1.6e8, 1e9)
    rows = {row["task"]: row for row in said["tasks"]}
    for q, task in enumerate(scores.law.tasks):
        assert rows[task]["current"] == pytest.approx(both[0, q], abs=1e-6)
        assert rows[task]["best"] == pytest.approx(both[1, q], abs=1e-4)
        assert rows[task]["low"] <= rows[task]["gain"] <= rows[task]["high"]
        assert rows[task]["best_low"] < rows[task]["best"] < rows[task]["best_high"]
    assert rows["quiz"]["weight"] == pytest.approx(0.75)
    mean = 0.75 * rows["quiz"]["best"] + 0.25 * rows["coding"]["best"]
    assert said["mean"]["best"] == pytest.approx(mean)
    tried = scores.predict(design.ratios[:8], 1.6e8, 1e9)
    weight = [rows[task]["weight"] for task in scores.law.tasks]
    assert said["mean"]["best"] > (tried @ weight).max()
    assert list(said["unpredictable"]) == ["riddle"]
    assert said["runs_without_outputs"] == ["run23"]
    assert yaml.safe_load(mixture.read_text())["mixture"]["ratios"] == said["mixture"]
    assert (
        run(app, ["optimize", "--benchmark", str(out), *SCALE, "--json", *map(str, goal[:2])]) == 0
    )
    again = found(capsys)
    assert again["objective"]["value"] == pytest.approx(mean, abs=0.01)
    assert [row["family"] for row in again["families"]] == ["know", "make"]


def test_the_text_says_what_is_gained_and_what_is_not_known(
    study: Path, command: Command, capsys: pytest.CaptureFixture
) -> None:
    figure = study / "gains.png"
    goal = study / "all.yaml"
    goal.write_text(GOAL + "rest: [riddle]\n")
    assert command("--goal", goal, "--figure", figure) == 0
    shown = capsys.readouterr()
    assert "1 of 24 runs have no outputs: run23" in shown.err
    assert "all.yaml: rest: none of its tasks can be predicted, left out" in shown.err
    assert "current: the mean of the 8 mixtures tried" in shown.out
    assert "dropped: riddle: no smaller model is above chance" in shown.out
    assert "The proposed mixture is predicted to " in shown.out
    assert " points (90 % interval" in shown.out
    assert figure.stat().st_size > 5000


def test_the_current_mixture_as_it_is_given(
    study: Path, command: Command, capsys: pytest.CaptureFixture
) -> None:
    file = study / "now.yaml"
    file.write_text("mixture:\n  ratios: {web: .5, code: .3, wiki: .2}\n")
    answers = []
    for given in (["web=.5,code=.3", "wiki=.2"], [file]):
        options = [item for one in given for item in ("--current", one)]
        assert command("--json", *options) == 0
        answers.append(found(capsys))
    assert answers[0] == answers[1]
    assert [row["current"] for row in answers[0]["mixtures"]] == [0.5, 0.3, 0.2, 0.0]
    [judged] = answers[0]["verdicts"]
    assert (judged["against"], judged["unit"]) == ("the current (as given)", "points")
    mean = answers[0]["mean"]
    assert judged["gain"] == pytest.approx(100 * mean["gain"])
    # No surer than the curves and the luck of runs let it be.
    assert judged["low"] <= 100 * mean["low"]
    assert judged["high"] >= 100 * mean["high"]


def test_a_current_mixture_outside_the_bounds_is_said(
    command: Command, capsys: pytest.CaptureFixture
) -> None:
    caps = ("--at-most", "web=.1", "--available", "math=5e7", "--max-epochs", "4")
    assert command("--json", "--current", "web=.5,code=.2,math=.3", *caps) == 0
    said = found(capsys)
    assert said["mixture"]["web"] <= 0.1 + 1e-6
    assert said["mixture"]["math"] <= 0.2 + 1e-6
    outside = (
        "outside the bounds: web 0.500 (from 0.000 to 0.100), math 0.300 (from 0.000 to 0.200)"
    )
    assert any(note.endswith(outside) for note in said["warnings"])


def test_a_recipe_may_name_goal_and_current_mixture(
    study: Path, arguments: list[str], command: Command, capsys: pytest.CaptureFixture
) -> None:
    recipe = study / "mine.yaml"
    recipe.write_text("goal: goal.yaml\ncurrent: {web: .5, code: .3, wiki: .2}\n")
    assert run(app, [*arguments, "--recipe", str(recipe), "--json"]) == 0
    by_recipe = found(capsys)
    given = ("--goal", study / "goal.yaml", "--current", "web=.5,code=.3,wiki=.2")
    assert command(*given, "--json") == 0
    assert found(capsys) == by_recipe


def test_a_tables_own_scores_need_no_outputs(
    study: Path, arguments: list[str], capsys: pytest.CaptureFixture
) -> None:
    joined = with_outputs(RunTable.load(study / "table"), study / "outputs")
    joined.table.save(study / "scored")
    own = [str(study / "scored") if item == str(study / "table") else item for item in arguments]
    own.remove(str(study / "outputs"))
    assert run(app, [*own, "--json"]) == 0
    first = found(capsys)
    assert run(app, [*arguments, "--json"]) == 0
    second = found(capsys)
    assert first["tasks"] == second["tasks"]
    assert (first["runs_without_outputs"], second["runs_without_outputs"]) == ([], ["run23"])


def test_a_swarms_two_files(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    losses = RunTable.load(study / "table").losses
    large = losses[losses["n_params"] == losses["n_params"].max()].rename(columns={"run_id": "run"})
    weights = [column for column in large if column.startswith("w_")]
    ratios = large.drop_duplicates("run")[["run", *weights]]
    ratios = ratios.rename(columns=lambda name: name.removeprefix("w_"))
    ratios.to_csv(tmp_path / "ratios.csv", index=False)
    wide = large.pivot(index="run", columns="domain", values="loss").add_suffix("_loss")
    wide.to_csv(tmp_path / "metrics.csv")
    files = ("--ratios", tmp_path / "ratios.csv", "--metrics", tmp_path / "metrics.csv")
    chance = [f"--chance={task}=.25" for task in (*CHANCE, "riddle")]
    given = ["scores", study / "outputs", *files, "--size", "1.6e8", "--tokens", "1e9", *chance]
    given = [*map(str, given), "--law", "transfer", "--bootstrap", "10", "--json"]
    larger = ("--n-params", "1e9", "--n-tokens", "1e9")
    for where, unsure in ((SCALE, False), (larger, True)):
        assert run(app, [*given, *where]) == 0
        said = found(capsys)
        assert any("none could be held out" in note for note in said["warnings"]) == unsure
    assert len(said["outputs_without_run"]) == 16
    told = {row["task"] for row in said["tasks"]}
    assert told
    assert told | set(said["unpredictable"]) == {"quiz", "coding", "riddle"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--current", "web=.5,code=.1"], "--current: the ratios must not be negative and sum to"),
        (["--current", "web=.5,cod=.5"], "unknown domain 'cod'; did you mean 'code'?"),
        (["--current", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["--current", "web"], "--current: expected DOMAIN=H or a YAML of a mixture, found 'web'"),
        (["--goal", "olmes", "--task-weight", "quiz=1"], "--goal and --task-weight: give one"),
        (["--goal", "olmes"], "olmes.yaml: math.tasks: unknown task 'gsm8k'"),
        (["--goal", "olmess"], "--goal: unknown goal 'olmess'; did you mean 'olmes'?"),
        (["--task-weight", "quizz=1"], "unknown task 'quizz'; did you mean 'quiz'?"),
        (["--at-most", "web=.1", "--at-least", "web=.2"], "web"),
        (["--max-epochs", "4"], "--max-epochs: needs --available"),
        (["--figure", "gains.doc"], "--figure: gains.doc: no figure is saved as 'doc'"),
        (["--law", "transfers"], "--law: unknown law 'transfers'; did you mean 'transfer'?"),
    ],
)
def test_mistakes_are_named(
    command: Command, capsys: pytest.CaptureFixture, more: list[str], message: str
) -> None:
    assert command(*more) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert "Traceback" not in shown.err


def test_outputs_that_are_not_those_of_the_table_are_refused(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    table = ("--table", study / "table")
    (tmp_path / "step-run1").mkdir()
    for outputs, message in (
        ((tmp_path,), "holds outputs of no run of"),
        ((tmp_path / "missing",), "no such folder of outputs"),
        ((), "OUTPUTS: is needed, the folder of the evaluator's files"),
    ):
        assert run(app, ["scores", *map(str, (*outputs, *table, *SCALE))]) == 2
        assert message in capsys.readouterr().err


def test_the_goal_of_target_losses(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    fitted, goal = tmp_path / "fit.json", tmp_path / "goal.yaml"
    goal.write_text("text: {weight: 3, tasks: [we*, wiki]}\nmath: [math]\n")
    table = ("--table", study / "table", "--law", "transfer", "--no-held-out", "--out", fitted)
    assert run(app, ["fit", *map(str, table)]) == 0
    capsys.readouterr()
    assert run(app, ["optimize", str(fitted), *SCALE, "--goal", str(goal), "--json"]) == 0
    by_goal = found(capsys)
    same = ["--target-weight=web=3", "--target-weight=wiki=3", "--target-weight=math=2"]
    assert run(app, ["optimize", str(fitted), *SCALE, *same, "--json"]) == 0
    by_weight = found(capsys)
    assert by_goal["mixture"] == by_weight["mixture"]
    losses = {row["target"]: row["loss"] for row in by_goal["losses"]}
    text, math = by_goal["families"]
    assert text["value"] == pytest.approx((losses["web"] + losses["wiki"]) / 2)
    assert math == {"family": "math", "weight": pytest.approx(0.25), "value": losses["math"]}
    assert by_weight["families"] is None
    for more, message in (
        (["--goal", str(goal), "--target-weight", "web=1"], "--goal: says every weight"),
        (["--goal", "olmes"], "math.tasks: unknown task 'gsm8k'"),
    ):
        assert run(app, ["optimize", str(fitted), *SCALE, *more]) == 2
        assert message in capsys.readouterr().err
    assert run(app, ["optimize", *SCALE]) == 2
    assert "FIT: is needed, or a --benchmark" in capsys.readouterr().err
