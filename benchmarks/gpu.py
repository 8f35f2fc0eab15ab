"""What only a GPU can settle, check by check, in under ten minutes on one H200 and with no network.

    python benchmarks/gpu.py [--device cuda] [--only NAME ...]

Every check runs in a process of its own, so that one that fails or hangs leaves the others alone.
A table is printed and `benchmarks/results/gpu.json` written (on a CPU, where all shapes are tiny
and nothing is saved: it shows that the script runs). The exit code is 1 where a check failed.

Limits stand in `LIMITS`; a figure that is only reported has none.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import record

from olmo_mixlaw.models import reference as reference_models

ROOT = Path(__file__).parents[1]
SECONDS = 240  # a check's own limit; a cold compile is the slowest of them
# check -> figure -> the most (or, as a negative number, minus the least) that passes.
LIMITS: dict[str, dict[str, float]] = {
    "reference": {
        f"{kind}_{precision}_{what}": limit
        for (kind, precision), limits in reference_models.LIMITS.items()
        for what, limit in zip(("logits", "gradient"), limits or (), strict=False)
    },
    "resume": {"largest_difference": 0.0},
    "fsdp_of_one": {"loss_difference": 0.02},
    "compile": {"loss_difference": 0.02},
    "trainer": {"time_over_plain": 1.01},
    "moe_layer": {"least_of_bound": -0.75},
    "scorer": {"largest_difference_nats": 1e-3},
}


def reference(device: str) -> dict[str, float]:
    """Forward and backward against fp64 on a CPU, for a dense and a MoE model."""
    found = {}
    for kind, precision in reference_models.LIMITS:
        logits, gradient = reference_models.against_fp64(kind, device, precision)
        found[f"{kind}_{precision}_logits"] = logits
        found[f"{kind}_{precision}_gradient"] = gradient
    return found


def _configuration(folder: Path, device: str, steps: int, **changes: Any) -> Any:
    """A run on the sources of benchmarks/training.py, of 190M parameters on a GPU."""
    import training
    import yaml

    from olmo_mixlaw.models.ladder import load_ladder
    from olmo_mixlaw.training.config import from_mapping

    if not (folder / "tokenizer.json").exists():
        training.write_tokens(folder)
    kind = changes.pop("kind", "mixture")
    values = training.configuration(folder, "w16", steps, kind).plain()
    values = yaml.safe_load(yaml.safe_dump(values))
    if device == "cuda":
        rung = replace(load_ladder("olmo-dense").rung("190M"), context=1024)
        values |= {
            "model": rung.olmo_model(),
            "precision": "amp_bf16",
            "global_train_batch_size": 32,
            "device_train_microbatch_size": 16,
        }
    return from_mapping(values | changes, "benchmark")


def _losses(folder: Path) -> list[float]:
    import csv

    with open(folder / "metrics.csv", newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def _trained(folder: Path, device: str, steps: int, name: str, **changes: Any) -> Path:
    from olmo_mixlaw.training import launch

    where = {"save_folder": str(folder / name), "metrics_interval": 1}
    return launch.train(_configuration(folder, device, steps, **where, **changes))


def resume(device: str) -> dict[str, float]:
    """Eight steps in one go, and as four and four: weights of the two."""
    import torch

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = _trained(folder, device, 8, "whole")
        _trained(folder, device, 8, "parts", stop_at=4)
        parts = _trained(folder, device, 8, "parts", try_load_latest_save=True)
        one, other = (torch.load(path / "model.pt", map_location="cpu") for path in (whole, parts))
        differences = [float((one[key] - other[key]).abs().max()) for key in one]
        return {"largest_difference": max(differences)}


def _beside(device: str, name: str, **changes: Any) -> dict[str, float]:
    """The last loss of twelve steps under `changes`, beside the plain run's."""
    with tempfile.TemporaryDirectory() as folder:
        _trained(Path(folder), device, 12, "plain")
        began = time.perf_counter()
        _trained(Path(folder), device, 12, name, **changes)
        took = time.perf_counter() - began
        plain, other = (_losses(Path(folder) / run)[-1] for run in ("plain", name))
    return {"loss_difference": abs(other - plain), "loss": other, "seconds": took}


