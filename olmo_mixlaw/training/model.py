"""Build the model and spread it over processes, as OLMo's own script does."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from typing import Any

import torch
import torch.distributed as dist
from olmo.config import (
    ActivationCheckpointingStrategy,
    DDPGradSyncMode,
    DistributedStrategy,
    TrainConfig,
)
from olmo.model import OLMo, OLMoBlock, OLMoBlockGroup
from olmo.torch_util import get_local_rank, get_local_world_size, get_world_size
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy
from torch.nn.parallel import DistributedDataParallel

from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.models import olmo as ours
from olmo_mixlaw.training.config import MixTrainConfig


class LoneProcess(DistributedDataParallel):
    """A model in the place of DDP where there is no other process to reduce gradients with.

    OLMo's checkpointer and parameter names ask for DDP; its buckets and hooks would cost a
    tenth of a small model's step.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        torch.nn.Module.__init__(self)
        self.module = module
        group = dist.group.WORLD
        assert group is not None
        self.process_group = group

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def train(self, mode: bool = True) -> LoneProcess:
        torch.nn.Module.train(self, mode)
        return self

    def no_sync(self) -> Any:
        from contextlib import nullcontext

        return nullcontext()


def build_model(config: MixTrainConfig) -> OLMo:
    """The model of `config.model`, compiled and checkpointing activations if asked for."""
    model = ours.build_model(config.model)
    # OLMo counts them once and keeps the figures; of a shard they would be those of a shard.
    assert model.num_fwd_flops > 0
    assert model.num_bck_flops > 0
    if isinstance(model, ours.MoEOLMo):
        assert config.device_train_grad_accum is not None
        model.set_accumulation(config.device_train_grad_accum)
    strategy = config.activation_checkpointing
    model.set_activation_checkpointing(
        None if strategy is None else ActivationCheckpointingStrategy(strategy)
    )
    if config.compile is not None:
        if config.model.block_group_size != 1:
            raise ConfigError("model.block_group_size: must be 1 with compile")
        for block in model.transformer["blocks"]:  # type: ignore[attr-defined]
            block.compile(**config.compile.asdict())
    return model


def build_distributed(
    config: MixTrainConfig, model: OLMo, device: torch.device
) -> DistributedDataParallel | FullyShardedDataParallel:
    """`model` wrapped as `distributed_strategy` says. Raises `ConfigError`."""
    if config.distributed_strategy == DistributedStrategy.fsdp:
        return _fsdp(config, model, device)
    model = model.to(device)
    if get_world_size() == 1:
        return LoneProcess(model)
    unused = False
    if config.ddp is not None and config.ddp.find_unused_params:
        unused = True
        if config.ddp.grad_sync_mode != DDPGradSyncMode.micro_batch:
            raise ConfigError("ddp.grad_sync_mode: must be micro_batch with find_unused_params")
    return DistributedDataParallel(model, find_unused_parameters=unused)


def _fsdp(config: MixTrainConfig, model: OLMo, device: torch.device) -> FullyShardedDataParallel:
    if config.fsdp is None:
        raise ConfigError("fsdp: is empty, but distributed_strategy is fsdp")
    hybrid: dict[str, Any] = {}
    strategies = (ShardingStrategy.HYBRID_SHARD, ShardingStrategy._HYBRID_SHARD_ZERO2)
    if config.fsdp.sharding_strategy in strategies:
        from torch.distributed.device_mesh import init_device_mesh

        replicas = config.fsdp.hybrid_sharding_num_model_replicas or (
            get_world_size() // get_local_world_size()
        )
        if replicas < 1 or get_world_size() % replicas:
            raise ConfigError(
                f"fsdp.hybrid_sharding_num_model_replicas: {replicas} must divide the "
                f"{get_world_size()} processes"
            )
        hybrid["device_mesh"] = init_device_mesh(
            device.type, (replicas, get_world_size() // replicas)
        )

    def make_empty(module: torch.nn.Module) -> None:
        module.to_empty(device=device)

    wrapped = FullyShardedDataParallel(
        model,
        sharding_strategy=config.fsdp.sharding_strategy,
        mixed_precision=config.fsdp_precision,
        auto_wrap_policy=model.get_fsdp_wrap_policy(config.fsdp.wrapping_strategy),
        use_orig_params=config.fsdp.use_orig_params,
        limit_all_gathers=True,
        device_id=get_local_rank() if device.type == "cuda" else device,
        param_init_fn=make_empty,
        **hybrid,
    )
    if config.model.init_device == "meta":  # the parameters were made empty, module by module
        reset_whole(wrapped, model)
    return wrapped


def reset_whole(wrapped: FullyShardedDataParallel, model: OLMo) -> None:
    """Give the weights of a sharded `model` the values that one process would give them.

    Under one seed every process draws each weight whole, in one order, and keeps its shard. Drawn
    shard by shard, all processes would hold the same values. Blocks that are sharded by
    themselves are whole one after the other, the rest at once.
    """

    def whole(unit: FullyShardedDataParallel) -> Any:
        return FullyShardedDataParallel.summon_full_params(unit, recurse=False, writeback=True)

    def gathered(block: Any, unit: FullyShardedDataParallel) -> Any:
        draw = block.reset_parameters

        def reset_parameters() -> None:
            with whole(unit):
                draw()

        return reset_parameters

    blocks = []
    with ExitStack() as stack:
        for unit in FullyShardedDataParallel.fsdp_modules(wrapped):
            if isinstance(unit.module, (OLMoBlock, OLMoBlockGroup)):
                blocks.append(unit.module)
                unit.module.reset_parameters = gathered(unit.module, unit)  # type: ignore[method-assign]
            else:
                stack.enter_context(whole(unit))
        model.reset_parameters()
    for block in blocks:
        del block.reset_parameters


def n_params(model: OLMo) -> int:
    """Non-embedding parameters."""
    return model.num_params(include_embedding=False)


def count_params(config: TrainConfig) -> int:
    """Non-embedding parameters of the model of `config`, counted without making its weights."""
    model = copy.deepcopy(config.model)
    model.init_device = "meta"
    return n_params(ours.build_model(model, init_params=False))
