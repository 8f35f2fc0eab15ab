"""OLMo's model with MoE layers: variants, counts, initialisation, processes, recomputation."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from olmo.config import ActivationCheckpointingStrategy, ModelConfig
from olmo.model import OLMo
from torch import Tensor, nn

from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.models.moe import MoE, MoEConfig
from olmo_mixlaw.models.olmo import MoEOLMo, build_model, moe_layers, moe_metrics
from olmo_mixlaw.models.shape import Shape

SHAPE = Shape(
    d_model=32,
    n_layers=4,
    n_heads=4,
    mlp_size=40,
    vocab_size=64,
    context=16,
    moe=MoEConfig(num_experts=8, top_k=2, expert_size=16, shared_experts=1, dense_layers=1),
)
SIGMOID = MoEConfig(
    num_experts=8,
    top_k=2,
    expert_size=16,
    router="sigmoid",
    normalize_gates=True,
    selection_bias=True,
    bias_update_rate=0.01,
    load_balance_weight=0.0,
    sequence_balance_weight=1e-3,
    z_loss_weight=0.0,
)
BOTH_ROUTERS = {"softmax": SHAPE.moe, "sigmoid": SIGMOID}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "qk-norm": {"qk_norm": True},
    "norm-after": {"norm_after": True, "qk_norm": True},
    "untied": {"tied": False},
    "gqa": {"n_kv_heads": 2, "qk_norm": True},
    "biases": {"bias": True, "norm": "default"},
    "no-shared": {"moe": dataclasses.replace(SHAPE.moe, shared_experts=0)},
    "all-moe": {"moe": dataclasses.replace(SHAPE.moe, dense_layers=0), "mlp_size": 0},
    "sigmoid": {"moe": SIGMOID},
}


def tokens(batch: int = 4, length: int = 16, seed: int = 0) -> Tensor:
    return torch.randint(0, 64, (batch, length), generator=torch.Generator().manual_seed(seed))


def loss_of(model: nn.Module, ids: Tensor) -> Tensor:
    logits = model(ids).logits
    return F.cross_entropy(logits[:, :-1].reshape(-1, 64), ids[:, 1:].reshape(-1))


@pytest.mark.parametrize("variant", VARIANTS)
def test_counts_of_every_variant_equal_the_shapes(variant: str) -> None:
    shape = dataclasses.replace(SHAPE, **VARIANTS[variant])
    model = build_model(shape.olmo_model())
    assert isinstance(model, MoEOLMo)
    assert model.num_params() == shape.n_total
    assert model.num_params(include_embedding=False) == shape.n_params + shape.n_head
    assert model.num_active_params(include_embedding=False) == shape.n_active + shape.n_head
    # OLMo's rule: two a weight, and full attention scores.
    scores = 4 * shape.n_layers * shape.d_model * shape.context
    assert model.num_fwd_flops == 2 * (shape.n_active + shape.n_head) + scores
    assert model.num_bck_flops == 4 * (shape.n_total - shape.n_params + shape.n_active) + 2 * scores


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_learns(variant: str) -> None:
    torch.manual_seed(0)
    shape = dataclasses.replace(SHAPE, **VARIANTS[variant])
    model = build_model(shape.olmo_model())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    ids = tokens()
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = loss_of(model, ids)
        loss.backward()
        assert all(p.grad is not None for p in model.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    load = torch.stack([layer.take_load() for layer in moe_layers(model)])
    assert (load.sum(-1) == 30 * ids.numel() * shape.moe.top_k).all()
    assert 0 <= moe_metrics(load)["moe/load_entropy"] <= 1


def test_alibi_dropout_and_block_groups_are_olmos_own() -> None:
    section = SHAPE.olmo_model(rope=False, alibi=True, residual_dropout=0.1, block_group_size=2)
    grouped = build_model(section)
    assert len(grouped.transformer.block_groups) == 2
    alone = build_model({**section, "block_group_size": 1})
    state, _ = alone._make_state_dict_compatible(dict(grouped.state_dict()))
    alone.load_state_dict(state)
    ids = tokens()
    assert torch.equal(grouped.eval()(ids).logits, alone.eval()(ids).logits)


def test_one_expert_equals_olmos_dense_block() -> None:
    """An expert that is always chosen, with a gate of 1, is a dense feed-forward."""
    one = MoEConfig(num_experts=1, top_k=1, expert_size=40)
    moe = build_model(dataclasses.replace(SHAPE, moe=one, norm_after=True).olmo_model())
    dense = build_model(dataclasses.replace(SHAPE, moe=None, norm_after=True).olmo_model())
    assert type(dense) is OLMo
    state = dense.state_dict()
    for i in range(4):
        place = f"transformer.blocks.{i}."
        up, gate = state.pop(f"{place}ff_proj.weight").chunk(2)
        state[f"{place}ff_proj.gate_up.weight"] = torch.cat([gate, up])
        state[f"{place}ff_proj.down.weight"] = state.pop(f"{place}ff_out.weight")
        state[f"{place}ff_proj.router.weight"] = torch.zeros(1, 32)
    moe.load_state_dict(state)
    ids = tokens()
    torch.testing.assert_close(moe(ids).logits, dense(ids).logits)


@pytest.mark.parametrize("init_fn", ["normal", "mitchell", "full_megatron"])
def test_initialisation_scales_as_olmos_dense_layers(init_fn: str) -> None:
    """Of experts as wide as the dense feed-forward, each matrix has the spread of OLMo's."""
    torch.manual_seed(0)
    experts = MoEConfig(num_experts=4, expert_size=128, dense_layers=0)
    shape = dataclasses.replace(SHAPE, d_model=64, mlp_size=128, moe=experts)
    moe = build_model(shape.olmo_model(init_fn=init_fn))
    dense = build_model(dataclasses.replace(shape, moe=None).olmo_model(init_fn=init_fn))
    for ours, theirs in zip(moe.transformer.blocks, dense.transformer.blocks, strict=True):
        for name, found, expected in (
            ("into", ours.ff_proj.gate_up, theirs.ff_proj),
            ("out", ours.ff_proj.down, theirs.ff_out),
            ("attention in", ours.att_proj, theirs.att_proj),
            ("attention out", ours.attn_out, theirs.attn_out),
        ):
            ratio = float(found.weight.detach().std() / expected.weight.detach().std())
            assert ratio == pytest.approx(1, abs=0.05), (name, ours.layer_id)


