"""The figure of docs/design.md: what each way of buying runs reaches for its compute.

`python benchmarks/design_figures.py` draws the saved results of `design.py` into `docs/images/`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import matplotlib.pyplot as plt
import pandas as pd

from olmo_mixlaw.report.law_figures import save
from olmo_mixlaw.report.style import ACCENT, GREY, STYLE

HERE = Path(__file__).resolve().parent
IMAGES = HERE.parent / "docs" / "images"
NAMES = {
    "p1": "Pile 17, 1B",
    "p2": "Pile 17 to 1B",
    "p3": "SlimPajama 7 to 680M",
    "p4": "RedPajama 7 to 201M",
    "p12": "Olmix 64, 30M",
}
# Ours in the accent, the grid in dark, the others told apart by colour.
COLOURS = {
    "planned": ACCENT,
    "full grid": "#1f2933",
    "CAMEL-like": "#4c78a8",
    "Olmix-like": "#b279a2",
    "Dirichlet": "#72b7b2",
    "two sizes": "#54a24b",
    "spread": "#eeca3b",
    "largest size": GREY,
    "BoTorch": "#9d755d",
}
# Errors named on the axis (%).
TICKS = (0.5, 1, 2, 3, 5, 10, 20, 50)
SHOWN = {"mre": "error (%)", "regret": "regret"}


def curves_figure() -> Path:
    """Error and regret against the part of the full grid's compute, a column a table."""
    saved = json.loads((HERE / "results" / "design.json").read_text(encoding="utf-8"))
    frame = pd.DataFrame(saved["figures"]["curves"])
    names = [name for name in NAMES if name in set(frame["table"])]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(SHOWN),
            len(names),
            figsize=(2.5 * len(names) + 0.6, 4.8),
            layout="constrained",
            squeeze=False,
            sharex=True,
        )
        for column, name in enumerate(names):
            part = frame[frame["table"] == name]
            for row, (value, label) in enumerate(SHOWN.items()):
                axis = axes[row][column]
                for strategy, colour in COLOURS.items():
                    curve = part[part["strategy"] == strategy]
                    if len(curve):
                        ours = strategy == "planned"
                        axis.plot(
                            curve["fraction"],
                            curve[value],
                            "o-" if ours else "-",
                            ms=3,
                            lw=2.2 if ours else 1.1,
                            zorder=3 if ours else 2,
                            color=colour,
                            label=strategy,
                        )
                axis.set_xscale("log")
                axis.set_xticks([0.05, 0.2, 0.5, 1.0], ["5", "20", "50", "100"])
                axis.minorticks_off()
                if value == "mre":
                    axis.set_yscale("log")
                    axis.set_title(NAMES[name])
                    limits = axis.get_ylim()
                    axis.set_yticks(TICKS, [f"{x:g}" for x in TICKS])
                    axis.minorticks_off()
                    axis.set_ylim(limits)
                else:
                    axis.set_xlabel("compute, % of the full grid's", fontsize=8)
                if not column:
                    axis.set_ylabel(label)
        shown: dict[str, object] = {}
        for axis in axes.flat:
            shown |= dict(zip(*axis.get_legend_handles_labels()[::-1], strict=True))
        figure.legend(shown.values(), shown.keys(), fontsize=8, ncols=9, loc="outside lower center")
    return save(figure, IMAGES / "design-curves.png")


if __name__ == "__main__":
    print(f"drew {curves_figure()}")
