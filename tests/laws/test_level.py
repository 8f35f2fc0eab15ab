"""The level beyond a table: what it corrects, what it leaves alone, and how sure it is."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from law_tables import grid

from olmo_mixlaw.advice import optimum
from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws import Fit, fit
from olmo_mixlaw.laws.choice.uncertainty import bootstrap, predicted_interval
from olmo_mixlaw.laws.level import VOCABULARY, width_of
from olmo_mixlaw.laws.leveling import fit_skeleton, vocabulary_of
from olmo_mixlaw.laws.skeleton import KS, relative_loss
from olmo_mixlaw.registry import LAWS
from olmo_mixlaw.runs import Design
from olmo_mixlaw.runs.table import RunTable

FAR = (3e9, 5e10)


def hiding(design: Design) -> Design:
    """Losses whose terms in N and D hide each other, times a factor of the mixture."""
    n, d = design.n_params, design.n_tokens
    above = ((40 * n**-0.25) ** 2 + (90 * d**-0.22) ** 2) ** 0.5
    by_mixture = 1 - 0.1 * np.sqrt(design.ratios)
    return replace(design, losses=(1.2 + above)[:, None] * by_mixture)


@pytest.fixture(scope="module")
def table() -> Design:
    return hiding(grid(sizes=3, mixtures=8, budgets=3))


@pytest.fixture(scope="module")
def leveled(table: Design) -> Fit:
    return fit("transfer", table)


def test_the_level_is_right_where_the_law_alone_is_not(table: Design, leveled: Fit) -> None:
    far = hiding(
        replace(table, n_params=np.full(len(table), FAR[0]), n_tokens=np.full(len(table), FAR[1]))
    )
    low, high = predicted_interval(leveled, far.ratios, *FAR)
    off = np.log(leveled.predict(far.ratios, *FAR) / far.losses)
    alone = np.log(replace(leveled, level=None).predict(far.ratios, *FAR) / far.losses)
    assert np.abs(off).mean() < 0.75 * np.abs(alone).mean()
    assert ((low <= far.losses) & (far.losses <= high)).mean() > 0.85


def test_within_the_table_nothing_changes(table: Design, leveled: Fit) -> None:
    rows = (table.ratios, table.n_params, table.n_tokens)
    alone = replace(leveled, level=None)
    np.testing.assert_array_equal(leveled.predict(*rows), alone.predict(*rows))
    for ours, theirs in zip(
        predicted_interval(leveled, *rows), predicted_interval(alone, *rows), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_mixtures_keep_their_order_and_distances(table: Design, leveled: Fit) -> None:
    alone = replace(leveled, level=None)
    lift = leveled.predict(table.ratios, *FAR) / alone.predict(table.ratios, *FAR)
    np.testing.assert_allclose(lift, np.broadcast_to(lift[0], lift.shape), rtol=1e-12)


def test_compute_alone_can_be_beyond(leveled: Fit) -> None:
    level = leveled.level
    assert level is not None
    n, d = np.array([level.n_top, level.n_top, 1.2 * level.n_top]), np.full(3, level.d_top)
    np.testing.assert_array_equal(level.beyond(n, d), [False, False, True])
    corner = replace(level, c_top=level.c_top / 4)
    np.testing.assert_array_equal(corner.beyond(n, d), [True, True, True])


@pytest.mark.parametrize("law", [name for name in LAWS.names() if name not in ("regmix",)])
def test_every_law_gets_it(law: str) -> None:
    design = hiding(grid(sizes=3, mixtures=8, budgets=3))
    try:
        found = fit(law, design)
    except FitError as error:  # a law that this table can't carry says so
        pytest.skip(str(error))
    assert found.level is not None
    far = found.predict(design.ratios, *FAR)
    middle, alone = (
        np.log(one.predict(found.level.mixtures, *FAR)).mean(0)
        for one in (found, replace(found, level=None))
    )
    skeleton = found.level.skeleton.log_loss(*_counted(found, *FAR))[0]
    if found.level.law_extrapolates:
        part = (middle - alone) / (skeleton - alone)
        assert ((part > 0.1) & (part < 1)).all()
    else:
        np.testing.assert_allclose(middle, skeleton, rtol=1e-9)
    assert np.isfinite(far).all()


@pytest.mark.parametrize(("law", "has"), [("log_linear", False), ("transfer", True)])
def test_a_law_without_terms_in_n_and_d_has_no_say(table: Design, law: str, has: bool) -> None:
    level = fit(law, table).level
    assert level is not None
    assert level.law_extrapolates is has


def _counted(found: Fit, n: float, d: float) -> tuple[np.ndarray, np.ndarray]:
    assert found.level is not None
    return np.array([n + found.level.vocabulary * width_of(np.array(n))]), np.array([d])


def test_it_is_saved_with_the_fit(tmp_path: Path, table: Design, leveled: Fit) -> None:
    again = Fit.load(leveled.save(tmp_path / "fit.json"))
    for at in (FAR, (1e8, 2e9)):
        np.testing.assert_array_equal(
            leveled.predict(table.ratios, *at), again.predict(table.ratios, *at)
        )


def test_refits_keep_it(table: Design, leveled: Fit) -> None:
    for other in bootstrap(leveled, table, replicates=3):
        assert other.level is leveled.level
        assert (other.predict(table.ratios, *FAR) != leveled.predict(table.ratios, *FAR)).all()


def test_an_anchor_narrows_the_interval_and_moves_the_level(table: Design) -> None:
    small = table.take(table.n_params < 2e7)
    runs = replace(table.take(np.array([0, 1])), n_params=np.full(2, FAR[0]))
    anchor = hiding(replace(runs, n_tokens=np.full(2, FAR[1])))
    without, with_one = fit("transfer", small), fit("transfer", small, anchors=anchor)
    truth = hiding(
        replace(table, n_params=np.full(len(table), FAR[0]), n_tokens=np.full(len(table), FAR[1]))
    )
    off = [
        np.abs(np.log(found.predict(truth.ratios, *FAR) / truth.losses)).mean()
        for found in (without, with_one)
    ]
    wide = [found.half_width(truth.ratios, *FAR).mean() for found in (without, with_one)]
    assert off[1] < off[0]
    assert wide[1] < 0.5 * wide[0]
    assert without.level is not None
    [said] = without.level.cautions(*FAR)
    assert "one size" in said
    assert "--anchor" in said
    now, then = (float(part.split(" %")[0]) for part in said.split("+-")[1:])
    assert now == pytest.approx(100 * wide[0], rel=0.15)
    assert then == pytest.approx(100 * wide[1], rel=0.5)


def test_anchors_of_something_else_are_refused(table: Design) -> None:
    runs = table.take(np.array([0]))
    far = hiding(replace(runs, n_params=np.full(1, FAR[0]), n_tokens=np.full(1, FAR[1])))
    with pytest.raises(FitError, match="anchors: their domains: a, b"):
        fit("transfer", table, anchors=replace(far, domains=["a", "b", "c", "d"]))
    with pytest.raises(FitError, match="anchors: their unit"):
        fit("transfer", table, anchors=replace(far, unit="bits_per_byte"))
    with pytest.raises(FitError, match="another tokenizer, unit or text"):
        fit("transfer", table, anchors=replace(far, losses=2 * far.losses))
    with pytest.raises(FitError, match="n_params and n_tokens are needed"):
        fit("transfer", table, anchors=replace(far, n_params=np.array([np.nan])))
    with pytest.raises(FitError, match="which was not asked for"):
        fit("transfer", table, anchors=far, level=False)


def test_a_table_marks_its_anchors(table: Design) -> None:
    frame = pd.DataFrame(table.ratios, columns=["w_" + name for name in table.domains])
    frame = frame.assign(run_id=table.run_ids, n_params=table.n_params, n_tokens=table.n_tokens)
    frame = pd.concat(
        [frame.assign(domain=t, loss=table.losses[:, i]) for i, t in enumerate(table.targets)]
    )
    marked = frame["run_id"] == table.run_ids[-1]
    runs = RunTable(frame.assign(anchor=np.where(marked, "yes", "")))
    assert len(runs.design()) == len(table) - 1
    anchors = runs.anchors()
    assert anchors is not None
    assert anchors.run_ids == [table.run_ids[-1]]
    found = fit("transfer", runs)
    assert found.level is not None
    assert found.level.anchors == 1


def test_far_more_tokens_than_any_run_saw_are_refused(leveled: Fit) -> None:
    assert leveled.level is not None
    longest = leveled.level.d_top
    mixture = leveled.mixtures[:1]
    leveled.predict(mixture, 1e9, 24 * longest)
    with pytest.raises(FitError, match=r"26 times those of the longest run"):
        leveled.predict(mixture, 1e9, 26 * longest)
    assert np.isfinite(replace(leveled, level=None).predict(mixture, 1e9, 26 * longest)).all()
    with pytest.raises(FitError, match="--no-level"):
        optimum(leveled, 1e9, 26 * longest)


def test_one_scale_speaks_of_another_and_says_how_surely(table: Design) -> None:
    one = table.take((table.n_params < 2e7) & (table.n_tokens < 2e9))
    found = fit("transfer", one)
    assert found.half_width(one.ratios, 1e9, 1e10).min() > 0.04
    [said] = optimum(found, 1e9, 1e10).warnings[:1]
    assert "one size and one budget" in said


def test_embeddings_are_counted_as_the_table_says(table: Design) -> None:
    assert vocabulary_of(table) == VOCABULARY
    assert vocabulary_of(replace(table, n_embedding=np.zeros(len(table)))) == 0
    own = replace(table, n_embedding=1000 * width_of(table.n_params))
    assert vocabulary_of(own) == pytest.approx(1000)
    said = fit("transfer", own).level
    assert said is not None
    assert "embeddings of 1000 tokens" in said.text()


def test_runs_of_an_unknown_scale_have_no_level_and_spoil_none(leveled: Fit) -> None:
    skeleton = leveled.level.skeleton
    n, d = np.array([1e9, np.nan, 2e9, np.nan]), np.array([1e10, 1e10, np.nan, np.nan])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for part in (skeleton.log_loss, skeleton.half_width, skeleton.doubt):
            found = part(n, d)
            np.testing.assert_array_equal(found[:1], part(n[:1], d[:1]))
            assert np.isnan(found[1:]).all()


def test_an_optimum_without_a_scale_warns_of_nothing() -> None:
    swarm = hiding(grid(sizes=1, mixtures=8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fit("log_linear", swarm)
        best = optimum(found)
        low, high = predicted_interval(found, best.ratios, best.n_params, best.n_tokens)
    assert (low < best.losses).all()
    assert (best.losses < high).all()


def test_a_skeleton_finds_its_own_parameters() -> None:
    theta = np.log([[0.6, 0.3, 0.3, 0.25, 0.35], [0.5, 0.35, 0.4, 0.3, 0.28]])
    n, d = np.meshgrid(np.geomspace(1e7, 1e9, 6), np.geomspace(1e9, 1e11, 6))
    scales = np.c_[n.ravel(), d.ravel()]
    refs = np.exp(np.log(scales).mean(0))
    losses = 2 * relative_loss(theta, np.full(2, KS[2]), *np.log(scales / refs).T)[0].T
    found = fit_skeleton(scales, losses, np.ones(len(scales)))
    np.testing.assert_allclose(np.exp(found.log_loss(*scales.T)), losses, rtol=2e-3)
    far = np.array([[5e9, 5e11]])
    truth = 2 * relative_loss(theta, np.full(2, KS[2]), *np.log(far / refs).T)[0].T
    off = np.abs(found.log_loss(*far.T) - np.log(truth))
    assert (off < found.half_width(*far.T)).all()
    assert off.max() < 0.03


@pytest.mark.parametrize("k", KS)
def test_slopes_of_a_skeleton_are_exact(k: float) -> None:
    rng = np.random.default_rng(0)
    theta = np.log([0.6, 0.3, 0.3, 0.25, 0.35]) + rng.normal(0, 0.2, (3, 5))
    log_n, log_d = rng.normal(0, 1.5, (2, 7))
    ks = np.full(3, k)
    _, slopes = relative_loss(theta, ks, log_n, log_d, slopes=True)
    for p in range(5):
        step = np.zeros(5)
        step[p] = 1e-6
        high, low = (relative_loss(theta + s * step, ks, log_n, log_d)[0] for s in (1, -1))
        np.testing.assert_allclose(slopes[:, :, p], (high - low) / 2e-6, rtol=1e-6, atol=1e-9)


def test_the_one_budget_of_a_table_needs_no_saying(table: Design) -> None:
    found = fit("transfer", table.take(table.n_tokens < 1.5e9))
    h = found.mixtures[:2]
    np.testing.assert_array_equal(found.predict(h, 1e9), found.predict(h, 1e9, 1e9))
    np.testing.assert_array_equal(found.half_width(h, 1e9, np.nan), found.half_width(h, 1e9, 1e9))
    assert found.level is not None
    assert found.level.cautions(1e9, np.nan) == found.level.cautions(1e9, 1e9) != []
