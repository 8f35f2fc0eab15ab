"""A planned mixture as the data loader of OLMo-core's Trainer.

No table of indices is made, and nothing but the position is remembered, so a run resumes exactly,
on any number of processes and data workers (see `mixture.batches`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
from olmo_core.aliases import PathOrStr
from olmo_core.data import DataCollator, InstanceFilterConfig, TextDataLoaderBase, TokenizerConfig
from olmo_core.data.utils import find_periodic_sequences
from torch.utils.data import DataLoader, IterableDataset

from olmo_mixlaw.errors import CheckpointError, ConfigError, DataError
from olmo_mixlaw.mixture.batches import dealt, part_of_batch
from olmo_mixlaw.mixture.changes import changes
from olmo_mixlaw.mixture.opened import Mixture, description, steps_until_exhausted
from olmo_mixlaw.mixture.schedule import RunLength


class MixtureDataLoader(TextDataLoaderBase):
    """Batches of `n_steps` steps of a mixture, with the source of every example.

    `global_batch_size` counts tokens, as everywhere in OLMo-core. A batch has `input_ids`
    (B, sequence_length), `index` (B) and `source` (B), the place of the label in
    `mixture.labels`; with an `instance_filter`, also `instance_mask` (B).

    Raises `ConfigError` where the batch is not whole sequences on every process, where sequence
    length or tokenizer are not the mixture's, and where the plan is shorter than the run.
    """

    def __init__(
        self,
        mixture: Mixture,
        *,
        n_steps: int,
        sequence_length: int,
        tokenizer: TokenizerConfig,
        work_dir: PathOrStr,
        global_batch_size: int,
        dp_world_size: int = 1,
        dp_rank: int = 0,
        fs_local_rank: int | None = 0,
        num_workers: int = 0,
        prefetch_factor: int | None = None,
        target_device_type: str = "cpu",
        instance_filter: InstanceFilterConfig | None = None,
    ) -> None:
        check_fits(mixture, sequence_length, tokenizer)
        check_batch(global_batch_size, sequence_length, dp_world_size, mixture.where)
        super().__init__(
            collator=DataCollator(pad_token_id=tokenizer.pad_token_id),
            work_dir=work_dir,
            global_batch_size=global_batch_size,
            dp_world_size=dp_world_size,
            dp_rank=dp_rank,
            fs_local_rank=fs_local_rank,
        )
        self.mixture = mixture
        self.described: dict[str, Any] = description(mixture)
        self.sequence_length = sequence_length
        self.vocab_size = tokenizer.padded_vocab_size()
        self.num_workers = num_workers
        self.prefetch_factor = prefetch_factor if num_workers else None
        self.target_device_type = target_device_type
        self.instance_filter = instance_filter
        self.n_examples = n_steps * self.instances_per_batch
        if self.n_examples > len(mixture.plan):
            raise ConfigError(
                f"{mixture.where}: plans {len(mixture.plan)} examples, but {n_steps} steps of "
                f"{self.instances_per_batch} need {self.n_examples}"
            )

    @property
    def instances_per_batch(self) -> int:
        """Sequences in a batch of all processes."""
        return self.global_batch_size // self.sequence_length

    @property
    def total_batches(self) -> int:
        return self.n_examples // self.instances_per_batch

    @cached_property
    def last_step(self) -> int:
        """Where the data ends: before the last batch if a source that may not repeat is used up."""
        run = RunLength(self.total_batches, self.instances_per_batch, self.sequence_length)
        return steps_until_exhausted(self.mixture, run)

    @property
    def examples_processed(self) -> int:
        """How many examples of the plan the batches so far have taken."""
        return self.batches_processed * self.instances_per_batch

    def reshuffle(self, epoch: int | None = None, **kwargs: Any) -> None:
        """Nothing to shuffle: the plan has its order. Raises `ConfigError` after the first epoch,
        for the plan is the whole run."""
        epoch = epoch or 1
        if epoch > 1:
            raise ConfigError(
                f"{self.mixture.where}: plans {self.total_batches} steps, and the run goes on; "
                "make trainer.max_duration and that of the mixture equal"
            )
        self._epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        return {
            "described": self.described,
            "sequence_length": self.sequence_length,
            "tokens_processed": self.tokens_processed,
            "batches_processed": self.batches_processed,
            "epoch": self._epoch,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a checkpoint left off. Raises `CheckpointError` for one under another
        mixture (unless `allow_change`), or of another loader."""
        where = self.mixture.where
        if "described" not in state_dict:
            raise CheckpointError(
                f"{where}: the checkpoint was not trained on a mixture; take its weights alone "
                "(trainer.load_trainer_state=false)"
            )
        found = changes(state_dict["described"], self.described)
        if state_dict["sequence_length"] != self.sequence_length:
            before = state_dict["sequence_length"]
            found.append(f"sequence_length was {before}, is {self.sequence_length}")
        if found and not self.mixture.config.allow_change:
            raise CheckpointError(
                f"{where}: the mixture is not that of the checkpoint: {'; '.join(found)} "
                "(mixture.allow_change=true goes on all the same)"
            )
        tokens = state_dict["tokens_processed"]
        if tokens % self.global_batch_size:
            raise CheckpointError(
                f"{where}: the checkpoint has seen {tokens} tokens, which are not whole batches "
                f"of global_batch_size {self.global_batch_size}"
            )
        self.tokens_processed = tokens
        self.batches_processed = tokens // self.global_batch_size
        self._epoch = state_dict["epoch"] or self._epoch

    def step_back(self) -> None:
        """Forget the last batch, so that it comes again when the run goes on."""
        self.batches_processed -= 1
        self.tokens_processed -= self.global_batch_size

    def batch(self, step: int) -> dict[str, Any]:
        """This process's part of the batch of `step`, counted from 0. Raises `DataError` for a
        token that the model has no embedding of."""
        limits = self.instance_filter
        batch = part_of_batch(
            self.mixture,
            step,
            self.instances_per_batch,
            rank=self.dp_rank,
            world_size=self.dp_world_size,
            keep=None if limits is None else lambda row: not repeats(row, limits),
        )
        if (largest := int(batch["input_ids"].max())) >= self.vocab_size:
            raise DataError(
                f"{self.mixture.where}: the batch of step {step + 1} holds token {largest}, beyond "
                f"the {self.vocab_size} of the model; a token file is damaged, or of another "
                "tokenizer"
            )
        return batch

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.batch(index)

    def get_mock_batch(self) -> dict[str, Any]:
        """The first batch, for the trainer's dry run."""
        return self.batch(0)

    def _iter_batches(self) -> Iterable[dict[str, Any]]:
        size, batches = self.global_batch_size, self._ahead()
        while (batch := next(batches, None)) is not None:
            yield batch
            if size != self.global_batch_size:
                # A schedule of batch sizes has changed it: what was read ahead is of the old one.
                size, batches = self.global_batch_size, self._ahead()

    def _ahead(self) -> Iterator[dict[str, Any]]:
        on_gpu = self.target_device_type == "cuda"
        return iter(
            DataLoader(
                _Steps(self),
                batch_size=None,
                num_workers=self.num_workers,
                prefetch_factor=self.prefetch_factor,
                pin_memory=on_gpu and self.num_workers > 0,
                # A process that has used CUDA must not be forked.
                multiprocessing_context="spawn" if on_gpu and self.num_workers else None,
            )
        )


