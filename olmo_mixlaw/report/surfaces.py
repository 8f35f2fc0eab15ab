"""The loss as a landscape over two domains' ratios, the others sharing the rest as proposed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from olmo_mixlaw.report.style import ACCENT, BLUE, GREY, INK, MARK, STYLE, SURFACE, panel, plain
from olmo_mixlaw.report.svg import hover

SIDE = 41  # points along each ratio
# Of the least value, in percent: where the lines are.
LINES = (0.5, 2.0, 5.0, 10.0, 20.0, 50.0)
MOST_TRIED = 200


@dataclass(frozen=True)
class Point:
    """A mixture (K,) that is marked on the landscape."""

    name: str
    ratios: np.ndarray


def slice_of(ratios: np.ndarray, pair: tuple[int, int], side: int = SIDE) -> np.ndarray:
    """Mixtures (side * side, K) over the ratios of two domains; the rest as `ratios` share it.

    Points whose two ratios exceed 1 are NaN; with two domains alone, all but the edge are.
    """
    first, second = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side))
    left = 1 - first.ravel() - second.ravel()
    rest = np.delete(ratios, pair)
    share = rest / rest.sum() if rest.sum() > 0 else np.full(len(rest), 1 / max(len(rest), 1))
    out = np.full((side * side, len(ratios)), np.nan)
    others = np.delete(np.arange(len(ratios)), pair)
    out[:, pair[0]], out[:, pair[1]] = first.ravel(), second.ravel()
    out[:, others] = left[:, None] * share
    out[left < -1e-9] = np.nan
    return np.where(np.isnan(out), np.nan, np.clip(out, 0, 1))


def main_pair(ratios: np.ndarray) -> tuple[int, int]:
    """The two domains with the largest ratios."""
    order = np.argsort(-ratios, kind="stable")
    return int(order[0]), int(order[1])


def landscape(
    value: Callable[[np.ndarray], np.ndarray],
    domains: Sequence[str],
    proposed: np.ndarray,
    pair: tuple[int, int],
    tried: np.ndarray,
    points: Sequence[Point] = (),
    title: str = "objective",
) -> Figure:
    """Contours of `value`, of mixtures (R, K) -> (R,), in percent above its least on the slice.

    Crosses are mixtures tried, as far as they can be seen in this slice: by their two ratios.
    """
    mixtures = slice_of(proposed, pair)
    inside = np.isfinite(mixtures).all(1)
    values = np.full(len(mixtures), np.nan)
    values[inside] = value(mixtures[inside])
    above = 100 * (values / np.nanmin(values) - 1)
    height = np.ma.masked_invalid(above.reshape(SIDE, SIDE))
    ends = np.linspace(0, 1, SIDE)
    lines = [v for v in LINES if v < np.nanmax(above)] or [float(np.nanmax(above)) / 2]
    with plt.rc_context(STYLE):
        figure, axis = panel(4.5, 3.7)
        for depth, level in enumerate(lines):  # the deeper, the more fills lie over one another
            axis.contourf(ends, ends, height, [-1, level], colors=[BLUE], alpha=0.18 - 0.01 * depth)
        drawn = axis.contour(ends, ends, height, lines, colors=GREY, linewidths=0.8)
        # The innermost lie so near to the proposal that their numbers would cover it.
        named = [level for level in drawn.levels if level > lines[0]] or list(drawn.levels)
        axis.clabel(drawn, named, fmt="+%g %%", fontsize=7.5, colors=INK, inline=False)
        shown = tried[:: max(1, len(tried) // MOST_TRIED)]
        axis.plot(shown[:, pair[0]], shown[:, pair[1]], "x", ms=4.5, color=GREY, mew=1)
        for i, point in enumerate([*points, Point("proposed", proposed)]):
            last = i == len(points)
            x, y = point.ratios[pair[0]], point.ratios[pair[1]]
            (mark,) = axis.plot(
                x, y, "D" if last else "s", ms=7, color=ACCENT if last else MARK, mec=SURFACE
            )
            hover(mark, [f"{point.name}: {domains[pair[0]]} {x:.3f}, {domains[pair[1]]} {y:.3f}"])
            axis.annotate(
                plain(point.name), (x, y), xytext=(6, 5), textcoords="offset points", fontsize=8
            )
        axis.plot([0, 1], [1, 0], color=GREY, lw=0.8)
        axis.set_xlim(-0.02, 1.02)
        axis.set_ylim(-0.02, 1.02)
        axis.grid(False)
        axis.set_title(plain(title))
        axis.set_xlabel(f"ratio of {plain(domains[pair[0]])}")
        axis.set_ylabel(f"ratio of {plain(domains[pair[1]])}")
    return figure
