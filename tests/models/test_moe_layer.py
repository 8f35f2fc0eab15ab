"""The MoE layer against a per-token loop, its losses, balance, determinism and load."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from olmo_mixlaw.errors import ConfigError, UnknownNameError
from olmo_mixlaw.models.moe import BIAS_UNIT, MoE, MoEConfig

BASE = MoEConfig(num_experts=6, top_k=3, expert_size=8)
ROUTERS = {
    "olmoe": BASE,
    "normalised": dataclasses.replace(BASE, normalize_gates=True),
    "sigmoid": dataclasses.replace(
        BASE, router="sigmoid", normalize_gates=True, gate_scale=2.5, selection_bias=True
    ),
    "sigmoid-plain": dataclasses.replace(BASE, router="sigmoid"),
    "sequence": dataclasses.replace(BASE, sequence_balance_weight=0.1, load_balance_weight=0.0),
    "shared": dataclasses.replace(BASE, shared_experts=2),
    "one": dataclasses.replace(BASE, top_k=1, z_loss_weight=0.0, load_balance_weight=0.0),
    "all": dataclasses.replace(BASE, top_k=6),
}


def make(config: MoEConfig, d: int = 12, dtype: torch.dtype = torch.float64) -> MoE:
    torch.manual_seed(0)
    layer = MoE(d, config, dtype=dtype)
    layer.reset_parameters(0.4, 0.3)
    if layer.selection_bias is not None:
        layer.selection_bias.copy_(torch.randint(-200_000, 200_000, (config.num_experts,)))
    return layer


def swiglu(x: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    gate, up = (gate_up @ x).chunk(2)
    return down @ (F.silu(gate) * up)


def by_token(layer: MoE, x: Tensor) -> tuple[Tensor, Tensor]:
    """Output and auxiliary loss of the layer, from the papers' formulas, token by token."""
    c = layer.config
    batch, length, d = x.shape
    tokens = x.reshape(-1, d)
    out, scores_of, chosen_of, logits_of = [], [], [], []
    for token in tokens:
        logits = layer.router.weight @ token
        if c.router == "softmax":
            scores = logits.exp() / logits.exp().sum()
        else:
            scores = 1 / (1 + (-logits).exp())
        wanted = scores.detach().clone()
        if layer.selection_bias is not None:
            wanted += layer.selection_bias * BIAS_UNIT
        chosen = wanted.argsort(descending=True)[: c.top_k].tolist()
        gates = {e: scores[e] for e in chosen}
        if c.normalize_gates:
            total = sum(gates.values())
            gates = {e: g / total for e, g in gates.items()}
        result = torch.zeros_like(token)
        for e, gate in gates.items():
            one = swiglu(token, layer.gate_up.matrices()[e], layer.down.matrices()[e])
            result = result + c.gate_scale * gate * one
        if c.shared_experts:
            result = result + swiglu(token, layer.shared_gate_up.weight, layer.shared_down.weight)
        out.append(result)
        scores_of.append(scores / scores.sum())
        chosen_of.append(chosen)
        logits_of.append(logits)

    def balance(first: int, last: int) -> Tensor:
        total = torch.zeros((), dtype=x.dtype)
        for e in range(c.num_experts):
            hits = sum(e in chosen for chosen in chosen_of[first:last])
            mean = torch.stack([s[e] for s in scores_of[first:last]]).mean()
            total = total + hits / ((last - first) * c.top_k) * mean
        return c.num_experts * total

    loss = c.load_balance_weight * balance(0, batch * length)
    within = [balance(i * length, (i + 1) * length) for i in range(batch)]
    loss = loss + c.sequence_balance_weight * torch.stack(within).mean()
    squares = [logits.exp().sum().log() ** 2 for logits in logits_of]
    loss = loss + c.z_loss_weight * torch.stack(squares).mean()
    return torch.stack(out).view(x.shape), loss


