"""The figures of docs/theory.md, from the project's own runs (benchmarks/data/two_fidelity).

`python benchmarks/theory_figures.py` writes two SVGs with their text as text into `docs/images/`.
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import matplotlib.pyplot as plt
import numpy as np

from olmo_mixlaw import laws
from olmo_mixlaw.advice import Optimum, near_optimal, optimum
from olmo_mixlaw.models.ladder import short as size_label
from olmo_mixlaw.report.style import ACCENT, BAND, BLUE, MARK, MARKERS, STYLE
from olmo_mixlaw.runs import RunTable

HERE = Path(__file__).resolve().parent
IMAGES = HERE.parent / "docs" / "images"
DOMAIN = "code"


def moved(best: np.ndarray, k: int, shares: np.ndarray) -> np.ndarray:
    """Mixtures (R, K): domain `k` has `shares` (R,), the others keep their proportions."""
    rest = np.delete(best, k) / (1 - best[k])
    return np.insert((1 - shares[:, None]) * rest, k, shares, axis=1)


def shares_figure(fit: laws.Fit, table: RunTable) -> Path:
    """A domain's loss against its own share, every run and the law, for both sizes."""
    design = table.design()
    k = design.domains.index(DOMAIN)
    longest = design.n_tokens.max()  # others are a quarter and an eighth of it
    mean = design.ratios.mean(axis=0)
    shares = np.linspace(0.02, design.ratios[:, k].max(), 100)
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(6.0, 3.4), layout="constrained")
        marks = zip(np.unique(design.n_params), (BLUE, MARK), MARKERS, ("-", "--"), strict=False)
        for size, colour, marker, dash in marks:
            rows = (design.n_params == size) & (design.n_tokens == longest)
            axis.plot(
                design.ratios[rows, k],
                design.losses[rows, k],
                marker,
                color=colour,
                ms=5,
                label=f"runs of {size_label(size)} parameters",
            )
            losses = fit.predict(moved(mean, k, shares), size, longest)[:, k]
            axis.plot(shares, losses, dash, color=colour, label="the law there")
        axis.set(xlabel=f"share of {DOMAIN} in the training tokens", ylabel="its loss (nats)")
        axis.set_title("Less and less for each further share")
        axis.legend()
    return save(figure, "theory-shares.svg", "Loss on code against its share of the tokens")


def flat_figure(fit: laws.Fit, best: Optimum) -> Path:
    """The mean loss about the best mixture along one share, and what is as good."""
    k = best.domains.index(DOMAIN)
    shares = np.linspace(0.01, 0.99, 300)
    losses = fit.predict(moved(best.ratios, k, shares), best.n_params, best.n_tokens).mean(axis=1)
    row = near_optimal(fit, best).set_index("domain").loc[DOMAIN]
    ends = f"as good: {row['low']:.2f} to {row['high']:.2f}"
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(6.0, 3.4), layout="constrained")
        axis.axvspan(row["low"], row["high"], color=BAND, alpha=0.6, label=ends)
        axis.plot(shares, losses, color=ACCENT, label="predicted mean loss")
        axis.plot(best.ratios[k], best.value, "D", color=MARK, label="best")
        axis.set(
            xlabel=f"share of {DOMAIN}, the others in proportion",
            ylabel="mean of four losses (nats)",
            ylim=(losses.min() - 0.03, losses.min() + 0.5),
        )
        axis.set_title("The bottom is flat")
        axis.legend(loc="upper center")
    return save(figure, "theory-flat.svg", "Mean loss about the best mixture")


def save(figure: plt.Figure, name: str, title: str) -> Path:
    path = IMAGES / name
    figure.savefig(path, metadata={"Title": title, "Date": None}, facecolor="white")
    plt.close(figure)
    return path


def main() -> None:
    table = RunTable.load(HERE / "data" / "two_fidelity" / "losses.csv")
    fit = laws.fit("modulated", table)
    best = optimum(fit, *(float(table.losses[name].max()) for name in ("n_params", "n_tokens")))
    for path in (shares_figure(fit, table), flat_figure(fit, best)):
        print(f"wrote {path} ({path.stat().st_size / 1024:.0f} kB)")
    print({name: round(share, 3) for name, share in best.mixture().items()})
    print(near_optimal(fit, best).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
