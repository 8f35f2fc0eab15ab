"""Training sequences by index: cut from a token file, or generated as they are asked for.

Text is encoded once into a cached memmap. Generated sources have no end: block b of sequences
holds documents [b D, (b + 1) D) back to back with end-of-text between, so that any sequence is a
pure function of its index. Where the lengths of a block's documents differ from their mean, its
last few documents are left out or the next block's first few come twice: 0.02 to 0.08 % of
documents, 0.5 % where short tuples are mixed in.
"""

from __future__ import annotations

import glob
import hashlib
import logging
import math
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from olmo_mixlaw.atomic import open_lock
from olmo_mixlaw.datasets import memmap
from olmo_mixlaw.datasets.base import Dataset, TokenSource
from olmo_mixlaw.datasets.encoder import Encoder
from olmo_mixlaw.datasets.pieces import PieceDataset
from olmo_mixlaw.datasets.token_file import AGAIN, Expected, TokenFile, read_sums
from olmo_mixlaw.datasets.tokenizer import PROBE, fingerprint, require_round_trip
from olmo_mixlaw.datasets.uri import dataset_name, is_uri, open_dataset
from olmo_mixlaw.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

log = logging.getLogger(__name__)

BLOCK_TOKENS = 1 << 19
_BLOCKS_KEPT = 4
_MADE_AT_ONCE = 4096
_MEASURED_DOCUMENTS = 16_384
_MEASURED_TEXTS = 256
# More than any block needs to be filled: eight standard deviations of its length.
_SPARE_DEVIATIONS = 8


