"""In OLMES a prompt reaches the model whole, or the task is refused as the scorer refuses it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from olmo_mixlaw.errors import CheckpointError, ConfigError, DataError
from olmo_mixlaw.evaluation import catalog, evaluate, olmes, olmes_model
from olmo_mixlaw.evaluation.tasks import Request, Task
from olmo_mixlaw.registry import TASKS

STANDIN = Path(__file__).parent / "standin"
BIO = "mixlaw:biography?n=12&pools=major:6,birth_city:8,university:8,employer:8&templates=2"


def forget() -> None:
    for cached in (catalog._usable, olmes.hosted, olmes.tasks):
        cached.cache_clear()


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The stand-in for OLMES, importable for one test."""
    monkeypatch.syspath_prepend(str(STANDIN))
    forget()
    yield
    forget()
    for name in [m for m in sys.modules if m.partition(".")[0] == "oe_eval"]:
        del sys.modules[name]


class Words:
    """A model of OLMES's whose tokens are words."""

    def __init__(self, context: int) -> None:
        config = SimpleNamespace(max_position_embeddings=context)
        self.model = SimpleNamespace(config=config)
        self.tokenizer = SimpleNamespace(encode=self.encode)

    @staticmethod
    def encode(text: str, add_special_tokens: bool = True) -> list[int]:
        assert not add_special_tokens
        return [len(word) for word in text.split()]


def built(name: str, context: int, **settings: Any) -> Any:
    from oe_eval.tasks.oe_eval_tasks import TASK_REGISTRY

    task = TASK_REGISTRY[name](task_name=name, task_config=settings)
    task.set_model(Words(context), {"model": "tiny", "max_length": 2048})
    task.build_all_requests()
    return task


