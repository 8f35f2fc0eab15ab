"""The figures of docs/beyond.md: how far a level holds, and what an anchor brings.

`python benchmarks/beyond_figures.py` draws them from Gemstones' table and from the saved results
of `anchors.py` into `docs/images/`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import matplotlib.pyplot as plt
import numpy as np
from answers import LOOSE
from tables import find, load_sizes

from olmo_mixlaw.laws.fitting import fit
from olmo_mixlaw.report.law_figures import save
from olmo_mixlaw.report.style import ACCENT, GREY, STYLE

HERE = Path(__file__).resolve().parent
IMAGES = HERE.parent / "docs" / "images"
# Fitted are the models below the first size, shown those above the second.
SMALL, LARGE = 1.2e8, 9e8


def level_figure() -> Path:
    """Gemstones: models of about 1B, foreseen from those of at most 120M."""
    design = load_sizes("p14_gemstones")
    small = design.take(design.n_params < SMALL)
    large = design.take(design.n_params > LARGE)
    found = fit("no_mixture", small, settings=LOOSE, vocabulary=0.0)
    alone = fit("no_mixture", small, settings=LOOSE, level=False)
    tokens = np.geomspace(1e10, 3.5e11, 60)
    size = float(np.exp(np.log(np.unique(large.n_params)).mean()))
    ones = np.ones((len(tokens), 1))
    target = found.targets.index("dclm")
    level = found.predict(ones, size, tokens)[:, target]
    wide = found.half_width(ones, size, tokens)[:, target]
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
        for runs, colour, name in ((small, GREY, "fitted: 48M to 117M"), (large, "#1f2933", "1B")):
            axis.plot(
                runs.n_tokens,
                runs.losses[:, target],
                "o",
                ms=3,
                color=colour,
                mec="none",
                label=name,
            )
        axis.fill_between(
            tokens,
            level * np.exp(-wide),
            level * np.exp(wide),
            color=ACCENT,
            alpha=0.15,
            lw=0,
            label="90 % interval",
        )
        axis.plot(tokens, level, color=ACCENT, label="level at 1B")
        axis.plot(
            tokens,
            alone.predict(ones, size, tokens)[:, target],
            color=ACCENT,
            ls="--",
            lw=1.2,
            label="Chinchilla's law at 1B",
        )
        axis.set_xscale("log")
        axis.set(xlabel="training tokens", ylabel="loss on DCLM, nats a token")
        axis.set_title("Nine times the largest size fitted")
        figure.legend(fontsize=8, ncols=3, loc="outside lower center")
    return save(figure, IMAGES / "beyond-level.png")


def anchor_figure() -> Path:
    """Errors without an anchor, and with one or three, a group a table and step."""
    rows = json.loads((HERE / "results" / "anchors.json").read_text(encoding="utf-8"))["figures"]
    steps = list(dict.fromkeys((r["table"], r["step"]) for r in rows))
    bars = {
        "no run there": ("none, 1 left out", GREY),
        "moved by one run": ("1, all checkpoints, plain shift", "#e8b79c"),
        "one run as anchor": ("1, all checkpoints", ACCENT),
        "three runs as anchors": ("3, all checkpoints", "#7a3b16"),
    }
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(7.2, 0.62 * len(steps) + 1.4), layout="constrained")
        for i, (label, (kind, colour)) in enumerate(bars.items()):
            values = [
                next(
                    (r["mre"] for r in rows if (r["table"], r["step"], r["anchors"]) == (*s, kind)),
                    np.nan,
                )
                for s in steps
            ]
            y = np.arange(len(steps)) + 0.2 * (i - 1.5)
            axis.barh(y, values, 0.19, color=colour, label=label)
        axis.set_yticks(range(len(steps)), [f"{NAMES[t]}, {s.split(' (')[0]}" for t, s in steps])
        axis.invert_yaxis()
        axis.set(xlabel="mean relative error on other mixtures there (%)")
        axis.legend(fontsize=8)
        axis.grid(axis="y", visible=False)
    return save(figure, IMAGES / "beyond-anchors.png")


NAMES = {"p3": "SlimPajama 7", "p4": "RedPajama 7", "p4b": "5 sources", "p5": "4 sources"}


def main() -> None:
    if find("p14_gemstones"):
        print(f"drew {level_figure()}")
    print(f"drew {anchor_figure()}")


if __name__ == "__main__":
    main()
