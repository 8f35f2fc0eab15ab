"""The figure of a plan of runs: what is bought of each size, and what that is expected to bring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from olmo_mixlaw.advice.design import Candidates, Plan
from olmo_mixlaw.models.ladder import short as size_label
from olmo_mixlaw.report.style import ACCENT, GREY, STYLE, looks, panel
from olmo_mixlaw.report.svg import hover
from olmo_mixlaw.runs.units import label as label_of

ONE_DECADE = 10.0


@dataclass(frozen=True)
class Drawn:
    """What is drawn of a plan: price by size of runs (R,), and regret and error (B + 1,).

    Both are before and after each batch, at what had been `spent`; `pays` is the last batch that
    pays.
    """

    sizes: np.ndarray
    price: np.ndarray
    spent: Sequence[float]
    regret: Sequence[float]
    error: Sequence[float]
    unit: str
    price_unit: str
    pays: int | None = None

    @classmethod
    def of(cls, candidates: Candidates, plan: Plan, unit: str, price_unit: str) -> Drawn:
        return cls(
            candidates.n_params[plan.rows],
            candidates.price[plan.rows],
            [0.0, *(batch.spent for batch in plan.batches)],
            [plan.expected_regret[0], *(batch.regret for batch in plan.batches)],
            [plan.expected_error[0], *(batch.error for batch in plan.batches)],
            unit,
            price_unit,
            plan.pays,
        )


def of_plan(candidates: Candidates, plan: Plan, unit: str, price_unit: str) -> Figure:
    """The figure of a plan, losses in `unit`."""
    return plan_figure(Drawn.of(candidates, plan, unit, price_unit))


def plan_figure(drawn: Drawn) -> Figure:
    """Price by size, and regret and error before and after each batch, side by side.

    A dashed line marks the last batch that pays.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 3, figsize=(11.4, 3.2), layout="constrained")
        bought(axes[0], drawn)
        brought(axes[1], drawn, error=False)
        brought(axes[2], drawn, error=True)
    return figure


def panels_of_plan(
    candidates: Candidates, plan: Plan, unit: str, price_unit: str
) -> list[tuple[Figure, str, str]]:
    """The same as three figures, each with a title and a description."""
    drawn = Drawn.of(candidates, plan, unit, price_unit)
    found = []
    with plt.rc_context(STYLE):
        figure, axis = panel()
        bought(axis, drawn)
        levels, counts = np.unique(drawn.sizes, return_counts=True)
        said = ", ".join(f"{c} of {size_label(n)}" for n, c in zip(levels, counts, strict=True))
        found.append((figure, "What is bought of each size", f"Runs: {said}."))
        for error in (False, True):
            figure, axis = panel()
            brought(axis, drawn, error=error)
            values = [100 * v for v in drawn.error] if error else list(drawn.regret)
            title = axis.get_title(loc="left")
            found.append((figure, title, f"From {values[0]:.3g} to {values[-1]:.3g}."))
    return found


def bought(axis: Axes, drawn: Drawn) -> None:
    """The price of the runs of each size as bars, their number at the end."""
    levels = np.unique(drawn.sizes)
    for y, (level, look) in enumerate(looks(levels).items()):
        some = drawn.sizes == level
        bars = axis.barh(y, drawn.price[some].sum(), color=look.colour, height=0.6)
        said = f"{int(some.sum())} runs of {size_label(level)}: {drawn.price[some].sum():.3g}"
        hover(bars[0], [f"{said} {drawn.price_unit}"])
        axis.annotate(
            f" {int(some.sum())}", (drawn.price[some].sum(), y), va="center", fontsize=8, color=GREY
        )
    axis.set_yticks(range(len(levels)), [size_label(level) for level in levels])
    axis.set_ylim(-0.6, max(len(levels) - 0.4, 1.4))
    axis.set(title="what is bought (number of runs)", xlabel=drawn.price_unit, ylabel="parameters")
    axis.grid(axis="y", visible=False)
    axis.margins(x=0.15)


def brought(axis: Axes, drawn: Drawn, *, error: bool) -> None:
    """Expected regret, or error of the forecast (%), over what is spent."""
    values = 100 * np.array(drawn.error) if error else np.array(drawn.regret)
    what = "%" if error else label_of(drawn.unit)
    (line,) = axis.plot(drawn.spent, values, "o-", ms=4, lw=1.5, color=ACCENT)
    pairs = zip(drawn.spent, values, strict=True)
    hover(line, [f"{spent:.3g} {drawn.price_unit}: {value:.3g} {what}" for spent, value in pairs])
    title = "error of the forecast" if error else "regret of the mixture picked"
    axis.set(title=title, xlabel=f"spent, {drawn.price_unit}", ylabel=what, yscale="log")
    axis.yaxis.set_major_formatter("{x:g}")
    if values.max() < ONE_DECADE * values.min():  # else they would run into one another
        axis.yaxis.set_minor_formatter("{x:.2g}")
    else:
        axis.yaxis.set_minor_formatter(NullFormatter())
    axis.tick_params(axis="y", which="minor", labelsize=7)
    if drawn.pays is not None and 0 < drawn.pays < len(drawn.spent) - 1:
        axis.axvline(drawn.spent[drawn.pays], color=GREY, lw=0.9, ls="--")
        axis.annotate(
            "pays until here",
            (drawn.spent[drawn.pays], 0.97),
            xycoords=("data", "axes fraction"),
            xytext=(4, 0),
            textcoords="offset points",
            fontsize=8,
            color=GREY,
            va="top",
        )
