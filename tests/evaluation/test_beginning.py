"""What a text begins with: the model's own start where its tokenizer puts one, and nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import SHAPE, write_checkpoint
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from olmo_mixlaw.datasets import open_dataset
from olmo_mixlaw.evaluation import evaluate, generation, scorer
from olmo_mixlaw.evaluation.chunks import cut
from olmo_mixlaw.evaluation.language_model import LanguageModel
from olmo_mixlaw.evaluation.loading import load_model
from olmo_mixlaw.evaluation.tasks import Request
from olmo_mixlaw.models.export import export

BIO = "mixlaw:biography?n=12&pools=major:6,birth_city:8,university:8,employer:8&templates=2"
START, END = 1, 0


def add_start(file: Path) -> None:
    """Let the tokenizer of a file put token 1 before every text."""
    tokenizer = Tokenizer.from_file(str(file))
    name = tokenizer.id_to_token(START)
    tokenizer.post_processor = TemplateProcessing(f"{name} $A", special_tokens=[(name, START)])
    tokenizer.save(str(file))


@pytest.fixture(scope="module")
def beginning(llama: Callable[[int, int], Path]) -> LanguageModel:
    """A Llama whose tokenizer puts a start before every text."""
    folder = llama(1, 96)
    add_start(folder / "tokenizer.json")
    return load_model(folder, device="cpu")


def nats(model: LanguageModel, before: list[int], ids: list[int]) -> float:
    """Minus the log-probability of `ids` after `before`, by one plain pass."""
    with torch.inference_mode():
        logits = model.model(torch.tensor([before + ids])).logits[0, len(before) - 1 : -1]  # type: ignore[attr-defined]
    scored = torch.log_softmax(logits.double(), -1).gather(1, torch.tensor(ids)[:, None])
    return -float(scored.sum())


def test_a_models_start_is_the_one_that_its_tokenizer_puts(
    beginning: LanguageModel, model: LanguageModel
) -> None:
    assert (beginning.bos_token_id, beginning.prefix_token_id) == (START, START)
    # OLMo's trainer puts none, nor does a tokenizer that only names one: as before.
    assert (model.bos_token_id, model.prefix_token_id) == (None, END)


def test_a_document_alone_follows_the_start(beginning: LanguageModel, model: LanguageModel) -> None:
    text = "Ada was born in Rome."
    for one, before in ((beginning, START), (model, END)):
        (ids,) = one.encode([text])
        (found,) = scorer.rolling(one, [text])
        assert -found["sum_logits"] == pytest.approx(nats(one, [before], ids), rel=1e-5)
        assert found["num_tokens"] == len(ids)
        (encoded,) = scorer.encode_pairs(
            one, [("", " Rome")], strict=True, truncate=False, where="t"
        )
        assert encoded.context == (before,)


def test_generation_without_a_prompt_follows_the_start(beginning: LanguageModel) -> None:
    request = Request("", kind="generate_until", max_tokens=3)
    (said,) = generation.generate(beginning, [request])
    ids = [START]
    with torch.inference_mode():
        for _ in range(3):
            logits = beginning.model(torch.tensor([ids])).logits  # type: ignore[attr-defined]
            ids.append(int(logits[0, -1].argmax()))
    ids = ids[: ids.index(END)] if END in ids else ids
    assert said["continuation"] == beginning.decode(ids[1:])


def test_sequences_and_their_documents_begin_with_the_start(beginning: LanguageModel) -> None:
    texts = ["Ada was born in Rome.", "Where?", "He was born in the city of Rome. " * 3]
    encoded = beginning.encode(texts)
    stream = [token for ids in encoded for token in [START, *ids, END]]
    found = cut(texts, beginning.tokenizer, END, 12, 10_000, bos_token_id=START)
    assert (found.ids[:, 0] == START).all()
    assert not found.n_bytes[found.ids == START].any()
    # Less the starts that were added, it is the text joined; nothing is lost but a rest.
    kept, at = [], 0
    for row in found.ids.tolist():
        kept += row if stream[at] == START else row[1:]
        at = len(kept)
    assert kept == stream[:at]
    assert len(stream) - at < 12
    text = "".join(texts).encode()
    assert found.n_bytes.sum() <= len(text)


def test_cutting_without_a_start_is_as_it_was(model: LanguageModel) -> None:
    texts = ["Ada was born in Rome.", "Where?"] * 9
    stream = [token for ids in model.encode(texts) for token in [*ids, END]]
    found = cut(texts, model.tokenizer, END, 12, 10_000)
    n = len(stream) // 12
    np.testing.assert_array_equal(found.ids, np.array(stream[: n * 12]).reshape(n, 12))


def test_the_loss_of_a_source_is_conditioned_on_the_start(
    beginning: LanguageModel, hugging_face: Path, tmp_path: Path
) -> None:
    task = {
        "task_name": "domain_loss",
        "context_kwargs": {"dataset": BIO, "max_tokens": 960, "sequence_length": 96},
    }
    frame = evaluate(beginning, [task], tmp_path / "with").set_index("metric")["value"]
    heldout = open_dataset(BIO).heldout()
    texts = [next(heldout) for _ in range(60)]
    chunks = cut(texts, beginning.tokenizer, END, 96, 960, bos_token_id=START)
    total = text = count = 0.0
    for row in chunks.ids.tolist():
        with torch.inference_mode():
            logits = beginning.model(torch.tensor([row])).logits[0, :-1]  # type: ignore[attr-defined]
        scored = torch.log_softmax(logits.double(), -1)
        for position, token in enumerate(row[1:]):
            if token != START:  # given, not predicted
                loss = -float(scored[position, token])
                total, count = total + loss, count + 1
                text += loss if token != END else 0.0
    assert frame["n_tokens"] == count
    assert frame["loss"] == pytest.approx(total / count, rel=1e-5)
    bits = text / math.log(2) / chunks.n_bytes[:, 1:].sum()
    assert frame["bits_per_byte"] == pytest.approx(bits, rel=1e-5)
    without = evaluate(hugging_face, [task], tmp_path / "without").set_index("metric")["value"]
    assert abs(without["bits_per_byte"] - frame["bits_per_byte"]) > 0.01  # the same weights


def test_the_files_say_what_stood_before_the_text(
    beginning: LanguageModel, checkpoint: Path, tmp_path: Path
) -> None:
    task = {"task_name": "bio_recall", "limit": 2, "context_kwargs": {"dataset": BIO}}
    for name, model, said in (("b", beginning, (START, START)), ("c", checkpoint, (END, None))):
        evaluate(model, [task], tmp_path / name)
        line = json.loads((tmp_path / name / "metrics-all.jsonl").read_text())
        found = line["compute_config"]
        assert (found["prefix_token_id"], found["bos_token_id"]) == said


@pytest.mark.parametrize("puts_start", [False, True])
def test_an_export_names_the_start_that_its_tokenizer_puts(
    tmp_path: Path, puts_start: bool
) -> None:
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    checkpoint = write_checkpoint(tmp_path, SHAPE)
    file = tmp_path / "tokenizer.json"
    if puts_start:
        add_start(file)
    out = export(checkpoint, tmp_path / "hf")
    start = START if puts_start else None
    assert AutoConfig.from_pretrained(out).bos_token_id == start
    assert GenerationConfig.from_pretrained(out).bos_token_id == start
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.bos_token_id == start
    ids = Tokenizer.from_file(str(file)).encode("a", add_special_tokens=False).ids
    assert tokenizer("a").input_ids == [START] * puts_start + ids


def test_an_export_scores_as_the_checkpoint_whatever_its_tokenizer_puts(
    checkpoint: Path, tmp_path: Path
) -> None:
    import shutil

    import yaml

    tokenizer = tmp_path / "tokenizer.json"
    values = yaml.safe_load((checkpoint / "config.yaml").read_text())
    shutil.copyfile(values["tokenizer"]["identifier"], tokenizer)
    add_start(tokenizer)
    out = export(checkpoint, tmp_path / "hf", tokenizer=tokenizer)
    # The run read its text without a start, as OLMo's trainer does.
    assert load_model(out, device="cpu").bos_token_id is None
