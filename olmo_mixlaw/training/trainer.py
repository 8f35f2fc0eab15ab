"""OLMo's Trainer with losses by source, exact records, and ends that leave a checkpoint.

What is overridden, and why, is listed at each method; the training loop stays OLMo's.
"""

from __future__ import annotations

import errno
import logging
import math
import random
import re
import shutil
import sys
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from olmo.config import CheckpointType
from olmo.torch_util import get_global_rank, get_world_size
from olmo.train import Trainer
from torch.distributed.fsdp import FullyShardedDataParallel

from olmo_mixlaw.errors import (
    CheckpointError,
    DataError,
    NonFiniteLossError,
    StoppedError,
    last_line,
)
from olmo_mixlaw.mixture.opened import Mixture
from olmo_mixlaw.mixture.records import Record
from olmo_mixlaw.models.olmo import moe_layers
from olmo_mixlaw.training.config import MixTrainConfig
from olmo_mixlaw.training.exact_head import exact_logits
from olmo_mixlaw.training.tally import Tally

log = logging.getLogger(__name__)

STATE = "olmo_mixlaw"
_NO_LABEL = -100
_OF_LAYER = re.compile(r"moe/\d+/")
# The perplexity of a larger loss, which OLMo computes, is beyond a float.
_MOST_NATS = math.log(sys.float_info.max)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _LossNotFinite(Exception):
    """Raised before the optimizer sees the gradients of a broken loss; says how it is broken."""


class _Signalled(Exception):
    """Raised between two steps."""


