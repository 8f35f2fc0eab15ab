"""OLMo-core's models: counts of rungs against its own, its factories, and its MoE on a CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from olmo_mixlaw.errors import CheckpointError, ConfigError, UnknownNameError
from olmo_mixlaw.models.factories import LADDERS, factory_shape
from olmo_mixlaw.models.ladder import load_ladder
from olmo_mixlaw.models.moe_config import MoEConfig
from olmo_mixlaw.models.shape import LatentAttention
from olmo_mixlaw.training_core import saved
from olmo_mixlaw.training_core.models import (
    ModelSection,
    factories,
    model_config,
    rung_model,
    rung_section,
)

try:
    saved.require_core("tests")
except CheckpointError as reason:
    pytest.skip(str(reason), allow_module_level=True)

OURS = ("micro-dense", "olmo-dense", "olmoe", "camel-moe")
RUNGS = [(name, rung) for name in (*OURS, *LADDERS) for rung in load_ladder(name).rungs]
BUILT = [(name, rung) for name, rung in RUNGS if load_ladder(name).rung(rung).n_total < 4e8]
DENSE = load_ladder("micro-dense").rung("w32")
MOE = replace(DENSE, tied=False, moe=MoEConfig(num_experts=4, top_k=2, expert_size=16))


def assert_same_counts(rung) -> None:
    config = rung_model(rung)
    assert config.num_params == rung.n_total
    assert config.num_active_params == rung.n_total - rung.n_params + rung.n_active
    assert config.num_non_embedding_params == rung.n_total - rung.vocab_size * rung.d_model
    assert (config.d_model, config.n_layers) == (rung.d_model, rung.n_layers)


@pytest.mark.parametrize(("ladder", "name"), RUNGS)
def test_every_rung_has_the_counts_of_olmo_core(ladder, name):
    rung = load_ladder(ladder).rung(name)
    assert_same_counts(replace(rung, init_fn="normal"))
    assert_same_counts(replace(rung, init_fn="normal", vocab_size=1234, tied=not rung.tied))


@pytest.mark.parametrize(("ladder", "name"), BUILT)
def test_small_rungs_build_with_the_parameters_that_are_counted(ladder, name):
    rung = replace(load_ladder(ladder).rung(name), vocab_size=512, init_fn="normal")
    model = rung_model(rung).build(init_device="meta")
    assert sum(p.numel() for p in model.parameters()) == rung.n_total


@pytest.mark.parametrize(
    "change",
    [
        {"n_kv_heads": 1},
        {"head_dim": 6, "qk_norm": True},
        {"qk_norm": True, "norm_after": True},
        {"bias": True, "norm": "default", "tied": False},
        {"norm": "low_precision"},
        {"init_fn": "fan_in"},
        {"moe": MoEConfig(num_experts=4, top_k=2, expert_size=16, shared_experts=2)},
        {"moe": MoEConfig(expert_size=8, dense_layers=1), "norm_after": True},
        {
            "moe": MoEConfig(
                router="sigmoid",
                normalize_gates=True,
                selection_bias=True,
                load_balance_weight=0,
                sequence_balance_weight=1e-4,
            )
        },
    ],
)
def test_every_key_of_a_shape_is_taken_over(change):
    rung = replace(DENSE, **change)
    assert_same_counts(rung)
    model = rung_model(rung).build(init_device="cpu")
    assert sum(p.numel() for p in model.parameters()) == rung.n_total
    model.init_weights(max_seq_len=8, device=torch.device("cpu"))
    assert torch.isfinite(model(torch.arange(8)[None])).all()


def test_an_initialised_rung_has_the_standard_deviation_that_it_states():
    rung = replace(DENSE, d_model=64, init_std=0.05)
    model = rung_model(rung).build(init_device="cpu")
    model.init_weights(device=torch.device("cpu"))
    # A normal cut at three standard deviations is 0.9866 as wide.
    assert model.blocks["0"].attention.w_q.weight.std().item() == pytest.approx(0.0493, rel=0.03)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"latent_attention": LatentAttention()}, "latent_attention"),
        ({"activation": "gelu"}, "use swiglu"),
        ({"init_fn": "mitchell"}, "'normal'|normal"),
        ({"init_cutoff": 2.0}, "OLMo-core cuts at 3"),
        ({"moe": MoEConfig(gate_scale=2.5)}, r"moe\.gate_scale"),
        ({"moe": MoEConfig(sequence_balance_weight=0.1)}, "sequences or batches"),
        ({"factory": "olmo2_14M"}, "olmo2_14M has"),
    ],
)
def test_what_olmo_core_cannot_build_is_refused_by_its_key(change, said):
    with pytest.raises(ConfigError, match=said) as caught:
        rung_model(replace(DENSE, **change), "study.yaml: sizes")
    assert str(caught.value).startswith("study.yaml: sizes")


def test_a_section_of_a_rung_makes_the_same_model():
    for rung in (DENSE, MOE, load_ladder("olmo-core").rung("olmo2_14M")):
        section = ModelSection(**rung_section(rung))
        assert model_config(section, rung.vocab_size) == rung_model(rung)


def test_every_factory_of_the_ladders_is_olmo_cores_and_shares_its_name():
    for ladder in LADDERS:
        for name, rung in load_ladder(ladder).rungs.items():
            assert rung.factory == name
            assert name in factories()
            plain = model_config(ModelSection(factory=name), rung.vocab_size)
            assert plain == rung_model(rung)
            assert plain.num_params == rung.n_total


def test_a_ladder_of_ones_own_takes_a_factorys_numbers(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "rungs: {a: {factory: olmo2_1M, context: 64}, b: {factory: olmo2_14M, n_layers: 2}}"
    )
    ladder = load_ladder(path)
    assert (ladder.rung("a").context, ladder.rung("a").head_size) == (64, 4)
    assert ladder.rung("b").mlp_size == factory_shape("olmo2_14M")["mlp_size"]
    for rung in ladder.rungs.values():
        assert_same_counts(rung)
    path.write_text("rungs: {a: {factory: olmo2_2M}}")
    with pytest.raises(UnknownNameError, match=r"rungs\.a\.factory.*olmo2_1M"):
        load_ladder(path)


@pytest.mark.parametrize(
    ("overrides", "read", "value"),
    [
        ({"n_layers": 2}, "n_layers", 2),
        ({"qk_norm": False}, "block.sequence_mixer.qk_norm", None),
        ({"block_name": "default"}, "block.name", "default"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings", True),
        ({"init_std": 0.1}, "init_std", 0.1),
        ({"block.sequence_mixer.rope.theta": 7}, "block.sequence_mixer.rope.theta", 7),
        ({"block": {"feed_forward": {"hidden_size": 99}}}, "block.feed_forward.hidden_size", 99),
        (
            {"block": {"sequence_mixer": {"sliding_window": {"pattern": [8, -1]}}}},
            "block.sequence_mixer.sliding_window.pattern",
            [8, -1],
        ),
    ],
)
def test_overrides_reach_the_factory_and_what_it_makes(overrides, read, value):
    found = model_config(ModelSection("olmo2_14M", overrides), 512)
    for part in read.split("."):
        found = getattr(found, part)
    assert found == value


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (ModelSection("olmo2_14m"), "did you mean 'olmo2_14M'"),
        (ModelSection(), "either factory"),
        (ModelSection("olmo2_14M", shape={"d_model": 8}), "either factory"),
        (ModelSection(overrides={"n_layers": 2}, shape={"d_model": 8}), "are of a factory"),
        (ModelSection("olmo2_14M", {"n_layer": 2}), "n_layer"),
        (ModelSection("olmo2_14M", {"d_model": 64}), "d_model"),
        (ModelSection("olmo2_14M", {"vocab_size": 64}), "is the tokenizer's"),
        (ModelSection("olmo2_14M", {"block.feed_forward.hidden": 64}), "hidden"),
        (ModelSection("olmo2_14M", {"d_model.x": 64}), "d_model"),
        (ModelSection("olmo2_14M", {"block": {"_CLASS_": "os.Path"}}), "class of olmo_core"),
        (ModelSection("olmoe_1B_7B", {"rope_full_precision": False}), "takes no notice"),
        (ModelSection(shape={"d_model": 32, "n_layer": 2}), "did you mean 'n_layers'"),
        (
            ModelSection(shape={"d_model": 32, "n_layers": 2, "n_heads": 3}),
            "doesn't divide into 3 heads",
        ),
    ],
)
def test_a_wrong_section_is_refused_in_one_line(section, said):
    with pytest.raises(ConfigError, match=said) as caught:
        model_config(section, 512, "train.yaml: model")
    assert str(caught.value).startswith("train.yaml: model")
    assert "\n" not in str(caught.value)


def test_a_factory_that_wants_absent_kernels_gets_torchs():
    if torch.cuda.is_available():
        pytest.skip("they may be there")
    config = model_config(ModelSection("olmo3_14M", {"n_layers": 2}), 512)
    assert config.block.sequence_mixer.backend == "torch"
    model = config.build(init_device="cpu")
    model.init_weights(max_seq_len=8, device=torch.device("cpu"))
    assert torch.isfinite(model(torch.arange(8)[None])).all()


def by_loop(moe, x, kept):
    """An MoE layer's output, token by token; `kept` says of (token, choice) whether it fits."""
    mlp, (n_experts, hidden, d) = moe.experts.mlp, (4, 16, 8)
    if moe.experts.__class__.__name__ == "ParallelDroplessMLP":
        w1, w3 = (w.view(n_experts, hidden, d).transpose(1, 2) for w in (mlp.w1, mlp.w3))
    else:
        w1, w3 = (w.view(n_experts, d, hidden) for w in (mlp.w1, mlp.w3))
    w2 = mlp.w2.view(n_experts, hidden, d)
    gates, chosen, *_ = moe.router(x, loss_div_factor=None)
    gates, chosen, flat = gates.view(-1, 2), chosen.view(-1, 2), x.view(-1, d)
    rows = []
    for t, token in enumerate(flat):
        row = torch.zeros(d)
        for k, expert in enumerate(chosen[t].tolist()):
            if kept(t, k, chosen):
                inner = F.silu(token @ w1[expert]) * (token @ w3[expert])
                row = row + gates[t, k] * (inner @ w2[expert])
        rows.append(row)
    return torch.stack(rows).view_as(x)