def gradients(layer: MoE, x: Tensor, run: Callable[[], Tensor]) -> dict[str, Tensor]:
    layer.zero_grad()
    x.grad = None
    run().backward()
    grads = {name: p.grad.clone() for name, p in layer.named_parameters() if p.grad is not None}
    assert x.grad is not None
    return {**grads, "x": x.grad.clone()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("router", ROUTERS)
def test_equals_a_per_token_loop_forward_and_backward(router: str, dtype: torch.dtype) -> None:
    layer = make(dataclasses.replace(ROUTERS[router], bias_update_rate=0.0), dtype=dtype)
    x = torch.randn(3, 5, 12, dtype=dtype, requires_grad=True)
    mix = torch.randn(3, 5, 12, dtype=dtype)

    def naive() -> Tensor:
        out, auxiliary = by_token(layer, x)
        return (out * mix).sum() + auxiliary

    exact = (
        {"rtol": 1e-10, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 2e-4, "atol": 2e-5}
    )
    torch.testing.assert_close(layer(x), by_token(layer, x)[0], **exact)
    ours = gradients(layer, x, lambda: (layer(x) * mix).sum())
    expected = gradients(layer, x, naive)
    assert ours.keys() == expected.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], expected[name], msg=name, **exact)


@pytest.mark.parametrize("router", ROUTERS)
def test_gradcheck(router: str) -> None:
    config = dataclasses.replace(
        ROUTERS[router], load_balance_weight=0.0, sequence_balance_weight=0.0, z_loss_weight=0.0
    )
    layer = make(config)
    names = [name for name, _ in layer.named_parameters()]
    x = torch.randn(1, 4, 12, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, *weights: Tensor) -> Tensor:
        return torch.func.functional_call(
            layer.eval(), dict(zip(names, weights, strict=True)), (x,)
        )

    assert torch.autograd.gradcheck(run, (x, *layer.parameters()), fast_mode=True)


@pytest.mark.parametrize("router", ROUTERS)
def test_grouped_and_loop_paths_agree(router: str) -> None:
    x = torch.randn(4, 9, 12, requires_grad=True)
    found = {}
    for backend in ("loop", "grouped_mm"):
        layer = make(dataclasses.replace(ROUTERS[router], backend=backend), dtype=torch.float32)
        out = layer(x)
        found[backend] = {"out": out, **gradients(layer, x, lambda out=out: out.square().sum())}
    for name, value in found["loop"].items():
        # Sums that nearly cancel are right to float32's rounding of their largest terms only.
        atol = 1e-5 * float(value.abs().max())
        torch.testing.assert_close(found["grouped_mm"][name], value, rtol=1e-5, atol=atol)


DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
        ],
    ),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", ["loop", "grouped_mm"])
def test_experts_without_a_token_get_gradients_of_zero(backend: str, device: str) -> None:
    config = MoEConfig(num_experts=8, top_k=2, expert_size=16, backend=backend)
    layer = make(config, d=32, dtype=torch.bfloat16).to(device)
    with torch.no_grad():
        layer.router.weight.zero_()
        layer.router.weight[[2, 5], 0] = 1.0
    x = torch.randn(2, 16, 32, dtype=torch.bfloat16, device=device).abs()
    layer(x).float().square().sum().backward()
    load = layer.take_load()
    assert load is not None
    assert load.nonzero().flatten().tolist() == [2, 5]
    for stack in (layer.gate_up, layer.down):
        grad = stack.weight.grad
        assert grad is not None
        by_expert = grad.view(8, -1).abs().amax(1)
        assert by_expert.nonzero().flatten().tolist() == [2, 5]
        assert by_expert.isfinite().all()


def test_the_same_batch_gives_the_same_bits() -> None:
    layer = make(ROUTERS["shared"], dtype=torch.float32)
    x = torch.randn(4, 33, 12, requires_grad=True)
    torch.use_deterministic_algorithms(True)
    try:
        runs = [gradients(layer, x, lambda: layer(x).square().sum()) for _ in range(3)]
    finally:
        torch.use_deterministic_algorithms(False)
    for again in runs[1:]:
        assert all(torch.equal(again[name], runs[0][name]) for name in again)


