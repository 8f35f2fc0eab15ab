"""Held-out loss by domain and exact match on questions, as evaluators of OLMo-core's Trainer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from olmo_core.distributed.utils import broadcast_object, get_rank, get_world_size
from olmo_core.eval import Evaluator
from olmo_core.train import Trainer
from olmo_core.train.callbacks import Callback, CallbackConfig, EvaluatorCallback

from olmo_mixlaw.datasets import load_tokenizer, open_dataset
from olmo_mixlaw.errors import ConfigError, unknown_name
from olmo_mixlaw.mixture.domains import DomainSums, collate, items_of, share
from olmo_mixlaw.mixture.records import KINDS
from olmo_mixlaw.training_core.callback import mixture_callback
from olmo_mixlaw.training_core.exact_head import exact_logits


class DomainEvaluator(Evaluator):
    """Means by domain of one of the kinds; `group` are the processes that share the items."""

    def __init__(
        self,
        name: str,
        sums: DomainSums,
        batches: list[dict[str, torch.Tensor]],
        group: dist.ProcessGroup | None,
    ) -> None:
        super().__init__(name=name, batches=batches, device=sums.sums.device)
        self.sums, self.group = sums, group
        self.found: dict[str, float] = {}

    def reset_metrics(self) -> None:
        self.sums.reset()

    def update_metrics(
        self, batch: dict[str, Any], ce_loss: torch.Tensor | None, logits: torch.Tensor | None
    ) -> None:
        if self.sums.kind == "heldout":
            assert ce_loss is not None
            # Labels are as long as the input here; the last one has no loss.
            self.sums.add_losses(batch, ce_loss[:, :-1].double().mean(dim=1))
        else:
            assert logits is not None
            self.sums.add_answers(batch, batch["tokens"], logits)

    def compute_metrics(self) -> dict[str, torch.Tensor]:
        total = self.sums.sums.clone()
        if get_world_size(self.group) > 1:
            dist.all_reduce(total, group=self.group)
        self.found = self.sums.means(total)
        return {name: torch.tensor(value) for name, value in self.found.items()}


@dataclass
class MixtureEvaluator(EvaluatorCallback):
    """Evaluates every `eval_interval` steps and at the end, once each, into evals.csv."""

    writes_evals = True

    def pre_train(self) -> None:
        """What a run that was killed after the checkpoint of a step has not evaluated there."""
        if self._is_due() and self._is_missing():
            self.perform_eval()

    def post_step(self) -> None:
        if self._is_due():
            self.perform_eval()

    def post_train(self) -> None:
        """Nothing: the last step was evaluated."""

    def _is_due(self) -> bool:
        ends = (self.trainer.max_steps, mixture_callback(self.trainer).loader.last_step)
        return self.step > 0 and (self.step in ends or self.step % self.eval_interval == 0)

    def _is_missing(self) -> bool:
        evals, names = mixture_callback(self.trainer).evals, [one.name for one in self.evaluators]
        there = evals is not None and any(
            int(row[0]) == self.step and row[1].split("/")[1] in names for row in evals.rows()
        )
        return not broadcast_object(there)

    def perform_eval(self, prefix: str = "eval") -> None:
        with exact_logits(self.trainer.train_module.model):
            super().perform_eval(prefix)
        evals = mixture_callback(self.trainer).evals
        if evals is None:
            return
        for one in self.evaluators:
            for name, value in one.found.items():
                metric = f"{prefix}/{one.name}/{name}"
                evals.add({"step": self.step, "metric": metric, "value": value})


@dataclass
class MixtureEvaluatorConfig(CallbackConfig):
    """An evaluator beside `MixtureCallback`, by `.with_callback("facts", ...)`.

    `kind` is heldout (nats a predicted token on held-out text) or exact_match (questions answered
    word for word, and bits of surprise an answer), on `datasets` by domain. `tokenizer` is a file,
    `n_items` the most of each dataset. Metrics are named eval/{label}/{domain}/{metric}.
    """

    kind: str = KINDS[0]
    datasets: dict[str, str] = field(default_factory=dict)
    tokenizer: str = ""
    eos_token_id: int = 0
    pad_token_id: int = 1
    n_items: int = 64
    eval_interval: int = 100
    label: str | None = None

    def build(self, trainer: Trainer) -> Callback:
        """Raises `ConfigError` and `DataError`."""
        label = self.label or self.kind
        where = f"evaluator {label}"
        if self.kind not in KINDS:
            raise unknown_name("evaluator", self.kind, KINDS, f"{where}: kind")
        if not self.datasets:
            raise ConfigError(f"{where}: datasets: is missing; give {{domain: uri}}")
        for key in ("n_items", "eval_interval"):
            if (value := getattr(self, key)) < 1:
                raise ConfigError(f"{where}: {key}: {value}; it must be at least 1")
        mixture_callback(trainer)
        spec = trainer.train_module.eval_batch_spec
        length, group = spec.max_sequence_length, trainer.dp_process_group
        domains, items = items_of(
            self.kind,
            {
                name: open_dataset(uri, f"{where}: datasets.{name}")
                for name, uri in self.datasets.items()
            },
            load_tokenizer(self.tokenizer, f"{where}: tokenizer"),
            self.n_items,
            sequence_length=length,
            eos_token_id=self.eos_token_id,
            where=where,
        )
        mine = share(items, get_world_size(group), get_rank(group))
        size = max(1, spec.rank_batch_size // length)
        batches = [
            _kept(collate(mine[i : i + size], self.pad_token_id)) for i in range(0, len(mine), size)
        ]
        sums = DomainSums(self.kind, domains, trainer.device)
        evaluator = DomainEvaluator(label, sums, batches, group)
        return MixtureEvaluator(evaluators=[evaluator], eval_interval=self.eval_interval)


def _kept(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A batch whose tokens are there after OLMo-core has taken `input_ids` out of it."""
    return {**batch, "tokens": batch["input_ids"]}
