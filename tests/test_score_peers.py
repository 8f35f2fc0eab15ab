"""The methods that scores are compared with find their own truth, and figures are exact."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import score_figures
import score_peers
import tables

N, D = (x.ravel() for x in np.meshgrid([1e8, 2e8, 4e8, 8e8], [2e9, 6e9, 2e10]))
ASKED = pd.DataFrame({"task": "piqa", "N": [3e9], "D": [1e11]}, index=[7])


def runs(task: str = "piqa", floor: float = 0.5) -> pd.DataFrame:
    """A table whose losses follow a power law, and accuracies a sigmoid of them."""
    loss = 0.6 + 0.3 * (N / 1e9) ** -0.3 + 0.2 * (D / 1e10) ** -0.4
    accuracy = floor + (0.95 - floor) / (1 + np.exp(4 * (loss - 1.1)))
    names = [f"run{i}" for i in range(len(N))]
    return pd.DataFrame(
        {"run_id": names, "N": N, "D": D, "task": task, "bpb": loss, "accuracy": accuracy}
    )


def test_the_ladders_two_steps_find_a_larger_model() -> None:
    loss = 0.6 + 0.3 * 3**-0.3 + 0.2 * 10**-0.4
    found = score_peers.ladder(runs(), ASKED, "bpb", smooth=False).loc[7]
    # The end of a fit with Huber's bend at a thousandth is flat: E and the powers trade places.
    assert found["bpb"] == pytest.approx(loss, rel=0.005)
    assert found["accuracy"] == pytest.approx(0.5 + 0.45 / (1 + np.exp(4 * (loss - 1.1))), abs=3e-3)


def test_checkpoints_are_smoothed_and_the_first_of_a_run_left_out() -> None:
    frame = pd.concat([runs().assign(D=D * part) for part in np.arange(1, 21) / 20])
    frame.loc[frame["D"] <= 0.1 * frame.groupby("run_id")["D"].transform("max"), "accuracy"] = 1.0
    loss, _ = score_peers._checkpoints(
        frame.sort_values(["run_id", "D"]).assign(bpb=1.0), "bpb", smooth=True
    )
    assert len(loss) == 18 * len(N)
    np.testing.assert_allclose(loss, 1.0)


def test_the_direct_law_finds_a_larger_model() -> None:
    way = np.exp(-(0.5 * (N / 1e9) ** -0.3 + 0.4 * (D / 1e10) ** -0.4))
    frame = runs().assign(accuracy=0.5 + 0.5 * way)
    found = score_peers.direct(frame, ASKED, {"piqa": 0.5}, smooth=False)
    true = 0.5 + 0.5 * np.exp(-(0.5 * 3**-0.3 + 0.4 * 10**-0.4))
    assert found[7] == pytest.approx(true, abs=2e-3)
    at_chance = frame.assign(accuracy=0.5)
    assert score_peers.direct(at_chance, ASKED, {"piqa": 0.5}, smooth=False).isna().all()


def test_figures_of_a_guess() -> None:
    truth = pd.DataFrame({"task": "a", "N": 1.0, "accuracy": [0.2, 0.4, 0.5, np.nan]})
    score = pd.Series([0.22, 0.38, np.nan, 0.3])
    guess = score_figures.Guess(score, score - 0.03, score - 0.01)
    found = score_figures.figures(truth, guess)
    assert found["mre"] == pytest.approx(7.5)
    assert found["bias"] == pytest.approx(2.5)
    assert found["mae"] == pytest.approx(0.02)
    assert found["coverage"] == pytest.approx(0.5)
    assert found["answered"] == pytest.approx(2 / 3)


def test_every_method_is_scored_on_the_last_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "FOLDERS", [tmp_path])
    tasks = (("piqa", 0.5), ("arc_easy", 0.25))
    frame = pd.concat([runs(task, floor) for task, floor in tasks])
    frame = frame.assign(
        run_id=frame["N"].map("m{:g}".format),
        checkpoint=frame["D"].map("{:g}".format),
        answer_loss=frame["bpb"],
    )
    frame.to_csv(tmp_path / "p14_gemstones_tasks.csv.gz", index=False)
    parts = list(score_figures.gemstone_parts())
    _, train, held = parts[-2]
    methods = score_figures.task_methods(score_figures.CONSTANT_RATE)(2)
    off = {
        name: score_figures.figures(held, method(train, held.drop(columns="accuracy")))
        for name, method in methods.items()
    }
    assert off["two_step"]["mre"] < 1
    assert off["ladder's authors"]["mre"] < 1
    assert off["two_step"]["coverage"] == 1
    assert off["two_step"]["mre"] < off["the largest run's"]["mre"]