@pytest.mark.parametrize(
    ("kind", "capacity"), [("dropless", None), ("default", 4.0), ("default", 0.5)]
)
def test_moe_layers_on_a_cpu_equal_a_loop_forward_and_backward(kind, capacity):
    from olmo_core.nn.moe import MoEConfig as CoreMoE
    from olmo_core.nn.moe import MoERouterConfig, MoEType

    from olmo_mixlaw.training_core import cpu_moe

    cpu_moe.install()
    torch.manual_seed(0)
    moe = CoreMoE(
        name=MoEType(kind),
        num_experts=4,
        hidden_size=16,
        router=MoERouterConfig(top_k=2),
        capacity_factor=capacity,
        lb_loss_weight=None,
    ).build(8)
    for p in moe.parameters():
        torch.nn.init.normal_(p, std=0.3)
    x = torch.randn(2, 24, 8, requires_grad=True)
    size = None if capacity is None else moe.experts.expert_capacity(48)

    def kept(t, k, chosen):
        """Whether a copy is among the first `size` of its expert, in OLMo-core's order."""
        experts, copies = torch.sort(chosen.flatten().int())
        of_expert = copies[experts == chosen[t, k]]
        return size is None or 2 * t + k in of_expert[:size].tolist()

    def gradients(out):
        x.grad = None
        moe.zero_grad()
        out.backward(torch.linspace(-1, 1, out.numel()).view_as(out))
        return [x.grad.clone(), *(p.grad.clone() for p in moe.parameters())]

    got, want = moe(x), by_loop(moe, x, kept)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)
    for ours, theirs in zip(gradients(got), gradients(want), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    if capacity == 0.5:
        _, chosen, *_ = moe.router(x, loss_div_factor=None)
        chosen = chosen.view(-1, 2)
        assert not all(kept(t, k, chosen) for t in range(48) for k in range(2))


def test_a_moe_rung_learns_on_a_cpu():
    model = rung_model(replace(MOE, vocab_size=64)).build(init_device="cpu")
    model.init_weights(max_seq_len=16, device=torch.device("cpu"))
    steps = torch.optim.AdamW(model.parameters(), 1e-2)
    tokens = torch.arange(16).repeat(2, 1)
    losses = []
    for _ in range(30):
        loss = F.cross_entropy(model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        steps.zero_grad()
        loss.backward()
        steps.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
