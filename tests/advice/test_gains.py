"""What a mixture gains over another: means, families, intervals of the difference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from law_tables import DOMAINS, grid, score_of, scored_study, transfer_losses

from olmo_mixlaw.advice.families import Families, Family
from olmo_mixlaw.advice.gains import Luck, gains, luck_of, paired_draws, refits_of, usual_mixture
from olmo_mixlaw.advice.scores import Scores, fit_scores
from olmo_mixlaw.laws.fitted import Fit

CHANCE = {"quiz": 0.25, "coding": 0.25}
N, D = 1.6e8, 1e9
Made = tuple[Scores, list[Fit], Luck]
TASKS = ["a", "b", "c", "d"]


@pytest.fixture(scope="module")
def scored() -> Made:
    table = scored_study()
    found = fit_scores(table, "transfer", chance=CHANCE)
    return found, list(refits_of(found, table, 20)), luck_of(found, table)


def made_draws(seed: int = 0, size: int = 4000) -> np.ndarray:
    """Draws (2, S, 4) that share most of their error, and differ by .02, 0, -.01 and .03."""
    rng = np.random.default_rng(seed)
    common = 0.1 * rng.normal(size=(size, 4))
    own = 0.002 * rng.normal(size=(2, size, 4))
    level = np.array([0.5, 0.4, 0.3, 0.6])
    after = level + np.array([0.02, 0, -0.01, 0.03])
    return np.stack([level + common + own[0], after + common + own[1]])


def test_the_interval_is_that_of_the_difference() -> None:
    draws = made_draws()
    means = draws.mean(1)
    found = gains(means, draws, TASKS, dict.fromkeys(TASKS, 0.25))
    rows = found.tasks.set_index("task")
    np.testing.assert_allclose(rows["gain"], [0.02, 0, -0.01, 0.03], atol=2e-4)
    # 1.645 sqrt(2) .002 to either side, where each score by itself is known to +-.16.
    np.testing.assert_allclose(rows["high"] - rows["low"], 2 * 1.645 * np.sqrt(2) * 0.002, rtol=0.1)
    assert rows.loc["c", "high"] < 0 < rows.loc["a", "low"]


def test_families_and_the_mean_weigh_their_tasks() -> None:
    families = Families("g", (Family("x", 3.0, {"a": 1, "b": 2}), Family("y", 1.0, {"c": 1})))
    members = families.among(TASKS)
    weights = members.task_weights(TASKS)
    draws = made_draws()
    found = gains(draws[:, 0], draws, TASKS, weights, members)
    rows = found.tasks.set_index("task")
    assert list(rows["family"]) == ["x", "x", "y", ""]
    assert rows.loc["d", "weight"] == 0
    x, y = found.families.to_dict("records")
    assert x["gain"] == pytest.approx((rows.loc["a", "gain"] + 2 * rows.loc["b", "gain"]) / 3)
    assert (x["weight"], y["weight"]) == pytest.approx((0.75, 0.25))
    assert found.mean["gain"] == pytest.approx(0.75 * x["gain"] + 0.25 * y["gain"])
    assert y["low"] == rows.loc["c", "low"]
    assert found.mean["best"] - found.mean["current"] == pytest.approx(found.mean["gain"])


def test_a_prediction_is_never_outside_its_interval() -> None:
    draws = made_draws()
    found = gains(draws[:, 0] + [[0.0], [0.5]], draws, TASKS, {"a": 1.0})
    assert (found.tasks["high"] >= found.tasks["gain"]).all()
    assert found.mean["high"] >= found.mean["gain"]


def test_of_one_mixture_written_twice_nothing_differs(scored: Made) -> None:
    found, refits, luck = scored
    same = np.full((2, 4), 0.25)
    draws = paired_draws(found, refits, same, N, D, luck=luck)
    np.testing.assert_allclose(draws[0], draws[1], rtol=1e-9)
    assert draws[0].std(0).min() > 0  # the score itself is not known exactly


def test_draws_are_the_same_for_the_same_seed(scored: Made) -> None:
    found, refits, luck = scored
    two = np.random.default_rng(0).dirichlet(np.ones(4), 2)
    first, again = (paired_draws(found, refits, two, N, D, luck=luck, seed=3) for _ in range(2))
    np.testing.assert_allclose(first, again, rtol=1e-9)
    assert ((first >= 0) & (first <= 1)).all()


def test_intervals_hold_the_gains_of_new_runs(scored: Made) -> None:
    found, refits, luck = scored
    rng = np.random.default_rng(5)
    held = []
    for seed in range(40):
        two = rng.dirichlet(np.full(4, 1.5), 2)
        runs = replace(grid(sizes=1, mixtures=2), ratios=two, n_params=np.full(2, N))
        losses = transfer_losses(replace(runs, n_active=runs.n_params), 0.004, seed).losses
        truth = np.diff([score_of(losses, task) for task in found.law.tasks])[:, 0]
        draws = paired_draws(found, refits, two, N, D, luck=luck, seed=seed)
        rows = gains(found.predict(two, N, D), draws, found.law.tasks, {"quiz": 1.0}).tasks
        held.append((rows["low"] <= truth) & (truth <= rows["high"]))
    # All pairs share one table, and so its luck; `benchmarks/gains.py` has twenty.
    assert 0.7 <= np.mean(held) <= 0.99


def test_the_usual_mixture() -> None:
    design = grid(sizes=2, mixtures=6)
    mean, why = usual_mixture(design)
    np.testing.assert_allclose(mean, design.ratios[:6].mean(0))
    assert why == "the mean of the 6 mixtures tried"
    often = np.r_[np.arange(6), [2, 2]]
    found, why = usual_mixture(design.take(often))
    np.testing.assert_array_equal(found, design.ratios[2])
    assert why == "the mixture that 3 runs have"
    assert usual_mixture(design.take(np.array([0, 6])))[1] == "the only mixture tried"
    assert len(mean) == len(DOMAINS)


def test_the_figure_has_a_row_a_task_and_families_together(tmp_path: Path) -> None:
    from olmo_mixlaw.report import law_figures, score_figures

    families = Families("g", (Family("x", 3.0, {"d": 1, "b": 2}), Family("y", 1.0, {"c": 1})))
    members = families.among(TASKS)
    draws = made_draws(size=50)
    weights = members.task_weights(TASKS)
    found = gains(draws[:, 0], draws, TASKS, weights, members)
    figure = score_figures.gains_figure(found, "gains")
    labels = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert labels == ["weighted mean", "x", "b", "d", "y", "c", "a"]
    assert law_figures.save(figure, tmp_path / "g.png").stat().st_size > 5000
