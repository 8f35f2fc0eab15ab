"""One HTML page that needs nothing but itself: text, tables and figures as inline SVG.

A page is sections of blocks; the template beside this file knows how each kind looks, in light and
dark, on paper, on a telephone and to a screen reader. Whatever stands in a block stays text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import jinja2
import pandas as pd
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from olmo_mixlaw.advice.verdict_words import AS_GOOD, CANT_TELL, DISTINGUISHABLE, WORSE
from olmo_mixlaw.atomic import write_text
from olmo_mixlaw.report import svg
from olmo_mixlaw.report.style import PALETTE, Look

# A table with more rows is folded; it is shown by a click.
MOST_ROWS = 40


@dataclass(frozen=True)
class Text:
    """A paragraph: `**words**` are bold and a new line begins a new line; all else is itself.

    With `quiet` it is a remark on what stands above it, with `mind` a caution.
    """

    text: str
    quiet: bool = False
    mind: bool = False
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Code:
    """Literal text."""

    text: str
    kind: ClassVar[str] = "code"


@dataclass(frozen=True)
class Cell:
    """What a cell shows, the number that it sorts by, and a link or a sparkline's points."""

    text: str
    value: float | None = None
    href: str = ""
    spark: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells, the first of each naming it; `numeric` columns are set to the right."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numeric: tuple[bool, ...]
    chosen: tuple[str, ...] = ()
    sortable: bool = False
    kind: ClassVar[str] = "table"

    @property
    def long(self) -> bool:
        return len(self.rows) > MOST_ROWS


@dataclass(frozen=True)
class Chart:
    """Panels side by side (SVG), one caption, the legend's keys (SVG, text), and their numbers."""

    panels: tuple[Markup, ...]
    caption: str
    keys: tuple[tuple[Markup, str], ...] = ()
    data: Table | None = None
    wide: bool = False
    kind: ClassVar[str] = "chart"


@dataclass(frozen=True)
class Fold:
    """Blocks that are shown by a click."""

    summary: str
    blocks: tuple[Any, ...]
    kind: ClassVar[str] = "fold"


@dataclass(frozen=True)
class Card:
    """A verdict: its word, the sentence, the interval drawn and what speaks against it."""

    word: str
    sentence: str
    facts: tuple[tuple[str, str], ...] = ()
    cautions: tuple[str, ...] = ()
    chart: Chart | None = None
    kind: ClassVar[str] = "card"

    @property
    def sign(self) -> str:
        """A sign that tells the words apart where colours don't."""
        return SIGNS.get(self.word, "?")


SIGNS = {DISTINGUISHABLE: "✓", AS_GOOD: "≈", CANT_TELL: "?", WORSE: "✗"}
Block = Text | Code | Table | Chart | Fold | Card


@dataclass
class Section:
    """A heading, a sentence or two that say what to see, then blocks."""

    title: str
    text: str
    blocks: Sequence[Block] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-") or "section"


@dataclass
class Page:
    """A report. `progress` is (finished, planned) while runs are missing: it reloads itself."""

    title: str
    summary: str
    sections: Sequence[Section]
    progress: tuple[int, int] | None = None
    reload_seconds: int = 15

    def write(self, path: str | Path) -> Path:
        """Write the page atomically; returns its path."""
        return write_text(path, self.render())

    def render(self) -> str:
        return _templates().get_template("page.html.j2").render(page=self, palette=PALETTE)


@cache
def _templates() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    found = jinja2.Environment(
        loader=loader,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    found.filters["prose"] = prose
    return found


def prose(text: str) -> Markup:
    """Text as HTML: whatever names are in it, they stay text."""
    bold = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", str(escape(text)))
    return Markup(bold.replace("\n", "<br>"))


def table(
    frame: pd.DataFrame,
    caption: str,
    *,
    label: str = "",
    digits: int = 3,
    chosen: Hashable | Sequence[str] = (),
    sortable: bool = False,
) -> Table:
    """A frame as a table, its index first, under the name `label`; cells may be `Cell`s."""
    rows = tuple(
        tuple(_cell(value, digits) for value in row) for row in frame.itertuples(name=None)
    )
    columns = [label, *map(str, frame.columns)]
    numeric = tuple(_numeric([row[i] for row in rows]) for i in range(len(columns)))
    marked = (chosen,) if isinstance(chosen, str) else tuple(chosen or ())  # type: ignore[arg-type]
    return Table(caption, tuple(columns), rows, (False, *numeric[1:]), marked, sortable)


def chart(
    figures: Sequence[tuple[Figure, str, str]],
    caption: str,
    *,
    looks: dict[str, Look] | None = None,
    data: Table | None = None,
    wide: bool = False,
) -> Chart:
    """Figures with what a screen reader says of each, (figure, title, description), as a chart."""
    panels = tuple(Markup(svg.inline(*given)) for given in figures)
    keys = tuple((Markup(svg.key(look)), name) for name, look in (looks or {}).items())
    return Chart(panels, caption, keys, data, wide)


def _numeric(cells: Sequence[Cell]) -> bool:
    """Whether a column holds numbers, or what stands for one that isn't known."""
    return all(cell.value is not None or cell.text == "–" for cell in cells)


def _cell(value: object, digits: int) -> Cell:
    if isinstance(value, Cell):
        return value
    if isinstance(value, bool) or value is None:
        return Cell("–" if value is None else str(value))
    if isinstance(value, int):
        return Cell(f"{value:,}", float(value))
    if isinstance(value, float):
        return Cell("–") if value != value else Cell(f"{value:.{digits}f}", value)
    return Cell(str(value))


def counted(value: float, write: Callable[[float], str]) -> Cell:
    """A number as `write` has it, sorted as it is."""
    return Cell("–") if value != value else Cell(write(value), float(value))
