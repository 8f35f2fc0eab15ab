"""A planned mixture for the `data.custom_dataset` key of OLMo's main branch.

    data:
      custom_dataset:
        name: olmo_mixlaw.training.custom_dataset.MixtureDataset
        args: {config: mixture.yaml, tokenizer: tokenizer.json, vocab_size: 1024, ...}

OLMo shuffles a custom dataset. `shuffle_seed`, the run's own seed, undoes that, so that examples
come in the order of the plan; without it only constant ratios make sense. OLMo hands
`data.instance_filter` to no custom dataset: `args.instance_filter` takes the same keys, and
`collate_config: {instance_mask_field: instance_mask}` hands on what it leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from olmo.config import InstanceFilterConfig
from torch.utils.data import Dataset

from olmo_mixlaw.errors import ConfigError, unknown_name
from olmo_mixlaw.mixture.config import MixtureConfig
from olmo_mixlaw.mixture.opened import open_mixture, steps_until_exhausted
from olmo_mixlaw.mixture.schedule import RunLength
from olmo_mixlaw.training.loader import repeats
from olmo_mixlaw.training.numbers import check_filter

WHERE = "data.custom_dataset.args"


class MixtureDataset(Dataset):
    """The examples of a run of `n_steps` batches, as one map-style dataset.

    `config` is a mixture file that names its sources. One batch more than the run needs is
    offered, because OLMo forgets its position at an epoch's end. Raises `ConfigError`.
    """

    def __init__(
        self,
        config: str,
        tokenizer: str,
        vocab_size: int,
        sequence_length: int,
        eos_token_id: int,
        n_steps: int,
        global_train_batch_size: int,
        seed: int = 0,
        shuffle_seed: int | None = None,
        memmap_dtype: str = "uint16",
        instance_filter: Mapping[str, int] | None = None,
    ) -> None:
        self.instance_filter = _filter(instance_filter)
        run = RunLength(n_steps, global_train_batch_size, sequence_length)
        self.mixture = open_mixture(
            MixtureConfig(file=config),
            {},
            run,
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            eos_token_id=eos_token_id,
            seed=seed,
            memmap_dtype=memmap_dtype,
            where=WHERE,
        )
        path = self.mixture.where
        if steps_until_exhausted(self.mixture, run) < n_steps:
            raise ConfigError(f"{path}: repetition: a custom dataset can't stop a run; say refuse")
        if shuffle_seed is None and not self.mixture.plan.pieces.is_constant:
            raise ConfigError(
                f"{path}: schedule: OLMo shuffles a custom dataset; give args.shuffle_seed the "
                "run's seed (data.seed, else seed), or use mixlaw: URIs"
            )
        self.n_examples = run.n_examples + global_train_batch_size
        self._places: np.ndarray | None = None
        if shuffle_seed is not None:
            order = np.arange(self.n_examples, dtype=np.uint32)
            np.random.Generator(np.random.PCG64(seed=shuffle_seed)).shuffle(order)
            self._places = np.empty_like(order)
            self._places[order] = np.arange(self.n_examples, dtype=np.uint32)

    def __len__(self) -> int:
        return self.n_examples

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = index if self._places is None else int(self._places[index])
        # The batch beyond the run is never trained on; it may be fetched ahead.
        inside = np.array([example % len(self.mixture.plan)])
        tokens, sources = self.mixture.sequences(inside)
        label = self.mixture.labels[int(sources[0])]
        item = {"input_ids": torch.from_numpy(tokens[0]), "metadata": {"label": label}}
        if self.instance_filter is not None:
            item["instance_mask"] = not repeats(tokens[0], self.instance_filter)
        return item


def _filter(values: Mapping[str, int] | None) -> InstanceFilterConfig | None:
    """OLMo's filter of sequences that repeat themselves. Raises `ConfigError`."""
    if values is None:
        return None
    where = f"{WHERE}: instance_filter"
    known = [field.name for field in fields(InstanceFilterConfig)]
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: expected a mapping with {', '.join(known)}")
    for key, value in values.items():
        if key not in known:
            raise unknown_name("key", key, known, where)
        if type(value) is not int:
            raise ConfigError(f"{where}: {key}: {value!r}; it must be a whole number")
    limits = InstanceFilterConfig(**values)
    check_filter(limits, where)
    return limits
