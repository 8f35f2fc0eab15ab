"""In-loop evaluators: OLMo's own, held-out loss by domain, and exact match on questions.

Sums are kept apart by domain and added up over processes, so the result doesn't depend on how
many there are. Every process gets as many batches as the others, the last ones of weight 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from olmo.config import EvaluatorConfig, EvaluatorType
from olmo.eval import Evaluator, build_evaluator
from olmo.tokenizer import Tokenizer
from olmo.torch_util import get_global_rank, get_world_size
from torch.utils.data import DataLoader

from olmo_mixlaw.datasets import load_tokenizer, open_dataset
from olmo_mixlaw.datasets.base import Dataset, Question
from olmo_mixlaw.datasets.uri import is_uri
from olmo_mixlaw.errors import ConfigError, DataError, unknown_name
from olmo_mixlaw.training.config import OLMO_EVALUATORS, MixEvaluatorConfig, MixTrainConfig
from olmo_mixlaw.training.config import sources as source_uris

OURS = ("heldout", "exact_match")
# Values that an evaluator sums by domain: what it measures, and how often.
_SUMS = 3


@dataclass
class DomainEvaluator(Evaluator):
    """Sums over items by domain; a subclass says of what, and what to make of them."""

    domains: Sequence[str] = ()
    device: torch.device = torch.device("cpu")  # noqa: RUF009

    def __post_init__(self) -> None:
        self.reset_metrics()

    def reset_metrics(self) -> None:
        self.sums = torch.zeros(len(self.domains), _SUMS, dtype=torch.float64, device=self.device)

    def update_metrics(
        self, batch: dict[str, Any], ce_loss: torch.Tensor, logits: torch.Tensor
    ) -> None:
        values = self.measure(batch, ce_loss, logits) * batch["weight"][:, None]
        self.sums.index_add_(0, batch["domain"], values)

    def compute_metrics(self) -> dict[str, float]:
        total = self.sums.clone()
        if get_world_size() > 1:
            dist.all_reduce(total)
        rows = zip(self.domains, total.tolist(), strict=True)
        return {
            f"eval/{self.label}/{domain}/{name}": value
            for domain, row in rows
            if row[0]
            for name, value in self.conclude(row).items()
        }

    def measure(
        self, batch: dict[str, Any], ce_loss: torch.Tensor, logits: torch.Tensor
    ) -> torch.Tensor:
        """(items, 3) values to be summed; the first is the count."""
        raise NotImplementedError

    def conclude(self, row: Sequence[float]) -> dict[str, float]:
        raise NotImplementedError


class HeldOut(DomainEvaluator):
    """Nats a predicted token over held-out sequences."""

    def measure(
        self, batch: dict[str, Any], ce_loss: torch.Tensor, logits: torch.Tensor
    ) -> torch.Tensor:
        one = torch.ones_like(ce_loss, dtype=torch.float64)
        return torch.stack([one, ce_loss.double(), torch.zeros_like(one)], dim=1)

    def conclude(self, row: Sequence[float]) -> dict[str, float]:
        count, loss, _ = row
        return {"CrossEntropyLoss": loss / count}


class ExactMatch(DomainEvaluator):
    """The share of questions answered word for word, and the answers' mean surprise in bits.

    Greedy decoding gives the answer just when every token of it is the likeliest after those
    before it, so one pass over question and answer is enough.
    """

    def measure(
        self, batch: dict[str, Any], ce_loss: torch.Tensor, logits: torch.Tensor
    ) -> torch.Tensor:
        told, asked = batch["input_ids"][:, 1:], batch["answer"][:, 1:]
        right = ((logits[:, :-1].argmax(dim=-1) == told) | ~asked).all(dim=1)
        surprise = torch.nn.functional.cross_entropy(
            logits[:, :-1].float().transpose(1, 2), told, reduction="none"
        )
        bits = (surprise * asked).sum(dim=1).double() / math.log(2)
        return torch.stack([torch.ones_like(bits), right.double(), bits], dim=1)

    def conclude(self, row: Sequence[float]) -> dict[str, float]:
        count, right, bits = row
        return {"exact_match": right / count, "answer_bits": bits / count}


def check_evaluators(config: MixTrainConfig, where: str) -> None:
    """Raise `ConfigError` for an evaluator of an unknown kind, or two of one label."""
    known = [*OLMO_EVALUATORS, *OURS]
    labels = [item.label for item in config.evaluators]
    for i, item in enumerate(config.evaluators):
        place = f"{where}: evaluators.{i}"
        if item.type not in known:
            raise unknown_name("evaluator", item.type, known, f"{place}.type")
        if item.type in OURS and item.n_items < 1:
            raise ConfigError(f"{place}.n_items: {item.n_items}; it must be at least 1")
        if labels.count(item.label) > 1:
            raise ConfigError(f"{place}.label: {item.label!r} is used twice")


def build_evaluators(config: MixTrainConfig, device: torch.device, where: str) -> list[Evaluator]:
    """The evaluators of `config`, ready for the Trainer. Raises `ConfigError`, `DataError`."""
    evaluators: list[Evaluator] = []
    for i, item in enumerate(config.evaluators):
        if item.type in OURS:
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
    domains: list[str] = []
    items: list[dict[str, torch.Tensor]] = []
    for domain, dataset in datasets.items():
        if item.type == "heldout":
            found = _sequences(config, dataset, tokenizer, item.n_items, f"{where}: {domain}")
        else:
            found = _questions(config, dataset, tokenizer, item.n_items, f"{where}: {domain}")
        if found:
            for one in found:
                one["domain"] = torch.tensor(len(domains))
            domains.append(domain)
            items += found
    if not items:
        raise ConfigError(f"{where}: none of its datasets asks a question")
    size = item.device_eval_batch_size or config.device_eval_batch_size
    kind = HeldOut if item.type == "heldout" else ExactMatch
    return kind(
        label=item.label,
        type=EvaluatorType.lm,
        eval_loader=_loader(items, size, config.model.pad_token_id),
        eval_metric={},
        subset_num_batches=item.subset_num_batches,
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


def _sequences(
    config: MixTrainConfig, dataset: Dataset, tokenizer: Any, n_items: int, where: str
) -> list[dict[str, torch.Tensor]]:
    """Held-out documents joined and cut as in training: at most `n_items` sequences."""
    length = config.model.max_sequence_length
    ids: list[int] = []
    try:
        for text in dataset.heldout():
            ids += [*_encode(tokenizer, text), config.model.eos_token_id]
            if len(ids) >= n_items * length:
                break
    except NotImplementedError as error:
        raise DataError(f"{where}: {error}") from None
    count = min(n_items, len(ids) // length)
    if count == 0:
        raise DataError(f"{where}: its held-out text is shorter than one sequence of {length}")
    rows = torch.tensor(ids[: count * length]).view(count, length)
    return [{"input_ids": row} for row in rows]


def _encode(tokenizer: Any, text: str) -> list[int]:
    """As training encodes: a tokenizer's template would put a start into every document."""
    return tokenizer.encode(text, add_special_tokens=False).ids


