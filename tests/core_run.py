"""One small run on OLMo-core by hand, as a user's own script would build it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from olmo_core.data import TokenizerConfig
from olmo_core.distributed.parallel import DataParallelType
from olmo_core.distributed.utils import get_rank
from olmo_core.nn.transformer import TransformerConfig
from olmo_core.optim import AdamWConfig
from olmo_core.optim.scheduler import LinearWithWarmup
from olmo_core.train import Duration, Trainer, TrainerConfig
from olmo_core.train.callbacks import Callback, CheckpointerCallback
from olmo_core.train.train_module import TransformerDataParallelConfig, TransformerTrainModuleConfig
from olmo_core.utils import seed_all
from tiny_core import BATCH, LENGTH, STEPS, VOCABULARY

from olmo_mixlaw.training_core.callback import MixtureCallback
from olmo_mixlaw.training_core.endings import EndingsCallback
from olmo_mixlaw.training_core.scripts import MixtureDatasetConfig, MixtureLoaderConfig

ROWS = BATCH // LENGTH


@dataclass
class Seen(Callback):
    """Appends the examples of every batch, its digest and its loss to a file of this process."""

    path: str = ""

    def pre_step(self, batch: dict[str, Any]) -> None:
        digest = hashlib.sha256(batch["input_ids"].numpy().tobytes()).hexdigest()
        self._line = {"step": self.step, "index": batch["index"].tolist(), "digest": digest}

    def post_train_batch(self) -> None:
        loss = float(self.trainer.get_metric("CE loss", namespace="train"))
        with open(f"{self.path}.{get_rank()}", "a") as file:
            file.write(json.dumps({**self._line, "loss": loss}) + "\n")


def tokenizer(tokens: Path, **changes: Any) -> TokenizerConfig:
    return TokenizerConfig(
        **{
            "vocab_size": VOCABULARY,
            "eos_token_id": 0,
            "pad_token_id": 1,
            "identifier": str(tokens / "tokenizer.json"),
            **changes,
        }
    )


def model_config(**changes: Any) -> TransformerConfig:
    return TransformerConfig.llama_like(
        d_model=16, vocab_size=384, n_layers=1, n_heads=2, init_seed=3, **changes
    )


def trainer(
    tokens: Path,
    folder: Path,
    *,
    mixture: str = "ramp",
    steps: int = STEPS,
    stop: int | None = None,
    save: int = 100,
    workers: int = 0,
    dp: str | None = None,
    micro: int = BATCH // 2,
    callbacks: dict[str, Callback] | None = None,
    model: TransformerConfig | None = None,
    module: dict[str, Any] | None = None,
    length: int = LENGTH,
    batch: int = BATCH,
    work_dir: Path | None = None,
) -> Trainer:
    """A trainer of `steps` steps on a mixture in `tokens`, that stops after `stop`."""
    seed_all(1)
    dp_config = None if dp is None else TransformerDataParallelConfig(name=DataParallelType(dp))
    train_module = TransformerTrainModuleConfig(
        rank_microbatch_size=micro,
        max_sequence_length=length,
        optim=AdamWConfig(lr=1e-2),
        scheduler=LinearWithWarmup(warmup=2, alpha_f=0.1),
        max_grad_norm=1.0,
        dp_config=dp_config,
        **(module or {}),
    ).build((model or model_config()).build(init_device="meta"), torch.device("cpu"))
    asked = MixtureDatasetConfig(
        tokenizer=tokenizer(tokens),
        mixture=str(tokens / f"{mixture}.yaml"),
        sequence_length=length,
        max_duration=Duration.steps(steps),
        work_dir=str(work_dir or folder),
    ).build()
    loader = MixtureLoaderConfig(global_batch_size=batch, seed=5, num_workers=workers).build(
        asked, dp_process_group=train_module.dp_process_group
    )
    return TrainerConfig(
        save_folder=str(folder),
        save_overwrite=True,
        max_duration=Duration.steps(steps),
        hard_stop=None if stop is None else Duration.steps(stop),
        async_bookkeeping=False,
        callbacks={
            "checkpointer": CheckpointerCallback(
                save_interval=save,
                save_async=False,
                pre_train_checkpoint=False,
                max_checkpoints=None,
            ),
            "mixture": MixtureCallback(interval=1),
            "endings": EndingsCallback(),
            "seen": Seen(path=str(folder) + ".seen"),
            **(callbacks or {}),
        },
    ).build(train_module, loader)


def seen(folder: Path, rank: int = 0) -> list[dict[str, Any]]:
    """What `Seen` wrote, by step; of steps that were trained twice, both."""
    path = Path(f"{folder}.seen.{rank}")
    return [json.loads(line) for line in path.read_text().splitlines()]


def weights(trained: Trainer) -> dict[str, torch.Tensor]:
    """A copy of all parameters, by name."""
    state = trained.train_module.model.state_dict()
    return {name: getattr(value, "full_tensor", value.clone)() for name, value in state.items()}