@dataclass
class MixTrainer(Trainer):
    """A `Trainer` for a planned mixture (or, without one, for plain OLMo data)."""

    cfg: MixTrainConfig
    mixture: Mixture | None = None
    n_steps: int = 0
    mixture_description: dict[str, Any] = field(default_factory=dict)
    metrics: Record | None = None
    evals: Record | None = None
    signal: int | None = None
    """Set by a signal handler; the run ends after the step that it falls into."""

    tally: Tally = field(init=False)

    _stop_after_step: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.tally = Tally(self.mixture, self.model, self.device)

    # State: 0.6.0 asks for the state of a GPU's generator even where there is none.

    def trainer_state_dict(self) -> dict[str, Any]:
        if torch.cuda.is_available():
            state = super().trainer_state_dict()
        else:
            asked = torch.cuda.get_rng_state
            torch.cuda.get_rng_state = lambda *_: torch.empty(0, dtype=torch.uint8)
            try:
                state = super().trainer_state_dict()
            finally:
                torch.cuda.get_rng_state = asked
        state[STATE] = {"mixture": self.mixture_description, "since_row": self.tally.state()}
        return state

    def load_trainer_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_trainer_state_dict(state_dict)
        self.tally.load_state(state_dict.get(STATE, {}).get("since_row", []))

    def restore_rng_state(self, rng_state: dict[str, Any]) -> None:
        random.setstate(rng_state["python"])
        np.random.set_state(rng_state["numpy"])  # noqa: NPY002
        torch.set_rng_state(rng_state["torch"])
        if torch.cuda.is_available() and rng_state["cuda"].numel():
            torch.cuda.set_rng_state(rng_state["cuda"])

    # Losses by source: the loss of each token is kept apart until it is summed.

    def model_forward(
        self, batch: dict[str, Any], loss_reduction: str = "mean", compute_z_loss: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """As OLMo's; the losses of our batches are taken without a copy of the logits.

        OLMo cuts the last position off the logits, which copies them forward and backward: a
        fifteenth of a small model's step. Here that position gets no label instead.
        """
        if "source" not in batch or compute_z_loss or loss_reduction != "none":
            return super().model_forward(batch, loss_reduction, compute_z_loss)
        logits = self.dist_model(
            input_ids=batch["input_ids"],
            doc_lens=batch.get("doc_lens"),
            max_doc_lens=batch.get("max_doc_lens"),
        ).logits
        labels = torch.nn.functional.pad(self.get_labels(batch), (0, 1), value=_NO_LABEL)
        losses, _ = self.loss_fn(
            logits.view(-1, logits.size(-1)),
            labels.view(-1),
            ignore_index=_NO_LABEL,
            reduction="none",
            compute_z_loss=False,
        )
        return losses.view(labels.shape)[:, :-1], None, logits

    def train_micro_batch(
        self, micro_batch: dict[str, Any], batch_size_in_tokens: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        if "source" not in micro_batch:
            return super().train_micro_batch(micro_batch, batch_size_in_tokens)
        losses, z_losses, _ = self.model_forward(
            micro_batch, loss_reduction="none", compute_z_loss=self.cfg.softmax_auxiliary_loss
        )
        self.tally.add(micro_batch["source"], losses, micro_batch.get("instance_mask"))
        ce_loss = losses.sum() / batch_size_in_tokens
        if z_losses is None:
            return ce_loss, ce_loss, None
        z_loss = z_losses.sum() / batch_size_in_tokens
        return ce_loss + z_loss, ce_loss, z_loss

    def train_batch(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Forward and backward; refuses a broken loss while the weights are still good."""
        self.tally.start_step()
        ce_loss, z_loss = super().train_batch(batch)
        self.tally.add_load()
        # All that the step tells the host, and the other processes, is one vector and one copy.
        broken = ~(ce_loss.isfinite() & (ce_loss < _MOST_NATS))
        signals = torch.full((2,), self.signal or 0, dtype=torch.float64, device=self.device)
        signals[1].clamp_(max=1)
        joined = torch.cat([broken.double().view(1), signals, self.tally.step])
        if get_world_size() > 1:
            dist.all_reduce(joined)
        n_broken, signal, n_signalled = (told := joined.cpu().numpy())[:3]
        if n_broken:
            value = ce_loss.item()
            finite = math.isfinite(value) and get_world_size() == 1
            raise _LossNotFinite(f"{value:.4g} nats a token" if finite else "not finite")
        if n_signalled and self.signal is None:
            self.signal = round(signal / n_signalled)
        self._stop_after_step = bool(n_signalled)
        self.tally.end_step(told[3:])
        return ce_loss, z_loss

    def train_step(
        self, batch: dict[str, Any], reduce_global_loss: bool = True
    ) -> dict[str, float]:
        if "source" not in batch:
            self._require_known(batch)
        batch = {
            key: value.to(self.device, non_blocking=True) if torch.is_tensor(value) else value
            for key, value in batch.items()
        }
        metrics = super().train_step(batch, reduce_global_loss=reduce_global_loss)
        examples = self.global_step * self.cfg.global_train_batch_size
        length = self.cfg.model.max_sequence_length
        due = self.global_step % self.cfg.metrics_interval == 0
        if self.mixture is not None and (due or self.global_step == self.n_steps):
            row = self.tally.row(examples, length)
            if self.metrics is not None:
                self.metrics.add(
                    {
                        "step": self.global_step,
                        "tokens": self.global_train_tokens_seen,
                        "learning_rate": float(self.optim.param_groups[0]["lr"]),
                        "grad_norm": metrics.get("optim/total_grad_norm"),
                        **row,
                    }
                )
        if self.should_log_this_step():
            metrics.update(self.tally.shown(examples, length))
        if self._stop_after_step and self.global_step < self.n_steps:
            raise _Signalled
        return metrics

    def _require_known(self, batch: dict[str, Any]) -> None:
        """Raise `DataError` for ids of plain token files that the model has no embedding of."""
        size = self.cfg.model.embedding_size or self.cfg.model.vocab_size
        largest = int(batch["input_ids"].max())
        if largest >= size:
            raise DataError(
                f"data: the batch of step {self.global_step} holds token {largest}, beyond the "
                f"{size} of the model; a token file is damaged, or of another tokenizer"
            )

    def log_metrics_to_console(self, prefix: str, metrics: dict[str, float]) -> None:
        """As OLMo does, without the load of each expert of each layer, which W&B gets."""
        shown = {key: value for key, value in metrics.items() if not _OF_LAYER.match(key)}
        super().log_metrics_to_console(prefix, shown)

    # Ends: a signal, a broken loss, a full disk.

    def fit(self) -> None:
        for record in (self.metrics, self.evals):
            if record is not None:
                record.open(self.global_step)
        if self._eval_is_missing():
            self.eval()
        try:
            if self.global_step < (self.cfg.stop_at or self.n_steps):
                super().fit()
        except _LossNotFinite as error:
            self._end_before_step(str(error))
        except _Signalled:
            self._end_by_signal()
        except DataError as error:
            # A data worker's error comes with the worker's traceback before it.
            last = last_line(str(error))
            raise DataError(last.rpartition("DataError: ")[2]) from None

    def _end_before_step(self, how: str) -> None:
        """Save the state before a step whose loss was broken, and say so."""
        broken = self.global_step
        batch = self.cfg.global_train_batch_size
        self.optim.zero_grad(set_to_none=True)
        for layer in moe_layers(self.model):
            layer.forget_batch()
        self.global_step -= 1
        self.global_train_examples_seen_this_epoch -= batch
        self.global_train_tokens_seen -= batch * self.cfg.model.max_sequence_length
        saved = self._save_last()
        raise NonFiniteLossError(
            f"the loss of step {broken} is {how}; {saved}; try a lower "
            "optimizer.learning_rate, a longer scheduler.t_warmup or a max_grad_norm"
        )

    def _end_by_signal(self) -> None:
        assert self.signal is not None
        saved = self._save_last()
        raise StoppedError(f"stopped by signal {self.signal}; {saved}", self.signal)

    def _save_last(self) -> str:
        """Save a checkpoint of this step if there is none; says where it is."""
        if self.global_step == 0:
            return "no step before it was trained, so nothing is saved"
        done = (self.last_unsharded_checkpoint_step, self.last_sharded_checkpoint_step)
        if self.global_step not in done:
            # Gathering shards into one file can outlast the half minute that a scheduler grants.
            sharded = isinstance(self.dist_model, FullyShardedDataParallel) and get_world_size() > 1
            self.save_checkpoint(CheckpointType.sharded if sharded else CheckpointType.unsharded)
        return f"the checkpoint of step {self.global_step} is in {self.cfg.save_folder}"

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> Any:
        """As OLMo does; a disk that is full ends the run with the last complete checkpoint."""
        for record in (self.metrics, self.evals):
            if record is not None:
                record.sync()
        try:
            return super()._save_checkpoint(*args, **kwargs)
        except (OSError, RuntimeError) as error:
            if not disk_is_full(error):
                raise
            folder = Path(self.cfg.save_folder)
            if get_global_rank() == 0:
                for half in folder.glob("step*-tmp"):
                    shutil.rmtree(half, ignore_errors=True)
            last = max(
                (_step_of(path) for path in folder.glob("step*") if path.is_dir()), default=0
            )
            kept = (
                f"the last complete checkpoint is step {last}" if last else "there is none before"
            )
            raise CheckpointError(
                f"{folder}: no space left to save the checkpoint of step {self.global_step}; {kept}"
            ) from None

    def eval_batch(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        with exact_logits(self.model) if self.cfg.precision != "fp32" else nullcontext():
            return super().eval_batch(batch)

    def eval(self) -> dict[str, Any]:
        results = super().eval()
        if self.evals is not None and self._eval_is_due():
            for name, value in results.items():
                self.evals.add({"step": self.global_step, "metric": name, "value": float(value)})
        return results

    def _eval_is_due(self) -> bool:
        step = self.global_step
        return step > 0 and (step % self.cfg.eval_interval == 0 or step == self.n_steps)

    def _eval_is_missing(self) -> bool:
        """Whether the run was killed between the checkpoint of this step and its evaluation."""
        missing = False
        if self.evaluators and self._eval_is_due() and self.evals is not None:
            missing = not any(int(row[0]) == self.global_step for row in self.evals.rows())
        if get_world_size() > 1:
            from olmo.torch_util import synchronize_flag

            missing = synchronize_flag(missing, self.device)
        return missing

    def close(self, exit_code: int = 0) -> None:
        for record in (self.metrics, self.evals):
            if record is not None:
                record.close()
        if self.cfg.wandb is not None:
            import wandb

            # OLMo would end its run with an argument that W&B has dropped.
            if wandb.run is not None:
                wandb.finish(exit_code=exit_code)
        super().close(exit_code)


def disk_is_full(error: BaseException) -> bool:
    """Whether `error` came from a full disk; torch reports that of its zip files as text."""
    if isinstance(error, OSError):
        return error.errno in _DISK_FULL
    text = str(error)
    return "PytorchStreamWriter" in text or "file write failed" in text or "unexpected pos" in text


def _step_of(path: Path) -> int:
    digits = path.name.removeprefix("step").removesuffix("-unsharded")
    return int(digits) if digits.isdigit() else 0
