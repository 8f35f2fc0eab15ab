"""`olmo-mixlaw predict`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

Command = Callable[..., int]


def test_rows_are_predicted_in_their_order(folder: Path, fitted: Path, mixlaw: Command) -> None:
    measured = pd.read_csv(folder / "table" / "losses.csv")
    query, out = folder / "q.csv", folder / "p.csv"
    asked = measured.drop(columns="loss").sample(frac=1, random_state=0)
    asked.to_csv(query, index=False)
    assert mixlaw("predict", fitted, "--query", query, "--out", out) == 0
    result = pd.read_csv(out)
    assert list(result["run_id"]) == list(asked["run_id"])
    truth = measured.set_index(["run_id", "domain"])["loss"]
    guess = result.set_index(["run_id", "domain"])["loss"]
    assert np.abs(guess / truth.loc[guess.index] - 1).mean() < 0.01


def test_predictions_with_intervals_hold_the_truth(
    folder: Path, fitted: Path, mixlaw: Command
) -> None:
    query, out = folder / "table" / "losses.csv", folder / "p.csv"
    for extra in (("--interval",), ("--bootstrap", 20, "--table", folder / "table")):
        assert mixlaw("predict", fitted, "--query", query, "--out", out, *extra) == 0
        frame, truth = pd.read_csv(out), pd.read_csv(query)["loss"]
        assert (frame["low"] < frame["loss"]).all()
        assert (frame["loss"] < frame["high"]).all()
        inside = ((frame["low"] <= truth) & (truth <= frame["high"])).mean()
        assert inside > 0.75


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"domain": "essays"}, "column 'domain': 'essays': was not fitted (known: web, code"),
        ({"domain": 3}, "q.csv: line 2, column 'domain': '3': was not fitted"),
        ({"domain": 2.5}, "q.csv: line 2, column 'domain': 2.5: is a number, and no name"),
        ({"domain": ""}, "q.csv: line 2, column 'domain': nan: is missing"),
        ({"n_params": 0.4}, "q.csv: line 2, column 'n_params': 0.4: is below 1"),
        ({"w_web": None}, "column 'w_web' is missing"),
        ({"w_web": "70%"}, "q.csv: line 2, column 'w_web': '70%': is not a number; write 0.7"),
        ({"w_web": 2.0}, "q.csv: line 2: the weights"),
        ({"w_web": -0.5}, "q.csv: line 2, column 'w_web'"),
        ({"n_params": "150M"}, "q.csv: line 2, column 'n_params': '150M': is not a number"),
        ({"n_params": float("inf")}, "must be positive and finite"),
        ({"w_essays": 0.1}, "column 'w_essays': 0.1: the fit has no such domain"),
    ],
)
def test_a_query_that_the_fit_cant_answer_is_refused(
    folder: Path,
    fitted: Path,
    mixlaw: Command,
    capsys: pytest.CaptureFixture,
    change: dict[str, str | float | None],
    message: str,
) -> None:
    query = folder / "q.csv"
    frame = pd.read_csv(folder / "table" / "losses.csv").assign(**change)
    frame.drop(columns=[c for c, v in change.items() if v is None]).to_csv(query, index=False)
    assert mixlaw("predict", fitted, "--query", query, "--out", folder / "p.csv") == 2
    assert message in capsys.readouterr().err
    assert not (folder / "p.csv").exists()


def test_rounded_weights_are_rescaled_when_asked(
    folder: Path, fitted: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    query, out = folder / "q.csv", folder / "p.csv"
    frame = pd.read_csv(folder / "table" / "losses.csv").head(4)
    weights = [c for c in frame if c.startswith("w_")]
    frame.assign(**{c: frame[c] * 0.998 for c in weights}).to_csv(query, index=False)
    asked = ("predict", fitted, "--query", query, "--out", out)
    assert mixlaw(*asked) == 2
    assert "sum to 0.998" in capsys.readouterr().err
    assert mixlaw(*asked, "--weight-tolerance", 0.01) == 0
    rescaled = pd.read_csv(out)["loss"]
    frame.to_csv(query, index=False)
    assert mixlaw(*asked) == 0
    pd.testing.assert_series_equal(pd.read_csv(out)["loss"], rescaled)
