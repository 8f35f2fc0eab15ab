"""Two fidelities: many cheap runs' law, brought to a few dear runs by a line a target."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from law_tables import grid, transfer_losses, with_losses

from olmo_mixlaw.errors import FitError, UnknownNameError
from olmo_mixlaw.laws import Fit, Settings, compare, fit
from olmo_mixlaw.laws.choice.uncertainty import bootstrap, coverage, predicted_interval
from olmo_mixlaw.laws.law import Inputs, Scene
from olmo_mixlaw.laws.learners.calibration import (
    COMMON_SD,
    FIRST_RUNS,
    LEAST_NOISE,
    OWN_SD,
    Lines,
    fit_lines,
)
from olmo_mixlaw.laws.learners.residual import inputs_of
from olmo_mixlaw.laws.learners.stack import Stack
from olmo_mixlaw.laws.learners.two_fidelity import (
    MIXTURES_A_PARAMETER,
    TwoFidelity,
    most_runs,
    nearest,
    scales_of,
    worth_running,
)
from olmo_mixlaw.runs import Design

LOOSE = Settings(strict=False)
LEVEL, SLOPE = np.array([-0.2, -0.1, -0.15, 0.05]), np.array([1.1, 0.9, 1.3, 1.0])
CHEAP, DEAR = (1e7, 1e9), (4e7, 1e9)


def lined(noise: float = 0.0, mixtures: int = 40) -> Design:
    """Two sizes; log losses of the large one are LEVEL + SLOPE times those of the small one."""
    design = transfer_losses(grid(sizes=2, mixtures=mixtures))
    small, large = parted(design)
    losses = design.losses.copy()
    losses[large] = np.exp(LEVEL + SLOPE * np.log(losses[small]))
    luck = np.exp(noise * np.random.default_rng(3).normal(size=losses.shape))
    return with_losses(design, losses * luck)


def parted(design: Design) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the small size and of the large one."""
    small = design.n_params < design.n_params.max()
    return np.flatnonzero(small), np.flatnonzero(~small)


def few(design: Design, dear: int) -> tuple[Design, Design]:
    """All small runs and so many large ones, and the other large ones."""
    small, large = parted(design)
    return design.take(np.r_[small, large[:dear]]), design.take(large[dear:])


@pytest.fixture(scope="module")
def five() -> tuple[Fit, Design]:
    table, held = few(lined(0.003), 5)
    return fit("two_fidelity", table), held


def error(found: Fit, held: Design) -> float:
    at = (held.ratios, held.n_params, held.n_tokens)
    return float(np.abs(found.predict(*at) / held.losses - 1).mean())


def test_it_finds_the_lines_between_two_scales(five: tuple[Fit, Design]) -> None:
    found, held = five
    shown = found.parameters.set_index(["parameter", "target"])
    for name, truth in (("a at N=4e+07", LEVEL), ("c at N=4e+07", SLOPE)):
        rows = shown.loc[name].loc[held.targets]
        wide = (rows["high"] - rows["low"]).to_numpy() / 2
        assert (np.abs(rows["value"].to_numpy() - truth) < 3 * wide).all()
    assert error(found, held) < 0.004


def test_one_dear_run_sets_the_level_and_no_slope() -> None:
    table, held = few(lined(), 1)
    found = fit("two_fidelity", table)
    small = (held.ratios, *CHEAP)
    below, above = (np.log(found.predict(held.ratios, *at)) for at in (CHEAP, DEAR))
    np.testing.assert_allclose(np.ptp(above - below, axis=0), 0, atol=1e-12)
    anchor = table.take(np.arange(len(table)) == len(table) - 1)
    at = (anchor.ratios, anchor.n_params, anchor.n_tokens)
    np.testing.assert_allclose(found.predict(*at), anchor.losses, rtol=1e-12)
    np.testing.assert_allclose(found.predict(*small), np.exp(below))


def test_few_dear_runs_beat_a_law_of_their_own_and_terms_in_n() -> None:
    table, held = few(lined(0.002), 2)
    of_two = table.take(table.n_params == table.n_params.max())
    off = {
        "two": error(fit("two_fidelity", table), held),
        "transfer": error(fit("transfer", table), held),
        "own": error(fit("shared_power", of_two, settings=LOOSE, level=False), held),
    }
    assert off["two"] < 0.5 * min(off["transfer"], off["own"])


def test_a_scale_of_many_runs_has_its_own_law() -> None:
    design = lined(0.002, mixtures=40)
    found = fit("two_fidelity", design)
    assert len(found.state["laws"]) == 2
    _, large = parted(design)
    alone = fit("shared_power", design.take(large))
    at = design.ratios[large], *DEAR
    np.testing.assert_allclose(found.predict(*at), alone.predict(*at), rtol=1e-12)
    enough = MIXTURES_A_PARAMETER * alone.n_parameters / 4
    assert 10 < enough <= 40
    assert len(fit("two_fidelity", lined(mixtures=10)).state["laws"]) == 1


