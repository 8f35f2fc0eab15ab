"""In-loop evaluators: OLMo's own, held-out loss by domain, and exact match on questions.

What ours measure is in `mixture.domains`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from olmo.config import EvaluatorConfig, EvaluatorType
from olmo.eval import Evaluator, build_evaluator
from olmo.tokenizer import Tokenizer
from olmo.torch_util import get_global_rank, get_world_size
from torch.utils.data import DataLoader

from olmo_mixlaw.datasets import load_tokenizer, open_dataset
from olmo_mixlaw.datasets.base import Dataset
from olmo_mixlaw.datasets.uri import is_uri
from olmo_mixlaw.errors import ConfigError, unknown_name
from olmo_mixlaw.mixture.domains import DomainSums, collate, items_of, share
from olmo_mixlaw.mixture.records import KINDS
from olmo_mixlaw.training.config import OLMO_EVALUATORS, MixEvaluatorConfig, MixTrainConfig
from olmo_mixlaw.training.config import sources as source_uris


@dataclass
class DomainEvaluator(Evaluator):
    """Sums over items by domain, of one of the kinds in `KINDS`."""

    kind: str = KINDS[0]
    domains: Sequence[str] = ()
    device: torch.device = torch.device("cpu")  # noqa: RUF009

    def __post_init__(self) -> None:
        self.sums = DomainSums(self.kind, self.domains, self.device)

    def reset_metrics(self) -> None:
        self.sums.reset()

    def update_metrics(
        self, batch: dict[str, Any], ce_loss: torch.Tensor, logits: torch.Tensor
    ) -> None:
        if self.kind == "heldout":
            self.sums.add_losses(batch, ce_loss)
        else:
            self.sums.add_answers(batch, batch["input_ids"], logits)

    def compute_metrics(self) -> dict[str, float]:
        total = self.sums.sums.clone()
        if get_world_size() > 1:
            dist.all_reduce(total)
        means = self.sums.means(total)
        return {f"eval/{self.label}/{name}": value for name, value in means.items()}


def check_evaluators(config: MixTrainConfig, where: str) -> None:
    """Raise `ConfigError` for an evaluator of an unknown kind, or two of one label."""
    known = [*OLMO_EVALUATORS, *KINDS]
    labels = [item.label for item in config.evaluators]
    for i, item in enumerate(config.evaluators):
        place = f"{where}: evaluators.{i}"
        if item.type not in known:
            raise unknown_name("evaluator", item.type, known, f"{place}.type")
        if item.type in KINDS and item.n_items < 1:
            raise ConfigError(f"{place}.n_items: {item.n_items}; it must be at least 1")
        if labels.count(item.label) > 1:
            raise ConfigError(f"{place}.label: {item.label!r} is used twice")


def build_evaluators(config: MixTrainConfig, device: torch.device, where: str) -> list[Evaluator]:
    """The evaluators of `config`, ready for the Trainer. Raises `ConfigError`, `DataError`."""
    evaluators: list[Evaluator] = []
    for i, item in enumerate(config.evaluators):
        if item.type in KINDS:
            evaluators.append(_ours(config, item, device, f"{where}: evaluators.{i}"))
            continue
        theirs = EvaluatorConfig(
            label=item.label,
            type=EvaluatorType(item.type),
            data=item.data,
            device_eval_batch_size=item.device_eval_batch_size,
            subset_num_batches=item.subset_num_batches,
        )
        tokenizer = Tokenizer.from_train_config(config)
        evaluators.append(build_evaluator(config, theirs, tokenizer, device))
    return evaluators


def _ours(
    config: MixTrainConfig, item: MixEvaluatorConfig, device: torch.device, where: str
) -> DomainEvaluator:
    datasets = _datasets(config, item, where)
    tokenizer = load_tokenizer(config.tokenizer.identifier)
    domains, items = items_of(
        item.type,
        datasets,
        tokenizer,
        item.n_items,
        sequence_length=config.model.max_sequence_length,
        eos_token_id=config.model.eos_token_id,
        where=where,
    )
    size = item.device_eval_batch_size or config.device_eval_batch_size
    return DomainEvaluator(
        label=item.label,
        type=EvaluatorType.lm,
        eval_loader=_loader(items, size, config.model.pad_token_id),
        eval_metric={},
        subset_num_batches=item.subset_num_batches,
        kind=item.type,
        domains=domains,
        device=device,
    )


def _datasets(
    config: MixTrainConfig, item: MixEvaluatorConfig, where: str
) -> Mapping[str, Dataset]:
    if item.datasets:
        return {
            name: open_dataset(uri, f"{where}.datasets.{name}")
            for name, uri in item.datasets.items()
        }
    uris = {label: group[0] for label, group in source_uris(config).items() if is_uri(group[0])}
    if not uris:
        raise ConfigError(f"{where}.datasets: is missing; no source of the run is a dataset")
    return {label: open_dataset(uri, where) for label, uri in uris.items()}


def _loader(items: list[dict[str, torch.Tensor]], batch_size: int, pad: int) -> DataLoader:
    """This process's batches."""
    return DataLoader(
        share(items, get_world_size(), get_global_rank()),  # type: ignore[arg-type]
        batch_size=batch_size,
        collate_fn=lambda rows: collate(rows, pad),
    )
