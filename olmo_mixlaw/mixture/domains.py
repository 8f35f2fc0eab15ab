"""What in-loop evaluators of any trainer measure by domain: held-out loss and exact match.

Sums are kept apart by domain and added up over processes, so the result doesn't depend on how
many there are. Every process gets as many items as the others, the last ones of weight 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from olmo_mixlaw.datasets.base import Dataset, Question
from olmo_mixlaw.errors import ConfigError, DataError

# Values that are summed by domain: how many items, and two that the kind says.
_SUMS = 3


class DomainSums:
    """Sums over items by domain, of one `kind`. Values (n, 3) begin with the count."""

    def __init__(self, kind: str, domains: Sequence[str], device: torch.device) -> None:
        self.kind, self.domains = kind, domains
        self.sums = torch.zeros(len(domains), _SUMS, dtype=torch.float64, device=device)

    def reset(self) -> None:
        self.sums.zero_()

    def add_losses(self, batch: Mapping[str, Tensor], losses: Tensor) -> None:
        """Take in held-out items by their losses (n,), in nats a predicted token."""
        one = torch.ones_like(losses, dtype=torch.float64)
        self._add(batch, torch.stack([one, losses.double(), torch.zeros_like(one)], dim=1))

    def add_answers(self, batch: Mapping[str, Tensor], tokens: Tensor, logits: Tensor) -> None:
        """Take in questions by `logits` (n, T, vocabulary) of their `tokens` (n, T).

        Greedy decoding gives the answer just when every token of it is the likeliest after those
        before it, so one pass over question and answer is enough.
        """
        told, asked = tokens[:, 1:], batch["answer"][:, 1:]
        right = ((logits[:, :-1].argmax(dim=-1) == told) | ~asked).all(dim=1)
        surprise = torch.nn.functional.cross_entropy(
            logits[:, :-1].float().transpose(1, 2), told, reduction="none"
        )
        bits = (surprise * asked).sum(dim=1).double() / math.log(2)
        self._add(batch, torch.stack([torch.ones_like(bits), right.double(), bits], dim=1))

    def _add(self, batch: Mapping[str, Tensor], values: Tensor) -> None:
        self.sums.index_add_(0, batch["domain"], values * batch["weight"][:, None])

    def means(self, total: Tensor) -> dict[str, float]:
        """Metrics by `domain/name` of the sums (domains, 3) of all processes.

        CrossEntropyLoss is in nats a predicted token, answer_bits the answers' mean surprise.
        """
        found: dict[str, float] = {}
        for domain, (count, first, second) in zip(self.domains, total.tolist(), strict=True):
            if not count:
                continue
            if self.kind == "heldout":
                found[f"{domain}/CrossEntropyLoss"] = first / count
            else:
                found[f"{domain}/exact_match"] = first / count
                found[f"{domain}/answer_bits"] = second / count
        return found


def items_of(
    kind: str,
    datasets: Mapping[str, Dataset],
    tokenizer: Any,
    n_items: int,
    *,
    sequence_length: int,
    eos_token_id: int,
    where: str,
) -> tuple[list[str], list[dict[str, Tensor]]]:
    """The domains that have items, and at most `n_items` items of each; `where` goes into errors.

    An item has `input_ids` (T,), its `domain` (), and, for exact_match, where its `answer` (T,)
    is. Raises `ConfigError` where there is none, `DataError` for one that doesn't fit.
    """
    domains: list[str] = []
    items: list[dict[str, Tensor]] = []
    for domain, dataset in datasets.items():
        place = f"{where}: {domain}"
        if kind == "heldout":
            found = _sequences(dataset, tokenizer, n_items, sequence_length, eos_token_id, place)
        else:
            found = _questions(dataset, tokenizer, n_items, sequence_length, place)
        if found:
            items += [{**one, "domain": torch.tensor(len(domains))} for one in found]
            domains.append(domain)
    if not items:
        raise ConfigError(f"{where}: none of its datasets asks a question")
    return domains, items


def _sequences(
    dataset: Dataset, tokenizer: Any, n_items: int, length: int, eos_token_id: int, where: str
) -> list[dict[str, Tensor]]:
    """Held-out documents joined and cut as in training: at most `n_items` sequences."""
    ids: list[int] = []
    try:
        for text in dataset.heldout():
            ids += [*_encode(tokenizer, text), eos_token_id]
            if len(ids) >= n_items * length:
                break
    except NotImplementedError as error:
        raise DataError(f"{where}: {error}") from None
    count = min(n_items, len(ids) // length)
    if count == 0:
        raise DataError(f"{where}: its held-out text is shorter than one sequence of {length}")
    return [{"input_ids": row} for row in torch.tensor(ids[: count * length]).view(count, length)]


def _encode(tokenizer: Any, text: str) -> list[int]:
    """As training encodes: a tokenizer's template would put a start into every document."""
    return tokenizer.encode(text, add_special_tokens=False).ids


def _questions(
    dataset: Dataset, tokenizer: Any, n_items: int, length: int, where: str
) -> list[dict[str, Tensor]]:
    """Questions with their answers marked; every k-th one where there are more than `n_items`."""
    found = []
    for question in _spread(dataset, n_items):
        prompt = _encode(tokenizer, question.prompt)
        whole = _encode(tokenizer, f"{question.prompt} {question.answer}")
        if whole[: len(prompt)] != prompt:
            raise DataError(
                f"{where}: question {question.id}: the tokenizer joins prompt and answer"
            )
        if len(whole) > length:
            raise DataError(
                f"{where}: question {question.id}: {len(whole)} tokens are more than "
                f"max_sequence_length {length}"
            )
        answer = torch.arange(len(whole)) >= len(prompt)
        found.append({"input_ids": torch.tensor(whole), "answer": answer})
    return found


def _spread(dataset: Dataset, n_items: int) -> list[Question]:
    questions = dataset.questions()
    if len(questions) <= n_items:
        return questions
    return [questions[i] for i in np.linspace(0, len(questions) - 1, n_items).astype(int)]


def share(items: Sequence[dict[str, Tensor]], world: int, rank: int) -> list[dict[str, Tensor]]:
    """The items of process `rank` of `world`; equally many on each, so that none waits in vain."""
    places = [rank + world * i for i in range(math.ceil(len(items) / world))]
    return [
        {**items[place % len(items)], "weight": torch.tensor(float(place < len(items)))}
        for place in places
    ]


def collate(rows: Sequence[dict[str, Tensor]], pad: int) -> dict[str, Tensor]:
    """Items as one batch, the shorter ones filled up with `pad`."""
    longest = max(len(row["input_ids"]) for row in rows)
    batch: dict[str, Tensor] = {}
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