def test_checkpoints_of_a_run_count_once() -> None:
    """Ten mixtures at two near budgets of the large size: too few for a law of its own."""
    design = lined(0.002, mixtures=10)
    large = design.take(design.n_params > 2e7)
    later = replace(large, n_tokens=1.1 * large.n_tokens, run_ids=[f"{r}b" for r in large.run_ids])
    arrays = ("ratios", "n_params", "n_active", "n_tokens", "losses")
    both = {k: np.concatenate([getattr(design, k), getattr(later, k)]) for k in arrays}
    joined = replace(design, run_ids=[*design.run_ids, *later.run_ids], **both)
    found = fit("two_fidelity", joined)
    assert found.state["owner"].tolist() == [0]
    assert found.state["lines"]["runs"][1].tolist() == [20] * 4


def test_the_cheap_scale_is_that_of_most_runs_below_the_dearest() -> None:
    cost = np.array([0.0, 1.0, 2.0, 3.0])
    assert most_runs(np.array([9, 20, 3, 30]), cost) == 1
    assert most_runs(np.array([20, 20, 3, 30]), cost) == 1
    assert most_runs(np.array([0, 0, 0, 4]), cost) == 3


def test_budgets_a_few_percent_apart_are_one_scale() -> None:
    logs = np.log(np.array([1.0, 1.1, 0.99, 2.0, 1.9, 1.6]))
    middles, which = scales_of(Inputs(np.ones((6, 1)), np.zeros(6), logs))
    assert which.tolist() == [0, 0, 0, 2, 2, 1]
    assert middles[1, 1] == pytest.approx(np.log(1.6))
    places = np.log([[1.0, 1.2], [1.0, 9.0]])
    assert nearest(middles, places).tolist() == [0, 2]


def test_the_nearest_scale_speaks_beyond_the_table_and_the_level_lifts_it(
    five: tuple[Fit, Design],
) -> None:
    found, held = five
    far = (held.ratios, 1e9, DEAR[1])
    alone = replace(found, level=None)
    np.testing.assert_array_equal(alone.predict(*far), alone.predict(held.ratios, *DEAR))
    lift = found.predict(*far) / alone.predict(*far)
    assert (lift < 0.95).all()
    np.testing.assert_allclose(lift, np.broadcast_to(lift[0], lift.shape), rtol=1e-12)


