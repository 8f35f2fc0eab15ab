"""MoE against dense: time and memory of a layer, and what it learns at equal active size.

    python benchmarks/moe.py layer    the layer beside a dense SwiGLU and transformers' OLMoE block
    python benchmarks/moe.py train    micro-moe beside micro-twin, through OLMo's Trainer
    python benchmarks/moe.py rates    their first rung at half and twice the ladder's learning rate

All print a table and write JSON. Times are medians of nine rounds side by side, one thread; on a
CPU, of seconds of the processor.
"""

from __future__ import annotations

import argparse
import csv
import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import record

# (tokens, width, expert width, experts, top-k): a micro rung, a small one, OLMoE's ratios.
SHAPES = ((4096, 64, 64, 32, 2), (4096, 128, 128, 32, 2), (1024, 256, 128, 64, 8))
# On a GPU: a small rung, OLMoE's layer, one of many small experts.
GPU_SHAPES = ((16384, 768, 384, 64, 8), (16384, 2048, 1024, 64, 8), (16384, 1024, 208, 512, 4))
ROUNDS = 9


def layer() -> None:
    """Forward and backward of one feed-forward: ours, dense of equal active size, OLMoE's."""
    import torch

    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    rows = []
    for shape in GPU_SHAPES if device == "cuda" else SHAPES:
        contenders = _contenders(shape, device, dtype)
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for run in contenders.values():
            run()
        for _ in range(ROUNDS):
            for name, run in contenders.items():
                times[name].append(_timed(run, device))
        median = {name: statistics.median(found) for name, found in times.items()}
        memory = {name: _peak_bytes(run, device) for name, run in contenders.items()}
        tokens, width, inner, experts, k = shape
        row = {
            "tokens": tokens,
            "width": width,
            "expert": inner,
            "experts": experts,
            "top_k": k,
            **{f"{name}_ms": 1e3 * value for name, value in median.items()},
            "over_dense": median["ours"] / median["dense"],
            **{f"over_{n}": median["ours"] / median[n] for n in median if n[:5] in _BESIDE},
            **{f"{name}_MiB": value / 2**20 for name, value in memory.items()},
        }
        rows.append(row)
    _print(rows)
    record.save("moe_layer", rows, device=device, dtype=str(dtype), rounds=ROUNDS, threads=1)


_BESIDE = ("olmoe", "bound")


