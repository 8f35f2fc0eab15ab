"""The figures of a fitted ladder: its runs, its curves and what it says of larger models.

As in `law_figures`, each function returns a figure, which `law_figures.save` writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from olmo_mixlaw.report.style import ACCENT, BLUE, GREY, INK, MARK, STYLE, SURFACE, looks, plain

# Panels side by side, and points a curve.
COLUMNS = 4
POINTS = 60
# How models are told apart.
MODELS = ((ACCENT, "D"), (MARK, "s"), (BLUE, "^"), (INK, "v"))


def figure_tasks(
    measured: pd.DataFrame,
    accuracy: Callable[[np.ndarray, np.ndarray], np.ndarray],
    result: pd.DataFrame,
    tokens: Mapping[str, float],
) -> Figure:
    """Accuracy against tokens, a panel a task: runs, fitted curves, predictions, known scores.

    `measured` (n_params, n_tokens, task, accuracy) has a row a run and task. `accuracy` gives the
    curves, (R, T) in the order of its tasks, for sizes and budgets (R,). `result` (model, task,
    predicted, low, high, actual) is of models trained on so many `tokens`, by name.
    """
    tasks = list(dict.fromkeys(measured["task"]))
    columns = min(COLUMNS, len(tasks))
    rows = -(-len(tasks) // columns)
    sizes = np.unique(measured["n_params"])
    budgets = measured["n_tokens"]
    across = np.geomspace(budgets.min(), max(budgets.max(), *tokens.values()) * 2, POINTS)
    curves = [accuracy(np.full(POINTS, size), across) for size in sizes]
    with plt.rc_context(STYLE):
        figure = Figure(figsize=(3.3 * columns, 2.7 * rows + 0.4), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for j, (task, axis) in enumerate(zip(tasks, axes, strict=False)):
            runs = measured[measured["task"] == task]
            for curve, (size, look) in zip(curves, looks(sizes).items(), strict=True):
                some = runs[runs["n_params"] == size]
                axis.plot(
                    some["n_tokens"],
                    some["accuracy"],
                    look.marker,
                    ms=4.5,
                    mec=SURFACE,
                    mew=0.6,
                    color=look.colour,
                )
                label = f"{size / 1e9:.2g}B" if j == 0 else None
                axis.plot(across, curve[:, j], ls=look.dash, lw=1.1, color=look.colour, label=label)
            for (model, at), (colour, marker) in zip(tokens.items(), cycle(MODELS)):
                row = result[(result["model"] == model) & (result["task"] == task)].iloc[0]
                _model(axis, model, at, row, colour, marker, named=j == 0)
            axis.set(xscale="log", title=plain(task), xlabel="tokens", ylabel="accuracy")
        for axis in axes[len(tasks) :]:
            axis.set_axis_off()
        figure.legend(loc="outside lower center", ncols=5)
    return figure


def _model(
    axis: Axes, model: str, at: float, row: pd.Series, colour: str, marker: str, *, named: bool
) -> None:
    """A model's prediction as a filled mark with its interval, what is known as an open one."""
    axis.errorbar(
        [at],
        [row.predicted],
        yerr=np.maximum([[row.predicted - row.low], [row.high - row.predicted]], 0),
        fmt=marker,
        ms=5.5,
        mec=SURFACE,
        color=colour,
        label=f"{model} predicted" if named else None,
    )
    if np.isfinite(row.actual):
        label = f"{model} actual" if named else None
        axis.plot([at], [row.actual], marker, mfc="none", mew=1.4, ms=7, color=colour, label=label)


def figure_losses(result: pd.DataFrame) -> Figure:
    """Predicted against actual loss where it is known, else predictions by domain.

    `result` has columns task, predicted, low, high and actual, and the losses' unit in its attrs.
    """
    known = result.dropna(subset=["actual"])
    shown = known if len(known) else result
    across = "actual" if len(known) else "predicted"
    domains = list(dict.fromkeys(shown["task"]))
    with plt.rc_context(STYLE):
        figure = Figure(figsize=(5.5, 4.5), layout="constrained")
        axis = figure.subplots()
        ends = [shown[across].min(), shown[across].max()]
        axis.plot(ends, ends, color=GREY, ls="--", lw=0.9)
        for domain, look in looks(domains).items():
            part = shown[shown["task"] == domain]
            axis.errorbar(
                part[across],
                part["predicted"],
                yerr=np.maximum([part.predicted - part.low, part.high - part.predicted], 0),
                fmt=look.marker,
                ms=5,
                mec=SURFACE,
                mew=0.6,
                lw=1,
                color=look.colour,
                label=plain(domain),
            )
        unit = result.attrs.get("unit") or "unit not stated"
        unit = unit if unit.startswith("(") else f"({unit})"
        axis.set(xlabel=f"{across} loss {unit}", ylabel=f"predicted loss {unit}")
        axis.legend(ncols=1 + len(domains) // 12)
    return figure
