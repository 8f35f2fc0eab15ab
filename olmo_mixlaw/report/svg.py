"""Figures as SVG: text stays text, points say their numbers, colours can turn dark.

matplotlib draws; what it wrote is then read as XML: points get a `<title>` (a browser shows it on
hover), known colours become the page's custom properties, and what only takes room is left out.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from olmo_mixlaw.report.style import DASHES, PALETTE, STYLE, Look

SVG, LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
ET.register_namespace("", SVG)
HOVER = "hover:"
_VARIABLES = {light: f"var(--{name})" for name, (light, _) in PALETTE.items()}
_COLOUR = re.compile(r"#[0-9a-f]{6}")
_LONG = re.compile(r"(\d+\.\d{2})\d+")
_FAMILY = re.compile(r"font-family: [^;]*;?\s*")
# A marker in a box of 14 x 14, for the keys beside a chart.
_SHAPES = {
    "o": "M3 7a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
    "s": "M3 3h8v8h-8z",
    "^": "M7 2.5l4.6 8.4h-9.2z",
    "D": "M7 2l5 5l-5 5l-5 -5z",
    "v": "M7 11.5l4.6 -8.4h-9.2z",
    "P": "M5.5 2.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z",
    "X": "M4.5 2.5l2.5 2.5l2.5 -2.5l2 2l-2.5 2.5l2.5 2.5l-2 2l-2.5 -2.5l-2.5 2.5l-2 -2l2.5 -2.5"
    "l-2.5 -2.5z",
    "p": "M7 2l5 3.7l-1.9 5.8h-6.2l-1.9 -5.8z",
}
_DASHED = dict(zip(DASHES, ("", "5 2", "1.5 1.5", "6 2 1.5 2"), strict=True))


def hover(artist: Artist, texts: Sequence[str]) -> None:
    """What each point of a drawn artist says in an SVG, in order; points must all be in view."""
    artist.set_gid(HOVER + json.dumps(list(texts)))


def inline(figure: Figure, title: str, description: str = "") -> str:
    """The figure as an SVG element for a page; it is closed.

    `title` and `description` are what a screen reader says of it.
    """
    root = _read(figure)
    plt.close(figure)
    root.attrib.pop("width", None)
    root.attrib.pop("height", None)
    digest = hashlib.sha1((title + description).encode(), usedforsecurity=False)
    digest.update(ET.tostring(root))
    key = digest.hexdigest()[:10]
    _number(root, key)
    _themed(root)
    named = [("title", title), ("desc", description)]
    for i, (tag, text) in enumerate((t, s) for t, s in named if s):
        child = ET.Element(f"{{{SVG}}}{tag}", {"id": f"{tag}-{key}"})
        child.text = text
        root.insert(i, child)
    root.set("role", "img")
    root.set("aria-labelledby", f"title-{key}" + (f" desc-{key}" if description else ""))
    return ET.tostring(root, encoding="unicode")


def standalone(figure: Figure) -> str:
    """The figure as a file of its own, in its own light colours; it is not closed."""
    root = _read(figure)
    _number(root, "f")
    for element in root.iter(f"{{{SVG}}}text"):
        element.set("font-family", "DejaVu Sans, Verdana, sans-serif")
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode")


def key(look: Look, *, line: bool = True) -> str:
    """The marker of a look, over its line, as a small SVG for a legend; its text stands beside."""
    colour = _VARIABLES.get(look.colour, look.colour)
    stroke = f'stroke="{colour}" stroke-width="1.6" stroke-dasharray="{_DASHED[look.dash]}"'
    drawn = f'<path d="M0 7h26" {stroke} fill="none"/>' if line else ""
    shape = _SHAPES[look.marker]
    return (
        f'<svg viewBox="0 0 26 14" width="26" height="14" aria-hidden="true">{drawn}'
        f'<path transform="translate(6 0)" d="{shape}" fill="{colour}"/></svg>'
    )


def sparkline(values: Sequence[float], width: int = 90, height: int = 20) -> str:
    """The points of a polyline that shows values (at least two) from left to right."""
    low, high = min(values), max(values)
    scale = (height - 2) / (high - low) if high > low else 0.0
    step = width / (len(values) - 1)
    return " ".join(
        f"{i * step:.0f},{1 + (high - value) * scale:.1f}" for i, value in enumerate(values)
    )


def _read(figure: Figure) -> ET.Element:
    """What matplotlib writes, with hover titles and without what says nothing."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with plt.rc_context({key: STYLE[key] for key in ("svg.hashsalt", "svg.fonttype")}):
        figure.savefig(buffer, format="svg", metadata=nothing)
    root = ET.fromstring(buffer.getvalue())
    for element in root.iter():
        identity = element.get("id", "")
        if identity.startswith(HOVER):
            _say(element, json.loads(identity.removeprefix(HOVER)))
        if f"{{{LINK}}}href" in element.attrib:
            element.set("href", element.attrib.pop(f"{{{LINK}}}href"))
        for name in ("d", "x", "y", "transform"):
            if name in element.attrib:
                short = _LONG.sub(r"\1", element.attrib[name])
                element.set(name, " ".join(short.split()))
        if element.tag == f"{{{SVG}}}text":
            element.set("style", _FAMILY.sub("", element.get("style", "")))
            if element.get("transform", "").startswith("rotate(-0 "):
                del element.attrib["transform"]
    for element in root.iter():
        element.tail = None
        if not (element.text or "").strip():
            element.text = None
    return root


def _say(group: ET.Element, texts: list[str]) -> None:
    """A title to each mark of a group; none where marks and texts are not as many."""
    hidden = {id(inner) for defs in group.iter(f"{{{SVG}}}defs") for inner in defs.iter()}
    marks = [e for e in group.iter(f"{{{SVG}}}use") if id(e) not in hidden]
    marks = marks or [e for e in group.iter(f"{{{SVG}}}path") if id(e) not in hidden]
    if len(marks) == len(texts):
        for mark, text in zip(marks, texts, strict=True):
            ET.SubElement(mark, f"{{{SVG}}}title").text = text


def _number(root: ET.Element, key: str) -> None:
    """Keep the names that something refers to, made the figure's own by `key`; drop the others."""
    used = set(re.findall(r"url\(#([^)]+)\)", ET.tostring(root, encoding="unicode")))
    used |= {e.attrib["href"].removeprefix("#") for e in root.iter() if "href" in e.attrib}
    for element in root.iter():
        identity = element.attrib.pop("id", None)
        if identity in used:
            element.set("id", f"{identity}-{key}")
        for name, value in list(element.attrib.items()):
            if name == "href":
                element.set(name, f"{value}-{key}")
            elif "url(#" in value:
                element.set(name, re.sub(r"url\(#([^)]+)\)", rf"url(#\1-{key})", value))


def _themed(root: ET.Element) -> None:
    """The page's custom properties for the colours that it knows."""
    for element in root.iter():
        if style := element.get("style"):
            found = _COLOUR.sub(lambda m: _VARIABLES.get(m.group(), m.group()), style)
            element.set("style", found)