def _contenders(shape: tuple[int, ...], device: str, dtype: Any) -> dict[str, Callable[[], None]]:
    """name -> one forward and backward on the same tokens; gradients of weights and input."""
    import torch
    import transformers
    from torch import nn
    from transformers.models.olmoe.modeling_olmoe import OlmoeSparseMoeBlock

    from olmo_mixlaw.models.moe import MoE, MoEConfig

    tokens, width, inner, experts, k = shape
    torch.manual_seed(0)
    ours = MoE(width, MoEConfig(num_experts=experts, top_k=k, expert_size=inner))
    ours.reset_parameters()
    gate_up = nn.Linear(width, 2 * k * inner, bias=False)
    down = nn.Linear(k * inner, width, bias=False)

    def dense(x: torch.Tensor) -> torch.Tensor:
        gate, up = gate_up(x).chunk(2, dim=-1)
        return down(nn.functional.silu(gate) * up)

    config = transformers.OlmoeConfig(
        hidden_size=width, intermediate_size=inner, num_experts=experts, num_experts_per_tok=k
    )
    modules: dict[str, Any] = {"ours": ours, "dense": dense}
    if device == "cuda":
        modules["bound"] = _bound(ours, tokens * k)
    if transformers.__version__ >= "5":
        for implementation in ("eager", "grouped_mm"):
            config._experts_implementation = implementation
            block = OlmoeSparseMoeBlock(config)
            # The block looks its implementation up at every call.
            block.experts.config = _with(config, implementation)
            modules[f"olmoe_{implementation}"] = block
    else:
        modules["olmoe_eager"] = OlmoeSparseMoeBlock(config)
    for module in (gate_up, down, *(m for m in modules.values() if isinstance(m, nn.Module))):
        module.to(device=device, dtype=dtype)
        if module.__class__.__name__.startswith("Olmoe"):
            for parameter in module.parameters():
                nn.init.normal_(parameter, std=0.02)
    x = torch.randn(8, tokens // 8, width, device=device, dtype=dtype, requires_grad=True)
    weight = torch.randn_like(x)

    def bind(module: Any) -> Callable[[], None]:
        def run() -> None:
            out = module(x)
            out = out[0] if isinstance(out, tuple) else out
            (out * weight).sum().backward()

        return run

    return {name: bind(module) for name, module in modules.items()}


def _bound(moe: Any, rows: int) -> Callable[[Any], Any]:
    """The experts' grouped matmuls alone, on `rows` that lie in order, as many for each expert:
    the same bytes and FLOPs as the layer, without routing."""
    import torch

    from olmo_mixlaw.models.moe_ops import grouped_linear, swiglu

    each = rows // moe.config.num_experts
    assert each * moe.config.num_experts == rows

    def bound(x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(0, 1)
        ends = torch.arange(each, rows + 1, each, dtype=torch.int32, device=x.device)
        sorted_rows = flat.expand(rows // len(flat), *flat.shape).reshape(rows, -1)
        inner = swiglu(grouped_linear(sorted_rows, moe.gate_up.matrices(), ends, "auto"))
        out = grouped_linear(inner, moe.down.matrices(), ends, "auto")
        return out.view(-1, *x.shape).sum(0)

    return bound


def _with(config: Any, implementation: str) -> Any:
    import copy

    changed = copy.deepcopy(config)
    changed._experts_implementation = implementation
    return changed


def _timed(run: Callable[[], None], device: str) -> float:
    import torch

    gc.collect()
    if device != "cuda":  # seconds of the processor: what else the machine does matters less
        began = time.process_time()
        run()
        return time.process_time() - began
    torch.cuda.synchronize()
    began = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - began


def _peak_bytes(run: Callable[[], None], device: str) -> int:
    """Bytes that one forward and backward holds at its highest, beyond what was there."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run()
    held = highest = 0
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            highest = max(highest, held)
    return highest


def _pairs(batch: int) -> list[tuple[Any, Any]]:
    """Each rung of micro-moe with its dense twin, at `batch` sequences a step."""
    from olmo_mixlaw.models.ladder import load_ladder

    ladders = [
        [
            replace(rung, training=replace(rung.training, batch_sequences=batch))
            for rung in load_ladder(name).rungs.values()
        ]
        for name in ("micro-moe", "micro-twin")
    ]
    return list(zip(*ladders, strict=True))


def rates(multiple: float, batch: int, folder: Path | None) -> None:
    """Held-out loss of both kinds at learning rates around the ladder's, one seed: whether the
    rate that they share favours one of them."""
    rows = []
    pair = _pairs(batch)[0]
    steps = pair[0].n_steps(multiple)
    with tempfile.TemporaryDirectory() as scratch:
        for factor in (0.5, 1.0, 2.0):
            rate = factor * pair[0].learning_rate
            row: dict[str, Any] = {"learning_rate": rate}
            for kind, rung in zip(("moe", "dense"), pair, strict=True):
                changed = replace(rung, training=replace(rung.training, learning_rate=rate))
                place = (folder or Path(scratch)) / f"{rate:g}"
                place.mkdir(parents=True, exist_ok=True)
                row[kind] = _held_out_loss(changed, steps, 1, place)
            rows.append(row)
            _print(rows)
            record.save("moe_rates", rows, multiple=multiple, batch_sequences=batch, seed=1)


def train(rungs: int, multiple: float, seeds: int, batch: int, folder: Path | None) -> None:
    """Train micro-moe and its dense twins on the same tokens; compare held-out loss."""
    pairs = _pairs(batch)[:rungs]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for moe, dense in pairs:
            steps = moe.n_steps(multiple)
            losses: dict[str, list[float]] = {"moe": [], "dense": []}
            for seed in range(1, seeds + 1):
                for kind, rung in (("moe", moe), ("dense", dense)):
                    found = _held_out_loss(rung, steps, seed, folder or Path(scratch))
                    losses[kind].append(found)
                    print(f"{rung.name} seed {seed}: {steps} steps, {found:.4f}", flush=True)
            mean = {kind: statistics.mean(found) for kind, found in losses.items()}
            gaps = [m - d for m, d in zip(losses["moe"], losses["dense"], strict=True)]
            rows.append(
                {
                    "moe": moe.name,
                    "dense": dense.name,
                    "moe_active": moe.n_active,
                    "dense_active": dense.n_active,
                    "tokens": steps * moe.batch_tokens,
                    "moe_loss": mean["moe"],
                    "dense_loss": mean["dense"],
                    "gap": statistics.mean(gaps),
                    "gap_sd": statistics.stdev(gaps) if seeds > 1 else None,
                    "moe_losses": losses["moe"],
                    "dense_losses": losses["dense"],
                }
            )
            # After each rung, so that a run that is cut short leaves what it found.
            _print([{k: v for k, v in row.items() if not k.endswith("losses")} for row in rows])
            settings = {"multiple": multiple, "batch_sequences": batch, "corpus": CORPUS}
            record.save("moe_train", rows, **settings, seeds=list(range(1, seeds + 1)))


CORPUS = "mixlaw:text?corpus=wikipedia"


def _held_out_loss(rung: Any, steps: int, seed: int, folder: Path) -> float:
    """Nats a token on held-out text after `steps` of the run with this seed."""
    import yaml

    from olmo_mixlaw.training.launch import train as run

    name = f"{rung.name}-{steps}x{rung.batch_sequences}-{seed}"
    config = {
        "run_name": name,
        "seed": seed,
        "model": rung.olmo_model(),
        "tokenizer": {
            "identifier": str(folder / "tokenizer.json"),
            "train_vocab_size": rung.vocab_size,
        },
        "data": {"datasets": {"wiki": [CORPUS]}},
        "mixture": {"ratios": {"wiki": 1.0}},
        "optimizer": {
            "name": "adamw",
            "learning_rate": rung.learning_rate,
            "weight_decay": rung.weight_decay,
            "eps": 1e-8,
            "betas": [0.9, 0.95],
        },
        "scheduler": {"name": "wsd", "t_warmup": rung.warmup_steps(steps), "alpha_f": 0.0},
        "evaluators": [{"label": "heldout", "type": "heldout", "n_items": 256}],
        "eval_interval": steps,
        "max_duration": steps,
        "global_train_batch_size": rung.batch_sequences,
        "device_train_microbatch_size": rung.batch_sequences,
        "device_eval_batch_size": 32,
        "max_grad_norm": 1.0,
        "precision": "fp32",
        "distributed_strategy": "ddp",
        "ddp": {},
        "save_folder": str(folder / name),
        "save_overwrite": True,
        "save_interval": None,
        "save_interval_unsharded": steps,
        "console_log_interval": 1_000_000,
        "metrics_interval": steps,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    run(path)
    with open(folder / name / "evals.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if int(row["step"]) == steps]
    (loss,) = (float(row["value"]) for row in rows if "CrossEntropyLoss" in row["metric"])
    return loss


def _print(rows: list[dict[str, Any]]) -> None:
    def text(value: Any) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    keys = list(rows[0])
    table = [keys, *([text(row[key]) for key in keys] for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(keys))]
    for line in table:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parts = parser.add_subparsers(dest="part", required=True)
    parts.add_parser("layer")
    trained, rated = parts.add_parser("train"), parts.add_parser("rates")
    for part in (trained, rated):
        part.add_argument("--multiple", type=float, default=1.0, help="of 20 tokens a parameter")
        part.add_argument("--batch", type=int, default=4, help="sequences of 256 tokens a step")
        part.add_argument("--folder", type=Path, help="keep the runs here, and go on with them")
    trained.add_argument("--rungs", type=int, default=2)
    trained.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.part == "layer":
        layer()
        return
    batch, folder = arguments.batch, arguments.folder
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    if arguments.part == "rates":
        rates(arguments.multiple, batch, folder)
    else:
        train(arguments.rungs, arguments.multiple, arguments.seeds, batch, folder)


if __name__ == "__main__":
    main()
