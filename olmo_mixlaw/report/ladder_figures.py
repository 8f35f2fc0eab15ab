"""The figures of a fitted ladder: its runs, its curves and what it says of larger models.

As in `law_figures`, each function returns a figure, which `law_figures.save` writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

# Panels side by side, and points a curve.
COLUMNS = 4
POINTS = 60


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
    figure = Figure(figsize=(3.3 * columns, 2.7 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    sizes = np.unique(measured["n_params"])
    budgets = measured["n_tokens"]
    across = np.geomspace(budgets.min(), max(budgets.max(), *tokens.values()) * 2, POINTS)
    curves = [accuracy(np.full(POINTS, size), across) for size in sizes]
    for j, (task, axis) in enumerate(zip(tasks, axes, strict=False)):
        runs = measured[measured["task"] == task]
        for s, size in enumerate(sizes):
            some = runs[runs["n_params"] == size]
            axis.plot(some["n_tokens"], some["accuracy"], "o", ms=4, color=f"C{s}")
            label = f"{size / 1e9:.2g}B" if j == 0 else None
            axis.plot(across, curves[s][:, j], "-", lw=1, color=f"C{s}", label=label)
        for m, (model, at) in enumerate(tokens.items(), len(sizes)):
            row = result[(result["model"] == model) & (result["task"] == task)].iloc[0]
            axis.errorbar(
                [at],
                [row.predicted],
                yerr=np.maximum([[row.predicted - row.low], [row.high - row.predicted]], 0),
                fmt="x",
                color=f"C{m}",
                label=f"{model} predicted" if j == 0 else None,
            )
            if np.isfinite(row.actual):
                label = f"{model} actual" if j == 0 else None
                axis.plot([at], [row.actual], "o", mfc="none", color=f"C{m}", label=label)
        axis.set(xscale="log", title=task, xlabel="tokens", ylabel="accuracy")
    for axis in axes[len(tasks) :]:
        axis.set_axis_off()
    figure.legend(loc="outside lower center", ncols=5, fontsize="small")
    return figure


def figure_losses(result: pd.DataFrame) -> Figure:
    """Predicted against actual loss where it is known, else predictions by domain.

    `result` has columns task, predicted, low, high and actual, and the losses' unit in its attrs.
    """
    figure = Figure(figsize=(5.5, 4.5), layout="constrained")
    axis = figure.subplots()
    known = result.dropna(subset=["actual"])
    shown = known if len(known) else result
    across = "actual" if len(known) else "predicted"
    for i, (domain, part) in enumerate(shown.groupby("task", sort=False)):
        axis.errorbar(
            part[across],
            part["predicted"],
            yerr=np.maximum([part.predicted - part.low, part.high - part.predicted], 0),
            fmt="o",
            ms=4,
            color=f"C{i % 10}",
            label=str(domain),
        )
    ends = [shown[across].min(), shown[across].max()]
    axis.plot(ends, ends, "k--", lw=0.8)
    unit = result.attrs.get("unit") or "unit not stated"
    unit = unit if unit.startswith("(") else f"({unit})"
    axis.set(xlabel=f"{across} loss {unit}", ylabel=f"predicted loss {unit}")
    axis.legend(fontsize="small")
    return figure
