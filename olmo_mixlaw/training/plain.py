"""Token files that are read as plain OLMo reads them, without a mixture: checked before it does.

OLMo takes any bytes for tokens. What a mixture refuses of a file is refused here too.
"""

from __future__ import annotations

import logging

import numpy as np
from olmo.config import DataConfig
from olmo.torch_util import get_world_size
from olmo.util import file_size, is_url

from olmo_mixlaw.datasets.token_file import DTYPES, Expected, TokenFile
from olmo_mixlaw.datasets.tokenizer import fingerprint, load_tokenizer, wrong_end
from olmo_mixlaw.datasets.tokens import token_paths
from olmo_mixlaw.datasets.uri import is_uri
from olmo_mixlaw.errors import ConfigError, DataError
from olmo_mixlaw.training.config import MixTrainConfig, sources

log = logging.getLogger(__name__)


def is_plain(config: MixTrainConfig) -> bool:
    """Whether the run's data is left to OLMo: files alone, and nothing to mix."""
    given = [uri for group in sources(config).values() for uri in group]
    return config.mixture is None and bool(given) and not any(map(is_uri, given))


def check_training(config: MixTrainConfig, where: str) -> int:
    """The steps of one epoch over the files of `data`, whose patterns are written out.

    Raises `ConfigError` and `DataError`.
    """
    n_sequences = check_files(config.data, config, where, "data")
    _warn_of_end(config, where)
    world = get_world_size()
    # As OLMo's IterableDataset: every process gets as many, a rest is dropped or padded.
    each = n_sequences // world if config.data.drop_last else -(-n_sequences // world)
    return each * world // config.global_train_batch_size


def check_evaluation(config: MixTrainConfig, where: str) -> None:
    """Check the files of OLMo's own evaluators. Raises `ConfigError` and `DataError`."""
    for i, item in enumerate(config.evaluators):
        if item.type == "lm" and (item.data.paths or item.data.datasets):
            check_files(item.data, config, where, f"evaluators.{i}.data")


def check_files(data: DataConfig, config: MixTrainConfig, where: str, key: str) -> int:
    """How many sequences the files of `data` hold; its patterns and folders become files."""
    if data.memmap_dtype not in DTYPES:
        raise ConfigError(
            f"{where}: {key}.memmap_dtype: {data.memmap_dtype!r} is none of {', '.join(DTYPES)}"
        )
    if data.paths and data.datasets:
        raise ConfigError(f"{where}: {key}: has paths and datasets; keep one of the two")
    expected = _expected(config, data.memmap_dtype, where)
    groups = {"": data.paths} if data.paths else data.datasets or {}
    item = np.dtype(DTYPES[data.memmap_dtype]).itemsize
    found: dict[str, list[str]] = {}
    n_sequences = 0
    for label, names in groups.items():
        place = f"{where}: {key}.datasets.{label}" if label else f"{where}: {key}.paths"
        found[label] = []
        for name in names:
            # OLMo reads URLs by itself; what they hold is seen as it is trained on.
            paths = [name] if is_url(name) else _checked(name, expected, place)
            found[label] += paths
            sizes = [file_size(path) // item for path in paths]
            n_sequences += sum(size // config.model.max_sequence_length for size in sizes)
    if n_sequences == 0 and groups:
        raise DataError(
            f"{where}: {key}: fewer tokens than one sequence of {config.model.max_sequence_length}"
        )
    if data.paths:
        data.paths = found[""]
    elif data.datasets:
        data.datasets = found
    return n_sequences


def _checked(name: str, expected: Expected, place: str) -> list[str]:
    paths = token_paths(name, place)
    for path in paths:
        TokenFile(path, expected, place)
    return [str(path) for path in paths]


def _warn_of_end(config: MixTrainConfig, where: str) -> None:
    try:
        tokenizer = load_tokenizer(config.tokenizer.identifier)
    except DataError:
        return
    if problem := wrong_end(tokenizer, config.model.eos_token_id):
        log.warning("%s: model.eos_token_id: %s", where, problem)


def _expected(config: MixTrainConfig, dtype: str, where: str) -> Expected:
    """What the files must agree with; OLMo trains without the tokenizer's file, so it may lack."""
    model = config.model
    size = max(model.vocab_size, model.eos_token_id + 1, model.pad_token_id + 1)
    try:
        tokenizer = load_tokenizer(config.tokenizer.identifier)
    except DataError:
        return Expected(dtype, size, None, model.eos_token_id)
    return Expected(dtype, size, fingerprint(tokenizer), model.eos_token_id)
