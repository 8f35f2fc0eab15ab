"""Verdicts: what kind a gain is, how sure, against whom, and how that is said."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from law_tables import grid, moe_design, scored_study, table_of, transfer_losses, with_losses

from olmo_mixlaw import registry
from olmo_mixlaw.advice import Optimum, optimum
from olmo_mixlaw.advice.goal import MeanLoss
from olmo_mixlaw.advice.scores import fit_scores
from olmo_mixlaw.advice.verdict import (
    AS_GOOD,
    CANT_TELL,
    DISTINGUISHABLE,
    WORSE,
    Verdict,
    kind_of,
    measured_best,
    proposed,
    tried_mixtures,
    verdict,
    verdicts,
)
from olmo_mixlaw.cli.answer import jsonable
from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws import Fit, Settings, fit
from olmo_mixlaw.laws.choice.differences import Differences, differences
from olmo_mixlaw.laws.choice.uncertainty import bootstrap
from olmo_mixlaw.runs import Design

LOOSE = Settings(strict=False)
SCALE = (1.6e8, 1e9)
POOR = np.array([0.94, 0.02, 0.02, 0.02])


@pytest.fixture(autouse=True)
def fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """A law without a gradient is searched by draws; these tests need no fine search."""
    import sys

    monkeypatch.setattr(sys.modules["olmo_mixlaw.advice.optimum"], "DRAWS", 2000)


@cache
def clean(sizes: int = 3, noise: float = 0.002) -> tuple[Design, Fit, Differences]:
    design = transfer_losses(grid(sizes=sizes, mixtures=14), noise=noise)
    return judged("transfer", design)


def judged(law: str, design: Design) -> tuple[Design, Fit, Differences]:
    """A fit and what its law errs by between mixtures."""
    fitted = fit(law, design, settings=LOOSE)
    between = differences(fitted.law, design)
    assert between is not None
    return design, fitted, between


def useless(sizes: int = 1, mixtures: int = 24, seed: int = 0) -> Design:
    """Losses of whole runs dealt out among the mixtures of each size: nothing is to be learnt."""
    design = transfer_losses(grid(sizes=sizes, mixtures=mixtures), noise=0.002)
    rng = np.random.default_rng(seed)
    order = np.concatenate(
        [rng.permutation(np.flatnonzero(design.n_params == n)) for n in np.unique(design.n_params)]
    )
    return with_losses(design, design.losses[order])


@pytest.mark.parametrize(
    ("low", "high", "kind"),
    [
        (0.1, 2.0, DISTINGUISHABLE),
        (0.01, 0.1, DISTINGUISHABLE),
        (-2.0, -0.1, WORSE),
        (-0.4, 0.5, AS_GOOD),
        (-0.6, 0.1, CANT_TELL),
        (-0.1, 0.6, CANT_TELL),
        (0.0, 0.6, CANT_TELL),
        (np.nan, np.nan, CANT_TELL),
    ],
)
def test_the_interval_decides_the_kind(low: float, high: float, kind: str) -> None:
    assert kind_of(low, high) == kind


def test_a_clear_gain_is_told_and_the_same_turned_round_is_a_loss() -> None:
    _, fitted, between = clean()
    best = optimum(fitted, *SCALE)
    found = verdict(fitted, best, POOR, "the old one", between=between)
    assert found.kind == DISTINGUISHABLE
    at = fitted.predict(np.stack([POOR, best.ratios]), *SCALE).mean(1)
    assert found.gain == pytest.approx(100 * (1 - at[1] / at[0]))
    assert 0 < found.low < found.gain < found.high
    assert found.sentence.startswith("The proposed mixture is predicted to lower the mean loss by ")
    assert "against the old one" in found.sentence
    back = verdict(fitted, proposed(fitted, POOR, *SCALE), best.ratios, between=between)
    assert back.kind == WORSE
    assert back.gain < 0
    assert "to raise the mean loss" in back.sentence
    assert "keep that mixture" in back.sentence


def test_a_mixture_is_as_good_as_itself() -> None:
    _, fitted, between = clean()
    best = optimum(fitted, *SCALE)
    found = verdict(fitted, best, best.ratios, "the current", between=between)
    assert (found.kind, found.gain, found.low, found.high) == (AS_GOOD, 0.0, 0.0, 0.0)
    assert found.sentence == "The proposed mixture is the current itself, within a rounding."


def test_a_small_difference_under_a_good_law_is_as_good() -> None:
    _, fitted, between = clean(noise=0.0005)
    best = optimum(fitted, *SCALE)
    near = 0.97 * best.ratios + 0.03 * np.array([0.0, 1, 0, 0])
    found = verdict(fitted, best, near, between=between)
    assert found.kind == AS_GOOD
    assert "Either is as good" in found.sentence


def test_weights_are_those_of_the_goal() -> None:
    _, fitted, between = clean()
    weights = {"web": 3.0, "code": 1.0}
    best = optimum(fitted, *SCALE, target_weights=weights)
    found = verdict(fitted, best, POOR, between=between, at="w9", target_weights=weights)
    at = fitted.predict(np.stack([POOR, best.ratios]), *SCALE)[:, :2] @ [0.75, 0.25]
    assert found.gain == pytest.approx(100 * (1 - at[1] / at[0]))
    assert "the weighted mean loss at w9 by" in found.sentence


@cache
def tables() -> dict[str, Design]:
    """Two sizes whose losses follow their mixtures, and one size where they don't."""
    good = transfer_losses(grid(sizes=2, mixtures=20), noise=0.004)
    return {"good": good, "useless": useless()}


