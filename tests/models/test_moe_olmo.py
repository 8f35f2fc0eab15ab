"""OLMo's model with MoE layers: variants, counts, initialisation, recomputation."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

pytest.importorskip("olmo")

from olmo.config import ActivationCheckpointingStrategy, ModelConfig
from olmo.model import OLMo
from tiny_moe import BOTH_ROUTERS, SHAPE, SIGMOID, loss_of, tokens

from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.models.moe_config import MoEConfig
from olmo_mixlaw.models.olmo import MoEOLMo, build_model, moe_layers, moe_metrics

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
    losses, steps = [], 60
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_of(model, ids)
        loss.backward()
        assert all(p.grad is not None for p in model.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    load = torch.stack([layer.take_load() for layer in moe_layers(model)])
    assert (load.sum(-1) == steps * ids.numel() * shape.moe.top_k).all()
    assert 0 <= moe_metrics(load)["moe/load_entropy"] <= 1


def test_alibi_dropout_and_block_groups_are_olmos_own() -> None:
    section = SHAPE.olmo_model(rope=False, alibi=True, residual_dropout=0.1, block_group_size=2)
    grouped = build_model(section)
    assert len(grouped.transformer.block_groups) == 2
    alone = build_model({**section, "block_group_size": 1})
    state, _ = alone._make_state_dict_compatible(dict(grouped.state_dict()))
    alone.load_state_dict(state)
    ids = tokens()
    torch.testing.assert_close(grouped.eval()(ids).logits, alone.eval()(ids).logits)


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
