"""The figure of a swarm: what ratios each source has in it, beside the prior.

As in `law_figures`, it is returned, and `law_figures.save` writes it.
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from olmo_mixlaw.report.figures import ACCENT, STYLE, plain

# Points of a source beyond these say no more than their cloud.
MOST_POINTS = 400
DOT = "#3b6ea8"
# Ratios of 0 stand at this part of the least other one.
EDGE = 0.5


def ratios_of_a_swarm(ratios: np.ndarray, rows: pd.DataFrame) -> Figure:
    """Every ratio (n, L) of a swarm, a line a source, on a log scale, with prior and mean.

    `rows` (L) have `source`, `prior`, `mean` and `present`, the share of mixtures with the source.
    """
    order = np.argsort(-rows["prior"].to_numpy(), kind="stable")
    shown = ratios[:: max(1, len(ratios) // MOST_POINTS)]
    least = shown[shown > 0].min() * EDGE
    spread = 0.6 * ((np.arange(len(shown)) * 0.6180339887) % 1 - 0.5)
    style: dict[str, Any] = {"ms": 2.5, "alpha": 0.45, "mec": "none", "ls": "none"}
    with plt.rc_context(STYLE):
        height = max(2.6, 0.26 * len(order) + 1.3)
        figure, axis = plt.subplots(figsize=(7.2, height), layout="constrained")
        for line, k in enumerate(order):
            values = shown[:, k]
            axis.plot(np.maximum(values, least), line + spread, "o", color=DOT, **style)
        lines = np.arange(len(order))
        axis.plot(rows["prior"].to_numpy()[order], lines, "|", ms=13, mew=2, color=ACCENT)
        axis.plot(rows["mean"].to_numpy()[order], lines, "d", ms=5, color="#2b313b")
        names = [
            f"{plain(rows['source'].iloc[k])}  {100 * rows['present'].iloc[k]:.0f} %" for k in order
        ]
        axis.set(
            xscale="log", yticks=lines, yticklabels=names, xlabel="ratio (the line at the left: 0)"
        )
        axis.set_ylim(len(order) - 0.4, -0.6)
        axis.set_title(f"{len(ratios)} mixtures: each ratio, prior (|), mean (diamond)")
    return figure
