"""Ladders: counts against OLMo's own model, training rules, and mistakes in a ladder file."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmo_mixlaw.cli.app import app, run
from olmo_mixlaw.errors import ConfigError, UnknownNameError
from olmo_mixlaw.models.invent import invent, usual_aspect
from olmo_mixlaw.models.ladder import load_ladder
from olmo_mixlaw.models.moe_config import MoEConfig
from olmo_mixlaw.models.shape import LatentAttention, Shape
from olmo_mixlaw.schema import parse_count


@pytest.mark.olmo
@pytest.mark.parametrize("name", ["w16", "w32", "w48", "w64", "w96", "w128"])
def test_micro_dense_counts_equal_olmos_model(name: str) -> None:
    from olmo.config import ModelConfig
    from olmo.model import OLMo

    rung = load_ladder("micro-dense").rung(name)
    model = OLMo(ModelConfig(**rung.olmo_model(init_device="cpu")))
    assert rung.n_params == rung.n_active == model.num_params(include_embedding=False)
    assert rung.n_total == model.num_params()


def test_micro_dense_has_the_sizes_it_promises() -> None:
    ladder = load_ladder("micro-dense")
    sizes = [round(ladder.rung(w).n_params / 1000) for w in ("w16", "w32", "w48", "w64")]
    assert sizes == [6, 25, 56, 98]
    rung = ladder.rung("w16")
    assert (rung.learning_rate, rung.batch_sequences, rung.batch_tokens) == (4e-3, 16, 2048)


def test_tokens_are_whole_steps_and_follow_the_multiple() -> None:
    rung = load_ladder("micro-dense").rung("w64")
    for multiple in (0.5, 1, 4):
        tokens = rung.n_tokens(multiple)
        assert tokens % rung.batch_tokens == 0
        assert 0 <= tokens - multiple * 20 * rung.n_active < rung.batch_tokens


def _ladder(tmp_path: Path, rungs: str, head: str = "") -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(f"{head}\ndefaults: {{n_layers: 2, mlp_size: 32}}\nrungs:\n{rungs}\n")
    return path


@pytest.mark.parametrize(
    ("rungs", "said"),
    [
        ("  a: {d_model: 32, n_heads: 2}\n  b: {d_model: 16, n_heads: 2}", "doesn't grow"),
        ("  a: {d_model: 30, n_heads: 4}", "doesn't divide into 4 heads"),
        ("  a: {d_model: 32, n_heads: 4, n_kv_heads: 3}", "3 key-value heads"),
        ("  a: {d_model: 12, n_heads: 4}", "need an even one"),
        ("  a: {d_model: 32, n_heads: 2, mlp_size: 0}", "mlp_size is 0"),
        ("  a: {d_model: 32, n_heads: 2, moe: {num_experts: 4, top_k: 5}}", "top_k is 5"),
        ("  a: {d_model: 32, n_heads: 2, moe: {router: softmix}}", "did you mean 'softmax'"),
        ("  a: {d_model: 32, n_heads: 2, moe: {dense_layers: 2}}", "between 0 and 1"),
        ("  a: {d_modell: 32, n_heads: 2}", "did you mean 'd_model'"),
    ],
)
def test_a_wrong_rung_is_refused_with_its_place(tmp_path: Path, rungs: str, said: str) -> None:
    path = _ladder(tmp_path, rungs)
    with pytest.raises(ConfigError, match="rungs") as caught:
        load_ladder(path)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_ladder_and_rung_name_the_closest() -> None:
    with pytest.raises(UnknownNameError, match="'micro-dense'"):
        load_ladder("micro-dens")
    with pytest.raises(UnknownNameError, match="did you mean 'w16'"):
        load_ladder("micro-dense").rung("w17")


LADDERS = (
    "camel-moe",
    "micro-moe",
    "micro-twin",
    "micro-dense",
    "pythia-dense",
    "olmo-dense",
    "olmoe",
)
EVERY_RUNG = [(name, rung) for name in LADDERS for rung in load_ladder(name).rungs]


@pytest.mark.parametrize(("ladder", "name"), EVERY_RUNG)
def test_every_rung_is_within_two_percent_of_its_name(ladder: str, name: str) -> None:
    found = load_ladder(ladder)
    if found.name_counts == "none":
        assert ladder == "micro-dense"
        return
    counts = found.rung(name).named_counts(found.name_counts)
    sizes = [parse_count(part, name) for part in name.split("-A")]
    for size, count in zip(sizes, counts, strict=False):
        assert count == pytest.approx(size, rel=0.02)
    assert len(sizes) == (2 if found.rung(name).moe else 1)


@pytest.mark.olmo
@pytest.mark.parametrize(("ladder", "name"), EVERY_RUNG)
def test_every_rung_builds_with_the_counts_it_states(ladder: str, name: str) -> None:
    from olmo_mixlaw.models.olmo import MoEOLMo, build_model

    rung = load_ladder(ladder).rung(name)
    model = build_model(rung.olmo_model(init_device="meta"))
    assert model.num_params() == rung.n_total
    assert model.num_params(include_embedding=False) - rung.n_head == rung.n_params
    if isinstance(model, MoEOLMo):
        assert model.num_active_params(include_embedding=False) - rung.n_head == rung.n_active


# Parameters in billions (total, active) with embeddings. The stated active counts of the
# DeepSeek models leave out the input embedding's rows or not, by a percent: 37B, 2.4B.
V3 = Shape(
    d_model=7168,
    n_layers=61,
    n_heads=128,
    mlp_size=18432,
    vocab_size=129280,
    tied=False,
    latent_attention=LatentAttention(query_rank=1536),
    moe=MoEConfig(num_experts=256, top_k=8, expert_size=2048, shared_experts=1, dense_layers=3),
)
V2_LITE = Shape(
    d_model=2048,
    n_layers=27,
    n_heads=16,
    mlp_size=10944,
    vocab_size=102400,
    tied=False,
    latent_attention=LatentAttention(),
    moe=MoEConfig(num_experts=64, top_k=6, expert_size=1408, shared_experts=2, dense_layers=1),
)


@pytest.mark.parametrize(
    ("shape", "total", "active"),
    [
        (V3, 671.0, 37.6),
        (V2_LITE, 15.71, None),
        (load_ladder("olmoe").rung("6.92B-A1.28B"), 6.92, 1.28),
        (load_ladder("olmo-dense").rung("1.3B"), 1.485, 1.485),
    ],
    ids=["DeepSeek-V3", "DeepSeek-V2-Lite", "OLMoE", "OLMo-2 1B"],
)
def test_counts_of_public_models(shape: Shape, total: float, active: float | None) -> None:
    digits = 1 if total > 100 else 2 if total != 1.485 else 3
    assert round(shape.n_total / 1e9, digits) == total
    if active is not None:
        assert round((shape.n_active + shape.n_embedding) / 1e9, digits) == active


def test_olmo_dense_equals_the_published_counts_to_the_last_parameter() -> None:
    published = {"190M": 190354176, "370M": 371262464, "760M": 758220288, "1.3B": 1279395840}
    found = load_ladder("olmo-dense")
    assert {n: r.named_counts(found.name_counts)[0] for n, r in found.rungs.items()} == published


def test_dense_twins_have_the_active_parameters_of_the_moe_ladder() -> None:
    moe, twin = load_ladder("micro-moe"), load_ladder("micro-twin")
    for a, b in zip(moe.rungs.values(), twin.rungs.values(), strict=True):
        assert (a.d_model, a.n_layers, a.n_heads) == (b.d_model, b.n_layers, b.n_heads)
        assert b.n_active == pytest.approx(a.n_active, rel=0.003)


def test_training_rules_at_the_reference_size() -> None:
    """At 108 million active parameters the rules give their constants (arXiv 2411.12925)."""
    rung = dataclasses.replace(
        load_ladder("olmo-dense").rung("190M"), context=2048, vocab_size=8, tied=True
    )
    scale = rung.n_active / 108e6
    assert rung.learning_rate == pytest.approx(0.0047 / 2 * scale ** (-1 / 3))
    assert rung.batch_sequences == round(160 * scale ** (2 / 3))
    assert rung.weight_decay == 0.1
    assert rung.training.decay_fraction == 0.1
    steps = rung.n_steps(5)
    assert rung.warmup_steps(steps) == math.ceil(rung.n_active / rung.batch_tokens)
    assert rung.n_tokens(1) == pytest.approx(20 * rung.n_active, rel=1e-2)


def test_flops_by_hand() -> None:
    shape = Shape(d_model=8, n_layers=2, n_heads=2, mlp_size=16, vocab_size=10, context=4)
    matrices = 2 * (4 * 8 * 8 + 3 * 8 * 16)
    scores = 2 * 2 * 8 * 4 / 2  # layers, scores and values, width, mean causal context
    assert shape.flops_per_token == 6 * (matrices + 10 * 8) + 6 * scores


def test_constant_sparsity_is_warned_of() -> None:
    for name in ("camel-moe", "micro-moe", "olmoe"):
        (warning,) = load_ladder(name).warnings()
        assert "can't tell total from active" in warning
    assert load_ladder("micro-dense").warnings() == []


@settings(max_examples=15)
@given(active=st.floats(5.5, 9).map(lambda e: 10**e), sparsity=st.sampled_from([1, 5, 10, 20, 40]))
def test_an_invented_rung_has_the_counts_asked_for(active: float, sparsity: float) -> None:
    shape = invent(active, sparsity * active)
    shape.check()
    assert shape.n_active == pytest.approx(active, rel=0.02)
    assert shape.n_params == pytest.approx(sparsity * active, rel=0.02)
    aspect = shape.d_model / shape.n_layers / usual_aspect(shape.d_model)
    assert 1 / 3.5 < aspect < 3.5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["make", "--active", "12X"], "write 590k, 12M or 1.2B"),
        (["make", "--active", "12M", "--total", "1M"], "can't have 12,000,000 active"),
        (["make", "--active", "12M", "--total", "90M", "--experts", "3"], "num_experts is 3"),
        (["make", "--active", "12M", "--total", "1B", "--sparsity", "3"], "give one of them"),
        (["make", "--active", "12M", "--total", "900B", "--experts", "8"], "no shape comes"),
        (["show", "camel-mo"], "did you mean 'camel-moe'"),
        (["show", "camel-moe", "--multiple", "0"], "must be above 0"),
    ],
)
def test_mistakes_on_the_command_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(app, ["ladder", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_show_prints_every_rung_and_the_conventions(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["ladder", "show", "camel-moe"]) == 0
    out = capsys.readouterr()
    row = next(line for line in out.out.splitlines() if line.startswith("590M-A12M"))
    assert "602M" in row
    assert "11.8M" in row
    assert all(name in out.out for name in load_ladder("camel-moe").rungs)
    assert "without embedding tables" in out.out
    assert "can't tell total from active" in out.err


def test_made_rungs_can_be_pasted_into_a_ladder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = []
    for active, total in (("200k", "2M"), ("2M", "20M")):
        assert run(app, ["ladder", "make", "--active", active, "--total", total]) == 0
        lines.append(capsys.readouterr().out)
    path = tmp_path / "pasted.yaml"
    path.write_text("name_counts: n_params\nrungs:\n" + "".join(lines))
    small, large = load_ladder(path).rungs.values()
    assert small.n_active == pytest.approx(2e5, rel=0.02)
    assert large.n_params == pytest.approx(2e7, rel=0.02)