class Places(Task):
    """Each document's answer after two contexts of which neither is the query."""

    metrics = ("first",)

    def items(self) -> Sequence[Any]:
        return [{"id": "it", "query": "Italy", "answer": "Rome"}]

    def requests(self, document: Mapping[str, Any]) -> list[Request]:
        return [
            Request(f"{document['query']} {verb}", " " + document["answer"])
            for verb in ("has", "is ruled from")
        ]

    def score(
        self, document: Mapping[str, Any], answers: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        return {"first": float(answers[0]["sum_logits"] > answers[1]["sum_logits"])}


class PlacesSaid(Places):
    kind = "generate_until"

    def requests(self, document: Mapping[str, Any]) -> list[Request]:
        context = " ".join(["so"] * 5)
        return [Request(context, " Rome it is", "generate_until", ("\n",), 32)]


@pytest.fixture
def places(host: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TASKS, "_local", {})
    TASKS.add("places", Places)
    TASKS.add("places:said", PlacesSaid)
    forget()


def test_a_prompt_longer_than_the_context_is_refused_as_by_the_scorer(
    host: None, llama: Any, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match=r"bio_recall: \d+ \+ \d+ tokens .* context of 6;"):
        built("bio_recall", 6, context_kwargs={"dataset": BIO})
    spec = {"task_name": "bio_recall", "context_kwargs": {"dataset": BIO}}
    with pytest.raises(DataError, match=r"bio_recall: \d+ \+ \d+ tokens .* context of 24;"):
        evaluate(llama(9, 24), [spec], tmp_path, device="cpu")
    assert built("bio_recall", 96, context_kwargs={"dataset": BIO})._instances


def test_an_answer_is_generated_in_the_room_that_its_prompt_leaves(places: None) -> None:
    for context, room in ((100, 32), (20, 15), (8, 3)):
        (instance,) = built("places:said", context)._instances
        assert instance.request.generation_kwargs["max_gen_toks"] == room
    with pytest.raises(SystemExit, match=r"a prompt of 5 tokens .* and an answer of 3 are more"):
        built("places:said", 7)


def test_a_tokenizer_that_breaks_answers_is_refused_as_by_the_scorer() -> None:
    class Whole:
        def encode(self, text: str, add_special_tokens: bool) -> list[int]:
            return [len(text)] * (1 + len(text) // 9)

    task = catalog.make_task("bio_recall", {"context_kwargs": {"dataset": BIO}})
    reader = olmes_model.Reader(Whole(), 100)
    with pytest.raises(CheckpointError, match="the tokenizer breaks prefix stability"):
        olmes_model.fitted(task, [Request("Ann was born", " in Rome")], reader)


def test_a_start_before_every_text_counts() -> None:
    task = catalog.make_task("bio_recall", {"context_kwargs": {"dataset": BIO}})
    requests = [Request("one two three", " four five")]
    olmes_model.fitted(task, requests, olmes_model.Reader(Words(4).tokenizer, 4))
    with pytest.raises(DataError, match=r"4 \+ 2 tokens"):
        olmes_model.fitted(task, requests, olmes_model.Reader(Words(4).tokenizer, 4, starts=True))


def test_a_requests_own_context_reaches_olmes(places: None) -> None:
    asked = [i.request.context for i in built("places", 64)._instances]
    assert asked == ["Italy has", "Italy is ruled from"]


@pytest.mark.parametrize(
    ("prompt", "query", "context", "wanted"),
    [
        ("Say. Q", "Q", "Q", "Say. Q"),  # the query is asked as OLMES has it
        ("Q", "Q", "Q and R", "Q and R"),
        ("Q: say Q. Go", "Q", "R", "Q: say R. Go"),
        ("", "", "R", "R"),
    ],
)
def test_olmes_keeps_its_words_around_a_requests_context(
    prompt: str, query: str, context: str, wanted: str
) -> None:
    assert olmes_model.placed(prompt, query, context) == wanted
    chat = {"messages": [{"role": "user", "content": prompt}], "assistant_prefix": "A:"}
    said = olmes_model.placed(chat, query, context)
    assert said["messages"] == [{"role": "user", "content": wanted}]
    assert said["assistant_prefix"] == "A:"
    assert chat["messages"][0]["content"] == prompt


@pytest.mark.parametrize("query", ["", "elsewhere"])
def test_a_context_without_a_place_is_refused(query: str) -> None:
    with pytest.raises(ConfigError, match="has no place for a context of its own, 'R'"):
        olmes_model.placed("Say.", query, "R")


def test_the_folder_is_the_path_that_olmes_takes(tmp_path: Path) -> None:
    there = str(tmp_path)
    folder = olmes_model.folder_of
    assert folder({"model": "tiny", "model_path": ["/nowhere/at/all", there]}) == there
    assert folder({"model": "tiny", "model_path": [f"hf://{there}", "/nowhere"]}) == there
    assert folder({"model_path": "weka://nowhere/m"}) == "/weka-mount/nowhere/m"
    assert folder({"model": there, "model_path": None}) == there
    assert folder({}) is None


def test_an_olmes_without_set_model_says_what_is_not_checked(
    host: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from oe_eval.tasks import base_task
    from oe_eval.tasks.oe_eval_tasks import TASK_REGISTRY

    monkeypatch.delattr(base_task.Task, "set_model")
    settings = {"context_kwargs": {"dataset": BIO}, "limit": 2}
    task = TASK_REGISTRY["bio_recall"](task_name="bio_recall", task_config=settings)
    task.build_all_requests()
    assert len(task._instances) == 2
    assert "bio_recall: this OLMES (before 2025-03) doesn't tell" in capsys.readouterr().err
    name = "domain_loss:documents"
    whole = TASK_REGISTRY[name](task_name=name, task_config=settings)
    with pytest.raises(SystemExit, match="reads 2048 tokens at once, whatever the model's"):
        whole.build_all_requests()


def test_settings_that_an_olmes_does_not_know_are_left_out(
    host: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from oe_eval import default_configs

    name = "bio_recall:bpb::mixlaw"
    assert olmes.task_configs()[name]["compute_gold_bpb"] is True
    monkeypatch.delitem(default_configs.TASK_DEFAULTS, "compute_gold_bpb")
    assert "compute_gold_bpb" not in olmes.task_configs()[name]