def fsdp_of_one(device: str) -> dict[str, float]:
    """A run that is wrapped by FSDP on one device, beside the one that isn't."""
    if device != "cuda":
        return {}  # OLMo's FSDP needs a GPU, and the trainer says so
    fsdp = {"wrapping_strategy": "by_block", "precision": "mixed"}
    return _beside(device, "fsdp", distributed_strategy="fsdp", fsdp=fsdp)


def compiled(device: str) -> dict[str, float]:
    """A run whose blocks are compiled, beside the one whose blocks aren't."""
    if device != "cuda":
        return {}  # minutes of a C++ compiler for a model of one layer
    return _beside(device, "compiled", compile={})


def trainer(device: str) -> dict[str, float]:
    """Tokens a second on a mixture, and its time over that of plain OLMo on the same files."""
    import shutil
    import statistics

    import training

    steps, rounds = (30, 3) if device == "cuda" else (4, 1)
    times: dict[str, list[float]] = {"plain": [], "mixture": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        training.timed(_configuration(folder, device, 3))
        for _ in range(rounds):
            for kind, taken in times.items():
                config = _configuration(folder, device, steps, kind=kind)
                taken.append(training.timed(config)[1])
                shutil.rmtree(folder / "run", ignore_errors=True)
    tokens = config.global_train_batch_size * config.model.max_sequence_length
    median = statistics.median(times["mixture"])
    ratio = statistics.median(a / b for a, b in zip(times["mixture"], times["plain"], strict=True))
    return {"tokens_a_second": tokens / median, "time_over_plain": ratio}


def moe_layer(device: str) -> dict[str, float]:
    """The MoE layer against its matmuls alone and transformers' blocks, forward and backward."""
    import statistics

    import moe
    import torch

    shapes = moe.GPU_SHAPES if device == "cuda" else ((256, 16, 16, 8, 2),)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    found, of_bound = {}, []
    for shape in shapes:
        contenders = moe._contenders(shape, device, dtype)
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for run in contenders.values():
            run()
        for _ in range(5):
            for name, run in contenders.items():
                times[name].append(moe._timed(run, device))
        median = {name: statistics.median(taken) for name, taken in times.items()}
        label = "x".join(str(part) for part in shape)
        for name, taken in median.items():
            found[f"{label}_{name}_ms"] = 1e3 * taken
        if "bound" in median:
            of_bound.append(median["bound"] / median["ours"])
    return found | ({"least_of_bound": min(of_bound)} if of_bound else {})


def scorer(device: str) -> dict[str, float]:
    """Requests a second of the embedded scorer, and its figures beside those of a CPU."""
    import numpy as np
    import scoring

    from olmo_mixlaw.evaluation.loading import load_model

    width, layers, limit = (512, 8, 300) if device == "cuda" else (64, 1, 8)
    pairs = scoring.pairs_of(scoring.requests_of("piqa:rc_0shot", limit))
    with tempfile.TemporaryDirectory() as name:
        folder = scoring.make_model(Path(name), width, layers)
        model = load_model(folder, device=device)
        scoring.embedded(model, pairs[:64])
        began = time.perf_counter()
        here = scoring.embedded(model, pairs)
        took = time.perf_counter() - began
        few = pairs[:32]
        there = scoring.embedded(load_model(folder, device="cpu"), few)
    return {
        "requests_a_second": len(pairs) / took,
        "largest_difference_nats": float(np.abs(np.subtract(here[: len(few)], there)).max()),
    }


def study(device: str) -> dict[str, float]:
    """The micro study from its text to its report, shortened."""
    tokens = "200_000" if device == "cuda" else "20_000"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "olmo_mixlaw", "study", "run", "micro"]
        short = [f"tokens={tokens}", f"target.tokens={tokens}", "evaluation.heldout_tokens=4096"]
        began = time.perf_counter()
        subprocess.run([*command, f"output={folder}/out", *short], check=True, cwd=ROOT)
        assert (Path(folder) / "out" / "report.html").is_file()
        return {"seconds": time.perf_counter() - began}