@settings(max_examples=30)
@given(
    num=st.integers(1, 9),
    k=st.integers(1, 9),
    tokens=st.integers(1, 40),
    seed=st.integers(0, 2**20),
)
def test_no_token_is_dropped(num: int, k: int, tokens: int, seed: int) -> None:
    """With experts that all compute the same, the gates add up to one dense feed-forward."""
    k = min(k, num)
    config = MoEConfig(num_experts=num, top_k=k, expert_size=4, normalize_gates=True)
    torch.manual_seed(seed)
    layer = MoE(8, config, dtype=torch.float64)
    layer.reset_parameters(1.0, 1.0)
    with torch.no_grad():
        layer.gate_up.matrices().copy_(layer.gate_up.matrices()[:1].clone().expand(num, -1, -1))
        layer.down.matrices().copy_(layer.down.matrices()[:1].clone().expand(num, -1, -1))
    x = torch.randn(1, tokens, 8, dtype=torch.float64)
    one = torch.stack(
        [swiglu(t, layer.gate_up.matrices()[0], layer.down.matrices()[0]) for t in x[0]]
    )
    torch.testing.assert_close(layer(x)[0], one)


def test_accumulation_scales_the_auxiliary_loss() -> None:
    """Two micro-batches at half the scale leave the mean of their auxiliary gradients."""
    layer = make(dataclasses.replace(BASE, load_balance_weight=1.0))
    batch = torch.randn(4, 5, 12, dtype=torch.float64)

    def auxiliary(x: Tensor) -> Tensor:
        return gradients(layer, x.requires_grad_(), lambda: layer(x).sum() * 0)["router.weight"]

    apart = [auxiliary(part.clone()) for part in batch.split(2)]
    layer.aux_scale = 0.5
    layer.zero_grad()
    for part in batch.split(2):
        (layer(part.clone().requires_grad_()).sum() * 0).backward()
    assert layer.router.weight.grad is not None
    torch.testing.assert_close(layer.router.weight.grad, sum(apart) / 2)
    assert layer.router.weight.grad.abs().max() > 0


def test_recomputation_counts_a_batch_once() -> None:
    from torch.utils.checkpoint import checkpoint

    plain, again = make(ROUTERS["sigmoid"]), make(ROUTERS["sigmoid"])
    x = torch.randn(2, 7, 12, dtype=torch.float64, requires_grad=True)
    expected = gradients(plain, x, lambda: plain(x).square().sum())
    found = gradients(again, x, lambda: checkpoint(again, x, use_reentrant=False).square().sum())
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])
    assert torch.equal(plain.selection_bias, again.selection_bias)
    assert plain.metrics() == again.metrics()


def test_selection_bias_moves_against_the_load_once_a_batch() -> None:
    layer = make(dataclasses.replace(ROUTERS["sigmoid"], bias_update_rate=0.01))
    layer.selection_bias.zero_()
    layer.aux_scale = 0.5
    loads = torch.zeros(6)
    for _ in range(2):
        assert not layer.selection_bias.any()
        x = torch.randn(2, 7, 12, dtype=torch.float64, requires_grad=True)
        layer(x).sum().backward()
        load = torch.tensor([v for k, v in layer.metrics().items() if k.startswith("load/")])
        loads += load * 2 * 7 * 3
    moved = layer.selection_bias * BIAS_UNIT
    expected = 0.01 * torch.sign(loads.mean() - loads)
    torch.testing.assert_close(moved, expected, atol=1e-6, rtol=0)


def test_selection_bias_evens_the_load_without_a_loss() -> None:
    torch.manual_seed(1)
    config = dataclasses.replace(
        ROUTERS["sigmoid"], load_balance_weight=0.0, z_loss_weight=0.0, bias_update_rate=0.02
    )
    layer = make(config, dtype=torch.float32)
    layer.selection_bias.zero_()
    x = torch.randn(8, 32, 12) + 1.0
    violations = []
    for _ in range(60):
        layer(x.requires_grad_()).sum().backward()
        violations.append(layer.metrics()["max_violation"])
    assert violations[0] > 0.5
    assert violations[-1] < 0.15


