"""The two-step law: recovers its own curves, refuses bad tables, and the script's table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from law_tables import task_ladder

from olmo_mixlaw.advice.curve import CHANCE, chance_floor
from olmo_mixlaw.advice.two_step import fit_two_step, fit_with_replicates
from olmo_mixlaw.errors import DataError, FitError

LADDER = Path(__file__).resolve().parents[2] / "benchmarks" / "data" / "p6_olmo_ladder.csv.gz"


def test_a_larger_model_is_predicted() -> None:
    """The prior expects a higher ceiling than this table's .95: the farther, the more is missed."""
    chain = fit_two_step(task_ladder(noise=0.003))
    for n, d, most in ((5e9, 3e11, 0.02), (2e10, 1e12, 0.04)):
        loss, accuracy = chain.predict(n, d)
        for t, (lo, e) in enumerate(((0.25, 0.4), (0.5, 0.5))):
            true_loss = e + 0.3 * (n / 1e9) ** -0.3 + 0.25 * (d / 1e10) ** -0.35
            true = lo + (0.95 - lo) / (1 + np.exp(4 * (true_loss - 1.0)))
            assert chain.tasks[t].startswith(("hellaswag", "piqa")[t])
            assert loss[0, t] == pytest.approx(true_loss, rel=0.03)
            assert accuracy[0, t] == pytest.approx(true, rel=most)


def test_accuracy_stays_between_chance_and_one() -> None:
    chain = fit_two_step(task_ladder())
    low, high = chain.accuracy(np.array([[50.0, 50.0], [-50.0, -50.0]]))
    np.testing.assert_allclose(low, chain.parameters()["lo"], atol=1e-6)
    # The table's own floors are those of chance: nothing moves them by more than a prior's spread.
    np.testing.assert_allclose(low, [0.25, 0.5], atol=0.03)
    assert (high <= 1).all()


def test_replicates_spread_around_the_fit() -> None:
    chain, others = fit_with_replicates(task_ladder(noise=0.01), replicates=8)
    draws = np.array([o.predict(1e10, 1e12)[1][0] for o in others])
    assert (draws.std(0) > 0).all()
    off = np.abs(draws.mean(0) - chain.predict(1e10, 1e12)[1][0])
    assert (off < 3 * draws.std(0)).all()


def test_checkpoints_of_one_model_are_drawn_together() -> None:
    frame = task_ladder(noise=0.01)
    frame["run_id"] += frame["D"].map("@{:g}".format)
    # All of one model: every draw is the whole table. Each its own: draws differ.
    for cluster, spreads in (("one", False), (frame["run_id"], True)):
        _, others = fit_with_replicates(frame.assign(cluster=cluster), replicates=4)
        draws = np.array([o.predict(1e10, 1e12)[1][0] for o in others])
        assert (np.ptp(draws, axis=0) > 1e-6).all() == spreads


def test_tasks_at_chance_are_named() -> None:
    frame = task_ladder()
    frame.loc[frame["task"] == "piqa_val", "accuracy"] = 0.5
    assert fit_two_step(frame).unlearnt == ["piqa_val"]


def test_chance_floors_are_known() -> None:
    assert chance_floor("piqa_val_5shot") == 0.5
    assert chance_floor("csqa_val_5shot") == 0.2
    with pytest.raises(DataError, match=r"chance isn't known: essays; .* --chance essays=0\.25"):
        chance_floor("essays")
    assert chance_floor("essays", {"essay": 0.1}) == 0.1


@pytest.mark.parametrize(
    ("task", "chance"),
    [
        ("sciq::olmes", 0.25),
        ("copa", 0.5),
        ("social_iqa", 1 / 3),
        ("commonsense_qa:rc::olmes", 0.2),
        ("leaderboard|arc:challenge|25", 0.25),
        ("mmlu_astronomy:mc", 0.25),
        ("gsm8k::olmes", 0.0),
        ("bio_recall:birth_city", 0.0),
    ],
)
def test_chance_is_known_under_the_names_of_every_evaluator(task: str, chance: float) -> None:
    assert chance_floor(task) == pytest.approx(chance)


@pytest.mark.parametrize("task", ["mmlu_pro_law", "copal", "bio_recall:mc", "squad:mc::gen2mc"])
def test_a_name_that_only_begins_like_a_known_one_is_not_known(task: str) -> None:
    with pytest.raises(DataError, match=f"chance isn't known: {task}"):
        chance_floor(task)
    # What the command line adds to its own is still ours, not the user's word on other tasks.
    with pytest.raises(DataError):
        chance_floor(task, CHANCE)
    assert chance_floor(task, {**CHANCE, task: 0.1}) == 0.1


def test_tasks_without_a_chance_are_all_named_and_a_wrong_one_is_refused() -> None:
    frame = task_ladder()
    frame["task"] = frame["task"].replace({"piqa_val": "riddles", "hellaswag_val": "puzzles"})
    with pytest.raises(DataError, match=r"isn't known: (puzzles|riddles), (puzzles|riddles); "):
        fit_two_step(frame)
    with pytest.raises(DataError, match="chance of riddles: 25: expected a share of 1"):
        fit_two_step(frame, chance={"riddles": 25, "puzzles": 0.25})


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("accuracy", 45.2, r"line 6, column 'accuracy': 45\.2 is not a share of 1 .* by 100"),
        ("accuracy", -0.1, r"line 6, column 'accuracy': -0\.1 is not a share"),
        ("bpb", 0.0, r"line 6, column 'bpb': 0\.0 must be more than 0"),
        ("D", float("inf"), r"line 6, column 'D': inf is not a number"),
        ("N", "100M", r"line 6, column 'N': '100M' is not a number"),
        ("N", 5e8, r"line 6, column 'N': 500000000\.0 is not the size of this run's first line"),
    ],
)
def test_values_that_can_not_be_are_refused(column: str, value: object, message: str) -> None:
    frame = task_ladder().astype({column: object})
    frame.loc[4, column] = value
    with pytest.raises(DataError, match=message):
        fit_two_step(frame)


def test_percent_is_refused_and_text_that_is_a_number_is_read() -> None:
    frame = task_ladder()
    with pytest.raises(DataError, match=r"line 2, column 'accuracy': .* divide percent by 100"):
        fit_two_step(frame.assign(accuracy=100 * frame["accuracy"]))
    text = frame.assign(accuracy=frame["accuracy"].map(repr))
    np.testing.assert_allclose(
        fit_two_step(text).curves.theta, fit_two_step(frame).curves.theta, rtol=1e-6
    )


def test_a_checkpoint_that_stands_twice_is_refused() -> None:
    frame = task_ladder()
    with pytest.raises(DataError, match=r"column 'D': .* stands twice for this run and task"):
        fit_two_step(pd.concat([frame, frame.iloc[:1]]))


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
