"""From a configuration to an opened mixture: sources, schedule, plan, and how often they repeat.

Everything that a user can get wrong about data is found here, before a model is built.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from olmo.config import DataConfig

from olmo_mixlaw.datasets import load_tokenizer, open_dataset, open_tokens, train_tokenizer
from olmo_mixlaw.datasets.base import TokenSource
from olmo_mixlaw.datasets.draws import key_of
from olmo_mixlaw.datasets.tokenizer import first_characters
from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.mixture.config import MixtureConfig, build_schedule, resolve
from olmo_mixlaw.mixture.plan import Plan
from olmo_mixlaw.mixture.schedule import RunLength
from olmo_mixlaw.training.loader import Mixture, source_sizes

log = logging.getLogger(__name__)

TOKENIZER_CHARACTERS = 2_000_000


def open_mixture(
    config: MixtureConfig | None,
    uris: Mapping[str, Sequence[str]],
    run: RunLength,
    *,
    tokenizer: str,
    vocab_size: int,
    eos_token_id: int,
    seed: int,
    memmap_dtype: str = "uint16",
    where: str = "",
    n_params: int | None = None,
    train_vocab_size: int | None = None,
) -> Mixture:
    """The sources `uris` by label, mixed as `config` says over a run of length `run`.

    `where` is the file that goes into every error; `n_params` (non-embedding) is what a law is
    asked for. With `train_vocab_size`, a `tokenizer` that doesn't exist is trained on the sources
    first. Raises `ConfigError` and `DataError`.
    """
    file = where or "config"
    place = f"{file}: mixture"
    if not uris:
        raise ConfigError(f"{file}: data: names no source; give data.datasets: {{label: [uri]}}")
    labels = tuple(sorted(uris))
    if config is None:
        if len(labels) > 1:
            raise ConfigError(
                f"{file}: mixture: is missing; say in what ratios to mix {', '.join(labels)}"
            )
        config = MixtureConfig(ratios={labels[0]: 1.0})
    config, place = resolve(config, place)
    seed = seed if config.seed is None else config.seed
    pieces = build_schedule(config, labels, place, n_params=n_params).pieces(run)
    if train_vocab_size is not None:
        make_tokenizer(tokenizer, train_vocab_size, uris, file)
    vocabulary = load_tokenizer(tokenizer, where=f"{file}: tokenizer.identifier")
    if vocabulary.get_vocab_size() > vocab_size:
        raise ConfigError(
            f"{file}: model.vocab_size: {vocab_size} is below the "
            f"{vocabulary.get_vocab_size()} entries of {tokenizer}"
        )
    sources: list[TokenSource] = []
    for k, label in enumerate(labels):
        if not (pieces.first[:, k].any() or pieces.last[:, k].any()):
            sources.append(Unused())
            continue
        tokens = open_tokens(
            uris[label],
            tokenizer=vocabulary,
            sequence_length=run.sequence_length,
            eos_token_id=eos_token_id,
            seed=int(key_of(seed, "source", label)),
            cache_dir=Path(config.cache_dir) if config.cache_dir else None,
            memmap_dtype=memmap_dtype,
            where=f"{file}: data.datasets.{label}",
        )
        sources.append(tokens)
    plan = Plan(pieces, source_sizes(sources), labels, seed, config.block_size)
    return Mixture(labels, tuple(tuple(uris[label]) for label in labels), tuple(sources), plan)


def make_tokenizer(
    path: str, vocab_size: int, uris: Mapping[str, Sequence[str]], where: str
) -> None:
    """Train a tokenizer on an equal share of text of every dataset in `uris`, unless it exists."""
    if Path(path).is_file():
        return
    datasets = [
        open_dataset(uri, f"{where}: data.datasets.{label}")
        for label in sorted(uris)
        for uri in uris[label]
        if uri.startswith("mixlaw:")
    ]
    if not datasets:
        raise ConfigError(
            f"{where}: tokenizer.train_vocab_size: {path} can't be trained: no source has text"
        )
    log.info("training a tokenizer of %d entries into %s", vocab_size, path)
    texts = (
        text
        for data in datasets
        for text in first_characters(data, TOKENIZER_CHARACTERS // len(datasets))
    )
    train_tokenizer(texts, vocab_size, path)


def refuse_unsupported(data: DataConfig, where: str) -> None:
    """Raise `ConfigError` for what OLMo's memmap reader offers and a mixture doesn't."""
    for key in (
        "generate_attention_mask",
        "generate_doc_lengths",
        "label_mask_paths",
        "instance_filter",
    ):
        if getattr(data, key):
            raise ConfigError(f"{where}: data.{key}: can't be used with a mixture; leave it out")


def sources_of(
    config: MixtureConfig | None, uris: Mapping[str, Sequence[str]], where: str
) -> dict[str, Sequence[str]]:
    """The sources of a run: those of `data`, or those that its mixture file names.

    Raises `ConfigError` where both name some.
    """
    if config is None:
        return dict(uris)
    resolved, place = resolve(config, f"{where}: mixture")
    if resolved.sources and uris:
        raise ConfigError(f"{place}: sources: {where} names some too, in data; keep one of the two")
    return (
        {label: resolved.sources[label] for label in sorted(resolved.sources)}
        if resolved.sources
        else dict(uris)
    )


class Unused:
    """Stands for a source whose ratio is 0 throughout: it is never opened."""

    n_sequences: int | None = None
    made_from: tuple[str, ...] = ()

    def sequence(self, index: int) -> np.ndarray:
        raise AssertionError("a source of ratio 0 was asked for a sequence")


def steps_until_exhausted(
    mixture: Mixture, config: MixtureConfig | None, run: RunLength, where: str
) -> int:
    """How many steps the sources allow: fewer than the run's where `repetition` is `stop`.

    Raises `ConfigError` where it is `refuse` and a source would pass its allowed epochs.
    """
    if config is None:
        return run.n_steps
    config, place = resolve(config, f"{where}: mixture")
    plan = mixture.plan
    n_steps = run.n_steps
    totals = plan.counts(len(plan))
    for k, label in enumerate(mixture.labels):
        limit, size = config.limit(label), plan.sizes[k]
        if limit is None or size is None:
            continue
        epochs = totals[k] / size
        if epochs <= limit:
            continue
        if config.repetition != "stop":
            raise ConfigError(
                f"{place}: source {label!r} has {size} sequences and would be seen "
                f"{epochs:.2f} times; allowed are {limit:g} epochs (max_epochs)"
            )
        n_steps = min(n_steps, plan.first_beyond(k, int(limit * size)) // run.batch_size)
        log.warning("source %r ends the run at step %d, after %g epochs", label, n_steps, limit)
    if n_steps < 1:
        raise ConfigError(f"{place}: the sources don't last for one batch of {run.batch_size}")
    return n_steps


def description(mixture: Mixture, config: MixtureConfig | None) -> dict[str, Any]:
    """What decides the order of examples, as plain values that a checkpoint keeps."""
    plan = mixture.plan
    sources = {
        label: {"uris": list(mixture.uris[k]), "sequences": plan.sizes[k]}
        for k, label in enumerate(mixture.labels)
    }
    schedule: dict[str, Any] = {"name": "constant"}
    if config is not None and config.schedule is not None:
        schedule = {**asdict(config.schedule), "examples": len(plan)}
    ratios = np.stack([plan.pieces.first, plan.pieces.last], axis=1)
    return {
        "sources": sources,
        "schedule": schedule,
        "ratios": [
            [dict(zip(mixture.labels, row, strict=True)) for row in pair]
            for pair in ratios.tolist()[:64]
        ],
        "seed": plan.seed,
        "block_size": plan.block_size,
    }