SLOW = {"stack"}  # six fits of all its members


@pytest.mark.parametrize(
    "law",
    [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in registry.LAWS.names()],
)
def test_every_law_gives_a_verdict_and_none_on_a_useless_table(law: str) -> None:
    found = {}
    for name, design in tables().items():
        try:
            fitted = fit(law, design, settings=LOOSE)
        except FitError:  # a law of two groups, say, where there is one
            continue
        between = differences(fitted.law, design)
        scale = SCALE if name == "good" else (1e7, 1e9)
        best = optimum(fitted, *scale, starts=2)
        found[name] = verdicts(fitted, best, between=between, current=("the current", POOR))
    for name, pair in found.items():
        for one in pair:
            assert one.sentence.endswith((".", "runs", "does"))
            assert json.loads(json.dumps(jsonable(one.document()), allow_nan=False))["kind"]
            if np.isfinite(one.low):
                assert one.low <= one.gain <= one.high
            if name == "useless":
                assert one.kind == CANT_TELL, (law, one.sentence)


def test_a_law_without_mixtures_gives_no_answer() -> None:
    _, fitted, between = judged("no_mixture", tables()["good"])
    found = verdict(fitted, optimum(fitted, *SCALE), POOR, between=between)
    assert found.kind == CANT_TELL
    assert found.sentence.startswith("NO ANSWER: no_mixture knows no mixture")


@pytest.mark.slow
def test_useless_tables_are_seldom_told_anything_of() -> None:
    told = 0
    for seed in range(20):
        _, fitted, between = judged("transfer", useless(seed=seed, mixtures=16))
        found = verdicts(fitted, optimum(fitted, 1e7, 1e9, starts=2), between=between)
        told += found[0].kind != CANT_TELL
    assert told <= 1


@pytest.mark.slow
@pytest.mark.parametrize("law", ["transfer", "additive"])
def test_intervals_hold_what_both_runs_show(law: str) -> None:
    """`additive` isn't the law of the table: its form errs, and the interval knows."""
    inside, rng = [], np.random.default_rng(0)
    for seed in range(8):
        every = transfer_losses(grid(sizes=1, mixtures=40, seed=seed), noise=0.004, seed=seed)
        known = rng.permutation(40)
        _, fitted, between = judged(law, every.take(known[:20]))
        for i, j in zip(known[20:], known[:20], strict=True):
            best = proposed(fitted, every.ratios[i], 1e7, 1e9)
            found = verdict(fitted, best, every.ratios[j], between=between)
            true = every.losses[[j, i]].mean(1)
            inside.append(found.low <= 100 * (1 - true[1] / true[0]) <= found.high)
    assert 0.85 <= np.mean(inside) <= 0.97


