"""The figures of `olmo-mixlaw knowledge`: what would be known by ratio, and what a sweep shows.

As in `law_figures`: measured beside fitted, the asked-for in colour, intervals as bands.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from olmo_mixlaw.advice.knowledge.detect import Detected, Transition
from olmo_mixlaw.advice.knowledge.plan import KnowledgePlan
from olmo_mixlaw.advice.knowledge.sweep import unscaled
from olmo_mixlaw.models.ladder import short as size_label
from olmo_mixlaw.report.style import ACCENT, BAND, BLUE, GREY, LINE, MARK, STYLE, SURFACE, plain
from olmo_mixlaw.report.svg import hover

# A figure shows so many series; the longest come first.
MOST_SERIES = 6
_NAMES = {"ratio": "ratio (odds scale)", "size": "parameters", "time": "tokens"}


def plan_figure(found: KnowledgePlan) -> Figure:
    """Part known by ratio: the optimum's curve, a cold start's chance, and where the run is."""
    ratio, known, chance = np.array(found.sweep).T
    low, high = found.ratio_needed["low"], found.ratio_needed["high"]
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(9.6, 3.6), layout="constrained", gridspec_kw={"width_ratios": [3, 2]}
        )
        left.axvspan(
            low, high, color=BAND, alpha=0.35, lw=0, label="cold start: threshold, 90 % interval"
        )
        left.plot(ratio, known, color=BLUE, lw=1.6, label="best learner (keeps what it knows)")
        left.plot(
            ratio,
            chance,
            color=MARK,
            lw=1.6,
            ls=(0, (5, 2)),
            label="chance that a cold start learns it",
        )
        left.plot(
            found.ratio,
            found.probability,
            "D",
            color=ACCENT,
            mec=SURFACE,
            ms=8,
            zorder=4,
            label=f"asked: {found.ratio:g}, {found.verdict}",
        )
        left.set(
            title=f"{size_label(found.facts.n)} facts, {size_label(found.n_params)} parameters, "
            f"{size_label(found.n_tokens)} tokens",
            xlabel="ratio of the facts",
            ylabel="part known, or probability",
            xscale="log",
            ylim=(-0.03, 1.05),
        )
        figure.legend(
            *left.get_legend_handles_labels(), fontsize=8, ncols=4, loc="outside lower left"
        )
        shares = found.subsampling
        right.plot(100 * shares.shares, shares.curve, color=BLUE, lw=1.6)
        right.plot(100 * shares.rho, shares.known, "D", color=ACCENT, mec=SURFACE, ms=7)
        right.annotate(
            f"{shares.rho:.0%} kept: {shares.known:.2f} of all known",
            (100 * shares.rho, shares.known),
            xytext=(0.97, 0.06),
            textcoords="axes fraction",
            ha="right",
            fontsize=8,
        )
        right.set(
            title="leaving facts out",
            xlabel="facts kept (%)",
            ylabel="expected part known, of all",
            ylim=(-0.03, 1.05),
        )
    return figure


def detect_figure(found: Detected) -> Figure:
    """A row a series: recall and bits with what was fitted, the change point as a band."""
    shown = found.transitions[:MOST_SERIES]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(shown),
            2,
            figsize=(9.6, 0.4 + 2.9 * len(shown)),
            squeeze=False,
            layout="constrained",
        )
        for (left, right), one in zip(axes, shown, strict=True):
            _panel(left, one, bits=False)
            _panel(right, one, bits=True)
    return figure


def _panel(axis: plt.Axes, one: Transition, *, bits: bool) -> None:
    change = one.bits if bits else one.recall
    name = "bits of an answer" if bits else "recall"
    if change is None:
        axis.text(0.5, 0.5, "no answer_bits", ha="center", color=GREY, transform=axis.transAxes)
        axis.set_axis_off()
        return
    values = one.series.bits if bits else one.series.recall
    which = one.series.axis
    colour = ACCENT if change.sharp else GREY
    if change.kind in ("jump", "threshold", "smooth"):
        low, high = unscaled(which, np.array([change.low, change.high]))
        axis.axvspan(low, high, color=BAND if change.sharp else LINE, alpha=0.6, lw=0)
    axis.plot(unscaled(which, change.x), change.curve, color=colour, lw=1.5)
    (drawn,) = axis.plot(one.series.x, values, "o", color=BLUE, ms=4.5, mec=SURFACE, mew=0.6)
    hover(drawn, [f"{x:.4g}: {y:.3f}" for x, y in zip(one.series.x, values, strict=True)])
    ratio = 10 ** (change.log_evidence / np.log(10))
    said = f"{change.kind}; sharp over smooth {_odds(ratio)}"
    title = said if bits else f"{plain(one.series.text())}\n{said}"
    axis.set(title=title, xlabel=_NAMES[which], ylabel=name)
    axis.set_xscale("logit" if which == "ratio" and one.series.x.max() < 1 else "log")
    if which == "ratio":
        ticks = np.unique(one.series.x)
        ticks = ticks[:: max(1, len(ticks) // 6)]
        axis.set_xticks(ticks, [f"{t:g}" for t in ticks.round(4)])
        axis.set_xticks([], minor=True)
    if not bits:
        axis.set_ylim(-0.05, max(1.05 * float(values.max()), 0.1))


def _odds(ratio: float) -> str:
    if ratio < 1:
        return f"1 : {1 / ratio:.3g}" if ratio > 1e-4 else "1 : > 10,000"
    return f"{ratio:.3g} : 1" if ratio < 1e4 else "> 10,000 : 1"
