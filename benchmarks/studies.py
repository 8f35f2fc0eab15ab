"""A study of 10,000 runs: how long its plan and its status take, and what estimates jump by.

    python benchmarks/studies.py            # measures, prints, and writes results/studies.json
    python benchmarks/studies.py --tree DIR # the same commands with the package in DIR

Processor seconds of one command each, started anew, the least of some (--repeats). The study lists
500 mixtures x 4 sizes x 5 seeds, or draws them as a swarm, or lists 2,500 x 4; 4,000 of its runs
are finished, 8 under way.
Estimates: a recorded study (`benchmarks/data/progress.json`: seconds and each run's step, every
second, on two cores that others used too) is played through `study.estimate`; the worst ratio of
two that are said one after the other, 20 s apart, up to the last minute.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import yaml
from record import save

SIZES = ["w16", "w32", "w64", "w128"]
FINISHED, RUNNING = 4000, 8
# How mixtures are given: whether drawn, how many, and seeds; with four sizes 10,000 runs each.
KINDS = {"listed": (False, 500, 5), "drawn": (True, 500, 5), "2,500 listed": (False, 2500, 1)}
EVERY, LAST = 20.0, 60.0  # seconds between estimates that are said; the end that isn't counted
TRACE = Path(__file__).parent / "data" / "progress.json"
ROOT = Path(__file__).parent.parent


def study(folder: Path, drawn: bool, mixtures: int, seeds: int) -> Path:
    """The study's file: the shipped one with many more runs."""
    values = yaml.safe_load((ROOT / "configs" / "studies" / "micro.yaml").read_text())
    ratios = np.random.default_rng(0).dirichlet(np.ones(len(values["domains"])), mixtures)
    ratios = np.round(ratios, 4)
    ratios[:, 0] = np.round(1 - ratios[:, 1:].sum(1), 4)
    listed = {
        f"m{i:04d}": dict(zip(values["domains"], map(float, row), strict=True))
        for i, row in enumerate(np.abs(ratios))
    }
    values["mixtures"] = {"swarm": {"n": mixtures}} if drawn else listed
    values |= {"sizes": SIZES, "seeds": list(range(1, seeds + 1)), "output": str(folder / "out")}
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def begin(path: Path) -> Path:
    """The folder of that study as it stands after a while."""
    from olmo_mixlaw.study.config import load_study
    from olmo_mixlaw.study.folders import write_study
    from olmo_mixlaw.study.plan import plan

    settings = load_study(path)
    output = Path(settings.output)
    write_study(settings, output)
    for i, run in enumerate(plan(settings)):
        folder = output / "runs" / run.run_id
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "config.yaml").write_text(f"max_duration: {run.steps}\n")
        rows = "step,loss\n" + "".join(f"{s},3.25\n" for s in range(10, run.steps, 10))
        if i < FINISHED:
            (folder / "run.json").write_text('{"seconds": {"train": 40.0, "evaluate": 2.0}}')
        if i < FINISHED + RUNNING:
            (folder / "checkpoints" / "metrics.csv").write_text(rows)
    return output


def seconds(tree: Path, repeats: int, *arguments: str) -> float:
    """Processor seconds of one command of the package in `tree`, the least of some."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    taken = []
    for _ in range(repeats):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "olmo_mixlaw", "study", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tree)
        if done.returncode:
            raise SystemExit(done.stderr)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(taken)


def estimates() -> dict[str, float]:
    """The recorded study through the estimate: its worst ratio, and how far off it was."""
    from olmo_mixlaw.study.estimate import Estimate, Work

    trace = json.loads(TRACE.read_text())
    works = {name: Work(name, **about) for name, about in trace["runs"].items()}
    end = trace["rows"][-1][0]
    estimate, done, said, last = Estimate(works, trace["workers"]), set(), [], -math.inf
    for now, steps in trace["rows"]:
        for name, step in steps.items():
            if step < 0 and name not in done:
                estimate.finished(name, now)
                done.add(name)
            elif step >= 0:
                estimate.observe(name, step, now)
        running = [name for name in steps if name not in done]
        waiting = [name for name in works if name not in done and name not in steps]
        if running and now - last >= EVERY and end - now >= LAST:
            last = now
            left = estimate.left(running, waiting, now)
            if left is not None:
                said.append((end - now, left))
    return jumps(said)


def jumps(said: list[tuple[float, float]]) -> dict[str, float]:
    """Of (what was left, what was said): the worst ratio of neighbours, and how far off."""
    ratios = [max(b / a, a / b) for (_, a), (_, b) in pairwise(said)]
    rises = [b / a for (_, a), (_, b) in pairwise(said)]
    off = [math.exp(abs(math.log(left / true))) for true, left in said]
    return {
        "said": len(said),
        "worst_ratio": max(ratios),
        "worst_rise": max(rises),
        "mean_factor_off": float(np.exp(np.mean(np.log(off)))),
        "worst_factor_off": max(off),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tree", type=Path, default=ROOT)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    found: dict[str, float] = {}
    for kind, (drawn, mixtures, seeds) in KINDS.items():
        if drawn and given.tree != ROOT:
            continue  # no earlier package could
        with tempfile.TemporaryDirectory() as folder:
            path = study(Path(folder), drawn, mixtures, seeds)
            found[f"plan, {kind}"] = seconds(given.tree, given.repeats, "plan", str(path))
            output = begin(path)
            found[f"status, {kind}"] = seconds(given.tree, given.repeats, "status", str(output))
    for name, value in found.items():
        print(f"{name:20} {value:6.2f} processor seconds")
    if given.tree != ROOT:
        return
    jumped = estimates()
    print(", ".join(f"{key} {value:.3g}" for key, value in jumped.items()))
    save("studies", {"seconds": found, "estimates": jumped}, runs=10_000, finished=FINISHED)


if __name__ == "__main__":
    main()
