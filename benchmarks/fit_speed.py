"""How long does a fit take? Every law on real tables, growth with K, rows and starts, the optimum.

CPU seconds of one thread, which a busy machine changes little; medians of five below two seconds.
The optimum stands beside online mirror descent and a search over 1e5 Dirichlet draws, in objective
and in time.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

# Read when NumPy is loaded.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
import record
from optimum import mirror_descent
from tables import LAWS, tables

from olmo_mixlaw.advice import optimum
from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws import Settings, fit
from olmo_mixlaw.laws.choice.uncertainty import bootstrap
from olmo_mixlaw.runs import Design

LOOSE = Settings(strict=False)


# What takes longer than this is timed once.
LONG = 2.0
# Domains, rows, starts: each grows alone.
GROWTH = (
    (4, 200, 6),
    (8, 200, 6),
    (16, 200, 6),
    (32, 200, 6),
    (64, 200, 6),
    (8, 100, 6),
    (8, 1000, 6),
    (8, 3000, 6),
    (8, 10_000, 6),
    (8, 200, 2),
    (8, 200, 12),
    (8, 200, 24),
)
BOOTSTRAPPED = (
    ("p1", "power_transfer"),
    ("p2", "power_transfer"),
    ("p3", "camel_shares"),
    ("p3", "additive"),
    ("p4", "power_transfer"),
    ("p4", "competition_noise"),
    ("p10r", "additive"),
)


def median_seconds(call: Callable[[], object], times: int) -> float:
    seconds: list[float] = []
    while len(seconds) < times and max(seconds, default=0.0) < LONG:
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return float(np.median(seconds))


def synthetic(domains: int, rows: int, seed: int = 0) -> Design:
    """A table that the transfer law made: one loss a domain, three sizes, 1 % noise."""
    rng = np.random.default_rng(seed)
    ratios = rng.dirichlet(np.full(domains, 0.7), rows)
    n = rng.choice([1e7, 5e7, 2e8], rows)
    share = 0.05 + 0.95 * ratios
    losses = 1.5 + 0.8 * (n[:, None] / 5e7) ** -0.25 + 0.4 * share**-0.2
    losses *= np.exp(0.01 * rng.normal(size=losses.shape))
    names = [f"d{i}" for i in range(domains)]
    ids = [f"r{i}" for i in range(rows)]
    return Design(ids, names, names, ratios, n, n, np.full(rows, 1e9), losses)


def time_tables(names: list[str], laws: list[str], times: int) -> list[dict]:
    figures, here = [], tables()
    for name in names:
        if name not in here:
            print(f"{name}: not on this machine")
            continue
        design = here[name].load()
        for law in laws:
            try:
                seconds = median_seconds(lambda: fit(law, design, settings=LOOSE), times)  # noqa: B023
            except FitError as error:
                print(f"{name:8s} {law:18s} {error}")
                continue
            print(f"{name:8s} {len(design):5d} rows  {law:18s} {seconds:7.2f} s", flush=True)
            rows = {"rows": len(design), "targets": len(design.targets)}
            figures.append({"table": name, "law": law, "seconds": seconds, **rows})
    return figures


def time_growth(times: int) -> list[dict]:
    figures = []
    for law in ("transfer", "power_transfer", "competition_noise"):
        for k, rows, starts in GROWTH:
            design = synthetic(k, rows)
            settings = Settings(strict=False, starts=starts)
            seconds = median_seconds(lambda: fit(law, design, settings=settings), times)  # noqa: B023
            print(
                f"{law:18s} K {k:3d}  rows {rows:6d}  starts {starts:3d}  {seconds:7.2f} s",
                flush=True,
            )
            figures.append(
                {"law": law, "domains": k, "rows": rows, "starts": starts, "seconds": seconds}
            )
    return figures


def time_bootstraps() -> list[dict]:
    """200 replicates, from the time of 20."""
    figures, here = [], tables()
    for name, law in BOOTSTRAPPED:
        if name not in here:
            continue
        design = here[name].load()
        fitted = fit(law, design, settings=LOOSE)
        seconds = 10 * median_seconds(lambda: list(bootstrap(fitted, design, replicates=20)), 1)  # noqa: B023
        print(f"{name:8s} {law:18s} bootstrap of 200 runs {seconds:6.1f} s", flush=True)
        figures.append({"table": name, "law": law, "replicates": 200, "seconds": seconds})
    return figures


def time_optimum(times: int) -> list[dict]:
    figures = []
    fitted = fit("transfer", synthetic(17, 200), settings=LOOSE)
    for what, call in (
        ("optimum", lambda: optimum(fitted, 1e9, 1e9).objective),
        ("mirror descent", lambda: mirror_descent(fitted, 1e9, 1e9)),
        ("1e5 Dirichlet draws", lambda: optimum(fitted, 1e9, 1e9, draws=100_000, keep=1).objective),
    ):
        seconds, value = median_seconds(call, times), call()
        print(f"{what:22s} objective {value:.6f}  {seconds:7.3f} s", flush=True)
        figures.append({"what": what, "objective": value, "seconds": seconds})
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--laws", default=LAWS.replace(",regimes,stack", ""))
    parser.add_argument("--tables", default=",".join(tables()))
    options = parser.parse_args()
    figures = {
        "tables": time_tables(options.tables.split(","), options.laws.split(","), options.times),
        "growth": time_growth(options.times),
        "bootstrap": time_bootstraps(),
        "optimum": time_optimum(options.times),
    }
    record.save("fit_speed", figures, times=options.times, threads=1)


if __name__ == "__main__":
    main()
