"""Tasks measure what they say: a model that knows some facts gets credit for just those."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from rounding import SCORES

from olmo_mixlaw.datasets import open_dataset
from olmo_mixlaw.errors import ConfigError, DataError, UnknownNameError
from olmo_mixlaw.evaluation import catalog, chunks, evaluate
from olmo_mixlaw.evaluation.knowledge import begins_with
from olmo_mixlaw.evaluation.language_model import LanguageModel
from olmo_mixlaw.evaluation.loading import load_model
from olmo_mixlaw.evaluation.outputs import read_instances
from olmo_mixlaw.evaluation.tasks import draw

BIO = "mixlaw:biography?n=12&pools=major:6,birth_city:8,university:8,employer:8&templates=2"
MakeOracle = Callable[[Sequence[str]], LanguageModel]


def values(frame) -> dict[str, float]:  # type: ignore[no-untyped-def]
    return dict(zip(frame["metric"], frame["value"], strict=True))


@pytest.mark.parametrize("known", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("variant", ["", ":gen"])
def test_known_facts_are_credited(
    oracle: MakeOracle, tmp_path: Path, known: float, variant: str
) -> None:
    questions = open_dataset(BIO).questions()
    learnt = questions[: int(known * len(questions))]
    model = oracle([f"{q.prompt} {q.answer}." for q in learnt])
    task = {"task_name": "bio_recall" + variant, "context_kwargs": {"dataset": BIO}}
    found = values(evaluate(model, [task], tmp_path))
    single = read_instances(tmp_path, "bio_recall" + variant).set_index("native_id")["exact_match"]
    assert all(single[q.id] == 1 for q in learnt)
    # Of the rest, the oracle says what it knows of others, which is rarely right.
    rest = [single[q.id] for q in questions if q not in learnt]
    assert sum(rest) <= 0.4 * len(rest)
    assert found["exact_match"] == pytest.approx(single.mean())


def test_generation_and_teacher_forcing_agree(oracle: MakeOracle, tmp_path: Path) -> None:
    questions = open_dataset(BIO).questions()
    model = oracle([f"{q.prompt} {q.answer}." for q in questions[::3]])
    task = {"context_kwargs": {"dataset": BIO}}
    single = {}
    for variant in ("", ":gen"):
        evaluate(model, [{**task, "task_name": "bio_recall" + variant}], tmp_path / f"o{variant}")
        frame = read_instances(tmp_path / f"o{variant}", "bio_recall" + variant)
        single[variant] = frame.set_index("native_id")["exact_match"].to_dict()
    assert single[""] == single[":gen"]


def test_recall_is_broken_down_by_attribute(oracle: MakeOracle, tmp_path: Path) -> None:
    questions = open_dataset(BIO).questions()
    model = oracle([f"{q.prompt} {q.answer}." for q in questions if q.attribute == "major"])
    task = {"task_name": "bio_recall", "context_kwargs": {"dataset": BIO}}
    found = values(evaluate(model, [task], tmp_path))
    assert found["exact_match_major"] == 1
    assert found["exact_match_birth_date"] == 0
    attributes = sorted({q.attribute for q in questions})
    mean = sum(found[f"exact_match_{a}"] for a in attributes) / len(attributes)
    assert mean == pytest.approx(found["exact_match"])
    alone = {"task_name": "bio_recall:major", "context_kwargs": {"dataset": BIO}}
    assert values(evaluate(model, [alone], tmp_path))["exact_match"] == 1


def test_popularity_groups_are_reported(oracle: MakeOracle, tmp_path: Path) -> None:
    uri = BIO.replace("n=12", "n=200") + "&zipf=1.5&groups=4"
    groups = {q.group for q in open_dataset(uri).questions()}
    assert len(groups) == 4
    task = {"task_name": "bio_recall", "context_kwargs": {"dataset": uri}}
    frame = evaluate(oracle(["x"]), [task], tmp_path)
    assert {f"exact_match_group_{g}" for g in groups} <= set(frame["metric"])


def test_answer_bits_are_the_log_likelihood_of_the_answer(checkpoint: Path, tmp_path: Path) -> None:
    model = load_model(checkpoint, device="cpu")
    found = values(evaluate(model, [{"task_name": "bio_recall", "limit": 20}], tmp_path))
    documents = catalog.make_task(
        "bio_recall", {"limit": 20, "context_kwargs": {"dataset": BIO}}
    ).documents()
    total = 0.0
    for document in documents:
        head, whole = model.encode([document["query"], f"{document['query']} {document['answer']}"])
        with torch.inference_mode():
            logits = model.model(torch.tensor([whole[:-1]])).logits  # type: ignore[attr-defined]
        scored = torch.log_softmax(logits[0].double(), -1)
        rows = torch.arange(len(head) - 1, len(whole) - 1)
        total -= scored[rows, torch.tensor(whole[len(head) :])].sum().item() / math.log(2)
    assert found["answer_bits"] == pytest.approx(total / 20, rel=1e-5)


def test_multiple_choice_offers_the_answer_once_among_the_drawn(oracle: MakeOracle) -> None:
    task = catalog.make_task("bio_recall:mc", {"context_kwargs": {"dataset": BIO, "n_choices": 4}})
    for document in task.documents():
        assert len(document["choices"]) == len(set(document["choices"])) == 4
        assert document["choices"][document["gold"]] == document["answer"]
        assert [r.continuation for r in task.requests(document)] == [
            " " + choice for choice in document["choices"]
        ]


def test_multiple_choice_at_chance_for_a_model_that_knows_nothing(
    oracle: MakeOracle, tmp_path: Path
) -> None:
    task = {"task_name": "bio_recall:mc", "context_kwargs": {"dataset": BIO, "n_choices": 4}}
    ignorant = values(evaluate(oracle(["zzz"]), [task], tmp_path))
    everything = [f"{q.prompt} {q.answer}." for q in open_dataset(BIO).questions()]
    expert = values(evaluate(oracle(everything), [task], tmp_path))
    assert ignorant["acc_per_token"] < 0.6
    assert expert["acc_raw"] == 1


@pytest.mark.parametrize("name", ["slope", "max_over_n"])
def test_worked_problems_count_the_final_answer(
    oracle: MakeOracle, tmp_path: Path, name: str
) -> None:
    uri = f"mixlaw:{name}" + ("?n=3&high=10" if name == "max_over_n" else "")
    problems = open_dataset(uri).questions()[:1]  # type: ignore[index]
    settings = {"context_kwargs": {"dataset": uri, "max_entities": 1}}
    solved = oracle([f"{q.prompt} {q.answer}.\n" for q in problems])
    found = values(evaluate(solved, [{"task_name": name, **settings}], tmp_path))
    forced = values(evaluate(solved, [{"task_name": f"{name}:forced", **settings}], tmp_path))
    assert found["exact_match"] == forced["exact_match"] == 1
    assert (
        values(evaluate(oracle(["x"]), [{"task_name": name, **settings}], tmp_path))["exact_match"]
        == 0
    )


def test_answer_must_not_be_the_beginning_of_a_longer_one() -> None:
    assert begins_with("12", "12")
    assert begins_with("12. And", "12")
    assert not begins_with("123", "12")
    assert not begins_with("12/5", "12")
    assert not begins_with("12.5", "12")
    assert not begins_with("Romeo", "Rome")


def test_users_table_is_asked(oracle: MakeOracle, tmp_path: Path) -> None:
    table = tmp_path / "people.csv"
    table.write_text("name,job\nAda Byron,writer\nAlan Moss,painter\nEmmy Noor,singer\n")
    uri = f"mixlaw:table?path={table}"
    task = {"task_name": "fact_recall", "context_kwargs": {"dataset": uri}}
    texts = [f"{q.prompt} {q.answer}." for q in open_dataset(uri).questions()]
    model = oracle(texts[:1])
    found = evaluate(model, [task], tmp_path / "out")
    assert values(found)["exact_match"] == pytest.approx(1 / 3)
    assert set(found["n_instances"]) == {3}


def test_domain_loss_is_that_of_a_plain_loop(checkpoint: Path, tmp_path: Path) -> None:
    model = load_model(checkpoint, device="cpu")
    task = {
        "task_name": "domain_loss",
        "context_kwargs": {"dataset": BIO, "domain": "bio", "max_tokens": 960},
    }
    found = values(evaluate(model, [task], tmp_path))
    texts = list(open_dataset(BIO).heldout())
    stream = [t for ids in model.encode(texts) for t in [*ids, model.eos_token_id]]
    nats, text_nats, count = 0.0, 0.0, 0
    for start in range(0, 960, 96):
        ids = torch.tensor([stream[start : start + 96]])
        with torch.inference_mode():
            logits = model.model(ids).logits  # type: ignore[attr-defined]
        loss = torch.nn.functional.cross_entropy(
            logits[0, :-1].double(), ids[0, 1:], reduction="none"
        )
        nats += loss.sum().item()
        text_nats += loss[ids[0, 1:] != model.eos_token_id].sum().item()
        count += 95
    assert found["n_tokens"] == count
    assert found["loss"] == pytest.approx(nats / count, rel=SCORES)
    # The bytes are those of the text but for the tokens that only begin a sequence.
    firsts = sum(len(model.decode([stream[s]]).encode()) for s in range(0, 960, 96))
    whole = len(model.decode(stream[:960]).replace("<|endoftext|>", "").encode())
    assert found["n_bytes"] == whole - firsts
    bits = text_nats / math.log(2) / found["n_bytes"]
    assert found["bits_per_byte"] == pytest.approx(bits, rel=SCORES)


def test_token_bytes_sum_to_the_text(model: LanguageModel) -> None:
    for text in ["Ada was born.", "naïve café — 雪と🙂!", "  spaces  and\ttabs\n", "🙂🙂"]:
        encoding = model.tokenizer.encode(text, add_special_tokens=False)
        sizes = chunks.token_bytes(text, encoding)
        assert sum(sizes) == len(text.encode())
        assert min(sizes) >= 0
        assert len(sizes) == len(encoding.ids)


def test_too_little_text_is_refused(model: LanguageModel) -> None:
    with pytest.raises(DataError, match="fewer than one sequence of 96"):
        chunks.cut(["short"], model.tokenizer, 0, 96, 960, "domain_loss")
    with pytest.raises(DataError, match="don't fill"):
        chunks.cut(["short"], model.tokenizer, 0, 96, 50, "domain_loss")


def test_limit_takes_what_olmes_takes() -> None:
    import random

    documents = [{"id": i} for i in range(50)]
    assert draw(documents, 7, 1234) == random.Random(1234).sample(documents, 7)
    assert draw(documents, 7, None) == documents[:7]
    assert len(draw(documents, 0.11, 1)) == 6
    assert draw(documents, 100, 1) == documents


@pytest.mark.parametrize("suite", catalog.suite_names())
def test_every_suite_names_known_tasks(suite: str) -> None:
    assert catalog.resolve([suite])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("bio_recal", "unknown task 'bio_recal'; did you mean 'bio_recall'"),
        ({"task_name": "bio_recall", "limits": 3}, "unknown key 'limits'; did you mean 'limit'"),
        ({"task_name": "bio_recall", "limit": -1}, "limit: -1: expected a positive"),
        ({"task_name": "bio_recall", "primary_metric": "acc"}, "unknown metric 'acc'"),
        ({"task_name": "bio_recall", "context_kwargs": {"set": 1}}, "unknown key 'set'"),
        ({"task_name": "bio_recall", "context_kwargs": [1]}, "context_kwargs: expected a mapping"),
        ('{"task_name": "bio_recall"', "not valid JSON"),
        ({"name": "bio_recall"}, "expected a name, or a mapping with task_name"),
        ("nowhere.yaml", "no such file"),
    ],
)
def test_wrong_tasks_are_refused(spec: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        catalog.resolve([spec])  # type: ignore[list-item]


def test_the_same_task_twice_needs_two_names() -> None:
    with pytest.raises(ConfigError, match="asked for twice"):
        catalog.resolve(["bio_recall", "bio_recall"])
    named = {"task_name": "bio_recall", "metadata": {"alias": "again"}}
    assert [t.name for t in catalog.resolve(["bio_recall", named])] == ["bio_recall", "again"]


def test_unknown_attribute_is_refused(oracle: MakeOracle) -> None:
    task = catalog.make_task(
        "bio_recall", {"context_kwargs": {"dataset": BIO, "attribute": "shoe_size"}}
    )
    with pytest.raises(UnknownNameError, match="unknown attribute 'shoe_size'"):
        task.documents()
