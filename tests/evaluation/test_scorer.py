"""The scorer gives what a loop over single requests gives, and refuses what it can't score."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from olmo_mixlaw.errors import CheckpointError, ConfigError, DataError, UnknownNameError
from olmo_mixlaw.evaluation import generation, scorer
from olmo_mixlaw.evaluation.language_model import LanguageModel
from olmo_mixlaw.evaluation.loading import load_model
from olmo_mixlaw.evaluation.scorer import Encoded
from olmo_mixlaw.evaluation.tasks import Request


def one_by_one(model: LanguageModel, request: Encoded) -> tuple[float, bool]:
    """The likelihood of one continuation from one plain forward pass."""
    ids = torch.tensor([request.context + request.continuation])
    with torch.inference_mode():
        logits = model.model(ids[:, :-1]).logits  # type: ignore[attr-defined]
    count = len(request.continuation)
    scored = torch.log_softmax(logits[0, -count:].double(), dim=-1)
    targets = torch.tensor(request.continuation)
    total = scored.gather(1, targets[:, None]).sum().item()
    return total, bool((scored.argmax(-1) == targets).all())


def random_requests(seed: int, shared: int, choices: int) -> list[Encoded]:
    """Contexts that begin alike, each with some continuations, in a shuffled order."""
    draw = random.Random(seed)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(draw.randrange(1, 400) for _ in range(n))

    prefix = ids(shared)
    requests = []
    for _ in range(7):
        context = prefix + ids(draw.randrange(1, 20))
        requests += [Encoded(context, ids(draw.randrange(1, 9))) for _ in range(choices)]
    draw.shuffle(requests)
    return requests


@pytest.mark.parametrize("shared", [0, 5, 30])
@pytest.mark.parametrize("choices", [1, 4])
def test_batched_and_shared_scores_equal_single_ones(
    model: LanguageModel, shared: int, choices: int
) -> None:
    requests = random_requests(shared + choices, shared, choices)
    found = scorer.loglikelihoods(model, requests)
    for request, likelihood in zip(requests, found, strict=True):
        total, greedy = one_by_one(model, request)
        assert likelihood.sum_logits == pytest.approx(total, abs=2e-4)
        assert likelihood.is_greedy == greedy
        assert likelihood.num_tokens == len(request.continuation)
        assert likelihood.num_tokens_all == len(request.context) + len(request.continuation)


def test_small_batches_give_the_same_scores(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = random_requests(3, 12, 5)
    whole = scorer.loglikelihoods(model, requests)
    monkeypatch.setattr(scorer, "TOKENS_AT_ONCE", 16)
    split = scorer.loglikelihoods(model, requests)
    np.testing.assert_allclose(
        [x.sum_logits for x in split], [x.sum_logits for x in whole], atol=2e-4
    )


def test_rolling_predicts_every_token_once(model: LanguageModel) -> None:
    text = "Ada was born in Rome. " * 40  # longer than the context
    (found,) = scorer.rolling(model, [text])
    (ids,) = model.encode([text])
    assert found["num_tokens"] == len(ids) > model.max_length
    assert found["num_bytes"] == len(text)
    total, done = 0.0, 0
    while done < len(ids):
        end = min(done + model.max_length, len(ids))
        context = ids[max(end - model.max_length - 1, 0) : done] or [model.eos_token_id]
        total += one_by_one(model, Encoded(tuple(context), tuple(ids[done:end])))[0]
        done = end
    assert found["sum_logits"] == pytest.approx(total, rel=1e-5)


def test_greedy_flag_agrees_with_generation(model: LanguageModel) -> None:
    prompts = ["Ada", "Where", "He was born", "In the year"]
    said = generation.generate(
        model, [Request(p, kind="generate_until", max_tokens=4) for p in prompts]
    )
    for prompt, answer in zip(prompts, said, strict=True):
        (head,) = model.encode([prompt])
        with torch.inference_mode():
            ids = list(head)
            for _ in range(answer["num_tokens"]):
                logits = model.model(torch.tensor([ids])).logits  # type: ignore[attr-defined]
                ids.append(int(logits[0, -1].argmax()))
        continuation = ids[len(head) :]
        assert model.decode(continuation) == answer["continuation"]
        if continuation:
            request = Encoded(tuple(head), tuple(continuation))
            assert scorer.loglikelihoods(model, [request])[0].is_greedy


def test_what_a_prompt_is_given_does_not_depend_on_those_beside_it(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentence = "He was born in the year of the great flood and lived in Rome"
    texts = [sentence[: 3 + 2 * i] for i in range(30)]
    # To the context's last token: less is said than may be.
    (ids,) = model.encode([sentence * 60])
    texts += [model.decode(ids[: model.max_length - room]) for room in (2, 5)]
    requests = [Request(text, "a", "generate_until", max_tokens=9) for text in texts]
    calls, read = [], type(model).read
    monkeypatch.setattr(
        type(model), "read", lambda *args, **how: (calls.append(1), read(*args, **how))[1]
    )
    together, n_calls = generation.generate(model, requests), len(calls)
    assert together == [generation.generate(model, [request])[0] for request in requests]
    assert n_calls < (len(calls) - n_calls) / 5


def test_sampling_is_reproducible_and_varies(model: LanguageModel) -> None:
    request = Request("Ada", kind="generate_until", max_tokens=8, temperature=2.0, repeats=6)
    first = generation.generate(model, [request])
    again = generation.generate(model, [request])
    assert first == again
    assert len({answer["continuation"] for answer in first}) > 1


def test_generation_stops_before_a_stop_string(model: LanguageModel) -> None:
    (free,) = generation.generate(model, [Request("Ada", kind="generate_until", max_tokens=12)])
    stop = free["continuation"][3:5]
    (cut,) = generation.generate(
        model, [Request("Ada", kind="generate_until", max_tokens=12, stop=(stop,))]
    )
    assert cut["continuation"] == free["continuation"].split(stop)[0]


def test_answer_tokens_are_the_whole_less_the_prompt(model: LanguageModel) -> None:
    (encoded,) = scorer.encode_pairs(
        model, [("Ada was born in", " Rome")], strict=True, truncate=False, where="t"
    )
    (whole,) = model.encode(["Ada was born in Rome"])
    assert list(encoded.context + encoded.continuation) == whole


def test_spaces_that_end_a_context_move_to_the_continuation(model: LanguageModel) -> None:
    pairs = [("Ada was born in ", "Rome"), ("Ada was born in", " Rome")]
    one, other = scorer.encode_pairs(model, pairs, strict=True, truncate=False, where="t")
    assert one == other


def test_empty_context_becomes_the_end_of_text_token(model: LanguageModel) -> None:
    (encoded,) = scorer.encode_pairs(model, [("", " Rome")], strict=True, truncate=False, where="t")
    assert encoded.context == (model.eos_token_id,)


def test_broken_prefix_stability_is_refused(model: LanguageModel) -> None:
    # The seam falls inside a word, so the whole is tokenised otherwise than its beginning.
    with pytest.raises(CheckpointError, match="prefix stability"):
        scorer.encode_pairs(
            model, [("She was bo", "rn in the city")], strict=True, truncate=False, where="recall"
        )


def test_long_context_is_refused_or_cut_from_the_left(model: LanguageModel) -> None:
    pair = ("Ada was born in Rome. " * 40, "Yes, it is so.")
    with pytest.raises(DataError, match="context of 96; truncation"):
        scorer.encode_pairs(model, [pair], strict=False, truncate=False, where="t")
    (cut,) = scorer.encode_pairs(model, [pair], strict=False, truncate=True, where="t")
    assert len(cut.context) + len(cut.continuation) - 1 == model.max_length
    long = ("Ada", " was born in Rome." * 90)
    with pytest.raises(DataError, match="the continuation alone fills it"):
        scorer.encode_pairs(model, [long], strict=False, truncate=True, where="t")


def test_prompt_without_room_for_the_answer_is_refused(model: LanguageModel) -> None:
    request = Request("Ada was born in Rome. " * 40, " Rome", "generate_until", (), 8)
    with pytest.raises(DataError, match=r"slope: a prompt of \d+ tokens"):
        generation.generate(model, [request], where="slope")


def test_model_that_is_not_a_number_is_refused(checkpoint: Path) -> None:
    model = load_model(checkpoint, device="cpu")
    with torch.no_grad():
        next(model.model.parameters()).fill_(float("nan"))  # type: ignore[attr-defined]
    with pytest.raises(CheckpointError, match="not finite"):
        scorer.loglikelihoods(model, [Encoded((1, 2), (3,))])


def test_bfloat16_scores_are_close(checkpoint: Path) -> None:
    requests = random_requests(5, 10, 3)
    exact = scorer.loglikelihoods(load_model(checkpoint, device="cpu"), requests)
    half = scorer.loglikelihoods(load_model(checkpoint, device="cpu", dtype="bfloat16"), requests)
    for a, b in zip(exact, half, strict=True):
        assert b.sum_logits == pytest.approx(a.sum_logits, rel=0.05, abs=0.5)


def test_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such model folder"):
        load_model(tmp_path / "missing")
    with pytest.raises(CheckpointError, match=r"expected config\.yaml and model\.pt"):
        load_model(tmp_path)


def test_wrong_options_are_refused(checkpoint: Path) -> None:
    with pytest.raises(UnknownNameError, match="dtype 'float16'"):
        load_model(checkpoint, dtype="float16")
    with pytest.raises(ConfigError, match="device 'cuba'"):
        load_model(checkpoint, device="cuba")


def test_weights_that_do_not_fit_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    text = (checkpoint / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("d_model: 32", "d_model: 16"))
    (tmp_path / "model.pt").write_bytes((checkpoint / "model.pt").read_bytes())
    with pytest.raises(CheckpointError, match=r"model\.pt: doesn't fit"):
        load_model(tmp_path)
    (tmp_path / "model.pt").write_bytes(b"PK" + b"\0" * 100)
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(CheckpointError, match=r"model\.pt"):
        load_model(tmp_path)


class Runs:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return Path, ("of", "code")


def test_pickles_that_hold_more_than_weights_are_named(
    checkpoint: Path, hugging_face: Path, tmp_path: Path
) -> None:
    olmo, hf = tmp_path / "olmo", tmp_path / "hf"
    shutil.copytree(checkpoint, olmo)
    torch.save({"a": Runs()}, olmo / "model.pt")
    with pytest.raises(CheckpointError, match=r"olmo/model\.pt: is a pickle that holds more than"):
        load_model(olmo)
    shutil.copytree(hugging_face, hf)
    (hf / "model.safetensors").unlink()
    torch.save({"a": Runs()}, hf / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"hf/pytorch_model\.bin: is a pickle .*safetensors"):
        load_model(hf)
    (hf / "pytorch_model.bin").write_bytes(b"PK\3\4" + b"\0" * 50)
    with pytest.raises(CheckpointError, match=r"hf/pytorch_model\.bin: can't be read: "):
        load_model(hf)
    (hf / "pytorch_model.bin").unlink()
    (hf / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(CheckpointError, match=r"hf/model\.safetensors: can't be read: "):
        load_model(hf)


def test_missing_tokenizer_names_the_option(checkpoint: Path, tmp_path: Path) -> None:
    text = (checkpoint / "config.yaml").read_text()
    lines = [
        "  identifier: gone.json" if "identifier:" in line else line for line in text.splitlines()
    ]
    (tmp_path / "config.yaml").write_text("\n".join(lines))
    (tmp_path / "model.pt").write_bytes((checkpoint / "model.pt").read_bytes())
    with pytest.raises(CheckpointError, match="--tokenizer"):
        load_model(tmp_path)
