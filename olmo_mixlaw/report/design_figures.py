"""The figure of a plan of runs: what is bought of each size, and what that is expected to bring."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from olmo_mixlaw.advice.design import Candidates, Plan
from olmo_mixlaw.report.figures import ACCENT, STYLE, size_colours, size_label
from olmo_mixlaw.runs.units import label as label_of

GREY = "#8a919c"


def of_plan(candidates: Candidates, plan: Plan, unit: str, price_unit: str) -> Figure:
    """The figure of a plan, losses in `unit`."""
    return plan_figure(
        candidates.n_params[plan.rows],
        candidates.price[plan.rows],
        [0.0, *(batch.spent for batch in plan.batches)],
        [plan.expected_regret[0], *(batch.regret for batch in plan.batches)],
        [plan.expected_error[0], *(batch.error for batch in plan.batches)],
        unit=unit,
        price_unit=price_unit,
        pays=plan.pays,
    )


def plan_figure(
    sizes: np.ndarray,
    price: np.ndarray,
    spent: Sequence[float],
    regret: Sequence[float],
    error: Sequence[float],
    *,
    unit: str,
    price_unit: str,
    pays: int | None = None,
) -> Figure:
    """Price by size of runs (R,), and regret and error before and after each batch (B + 1,).

    A dashed line marks the last batch that pays.
    """
    levels = np.unique(sizes)
    colours = size_colours(levels)
    with plt.rc_context(STYLE):
        figure, (left, middle, right) = plt.subplots(
            1, 3, figsize=(11.4, 3.2), layout="constrained"
        )
        for y, level in enumerate(levels):
            some = sizes == level
            left.barh(y, price[some].sum(), color=colours[level])
            left.annotate(
                f" {int(some.sum())}",
                (price[some].sum(), y),
                va="center",
                fontsize=8,
                color="#5b6370",
            )
        left.set_yticks(range(len(levels)), [size_label(level) for level in levels])
        left.set(title="what is bought (number of runs)", xlabel=price_unit, ylabel="parameters")
        left.grid(axis="y", visible=False)
        left.margins(x=0.15)
        for axes, values, title, what in (
            (middle, np.array(regret), "regret of the mixture picked", label_of(unit)),
            (right, 100 * np.array(error), "error of the forecast", "%"),
        ):
            axes.plot(spent, values, "o-", ms=3.5, color=ACCENT)
            axes.set(title=title, xlabel=f"spent, {price_unit}", ylabel=what, yscale="log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("{x:.2g}")
            axes.tick_params(axis="y", which="minor", labelsize=7)
            if pays is not None and 0 < pays < len(spent) - 1:
                axes.axvline(spent[pays], color=GREY, lw=0.9, ls="--")
    return figure
