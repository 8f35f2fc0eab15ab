"""One look for every figure: colours that a page may turn dark, markers and dashes beside them.

What is told apart by colour is told apart by marker, dash or label too. Every colour is a name of
`PALETTE`, which holds its light form, drawn by matplotlib, and its dark one, put in by the page.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from olmo_mixlaw.errors import ConfigError

# name -> (light, dark). Text has a contrast of 4.5 or more with both grounds, marks of 3 or more
# (WCAG 2.2, 1.4.3 and 1.4.11). The sizes are eight steps of matplotlib's plasma, so that they are
# ordered in lightness too; the largest stands out most from either ground.
PALETTE: dict[str, tuple[str, str]] = {
    "ink": ("#20262f", "#e6e9ef"),
    "soft": ("#5b6370", "#a4adba"),
    "line": ("#dfe3e9", "#3a424e"),
    "surface": ("#ffffff", "#1c2128"),
    "ground": ("#f5f6f8", "#12161b"),
    "accent": ("#0a7358", "#4fd6a8"),
    "mark": ("#b8430f", "#ff9a66"),
    "fitted": ("#2b5c94", "#7fb2ec"),
    "band": ("#a9d6c8", "#23594a"),
    "tried": ("#d3d8e0", "#4a5361"),
    "beyond": ("#f4efdf", "#2c2a20"),
    "size1": ("#e76e5b", "#bf3984"),
    "size2": ("#d5536f", "#d14e72"),
    "size3": ("#c03a83", "#e16462"),
    "size4": ("#a72197", "#ee7b51"),
    "size5": ("#8a09a5", "#f89441"),
    "size6": ("#6700a8", "#fdaf31"),
    "size7": ("#44039e", "#fccd25"),
    "size8": ("#1b068d", "#f4ed27"),
}
INK, GREY, LINE = (PALETTE[name][0] for name in ("ink", "soft", "line"))
SURFACE, ACCENT, MARK, BLUE = (PALETTE[name][0] for name in ("surface", "accent", "mark", "fitted"))
BAND, TRIED, EXTRAPOLATED = (PALETTE[name][0] for name in ("band", "tried", "beyond"))
STEPS = [light for name, (light, _) in PALETTE.items() if name.startswith("size")]
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
# The golden ratio's steps: neighbours in a table land far from one another.
GOLDEN = 0.6180339887

STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.title_fontsize": 8,
    "svg.hashsalt": "olmo-mixlaw",
    "svg.fonttype": "none",
}


class Look(NamedTuple):
    """How one thing of several is drawn."""

    colour: str
    marker: str
    dash: Any


def looks(levels: Sequence[Hashable] | np.ndarray) -> dict[Any, Look]:
    """A look for each level, in their order, first to last: lightest to darkest."""
    count = len(levels)
    shades = np.linspace(0, len(STEPS) - 1, count).round().astype(int) if count > 1 else [5]
    return {
        level: Look(STEPS[shades[i]], MARKERS[i % len(MARKERS)], DASHES[i % len(DASHES)])
        for i, level in enumerate(levels)
    }


def panel(width: float = 4.5, height: float = 3.1) -> tuple[Figure, plt.Axes]:
    """A figure of one pair of axes (inches), to be called within `plt.rc_context(STYLE)`.

    A page sets such panels side by side, or below one another where it is narrow.
    """
    figure, axis = plt.subplots(figsize=(width, height), layout="constrained")
    return figure, axis


def spread(count: int, width: float = 0.6) -> np.ndarray:
    """Offsets (count,) within `width` about 0 that keep points of one line apart."""
    return np.asarray(width * ((np.arange(count) * GOLDEN) % 1 - 0.5))


def plain(name: str) -> str:
    """A name as matplotlib draws it letter by letter: a dollar begins no formula."""
    return str(name).replace("$", r"\$")


def check_format(path: str | Path, where: str = "") -> None:
    """Raises `ConfigError` for a file that no figure can be saved as; to be asked before the work.

    `where` (the option) goes into the error.
    """
    known = FigureCanvasBase.get_supported_filetypes()
    suffix = Path(path).suffix.removeprefix(".").lower()
    if suffix not in known:
        place = f"{where}: " if where else ""
        raise ConfigError(
            f"{place}{path}: no figure is saved as {suffix or 'a file without a suffix'!r} "
            f"(known: {', '.join(sorted(known))})"
        )
