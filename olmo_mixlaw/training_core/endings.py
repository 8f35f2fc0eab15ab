"""However a run of OLMo-core ends, a good checkpoint is left, and the exit code says how it was."""

from __future__ import annotations

import math
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from olmo_core.distributed.utils import broadcast_object, get_rank, get_world_size, is_distributed
from olmo_core.exceptions import OLMoCheckpointError
from olmo_core.io import join_path
from olmo_core.train import Trainer
from olmo_core.train.callbacks import Callback, CheckpointerCallback
from olmo_core.utils import cuda_sync_debug_mode
from torch.distributed.checkpoint import CheckpointException

from olmo_mixlaw.errors import (
    CheckpointError,
    MixlawError,
    NonFiniteLossError,
    StoppedError,
    last_line,
)
from olmo_mixlaw.process import said_end


@dataclass
class EndingsCallback(Callback):
    """Ends a run with a checkpoint at a broken loss, SIGTERM and Ctrl-C.

    A loss that is not finite raises `NonFiniteLossError` while the weights are still those of the
    step before, which are saved. A signal raises `StoppedError` after the step that it falls into,
    on all processes, whichever got it; a second Ctrl-C ends the process at once. The check of the
    loss waits for the step's backward pass.
    """

    # After all others: theirs is the step that is saved.
    priority: ClassVar[int] = -100
    _got = None
    _signal = None  # of which all processes know
    _flops = None

    def pre_train(self) -> None:
        """Take signals over from the trainer, which puts back what was there before its own."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def _stop(self, number: int, _: Any) -> None:
        self._got = number
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def pre_step(self, batch: dict[str, Any]) -> None:
        self._flops = self.trainer.train_module.global_num_flops_in_batch(batch)

    def pre_optim_step(self) -> None:
        loss = self.trainer.get_metric("CE loss", namespace="train")
        with cuda_sync_debug_mode(0):
            value = 0.0 if loss is None else float(loss)
            broken, self._signal = self._agreed(not math.isfinite(value))
        if broken:
            self._end_before_step()

    def _agreed(self, broken: bool) -> tuple[bool, int | None]:
        """Whether any process has a broken loss, and the signal that one of them got."""
        flags = torch.tensor([float(broken), float(self._got or 0)], device=self.trainer.device)
        if is_distributed() and get_world_size() > 1:
            dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        first, second = flags.tolist()
        return bool(first), int(second) or None

    def _end_before_step(self) -> None:
        """Save the state before a step whose loss was broken, and say so."""
        trainer, broken = self.trainer, self.trainer.global_step
        trainer.train_module.zero_grads()
        # The trainer refuses to log a loss that is not finite.
        trainer._metrics.pop(broken, None)
        trainer.global_step -= 1
        trainer.global_train_tokens_seen -= trainer.data_loader.global_batch_size
        if self._flops is not None:
            trainer.global_train_petaflops -= self._flops / 1e15
        trainer.data_loader.step_back()
        saved = save_last(trainer)
        raise NonFiniteLossError(
            f"the loss of step {broken} is not finite; {saved}; try a lower learning rate, a "
            "longer warmup or a max_grad_norm"
        )

    def post_train_batch(self) -> None:
        """What the step has to write is written by now, and a checkpoint that was due is saved."""
        trainer, number = self.trainer, self._signal
        if number is not None and self.step != trainer.max_steps:
            raise StoppedError(f"stopped by signal {number}; {save_last(trainer)}", number)


def save_last(trainer: Trainer) -> str:
    """Save a checkpoint of the trainer's step if there is none; says where it is."""
    step = trainer.global_step
    if step == 0:
        return "no step before it was trained, so nothing is saved"
    if trainer.no_checkpoints:
        return "trainer.no_checkpoints is set, so nothing is saved"
    for callback in trainer.callbacks.values():
        if isinstance(callback, CheckpointerCallback):
            callback._await_last_checkpoint()
    path = join_path(trainer.save_folder, trainer.checkpointer.checkpoint_dirname(step))
    there = get_rank() == 0 and trainer.checkpointer.dir_is_checkpoint(path)
    if not broadcast_object(there):
        trainer.save_checkpoint()
    return f"the checkpoint of step {step} is in {trainer.save_folder}"


@contextmanager
def told_failures() -> Iterator[None]:
    """Around training: what the system refuses of a checkpoint's files is a `CheckpointError`.

    torch wraps the errors of all processes in one that isn't even an `Exception`.
    """
    try:
        yield
    except CheckpointException as error:
        for wrapped, _ in error.failures.values():
            if isinstance(wrapped, OSError | OLMoCheckpointError):
                # OLMo-core hands on the text of another error's traceback.
                raise CheckpointError(
                    f"a checkpoint can't be read or written ({last_line(str(wrapped))}); a run "
                    "that is started again goes on from the last whole one"
                ) from error
        raise


@contextmanager
def exit_codes() -> Iterator[None]:
    """Around the `main` of one's own script: what ends a run is one line and an exit code.

    2 for a mistake or a broken loss, 128 + n for signal n; the first process says it for all.
    """
    try:
        with told_failures():
            yield
    except MixlawError as error:
        sys.exit(said_end(error))