@pytest.mark.parametrize("base", ["shared_power", "transfer", "kriging", "additive"])
@pytest.mark.parametrize("at", [CHEAP, DEAR])
def test_slopes_by_the_ratios_are_those_of_the_losses(base: str, at: tuple[float, float]) -> None:
    table, _ = few(lined(0.003, mixtures=16), 3)
    found = fit(f"two_fidelity:{base}", table, settings=LOOSE, level=False)
    ratios, step = np.array([[0.3, 0.3, 0.2, 0.2], [0.1, 0.2, 0.3, 0.4]]), 1e-6
    sides = [
        np.stack(
            [
                found.law.predict(found, found.scene.inputs(ratios + s * step * unit, *at))
                for unit in np.eye(4)
            ],
            axis=2,
        )
        for s in (1, -1)
    ]
    slope = (sides[0] - sides[1]) / (2 * step)
    np.testing.assert_allclose(found.ratio_gradient(ratios, *at), slope, rtol=2e-5, atol=1e-6)
    losses, by_ratio = found.law.surface(found, *at)(ratios, True)
    np.testing.assert_allclose(losses, found.predict(ratios, *at), rtol=1e-9)
    np.testing.assert_allclose(by_ratio, slope, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("dear", [1, 3, 8])
def test_intervals_hold_about_what_they_say(dear: int) -> None:
    inside = []
    for seed in range(3):
        design = lined(0.004)
        luck = np.exp(0.004 * np.random.default_rng(seed).normal(size=design.losses.shape))
        table, held = few(with_losses(design, design.losses * luck), dear)
        inside.append(coverage(fit("two_fidelity", table), held))
    assert 0.8 < np.mean(inside) <= 1


def test_more_dear_runs_narrow_the_interval() -> None:
    wide = []
    for dear in (1, 2, 5, 12):
        table, held = few(lined(0.004), dear)
        at = (held.ratios[-10:], held.n_params[-10:], held.n_tokens[-10:])
        low, high = predicted_interval(fit("two_fidelity", table), *at)
        wide.append(float(np.log(high / low).mean()))
    assert wide == sorted(wide, reverse=True)


def test_resampled_runs_move_cheap_law_and_lines_alike(five: tuple[Fit, Design]) -> None:
    found, held = five
    table, _ = few(lined(0.003), 5)
    drawn = list(bootstrap(found, table, replicates=6))
    for at in (CHEAP, DEAR):
        losses = np.stack([one.predict(held.ratios, *at) for one in drawn])
        assert (losses.std(0) > 1e-5).all()
        np.testing.assert_allclose(losses.mean(0), found.predict(held.ratios, *at), rtol=0.02)


def test_a_resample_without_the_only_dear_run_keeps_its_level() -> None:
    table, held = few(lined(0.003), 1)
    found = fit("two_fidelity", table, level=False)
    counts = np.ones((1, len(table)), int)
    counts[0, -1] = 0
    [again] = found.law.refits(found, table, counts)
    at = (held.ratios, *DEAR)
    np.testing.assert_allclose(again.predict(*at), found.predict(*at), rtol=1e-5)


def test_a_scale_that_is_held_out_does_not_speak_for_itself() -> None:
    """As a stack holds out the largest size: its runs count 0 and the scene ends below it."""
    table, held = few(lined(0.003), 5)
    found, edge = fit("two_fidelity", table, level=False), table.n_params < 2e7
    scene = replace(found.scene, n_range=(1e7, 1e7))
    [again] = found.law.refits(replace(found, scene=scene), table, edge[None].astype(int))
    at = again.scene.inputs(held.ratios, *DEAR), again.scene.inputs(held.ratios, *CHEAP)
    far, near = (again.law.predict(again, inputs) for inputs in at)
    np.testing.assert_allclose(far, near, rtol=1e-12)


def test_it_is_saved_with_its_laws_and_lines(five: tuple[Fit, Design], tmp_path: Path) -> None:
    found, held = five
    again = Fit.load(found.save(tmp_path / "fit.json"))
    for at in (CHEAP, DEAR, (1e9, 1e9)):
        values = found.predict(held.ratios, *at)
        np.testing.assert_allclose(again.predict(held.ratios, *at), values, rtol=1e-12)
    assert again.law.label == "two_fidelity"
    assert again.n_parameters == found.state["laws"][0].n_parameters + 2 * 4
    assert fit("two_fidelity:transfer", few(lined(), 2)[0]).law.label == "two_fidelity:transfer"


def test_it_is_compared_and_stacked() -> None:
    table, _ = few(lined(0.003, mixtures=16), 6)
    result = compare(table, ["no_mixture", "two_fidelity"], folds=3)
    assert result.choice == "two_fidelity"
    found = fit(Stack(members=("two_fidelity", "shared_power")), table, settings=LOOSE)
    assert "two_fidelity" in found.state["fits"]
    small, _ = parted(table)
    assert not TwoFidelity().suits(table.take(small))
    assert TwoFidelity().suits(table)


def test_runs_that_lack_a_target_and_scales_that_lack_it() -> None:
    table, held = few(lined(0.002), 4)
    losses = table.losses.copy()
    losses[3, 0] = losses[-1, 1] = np.nan
    losses[-4:, 2] = np.nan  # no dear run has it: the mean shift of the others
    found = fit("two_fidelity", with_losses(table, losses), level=False)
    moved = np.log(found.predict(held.ratios, *DEAR) / found.predict(held.ratios, *CHEAP))
    others = np.delete(moved.mean(0), 2)
    assert others.min() < moved[:, 2].mean() < others.max()


@pytest.mark.parametrize("known", [True, False])
def test_one_scale_is_refused(known: bool) -> None:
    design = transfer_losses(grid(sizes=1, mixtures=20))
    if not known:
        nan = np.full(len(design), np.nan)
        design = replace(design, n_params=nan, n_active=nan, n_tokens=nan)
    with pytest.raises(FitError, match="all 20 runs are of one size and budget"):
        fit("two_fidelity", design, settings=LOOSE)


def test_scales_without_anything_in_common_are_refused() -> None:
    table, _ = few(lined(), 4)
    small, large = parted(table)
    losses = table.losses.copy()
    losses[small, 0] = losses[large, 1:] = np.nan
    with pytest.raises(FitError, match="no size and budget has losses on all 4 targets"):
        fit("two_fidelity", with_losses(table, losses), settings=LOOSE)
    ratios = table.ratios.copy()
    ratios[small, 0] = 0
    ratios /= ratios.sum(1, keepdims=True)
    with pytest.raises(FitError, match="domain 'web' is in none of the 40 runs of the cheap"):
        fit("two_fidelity", replace(table, ratios=ratios), settings=LOOSE)


def test_too_few_cheap_runs_are_refused_by_the_base_law() -> None:
    table, _ = few(lined(mixtures=6), 2)
    with pytest.raises(FitError, match=r"shared_power: 6 runs .* 7 parameters; 1 more"):
        fit("two_fidelity", table)
    with pytest.raises(UnknownNameError, match="transfr"):
        fit("two_fidelity:transfr", table)


def test_a_line_through_one_run_has_slope_one() -> None:
    below, above = np.log([[3.0, 4.0]]), np.log([[2.0, 3.5]])
    line = fit_lines(below, above, np.ones(1), np.full(2, 0.01))
    np.testing.assert_array_equal(line.slope, 1)
    np.testing.assert_allclose(line.at(below), above)
    np.testing.assert_array_equal(line.freedom, FIRST_RUNS)
    np.testing.assert_allclose(line.noise, 0.01)
    np.testing.assert_allclose(line.slope_sd, np.hypot(COMMON_SD, OWN_SD))


def test_lines_through_many_exact_runs_are_exact() -> None:
    below = np.random.default_rng(0).normal(1, 0.1, (200, 4))
    line = fit_lines(below, LEVEL + SLOPE * below, np.ones(200), np.full(4, LEAST_NOISE))
    np.testing.assert_allclose(line.slope, SLOPE, atol=1e-3)
    np.testing.assert_allclose(line.at(np.zeros(4)), LEVEL, atol=2e-3)


def test_weights_count_runs() -> None:
    rng = np.random.default_rng(1)
    below, luck = rng.normal(1, 0.1, (6, 3)), rng.normal(0, 0.01, (6, 3))
    weight, noise = np.array([1.0, 2, 0, 3, 1, 1]), np.full(3, 0.01)
    once = fit_lines(below, 0.2 + below + luck, weight, noise)
    rows = np.repeat(np.arange(6), weight.astype(int))
    again = fit_lines(below[rows], (0.2 + below + luck)[rows], np.ones(len(rows)), noise)
    for name, value in vars(once).items():
        np.testing.assert_allclose(value, getattr(again, name), err_msg=name)


def test_targets_share_their_slope_in_part() -> None:
    """A target whose runs say nothing of its slope takes the others' half-way."""
    below = np.log(np.array([[3.0, 3.0, 3.0], [3.3, 3.3, 3.0]]))
    line = fit_lines(below, 1.5 * below, np.ones(2), np.full(3, LEAST_NOISE))
    assert (line.slope[:2] > 1.45).all()
    assert 1.05 < line.slope[2] < 1.4
    assert line.slope_sd[2] > 5 * line.slope_sd[0]


def test_how_far_slopes_lie_apart_is_learnt() -> None:
    """From noisy runs, slopes that are alike end nearer to each other than those that aren't."""
    rng = np.random.default_rng(2)
    below, luck = rng.normal(1, 0.05, (4, 12)), rng.normal(0, 0.02, (4, 12))
    alike, unlike = (
        fit_lines(below, slope * below + luck, np.ones(4), np.full(12, 0.02))
        for slope in (np.full(12, 1.0), np.linspace(0.2, 1.8, 12))
    )
    assert alike.slope_sd.mean() < 0.9 * unlike.slope_sd.mean()


def test_a_slope_is_never_negative() -> None:
    below = np.log(np.array([[3.0], [3.3], [3.6]]))
    line = fit_lines(below, -3 * below, np.ones(3), np.full(1, 0.003))
    assert line.slope == 0
    assert isinstance(line.take(0), Lines)


def test_dear_runs_are_chosen_middle_first_and_then_far_apart() -> None:
    small, _ = parted(lined())
    cheap = fit("shared_power", lined().take(small), level=False)
    ratios = np.array(
        [[0.25, 0.25, 0.25, 0.25], *(0.05 + 0.8 * np.eye(4)), [0.26, 0.24, 0.25, 0.25]]
    )
    chosen = worth_running(cheap, ratios, 6)
    assert chosen[0] in (0, 5)
    assert set(chosen[1:5]) == {1, 2, 3, 4}
    assert sorted(chosen) == list(range(6))
    np.testing.assert_array_equal(worth_running(cheap, ratios, 3), chosen[:3])
    with pytest.raises(FitError, match="7 of 6 mixtures"):
        worth_running(cheap, ratios, 7)


def test_rows_of_a_scale_are_where_the_scene_says() -> None:
    table, _ = few(lined(), 3)
    middles, which = scales_of(inputs_of(table, Scene.of(table)))
    assert np.bincount(which).tolist() == [40, 3]
    np.testing.assert_allclose(np.exp(np.diff(middles[:, 0])), 4)