class _Steps(IterableDataset):
    """The rest of a loader's batches, dealt out to data workers in turn."""

    def __init__(self, loader: MixtureDataLoader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for step in dealt(self.loader.batches_processed, self.loader.total_batches):
            yield self.loader.batch(step)


def check_fits(mixture: Mixture, sequence_length: int, tokenizer: TokenizerConfig) -> None:
    """Raise `ConfigError` where the mixture was opened for another sequence length or tokenizer."""
    pairs: dict[str, tuple[Any, Any]] = {
        "sequence_length": (mixture.sequence_length, sequence_length),
        "tokenizer.identifier": (mixture.tokenizer, tokenizer.identifier),
        "tokenizer.eos_token_id": (mixture.eos_token_id, tokenizer.eos_token_id),
    }
    for key, (ours, theirs) in pairs.items():
        if None not in (ours, theirs) and ours != theirs:
            raise ConfigError(f"{mixture.where}: {key}: is {ours}, but that of the run is {theirs}")


def check_batch(global_batch_size: int, sequence_length: int, world_size: int, where: str) -> None:
    """Raise `ConfigError` unless every process gets whole sequences in every batch."""
    if global_batch_size < 1 or global_batch_size % (sequence_length * world_size):
        several = f" on {world_size} processes" if world_size > 1 else ""
        raise ConfigError(
            f"{where}: global_batch_size: {global_batch_size} tokens are not whole sequences of "
            f"{sequence_length}{several}; take a multiple of {sequence_length * world_size}"
        )


def repeats(tokens: np.ndarray, limits: InstanceFilterConfig) -> bool:
    """Whether a sequence repeats itself more than OLMo-core's filter of instances lets it."""
    found = find_periodic_sequences(
        tokens, max_period=limits.repetition_max_period, min_period=limits.repetition_min_period
    )
    return any(one.times >= limits.repetition_max_count for one in found)
