"""Every task of the registry works everywhere: ours, a package's, and one added in a notebook."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from olmo_mixlaw.cli.app import app
from olmo_mixlaw.cli.app import run as run_command
from olmo_mixlaw.errors import ConfigError, ExtensionError, UnknownNameError
from olmo_mixlaw.evaluation import catalog, evaluate, olmes
from olmo_mixlaw.evaluation.held_out import DomainLoss
from olmo_mixlaw.evaluation.language_model import LanguageModel
from olmo_mixlaw.evaluation.provenance import Record, with_datasets
from olmo_mixlaw.evaluation.tasks import Request, Task, TextTask
from olmo_mixlaw.registry import TASKS

STANDIN = Path(__file__).parent / "standin"
QUIZ = """
from typing import ClassVar
from olmo_mixlaw.evaluation.tasks import Request, Task

class Capitals(Task):
    metrics: ClassVar = ("exact_match",)
    parameters: ClassVar = ("continent",)

    def items(self):
        known = {"Rome": "Europe", "Cairo": "Africa"}
        wanted = self.parameter("continent")
        return [
            {"id": city, "query": "The capital is", "answer": city}
            for city, continent in known.items() if wanted in (None, continent)
        ]

    def requests(self, document):
        return [Request(document["query"], " " + document["answer"])]

    def score(self, document, answers):
        return {"exact_match": int(answers[0]["is_greedy"])}

class African(Capitals):
    context: ClassVar = {"continent": "Africa"}
"""
POINTS = "capitals = my_quiz:Capitals\ncapitals:africa = my_quiz:African"


class Greeting(Task):
    """One document of its own, and no dataset."""

    metrics = ("exact_match",)

    def items(self) -> list[dict[str, Any]]:
        return [{"id": "hello", "query": "Hello", "answer": "Ada"}]

    def requests(self, document: Any) -> list[Request]:
        return [Request(document["query"], " " + document["answer"])]

    def score(self, document: Any, answers: Any) -> dict[str, Any]:
        return {"exact_match": int(answers[0]["is_greedy"])}


class Nonsense(TextTask):
    """Text that is no dataset's, read as training reads it."""

    metrics = ("loss",)

    def texts(self) -> list[str]:
        return ["He was born in Rome. " * 200]

    def score(self, document: Any, answers: Any) -> dict[str, Any]:
        return {"loss": -answers[0]["sum_logits"] / answers[0]["num_tokens"]}


def forget() -> None:
    """What was found in the registry is looked for again."""
    vars(TASKS).pop("_installed", None)
    for cached in (catalog._usable, olmes.hosted, olmes.tasks):
        cached.cache_clear()


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing that a test adds or installs is left to the next."""
    monkeypatch.setattr(TASKS, "_local", {})
    forget()
    yield
    monkeypatch.undo()
    forget()


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Installs the package `my-quiz`: the source of its module, and its entry points."""

    def make(source: str, points: str) -> None:
        folder = tmp_path / "site"
        info = folder / "my_quiz-1.0.dist-info"
        info.mkdir(parents=True)
        (folder / "my_quiz.py").write_text(source)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-quiz\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{TASKS.group}]\n{points}\n")
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.delitem(sys.modules, "my_quiz", raising=False)

    return make


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The stand-in for OLMES, importable for one test."""
    monkeypatch.syspath_prepend(str(STANDIN))
    yield
    for name in [m for m in sys.modules if m.partition(".")[0] == "oe_eval"]:
        del sys.modules[name]


@pytest.mark.parametrize("name", TASKS.names())
def test_every_task_is_made_by_its_name_and_says_what_it_is(name: str) -> None:
    task = catalog.make_task(name, {})
    assert isinstance(task, Task)
    assert task.name == name
    assert task.config.primary_metric == task.metrics[0]
    assert set(task.context) <= set(task.parameters)
    if task.every_source:
        assert {"dataset", "domain"} <= set(task.parameters)
    json.dumps(task.config.as_dict())
    with_suffix = catalog.make_task(name + "::mixlaw", {})
    assert with_suffix.config.task_name == name
    assert with_suffix.name == name + "::mixlaw"


def test_a_variant_is_its_task_with_a_setting_that_may_be_changed() -> None:
    assert catalog.make_task("bio_recall:major", {}).parameter("attribute") == "major"
    other = catalog.make_task("bio_recall:major", {"context_kwargs": {"attribute": "employer"}})
    assert other.parameter("attribute") == "employer"


def test_a_task_added_by_hand_is_scored(model: LanguageModel, tmp_path: Path) -> None:
    TASKS.add("greeting", Greeting)
    TASKS.add("greeting:loud", Greeting)
    assert {"greeting", "greeting:loud"} <= set(catalog.task_names())
    frame = evaluate(model, ["greeting", "greeting:loud::mixlaw"], tmp_path)
    assert list(frame["task"].unique()) == ["greeting", "greeting:loud::mixlaw"]
    assert set(frame["n_instances"]) == {1}


def test_text_of_a_task_added_by_hand_is_cut_as_in_training(
    model: LanguageModel, tmp_path: Path
) -> None:
    TASKS.add("nonsense", Nonsense)
    spec = {"task_name": "nonsense", "context_kwargs": {"max_tokens": 96, "sequence_length": 24}}
    frame = evaluate(model, [spec], tmp_path)
    assert set(frame["n_instances"]) == {4}
    assert "nonsense" not in olmes.hosted()


def test_a_task_of_every_source_needs_no_name_of_ours() -> None:
    class Also(DomainLoss):
        """The same under a package's name."""

    TASKS.add("also", Also)
    record = Record({"a": ["mixlaw:text?corpus=code"], "b": ["mixlaw:text?corpus=wikipedia"]})
    found = with_datasets(catalog.resolve(["also"]), record)
    assert [task.name for task in found] == ["also:a", "also:b"]
    assert found[1].parameter("dataset") == "mixlaw:text?corpus=wikipedia"


