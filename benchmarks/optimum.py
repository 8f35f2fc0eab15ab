"""The best mixture: our search against online mirror descent and 1e5 Dirichlet draws.

Several laws on real tables, at the table's largest size and budget, all targets alike. CPU seconds
of one thread, medians; a baseline that takes long is timed fewer times (the column says how often).
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

# Read when NumPy is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import record
from tables import tables

from olmo_mixlaw.advice import optimum
from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws import Settings, fit
from olmo_mixlaw.laws.fitted import Fit

LAWS = "transfer,additive,competition,competition_noise,kriging,stack"
TABLES = "p1,p5,p3"
DRAWS = 100_000
# Baselines stop being repeated after this many seconds.
PATIENCE = 20.0


def mirror_descent(fitted: Fit, n: float, d: float, steps: int = 500, rate: float = 0.5) -> float:
    """h <- h exp(-rate g), renormalised, from the equal mixture; the best mean loss on the way."""
    h = np.full(len(fitted.domains), 1 / len(fitted.domains))
    best = np.inf
    for _ in range(steps):
        best = min(best, float(fitted.predict(h, n, d).mean()))
        slope = fitted.ratio_gradient(h, n, d)[0].mean(0)
        h = h * np.exp(-rate * (slope - slope.min()))
        h /= h.sum()
    return best


def timed(call: Callable[[], float], times: int) -> dict[str, Any]:
    """Objective, median CPU seconds and the number of repeats."""
    seconds: list[float] = []
    value = np.nan
    while len(seconds) < times and sum(seconds) < PATIENCE:
        start = time.process_time()
        value = call()
        seconds.append(time.process_time() - start)
    return {"objective": value, "seconds": float(np.median(seconds)), "times": len(seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--laws", default=LAWS)
    parser.add_argument("--tables", default=TABLES)
    options = parser.parse_args()
    here, rows = tables(), []
    for name in options.tables.split(","):
        if name not in here:
            print(f"{name}: not on this machine")
            continue
        design = here[name].load()
        for law in options.laws.split(","):
            try:
                fitted = fit(law, design, settings=Settings(strict=False))
            except FitError as error:
                print(f"{name:5s} {law:18s} {error}")
                continue
            n, d = fitted.scene.n_range[1], fitted.scene.d_range[1]
            ways: dict[str, Callable[..., float]] = {
                "optimum": lambda *at: optimum(*at).objective,
                "mirror descent": mirror_descent,
                "Dirichlet": lambda *at: optimum(*at, keep=1, draws=DRAWS).objective,
            }
            row: dict[str, Any] = {
                "table": name,
                "law": law,
                "domains": len(design.domains),
                "targets": len(design.targets),
                "rows": len(design),
            }
            for way, call in ways.items():
                row[way] = timed(partial(call, fitted, n, d), options.times)
            rows.append(row)
            shown = "  ".join(
                f"{way} {row[way]['objective']:.5f} in {row[way]['seconds']:.3f} s" for way in ways
            )
            print(f"{name:5s} {law:18s} K {row['domains']:2d}  {shown}", flush=True)
    record.save("optimum", rows, draws=DRAWS, times=options.times, threads=1)


if __name__ == "__main__":
    main()
