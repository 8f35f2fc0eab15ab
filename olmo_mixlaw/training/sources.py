"""From OLMo's configuration to an opened mixture: what `mixture.opened` needs, read from there.

The first process writes tokenizer and caches, then the others read them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from olmo.config import DataConfig, TrainConfig

from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.mixture.config import MixtureConfig
from olmo_mixlaw.mixture.opened import Mixture, open_mixture
from olmo_mixlaw.mixture.schedule import RunLength
from olmo_mixlaw.process import first_process_first
from olmo_mixlaw.training.model import count_params


def open_for(
    config: TrainConfig,
    mixture: MixtureConfig | None,
    uris: Mapping[str, Sequence[str]],
    run: RunLength,
    where: str,
    *,
    train_vocab_size: int | None = None,
) -> Mixture:
    """`uris` by label, mixed as `mixture` says for the model and the seed of `config`.

    `where` (the file) goes into every error. Raises `ConfigError` and `DataError`.
    """
    refuse_unsupported(config.data, where)
    with first_process_first():
        return open_mixture(
            mixture,
            uris,
            run,
            tokenizer=config.tokenizer.identifier,
            vocab_size=config.model.vocab_size,
            eos_token_id=config.model.eos_token_id,
            seed=config.seed if config.data.seed is None else config.data.seed,
            memmap_dtype=config.data.memmap_dtype,
            where=where,
            n_params=count_params(config),
            train_vocab_size=train_vocab_size,
        )


def refuse_unsupported(data: DataConfig, where: str) -> None:
    """Raise `ConfigError` for what OLMo's memmap reader offers and a mixture doesn't."""
    for key in ("generate_attention_mask", "generate_doc_lengths", "label_mask_paths"):
        if getattr(data, key):
            raise ConfigError(f"{where}: data.{key}: can't be used with a mixture; leave it out")
