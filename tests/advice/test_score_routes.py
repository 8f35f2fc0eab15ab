"""Routes to a score: each recovered where it is true, refused where its sign is wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from law_tables import grid, score_of, scored_study, table_of, transfer_losses

from olmo_mixlaw.advice.score_table import read_scores
from olmo_mixlaw.advice.scores import Scores, fit_scores
from olmo_mixlaw.advice.scores.by_size import fit_by_size
from olmo_mixlaw.advice.scores.interval import Calibration
from olmo_mixlaw.advice.scores.routes import order
from olmo_mixlaw.errors import ConfigError, FitError
from olmo_mixlaw.runs import Design, RunTable

CHANCE = {"quiz": 0.25, "coding": 0.25}
INSTANCES = 100_000
# A mean of so many answers is off by .0016 at most; the routes' own error comes on top.
NEAR = 0.01


def study(*tasks: tuple[str, np.ndarray, np.ndarray | None], sizes: int = 3) -> RunTable:
    """The study's runs with `(task, score, own loss or None)`, scores exact but for rounding."""
    design = runs(sizes)
    rows = []
    for task, score, loss in tasks:
        for i, run in enumerate(design.run_ids):
            row = {"run_id": run, "n_params": design.n_params[i], "task": task}
            row["n_instances"] = INSTANCES
            rows.append({**row, "metric": "acc_raw", "value": score[i]})
            if loss is not None:
                rows.append({**row, "metric": "bpb", "value": loss[i]})
    return replace(table_of(design), scores=pd.DataFrame(rows))


def runs(sizes: int = 3) -> Design:
    return transfer_losses(grid(sizes=sizes, mixtures=10))


def curve(loss: np.ndarray) -> np.ndarray:
    """.25 + .7 sigma(6 (1.1 - loss))."""
    return 0.25 + 0.7 / (1 + np.exp(-6 * (1.1 - loss)))


def own_loss(seed: int = 0) -> np.ndarray:
    """A loss that a mixture moves as it moves no domain's: by a quadratic of the ratios."""
    design = runs()
    bend = ((design.ratios - 0.25) ** 2).sum(1)
    return 0.7 + 0.5 * (design.n_params / 1e7) ** -0.3 + 0.8 * bend


def test_a_task_that_follows_its_own_loss_is_read_from_it() -> None:
    loss = own_loss()
    found = fit_scores(study(("quiz", curve(loss), loss)), "transfer", chance={"quiz": 0.25})
    assert found.routes == {"quiz": "two_step"}
    errors = found.task_errors["quiz"]
    assert errors["two_step"] == min(errors.values())
    assert found.law.inputs == found.fit.targets == ["loss of quiz"]
    np.testing.assert_allclose(found.law(loss[:, None])[0][:, 0], curve(loss), atol=NEAR)


def test_a_task_without_a_loss_is_read_from_those_of_others() -> None:
    loss, other = own_loss(), runs().losses[:, 0]
    tasks = (
        ("quiz", curve(loss), loss),
        ("trivia", curve(other - 2), other),
        ("riddle", curve(loss), None),
    )
    chance = dict.fromkeys(("quiz", "trivia", "riddle"), 0.25)
    found = fit_scores(study(*tasks), "transfer", chance=chance, routes=("tasks", "two_step"))
    assert found.routes["riddle"] == "tasks"
    row = found.law.tasks.index("riddle")
    weights = dict(zip(found.law.inputs, found.law.weights[row], strict=True))
    assert weights["loss of quiz"] > 0.8
    losses = np.c_[loss, other][
        :, [found.law.inputs.index(f"loss of {t}") for t in ("quiz", "trivia")]
    ]
    np.testing.assert_allclose(found.law(losses)[0][:, row], curve(loss), atol=2 * NEAR)


def test_a_score_that_the_law_predicts_itself_needs_no_curve() -> None:
    """-log above chance is itself a law of the mixture: `transfer`'s own form."""
    design = runs()
    above = 0.8 * np.exp(-0.4 * transfer_losses(design).losses[:, 1])
    table = study(("coding", 0.25 + 0.75 * above, None))
    found = fit_scores(table, "transfer", chance={"coding": 0.25}, routes=("mixture",))
    guess = found.predict(design.ratios, design.n_params, design.n_tokens)[:, 0]
    np.testing.assert_allclose(guess, 0.25 + 0.75 * above, atol=NEAR)
    half = np.diff(found.interval(design.ratios, design.n_params, design.n_tokens), axis=0)
    assert (half > 0).all()


def test_a_power_of_compute_is_recovered_where_runs_lie_on_a_line() -> None:
    design = runs()
    compute = 6 * design.n_params * design.n_tokens
    score = 0.25 + 0.75 * np.exp(-2.0 * (compute / compute.min()) ** -0.3)
    table = study(("quiz", score, None))
    read = read_scores(table, {"quiz": 0.25})
    found = fit_by_size(read)
    far = 0.25 + 0.75 * np.exp(-2.0 * (6 * 1.28e9 * 1e9 / compute.min()) ** -0.3)
    assert found.compute(1.28e9, 1e9)[0, 0] == pytest.approx(far, abs=1e-6)
    np.testing.assert_allclose(found.constant(design.n_params)[:, 0], score, atol=1e-9)
    with pytest.raises(FitError, match="a power of compute alone is"):
        fit_scores(table, "transfer", chance={"quiz": 0.25})