def test_refits_widen_an_interval_that_they_leave() -> None:
    design, fitted, between = clean()
    best = optimum(fitted, *SCALE)
    sure = replace(between, error=between.error * 1e-6)
    alone = verdict(fitted, best, POOR, between=sure)
    refits = list(bootstrap(fitted, design, replicates=20))
    wide = verdict(fitted, best, POOR, between=sure, refits=refits)
    assert wide.low < alone.low < alone.high < wide.high
    besides = verdict(fitted, best, POOR, between=sure, besides=(-9.0, 1.0))
    assert (besides.low, besides.kind) == (-9.0, CANT_TELL)


def test_beyond_the_sizes_tried_less_is_known() -> None:
    _, fitted, between = clean()
    widths, said = [], []
    for times in (1, 4, 40):
        best = proposed(fitted, np.full(4, 0.25), times * SCALE[0], SCALE[1])
        found = verdict(fitted, best, POOR, between=between, at="it")
        widths.append(found.high - found.low)
        said.append(" ".join(found.cautions))
    assert widths[0] < widths[1] < widths[2]
    assert "beyond" not in said[0]
    assert "beyond" not in said[1]  # as far as a size was held out
    assert "it lies 40 times beyond the runs; the size held out lay 4 times" in said[2]


def test_without_a_size_to_hold_out_that_is_said() -> None:
    _, fitted, between = clean(sizes=1)
    best = proposed(fitted, np.full(4, 0.25), 4e7, 1e9)
    [note] = verdict(fitted, best, POOR, between=between).cautions
    assert note.startswith("the target lies 4 times beyond the runs and no size could be held out")


def test_outside_of_all_that_was_held_out_nothing_is_told() -> None:
    _, fitted, between = clean()
    inner = replace(between, outside=0.1)
    best = optimum(fitted, *SCALE)
    far = replace(best, hull_distance=0.2)
    near, wide = (verdict(fitted, b, POOR, between=inner) for b in (best, far))
    assert wide.high - wide.low == pytest.approx(4 * (near.high - near.low), rel=0.01)
    assert (near.kind, wide.kind) == (DISTINGUISHABLE, CANT_TELL)
    assert any("2 times as far outside every blend" in note for note in wide.cautions)
    assert "run this mixture once" in wide.sentence


def test_errors_that_nobody_measured_are_said_to_be_unknown() -> None:
    _, fitted, _ = clean()
    found = verdict(fitted, optimum(fitted, *SCALE), POOR)
    assert found.kind == CANT_TELL
    assert np.isnan([found.low, found.high, found.error]).all()
    assert "was not measured" in found.cautions[0]
    assert found.document()["low"] is not None  # NaN, which JSON has as null
    assert jsonable(found.document())["low"] is None


