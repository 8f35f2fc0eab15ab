"""The page in a real browser: three widths, light, dark and print, a screen reader's rules, keys.

It needs Chromium or Chrome, Node and two packages of npm; it is skipped without them. To run it:
`npm install --prefix DIR axe-core puppeteer-core` (no browser is downloaded), then
`MIXLAW_NODE_MODULES=DIR/node_modules pytest tests/report/test_browser.py`. `CHROMIUM` names the
browser where it isn't `chromium` or `google-chrome`.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn_runs import RATIOS, made_table

from olmo_mixlaw.report import answer_figures, page, panels, surfaces

MODULES = Path(os.environ.get("MIXLAW_NODE_MODULES", "node_modules")).resolve()
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
NEEDED = [CHROMIUM, shutil.which("node"), (MODULES / "axe-core" / "axe.min.js").is_file()]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not all(NEEDED), reason="needs Chromium, Node, axe-core, puppeteer-core"),
]


@pytest.fixture(scope="module")
def seen(tmp_path_factory, request):
    """What the browser says of a page with every kind of block."""
    folder = tmp_path_factory.mktemp("browser")
    path = every_block().write(folder / "report.html")
    script = Path(__file__).with_name("browser.cjs")
    given = [str(path), str(CHROMIUM), str(MODULES)]
    done = subprocess.run(
        ["node", str(script), *given], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def every_block():
    design, proposed = made_table(RATIOS, [1e4, 4e4]).design(), np.array(RATIOS[1])
    keys = {f"{size:g}": look for size, look in panels.size_looks(design).items()}
    charts = [(panels.loss_against_ratio(design, name), name, "falls") for name in design.targets]
    domains = list(design.domains)
    landscape = surfaces.landscape(
        lambda h: 1 + ((h - proposed) ** 2).sum(1), domains, proposed, (0, 1), np.array(RATIOS)
    )
    rows = {
        f"run-{i}": [
            page.Cell(f"{i}k", i),
            page.Cell("3.1", 3.1, spark="0,1 90,19"),
            f"long {i} " * 9,
        ]
        for i in (10, 9, 11)
    }
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=["size", "loss", "note"])
    gain = page.chart([(answer_figures.gain_interval(0.6, -0.2, 1.4, "%"), "Gain", "")], "gain")
    cards = [page.Card(word, "why", (("a", "b"),), ("mind",), gain) for word in page.SIGNS]
    table = page.table(frame, "All runs", label="run", sortable=True, chosen="run-9")
    sections = [
        page.Section("Verdict", "", cards),
        page.Section(
            "Charts", "**Two** kinds", [page.chart(charts, "losses", looks=keys, data=table)]
        ),
        page.Section("Landscape", "", [page.chart([(landscape, "L", "")], "over ratios")]),
        page.Section("All runs", "Sort them", [table, page.Fold("more", (page.Code("x" * 300),))]),
    ]
    return page.Page("Study " + "x" * 60, "A page of every kind of block.", sections, (3, 9), 600)


def test_no_width_scrolls_sideways_and_nothing_is_complained_of(seen):
    assert len(seen["views"]) == 6
    for view in seen["views"]:
        assert view["complaints"] == [], view["name"]
        assert not view["sideways"], view["name"]


def test_axe_finds_nothing_serious(seen):
    for view in seen["views"]:
        assert view["violations"] == [], view["name"]


def test_dark_is_dark_and_print_is_light(seen):
    assert seen["grounds"]["light"] != seen["grounds"]["dark"]
    assert seen["grounds"]["print"]["ink"] == seen["grounds"]["light"]["ink"]


def test_a_column_is_sorted_by_keys_alone(seen):
    assert seen["sorted"] == [
        ["run-9", "run-10", "run-11", "ascending"],
        ["run-11", "run-10", "run-9", "descending"],
    ]


def test_folds_are_open_on_paper_and_closed_again(seen):
    assert seen["folds"] == {"before": 0, "paper": 1, "after": 0}


def test_no_figure_is_split_over_pages(seen):
    assert seen["split"] == 0
