"""The figures of fits, comparisons and optima, as the commands `--figure` draw them.

As in `figures`: measured beside predicted, sizes light to dark, what is extrapolated in its own
colour. Every function returns a matplotlib figure; `save` writes one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from olmo_mixlaw.report.figures import ACCENT, STYLE, size_colours, size_label
from olmo_mixlaw.runs import Design
from olmo_mixlaw.runs.units import label as label_of

GREY = "#8a919c"
# Beyond this many sizes a legend says less than a few of them.
LEGEND_SIZES = 8


def save(figure: Figure, path: str | Path) -> Path:
    """Write the figure (PNG, SVG or PDF by its ending); returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140)
    plt.close(figure)
    return path


def predicted_against_measured(design: Design, predicted: np.ndarray, title: str) -> Figure:
    """Predicted against measured losses, and the errors (%) of each target, a colour a size."""
    sizes = design.n_params
    levels = np.unique(sizes[np.isfinite(sizes)])
    colours = size_colours(levels)
    error = 100 * (predicted / design.losses - 1)
    order = np.argsort(np.nanmean(np.abs(error), 0))[::-1]
    # Steps of the golden ratio: neighbours in the table land far from one another.
    spread = 0.6 * ((np.arange(len(design)) * 0.6180339887) % 1 - 0.5)
    height = max(3.2, 0.26 * len(design.targets) + 1.2)
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, height), layout="constrained")
        groups: list[tuple[str, np.ndarray, Any]] = [
            (size_label(level), sizes == level, colours[level]) for level in levels
        ]
        groups = groups or [("runs", np.ones(len(design), bool), ACCENT)]
        for i, (label, rows, colour) in enumerate(groups):
            shown = label if len(levels) <= LEGEND_SIZES or i in (0, len(levels) - 1) else None
            left.plot(
                design.losses[rows].ravel(),
                predicted[rows].ravel(),
                "o",
                ms=3.5,
                alpha=0.7,
                color=colour,
                mec="none",
                label=shown,
            )
            for y, t in enumerate(order):
                right.plot(
                    error[rows, t], y + spread[rows], "o", ms=3, alpha=0.7, color=colour, mec="none"
                )
        ends = [np.nanmin(design.losses), np.nanmax(design.losses)]
        left.plot(ends, ends, color=GREY, lw=0.9, ls="--")
        unit = label_of(design.unit)
        left.set(title=title, xlabel=f"measured loss, {unit}", ylabel=f"predicted loss, {unit}")
        left.legend(title="parameters", fontsize=8, title_fontsize=8)
        right.axvline(0, color=GREY, lw=0.9)
        right.set_ylim(-0.6, len(order) - 0.4)
        right.set_yticks(range(len(order)), [design.targets[t] for t in order])
        right.set(title="error of each target", xlabel="predicted / measured - 1 (%)")
        right.grid(axis="y", visible=False)
    return figure


def held_out_errors(frame: pd.DataFrame, choice: str) -> Figure:
    """Held-out error of each law, a panel a split; the choice in colour, the noise as a line."""
    splits = list(dict.fromkeys(frame["split"]))
    mean = frame.groupby("law")["mre"].mean().sort_values(ascending=False, na_position="first")
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1,
            len(splits),
            figsize=(3.0 + 2.6 * len(splits), 0.3 * len(mean) + 1.4),
            squeeze=False,
            sharey=True,
            layout="constrained",
        )
        for axis, split in zip(axes[0], splits, strict=True):
            part = frame[frame["split"] == split].set_index("law").reindex(mean.index)
            values = part["mre"].to_numpy(float)
            colours = [ACCENT if law == choice else "#5b6370" for law in mean.index]
            axis.hlines(range(len(mean)), 0, np.nan_to_num(values), color="#e6e9ee", lw=3)
            axis.scatter(values, range(len(mean)), color=colours, zorder=3, s=34)
            for y, value in enumerate(values):
                text = f"  {value:.2f}" if np.isfinite(value) else "  could not be fitted"
                axis.annotate(
                    text, (value if np.isfinite(value) else 0, y), va="center", fontsize=8
                )
            floor = frame["noise_floor"].iloc[0]
            if np.isfinite(floor):
                axis.axvline(floor, color=GREY, ls="--", lw=1)
            axis.set(title=split.replace("_", " "), xlabel="mean relative error (%)")
            axis.set_xlim(0, 1.22 * np.nanmax(np.append(values, 1e-3)))
            axis.grid(axis="y", visible=False)
        axes[0, 0].set_yticks(range(len(mean)), list(mean.index))
        for tick, law in zip(axes[0, 0].get_yticklabels(), mean.index, strict=True):
            tick.set_fontweight("bold" if law == choice else "normal")
    return figure


