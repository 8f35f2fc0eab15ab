"""The figures of a report: every fit is drawn beside its data, and measured is told from guessed.

Each function takes a table and, where a law is drawn, anything with a `predict` method, and
returns a matplotlib figure. Sizes are always coloured in the same order, light to dark.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.models.ladder import short as size_label
from olmo_mixlaw.runs import Design, RunTable

INK = "#2b313b"
STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a919c",
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#e6e9ee",
    "grid.linewidth": 0.8,
    "xtick.color": "#5b6370",
    "ytick.color": "#5b6370",
    "legend.frameon": False,
    "svg.hashsalt": "olmo-mixlaw",
}
EXTRAPOLATED = "#f4f1e8"
ACCENT = "#c8501e"


class Predictor(Protocol):
    """A fitted law: ratios (R, K), sizes (R,) and tokens (R,) -> losses (R, T)."""

    def predict(
        self, ratios: np.ndarray, n_params: np.ndarray, n_tokens: np.ndarray
    ) -> np.ndarray: ...


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


def size_colours(sizes: np.ndarray) -> dict[float, tuple]:
    """A colour for each size, light for the smallest."""
    shades = plt.get_cmap("viridis_r")(np.linspace(0.12, 0.92, max(len(sizes), 2)))
    return {size: tuple(shade) for size, shade in zip(sizes, shades, strict=False)}


def sweep(ratios: np.ndarray, domain: int, points: np.ndarray) -> np.ndarray:
    """Mixtures (P, K) with `points` as the ratio of one domain.

    The other domains share the rest as they do in the mean of `ratios`.
    """
    mean = ratios.mean(axis=0)
    rest = np.delete(mean, domain)
    rest = rest / rest.sum() if rest.sum() > 0 else np.full(len(rest), 1 / len(rest))
    out = np.insert((1 - points)[:, None] * rest, domain, points, axis=1)
    return np.clip(out, 0, 1)


def loss_against_ratio(design: Design, fit: Predictor) -> Figure:
    """Loss of each target against the ratio of its own domain, a colour a size.

    Curves are the law along that ratio with the other domains rescaled from the mean mixture;
    a short line ties each run to what the law says of exactly its mixture.
    """
    sizes = np.unique(design.n_params)
    colours = size_colours(sizes)
    predicted = fit.predict(design.ratios, design.n_params, design.n_tokens)
    shown = [t for t in design.targets if t in design.domains]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(shown), figsize=(3.1 * len(shown), 3.1), squeeze=False, layout="constrained"
        )
        for axis, name in zip(axes[0], shown, strict=True):
            column, domain = design.targets.index(name), design.domains.index(name)
            own = design.ratios[:, domain]
            points = np.linspace(max(own.min() * 0.5, 1e-3), min(own.max() * 1.15, 0.999), 60)
            path = sweep(design.ratios, domain, points)
            for size in sizes:
                rows = design.n_params == size
                tokens = np.full(60, np.median(design.n_tokens[rows]))
                curve = fit.predict(path, np.full(60, size), tokens)[:, column]
                axis.plot(points, curve, color=colours[size], lw=1.3, alpha=0.8)
                axis.vlines(
                    own[rows],
                    design.losses[rows, column],
                    predicted[rows, column],
                    color=colours[size],
                    lw=0.9,
                    alpha=0.7,
                )
                axis.plot(
                    own[rows],
                    design.losses[rows, column],
                    "o",
                    ms=5,
                    mec="white",
                    mew=0.7,
                    color=colours[size],
                    label=size_label(size),
                )
            axis.set_title(plain(name))
            axis.set_xlabel(f"ratio of {plain(name)}")
        axes[0, 0].set_ylabel("held-out loss (nats a token)")
        axes[0, -1].legend(title="parameters", fontsize=8, title_fontsize=8)
    return figure


def loss_against_size(
    design: Design, fit: Predictor, target_size: float, target_tokens: float, proposal: np.ndarray
) -> Figure:
    """Loss of each target against size, a line a mixture, on to the target size.

    The ground beyond the largest run is shaded: there the law extrapolates. The diamond is
    what it predicts for the proposed mixture at the target.
    """
    sizes = np.unique(design.n_params)
    grid = np.geomspace(sizes[0] * 0.9, max(target_size, sizes[-1]) * 1.15, 60)
    mixtures, which = np.unique(design.ratios.round(9), axis=0, return_inverse=True)
    which = which.ravel()
    at_target = fit.predict(
        proposal[None], np.array([target_size]), np.array([target_tokens], float)
    )[0]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1,
            len(design.targets),
            figsize=(3.1 * len(design.targets), 3.1),
            squeeze=False,
            layout="constrained",
        )
        for axis, (column, name) in zip(axes[0], enumerate(design.targets), strict=True):
            key = design.domains.index(name) if name in design.domains else 0
            shades = plt.get_cmap("cividis_r")(0.1 + 0.8 * _rank(mixtures[:, key]))
            for j in np.argsort(mixtures[:, key], kind="stable"):
                mixture = mixtures[j]
                rows = which == j
                tokens = np.full(len(grid), np.median(design.n_tokens[rows]))
                curve = fit.predict(np.tile(mixture, (len(grid), 1)), grid, tokens)[:, column]
                axis.plot(grid, curve, color=shades[j], lw=1.2, alpha=0.8)
                axis.plot(
                    design.n_params[rows],
                    design.losses[rows, column],
                    "o",
                    ms=4.5,
                    color=shades[j],
                    mec="white",
                    mew=0.6,
                    label=f"{mixtures[j, key]:.2f}",
                )
            if target_size > sizes[-1]:
                axis.axvspan(sizes[-1], grid[-1], color=EXTRAPOLATED, zorder=-1, lw=0)
            axis.plot(target_size, at_target[column], "D", ms=6.5, color=ACCENT, mec="white")
            axis.set_xscale("log")
            ticks = np.append(sizes, target_size) if target_size > sizes[-1] else sizes
            axis.set_xticks(ticks, [size_label(s) for s in ticks])
            axis.minorticks_off()
            axis.set_title(plain(name))
            axis.set_xlabel("parameters")
            axis.legend(
                title=f"ratio of {plain(design.domains[key])}", fontsize=7.5, title_fontsize=8
            )
        axes[0, 0].set_ylabel("held-out loss (nats a token)")
    return figure


def _rank(values: np.ndarray) -> np.ndarray:
    order = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return order / max(len(values) - 1, 1)


@dataclass(frozen=True)
class Foreseen:
    """The ratio at which a model of `size` is expected to know half of the facts, and its 90 %."""

    size: float
    middle: float
    low: float
    high: float
    is_target: bool


def recall_against_ratio(
    table: RunTable, domain: str, task: str, floor: float, foreseen: Sequence[Foreseen] = ()
) -> Figure:
    """Exact-match recall, and the bits still missing of a value, against the domain's ratio.

    The dashed line is what random guessing among the values would score; bars about one half are
    where it was expected, for each size and for the target.
    """
    scores = table.scores[table.scores["task"] == task]
    runs = table.losses.drop_duplicates("run_id").set_index("run_id")
    sizes = np.unique(runs["n_params"])
    colours = size_colours(sizes)
    panels = [("exact_match", "recall (exact match)"), ("answer_bits", "bits missing of a value")]
    panels = [p for p in panels if (scores["metric"] == p[0]).any()]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(panels), figsize=(4.6 * len(panels), 3.4), squeeze=False, layout="constrained"
        )
        for axis, (metric, label) in zip(axes[0], panels, strict=True):
            values = scores[scores["metric"] == metric].set_index("run_id")
            for size in sizes:
                names = [r for r in runs.index[runs["n_params"] == size] if r in values.index]
                points = pd.DataFrame(
                    {
                        "ratio": runs.loc[names, f"w_{domain}"],
                        "value": values.loc[names, "value"],
                        "stderr": values.loc[names, "stderr"].fillna(0),
                    }
                ).sort_values("ratio")
                axis.errorbar(
                    points["ratio"],
                    points["value"],
                    yerr=points["stderr"],
                    fmt="o-",
                    ms=5,
                    lw=1.5,
                    color=colours[size],
                    mec="white",
                    mew=0.7,
                    label=size_label(size),
                )
            axis.set_xlabel(f"ratio of {plain(domain)}")
            axis.set_ylabel(label)
            axis.set_ylim(bottom=0)
            if metric == "exact_match":
                axis.axhline(floor, color="#8a919c", ls="--", lw=1)
                axis.set_ylim(0, 1.03)
                _draw_foreseen(axis, foreseen, colours)
        axes[0, 0].legend(title="parameters", fontsize=8, title_fontsize=8)
    return figure


def _draw_foreseen(axis: Axes, foreseen: Sequence[Foreseen], colours: Mapping) -> None:
    """A bar a size, one under the other about one half, so that none hides another."""
    for i, row in enumerate(foreseen):
        colour = INK if row.is_target else colours[row.size]
        y = 0.5 + 0.045 * ((len(foreseen) - 1) / 2 - i)
        axis.plot([row.low, row.high], [y, y], color=colour, lw=5, alpha=0.3, solid_capstyle="butt")
        label = f"expected at {size_label(row.size)}" if row.is_target else None
        marker = "D" if row.is_target else "|"
        axis.plot(row.middle, y, marker, color=colour, ms=6, label=label)


def mixture_bars(domains: list[str], rows: dict[str, np.ndarray]) -> Figure:
    """Mixtures as stacked bars, the last one (the proposal) set apart."""
    colours = plt.get_cmap("Set2")(np.linspace(0, 1, 8))
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(7.5, 0.42 * len(rows) + 0.9), layout="constrained")
        for y, (_, ratios) in enumerate(reversed(rows.items())):
            left = 0.0
            for j, ratio in enumerate(ratios):
                axis.barh(y, ratio, left=left, color=colours[j % 8], edgecolor="white", height=0.75)
                if ratio > 0.06:
                    axis.text(
                        left + ratio / 2, y, f"{ratio:.2f}", ha="center", va="center", fontsize=8
                    )
                left += ratio
        axis.set_yticks(range(len(rows)), [plain(name) for name in reversed(rows)])
        axis.get_yticklabels()[0].set_fontweight("bold")
        axis.set_xlim(0, 1)
        axis.grid(False)
        handles = [plt.Rectangle((0, 0), 1, 1, color=colours[j % 8]) for j in range(len(domains))]
        names = [plain(name) for name in domains]
        figure.legend(handles, names, loc="outside upper center", ncols=min(len(domains), 8))
    return figure


def svg(figure: Figure) -> str:
    """The figure as an SVG element, to stand inside a page."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=nothing)
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
