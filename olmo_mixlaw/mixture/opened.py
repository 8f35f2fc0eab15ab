"""The sources of a run, opened and mixed as its `mixture` section says, for any trainer.

Everything that a user can get wrong about data is found here, before a model is built. Nothing
here knows a trainer: what it needs of a model is its vocabulary and its sequence length.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from olmo_mixlaw.datasets import load_tokenizer, open_dataset, open_tokens, train_tokenizer
from olmo_mixlaw.datasets.base import TokenSource
from olmo_mixlaw.datasets.draws import key_of, permute
from olmo_mixlaw.datasets.tokenizer import first_characters, wrong_end
from olmo_mixlaw.datasets.uri import is_uri
from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.mixture.config import MixtureConfig, build_schedule, resolve
from olmo_mixlaw.mixture.plan import Plan
from olmo_mixlaw.mixture.schedule import Pieces, RunLength

log = logging.getLogger(__name__)

TOKENIZER_CHARACTERS = 2_000_000
_DESCRIBED_PIECES = 64
# A source is told from another by so many of its sequences.
_TELLING = 64


@dataclass(frozen=True)
class Mixture:
    """What a run draws from: `sources` (K) under `labels` (K), in the order of `plan`.

    `config` is the section that it was opened from, whole; `where` (file and key) is its place.
    The rest, where it is known, is what a trainer must agree with.
    """

    labels: tuple[str, ...]
    uris: tuple[tuple[str, ...], ...]
    sources: tuple[TokenSource, ...]
    plan: Plan
    config: MixtureConfig = field(default_factory=MixtureConfig)
    where: str = "mixture"
    sequence_length: int | None = None
    tokenizer: str | None = None
    eos_token_id: int | None = None

    def sequences(self, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Token ids (n, sequence_length) of `examples` (n,), and their sources (n,)."""
        sources, indices = self.plan.locate(examples)
        rows = [
            self.sources[k].sequence(i)
            for k, i in zip(sources.tolist(), indices.tolist(), strict=True)
        ]
        return np.stack(rows).astype(np.int64, copy=False), sources


@dataclass(frozen=True)
class Keys:
    """What a trainer's files call that which a mixture needs, for errors."""

    sources: str = "data.datasets"
    vocab_size: str = "model.vocab_size"
    eos_token_id: str = "model.eos_token_id"


class Unused:
    """Stands for a source whose ratio is 0 throughout: it is never opened."""

    n_sequences: int | None = None
    made_from: tuple[str, ...] = ()

    def sequence(self, index: int) -> np.ndarray:
        raise AssertionError("a source of ratio 0 was asked for a sequence")


class Cut:
    """`n_sequences` of a source, chosen at random by `key`, so that it repeats sooner.

    It stands for a larger run, in which the whole source would repeat as often (arXiv 2606.07597).
    Of a source without end it has the first sequences.
    """

    def __init__(self, source: TokenSource, n_sequences: int, key: np.uint64) -> None:
        self.source, self.key, self.made_from = source, key, source.made_from
        self.n_sequences: int | None = n_sequences

    def sequence(self, index: int) -> np.ndarray:
        whole = self.source.n_sequences
        if whole is not None:
            index = int(permute(whole, self.key, np.array([index]))[0])
        return self.source.sequence(index)


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
    keys: Keys = Keys(),
) -> Mixture:
    """The sources `uris` by label, or those that `config` names, mixed over a run as it says.

    `where` is the file that goes into every error; `n_params` (non-embedding) is what a law is
    asked for. With `train_vocab_size`, a `tokenizer` that doesn't exist is trained on the sources
    first. `keys` are those of the file. Raises `ConfigError` and `DataError`.
    """
    file = where or "config"
    section = keys.sources.partition(".")[0]
    place, sources_at = f"{file}: mixture", f"{file}: {keys.sources}"
    if config is not None:
        config, place = resolve(config, place)
        if config.sources and uris:
            raise ConfigError(
                f"{place}.sources: {file} names some too, in {section}; keep one of the two"
            )
        if config.sources:
            uris, sources_at = config.sources, f"{place}.sources"
    if not uris:
        raise ConfigError(
            f"{file}: {section}: names no source, and {place}.sources is missing; "
            "give one of the two as {label: [uri]}"
        )
    labels = tuple(sorted(uris))
    if config is None:
        if len(labels) > 1:
            raise ConfigError(f"{place}: is missing; say in what ratios to mix {', '.join(labels)}")
        config = MixtureConfig(ratios={labels[0]: 1.0})
    seed = seed if config.seed is None else config.seed
    pieces = build_schedule(config, labels, place, n_params=n_params).pieces(run)
    if train_vocab_size is not None:
        make_tokenizer(tokenizer, train_vocab_size, uris, sources_at)
    vocabulary = load_tokenizer(tokenizer, where=f"{file}: tokenizer.identifier")
    if vocabulary.get_vocab_size() > vocab_size:
        raise ConfigError(
            f"{file}: {keys.vocab_size}: {vocab_size} is below the "
            f"{vocabulary.get_vocab_size()} entries of {tokenizer}"
        )
    if problem := wrong_end(vocabulary, eos_token_id):
        log.warning("%s: %s: %s; documents end as you say", file, keys.eos_token_id, problem)
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
            where=f"{sources_at}.{label}",
        )
        tokens = _cut(tokens, config, run.sequence_length, label, place)
        sources.append(tokens)
    sizes = tuple(source.n_sequences for source in sources)
    plan = Plan(pieces, sizes, labels, seed, config.block_size)
    groups = tuple(tuple(uris[label]) for label in labels)
    return Mixture(
        labels,
        groups,
        tuple(sources),
        plan,
        config,
        place,
        run.sequence_length,
        tokenizer,
        eos_token_id,
    )


