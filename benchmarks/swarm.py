"""How long 10,000 mixtures of 64 sources take, and what the limits would cost by drawing again.

Seconds are of processor time, so that a busy machine doesn't blur them, and the median of
`REPEATS`. Goal: under 10 s each. `met` is the share of plain Dirichlet draws, small ratios taken
out, that meet the limits by themselves: who draws until they do needs one over it draws a mixture.

    python benchmarks/swarm.py [--mixtures 10000] [--sources 64]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import record

from olmo_mixlaw.swarm.draws import LEAST_RATIO, METHODS, Draw, draw
from olmo_mixlaw.swarm.limits import Limits, limits_of
from olmo_mixlaw.swarm.sources import Source, SourceTree

REPEATS = 3
SEED = 1
# Tokens of sources as unequal as those of a real list: a factor of e^1.5 about their median.
SPREAD = 1.5
# The target sees this part of all tokens, and a source at most so often.
TARGET, EPOCHS = 0.8, 4.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mixtures", type=int, default=10_000)
    parser.add_argument("--sources", type=int, default=64)
    options = parser.parse_args()
    tree = sources(options.sources)
    figures: list[dict[str, Any]] = []
    print(f"{'limits':22} {'method':10} {'seconds':>8} {'off limits':>10} {'apart':>6} {'met':>8}")
    for name, limits in cases(tree).items():
        met = met_by_chance(tree, limits)
        for method in METHODS:
            how = Draw(method)
            seconds, ratios = zip(
                *(timed(tree, limits, how, options.mixtures) for _ in range(REPEATS)), strict=True
            )
            row = {
                "limits": name,
                "method": method,
                "seconds": round(statistics.median(seconds), 2),
                "off_limits": int(limits.broken(ratios[0]).sum()),
                "off_sum": float(np.abs(ratios[0].sum(1) - 1).max()),
                "apart": how.apart,
                "met": met,
            }
            figures.append(row)
            print(
                f"{name:22} {method:10} {row['seconds']:8.2f} {row['off_limits']:10d} "
                f"{how.apart:6.3f} {met:8.4f}"
            )
    record.save(
        "swarm", figures, mixtures=options.mixtures, sources=options.sources, repeats=REPEATS
    )


def sources(count: int) -> SourceTree:
    """Sources of unequal size in groups of four, as sources with topics are."""
    tokens = 1e9 * np.random.default_rng(SEED).lognormal(0, SPREAD, count)
    leaves = [Source(f"t{i}", float(t)) for i, t in enumerate(tokens)]
    groups = [tuple(leaves[i : i + 4]) for i in range(0, count, 4)]
    return SourceTree(tuple(Source(f"g{i}", parts=parts) for i, parts in enumerate(groups)))


def cases(tree: SourceTree) -> dict[str, Limits]:
    """From no limit to all kinds at once."""
    target = TARGET * tree.tokens().sum()
    caps: dict[str, Any] = {"max_epochs": EPOCHS, "target_tokens": target}
    largest = tree.names[int(tree.prior.argmax())]
    group, other = (max(tree.sources, key=lambda s: s.total).name, tree.sources[0].name)
    bounds: dict[str, Any] = {
        "at_most": {largest: 0.15, group: 0.3},
        "at_least": {other: 0.05},
        "keep": [tree.names[5]],
    }
    return {
        "none": limits_of(tree),
        "least ratio": limits_of(tree, least_ratio=LEAST_RATIO),
        "and caps": limits_of(tree, least_ratio=LEAST_RATIO, **caps),
        "and floors, ceilings": limits_of(tree, least_ratio=LEAST_RATIO, **caps, **bounds),
    }


def timed(tree: SourceTree, limits: Limits, how: Draw, n: int) -> tuple[float, np.ndarray]:
    start = time.process_time()
    ratios = draw(n, tree.prior, limits, how)
    return time.process_time() - start, ratios


def met_by_chance(tree: SourceTree, limits: Limits, n: int = 4000) -> float:
    """The share of plain draws at the same strengths that meet the limits."""
    plain = limits_of(tree, least_ratio=limits.least_ratio)
    ratios = draw(n, tree.prior, plain, Draw(seed=SEED, apart=0))
    return float(1 - limits.broken(ratios).mean())


if __name__ == "__main__":
    main()
