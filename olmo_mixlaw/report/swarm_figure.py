"""The figure of a swarm: what ratios each source has in it, beside the prior.

As in `law_figures`, it is returned, and `law_figures.save` writes it.
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from olmo_mixlaw.report.style import ACCENT, BLUE, INK, STYLE, SURFACE, plain, spread

# Points of a source beyond these say no more than their cloud.
MOST_POINTS = 400
# Ratios of 0 stand at this part of the least other one.
EDGE = 0.5


def ratios_of_a_swarm(ratios: np.ndarray, rows: pd.DataFrame) -> Figure:
    """Every ratio (n, L) of a swarm, a line a source, on a log scale, with prior and mean.

    `rows` (L) have `source`, `prior`, `mean` and `present`, the share of mixtures with the source.
    """
    order = np.argsort(-rows["prior"].to_numpy(), kind="stable")
    shown = ratios[:: max(1, len(ratios) // MOST_POINTS)]
    least = shown[shown > 0].min() * EDGE
    apart = spread(len(shown))
    style: dict[str, Any] = {"ms": 2.5, "alpha": 0.45, "mec": "none", "ls": "none"}
    with plt.rc_context(STYLE):
        height = max(2.6, 0.26 * len(order) + 1.3)
        figure, axis = plt.subplots(figsize=(7.2, height), layout="constrained")
        for line, k in enumerate(order):
            values = shown[:, k]
            axis.plot(np.maximum(values, least), line + apart, "o", color=BLUE, **style)
        lines = np.arange(len(order))
        axis.plot([], [], "o", color=BLUE, ms=4, ls="none", label="a mixture's ratio")
        prior, mean = (rows[key].to_numpy()[order] for key in ("prior", "mean"))
        axis.plot(prior, lines, "|", ms=14, mew=2.2, color=ACCENT, label="prior")
        axis.plot(mean, lines, "D", ms=5, color=INK, mec=SURFACE, label="mean")
        names = [
            f"{plain(rows['source'].iloc[k])}  {100 * rows['present'].iloc[k]:.0f} %" for k in order
        ]
        axis.set(
            xscale="log", yticks=lines, yticklabels=names, xlabel="ratio (the line at the left: 0)"
        )
        axis.set_ylim(len(order) - 0.4, -0.6)
        axis.set_title(f"{len(ratios)} mixtures, and the share of them that has a source")
        figure.legend(*axis.get_legend_handles_labels(), ncols=3, loc="outside lower left")
    return figure
