"""The runs of a study, and the OLMo configuration of each.

A run is a point of the grid size x mixture x tokens x seed. Its folder name says which, and
its configuration is a plain OLMo YAML that `olmo-mixlaw train` accepts by itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from olmo_mixlaw.datasets import load_tokenizer
from olmo_mixlaw.datasets.memmap import dtype_for
from olmo_mixlaw.datasets.tokenizer import PADDING, end_of_text
from olmo_mixlaw.models.ladder import Ladder, Rung, load_ladder, short
from olmo_mixlaw.study.resources import micro_batch, precision_for
from olmo_mixlaw.study.settings import StudyConfig, TokenizerConfig
from olmo_mixlaw.training_core.config import TRAINER as CORE

PADDED = 128  # entries of an embedding in OLMo-core (TokenizerConfig.padded_vocab_size)


@dataclass(frozen=True)
class Run:
    """One training run: `ratios` by tokens, `n_tokens` as trained (whole batches)."""

    run_id: str
    rung: Rung
    mixture: str
    ratios: dict[str, float]
    n_tokens: int
    steps: int
    seed: int


def plan(study: StudyConfig) -> list[Run]:
    """Every run of the study, dearest first so that parallel workers end together."""
    runs = []
    for size, tokens, mixtures, seeds in groups(study):
        rung = rung_of(study, size)
        steps, n_tokens = whole_batches(tokens, rung)
        for mixture in mixtures:
            for seed in seeds:
                run_id = f"{size}-{mixture}-{short(tokens)}-s{seed}"
                ratios = study.mixtures[mixture]
                runs.append(Run(run_id, rung, mixture, ratios, n_tokens, steps, seed))
    active = {run.rung.name: run.rung.n_active for run in runs}
    return sorted(runs, key=lambda run: -active[run.rung.name] * run.n_tokens)


def groups(study: StudyConfig) -> list[tuple[str, int, list[str], list[int]]]:
    """Sizes and tokens with the mixtures and seeds that each is trained at."""
    if study.runs:
        return [(some.size, some.tokens, some.mixtures, some.seeds) for some in study.runs]
    return [
        (size, tokens, list(study.mixtures), study.seeds)
        for size in study.sizes
        for tokens in study.tokens
    ]


def of_what(study: StudyConfig) -> str:
    """What the study's runs are of: `3 sizes x 5 mixtures`."""
    by = "and" if study.runs else "x"
    return f"{len(study.sizes)} sizes {by} {len(study.mixtures)} mixtures"


def rung_of(study: StudyConfig, size: str) -> Rung:
    """A rung of the study's ladder with the study's own vocabulary."""
    path = Path(study.ladder)
    stamp = path.stat().st_mtime_ns if path.suffix and path.is_file() else 0
    rung = _ladder(study.ladder, stamp).rung(size)
    rung = replace(rung, **vocabulary(study.tokenizer))
    if study.trainer != CORE:
        return rung
    # Its models have whole multiples of entries, as OLMo-core's own do.
    return replace(rung, vocab_size=math.ceil(rung.vocab_size / PADDED) * PADDED)


@lru_cache(maxsize=8)
def _ladder(name: str, stamp: int) -> Ladder:
    """A ladder, read once until its file changes: plans ask for every rung again and again."""
    return load_ladder(name)


def vocabulary(tokenizer: TokenizerConfig) -> dict[str, Any]:
    """What a model must know of the study's tokenizer, by the keys of a rung."""
    if tokenizer.identifier is None:
        return {"vocab_size": tokenizer.vocab_size}
    return dict(_vocabulary_of(tokenizer.identifier))


@lru_cache(maxsize=8)
def _vocabulary_of(identifier: str) -> tuple[tuple[str, int], ...]:
    loaded = load_tokenizer(identifier, "tokenizer.identifier")
    end = end_of_text(loaded, "tokenizer.identifier")
    padding = loaded.token_to_id(PADDING)
    # Ids may have gaps, and the embedding must reach the last one.
    size = max(loaded.get_vocab_size(), 1 + max(loaded.get_vocab().values()))
    return (
        ("vocab_size", size),
        ("eos_token_id", end),
        ("pad_token_id", end if padding is None else padding),
    )


def whole_batches(tokens: int, rung: Rung) -> tuple[int, int]:
    """Steps and tokens of a run that trains on about `tokens`: at least one batch."""
    steps = max(1, round(tokens / rung.batch_tokens))
    return steps, steps * rung.batch_tokens


def olmo_config(
    study: StudyConfig, run: Run, tokenizer: Path, save_folder: Path, cache: Path
) -> dict[str, Any]:
    """The OLMo training configuration of `run`, as a mapping for YAML.

    Its paths are absolute, so that it means the same wherever it is read.
    """
    rung, dtype = run.rung, dtype_for(run.rung.vocab_size)
    return {
        "run_name": run.run_id,
        "seed": run.seed,
        "model": rung.olmo_model(),
        "distributed_strategy": "ddp",
        "ddp": {},
        "optimizer": {
            "name": "adamw",
            "learning_rate": rung.learning_rate,
            "weight_decay": rung.weight_decay,
            "betas": [0.9, 0.95],
            "eps": 1e-8,
            "decay_norm_and_bias": False,
            "decay_embeddings": False,
        },
        "scheduler": {
            "name": "wsd",
            "t_warmup": rung.warmup_steps(run.steps),
            "decay_fraction": rung.training.decay_fraction,
            "alpha_f": 0.0,
        },
        "tokenizer": {"identifier": str(tokenizer.resolve())},
        "save_folder": str(save_folder.resolve()),
        "save_overwrite": True,
        "save_interval": None,
        "save_interval_unsharded": study.checkpoint_every,
        "save_num_unsharded_checkpoints_to_keep": 1,
        "max_duration": run.steps,
        "global_train_batch_size": rung.batch_sequences,
        "device_train_microbatch_size": micro_batch(study, rung),
        "precision": precision_for(study),
        "max_grad_norm": 1.0,
        "console_log_interval": 50,
        "data": {
            "datasets": {domain: [study.domains[domain]] for domain in run.ratios},
            **({} if dtype == "uint16" else {"memmap_dtype": dtype}),  # OLMo's default
            "drop_last": True,
            "num_workers": 0,
        },
        "mixture": {
            "ratios": dict(run.ratios),
            **cuts_of(study, run),
            "cache_dir": str(cache.resolve()),
        },
    }


def cuts_of(study: StudyConfig, run: Run) -> dict[str, Any]:
    """What the run's `mixture` section says of cut sources; nothing where it has none."""
    cuts = {**study.source_tokens, **study.cuts.get(run.mixture, {})}
    tokens = {domain: cuts[domain] for domain in run.ratios if domain in cuts}
    shorter = study.match_repeats and run.n_tokens < study.target.tokens
    share = {"source_share": run.n_tokens / study.target.tokens} if shorter else {}
    return {**({"source_tokens": tokens} if tokens else {}), **share}
