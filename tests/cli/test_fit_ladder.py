"""`scripts/fit_ladder.py` and its command."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pandas as pd
import pytest
from law_tables import task_ladder

from olmo_mixlaw.cli.app import run
from olmo_mixlaw.cli.fit_ladder import fit_ladder

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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runs", "nowhere"], "--runs nowhere: no such folder"),
        (["--target", "big"], "--target 'big': expected PARAMETERS,TOKENS"),
        (["--runs", "FOLDER", "--law", "two_step"], "--law two_step: needs a table of tasks"),
        (["--law", "transfer"], "a table of tasks takes two_step"),
        (["--replicates", "-1"], "--replicates -1: must not be negative"),
        (["--runs", "a", "--table", "b"], "give one of them"),
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


@pytest.mark.slow
def test_the_script_with_no_arguments(tmp_path: Path) -> None:
    assert ladder_script("--out", tmp_path) == 0
    table = pd.read_csv(tmp_path / "predictions.csv")
    mean = table.assign(error=table["error"].abs()).groupby("model")["error"].mean()
    # The ladder's authors have 5.85 and 6.04 %.
    assert mean["7B-4T"] <= 5.85
    assert mean["13B-5T"] <= 6.04
