"""Figures in a page: text stays text, points say their numbers, colours follow the page."""

import re
import xml.etree.ElementTree as ET

import matplotlib.pyplot as plt
import pytest

from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.report import law_figures, style, svg
from olmo_mixlaw.report.style import ACCENT, MARKERS, PALETTE, STYLE, looks, panel

NS = "{http://www.w3.org/2000/svg}"


def drawing(texts=("one", "two <b>"), name="Title"):
    with plt.rc_context(STYLE):
        figure, axis = panel()
        (line,) = axis.plot([1, 2], [1, 2], "D-", color=ACCENT)
        svg.hover(line, texts)
        axis.set_title(name)
    return figure


def texts_of(root, tag):
    return [element.text for element in root.iter(NS + tag)]


def test_a_screen_reader_hears_title_and_description():
    root = ET.fromstring(svg.inline(drawing(), "What <it> is", "How it falls"))
    assert root.get("role") == "img"
    spoken = [root.find(NS + tag) for tag in ("title", "desc")]
    named = {element.get("id"): element.text for element in spoken}
    assert [named[key] for key in root.get("aria-labelledby").split()] == [
        "What <it> is",
        "How it falls",
    ]
    assert "width" not in root.attrib  # it takes the width that the page gives it


def test_every_point_says_its_numbers():
    root = ET.fromstring(svg.inline(drawing(), "t"))
    marks = [use for use in root.iter(NS + "use") if use.find(NS + "title") is not None]
    assert [mark.find(NS + "title").text for mark in marks] == ["one", "two <b>"]


def test_points_that_are_not_as_many_as_texts_say_nothing():
    root = ET.fromstring(svg.inline(drawing(texts=("one",)), "t"))
    assert all(use.find(NS + "title") is None for use in root.iter(NS + "use"))


def test_text_is_text_and_colours_are_the_page_s():
    text = svg.inline(drawing(name="a $ b"), "t")
    assert "a $ b" in texts_of(ET.fromstring(text), "text")
    assert "var(--accent)" in text
    left = set(re.findall(r"#[0-9a-f]{6}", text))
    assert not left & {light for light, _ in PALETTE.values()}


def test_two_figures_of_a_page_share_no_identity():
    first, second = (svg.inline(drawing(name=name), "t") for name in ("a", "b"))
    ids = [re.findall(r' id="([^"]+)"', text) for text in (first, second)]
    assert ids[0]
    assert not set(ids[0]) & set(ids[1])
    for text, own in zip((first, second), ids, strict=True):
        assert len(own) == len(set(own))
        assert set(re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)", text)) <= {
            pair for name in own for pair in ((name, ""), ("", name))
        }


def test_a_file_has_its_own_colours_and_hover(tmp_path):
    path = law_figures.save(drawing(), tmp_path / "new" / "a.svg")
    text = path.read_text()
    assert "var(--" not in text
    assert ACCENT in text
    assert "one" in [t for t in texts_of(ET.fromstring(text.split("\n", 1)[1]), "title") if t]


def test_sizes_are_told_apart_without_colour():
    found = list(looks(range(8)).values())
    assert len({look.marker for look in found}) == len(MARKERS) == 8
    assert len({look.colour for look in found}) == 8
    assert set(looks(["only"])) == {"only"}


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(f * c for f, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(a, b):
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("side", [0, 1], ids=["light", "dark"])
def test_what_is_read_and_marked_stands_out_from_its_ground(side):
    grounds = [PALETTE[name][side] for name in ("surface", "ground")]
    for name in ("ink", "soft", "fitted", "accent", "mark"):
        assert all(contrast(PALETTE[name][side], ground) >= 4.5 for ground in grounds), name
    for i in range(1, 9):
        assert contrast(PALETTE[f"size{i}"][side], grounds[0]) >= 3


def test_no_two_names_of_the_palette_are_one_colour():
    assert len({light for light, _ in PALETTE.values()}) == len(PALETTE)


def test_a_sparkline_falls_as_its_values_do():
    points = [tuple(map(float, p.split(","))) for p in svg.sparkline([4.0, 3.0, 2.0]).split()]
    assert points == [(0, 1), (45, 10), (90, 19)]
    assert len(svg.sparkline([1.0, 1.0]).split()) == 2


@pytest.mark.parametrize("name", ["a.xyz", "a", "a.", ".svg/x", "b.PNGG"])
def test_a_figure_that_cannot_be_saved_is_refused_before_the_work(name):
    with pytest.raises(ConfigError, match=r"--figure: .*known: .*pdf.*png.*svg"):
        style.check_format(name, "--figure")


def test_known_figures_pass():
    for name in ("a.png", "b.SVG", "c/d.pdf"):
        style.check_format(name)