def _questions(
    config: MixTrainConfig, dataset: Dataset, tokenizer: Any, n_items: int, where: str
) -> list[dict[str, torch.Tensor]]:
    """Questions with their answers marked; every k-th one where there are more than `n_items`."""
    found = []
    for question in _spread(dataset, n_items):
        prompt = _encode(tokenizer, question.prompt)
        whole = _encode(tokenizer, f"{question.prompt} {question.answer}")
        if whole[: len(prompt)] != prompt:
            raise DataError(
                f"{where}: question {question.id}: the tokenizer joins prompt and answer"
            )
        if len(whole) > config.model.max_sequence_length:
            raise DataError(
                f"{where}: question {question.id}: {len(whole)} tokens are more than "
                f"max_sequence_length {config.model.max_sequence_length}"
            )
        answer = torch.arange(len(whole)) >= len(prompt)
        found.append({"input_ids": torch.tensor(whole), "answer": answer})
    return found


def _spread(dataset: Dataset, n_items: int) -> list[Question]:
    questions = dataset.questions()
    if len(questions) <= n_items:
        return questions
    return [questions[i] for i in np.linspace(0, len(questions) - 1, n_items).astype(int)]


def _loader(items: list[dict[str, torch.Tensor]], batch_size: int, pad: int) -> DataLoader:
    """This process's batches; equally many on each, so that none waits for another in vain."""
    world, rank = get_world_size(), get_global_rank()
    each = math.ceil(len(items) / world)
    mine = [items[(rank + world * i) % len(items)] for i in range(each)]
    for i, item in enumerate(mine):
        mine[i] = {**item, "weight": torch.tensor(float(rank + world * i < len(items)))}
    return DataLoader(
        mine,  # type: ignore[arg-type]
        batch_size=batch_size,
        collate_fn=lambda rows: _collate(rows, pad),
    )


def _collate(rows: Sequence[dict[str, torch.Tensor]], pad: int) -> dict[str, torch.Tensor]:
    longest = max(len(row["input_ids"]) for row in rows)
    batch: dict[str, torch.Tensor] = {}
    for key in rows[0]:
        values = [row[key] for row in rows]
        if values[0].dim():
            fill = pad if key == "input_ids" else 0
            values = [
                torch.nn.functional.pad(value, (0, longest - len(value)), value=fill)
                for value in values
            ]
        batch[key] = torch.stack(values)
    return batch
