"""MoE models over two processes: DDP and FSDP train as one process with accumulation does."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_moe import BOTH_ROUTERS, SHAPE, SIGMOID, loss_of, tokens
from torch import Tensor, nn

pytest.importorskip("olmo")

from olmo_mixlaw.models.moe import MoE, MoEConfig
from olmo_mixlaw.models.olmo import MoEOLMo, build_model


def _train(model: nn.Module, micro_batches: list[Tensor]) -> None:
    """Three steps over the same micro-batches."""
    for layer in (m for m in model.modules() if isinstance(m, MoE)):
        layer.aux_scale = 1 / len(micro_batches)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        for part in micro_batches:
            (loss_of(model, part) / len(micro_batches)).backward()
        optimizer.step()


def _model(moe: MoEConfig, **changes: Any) -> MoEOLMo:
    torch.manual_seed(0)
    shape = dataclasses.replace(SHAPE, n_layers=2, moe=dataclasses.replace(moe, dense_layers=0))
    model = build_model(shape.olmo_model(init_std=0.2, **changes))
    assert isinstance(model, MoEOLMo)
    return model


def _process(rank: int, folder: str, wrapper: str) -> None:
    """One of two processes: half of the micro-batches of each model, then weights to a file."""
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    for name, moe in BOTH_ROUTERS.items():
        wrapped: nn.Module
        if wrapper == "ddp":
            wrapped = nn.parallel.DistributedDataParallel(_model(moe))
        else:
            wrapped = _fully_sharded(moe, meta=wrapper == "fsdp-meta")
        _train(wrapped, list(tokens().split(1)[rank::2]))
        state = _whole_state(wrapped)
        if rank == 0:
            torch.save(state, f"{folder}/{name}.pt")
    dist.barrier()
    dist.destroy_process_group()


def _whole_state(wrapped: nn.Module) -> dict[str, Tensor]:
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    return get_model_state_dict(wrapped, options=StateDictOptions(full_state_dict=True))


def _fully_sharded(moe: MoEConfig, meta: bool, precision: Any = None) -> nn.Module:
    from olmo.config import FSDPWrapStrategy
    from torch.distributed.fsdp import FullyShardedDataParallel as FSDP

    model = _model(moe)
    whole = model.state_dict()
    init: Callable[[nn.Module], Any] | None = None
    if meta:
        model = _model(moe, init_device="meta")

        def init(module: nn.Module) -> None:
            module.to_empty(device="cpu", recurse=False)

    sharded = FSDP(
        model,
        auto_wrap_policy=model.get_fsdp_wrap_policy(FSDPWrapStrategy.by_block),
        use_orig_params=True,
        param_init_fn=init,
        mixed_precision=precision,
        device_id=torch.device("cpu"),
    )
    if init is not None:
        # As OLMo does: first the shards' own initialisation, then (here) the same weights.
        model.reset_parameters()
        assert all(p.isfinite().all() for p in model.parameters())
        with FSDP.summon_full_params(sharded, writeback=True):
            names = {n.replace("_fsdp_wrapped_module.", ""): p for n, p in model.named_parameters()}
            with torch.no_grad():
                for name, parameter in names.items():
                    parameter.copy_(whole[name])
    return sharded


@pytest.mark.slow
@pytest.mark.parametrize("wrapper", ["ddp", "fsdp", "fsdp-meta"])
def test_two_processes_equal_one_with_accumulation(tmp_path: Path, wrapper: str) -> None:
    torch.multiprocessing.spawn(_process, (str(tmp_path), wrapper), nprocs=2)
    for router, moe in BOTH_ROUTERS.items():
        found = torch.load(tmp_path / f"{router}.pt", weights_only=True)
        model = _model(moe)
        _train(model, list(tokens().split(1)))
        expected = model.state_dict()
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)
        moved = [value.any() for name, value in expected.items() if "selection_bias" in name]
        assert all(moved)
        assert bool(moved) == moe.selection_bias


def _steps(model: nn.Module, optimizer: torch.optim.Optimizer, n: int, rank: int) -> None:
    """`n` batches, half of each on this process."""
    for _ in range(n):
        optimizer.zero_grad()
        loss_of(model, tokens()[rank::2]).backward()
        optimizer.step()


def _interrupted(rank: int, folder: str, kind: str) -> None:
    """Four steps in one go, and as two and two with OLMo's checkpoint of FSDP between."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
    import torch.distributed as dist
    from olmo import checkpoint as olmo_checkpoint
    from olmo.config import OptimizerConfig, TrainConfig
    from olmo.optim import build_optimizer

    from olmo_mixlaw.training.checkpoints import allow_trainer_state

    torch.set_num_threads(1)
    allow_trainer_state()
    # OLMo moves states off the GPU, and torch crashes where they are off it already.
    for kept in ("Full", "FullOptim", "Sharded", "ShardedOptim"):
        settings = f"{kept}StateDictConfig"
        setattr(olmo_checkpoint, settings, _staying(getattr(olmo_checkpoint, settings)))
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    name = {"full": "FullCheckpointer", "sharded": "TorchLegacyShardedCheckpointer"}[kind]
    config = TrainConfig(save_folder=folder, optimizer=OptimizerConfig(learning_rate=0.01))
    checkpointer = getattr(olmo_checkpoint, name)(config)
    checkpoint = f"{folder}/step2"

    def start() -> tuple[nn.Module, torch.optim.Optimizer]:
        sharded = _fully_sharded(SIGMOID, meta=True)
        return sharded, build_optimizer(config, sharded)

    whole, optimizer = start()
    _steps(whole, optimizer, 2, rank)
    checkpointer.save_checkpoint(checkpoint, whole, optimizer, {"step": 2})
    _steps(whole, optimizer, 2, rank)
    again, optimizer = start()
    assert checkpointer.restore_checkpoint(checkpoint, again, optimizer) == {"step": 2}
    _steps(again, optimizer, 2, rank)
    states = [_whole_state(whole), _whole_state(again)]
    if rank == 0:
        torch.save(states, f"{folder}/states.pt")
    dist.barrier()
    dist.destroy_process_group()