def _cut(
    source: TokenSource, config: MixtureConfig, length: int, label: str, where: str
) -> TokenSource:
    """The source cut as the section says, in whole sequences; itself where it has no more."""
    whole = source.n_sequences
    if label in config.source_tokens:
        tokens = config.source_tokens[label]
        count = int(tokens // length)
        if count < 1:
            raise ConfigError(
                f"{where}.source_tokens.{label}: {tokens:g}: fewer than one sequence of {length} "
                "tokens"
            )
    elif config.source_share is None or whole is None:
        return source
    else:
        count = max(1, round(whole * config.source_share))
    if whole is not None and whole <= count:
        return source
    return Cut(source, count, key_of("cut", label))


def make_tokenizer(
    path: str, vocab_size: int, uris: Mapping[str, Sequence[str]], where: str
) -> None:
    """Train a tokenizer on an equal share of text of every dataset in `uris`, unless it exists.

    `where` (file and key) is the place of `uris`. Raises `ConfigError` if no dataset is among them.
    """
    if Path(path).is_file():
        return
    datasets = [
        open_dataset(uri, f"{where}.{label}")
        for label in sorted(uris)
        for uri in uris[label]
        if is_uri(uri)
    ]
    if not datasets:
        raise ConfigError(
            f"{where}: no source has text, so tokenizer.train_vocab_size can't train {path}"
        )
    log.info("training a tokenizer of %d entries into %s", vocab_size, path)
    texts = (
        text
        for data in datasets
        for text in first_characters(data, TOKENIZER_CHARACTERS // len(datasets))
    )
    train_tokenizer(texts, vocab_size, path)


def steps_until_exhausted(mixture: Mixture, run: RunLength) -> int:
    """How many steps the sources allow: fewer than the run's where `repetition` is `stop`.

    Raises `ConfigError` where it is `refuse` and a source would pass its allowed epochs.
    """
    plan, config = mixture.plan, mixture.config
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
                f"{mixture.where}: source {label!r} has {size} sequences and would be seen "
                f"{epochs:.2f} times; allowed are {limit:g} epochs (max_epochs)"
            )
        n_steps = min(n_steps, plan.first_beyond(k, int(limit * size)) // run.batch_size)
        log.warning("source %r ends the run at step %d, after %g epochs", label, n_steps, limit)
    if n_steps < 1:
        raise ConfigError(
            f"{mixture.where}: the sources don't last for one batch of {run.batch_size}"
        )
    return n_steps


def description(mixture: Mixture) -> dict[str, Any]:
    """What decides the order of examples, as plain values that a checkpoint keeps.

    Where files are named, `content` says what they hold, wherever they lie.
    """
    plan = mixture.plan
    sources: dict[str, dict[str, Any]] = {
        label: {"uris": list(mixture.uris[k]), "sequences": plan.sizes[k]}
        for k, label in enumerate(mixture.labels)
    }
    for label, source in zip(mixture.labels, mixture.sources, strict=True):
        if (content := _content(source)) is not None:
            sources[label]["content"] = content
    schedule: dict[str, Any] = {"name": "constant"}
    if mixture.config.schedule is not None:
        schedule = {**asdict(mixture.config.schedule), "examples": len(plan)}
        if schedule["file"] or schedule["fit"]:
            schedule["content"] = _digest(*_arrays(plan.pieces))
    ratios = np.stack([plan.pieces.first, plan.pieces.last], axis=1)
    return {
        "sources": sources,
        "schedule": schedule,
        "ratios": [
            [dict(zip(mixture.labels, row, strict=True)) for row in pair]
            for pair in ratios.tolist()[:_DESCRIBED_PIECES]
        ],
        "seed": plan.seed,
        "block_size": plan.block_size,
    }


def _content(source: TokenSource) -> str | None:
    """A digest of sequences spread over a source; None for one without end, which its URI tells.

    A document more, fewer or of another length moves all sequences behind it, so a few tell.
    """
    if isinstance(source, Unused):
        return "unused"
    if source.n_sequences is None:
        return None
    spread = np.linspace(0, source.n_sequences - 1, _TELLING).astype(int)
    return _digest(*(source.sequence(i) for i in sorted(set(spread.tolist()))))


def _arrays(pieces: Pieces) -> tuple[np.ndarray, ...]:
    return np.array(pieces.borders), pieces.first, pieces.last


def _digest(*arrays: np.ndarray) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        kind = "<f8" if array.dtype.kind == "f" else "<i8"
        digest.update(np.ascontiguousarray(array, kind).tobytes())
    return digest.hexdigest()
