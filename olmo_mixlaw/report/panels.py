"""The panels of a study's page: runs and, beside them, what a law says; one pair of axes each.

Every function takes a design and anything with a `predict` method and returns a figure. Sizes look
the same in all of them (`style.looks`). Where there are many runs, bins stand for them: their
median and the range of nine tenths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from olmo_mixlaw.models.ladder import short as size_label
from olmo_mixlaw.report.style import (
    ACCENT,
    BAND,
    EXTRAPOLATED,
    GREY,
    INK,
    STYLE,
    SURFACE,
    Look,
    looks,
    panel,
    plain,
)
from olmo_mixlaw.report.svg import hover
from olmo_mixlaw.runs import Design, RunTable
from olmo_mixlaw.runs.units import label as label_of

# So many runs of one size are drawn as points, more of them as so many bins.
MOST_POINTS, BINS = 60, 12
POINTS = 60  # of a curve
MARKED: dict[str, Any] = {"ms": 5, "mec": SURFACE, "mew": 0.7, "ls": "none"}


class Predictor(Protocol):
    """A fitted law: ratios (R, K), sizes (R,) and tokens (R,) -> losses (R, T)."""

    def predict(
        self, ratios: np.ndarray, n_params: np.ndarray, n_tokens: np.ndarray
    ) -> np.ndarray: ...


@dataclass(frozen=True)
class Foreseen:
    """The ratio at which a model of `size` is expected to know half of the facts, and its 90 %."""

    size: float
    middle: float
    low: float
    high: float
    is_target: bool


@dataclass(frozen=True)
class Band:
    """A part expected to be known (P,) at ratios (P,), and its 90 % interval."""

    ratios: np.ndarray
    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray


def sweep(ratios: np.ndarray, domain: int, points: np.ndarray) -> np.ndarray:
    """Mixtures (P, K) with `points` as the ratio of one domain.

    The other domains share the rest as they do in the mean of `ratios`.
    """
    mean = ratios.mean(axis=0)
    rest = np.delete(mean, domain)
    rest = rest / rest.sum() if rest.sum() > 0 else np.full(len(rest), 1 / len(rest))
    out = np.insert((1 - points)[:, None] * rest, domain, points, axis=1)
    return np.clip(out, 0, 1)


def size_looks(design: Design) -> dict[float, Look]:
    """A look for each size of a design, smallest first."""
    return looks(np.unique(design.n_params))


def loss_against_ratio(design: Design, target: str, fit: Predictor | None = None) -> Figure:
    """Loss of a target against the ratio of the domain of its name, a look a size.

    Curves are the law along that ratio with the other domains rescaled from the mean mixture;
    a short line ties each run to what the law says of exactly its mixture.
    """
    column, domain = design.targets.index(target), design.domains.index(target)
    own, losses = design.ratios[:, domain], design.losses[:, column]
    points = np.linspace(max(own.min() * 0.5, 1e-3), min(own.max() * 1.15, 0.999), POINTS)
    path = sweep(design.ratios, domain, points)
    predicted = None
    if fit is not None:
        predicted = fit.predict(design.ratios, design.n_params, design.n_tokens)[:, column]
    with plt.rc_context(STYLE):
        figure, axis = panel()
        for size, look in size_looks(design).items():
            rows = (design.n_params == size) & np.isfinite(losses)
            if not rows.any():
                continue
            if fit is not None and predicted is not None:
                tokens = np.full(POINTS, np.median(design.n_tokens[rows]))
                curve = fit.predict(path, np.full(POINTS, size), tokens)[:, column]
                axis.plot(points, curve, color=look.colour, ls=look.dash, lw=1.3)
                if rows.sum() <= MOST_POINTS:
                    ends = (own[rows], losses[rows], predicted[rows])
                    axis.vlines(*ends, color=look.colour, lw=0.8, alpha=0.7)
            _points(axis, own[rows], losses[rows], look, f"{size_label(size)}, {target}")
        _named(axis, target, f"ratio of {plain(target)}", f"loss ({label_of(design.unit)})")
    return figure


def loss_against_size(
    design: Design,
    target: str,
    mixtures: dict[str, np.ndarray],
    fit: Predictor | None = None,
    at: tuple[float, float] | None = None,
    proposal: np.ndarray | None = None,
) -> Figure:
    """Loss of a target against size, on to the (size, tokens) `at` which something is proposed.

    `mixtures` are followed, a look each; the runs of others show as their range. The ground beyond
    the largest run is shaded: there the law extrapolates. The diamond is its prediction for the
    proposed mixture at the target.
    """
    column = design.targets.index(target)
    sizes, losses = np.unique(design.n_params), design.losses[:, column]
    end = sizes[-1] if at is None else max(at[0], sizes[-1])
    grid = np.geomspace(sizes[0] * 0.9, end * 1.15, POINTS)
    budget = np.median(design.n_tokens) if at is None else at[1]
    left = np.isfinite(losses)
    with plt.rc_context(STYLE):
        figure, axis = panel()
        if end > sizes[-1]:
            axis.axvspan(sizes[-1], grid[-1], color=EXTRAPOLATED, zorder=-1, lw=0)
        for name, look in looks(list(mixtures)).items():
            rows = np.isclose(design.ratios, mixtures[name], atol=1e-6).all(1)
            left &= ~rows
            if fit is not None:
                tokens = np.full(POINTS, np.median(design.n_tokens[rows]) if rows.any() else budget)
                curve = fit.predict(np.tile(mixtures[name], (POINTS, 1)), grid, tokens)[:, column]
                axis.plot(grid, curve, color=look.colour, ls=look.dash, lw=1.2)
            rows &= np.isfinite(losses)
            _points(axis, design.n_params[rows], losses[rows], look, name, np.array([]))
        for size in sizes:
            some = losses[left & (design.n_params == size)]
            if len(some):
                _bar(axis, float(size), some, GREY, f"{len(some)} other runs")
        if fit is not None and at is not None and proposal is not None:
            value = fit.predict(proposal[None], np.array([at[0]]), np.array([at[1]]))[0, column]
            said = f"proposed, {size_label(at[0])}: {value:.4f}"
            (drawn,) = axis.plot(at[0], value, "D", ms=7, color=ACCENT, mec=SURFACE, zorder=5)
            hover(drawn, [said])
        axis.set_xscale("log")
        _ticks(axis, np.append(sizes, end) if end > sizes[-1] else sizes)
        _named(axis, target, "parameters", f"loss ({label_of(design.unit)})")
    return figure


def _ticks(axis: Axes, sizes: np.ndarray) -> None:
    """The sizes themselves, but none so near to one drawn that their names would touch."""
    logs, shown = np.log(sizes), [len(sizes) - 1]
    gap = 0.13 * (logs[-1] - logs[0])
    for i in range(len(sizes) - 2, -1, -1):
        if logs[shown[-1]] - logs[i] >= gap:
            shown.append(i)
    axis.set_xticks(sizes[shown], [size_label(sizes[i]) for i in shown])
    axis.minorticks_off()


def recall_against_ratio(
    table: RunTable,
    domain: str,
    task: str,
    metric: str = "exact_match",
    floor: float = 0.0,
    expected: Sequence[Foreseen] = (),
) -> Figure:
    """A score of a task against the domain's ratio, a look a size, with standard errors.

    Of recall, the dashed line is what random guessing among the values would score; bars about one
    half are where it was `expected`, for each size and for the target.
    """
    scores = table.scores[(table.scores["task"] == task) & (table.scores["metric"] == metric)]
    values = scores.drop_duplicates("run_id").set_index("run_id")
    runs = table.losses.drop_duplicates("run_id").set_index("run_id")
    known = looks(np.unique(runs["n_params"]))
    is_recall = metric == "exact_match"
    with plt.rc_context(STYLE):
        figure, axis = panel()
        for size, look in known.items():
            names = values.index.intersection(runs.index[runs["n_params"] == size])
            points = pd.DataFrame(
                {
                    "ratio": runs.loc[names, f"w_{domain}"],
                    "value": values.loc[names, "value"],
                    "stderr": values.loc[names, "stderr"].fillna(0),
                }
            ).sort_values("ratio")
            few = len(points) <= MOST_POINTS
            if few and len(points):
                axis.errorbar(
                    points["ratio"],
                    points["value"],
                    yerr=points["stderr"],
                    color=look.colour,
                    ls=look.dash,
                    lw=1.4,
                )
            said = f"{size_label(size)}, {domain}"
            _points(axis, points["ratio"].to_numpy(), points["value"].to_numpy(), look, said)
        if is_recall:
            axis.axhline(floor, color=GREY, ls="--", lw=1)
            _draw_expected(axis, expected, known)
        axis.set_ylim(0, 1.03 if is_recall else None)
        title = "recall (exact match)" if is_recall else "bits missing of a value"
        _named(axis, title, f"ratio of {plain(domain)}", "")
    return figure


def _draw_expected(axis: Axes, expected: Sequence[Foreseen], known: dict[float, Look]) -> None:
    """A bar a size, one under the other about one half, so that none hides another."""
    for i, row in enumerate(expected):
        colour = INK if row.is_target or row.size not in known else known[row.size].colour
        y = 0.5 + 0.045 * ((len(expected) - 1) / 2 - i)
        axis.plot([row.low, row.high], [y, y], color=colour, lw=5, alpha=0.3, solid_capstyle="butt")
        marker = "D" if row.is_target else "|"
        (drawn,) = axis.plot(row.middle, y, marker, color=colour, ms=6)
        interval = f"{row.middle:.3g} ({row.low:.3g} to {row.high:.3g})"
        hover(drawn, [f"expected at {size_label(row.size)}: {interval}"])


def expected_recall(band: Band, domain: str, size: float, proposed: float) -> Figure:
    """The part of the facts that the target is expected to know, by ratio, and the proposal."""
    with plt.rc_context(STYLE):
        figure, axis = panel()
        axis.fill_between(band.ratios, band.low, band.high, color=BAND, alpha=0.6, lw=0)
        axis.plot(band.ratios, band.middle, color=INK, lw=1.4)
        at = float(np.interp(proposed, band.ratios, band.middle))
        axis.axvline(proposed, color=ACCENT, lw=1, ls=(0, (5, 2)))
        (drawn,) = axis.plot(proposed, at, "D", ms=7, color=ACCENT, mec=SURFACE)
        hover(drawn, [f"proposed {domain} {proposed:.3f}: {at:.2f} expected"])
        axis.set_ylim(0, 1.03)
        _named(axis, f"expected at {size_label(size)}", f"ratio of {plain(domain)}", "")
    return figure


def _points(
    axis: Axes,
    x: np.ndarray,
    y: np.ndarray,
    look: Look,
    said: str,
    across: np.ndarray | None = None,
) -> None:
    """Runs as points that say their numbers; where they are many, bins by `x`."""
    if not len(x):
        return
    if len(x) > MOST_POINTS:
        edges = np.quantile(x, np.linspace(0, 1, BINS + 1))
        which = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, BINS - 1)
        for b in np.unique(which):
            some = which == b
            text = f"{said} about {np.median(x[some]):.3g}: {int(some.sum())} runs"
            _bar(axis, float(np.median(x[some])), y[some], look.colour, text, look.marker)
        return
    (drawn,) = axis.plot(x, y, look.marker, color=look.colour, **MARKED)
    numbers = [f"{a:.3f}: " for a in x] if across is None else [": "] * len(x)
    hover(drawn, [f"{said} {n}{b:.4f}" for n, b in zip(numbers, y, strict=True)])


def _bar(
    axis: Axes, x: float, values: np.ndarray, colour: str, said: str, marker: str = "_"
) -> None:
    """The median of values and their range of nine tenths, as a bar."""
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    axis.plot([x, x], [low, high], color=colour, lw=2.5, alpha=0.35, solid_capstyle="butt")
    (drawn,) = axis.plot(x, middle, marker, color=colour, **MARKED)
    hover(drawn, [f"{said}, median {middle:.4f} ({low:.4f} to {high:.4f})"])


def _named(axis: Axes, title: str, across: str, unit: str) -> None:
    """Title, and the axes' names; that of the upright one stands level, above it."""
    axis.set_title(plain(title))
    axis.set_xlabel(across)
    if unit:
        axis.set_ylabel(unit)
