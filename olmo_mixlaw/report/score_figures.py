"""The figure of `olmo-mixlaw scores`: what each task gains and loses, families together.

As in `law_figures`: intervals as bands, what counts in colour, what doesn't in grey.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from olmo_mixlaw.advice.gains import Gains
from olmo_mixlaw.report.style import ACCENT, BAND, BLUE, GREY, INK, STYLE, SURFACE, plain
from olmo_mixlaw.report.svg import hover

MEAN = "weighted mean"


def gains_figure(found: Gains, title: str) -> Figure:
    """A row a task: its gain in points of score with its interval; families and mean in bold."""
    rows = _rows(found)
    y = np.arange(len(rows))[::-1]
    gain, low, high = (100 * rows[key].to_numpy(float) for key in ("gain", "low", "high"))
    bold = rows["kind"].to_numpy() != "task"
    counts = rows["weight"].to_numpy(float) > 0
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(
            figsize=(6.6, max(2.4, 0.25 * len(rows) + 1.3)), layout="constrained"
        )
        axis.axvline(0, color=GREY, lw=0.9)
        axis.hlines(y, low, high, color=BAND, lw=np.where(bold, 7, 4))
        names = [plain(name) for name in rows["name"]]
        for chosen, colour, marker, label in (
            (bold, ACCENT, "D", "means"),
            (~bold & counts, BLUE, "o", "tasks"),
            (~bold & ~counts, GREY, "X", "tasks that don't count"),
        ):
            if chosen.any():
                (drawn,) = axis.plot(
                    gain[chosen], y[chosen], marker, color=colour, mec=SURFACE, ms=6, label=label
                )
                some = zip(rows["name"][chosen], gain[chosen], strict=True)
                hover(drawn, [f"{name}: {value:+.2f} points" for name, value in some])
        axis.set_yticks(y, names)
        for tick, is_bold, does_count in zip(axis.get_yticklabels(), bold, counts, strict=True):
            tick.set_fontweight("bold" if is_bold else "normal")
            tick.set_color(INK if does_count else GREY)
        percent = f"{100 * found.level:.0f} %"
        axis.set(title=title, xlabel=f"gain in points of score, and its {percent} interval")
        axis.grid(axis="y", visible=False)
        axis.set_ylim(-0.7, len(rows) - 0.3)
        figure.legend(*axis.get_legend_handles_labels(), ncols=3, loc="outside lower left")
    return figure


def _rows(found: Gains) -> pd.DataFrame:
    """The mean, then each family above its tasks, then the tasks that are in none."""
    mean = pd.DataFrame([{"name": MEAN, "kind": "mean", "weight": 1.0, **found.mean}])
    parts = [mean]
    tasks = found.tasks.rename(columns={"task": "name"}).assign(kind="task")
    for family in found.families.to_dict("records"):
        parts.append(pd.DataFrame([{**family, "name": family["family"], "kind": "family"}]))
        parts.append(tasks[tasks["family"] == family["family"]])
    parts.append(tasks[~tasks["family"].isin(found.families["family"])])
    return pd.concat([part for part in parts if len(part)], ignore_index=True)
