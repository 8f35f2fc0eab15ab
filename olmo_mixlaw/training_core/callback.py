"""What a mixture adds to a run of OLMo-core: losses by source, metrics.csv and mixture.json."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.distributed as dist
from olmo_core.distributed.utils import get_local_tensor, get_rank, get_world_size
from olmo_core.io import is_url
from olmo_core.nn.lm_head import LMLossImplementation, LMOutputWithLoss
from olmo_core.train import Trainer
from olmo_core.train.callbacks import Callback
from olmo_core.train.train_module import TrainModule, TransformerTrainModule
from olmo_core.utils import cuda_sync_debug_mode

from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.mixture import accounting, tally
from olmo_mixlaw.mixture.records import EVAL_COLUMNS, EVALS, METRICS, Record
from olmo_mixlaw.training_core.data import MixtureDataLoader

_NO_LABEL = -100


@dataclass
class MixtureCallback(Callback):
    """Losses by source every `interval` steps, and the run's records in its `save_folder`.

    metrics.csv has a row every `interval` steps and at the end; mixture.json says at the end what
    was asked of each source and what was seen of it. evals.csv is kept here for evaluators. Where
    `save_folder` is a URL, the records are in the trainer's `work_dir`.

    Raises `ConfigError` for a loader without a mixture and for models whose losses by token can't
    be had: tensor, context and pipeline parallel ones, and those with a fused loss.
    """

    interval: int = 10

    # Before the checkpointer, so that a checkpoint holds what its step has written.
    priority: ClassVar[int] = 3
    # Without annotations: OLMo-core takes annotated ones for settings.
    metrics = None
    evals = None
    _counting = False

    def post_attach(self) -> None:
        if self.interval < 1:
            raise ConfigError(f"mixture callback: interval: {self.interval}; it must be at least 1")
        check_loader(self.trainer)
        check_module(self.trainer.train_module)
        device = self.trainer.device
        shape = (2, len(self.loader.mixture.labels))
        # Counts are whole numbers far below 2^53, so their sums are exact in any order.
        self._of_step = torch.zeros(shape, dtype=torch.float64, device=device)
        self._here = torch.zeros_like(self._of_step)
        self._since_row = np.zeros(shape)
        module = self.trainer.train_module
        module.model_forward = self._by_source(module.model_forward)

    @property
    def loader(self) -> MixtureDataLoader:
        return self.trainer.data_loader

    @property
    def folder(self) -> Path:
        """Where the records are."""
        folder = self.trainer.save_folder
        return Path(self.trainer.work_dir if is_url(folder) else folder)

    # Losses by source: the loss of each token is kept apart until it is summed.

    def _by_source(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """`forward`, whose losses are summed over a batch only here."""

        def model_forward(
            input_ids: torch.Tensor, labels: torch.Tensor | None = None, **kwargs: Any
        ) -> Any:
            source = kwargs.pop("source", None)
            if source is None or labels is None or kwargs.get("loss_reduction") != "sum":
                return forward(input_ids, labels=labels, **kwargs)
            # The divisor is handed on, because losses of MoE layers are scaled by it too.
            output = forward(input_ids, labels=labels, **{**kwargs, "loss_reduction": "none"})
            counted = labels != kwargs.get("ignore_index", _NO_LABEL)
            if self._counting:
                self._add(source, output.ce_loss, counted, kwargs.get("loss_div_factor"))
            return _summed(output, counted)

        return model_forward

    def _add(
        self, source: torch.Tensor, losses: torch.Tensor, counted: torch.Tensor, divisor: Any
    ) -> None:
        """Take in losses (B, T), each divided by `divisor`, of B examples from `source` (B)."""
        device = self._of_step.device
        with torch.no_grad():
            by_example = get_local_tensor(losses).detach().sum(dim=1, dtype=torch.float64)
            if divisor is not None:
                by_example = by_example * divisor
            predicted = counted.to(device, non_blocking=True).sum(dim=1, dtype=torch.float64)
            values = torch.stack([by_example, predicted])
            self._of_step.index_add_(1, source.to(device, non_blocking=True), values)

    def pre_step(self, batch: dict[str, Any]) -> None:
        self._counting = True  # not in the trainer's dry run
        self._of_step.zero_()

    def _joined(self) -> np.ndarray:
        """Sums (2, K) since the last row over all processes, which have to call it together."""
        joined = self._here.clone()
        group = self.trainer.dp_process_group
        if get_world_size(group) > 1:
            dist.all_reduce(joined, group=group)
        with cuda_sync_debug_mode(0):
            self._since_row = self._since_row + joined.cpu().numpy()
        self._here.zero_()
        return self._since_row

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, the same in every process; rows so far are on disk by then."""
        for record in (self.metrics, self.evals):
            if record is not None:
                record.sync()
        return {"since_row": self._joined().tolist()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's sums; those of another mixture are left aside."""
        since_row = np.array(state_dict.get("since_row", []), float)
        if since_row.shape == self._since_row.shape:
            self._since_row = since_row
            self._here.zero_()

    # Records

    def pre_train(self) -> None:
        check_duration(self.trainer)
        if get_rank() != 0:
            return
        self.metrics = Record(self.folder / METRICS, tally.columns(self.loader.mixture))
        self.metrics.open(self.step)
        if any(getattr(one, "writes_evals", False) for one in self.trainer.callbacks.values()):
            self.evals = Record(self.folder / EVALS, EVAL_COLUMNS)
            self.evals.open(self.step)

    def post_train_batch(self) -> None:
        self._here += self._of_step
        loader = self.loader
        ends = loader.batches_processed == loader.last_step
        if self.step % self.interval and not ends and self.step != self.trainer.max_steps:
            return
        losses, predicted = self._joined()
        self._since_row = np.zeros_like(self._since_row)
        known = (
            loader.mixture,
            losses,
            predicted,
            loader.examples_processed,
            loader.sequence_length,
        )
        for name, value in tally.shown(*known).items():
            self.trainer.record_metric(name, value)
        if self.metrics is None:
            return
        with cuda_sync_debug_mode(0):
            norm = self.trainer.get_metric("total grad norm", namespace="optim")
            self.metrics.add(
                {
                    "step": self.step,
                    "tokens": self.trainer.global_train_tokens_seen,
                    "learning_rate": float(self.trainer.train_module.optim.param_groups[0]["lr"]),
                    "grad_norm": None if norm is None else float(norm),
                    **tally.row(*known),
                }
            )

    def post_train(self) -> None:
        if get_rank() == 0:
            batch, length = self.loader.instances_per_batch, self.loader.sequence_length
            record = accounting.account(
                self.loader.mixture, self.loader.batches_processed, batch, length
            )
            accounting.write(self.folder, record)

    def close(self) -> None:
        for record in (self.metrics, self.evals):
            if record is not None:
                record.close()


def _summed(output: LMOutputWithLoss, counted: torch.Tensor) -> LMOutputWithLoss:
    """`output` with losses (B, T) summed over `counted` (B, T) tokens, as OLMo-core sums them."""
    if output.z_loss is None:
        return output._replace(loss=output.loss.sum(), ce_loss=output.ce_loss.sum())
    # Token by token, OLMo-core's z-loss is there even where there is no label.
    counted = counted.to(output.loss.device, non_blocking=True)
    return output._replace(
        loss=(output.loss * counted).sum(),
        ce_loss=output.ce_loss.sum(),
        z_loss=(output.z_loss * counted).sum(),
    )


def mixture_callback(trainer: Trainer) -> MixtureCallback:
    """The trainer's callback that keeps the records. Raises `ConfigError` if it has none."""
    for one in trainer.callbacks.values():
        if isinstance(one, MixtureCallback):
            return one
    raise ConfigError(
        "trainer.callbacks: no MixtureCallback; add "
        '.with_callback("mixture", MixtureCallback()) to the trainer\'s config'
    )


def check_loader(trainer: Trainer) -> None:
    """Raise `ConfigError` unless the trainer is fed by a mixture."""
    if not isinstance(trainer.data_loader, MixtureDataLoader):
        raise ConfigError(
            f"mixture callback: the run's data comes from {type(trainer.data_loader).__name__}; "
            "it needs a MixtureDataLoader (olmo_mixlaw.training_core.scripts has configs of it)"
        )


def check_module(module: TrainModule) -> None:
    """Raise `ConfigError` for a train module whose losses by token can't be had."""
    why = None
    if not isinstance(module, TransformerTrainModule):
        why = f"train_module: {type(module).__name__}"
    elif module.cp_enabled:
        why = "train_module.cp_config: context parallelism"
    elif module.tp_enabled:
        why = "train_module.tp_config: tensor parallelism"
    elif _loss_of(module) == LMLossImplementation.fused_linear:
        why = "model.lm_head.loss_implementation: fused_linear"
    if why is not None:
        raise ConfigError(
            f"{why} gives no loss of each token, and losses by source need it; use a "
            "TransformerTrainModule with data or expert parallelism and the default loss"
        )


def _loss_of(module: TransformerTrainModule) -> Any:
    model = getattr(module.model, "module", module.model)
    return getattr(getattr(model, "lm_head", None), "loss_implementation", None)


def check_duration(trainer: Trainer) -> None:
    """Raise `ConfigError` for a run that is longer than its mixture is planned."""
    loader = trainer.data_loader
    left = loader.total_batches - loader.batches_processed
    asked = (trainer.max_steps or 0) - trainer.global_step
    if asked > left:
        raise ConfigError(
            f"{loader.mixture.where}: is planned for {loader.total_batches} steps, "
            f"but trainer.max_duration asks for {asked - left} more; make the two equal"
        )