class MemmapTokens:
    """Sequences of token `files`, each cut from its start; a rest is left out.

    That is how OLMo's own `MemMapDataset` cuts, so both give the same sequences.
    """

    def __init__(
        self,
        files: Sequence[TokenFile],
        sequence_length: int,
        made_from: tuple[str, ...] = (),
        where: str = "",
    ) -> None:
        self.sequence_length, self.made_from = sequence_length, made_from
        self._files = list(files)
        counts = [file.tokens.size // sequence_length for file in files]
        self._ends = np.cumsum(counts)
        self.n_sequences: int | None = int(self._ends[-1])
        if self.n_sequences == 0:
            place = f"{where}: " if where else ""
            raise DataError(
                f"{place}{files[0].path}: fewer tokens than one sequence of {sequence_length} has"
            )

    def sequence(self, index: int) -> np.ndarray:
        number = 0
        if len(self._files) > 1:
            number = int(np.searchsorted(self._ends, index, side="right"))
            index -= int(self._ends[number - 1]) if number else 0
        start = index * self.sequence_length
        return self._files[number].read(start, start + self.sequence_length)


class GeneratedTokens:
    """Sequences of a dataset without end, made block by block."""

    n_sequences: int | None = None

    def __init__(
        self, dataset: Dataset, tokenizer: Tokenizer, sequence_length: int, eos_token_id: int
    ) -> None:
        self.dataset, self.made_from = dataset, dataset.made_from
        self.sequence_length = sequence_length
        self.encoder = Encoder(dataset, tokenizer, eos_token_id)
        self._blocks: OrderedDict[int, np.ndarray] = OrderedDict()
        measured = _MEASURED_DOCUMENTS if self.encoder.stitched else _MEASURED_TEXTS
        lengths = self.encoder.lengths(np.arange(measured))
        self.tokens_a_document = float(lengths.mean())
        self.documents_a_block = max(
            math.ceil(max(BLOCK_TOKENS, sequence_length) / self.tokens_a_document), 2
        )
        self.sequences_a_block = max(
            int(self.documents_a_block * self.tokens_a_document) // sequence_length, 1
        )
        spread = _SPARE_DEVIATIONS * math.sqrt(self.documents_a_block) * float(lengths.std())
        self._spare = math.ceil((spread + sequence_length) / self.tokens_a_document) + 1

    def sequence(self, index: int) -> np.ndarray:
        number, place = divmod(index, self.sequences_a_block)
        block = self._blocks.get(number)
        if block is None:
            block = self._blocks[number] = self._make(number)
            if len(self._blocks) > _BLOCKS_KEPT:
                self._blocks.popitem(last=False)
        return block[place]

    def documents(self, n_sequences: int) -> Iterator[np.ndarray]:
        """The numbers of all documents that lie whole in the first `n_sequences`, in parts."""
        for number in range(math.ceil(n_sequences / self.sequences_a_block)):
            sequences = min(n_sequences - number * self.sequences_a_block, self.sequences_a_block)
            indices = self._documents_of(number)
            ends = np.cumsum(self.encoder.lengths(indices))
            yield indices[: np.searchsorted(ends, sequences * self.sequence_length, side="right")]

    def exposures(self, n_sequences: int) -> np.ndarray:
        """How often (facts,) each fact is met in the first `n_sequences`, exactly counted.

        Raises `NotImplementedError` where a dataset has no fixed facts.
        """
        if not isinstance(self.dataset, PieceDataset):
            raise NotImplementedError(f"{type(self.dataset).__name__} has no fixed facts to count")
        counts = np.zeros(0, np.int64)
        for indices in self.documents(n_sequences):
            met = np.bincount(self.dataset.facts(indices), minlength=len(counts))
            met[: len(counts)] += counts
            counts = met
        return counts

    def _documents_of(self, block: int) -> np.ndarray:
        first = block * self.documents_a_block
        return np.arange(first, first + self.documents_a_block + self._spare)

    def _make(self, number: int) -> np.ndarray:
        wanted = self.sequences_a_block * self.sequence_length
        parts, have = [], 0
        first = number * self.documents_a_block
        while have < wanted:
            part, _ = self.encoder.tokens(np.arange(first, first + _MADE_AT_ONCE))
            parts.append(part)
            first, have = first + _MADE_AT_ONCE, have + len(part)
        return np.concatenate(parts)[:wanted].reshape(-1, self.sequence_length)


def open_tokens(
    uris: Sequence[str],
    *,
    tokenizer: Tokenizer,
    sequence_length: int,
    eos_token_id: int,
    seed: int,
    cache_dir: Path | None = None,
    memmap_dtype: str = "uint16",
    where: str = "",
) -> TokenSource:
    """Training sequences of one source: a generated dataset, or texts and token files joined.

    `uris` are `mixlaw:` URIs, or paths of memmaps of `memmap_dtype` (a folder of them, or a
    pattern with `*`). `seed` draws the exposures of generated sources; what they state depends on
    the URI alone. Text is encoded once into
    `cache_dir` (by default `$OLMO_MIXLAW_CACHE` or `~/.cache/olmo-mixlaw`). `where` (file and
    key) goes into every error. Raises `DataError`.
    """
    place = f"{where}: " if where else ""
    if not uris:
        raise DataError(f"{place}no dataset is given")
    vocabulary = max(tokenizer.get_vocab_size(), eos_token_id + 1)
    memmap.require_fit(vocabulary, memmap_dtype, where)
    if sequence_length < 2:
        raise DataError(f"{place}sequence_length: {sequence_length} is below 2")
    expected = Expected(memmap_dtype, vocabulary, fingerprint(tokenizer), eos_token_id)
    files: list[TokenFile] = []
    made_from: list[str] = []
    for uri in uris:
        if not is_uri(uri):
            files += [TokenFile(path, expected, where) for path in token_paths(uri, where)]
            continue
        dataset = open_dataset(uri, where)
        if dataset.endless:
            if len(uris) > 1:
                raise DataError(f"{place}{uri}: has no end, so it must stand alone in its source")
            require_round_trip(tokenizer, dataset.documents(0, 3), where)
            if isinstance(dataset, PieceDataset):
                dataset.exposure_seed = seed
            return GeneratedTokens(dataset, tokenizer, sequence_length, eos_token_id)
        made_from += dataset.made_from
        files.append(_encode_once(dataset, uri, tokenizer, expected, cache_dir, where))
    return MemmapTokens(files, sequence_length, tuple(dict.fromkeys(made_from)), where)


def token_paths(name: str, where: str = "") -> list[Path]:
    """The token file `name`, those of a folder, or those that a pattern (`part-*.npy`) matches.

    `where` (file and key) goes into errors. Raises `DataError` where there are none.
    """
    place = f"{where}: " if where else ""
    path = Path(name)
    if path.is_dir():
        files = sorted(path.glob("*.npy"))
        if not files:
            raise DataError(f"{place}{path}: no token files (*.npy) in this folder")
        return files
    if "://" in name:
        raise DataError(f"{place}{name}: token files are read from disks only; download it first")
    if not path.exists() and glob.has_magic(name):
        files = [Path(found) for found in sorted(glob.glob(name, recursive=True))]
        if not files:
            raise DataError(f"{place}{name}: no file matches")
        return files
    return [path]


def _encode_once(
    dataset: Dataset,
    uri: str,
    tokenizer: Tokenizer,
    expected: Expected,
    cache_dir: Path | None,
    where: str,
) -> TokenFile:
    """The memmap of a finite dataset under a tokenizer, made now if it isn't whole in the cache."""
    folder = cache_dir or default_cache()
    eos_token_id, dtype = expected.eos_token_id, expected.dtype
    assert eos_token_id is not None
    identity = (dataset.fingerprint(), expected.tokenizer, eos_token_id, dtype)
    digest = hashlib.blake2b(repr(identity).encode(), digest_size=12).hexdigest()
    path = Path(folder) / f"{dataset_name(uri)}-{digest}.npy"
    found, _ = _cached(path, expected)
    if found is not None:
        return found
    with _locked(path):
        found, problem = _cached(path, expected)
        if found is None:
            if problem:
                log.warning("%s; it is made again", problem)
            require_round_trip(tokenizer, [PROBE], where)
            log.info("%s: encoding into %s", uri, path)
            memmap.write_memmap(
                dataset.documents(),
                tokenizer,
                path,
                eos_token_id=eos_token_id,
                dtype=dtype,
                source=uri,
            )
            found = TokenFile(path, expected, where)
    return found


def _cached(path: Path, expected: Expected) -> tuple[TokenFile | None, str]:
    """What the cache holds under `path`, if it is whole, and what is wrong with it if it isn't."""
    if not path.is_file():
        return None, ""
    try:
        if read_sums(path) is not None:
            return TokenFile(path, expected), ""
    except DataError as error:
        return None, str(error).removesuffix(f"; {AGAIN}")
    return None, f"{path}: has no checksums"


def default_cache() -> Path:
    """Where encoded text is kept: `$OLMO_MIXLAW_CACHE`, or the user's cache folder."""
    if folder := os.environ.get("OLMO_MIXLAW_CACHE"):
        return Path(folder)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "olmo-mixlaw"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time make `path`; the others wait and then find it."""
    try:
        import fcntl
    except ImportError:  # without locks two processes may both write; the last rename wins
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(open_lock(path.with_suffix(".lock")), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
