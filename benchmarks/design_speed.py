"""How long does a plan take? Five sizes and 1,000 mixtures, before any run and after a hundred.

Processor seconds of one thread. `python benchmarks/design_speed.py` prints a row a case and saves
them.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import record

from olmo_mixlaw.advice.design import Candidates, Target, plan_runs
from olmo_mixlaw.runs import Design

SIZES = np.array([20e6, 60e6, 150e6, 400e6, 1e9])
TOKENS_A_PARAMETER = 20
TARGET = 7e9
# Of the price of the largest size at all mixtures.
BUDGETS = {"small": 0.003, "large": 0.03}


def cases(mixtures: int, domains: int, seed: int) -> Iterator[tuple[str, Candidates, float]]:
    """Candidates of every size and mixture, and a budget."""
    ratios = np.random.default_rng(seed).dirichlet(np.full(domains, 2.0), mixtures)
    n = np.repeat(SIZES, mixtures)
    d = TOKENS_A_PARAMETER * n
    names = [f"source{i}" for i in range(domains)]
    offered = Candidates(names, np.tile(ratios, (len(SIZES), 1)), n, d, 6 * n * d)
    for name, part in BUDGETS.items():
        yield name, offered, part * 6 * TOKENS_A_PARAMETER * SIZES[-1] ** 2 * mixtures


def swarm(offered: Candidates, runs: int, seed: int) -> Design:
    """Runs of the two smallest sizes: losses of a law that none of ours is, with 1 % of luck."""
    rng = np.random.default_rng(seed)
    small = np.flatnonzero(offered.n_params <= SIZES[1])
    some = offered.take(rng.choice(small, runs, replace=False))
    worth = rng.uniform(0.02, 0.3, size=(len(offered.domains),) * 2)
    np.fill_diagonal(worth, 1.0)
    share = np.sqrt(some.ratios) @ worth.T
    n, d = some.n_params[:, None], some.n_tokens[:, None]
    losses = 1.5 + 3 * (n / 1e6) ** -0.3 + 2 * (d / 1e8 * share) ** -0.25
    losses = losses * np.exp(0.01 * rng.normal(size=losses.shape))
    return Design(
        [f"run{i}" for i in range(runs)],
        offered.domains,
        offered.domains,
        some.ratios,
        some.n_params,
        some.n_params,
        some.n_tokens,
        losses,
    )


def main() -> None:
    """Time plans and save how long they took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mixtures", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=100)
    options = parser.parse_args()
    rows = []
    for domains in (6, 16):
        for name, offered, budget in cases(options.mixtures, domains, 0):
            for made in (0, options.runs):
                seen = swarm(offered, made, 1) if made else None
                target = Target(TARGET, TOKENS_A_PARAMETER * TARGET, price=6 * 20 * TARGET**2)
                start = time.process_time()
                plan = plan_runs(offered, target=target, budget=budget, seen=seen)
                rows.append(
                    {
                        "domains": domains,
                        "budget": name,
                        "runs_made": made,
                        "candidates": len(offered),
                        "bought": len(plan.rows),
                        "sizes": len(np.unique(offered.n_params[plan.rows])),
                        "cpu_seconds": time.process_time() - start,
                    }
                )
                print(pd.DataFrame(rows[-1:]).round(1).to_string(index=False), flush=True)
    record.save("design_speed", rows, **vars(options))


if __name__ == "__main__":
    main()
