"""The figures of an answer: the gain it claims with its interval, and the ratios it may take."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from olmo_mixlaw.report.style import ACCENT, BAND, INK, MARK, STYLE, SURFACE, TRIED, plain
from olmo_mixlaw.report.svg import hover

# Ranges of a row, drawn from behind to the front: columns, legend, colour, line width.
RANGES = (
    (("tried_low", "tried_high"), "mixtures tried", TRIED, 11.0),
    (("low", "high"), "as good as the best", BAND, 6.5),
    (("drawn_low", "drawn_high"), "90 % of refits' optima", INK, 1.3),
)


def gain_interval(gain: float, low: float, high: float, unit: str) -> Figure:
    """A gain with its interval, in `unit`; right of 0 the proposal is better."""
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(4.5, 1.05), layout="constrained")
        axis.plot([low, high], [0, 0], color=BAND, lw=10, solid_capstyle="butt")
        (drawn,) = axis.plot(gain, 0, "D", ms=7.5, color=ACCENT, mec=SURFACE)
        hover(drawn, [f"{gain:.3g} {unit} ({low:.3g} to {high:.3g})"])
        axis.axvline(0, color=INK, lw=1.2)
        margin = 0.15 * max(abs(low), abs(high)) or 1.0
        axis.set_xlim(min(0.0, low) - margin, max(0.0, high) + margin)
        axis.set_ylim(-1, 1)
        axis.set_yticks([])
        axis.spines["left"].set_visible(False)
        axis.set_xlabel(f"\N{LEFTWARDS ARROW} worse   gain ({unit})   better \N{RIGHTWARDS ARROW}")
        axis.grid(axis="y", visible=False)
    return figure


def ratio_ranges(ranges: pd.DataFrame, title: str = "", *, legend: bool = False) -> Figure:
    """A row a domain: mixtures tried, what is as good, refits' spread, the current, the best.

    `ranges` has columns domain, best, tried_low, tried_high and, where known, low and high (as good
    as the best), drawn_low and drawn_high (the optima of a bootstrap), and current.
    """
    with plt.rc_context(STYLE):
        height = max(1.6, 0.3 * len(ranges) + 0.9 + 0.4 * legend)
        figure, axis = plt.subplots(figsize=(5.4, height), layout="constrained")
        draw_ranges(axis, ranges)
        axis.set_title(title)
        if legend:
            figure.legend(*axis.get_legend_handles_labels(), ncols=3, loc="outside lower left")
    return figure


def draw_ranges(axis: plt.Axes, ranges: pd.DataFrame) -> None:
    """`ratio_ranges` on given axes; smallest ratio lowest."""
    rows = ranges.iloc[np.argsort(ranges["best"].to_numpy(), kind="stable")].reset_index(drop=True)
    y = np.arange(len(rows))
    for (low, high), label, colour, width in RANGES:
        if low in rows:
            axis.hlines(y, rows[low], rows[high], color=colour, lw=width, label=label)
    if "current" in rows:
        (drawn,) = axis.plot(
            rows["current"], y, "s", color=MARK, mec=SURFACE, ms=6.5, label="current"
        )
        known = rows[np.isfinite(rows["current"])]
        hover(drawn, [f"current {r.domain} {r.current:.3f}" for r in known.itertuples()])
    (drawn,) = axis.plot(rows["best"], y, "D", color=ACCENT, mec=SURFACE, ms=6.5, label="best")
    hover(drawn, [f"best {r.domain} {r.best:.3f}" for r in rows.itertuples()])
    axis.set_yticks(y, [plain(name) for name in rows["domain"]])
    axis.set_xlabel("ratio")
    axis.set_xlim(left=-0.01)
    axis.grid(axis="y", visible=False)
    axis.set_ylim(-0.7, len(rows) - 0.3)
