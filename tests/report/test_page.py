"""The page stands alone, escapes what it shows and says the same to every reader."""

import re

import matplotlib.pyplot as plt
import pandas as pd

from olmo_mixlaw.report import page
from olmo_mixlaw.report.style import STYLE, looks, panel

FRAME = pd.DataFrame({"mre": [1.25, float("nan")], "note": ["<b>", "ok"]}, index=["a", "b"])


def drawn():
    with plt.rc_context(STYLE):
        figure, axis = panel()
        axis.plot([0, 1], [0, 1])
    return figure


def rendered(*blocks, **how):
    return page.Page("t", "s", [page.Section("Losses", "see", list(blocks))], **how).render()


def test_the_page_stands_alone(tmp_path):
    chart = page.chart([(drawn(), "A", "B")], "mixtures", looks=looks(["x", "y"]))
    report = page.Page("A <study>", "s", [page.Section("Losses", "see", [chart])])
    text = report.write(tmp_path / "report.html").read_text()
    assert "<h1>A &lt;study&gt;</h1>" in text
    # Nothing is loaded, from nowhere.
    assert not re.search(r'(src|href)="(https?:)?//', text)
    assert not re.search(r"url\((?!#)", text)
    assert "@import" not in text


def test_a_table_is_read_row_by_row():
    text = rendered(page.table(FRAME, "Errors", label="law", chosen="a"))
    assert "<caption><span>Errors</span></caption>" in text
    assert '<tr class="chosen"><th scope="row">a</th><td>1.250</td>' in text
    assert "&lt;b&gt;" in text
    assert "<td>–</td>" in text
    assert '<th scope="col" class="words">note</th>' in text


def test_a_sortable_table_has_buttons_and_numbers_to_sort_by():
    frame = pd.DataFrame({"size": [page.counted(98_400.0, lambda v: "98.4k")]}, index=["run"])
    text = rendered(page.table(frame, "Runs", label="run", sortable=True))
    assert '<button type="button">size</button>' in text
    assert '<td data-v="98400">98.4k</td>' in text


def test_a_long_table_is_folded():
    frame = pd.DataFrame({"v": range(page.MOST_ROWS + 1)})
    assert '<details class="long">' in rendered(page.table(frame, "Runs"))
    assert '<details class="long">' not in rendered(page.table(frame[1:], "Runs"))


def test_a_cell_may_link_and_draw():
    cells = [page.Cell("3.1", 3.1, spark="0,1 90,19"), page.Cell("CSV", href="runs/a%20b.csv")]
    frame = pd.DataFrame([cells], columns=["loss", "file"], index=["run"], dtype=object)
    text = rendered(page.table(frame, "Runs"))
    assert '<polyline points="0,1 90,19"/>' in text
    assert '<a href="runs/a%20b.csv">CSV</a>' in text


def test_a_card_tells_its_word_without_colour():
    cards = [page.Card(word, "why", cautions=("mind <it>",)) for word in page.SIGNS]
    assert len({card.sign for card in cards}) == len(page.SIGNS)
    text = rendered(*cards)
    assert "mind &lt;it&gt;" in text
    assert "can&#39;t tell" in text


def test_prose_is_text_but_for_what_is_bold():
    section = page.Section("<h>", "one **two <b>** & <script>x</script>\nthree")
    text = page.Page("t<t>", "s<s>", [section]).render()
    assert "<b>two &lt;b&gt;</b> &amp; &lt;script&gt;x&lt;/script&gt;<br>three" in text
    assert not {"<script>x", "<t>", "<s>", "<h>"} & set(re.findall("<[^>]*>", text))


def test_a_page_follows_a_study_only_while_it_runs():
    assert "reload(15)" in rendered(progress=(3, 9))
    assert "<b>3 of 9 runs</b>" in rendered(progress=(3, 9))
    done = rendered()
    assert "reload(15)" not in done
    assert 'http-equiv="refresh"' not in done
