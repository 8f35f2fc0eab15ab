"""The figures of fits, comparisons and optima, as the commands `--figure` draw them.

As in `panels`: measured beside predicted, sizes light to dark and each with its marker, what is
extrapolated in its own colour. Every function returns a matplotlib figure; `save` writes one.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from olmo_mixlaw.atomic import write_text
from olmo_mixlaw.models.ladder import short as size_label
from olmo_mixlaw.report.answer_figures import draw_ranges
from olmo_mixlaw.report.style import (
    ACCENT,
    GREY,
    INK,
    LINE,
    MARKERS,
    STYLE,
    SURFACE,
    Look,
    looks,
    plain,
    spread,
)
from olmo_mixlaw.report.svg import standalone
from olmo_mixlaw.runs import Design
from olmo_mixlaw.runs.units import label as label_of

# Beyond this many sizes a legend says less than a few of them.
LEGEND_SIZES = 8
# So many points of a figure are opaque enough; more of them fade, so that dense parts show.
FEW = 300
# Bands of a stack that are narrower have no room for their names.
NAMED_BAND = 0.04


def save(figure: Figure, path: str | Path) -> Path:
    """Write the figure (PNG, SVG, PDF and so on by its ending); returns the path.

    An SVG keeps its text as text, and its points say their numbers.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".svg":
        write_text(path, standalone(figure))
    else:
        figure.savefig(path, dpi=140)
    plt.close(figure)
    return path


def predicted_against_measured(design: Design, predicted: np.ndarray, title: str) -> Figure:
    """Predicted against measured losses, and the errors (%) of each target, a look a size."""
    sizes = design.n_params
    levels = np.unique(sizes[np.isfinite(sizes)])
    error = 100 * (predicted / design.losses - 1)
    order = np.argsort(np.nanmean(np.abs(error), 0))[::-1]
    apart = spread(len(design))
    height = max(3.2, 0.26 * len(design.targets) + 1.2)
    alpha = 0.85 if design.losses.size <= FEW else 0.5 if design.losses.size <= 10 * FEW else 0.25
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, height), layout="constrained")
        groups: list[tuple[str, np.ndarray, Look]] = [
            (size_label(level), sizes == level, look) for level, look in looks(levels).items()
        ]
        groups = groups or [("runs", np.ones(len(design), bool), Look(ACCENT, "o", "-"))]
        ends = [np.nanmin(design.losses), np.nanmax(design.losses)]
        left.plot(ends, ends, color=GREY, lw=0.9, ls="--", label="as measured")
        for i, (label, rows, look) in enumerate(groups):
            shown = label if len(levels) <= LEGEND_SIZES or i in (0, len(levels) - 1) else None
            how = {"color": look.colour, "alpha": alpha, "mec": "none", "ls": "none"}
            left.plot(
                design.losses[rows].ravel(),
                predicted[rows].ravel(),
                look.marker,
                ms=3.5,
                label=shown,
                **how,
            )
            for y, t in enumerate(order):
                right.plot(error[rows, t], y + apart[rows], look.marker, ms=3, **how)
        unit = label_of(design.unit)
        left.set(title=plain(title), xlabel=f"measured loss, {unit}")
        left.set_ylabel(f"predicted loss, {unit}")
        legend = left.legend(title="parameters")
        for handle in legend.legend_handles:
            if handle is not None:
                handle.set_alpha(1)
        right.axvline(0, color=GREY, lw=0.9)
        right.set_ylim(-0.6, len(order) - 0.4)
        right.set_yticks(range(len(order)), [plain(design.targets[t]) for t in order])
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
            axis.hlines(range(len(mean)), 0, np.nan_to_num(values), color=LINE, lw=3)
            for y, (law, value) in enumerate(zip(mean.index, values, strict=True)):
                colour, marker = (ACCENT, "D") if law == choice else (GREY, MARKERS[0])
                axis.plot(value, y, marker, color=colour, ms=6.5, mec=SURFACE)
            for y, value in enumerate(values):
                text = f"  {value:.2f}" if np.isfinite(value) else "  could not be fitted"
                axis.annotate(
                    text, (value if np.isfinite(value) else 0, y), va="center", fontsize=8
                )
            floor = frame["noise_floor"].iloc[0]
            if np.isfinite(floor):
                axis.axvline(floor, color=GREY, ls="--", lw=1, label="noise of repeated runs")
                axis.legend(loc="lower right")
            axis.set(title=split.replace("_", " "), xlabel="mean relative error (%)")
            axis.set_xlim(0, 1.22 * np.nanmax(np.append(values, 1e-3)))
            axis.grid(axis="y", visible=False)
        axes[0, 0].set_yticks(range(len(mean)), list(mean.index))
        for tick, law in zip(axes[0, 0].get_yticklabels(), mean.index, strict=True):
            tick.set_fontweight("bold" if law == choice else "normal")
    return figure


def best_mixture(ranges: pd.DataFrame, title: str, path: pd.DataFrame | None = None) -> Figure:
    """The best ratios beside those tried, and how they move along a path of sizes.

    `ranges` is `answer_figures.ratio_ranges`'s, `path` is `optimum_path`'s.
    """
    panels = 1 if path is None else 2
    height = max(2.9, 0.27 * len(ranges) + 1.6)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, panels, figsize=(5.4 * panels, height), squeeze=False, layout="constrained"
        )
        axis = axes[0, 0]
        draw_ranges(axis, ranges)
        axis.set_title(title)
        figure.legend(*axis.get_legend_handles_labels(), ncols=4, loc="outside lower left")
        if path is not None:
            order = np.argsort(ranges["best"].to_numpy(), kind="stable")[::-1]
            _along(axes[0, 1], path, list(ranges["domain"].iloc[order]))
    return figure


def _along(axis: plt.Axes, path: pd.DataFrame, domains: list[str]) -> None:
    """A line a domain over the steps of a path, named at its end unless another name is there."""
    x = np.arange(len(path))
    ends = path[domains].to_numpy(float)[-1]
    taken: list[float] = []
    for (name, look), end in zip(looks(domains).items(), ends, strict=True):
        axis.plot(
            x,
            path[name],
            marker=look.marker,
            color=look.colour,
            ls=look.dash,
            ms=4.5,
            mec=SURFACE,
            mew=0.6,
        )
        if all(abs(end - other) > NAMED_BAND for other in taken):
            axis.annotate(
                plain(name),
                (x[-1], end),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=INK,
                annotation_clip=False,
            )
            taken.append(float(end))
    labels = [
        "\n".join(
            size_label(v) if np.isfinite(v) else "-" for v in (row["n_params"], row["n_tokens"])
        )
        for _, row in path.iterrows()
    ]
    axis.set_xticks(x, labels)
    axis.set(title="best mixture along the path", xlabel="parameters, tokens", ylabel="ratio")
    axis.set_xlim(x[0] - 0.1, x[-1] + max(0.22 * (x[-1] - x[0]), 0.3))
    axis.set_ylim(bottom=0)
