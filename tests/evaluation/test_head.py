"""Scores by tiles of the vocabulary are those of a softmax over all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rounding import SCORES

from olmo_mixlaw.evaluation import head as head_module
from olmo_mixlaw.evaluation import scorer
from olmo_mixlaw.evaluation.batches import Encoded
from olmo_mixlaw.evaluation.head import Head, score_tokens
from olmo_mixlaw.evaluation.language_model import HuggingFaceModel
from olmo_mixlaw.evaluation.loading import load_model

NATS = 1e-4  # logits here reach 60, of which float32 keeps about 1e-5


@settings(max_examples=60)
@given(
    rows=st.integers(1, 40),
    vocabulary=st.integers(2, 90),
    tile=st.integers(1, 64),
    at_once=st.integers(1, 50),
    bias=st.booleans(),
    scale=st.sampled_from([1.0, 0.3]),
    cap=st.sampled_from([None, 20.0]),
    seed=st.integers(0, 1000),
)
def test_tiles_give_what_a_softmax_gives(
    rows: int,
    vocabulary: int,
    tile: int,
    at_once: int,
    bias: bool,
    scale: float,
    cap: float | None,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    states = torch.randn(rows, 5)
    targets = torch.randint(0, vocabulary, (rows,))
    weight = 3 * torch.randn(vocabulary, 5)
    head = Head(weight, torch.randn(vocabulary) if bias else None, scale, cap)
    logits = scale * (states.double() @ weight.double().T + (head.bias if bias else 0))
    if cap:
        logits = cap * torch.tanh(logits / cap)
    expected = torch.log_softmax(logits, -1).gather(1, targets[:, None])[:, 0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head_module, "NARROWEST_TILE", tile)
        patch.setattr(head_module, "TILE_FLOATS", {"cpu": 1})
        patch.setattr(head_module, "ROWS_AT_ONCE", at_once)
        nats, likeliest = score_tokens(head, states, targets)
        bare, _ = score_tokens(None, head.logits(states), targets)
    np.testing.assert_allclose(nats, expected.numpy(), rtol=SCORES, atol=NATS)
    np.testing.assert_allclose(bare, nats, rtol=SCORES, atol=NATS)
    first, second = logits.topk(2).values.T
    clear = (first - second > NATS).numpy()  # float32 may rank the others the other way round
    same = likeliest == (logits.argmax(-1) == targets).numpy()
    assert same[clear].all()


@pytest.mark.parametrize("tile", [1, 2, 3, 8])
def test_of_equal_tokens_the_first_is_the_likeliest(
    monkeypatch: pytest.MonkeyPatch, tile: int
) -> None:
    monkeypatch.setattr(head_module, "NARROWEST_TILE", tile)
    monkeypatch.setattr(head_module, "TILE_FLOATS", {"cpu": 1})
    logits = torch.tensor([[0.0, 7.0, 1.0, 7.0, 7.0, 2.0]]).repeat(6, 1)
    _, likeliest = score_tokens(None, logits, torch.arange(6))
    assert likeliest.tolist() == [False, True, False, False, False, False]


def test_states_are_left_as_they_are() -> None:
    logits = torch.randn(3, 7)
    before = logits.clone()
    score_tokens(None, logits, torch.tensor([1, 2, 3]))
    assert torch.equal(logits, before)


def tiny(kind: str, **settings: Any) -> Any:
    """A HuggingFace model of the vocabulary of the tests' tokenizer."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=96,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        **settings,
    )
    torch.manual_seed(2)
    return getattr(transformers, f"{kind}ForCausalLM")(config)


REQUESTS = [Encoded((3, 5, 7), (9, 11)), Encoded((2,), (4,)), Encoded((3, 5, 7), (20, 21, 22))]


def expected_sums(module: Any) -> list[float]:
    sums = []
    for request in REQUESTS:
        ids = torch.tensor([request.context + request.continuation])
        with torch.inference_mode():
            logits = module(input_ids=ids[:, :-1]).logits[0, -len(request.continuation) :]
        targets = torch.tensor(request.continuation)[:, None]
        sums.append(torch.log_softmax(logits.float(), -1).gather(1, targets).sum().item())
    return sums


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("Gemma2", {"final_logit_softcapping": 3.0}),
        ("Cohere", {"logit_scale": 0.25}),
        ("Granite", {"logits_scaling": 4.0}),
    ],
)
def test_heads_with_a_scale_or_cap_are_understood(
    hugging_face: Path, kind: str, settings: dict[str, Any]
) -> None:
    module = tiny(kind, **settings)
    model = HuggingFaceModel(module, load_model(hugging_face).tokenizer, {"model": kind}, 0)
    assert model.head is not None
    found = [one.sum_logits for one in scorer.loglikelihoods(model, REQUESTS)]
    assert found == pytest.approx(expected_sums(module), abs=1e-4)


def test_logits_that_are_made_otherwise_are_taken_whole(hugging_face: Path) -> None:
    module = tiny("Llama")
    plain = module.forward

    def warped(*args: Any, **kwargs: Any) -> Any:
        output = plain(*args, **kwargs)
        output.logits = output.logits**3
        return output

    module.forward = warped
    model = HuggingFaceModel(module, load_model(hugging_face).tokenizer, {"model": "warped"}, 0)
    assert model.head is None
    found = [one.sum_logits for one in scorer.loglikelihoods(model, REQUESTS)]
    assert found == pytest.approx(expected_sums(module), rel=1e-5, abs=1e-4)