def test_budgets_off_a_line_have_no_power_of_compute() -> None:
    table = study(("quiz", np.linspace(0.3, 0.6, 30), None))
    losses = table.losses.assign(n_tokens=np.repeat(np.resize([1e9, 3e9], 30), 4))
    read = read_scores(replace(table, losses=losses), {"quiz": 0.25})
    assert fit_by_size(read).compute(1e9, 1e10) is None


def test_a_route_of_the_wrong_sign_is_refused_and_said() -> None:
    """The task's own loss orders the mixtures of a size against their scores."""
    design = runs()
    size = (design.n_params / 1e7) ** -0.3
    web = design.losses[:, 0]
    score = curve(web - 2)
    wrong = 0.7 + 0.9 * size + (score - score.mean())
    found = fit_scores(study(("quiz", score, wrong)), "transfer", chance={"quiz": 0.25})
    assert "the wrong way" in found.refused["quiz by two_step"]
    assert found.routes["quiz"] != "two_step"
    assert "refused: quiz by two_step" in found.text()
    with pytest.raises(FitError, match="quiz: every route has the wrong sign"):
        fit_scores(
            study(("quiz", score, wrong)), "transfer", chance={"quiz": 0.25}, routes=("two_step",)
        )


@pytest.fixture(scope="module")
def with_noise() -> Scores:
    """A task that is luck alone beside one that follows the losses."""
    design = runs()
    luck = 0.5 + 0.03 * np.random.default_rng(2).normal(size=len(design))
    table = study(("quiz", curve(design.losses[:, 0] - 2), None), ("dice", luck, None))
    return fit_scores(table, "transfer", chance={"quiz": 0.25, "dice": 0.25})


def test_a_task_of_luck_alone_is_named_and_in_no_goal(with_noise: Scores) -> None:
    assert list(with_noise.unpredictable) == ["dice"]
    assert with_noise.law.tasks == ["quiz"]
    assert "can't be predicted from this table: dice" in with_noise.text()
    assert with_noise.by_size is not None
    assert with_noise.by_size.tasks == ["quiz", "dice"]
    with pytest.raises(ConfigError, match="'dice' can't be predicted"):
        with_noise.goal(task_weights={"dice": 1})


def test_only_routes_that_exist_may_be_taken() -> None:
    with pytest.raises(ConfigError, match="route 'magic': expected some of two_step"):
        fit_scores(scored_study(), chance=CHANCE, routes=("magic",))


def test_the_losses_below_can_be_had_again(with_noise: Scores) -> None:
    design = runs()
    table = study(("quiz", curve(design.losses[:, 0] - 2), None))
    below = with_noise.design_below(table)
    assert below.targets == with_noise.fit.targets
    np.testing.assert_array_equal(below.losses, design.losses)


def test_intervals_hold_what_new_runs_score() -> None:
    """200 answers a score, curves and losses as they are: 90 % within 5 points, by 24 x 4 draws."""
    inside, table = [], scored_study(noise=0.004, instances=200)
    exact = scored_study(noise=0.0, instances=10**7).scores["value"].to_numpy()
    for seed in range(4):
        rng = np.random.default_rng(seed)
        drawn = table.scores.assign(value=rng.binomial(200, exact) / 200)
        found = fit_scores(
            replace(table, scores=drawn), "transfer", chance=CHANCE, routes=("domains",)
        )
        held = grid(sizes=1, mixtures=12, seed=100 + seed)
        n = np.full(12, 8e7)
        truth = transfer_losses(replace(held, n_params=n, n_active=n)).losses
        low, high = found.interval(held.ratios, 8e7, 1e9)
        seen = rng.binomial(200, np.stack([score_of(truth, t) for t in CHANCE], 1)) / 200
        inside.append((seen >= low) & (seen <= high))
    assert 0.83 <= np.mean(inside) <= 0.97


def test_intervals_grow_beyond_the_table() -> None:
    wide = Calibration(inside=1.0, beyond=3.0, reach=np.log(4), largest=1e9)
    np.testing.assert_allclose(wide.factor([1e8, 1e9, 4e9], 3), [1.0, 1.0, 3.0])
    assert wide.factor(16e9, 1)[0] == pytest.approx(np.sqrt(1 + 8 * 4))
    tight = Calibration(inside=1.0, beyond=0.8, reach=np.log(4), largest=1e9)
    np.testing.assert_allclose(tight.factor([4e9, 64e9], 2), 0.8)


def test_ranks_are_told_from_luck_by_the_number_of_mixtures() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 1))
    cell, mixture = np.repeat([0, 1], 20), np.tile(np.arange(20), 2)
    assert order(x, x, cell, mixture)[0] > 10
    assert order(-x, x, cell, mixture)[0] < -10
    few = order(x[:4], x[:4], cell[:4], mixture[:4])
    assert few[0] == 0
    # A difference between sizes is no order of mixtures.
    apart = np.where(cell[:, None] == 0, 0.0, 10.0)
    noise = rng.normal(size=(40, 1))
    assert abs(order(x + apart, noise + apart, cell, mixture)[0]) < 3
