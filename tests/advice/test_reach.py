"""How far the form of the two-step law errs: found on held-out sizes, growing with the reach."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from law_tables import task_ladder

from olmo_mixlaw.advice.ladder import Target, predict_tasks
from olmo_mixlaw.advice.reach import USUAL_SCALE, Edge, FormError, form_error, groups_of, to_logit
from olmo_mixlaw.advice.two_step import TwoStepOptions, checked_tasks


def test_a_law_that_is_true_errs_little_and_a_false_one_much() -> None:
    options = TwoStepOptions()
    true = form_error(checked_tasks(task_ladder(noise=0.002)), options)
    bent = task_ladder(noise=0.002)
    # Accuracy stops rising with size: no sigmoid of a falling loss does that.
    bent["accuracy"] = np.where(bent["N"] > 5e8, 0.9, 1.0) * bent["accuracy"]
    false = form_error(checked_tasks(bent), options)
    assert true.measured
    assert false.measured
    assert (false.scale > 1.5 * true.scale).all()


def test_intervals_widen_with_the_reach_and_stay_between_chance_and_one() -> None:
    form = FormError(np.array([0.5, 1.0]), 5.0, Edge(np.log(1e9), np.log(1e19), np.log(1e3)))
    reach = form.reach(np.array([1e8, 1e9, 1e10]), np.array([1e10, 1e11, 1e12]))
    assert reach[0] == 0
    assert reach[2] > reach[1] > 0
    floors, rng = np.array([0.25, 0.0]), np.random.default_rng(0)
    middle = np.tile([0.6, 0.5], (3, 1))
    draws = np.array([form.draw(middle, floors, reach, rng) for _ in range(500)])
    assert (draws >= floors).all()
    assert (draws <= 1).all()
    spread = draws.std(0)
    assert (spread[0] < 1e-9).all()
    assert (spread[2] > 1.5 * spread[1]).all()


def test_two_sizes_leave_nothing_to_hold_out() -> None:
    frame = task_ladder()
    two = checked_tasks(frame[frame["N"] < 5e8])
    found = form_error(two, TwoStepOptions())
    assert not found.measured
    np.testing.assert_array_equal(found.scale, [USUAL_SCALE, USUAL_SCALE])


def test_a_larger_size_is_beyond_the_runs_whatever_its_compute() -> None:
    edge = Edge(np.log(1e9), np.log(1e20), np.log(1e4))
    small, large, long = edge.reach(np.array([1e8, 1e10, 1e9]), np.array([1e11, 1e9, 1e13]))
    assert small == 0
    assert large == pytest.approx(1 / 4)
    assert long == pytest.approx(2 / 4)


def test_intervals_hold_a_larger_model_whose_scores_the_law_does_not_describe() -> None:
    frame = task_ladder(noise=0.003)
    frame["accuracy"] *= 1 - 0.02 * np.log(frame["N"] / 1e8)
    _, result = predict_tasks(frame, [Target("large", 1e10, 1e12)], replicates=20)
    inside = []
    for row in result.itertuples():
        lo, e = (0.5, 0.5) if row.task.startswith("piqa") else (0.25, 0.4)
        loss = e + 0.3 * 10**-0.3 + 0.25 * 100**-0.35
        true = (lo + (0.95 - lo) / (1 + np.exp(4 * (loss - 1.0)))) * (1 - 0.02 * np.log(100))
        inside.append(row.low <= true <= row.high)
    assert all(inside)


def test_the_overflow_of_whole_numbers_is_avoided() -> None:
    form = FormError(np.ones(1), 5.0, Edge(5.0, 10.0, 5.0))
    assert np.isfinite(form.reach(np.array([7_000_000_000]), np.array([4_000_000_000_000]))).all()
    whole = task_ladder()[["N", "D"]].astype("int64")
    frame = task_ladder().assign(N=whole["N"], D=whole["D"])
    error = form_error(checked_tasks(frame), TwoStepOptions())
    assert np.isfinite(error.scale).all()
    assert isinstance(frame, pd.DataFrame)


def test_a_logit_is_kept_off_chance_and_one() -> None:
    assert np.isfinite(to_logit(np.array([0.2, 1.0]), np.array([0.25, 0.25]))).all()


def test_near_equal_sizes_are_one_and_say_nothing_of_the_form() -> None:
    sizes = np.linspace(1e9, 1.12e9, 19)
    assert [len(group) for group in groups_of(sizes)] == [19]
    assert [len(group) for group in groups_of(np.array([1e8, 1.1e8, 2e8, 1.2e8, 2.2e8]))] == [
        2,
        1,
        2,
    ]
    frame = task_ladder(noise=0.02, checkpoints=2)
    rows = [
        frame[frame["N"] == 1e9].assign(N=s, run_id=lambda f, s=s: f"{s}" + f["run_id"])
        for s in sizes
    ]
    near = pd.concat(rows, ignore_index=True)
    assert not form_error(checked_tasks(near), TwoStepOptions()).measured
    chain, result = predict_tasks(near, [Target("large", 4e9, 4e11)], replicates=10)
    assert not result.attrs["form_error"]
    assert (result["high"] < 1).all()
    assert (result["low"] > chain.floors + 0.1).all()


def test_the_noise_of_scores_is_not_taken_for_an_error_of_the_form() -> None:
    # Two large sizes that are just apart: a reach so short that noise over it is huge.
    frame = task_ladder(noise=0.03, checkpoints=4)
    frame = frame[frame["N"] < 3e9]
    twin = frame[frame["N"] == 1e9].assign(N=1.2e9)
    twin["run_id"] += "-twin"
    error = form_error(checked_tasks(pd.concat([frame, twin])), TwoStepOptions())
    assert error.measured
    assert (error.scale < 3).all()


@pytest.mark.parametrize("seed", range(3))
def test_a_prediction_lies_in_its_own_interval(seed: int) -> None:
    frame = task_ladder(noise=0.05, checkpoints=2)
    frame["accuracy"] = frame["accuracy"].clip(upper=1.0)
    targets = [Target("near", 4e9, 1e11), Target("far", 1e11, 1e13)]
    _, result = predict_tasks(frame, targets, replicates=3, seed=seed)
    assert (result["low"] <= result["predicted"]).all()
    assert (result["predicted"] <= result["high"]).all()