def test_the_best_tried_keeps_the_bounds_and_the_measured_best_may_be_another() -> None:
    design, fitted, between = clean()
    tried = {f"mix{i}": mixture for i, mixture in enumerate(np.unique(design.ratios, axis=0))}
    upper = {"web": 0.3}
    best = optimum(fitted, *SCALE, upper=upper)
    [found] = verdicts(fitted, best, tried=tried, between=between, upper=upper, measured="mix0")
    name = found.against.removesuffix(", the best tried")
    assert tried[name][0] <= 0.3
    value = fitted.predict(np.array(list(tried.values())), *SCALE).mean(1)
    allowed = np.array([mixture[0] <= 0.3 for mixture in tried.values()])
    assert name == list(tried)[int(np.where(allowed, value, np.inf).argmin())]
    assert any("measured best at the largest size was mix0" in note for note in found.cautions)
    agreed = verdicts(fitted, best, tried=tried, between=between, upper=upper, measured=name)
    assert not any("measured best" in note for note in agreed[0].cautions)
    [_, now] = verdicts(
        fitted, best, tried=tried, between=between, current=("mine", POOR), upper=upper
    )
    assert now.against == "mine"
    assert any("outside the bounds" in note for note in now.cautions)
    narrow = {"lower": {"web": 0.97}}
    [none] = verdicts(fitted, optimum(fitted, *SCALE, **narrow), between=between, **narrow)
    assert any("no mixture tried is within the bounds" in note for note in none.cautions)
    assert none.kind == WORSE


def test_what_was_measured_best_is_that_of_the_largest_size_over_its_seeds() -> None:
    design = transfer_losses(grid(sizes=2, mixtures=6))
    losses = design.losses.copy()
    losses[:6] = 9.0 - np.arange(6)[:, None]  # the small size
    losses[6:] = 3.0 + np.abs(np.arange(6) - 2)[:, None]
    seeds = replace(
        with_losses(design, losses).take(np.r_[np.arange(12), 9]),
        run_ids=[f"r{i}" for i in range(13)],
    )
    seeds.losses[12] = 1.0  # a second seed, luckier than the best
    tried = {f"m{i}": design.ratios[i] for i in range(6)}
    assert measured_best(seeds, tried, MeanLoss(np.full(4, 0.25))) == "m3"
    seeds.losses[12] = 3.5
    assert measured_best(seeds, tried, MeanLoss(np.full(4, 0.25))) == "m2"
    assert (
        measured_best(
            with_losses(design, np.full_like(losses, np.nan)), tried, MeanLoss(np.full(4, 0.25))
        )
        == ""
    )


def test_mixtures_have_the_names_of_the_table() -> None:
    table = table_of(transfer_losses(grid(sizes=2, mixtures=3)))
    assert list(tried_mixtures(table)) == ["run0", "run1", "run2"]
    names = table.losses["run_id"].str[-1].astype(int) % 3
    named = replace(table, losses=table.losses.assign(mixture=names.map({0: "a", 1: "b", 2: "c"})))
    found = tried_mixtures(named)
    assert list(found) == ["a", "b", "c"]
    np.testing.assert_allclose(found["b"], table.design().ratios[1])


@pytest.fixture(scope="module")
def scored() -> tuple[Fit, Verdict]:
    """A benchmark's scores as the goal."""
    table = scored_study()
    found = fit_scores(table, "transfer", chance={"quiz": 0.25, "coding": 0.25})
    between = differences(found.fit.law, found.design_below(table))
    best: Optimum = optimum(found.fit, *SCALE, objective=found.goal())
    return found.fit, verdict(found.fit, best, POOR, between=between, objective=found.goal())


def test_scores_are_gained_in_points(scored: tuple[Fit, Verdict]) -> None:
    _, found = scored
    assert found.unit == "points"
    assert found.gain > 0
    assert found.low < found.gain < found.high
    assert "to raise the mean score by" in found.sentence
    assert f"{found.gain:.1f} points" in found.sentence


def test_active_sizes_are_beyond_a_table_as_the_law_sees_them() -> None:
    design = moe_design()
    fitted = fit("transfer", design, capacity="active", settings=LOOSE)
    between = differences(fitted.law, fitted.size.applied(design))
    where = (32 * SCALE[0], SCALE[1])
    best = optimum(fitted, *where, n_active=1.6e8, starts=2)
    found = verdict(fitted, best, POOR, between=between)
    assert not any("beyond" in note for note in found.cautions)
    far = optimum(fitted, *where, n_active=1.6e9, starts=2)
    assert any("10 times beyond" in n for n in verdict(fitted, far, POOR, between=between).cautions)
