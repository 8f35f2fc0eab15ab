"""The two-step law: recovers its own curves, refuses bad tables, and the script's table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from law_tables import task_ladder

from olmo_mixlaw.advice.two_step import chance_floor, fit_two_step, fit_with_replicates
from olmo_mixlaw.errors import DataError, FitError

LADDER = Path(__file__).resolve().parents[2] / "benchmarks" / "data" / "p6_olmo_ladder.csv.gz"


def test_a_larger_model_is_predicted() -> None:
    chain = fit_two_step(task_ladder(noise=0.003))
    loss, accuracy = chain.predict(2e10, 1e12)
    for t, (lo, e) in enumerate(((0.25, 0.4), (0.5, 0.5))):
        true_loss = e + 0.3 * 20**-0.3 + 0.25 * 100**-0.35
        true = lo + (0.95 - lo) / (1 + np.exp(4 * (true_loss - 1.0)))
        assert chain.tasks[t].startswith(("hellaswag", "piqa")[t])
        assert loss[0, t] == pytest.approx(true_loss, rel=0.03)
        assert accuracy[0, t] == pytest.approx(true, rel=0.03)


def test_accuracy_stays_between_chance_and_one() -> None:
    chain = fit_two_step(task_ladder())
    low, high = chain.accuracy(np.array([[50.0, 50.0], [-50.0, -50.0]]))
    np.testing.assert_allclose(low, [0.25, 0.5], atol=1e-6)
    assert (high <= 1).all()


def test_replicates_spread_around_the_fit() -> None:
    chain, others = fit_with_replicates(task_ladder(noise=0.01), replicates=8)
    draws = np.array([o.predict(1e10, 1e12)[1][0] for o in others])
    assert (draws.std(0) > 0).all()
    assert np.abs(draws.mean(0) - chain.predict(1e10, 1e12)[1][0]).max() < 0.05


def test_tasks_at_chance_are_named() -> None:
    frame = task_ladder()
    frame.loc[frame["task"] == "piqa_val", "accuracy"] = 0.5
    assert fit_two_step(frame).unlearnt == ["piqa_val"]


def test_chance_floors_are_known() -> None:
    assert chance_floor("piqa_val_5shot") == 0.5
    assert chance_floor("csqa_val_5shot") == 0.2
    assert chance_floor("essays") == 0.0
    assert chance_floor("essays", {"essay": 0.1}) == 0.1


def test_bad_tables_are_refused() -> None:
    with pytest.raises(DataError, match="column 'accuracy' is missing"):
        fit_two_step(task_ladder().drop(columns="accuracy"))
    frame = task_ladder()
    frame.loc[4, "bpb"] = np.nan
    with pytest.raises(DataError, match="line 6, column 'bpb'"):
        fit_two_step(frame)
    single = task_ladder()
    with pytest.raises(FitError, match="1 sizes"):
        fit_two_step(single[single["N"] == 1e8])


@pytest.mark.slow
def test_the_ladders_own_largest_size_is_predicted_from_the_smaller() -> None:
    frame = pd.read_csv(LADDER)
    small, large = frame[frame["N"] < 1.2e9], frame[frame["N"] >= 1.2e9]
    chain = fit_two_step(small)
    last = large.sort_values("D").groupby(["run_id", "task"]).tail(5)
    truth = last.groupby(["run_id", "task"])["accuracy"].mean().unstack()[chain.tasks]
    ends = large.groupby("run_id")[["N", "D"]].max().loc[truth.index]
    guess = chain.predict(ends["N"].to_numpy(), ends["D"].to_numpy())[1]
    assert np.abs(guess / truth.to_numpy() - 1).mean() < 0.03