def test_a_task_of_a_package_is_listed_scored_and_offered_to_olmes(
    install: Callable[[str, str], None], host: None, checkpoint: Path, tmp_path: Path
) -> None:
    install(QUIZ, POINTS)
    listed = CliRunner().invoke(app, ["evaluate", "--list-tasks"]).output.split()
    assert {"capitals", "capitals:africa", "bio_recall"} <= set(listed)
    output = tmp_path / "scores"
    arguments = ["-t", "capitals", "-t", "capitals:africa", "-o", str(output)]
    assert run_command(app, ["evaluate", str(checkpoint), *arguments]) == 0
    lines = (output / "metrics-all.jsonl").read_text().splitlines()
    counts = {row["task_name"]: row["num_instances"] for row in map(json.loads, lines)}
    assert counts == {"capitals": 2, "capitals:africa": 1}
    settings = olmes.task_configs()["capitals:africa::mixlaw"]
    assert settings["context_kwargs"] == {"continent": "Africa"}
    hosted = olmes.tasks()["capitals:africa"](
        task_name="capitals:africa",
        task_config={k: v for k, v in settings.items() if k != "task_name"},
    )
    hosted.build_all_requests()
    assert [instance.native_id for instance in hosted._instances] == ["Cairo"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import absent_module", "can't be loaded (ModuleNotFoundError"),
        ("class Capitals: pass", "must be a subclass of olmo_mixlaw.evaluation.tasks.Task"),
    ],
)
def test_a_broken_package_is_named_once_and_breaks_nothing(
    install: Callable[[str, str], None],
    host: None,
    capsys: pytest.CaptureFixture[str],
    source: str,
    said: str,
) -> None:
    install(source, "capitals = my_quiz:Capitals")
    assert "bio_recall" in catalog.task_names()
    assert "capitals" not in catalog.task_names()
    assert "bio_recall::mixlaw" in olmes.task_configs()
    assert "mixlaw" in olmes.task_suites()
    assert set(olmes.tasks()) >= set(olmes.hosted())
    assert "capitals" not in olmes.tasks()
    (line,) = capsys.readouterr().err.splitlines()
    assert "task 'capitals' of package 'my-quiz'" in line
    assert said in line
    with pytest.raises(ExtensionError, match="task 'capitals' of package 'my-quiz'"):
        catalog.resolve(["capitals"])


def test_a_task_that_fails_takes_none_of_ours_from_olmes(
    host: None, capsys: pytest.CaptureFixture[str]
) -> None:
    class Unfinished(Greeting):
        """Has no metric."""

        metrics = ()

    TASKS.add("unfinished", Unfinished)
    assert "unfinished" not in olmes.tasks()
    assert "bio_recall" in olmes.tasks()
    (line,) = capsys.readouterr().err.splitlines()
    assert "task 'unfinished' of " in line


@pytest.mark.parametrize("name", ["piqa:rc_0shot", "piqa:rc::olmes", "reasoning"])
def test_names_of_suites_and_of_olmes_keep_their_meaning(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    TASKS.add(name, Greeting)
    assert name not in catalog.task_names()
    assert f"task {name!r} of " in capsys.readouterr().err
    assert not any(isinstance(task, Greeting) for task in catalog.resolve([name]))


def test_an_unknown_name_is_told_with_the_nearest_of_all() -> None:
    TASKS.add("greeting", Greeting)
    for asked, nearest in (
        ("greating", "greeting"),
        ("bio_recal", "bio_recall"),
        ("piqa:rc_0sht", "piqa:rc_0shot"),
        ("reasonin", "reasoning"),
    ):
        with pytest.raises(UnknownNameError, match=f"did you mean '{nearest}'"):
            catalog.resolve([asked])


def test_a_missing_dataset_is_told_before_the_model_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dataset is missing.*mixlaw:max_over_n\?"):
        evaluate(tmp_path, ["max_over_n"], tmp_path / "out")


def test_a_task_with_and_without_the_suffix_is_asked_for_once() -> None:
    with pytest.raises(ConfigError, match="task 'bio_recall::mixlaw' is asked for twice"):
        catalog.resolve(["bio_recall", "bio_recall::mixlaw"])


@pytest.mark.parametrize("limit", [0, -1, 1.5, float("nan"), float("inf"), True, "5"])
def test_a_limit_that_is_no_number_of_documents_is_refused(limit: object) -> None:
    with pytest.raises(ConfigError, match=r"limit: .*: expected a positive whole number, or a sha"):
        catalog.resolve([{"task_name": "bio_recall", "limit": limit}])
