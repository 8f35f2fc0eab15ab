"""Write a dataset's tokens once, as a folder of OLMo memmaps: parallel, resumable, atomic.

Documents are dealt out to shards by number, so the bytes are the same for any number of
processes. A shard has its final name only when it is complete; a second run skips those that
are there. `plan.json` holds what was asked for, and a folder refuses another plan.
"""

from __future__ import annotations

import json
import logging
import math
import multiprocessing
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from olmo_mixlaw.atomic import write_text
from olmo_mixlaw.datasets import memmap
from olmo_mixlaw.datasets.base import Dataset
from olmo_mixlaw.datasets.counting import tokens_a_document
from olmo_mixlaw.datasets.encoder import Encoder
from olmo_mixlaw.datasets.pieces import PieceDataset
from olmo_mixlaw.datasets.token_file import (
    AGAIN,
    DTYPES,
    MOST_PLAN,
    PLAN,
    Expected,
    TokenFile,
    read_sums,
)
from olmo_mixlaw.datasets.tokenizer import PROBE, fingerprint, require_round_trip
from olmo_mixlaw.datasets.uri import open_dataset
from olmo_mixlaw.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

log = logging.getLogger(__name__)

SHARD_TOKENS = 1 << 24
_AT_ONCE = 4096
_TEXTS_AT_ONCE = 512
_MEASURED = 500


@dataclass(frozen=True)
class Plan:
    """What a folder of memmaps holds; equal plans give equal bytes."""

    uri: str
    tokenizer: str
    eos_token_id: int
    dtype: str
    documents: int
    documents_a_shard: int

    @property
    def n_shards(self) -> int:
        return math.ceil(self.documents / self.documents_a_shard)

    def span(self, shard: int) -> tuple[int, int]:
        """The first document of a shard, and the one after its last."""
        first = shard * self.documents_a_shard
        return first, min(first + self.documents_a_shard, self.documents)


@dataclass(frozen=True)
class Written:
    """What a call of `write_shards` did: tokens and documents now, and shards already there."""

    paths: list[Path]
    documents: int
    tokens: int
    skipped: int
    seconds: float


def write_shards(
    uri: str,
    tokenizer: Tokenizer,
    folder: str | Path,
    *,
    eos_token_id: int,
    documents: int | None = None,
    tokens: int | None = None,
    dtype: str | None = None,
    processes: int = 1,
    shard_tokens: int = SHARD_TOKENS,
    progress: Callable[[int, int, int], None] | None = None,
) -> Written:
    """Write `documents` documents of a dataset (all, or about `tokens` tokens) into `folder`.

    `progress` is called with shards done, shards in all and tokens written so far. Text that the
    `datasets` library streams is read by one process whatever `processes` says. Raises
    `DataError`: no documents, a vocabulary too large for the dtype, a tokenizer that loses text,
    a folder with another plan, too little room on the disk.
    """
    started = time.perf_counter()
    folder = Path(folder)
    if processes < 1:
        raise DataError(f"processes: {processes} is below 1")
    dataset = open_dataset(uri)
    vocabulary = max(tokenizer.get_vocab_size(), eos_token_id + 1)
    dtype = dtype or memmap.dtype_for(vocabulary)
    memmap.require_fit(vocabulary, dtype)
    if documents is not None and tokens is not None:
        raise DataError("documents, tokens: give one of the two")
    if documents is None and tokens is None and dataset.endless:
        raise DataError(f"{uri} has no end: say how many documents or tokens to write")
    require_round_trip(tokenizer, [*dataset.documents(0, 3), *([] if dataset.endless else [PROBE])])
    each = tokens_a_document(dataset, tokenizer, _MEASURED)
    plan = Plan(
        uri=uri,
        tokenizer=fingerprint(tokenizer),
        eos_token_id=eos_token_id,
        dtype=dtype,
        documents=_how_many(dataset, uri, documents, tokens, each),
        documents_a_shard=max(math.ceil(shard_tokens / each), 1),
    )
    _require_same_plan(plan, folder)
    _require_room(plan, folder, each)
    missing = [s for s in range(plan.n_shards) if not _is_whole(plan, _path_in(folder)(s))]
    write_text(folder / PLAN, json.dumps(asdict(plan), indent=2) + "\n")
    total_documents = total_tokens = 0
    results = (
        _in_processes(plan, tokenizer, folder, missing, processes)
        if processes > 1 and dataset.sliceable
        else _in_this_process(plan, dataset, tokenizer, folder, missing)
    )
    for done, (count, size) in enumerate(results, start=plan.n_shards - len(missing) + 1):
        total_documents += count
        total_tokens += size
        if progress is not None:
            progress(done, plan.n_shards, total_tokens)
    paths = [path for path in map(_path_in(folder), range(plan.n_shards)) if path.is_file()]
    if not paths:
        raise DataError(f"{uri}: there are no documents to write")
    seconds = time.perf_counter() - started
    return Written(paths, total_documents, total_tokens, plan.n_shards - len(missing), seconds)


def _how_many(
    dataset: Dataset, uri: str, documents: int | None, tokens: int | None, each: float
) -> int:
    if tokens is not None:
        documents = math.ceil(tokens / each)
    if documents is None:
        documents = sum(1 for _ in dataset.documents())
    elif not dataset.endless and not dataset.sliceable:
        return documents
    elif not dataset.endless:
        documents = min(documents, sum(1 for _ in dataset.documents()))
    if documents < 1:
        raise DataError(f"{uri}: {documents} documents are none to write")
    return documents