def best_mixture(ranges: pd.DataFrame, title: str, path: pd.DataFrame | None = None) -> Figure:
    """The best ratios beside those tried, and how they move along a path of sizes.

    `ranges` has columns domain, best, tried_low, tried_high and, where known, low, high (as good
    as the best) and drawn_low, drawn_high (the optima of a bootstrap). `path` is `optimum_path`'s.
    """
    rows = ranges.iloc[np.argsort(ranges["best"].to_numpy())].reset_index(drop=True)
    y = np.arange(len(rows))
    panels = 1 if path is None else 2
    height = max(2.9, 0.27 * len(rows) + 1.6)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, panels, figsize=(5.2 * panels, height), squeeze=False, layout="constrained"
        )
        axis = axes[0, 0]
        axis.hlines(
            y, rows["tried_low"], rows["tried_high"], color="#e0e4ea", lw=9, label="mixtures tried"
        )
        if "low" in rows:
            axis.hlines(y, rows["low"], rows["high"], color="#e8b79c", lw=5, label="as good")
        if "drawn_low" in rows:
            axis.hlines(
                y,
                rows["drawn_low"],
                rows["drawn_high"],
                color="#5b6370",
                lw=1.4,
                label="90 % of bootstrap optima",
            )
        axis.plot(rows["best"], y, "D", color=ACCENT, mec="white", ms=6.5, label="best")
        axis.set_yticks(y, list(rows["domain"]))
        axis.set(title=title, xlabel="ratio")
        axis.set_xlim(left=-0.01)
        axis.grid(axis="y", visible=False)
        axis.set_ylim(-0.7, len(rows) - 0.3)
        figure.legend(
            *axis.get_legend_handles_labels(), fontsize=8, ncols=4, loc="outside lower left"
        )
        if path is not None:
            _along(axes[0, 1], path, list(rows["domain"])[::-1])
    return figure


def _along(axis: plt.Axes, path: pd.DataFrame, domains: list[str]) -> None:
    """Ratios stacked over the steps of a path."""
    x = np.arange(len(path))
    shades = [plt.get_cmap("tab20")(i % 20) for i in range(len(domains))]
    axis.stackplot(x, path[domains].to_numpy(float).T, colors=shades, alpha=0.9)
    heights = np.cumsum(path[domains].to_numpy(float)[-1])
    for i, name in enumerate(domains):
        share = float(path[name].iloc[-1])
        if share > 0.04:
            axis.annotate(
                name,
                (x[-1], heights[i] - share / 2),
                xytext=(-4, 0),
                ha="right",
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
    labels = [
        "\n".join(
            size_label(v) if np.isfinite(v) else "-" for v in (row["n_params"], row["n_tokens"])
        )
        for _, row in path.iterrows()
    ]
    axis.set_xticks(x, labels)
    axis.set(title="best mixture along the path", xlabel="parameters, tokens", ylabel="ratio")
    axis.set_xlim(x[0], max(x[-1], x[0] + 1e-3))
    axis.set_ylim(0, 1)
    axis.grid(False)