def _staying(settings: Any) -> Callable[..., Any]:
    return lambda **values: settings(**{**values, "offload_to_cpu": False})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "sharded"])
def test_olmos_checkpoints_of_fsdp_keep_weights_and_biases(tmp_path: Path, kind: str) -> None:
    torch.multiprocessing.spawn(_interrupted, (str(tmp_path), kind), nprocs=2)
    whole, again = torch.load(tmp_path / "states.pt", weights_only=True)
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    biases = [value for name, value in again.items() if "selection_bias" in name]
    # Four moves of 0.01, of which the first two come from the checkpoint.
    step = round(0.01 * 2**20)
    assert biases
    assert all(3 * step <= bias.abs().max() <= 4 * step for bias in biases)


def _in_bf16(rank: int, folder: str) -> None:
    import torch.distributed as dist
    from torch.distributed.fsdp import MixedPrecision

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    # What OLMo's `fsdp.precision: mixed` gives under amp_bf16.
    rough = MixedPrecision(torch.bfloat16, torch.float32, torch.bfloat16)
    losses = []
    for precision in (None, rough):
        model = _fully_sharded(SIGMOID, meta=False, precision=precision)
        _train(model, list(tokens().split(1)[rank::2]))
        for name, buffer in model.named_buffers():
            if name.endswith("selection_bias"):
                assert buffer.dtype == torch.int32
                assert buffer.any()
        with torch.no_grad():
            losses.append(loss_of(model, tokens()).float())
    torch.testing.assert_close(losses[1], losses[0], rtol=0.02, atol=0)
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
def test_fsdp_in_bf16_trains_as_fp32_and_keeps_the_bias_whole(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_in_bf16, (str(tmp_path),), nprocs=2)