def _path_in(folder: Path) -> Callable[[int], Path]:
    return lambda shard: folder / f"part-{shard:05d}.npy"


def _is_whole(plan: Plan, path: Path) -> bool:
    """Whether a shard is there, as it was written; a damaged one is to be written again."""
    if not path.is_file():
        return False
    try:
        TokenFile(path, Expected(plan.dtype, None, plan.tokenizer, plan.eos_token_id))
        return read_sums(path) is not None
    except DataError as error:
        log.warning("%s; it is made again", str(error).removesuffix(f"; {AGAIN}"))
        return False


def _require_same_plan(plan: Plan, folder: Path) -> None:
    """Raise `DataError` if `folder` holds what another plan made."""
    path = folder / PLAN
    if path.is_file():
        there = _read_plan(path)
        changed = [key for key, value in asdict(plan).items() if there.get(key) != value]
        if changed:
            was = ", ".join(f"{key} {there.get(key)!r}" for key in changed)
            raise DataError(f"{folder}: holds other tokens ({was}); choose another folder")
    elif folder.is_dir() and any(folder.glob("*.npy")):
        raise DataError(f"{folder}: holds token files of another origin; choose another folder")


def _read_plan(path: Path) -> dict[str, Any]:
    """What a plan.json says. Raises `DataError` for one that is too long, or no mapping."""
    there: Any = None
    try:
        if path.stat().st_size <= MOST_PLAN:
            there = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        pass
    if not isinstance(there, dict):
        raise DataError(f"{path}: not a plan of ours; choose another folder")
    return there


def _require_room(plan: Plan, folder: Path, tokens_a_document: float) -> None:
    """Raise `DataError` if the disk has no room for what is yet to be written."""
    folder.mkdir(parents=True, exist_ok=True)
    item = np.dtype(DTYPES[plan.dtype]).itemsize
    there = sum(path.stat().st_size for path in folder.glob("*.npy"))
    needed = plan.documents * tokens_a_document * item - there
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{folder}: about {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free"
        )


# A shard


def _write_shard(plan: Plan, encoder: Encoder, folder: Path, shard: int) -> tuple[int, int]:
    first, stop = plan.span(shard)
    if isinstance(encoder.dataset, PieceDataset):
        parts = _stitched(encoder, first, stop)
    else:
        parts = _encoded(encoder, encoder.dataset.documents(first, stop))
    return _save(plan, folder, shard, parts)


def _save(
    plan: Plan, folder: Path, shard: int, parts: Iterable[tuple[np.ndarray, np.ndarray]]
) -> tuple[int, int]:
    return memmap.write_tokens(
        _path_in(folder)(shard),
        parts,
        plan.uri,
        plan.span(shard)[0],
        dtype=plan.dtype,
        tokenizer=plan.tokenizer,
        eos_token_id=plan.eos_token_id,
    )


def _stitched(encoder: Encoder, first: int, stop: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for at in range(first, stop, _AT_ONCE):
        yield encoder.tokens(np.arange(at, min(at + _AT_ONCE, stop)))


def _encoded(encoder: Encoder, texts: Iterator[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    while batch := list(islice(texts, _TEXTS_AT_ONCE)):
        yield encoder.join(batch)


def _in_this_process(
    plan: Plan, dataset: Dataset, tokenizer: Tokenizer, folder: Path, shards: list[int]
) -> Iterator[tuple[int, int]]:
    if not shards:
        return
    encoder = Encoder(dataset, tokenizer, plan.eos_token_id, DTYPES[plan.dtype])
    if isinstance(dataset, PieceDataset):
        for shard in shards:
            yield _write_shard(plan, encoder, folder, shard)
        return
    # One pass over the text, whatever shards are missing.
    texts, at = dataset.documents(0, plan.documents), 0
    for shard in shards:
        first, stop = plan.span(shard)
        for _ in islice(texts, first - at):
            pass
        at = stop
        parts = _encoded(encoder, islice(texts, stop - first))
        yield _save(plan, folder, shard, parts)


_encoders: dict[str, tuple[Plan, Encoder, Path]] = {}


def _start_process(plan: Plan, tokenizer: str, folder: Path) -> None:
    from tokenizers import Tokenizer

    encoder = Encoder(
        open_dataset(plan.uri), Tokenizer.from_str(tokenizer), plan.eos_token_id, DTYPES[plan.dtype]
    )
    _encoders["this"] = plan, encoder, folder


def _write_in_process(shard: int) -> tuple[int, int]:
    plan, encoder, folder = _encoders["this"]
    return _write_shard(plan, encoder, folder, shard)


def _in_processes(
    plan: Plan, tokenizer: Tokenizer, folder: Path, shards: list[int], processes: int
) -> Iterator[tuple[int, int]]:
    if not shards:
        return
    with ProcessPoolExecutor(
        min(processes, len(shards)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_process,
        initargs=(plan, tokenizer.to_str(), folder),
    ) as pool:
        futures = [pool.submit(_write_in_process, shard) for shard in shards]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool:
            raise DataError(
                f"{folder}: a process died; run it again to go on from the finished shards"
            ) from None
        finally:
            for future in futures:
                future.cancel()