def test_metrics_of_a_known_load() -> None:
    layer = make(dataclasses.replace(BASE, num_experts=4, top_k=1))
    assert layer.metrics() == {}
    layer._count(torch.tensor([6, 2, 0, 0]))
    found = layer.metrics()
    assert found["load/000"] == 0.75
    assert found["dead_experts"] == 0.5
    assert found["max_violation"] == 2.0
    entropy = -(0.75 * torch.tensor(0.75).log() + 0.25 * torch.tensor(0.25).log())
    assert found["load_entropy"] == pytest.approx(float(entropy / torch.tensor(4.0).log()))
    assert layer.metrics() == {}


def test_evaluation_leaves_no_trace() -> None:
    layer = make(ROUTERS["sigmoid"]).eval()
    before = layer.selection_bias.clone()
    x = torch.randn(2, 7, 12, dtype=torch.float64, requires_grad=True)
    layer(x).sum().backward()
    assert torch.equal(before, layer.selection_bias)
    assert layer.metrics() == {}


@pytest.mark.parametrize("router", ["olmoe", "sigmoid", "shared"])
def test_autocast_to_bf16_keeps_the_router_exact(router: str) -> None:
    layer = make(ROUTERS[router], d=16, dtype=torch.float32)
    x = torch.randn(4, 16, 16)
    exact = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = layer(x)
    assert rough.dtype == torch.float32
    # With experts chosen in fp32, what's left is bf16's rounding of products.
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("router", ["olmoe", "sigmoid"])
def test_compiles(router: str) -> None:
    from torch import nn

    config = dataclasses.replace(ROUTERS[router], bias_update_rate=0.0)
    plain = make(config, dtype=torch.float32)
    block = nn.Sequential(nn.LayerNorm(12), plain, nn.GELU())
    x = torch.randn(2, 7, 12, requires_grad=True)
    expected = gradients(plain, x, lambda: block(x).square().sum())
    block.compile(backend="aot_eager")
    found = gradients(plain, x, lambda: block(x).square().sum())
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"top_k": 7}, "more experts than there are"),
        ({"num_experts": 0, "top_k": 0}, "at least 1"),
        ({"expert_size": 0}, "expert_size is 0"),
        ({"load_balance_weight": -0.1}, "negative"),
        ({"gate_scale": 0.0}, "above 0"),
    ],
)
def test_impossible_layers_are_refused(change: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        MoE(8, dataclasses.replace(BASE, **change))


def test_unknown_router_and_backend_name_the_closest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'sigmoid'"):
        MoE(8, dataclasses.replace(BASE, router="sigmod"))
    with pytest.raises(UnknownNameError, match="did you mean 'grouped_mm'"):
        MoE(8, dataclasses.replace(BASE, backend="grouped"))


def test_grouped_backend_says_what_it_can_not_do() -> None:
    layer = make(dataclasses.replace(BASE, backend="grouped_mm"), dtype=torch.float64)
    with pytest.raises(ConfigError, match=r"grouped_mm takes no .*; set auto or loop"):
        layer(torch.randn(1, 3, 12, dtype=torch.float64))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("router", "backend"), itertools.product(ROUTERS, ["loop", "grouped_mm"]))
def test_cuda_in_bf16_is_near_the_cpu_and_repeats_bit_for_bit(router: str, backend: str) -> None:
    cpu = make(dataclasses.replace(ROUTERS[router], expert_size=16), d=32, dtype=torch.float32)
    gpu = MoE(32, dataclasses.replace(cpu.config, backend=backend), device="cuda")
    gpu.load_state_dict(cpu.state_dict())
    x = torch.randn(4, 64, 32)
    runs = []
    for _ in range(3):
        gpu.zero_grad()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            out = gpu.eval()(x.cuda())
        out.float().square().sum().backward()
        runs.append([out, *(p.grad.clone() for p in gpu.parameters())])
    torch.testing.assert_close(runs[0][0].cpu(), cpu.eval()(x), rtol=0.05, atol=0.05)
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(run, runs[0], strict=True))
