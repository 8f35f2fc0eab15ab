"""`scripts/fit_ladder.py` and its command."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pandas as pd
import pytest
from law_tables import task_ladder

from olmo_mixlaw.cli.app import run
from olmo_mixlaw.cli.fit_ladder import fit_ladder
from olmo_mixlaw.runs import RunTable

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "fit_ladder.py"


def ladder_script(*arguments: str | Path) -> int:
    spec = importlib.util.spec_from_file_location("fit_ladder", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main([str(argument) for argument in arguments])


def test_a_studys_largest_size_is_predicted(folder: Path, capsys: pytest.CaptureFixture) -> None:
    out = folder / "out"
    assert ladder_script("--runs", folder, "--replicates", "5", "--out", out) == 0
    assert "(held out)" in capsys.readouterr().out
    assert (out / "ladder.png").stat().st_size > 10_000
    errors = pd.read_csv(out / "predictions.csv")["error"].abs()
    assert errors.mean() < 2


def test_the_best_mixture_at_a_target_is_told_from_the_next_or_not(
    folder: Path, capsys: pytest.CaptureFixture
) -> None:
    how = ["--runs", str(folder), "--replicates", "2", "--out", str(folder / "out"), "--json"]
    assert run(fit_ladder, [*how, "--target", "big=6.4e8,1e9"]) == 0
    found = json.loads(capsys.readouterr().out)
    [judged] = found["verdicts"]
    rows = pd.DataFrame(found["predictions"])
    mean = rows[rows["model"] == "big"].groupby("run")["predicted"].mean().sort_values()
    first, second = (name.removeprefix("mixture of ") for name in mean.index[:2])
    assert judged["against"] == f"{second}, the next best"
    assert judged["sentence"].startswith(f"{first}, the best mixture tried, is predicted to lower")
    assert judged["gain"] == pytest.approx(100 * (1 - mean.iloc[0] / mean.iloc[1]))
    assert judged["low"] < judged["gain"] < judged["high"]
    assert run(fit_ladder, how) == 0  # no target: a size held out, and no choice to make
    assert json.loads(capsys.readouterr().out)["verdicts"] == []


def test_a_table_of_tasks_goes_through_the_two_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    table, out = tmp_path / "tasks.csv", tmp_path / "out"
    task_ladder(noise=0.005).to_csv(table, index=False)
    how = ("--table", table, "--replicates", "2", "--out", out)
    assert ladder_script(*how) == 2
    assert "--target: say which model to predict" in capsys.readouterr().err
    assert ladder_script(*how, "--target", "large=1e10,1e11") == 0
    assert "large" in capsys.readouterr().out
    assert set(pd.read_csv(out / "predictions.csv")["model"]) == {"large"}
    assert list(pd.read_csv(out / "step2.csv")["task"]) == ["hellaswag_val", "piqa_val"]
    assert (out / "step1.json").is_file()
    assert (out / "ladder.png").stat().st_size > 10_000


def test_losses_carry_the_unit_of_their_table(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    table = RunTable.load(folder / "table")
    how = ("--replicates", "2", "--law", "no_mixture", "--out", tmp_path / "out")
    for unit, said in (("nats", "losses: nats"), ("bits_per_byte", "losses: bits a byte")):
        file = tmp_path / f"{unit}.csv"
        table.losses.assign(unit=unit).to_csv(file, index=False)
        assert ladder_script("--table", file, *how) == 0
        assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runs", "nowhere"], "--runs nowhere: no such folder"),
        (["--target", "big"], "--target 'big': expected PARAMETERS,TOKENS"),
        (["--runs", "FOLDER", "--law", "two_step"], "--law two_step: needs a table of tasks"),
        (["--law", "transfer"], "a table of tasks takes two_step"),
        (["--replicates", "-1"], "--replicates -1: must not be negative"),
        (["--runs", "a", "--table", "b"], "give one of them"),
        (["--runs", "FOLDER", "--chance", "a=0.5"], "--chance: is for a table of tasks"),
        (["--chance", "a=high"], "--chance: expected NAME=NUMBER"),
    ],
)
def test_mistakes_are_refused(
    folder: Path, capsys: pytest.CaptureFixture, arguments: list[str], message: str
) -> None:
    assert ladder_script(*(folder if a == "FOLDER" else a for a in arguments)) == 2
    assert message in capsys.readouterr().err


def test_without_a_checkout_a_table_must_be_named(capsys: pytest.CaptureFixture) -> None:
    assert run(fit_ladder, []) == 2
    assert "--runs or --table: give one of them" in capsys.readouterr().err


def exported(folder: Path) -> Path:
    """The invented ladder as the tracker exports it: a file a run, with its own names."""
    folder.mkdir()
    for run_id, part in task_ladder(noise=0.005).groupby("run_id"):
        wide = part.pivot(index="D", columns="task", values=["bpb", "accuracy"])
        columns = {"throughput/total_tokens": wide.index}
        for task in ("piqa_val", "hellaswag_val"):
            columns[f"eval/downstream_bpb/{task}_rc_5shot_bpb"] = wide["bpb", task]
            columns[f"eval/downstream/{task}_rc_5shot_len_norm"] = wide["accuracy", task]
        name = f"{part['N'].iloc[0] / 1e6:.0f}X-{run_id}.csv"
        pd.DataFrame(columns).to_csv(folder / name, index=False)
    return folder


def test_the_ladders_own_files_are_read(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    table, out = exported(tmp_path / "runs"), tmp_path / "out"
    how = ("--table", table, "--replicates", "2", "--out", out, "--target", "large=1e10,1e11")
    assert ladder_script(*how) == 2
    assert "doesn't say the model's parameters" in capsys.readouterr().err
    sizes = [word for n in (100, 300, 1000, 3000) for word in ("--size", f"{n}X={n}e6")]
    assert ladder_script(*how, *sizes) == 0
    assert "12 runs, parameters: 1000X-1e+09-1e+10 = 1,000,000,000;" in capsys.readouterr().out
    assert set(pd.read_csv(out / "predictions.csv")["task"]) == {
        "hellaswag_val_5shot",
        "piqa_val_5shot",
    }
    (table / "notes.csv").write_text("a\n1\n")
    assert ladder_script(*how, *sizes) == 2
    assert "notes.csv: isn't a run of the ladder like" in capsys.readouterr().err


def test_percent_and_unknown_chance_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    frame = task_ladder(noise=0.005)
    table, out = tmp_path / "tasks.csv", tmp_path / "out"
    how = ("--table", table, "--replicates", "2", "--out", out, "--target", "1e10,1e11")
    frame.assign(accuracy=100 * frame["accuracy"]).to_csv(table, index=False)
    assert ladder_script(*how) == 2
    error = capsys.readouterr().err
    assert f"{table}: line 2, column 'accuracy': " in error
    assert "divide percent by 100" in error
    frame.assign(task=frame["task"] + "s").replace({"piqa_vals": "riddles"}).to_csv(table)
    assert ladder_script(*how) == 2
    assert "chance isn't known: riddles; " in capsys.readouterr().err
    assert not out.exists()
    assert ladder_script(*how, "--chance", "riddles=0.5") == 0
    floors = pd.read_csv(out / "step2.csv").set_index("task")["chance"]
    assert floors.to_dict() == {"hellaswag_vals": 0.25, "riddles": 0.5}


def test_what_the_intervals_leave_out_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    frame = task_ladder(noise=0.005)
    near = frame.assign(N=frame["N"].rank(method="dense") * 4e7 + 1e9)
    table = tmp_path / "tasks.csv"
    near.to_csv(table, index=False)
    how = ("--table", table, "--out", tmp_path / "out", "--target", "1e10,1e11")
    assert ladder_script(*how, "--replicates", "3") == 0
    said = capsys.readouterr().out
    assert "fewer than three sizes are apart (by 15%)" in said
    assert "take what it does on public ladders" in said
    assert ladder_script(*how, "--replicates", "0") == 0
    said = capsys.readouterr().out
    assert "there are no intervals" in said
    assert "none" in said
    assert pd.read_csv(tmp_path / "out" / "predictions.csv")["low"].isna().all()


@pytest.mark.slow
def test_the_script_with_no_arguments(tmp_path: Path) -> None:
    assert ladder_script("--out", tmp_path) == 0
    table = pd.read_csv(tmp_path / "predictions.csv")
    mean = table.assign(error=table["error"].abs()).groupby("model")["error"].mean()
    # The ladder's authors have 5.85 and 6.04 %.
    assert mean["7B-4T"] <= 5.85
    assert mean["13B-5T"] <= 6.04