def test_optimizer_groups_take_every_weight_once() -> None:
    from olmo.config import OptimizerConfig, TrainConfig
    from olmo.optim import get_param_groups

    model = build_model(dataclasses.replace(SHAPE, moe=SIGMOID).olmo_model())
    groups = get_param_groups(TrainConfig(optimizer=OptimizerConfig()), model)
    assert sum(p.numel() for g in groups for p in g["params"]) == model.num_params()
    assert any(name.endswith("ff_proj.down.weight") for name in groups[0]["param_names"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"block_type": "llama"}, "use sequential"),
        ({"activation_type": "gelu"}, "use swiglu"),
        ({"n_heads": 5}, "doesn't divide into 5 heads"),
        ({"n_kv_heads": 3}, "3 key-value heads"),
        ({"moe": {"num_experts": 2, "top_k": 3}}, "top_k is 3"),
    ],
)
def test_models_that_can_not_be_built_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build_model({**SHAPE.olmo_model(), **change})


def test_a_model_section_without_moe_is_olmos_own() -> None:
    section = dataclasses.replace(SHAPE, moe=None).olmo_model()
    assert type(build_model(ModelConfig(**section))) is OLMo


@pytest.mark.parametrize("strategy", ["whole_layer", "one_in_two", "fine_grained"])
@pytest.mark.parametrize("moe", BOTH_ROUTERS.values(), ids=BOTH_ROUTERS)
def test_activation_checkpointing_changes_nothing(strategy: str, moe: MoEConfig) -> None:
    section = dataclasses.replace(SHAPE, moe=moe).olmo_model()
    plain, again = build_model(section), build_model(section)
    again.load_state_dict(plain.state_dict())
    again.set_activation_checkpointing(ActivationCheckpointingStrategy(strategy))
    for model in (plain, again):
        for part in tokens().split(2):
            model_loss = loss_of(model, part) / 2
            model_loss.backward()
    for (name, a), b in zip(plain.named_parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)
    assert all(torch.equal(a, b) for a, b in zip(plain.buffers(), again.buffers(), strict=True))


def test_meta_initialisation_fills_every_weight() -> None:
    shape = dataclasses.replace(SHAPE, moe=SIGMOID)
    model = build_model(shape.olmo_model(init_device="meta"))
    assert all(p.is_meta for p in model.parameters())
    model.to_empty(device="cpu")
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data.fill_(77)
    model.reset_parameters()
    assert all(p.abs().max() <= 1 for p in model.parameters())
    assert all(not b.any() for b in model.buffers())
    assert math.isfinite(float(loss_of(model, tokens()).detach()))


@pytest.mark.slow
def test_olmos_compiled_blocks_give_the_same_gradients() -> None:
    section = SHAPE.olmo_model()
    plain, compiled = build_model(section), build_model(section)
    compiled.load_state_dict(plain.state_dict())
    for block in compiled.transformer.blocks:
        block.compile(backend="aot_eager")
    for model in (plain, compiled):
        loss_of(model, tokens()).backward()
    for (name, a), b in zip(plain.named_parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)


# Two processes against one with accumulation.


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
