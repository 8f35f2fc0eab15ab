import re
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest

from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.report import figures, page
from olmo_mixlaw.runs import RunTable

RATIOS = [[0.7, 0.2, 0.1], [0.4, 0.3, 0.3], [0.1, 0.3, 0.6]]
SIZES = [1e4, 4e4]


class PowerLaw:
    """Loss falls with the domain's own ratio and with size: enough to draw."""

    def predict(self, ratios, n_params, n_tokens):
        size = np.asarray(n_params, float)[:, None]
        return 1 + 2 * (ratios + 0.05) ** -0.2 * (size / 1e4) ** -0.1


@pytest.fixture
def table():
    rows, scores = [], []
    for size in SIZES:
        for i, ratios in enumerate(RATIOS):
            run = f"{size:g}-{i}"
            losses = PowerLaw().predict(np.array([ratios]), [size], [1e6])[0]
            for name, loss in zip(("wiki", "code", "bio"), losses, strict=True):
                weights = dict(zip(("w_wiki", "w_code", "w_bio"), ratios, strict=True))
                rows.append(
                    {
                        "run_id": run,
                        "n_params": size,
                        "n_tokens": 1e6,
                        **weights,
                        "domain": name,
                        "loss": loss,
                    }
                )
            for metric, value in (("exact_match", ratios[2]), ("answer_bits", 3 * ratios[0])):
                scores.append(
                    {
                        "run_id": run,
                        "task": "bio_recall",
                        "metric": metric,
                        "value": value,
                        "stderr": 0.01,
                    }
                )
    return RunTable(pd.DataFrame(rows), pd.DataFrame(scores))


def assert_is_drawing(text, *words):
    root = ET.fromstring(text)
    assert root.tag.endswith("svg")
    paths = [e for e in root.iter() if e.tag.endswith("path")]
    assert len(paths) > 20
    assert all(f"<!-- {word} -->" in text for word in words), words


def test_loss_figures_draw_every_domain(table):
    design = table.design()
    assert_is_drawing(
        figures.svg(figures.loss_against_ratio(design, PowerLaw())), "wiki", "code", "bio"
    )
    figure = figures.loss_against_size(design, PowerLaw(), 1e5, 1e6, np.array(RATIOS[1]))
    assert figure.axes[0].get_xlim()[1] > 1e5
    assert_is_drawing(figures.svg(figure), "wiki", "code", "bio")


def test_recall_figure_shows_each_size_and_the_guessing_floor(table):
    figure = figures.recall_against_ratio(table, "bio", "bio_recall", floor=0.04)
    recall = figure.axes[0]
    assert [t.get_text() for t in recall.get_legend().get_texts()] == ["10k", "40k"]
    assert [0.04, 0.04] in [list(line.get_ydata()) for line in recall.lines]
    assert len(figure.axes) == 2


def test_recall_figure_shows_where_each_size_and_the_target_were_expected(table):
    rows = [
        figures.Foreseen(1e4, 0.5, 0.4, 0.7, False),
        figures.Foreseen(4e4, 0.2, 0.1, 0.3, False),
        figures.Foreseen(2e5, 0.1, 0.05, 0.15, True),
    ]
    recall = figures.recall_against_ratio(table, "bio", "bio_recall", 0.04, rows).axes[0]
    assert "expected at 200k" in [t.get_text() for t in recall.get_legend().get_texts()]
    spans = {tuple(line.get_xdata()): line.get_ydata()[0] for line in recall.lines}
    heights = [spans[row.low, row.high] for row in rows]
    assert len(set(heights)) == 3
    np.testing.assert_allclose(heights, 0.5, atol=0.05)


def test_sweep_moves_one_ratio_and_keeps_the_sum():
    path = figures.sweep(np.array(RATIOS), 2, np.array([0.0, 0.25, 1.0]))
    np.testing.assert_allclose(path.sum(1), 1)
    np.testing.assert_allclose(path[:, 2], [0, 0.25, 1])
    np.testing.assert_allclose(path[0, 0] / path[0, 1], 1.2 / 0.8)


def test_page_stands_alone_and_escapes_what_it_shows(table, tmp_path):
    frame = pd.DataFrame({"mre": [1.25, float("nan")], "note": ["<b>", "ok"]}, index=["a", "b"])
    report = page.Page(
        title="A <study>",
        summary="s",
        findings=[("best law", "transfer")],
        sections=[
            page.Section(
                "Losses",
                "see",
                [
                    page.table(frame, bold_row="a"),
                    page.figure(
                        figures.svg(figures.mixture_bars(["x", "y"], {"m": np.array([0.3, 0.7])})),
                        "mixtures",
                    ),
                    page.code("a: <1>"),
                ],
            )
        ],
        provenance={"version": "0"},
    )
    text = report.write(tmp_path / "report.html").read_text()
    assert "A &lt;study&gt;" in text
    assert "&lt;b&gt;" in text
    assert "<td>1.250</td>" in text
    assert "<td>–</td>" in text
    assert not re.search(r'(src|href)="(https?:)?//', text)
    assert "<script" not in text


def test_sizes_read_as_people_write_them():
    assert [figures.size_label(n) for n in (980.0, 98_400, 1.25e6, 7e9)] == [
        "980",
        "98.4k",
        "1.25M",
        "7B",
    ]


def test_prose_is_text_but_for_what_is_bold():
    section = page.Section("<h>", "one **two <b>** & <script>x</script>\nthree")
    text = page.Page("t<t>", "s<s>", [("<l>", "<v>")], [section], {"<k>": "<v>"}).render()
    assert "<b>two &lt;b&gt;</b> &amp; &lt;script&gt;x&lt;/script&gt;<br>three" in text
    assert not {"<script", "<t>", "<s>", "<v>", "<l>", "<k>", "<h>"} & set(
        re.findall("<[^>]*>", text)
    )


@pytest.mark.parametrize("name", ["a.xyz", "a", "a.", ".svg/x", "b.PNGG"])
def test_a_figure_that_cannot_be_saved_is_refused_before_the_work(name):
    with pytest.raises(ConfigError, match=r"--figure: .*known: .*pdf.*png.*svg"):
        figures.check_format(name, "--figure")


def test_known_figures_pass():
    for name in ("a.png", "b.SVG", "c/d.pdf"):
        figures.check_format(name)


def test_a_dollar_in_a_name_begins_no_formula():
    name = "a$\\frac{$b"
    drawing = figures.svg(figures.mixture_bars([name, "x"], {name: np.array([0.4, 0.6])}))
    assert ET.fromstring(drawing).tag.endswith("svg")
