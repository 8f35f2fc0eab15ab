"""The panels show every run or stand for it, and what is expected beside what was measured."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from drawn_runs import RATIOS, SIZES, PowerLaw, made_table

from olmo_mixlaw.models.ladder import short
from olmo_mixlaw.report import answer_figures, panels, surfaces, svg

NS = "{http://www.w3.org/2000/svg}"


def said(figure):
    """What the points of a figure say."""
    root = ET.fromstring(svg.inline(figure, ""))
    return [use.find(NS + "title").text for use in root.iter(NS + "use") if len(use)]


@pytest.mark.parametrize("target", ["wiki", "code", "bio"])
def test_every_run_has_a_point_that_says_its_loss(table, law, target):
    design = table.design()
    column = design.targets.index(target)
    texts = said(panels.loss_against_ratio(design, target, law))
    assert {text.rsplit(": ", 1)[1] for text in texts} == {
        f"{loss:.4f}" for loss in design.losses[:, column]
    }
    assert len(texts) == len(design)


def test_runs_alone_can_be_drawn(table):
    design = table.design()
    assert len(said(panels.loss_against_ratio(design, "bio"))) == len(design)
    figure = panels.loss_against_size(design, "bio", {"m0": np.array(RATIOS[0])})
    assert any(text.startswith("2 other runs, median") for text in said(figure))


def test_the_proposal_is_drawn_at_the_target(table, law):
    mixtures = {f"m{i}": np.array(ratios) for i, ratios in enumerate(RATIOS)}
    proposal = np.array(RATIOS[1])
    figure = panels.loss_against_size(table.design(), "bio", mixtures, law, (1e5, 1e6), proposal)
    expected = law.predict(proposal[None], np.array([1e5]), np.array([1e6]))[0, 2]
    assert f"proposed, 100k: {expected:.4f}" in said(figure)
    assert figure.axes[0].get_xlim()[1] > 1e5


def test_many_runs_are_binned_and_none_is_lost():
    mixtures = np.random.default_rng(0).dirichlet(np.ones(3), 300)
    design = made_table(mixtures, [1e4]).design()
    texts = said(panels.loss_against_ratio(design, "wiki", PowerLaw()))
    counts = [int(re.search(r"(\d+) runs", text).group(1)) for text in texts]
    assert len(texts) <= panels.BINS
    assert sum(counts) == 300


def test_a_loss_that_is_not_there_is_left_out(table):
    table.losses.loc[0, "loss"] = np.nan
    design = table.design()
    target = str(table.losses.loc[0, "domain"])
    assert len(said(panels.loss_against_ratio(design, target))) == len(design) - 1


def test_recall_shows_each_size_the_guess_and_what_was_expected(table):
    rows = [
        panels.Foreseen(1e4, 0.5, 0.4, 0.7, False),
        panels.Foreseen(4e4, 0.2, 0.1, 0.3, False),
        panels.Foreseen(2e5, 0.1, 0.05, 0.15, True),
    ]
    figure = panels.recall_against_ratio(table, "bio", "bio_recall", floor=0.04, expected=rows)
    axis = figure.axes[0]
    assert [0.04, 0.04] in [list(line.get_ydata()) for line in axis.lines]
    spans = {tuple(line.get_xdata()): line.get_ydata()[0] for line in axis.lines}
    heights = [spans[row.low, row.high] for row in rows]
    assert len(set(heights)) == 3
    np.testing.assert_allclose(heights, 0.5, atol=0.05)
    texts = said(figure)
    assert "expected at 200k: 0.1 (0.05 to 0.15)" in texts
    assert len(texts) == len(rows) + len(RATIOS) * len(SIZES)


def test_what_the_target_is_expected_to_know_is_drawn_with_the_proposal():
    ratios = np.linspace(0, 1, 5)
    band = panels.Band(ratios, ratios, 0.5 * ratios, np.sqrt(ratios))
    assert said(panels.expected_recall(band, "bio", 1e6, 0.3)) == [
        "proposed bio 0.300: 0.30 expected"
    ]


def test_sweep_moves_one_ratio_and_keeps_the_sum():
    path = panels.sweep(np.array(RATIOS), 2, np.array([0.0, 0.25, 1.0]))
    np.testing.assert_allclose(path.sum(1), 1)
    np.testing.assert_allclose(path[:, 2], [0, 0.25, 1])
    np.testing.assert_allclose(path[0, 0] / path[0, 1], 1.2 / 0.8)


@pytest.mark.parametrize("rest", [[0.2, 0.1], [0.0, 0.0]])
def test_a_slice_shares_the_rest_and_stays_on_the_simplex(rest):
    proposed = np.array([0.5, rest[0], 0.5 - sum(rest), rest[1]])
    mixtures = surfaces.slice_of(proposed, (0, 2), side=5)
    inside = mixtures[np.isfinite(mixtures).all(1)]
    assert len(inside) == 15
    np.testing.assert_allclose(inside.sum(1), 1)
    left = inside[:, [1, 3]]
    share = np.array(rest) / sum(rest) if sum(rest) else np.array([0.5, 0.5])
    np.testing.assert_allclose(left, left.sum(1, keepdims=True) * share, atol=1e-12)


def test_a_landscape_names_its_marked_mixtures():
    proposed = np.array([0.5, 0.3, 0.2])
    figure = surfaces.landscape(
        lambda h: 1 + ((h - proposed) ** 2).sum(1),
        ["a", "b", "c"],
        proposed,
        surfaces.main_pair(proposed),
        np.array(RATIOS),
        [surfaces.Point("current", np.array([0.2, 0.2, 0.6]))],
    )
    assert said(figure) == ["current: a 0.200, b 0.200", "proposed: a 0.500, b 0.300"]


def test_a_gain_and_its_interval_are_drawn_about_nothing():
    axis = answer_figures.gain_interval(0.6, -0.2, 1.4, "%").axes[0]
    low, high = axis.get_xlim()
    assert low < -0.2 < 0 < 1.4 < high


def test_sizes_read_as_people_write_them():
    assert [short(n) for n in (980.0, 98_400, 1.25e6, 7e9)] == ["980", "98.4k", "1.25M", "7B"]
