"""One HTML page that needs nothing but itself: text, tables and figures as inline SVG."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from olmo_mixlaw.atomic import write_text


@dataclass
class Section:
    """A heading, a sentence or two that say what to see, then figures and tables as HTML.

    In `text`, `**words**` are bold and a new line begins a new line; all else stands for itself.
    """

    title: str
    text: str
    body: list[str] = field(default_factory=list)


@dataclass
class Page:
    """A report: its headline findings first (label, value), then sections."""

    title: str
    summary: str
    findings: list[tuple[str, str]]
    sections: list[Section]
    provenance: dict[str, str]

    def write(self, path: str | Path) -> Path:
        """Write the page atomically; returns its path."""
        return write_text(path, self.render())

    def render(self) -> str:
        tiles = "".join(
            f'<div class="tile"><b>{html.escape(value)}</b><span>{html.escape(label)}</span></div>'
            for label, value in self.findings
        )
        sections = "".join(
            f"<section><h2>{html.escape(s.title)}</h2><p>{_prose(s.text)}</p>{''.join(s.body)}</section>"
            for s in self.sections
        )
        origin = "".join(
            f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>"
            for k, v in self.provenance.items()
        )
        return _TEMPLATE.format(
            title=html.escape(self.title),
            summary=html.escape(self.summary),
            tiles=tiles,
            sections=sections,
            origin=origin,
        )


def _prose(text: str) -> str:
    """Text as HTML: whatever names are in it, they stay text."""
    bold = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", html.escape(text))
    return bold.replace("\n", "<br>")


def table(frame: pd.DataFrame, digits: int = 3, bold_row: object = None) -> str:
    """A frame as an HTML table, numbers right-aligned; `bold_row` is an index label."""
    head = "".join(f"<th>{html.escape(str(c))}</th>" for c in ["", *frame.columns])
    rows = []
    for label, *values in frame.itertuples(name=None):
        cells = "".join(f"<td>{_cell(v, digits)}</td>" for v in values)
        mark = ' class="chosen"' if bold_row is not None and label == bold_row else ""
        rows.append(f"<tr{mark}><th>{html.escape(str(label))}</th>{cells}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def figure(svg: str, caption: str) -> str:
    """An inline SVG with its caption."""
    return f"<figure>{svg}<figcaption>{html.escape(caption)}</figcaption></figure>"


def note(text: str) -> str:
    """A remark on what stands above it."""
    return f'<p class="note">{html.escape(text)}</p>'


def code(text: str) -> str:
    """A block of literal text."""
    return f"<pre>{html.escape(text)}</pre>"


def _cell(value: object, digits: int) -> str:
    if isinstance(value, float):
        return "–" if value != value else f"{value:.{digits}f}"
    return html.escape(str(value))


_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light; --ink: #20262f; --soft: #5b6370;
  --line: #e3e6eb; --accent: #c8501e; }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: #f6f7f9; color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }}
main {{ max-width: 1180px; margin: 0 auto; padding: 2.2rem 1.2rem 4rem; }}
h1 {{ font-size: 1.75rem; margin: 0 0 .3rem; }}
h2 {{ font-size: 1.15rem; margin: 0 0 .3rem; }}
p {{ margin: .2rem 0 .9rem; max-width: 75ch; }}
.note {{ color: var(--soft); font-size: .86rem; margin-top: .4rem; }}
.summary {{ color: var(--soft); font-size: 1.05rem; }}
.tiles {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: .8rem;
  margin: 1.2rem 0; }}
.tile {{ background: white; border: 1px solid var(--line); border-radius: 10px;
  padding: .8rem 1rem; }}
.tile b {{ display: block; font-size: 1.25rem; color: var(--accent); }}
.tile span {{ color: var(--soft); font-size: .87rem; }}
section {{ background: white; border: 1px solid var(--line); border-radius: 10px;
  padding: 1.1rem 1.3rem; margin: 1rem 0; }}
figure {{ margin: .4rem 0 .8rem; overflow-x: auto; }}
figure svg {{ max-width: 100%; height: auto; }}
figcaption {{ color: var(--soft); font-size: .86rem; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .28rem .7rem; border-bottom: 1px solid var(--line); text-align: right;
  white-space: nowrap; }}
th:first-child {{ text-align: left; font-weight: 500; }}
thead th {{ color: var(--soft); font-weight: 600; }}
tr.chosen {{ background: #fdf3ec; font-weight: 600; }}
pre {{ background: #f3f4f7; border-radius: 8px; padding: .9rem 1rem; overflow-x: auto;
  font-size: .85rem; line-height: 1.45; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; font-size: .87rem;
  color: var(--soft); margin: 0; }}
dd {{ margin: 0; overflow-wrap: anywhere; }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p class="summary">{summary}</p>
<div class="tiles">{tiles}</div>
{sections}
<section><h2>Where this comes from</h2><dl>{origin}</dl></section>
</main>
</body>
</html>
"""