def phase_run(device: str) -> dict[str, float]:
    """A few steps of the smallest phase study's run: what its 32 billion tokens would take."""
    from olmo_mixlaw.models.ladder import load_ladder
    from olmo_mixlaw.study.config import load_study
    from olmo_mixlaw.study.plan import plan

    steps = 40 if device == "cuda" else 3
    runs = plan(load_study("phase-ratio-gpu"))
    rung = load_ladder("phase-gpu").rung("70M" if device == "cuda" else "14M")
    import training

    with tempfile.TemporaryDirectory() as name:
        model = rung.olmo_model() | ({} if device == "cuda" else {"max_sequence_length": 64})
        batch = rung.batch_sequences if device == "cuda" else 2
        changes = {"model": model, "global_train_batch_size": batch}
        changes["device_train_microbatch_size"] = min(batch, 16)
        config = _configuration(Path(name), device, steps, **changes)
        seconds = training.timed(config)[1]
    per_token = seconds / (batch * config.model.max_sequence_length)
    hours = sum(run.n_tokens for run in runs) * per_token / 3600
    return {"tokens_a_second": 1 / per_token, "device_hours_of_the_study": hours}


CHECKS: dict[str, Callable[[str], dict[str, float]]] = {
    "reference": reference,
    "resume": resume,
    "fsdp_of_one": fsdp_of_one,
    "compile": compiled,
    "trainer": trainer,
    "moe_layer": moe_layer,
    "scorer": scorer,
    "study": study,
    "phase_run": phase_run,
}


def run_check(name: str, device: str) -> dict[str, Any]:
    """A check in a process of its own: its figures, seconds, and what failed."""
    command = [sys.executable, __file__, "--device", device, "--here", name]
    began = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        words, code = done.stderr.strip().splitlines(), done.returncode
    except subprocess.TimeoutExpired:
        return {"figures": {}, "seconds": SECONDS, "failed": f"not done in {SECONDS} seconds"}
    row: dict[str, Any] = {"figures": {}, "seconds": time.perf_counter() - began, "failed": ""}
    if code:
        return row | {"failed": words[-1] if words else f"exit code {code}"}
    row["figures"] = json.loads(done.stdout.strip().splitlines()[-1])
    limits = LIMITS.get(name, {}) if device == "cuda" or name in ("reference", "resume") else {}
    over = [
        f"{key} is {row['figures'][key]:.4g}, goal {abs(limit):g}"
        for key, limit in limits.items()
        if key in row["figures"] and not _within(row["figures"][key], limit)
    ]
    return row | {"failed": "; ".join(over)}


def _within(value: float, limit: float) -> bool:
    return value <= limit if limit >= 0 else value >= -limit


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS))
    parser.add_argument("--here", choices=CHECKS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        warnings.filterwarnings("ignore")
        logging.disable(logging.WARNING)
        print(json.dumps(CHECKS[options.here](options.device)))
        return 0
    rows = {}
    for name in options.only:
        rows[name] = row = run_check(name, options.device)
        state = f"FAILED: {row['failed']}" if row["failed"] else "ok"
        print(f"{name:<12} {row['seconds']:6.1f} s  {state}", flush=True)
        for key, value in row["figures"].items():
            print(f"{'':<12} {key} {value:.4g}", flush=True)
    if options.device == "cuda":
        record.save("gpu", rows, device=device_name())
    return int(any(row["failed"] for row in rows.values()))


def device_name() -> str:
    import torch

    return torch.cuda.get_device_name()


if __name__ == "__main__":
    sys.exit(main())
