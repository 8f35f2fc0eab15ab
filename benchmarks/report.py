"""What a report costs by the number of runs: seconds of processor, bytes, and the partial page's.

`python benchmarks/report.py [RUNS ...]` (default: 60 500 2000) makes a study of eight domains with
invented losses, metrics files and recall, reports it, prints a table and writes
`results/report.json`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from record import save

from olmo_mixlaw.runs import RunTable
from olmo_mixlaw.study import findings, partial
from olmo_mixlaw.study.config import load_study
from olmo_mixlaw.study.plan import Run, plan
from olmo_mixlaw.study.settings import StudyConfig
from olmo_mixlaw.study.worker import CHECKPOINTS, DONE

SIZES = ("w16", "w32", "w64", "w96")
DOMAINS = ("web", "code", "math", "wiki", "books", "papers", "forums", "bio")
STEPS = 200  # rows of a metrics file
STAGES = ("answer_of", "decision", "what_if", "next_runs", "report_page")


def study_of(runs: int, folder: Path) -> StudyConfig:
    """A study of `runs` runs, its mixtures drawn from a Dirichlet distribution."""
    rng = np.random.default_rng(0)
    mixtures = rng.dirichlet(np.full(len(DOMAINS), 1.5), max(runs // len(SIZES), 3)).round(4)
    mixtures[:, -1] += 1 - mixtures.sum(1)
    named = {
        f"m{i:04d}": dict(zip(DOMAINS, map(float, ratios), strict=True))
        for i, ratios in enumerate(mixtures)
    }
    text = dict.fromkeys(DOMAINS[:-1], "mixlaw:text?corpus=wikipedia")
    config = {
        "name": f"{runs} runs",
        "output": str(folder / "out"),
        "ladder": "micro-dense",
        "sizes": list(SIZES),
        "tokens": [2_000_000],
        "domains": {**text, "bio": "mixlaw:biography?n=40&seed=1"},
        "mixtures": named,
        "target": {"size": "w128", "tokens": 2_000_000},
        "laws": ["no_mixture", "additive", "transfer"],
        "tokenizer": {"vocab_size": 512},
    }
    path = folder / "study.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    return load_study(str(path))


def left(runs: list[Run], folders: dict[str, Path], rng: np.random.Generator) -> None:
    """What every run leaves: its record and its metrics."""
    steps = np.arange(1, STEPS + 1)
    for run in runs:
        place = folders[run.run_id]
        (place / CHECKPOINTS).mkdir(parents=True)
        seconds = {"train": float(rng.uniform(20, 60)), "evaluate": 1.0}
        (place / DONE).write_text(json.dumps({"seconds": seconds}))
        losses = 2 + 4 * steps**-0.3 + rng.normal(0, 0.02, STEPS)
        rows = "".join(f"{s},{v:.6f}\n" for s, v in zip(steps, losses, strict=True))
        (place / CHECKPOINTS / "metrics.csv").write_text("step,loss\n" + rows)


def table_of(runs: list[Run], rng: np.random.Generator) -> RunTable:
    """Losses of a law with noise, and recall that jumps with ratio and size."""
    losses, scores = [], []
    for run in runs:
        ratios = np.array([run.ratios[name] for name in DOMAINS])
        scale = (run.rung.n_params / 1e4) ** -0.12
        values = (1.2 + 1.5 * (ratios + 0.05) ** -0.2 * scale) * rng.normal(1, 0.004, len(DOMAINS))
        about: dict[str, Any] = {
            "run_id": run.run_id,
            "n_params": run.rung.n_params,
            "n_tokens": run.n_tokens,
        }
        shares = {f"w_{name}": value for name, value in run.ratios.items()}
        for name, value in zip(DOMAINS, values, strict=True):
            row = {**about, "seed": 1, "mixture": run.mixture, **shares}
            losses.append({**row, "domain": name, "loss": value})
        recall = 1 / (1 + np.exp(-30 * (ratios[-1] - 0.3 * scale)))
        for metric, value in (("exact_match", recall), ("answer_bits", 8 * (1 - recall))):
            score = {"task": "bio_recall", "metric": metric, "value": value, "stderr": 0.01}
            scores.append({**about, **score})
    return RunTable(pd.DataFrame(losses), pd.DataFrame(scores), source="study")


def timed(seconds: dict[str, float]) -> None:
    """Let each stage of a report add the processor's seconds that it takes."""
    for name in STAGES:
        stage = getattr(findings, name)

        def within(*given: Any, stage: Any = stage, name: str = name) -> Any:
            began = time.process_time()
            try:
                return stage(*given)
            finally:
                seconds[name] = time.process_time() - began

        setattr(findings, name, within)


def measure(count: int, seconds: dict[str, float]) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as name:
        study = study_of(count, Path(name))
        runs, out = plan(study), Path(study.output)
        folders = {run.run_id: out / "runs" / run.run_id for run in runs}
        left(runs, folders, rng)
        table = table_of(runs, rng)
        partial._read.update(by_run(table, folders))
        began = time.process_time()
        half = runs[len(runs) // 2 :]
        text = partial.partial_page(study, runs, half, folders, out).render()
        first = {"partial_s": time.process_time() - began, "partial_bytes": len(text.encode())}
        began = time.process_time()
        found = findings.conclude(study, table, out)
        total = time.process_time() - began
        assert found.report is not None
        size = found.report.stat().st_size
        stages = {f"{stage}_s": seconds[stage] for stage in STAGES}
    return {"runs": len(runs), **first, **stages, "all_s": total, "bytes": size}


def by_run(table: RunTable, folders: dict[str, Path]) -> dict[Path, RunTable]:
    """Each run's losses and scores, by its folder, as a partial report has read them."""
    losses, scores = (frame.groupby("run_id") for frame in (table.losses, table.scores))
    return {
        folders[str(run)]: RunTable(part, scores.get_group(run), source="study")
        for run, part in losses
    }


def main() -> None:
    counts = [int(text) for text in sys.argv[1:]] or [60, 500, 2000]
    seconds: dict[str, float] = {}
    timed(seconds)
    rows = []
    for count in counts:
        rows.append(measure(count, seconds))
        print(pd.DataFrame(rows).round(2).to_string(index=False), flush=True)
    save("report", {"rows": rows})


if __name__ == "__main__":
    main()
