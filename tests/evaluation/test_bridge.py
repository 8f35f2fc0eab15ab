"""The bridge asks OLMES's model what the embedded scorer asks, and scores it the same way."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from rounding import SCORES

from olmo_mixlaw.cli.app import run as run_command
from olmo_mixlaw.cli.doctor import doctor
from olmo_mixlaw.cli.olmes import olmes as olmes_command
from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.evaluation import catalog, evaluate, generation, olmes, scorer
from olmo_mixlaw.evaluation.language_model import LanguageModel, stated_length
from olmo_mixlaw.evaluation.loading import load_model
from olmo_mixlaw.evaluation.tasks import Request
from olmo_mixlaw.plugin import TABLES

STANDIN = Path(__file__).parent / "standin"
BIO = "mixlaw:biography?n=12&pools=major:6,birth_city:8,university:8,employer:8&templates=2"


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The stand-in for OLMES, importable for one test."""
    monkeypatch.syspath_prepend(str(STANDIN))
    olmes.tasks.cache_clear()
    yield
    olmes.tasks.cache_clear()
    for name in [m for m in sys.modules if m.partition(".")[0] == "oe_eval"]:
        del sys.modules[name]


class Hosted:
    """What OLMES hands a task as its model: the module, and a tokenizer of HuggingFace's kind."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = getattr(model, "model", None)
        self.tokenizer = SimpleNamespace(
            encode=lambda text, add_special_tokens: model.encode([text])[0]
        )


def in_host(name: str, settings: dict[str, Any], model: LanguageModel) -> dict[str, Any]:
    """Run a task as OLMES does: documents, requests, the model's answers, metrics."""
    from oe_eval.tasks.oe_eval_tasks import TASK_REGISTRY

    task = TASK_REGISTRY[name](task_name=name, task_config=settings)
    task.download()
    task.set_model(Hosted(model), {"model": "tiny", "model_path": model.config["model_path"]})
    task.build_all_requests()
    results = []
    for instance in task._instances:
        results.append(
            {
                "doc_id": instance.doc_id,
                "native_id": instance.native_id,
                "idx": instance.idx,
                "doc": instance.doc,
                "request": vars(instance.request),
                "label": instance.label,
                "model_resps": answer(model, instance),
            }
        )
    task.make_metrics()
    (metric,) = task._metrics
    metric.compute_for_docs(results)
    return metric.aggregate_to_task(primary_metric=task.task_config["primary_metric"])


def answer(model: LanguageModel, instance: Any) -> dict[str, Any]:
    asked = instance.request
    if instance.request_type == "loglikelihood":
        encoded = scorer.encode_pairs(
            model, [(asked.context, asked.continuation)], strict=False, truncate=False, where=""
        )
        return scorer.loglikelihoods(model, encoded)[0].as_dict()
    if instance.request_type == "loglikelihood_rolling":
        return scorer.rolling(model, [asked.context])[0]
    request = Request(
        asked.context,
        kind="generate_until",
        stop=tuple(asked.stop_sequences),
        max_tokens=asked.generation_kwargs["max_gen_toks"],
    )
    return generation.generate(model, [request])[0]


@pytest.mark.parametrize(
    ("name", "context"),
    [
        ("bio_recall", {}),
        ("bio_recall:major", {}),
        ("bio_recall:mc", {}),
        ("bio_recall:bpb", {}),
        ("bio_recall:gen", {}),
        ("domain_loss:documents", {"domain": "bio", "max_documents": 5}),
        ("max_over_n:bpb", {"dataset": "mixlaw:max_over_n?n=3&high=10"}),
    ],
)
def test_host_and_embedded_scorer_agree(
    host: None, checkpoint: Path, tmp_path: Path, name: str, context: dict[str, Any]
) -> None:
    model = load_model(checkpoint, device="cpu")
    settings = {"limit": 8, "context_kwargs": context}
    theirs = in_host(name, settings, model)
    frame = evaluate(model, [{"task_name": name, **settings}], tmp_path)
    ours = dict(zip(frame["metric"], frame["value"], strict=True))
    assert set(ours) == {k for k, v in theirs.items() if isinstance(v, (int, float))}
    for metric, value in ours.items():
        assert theirs[metric] == pytest.approx(value, rel=SCORES, abs=SCORES), metric


def test_every_hosted_task_has_settings_and_a_class(host: None) -> None:
    names = olmes.hosted()
    assert set(olmes.task_configs()) == {name + "::mixlaw" for name in names}
    assert set(olmes.tasks()) - {"domain_loss", "domain_loss::mixlaw"} == set(names)
    for name, settings in olmes.task_configs().items():
        assert settings["task_name"] + "::mixlaw" == name
        cls = olmes.tasks()[settings["task_name"]]
        # OLMES builds the task from the settings without its name, and refuses unknown keys.
        given = {k: v for k, v in settings.items() if k != "task_name"}
        assert (
            cls(task_name=settings["task_name"], task_config=given).unconditioned_prompt() is None
        )


def test_suites_name_hosted_tasks_only(host: None) -> None:
    suites = olmes.task_suites()
    assert {"mixlaw", "reasoning", "attributes"} <= set(suites)
    assert "olmes-rc" not in suites
    for suite in suites.values():
        assert set(suite["tasks"]) <= set(olmes.task_configs())


def test_users_mistake_ends_olmes_with_one_line(host: None, hugging_face: Path) -> None:
    from oe_eval.tasks.oe_eval_tasks import TASK_REGISTRY

    task = TASK_REGISTRY["bio_recall"](task_name="bio_recall", task_config={})
    task.set_model(None, {"model": str(hugging_face)})
    with pytest.raises(SystemExit, match=r"error: bio_recall: context_kwargs\.dataset is missing"):
        task.build_all_requests()


def test_context_settings_of_olmes_itself_are_let_through(host: None, checkpoint: Path) -> None:
    from oe_eval.tasks.oe_eval_tasks import TASK_REGISTRY

    settings = {"context_kwargs": {"dataset": BIO, "description": None}, "limit": 2}
    task = TASK_REGISTRY["bio_recall"](task_name="bio_recall", task_config=settings)
    task.build_all_requests()
    assert len(task._instances) == 2


def test_tables_are_where_the_bridge_looks(host: None) -> None:
    import importlib

    for module, (table, _) in TABLES.items():
        assert isinstance(getattr(importlib.import_module(module), table), dict)


def test_fallback_without_olmes_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(olmes_command, ["--list-tasks"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: OLMES (oe_eval) is not installed")
    assert "olmo-mixlaw evaluate" in error


def test_doctor_reports_a_line_a_check() -> None:
    result = CliRunner().invoke(doctor)
    names = ("olmo-mixlaw", "PyTorch", "OLMo trainer", "start-up hook", "OLMES plugins")
    for name in names:
        assert name in result.output
    assert "Traceback" not in result.output


def test_unknown_command_line_task_is_one_line(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from olmo_mixlaw.cli.evaluate import evaluate as command

    code = run_command(command, [str(checkpoint), "-t", "bio_recal", "-o", str(tmp_path)])
    assert code == 2
    assert "did you mean 'bio_recall'" in capsys.readouterr().err


def test_command_line_scores_and_writes(checkpoint: Path, tmp_path: Path) -> None:
    from olmo_mixlaw.cli.evaluate import evaluate as command

    arguments = [str(checkpoint), "-t", "bio_recall", "--limit", "4", "-o", str(tmp_path)]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    assert "exact_match" in result.output
    assert (tmp_path / "metrics.json").is_file()


def test_command_line_lists_every_task() -> None:
    from olmo_mixlaw.cli.evaluate import evaluate as command

    listed = CliRunner().invoke(command, ["--list-tasks"]).output.split()
    assert {*catalog.task_names(), *catalog.suite_names()} <= set(listed)


class Loaded:
    """What OLMES hands a task as its model: an object whose `model` has a configuration."""

    def __init__(self, context: int) -> None:
        self.model = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=context))


def made(name: str = "bio_recall", **settings: Any) -> Any:
    from oe_eval.tasks.oe_eval_tasks import TASK_REGISTRY

    return TASK_REGISTRY[name](task_name=name, task_config=settings)


def test_a_task_reads_no_more_than_the_models_context(host: None, hugging_face: Path) -> None:
    asked = {"model_path": str(hugging_face), "max_length": 2048}
    task = made()
    task.set_model(Loaded(128), asked)
    assert task.task_config["model_max_length"] == 128
    by_folder = made()
    by_folder.set_model(None, asked)  # the model is loaded in other processes
    assert by_folder.task_config["model_max_length"] == 96
    shorter = made()
    shorter.set_model(Loaded(128), {**asked, "max_length": 64})
    assert not shorter.task_config.get("model_max_length")
    longer = made(model_max_length=256)
    with pytest.raises(SystemExit, match="model_max_length: 256: the model's context is 128"):
        longer.set_model(Loaded(128), asked)


def test_an_olmes_without_a_tasks_own_length_is_refused(
    host: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib

    defaults = importlib.import_module("oe_eval.default_configs").TASK_DEFAULTS
    monkeypatch.delitem(defaults, "model_max_length")
    with pytest.raises(
        SystemExit, match=r'2048 tokens .* add to --model-args: {"max_length": 128}'
    ):
        made().set_model(Loaded(128), {"model": "tiny", "max_length": 2048})


def test_the_files_say_what_was_asked_and_the_hash_depends_on_it(
    host: None, checkpoint: Path
) -> None:
    from oe_eval.utils import hash_dict

    found = {}
    for dataset in (None, BIO + "&seed=3"):
        task = made(context_kwargs={"dataset": dataset} if dataset else {})
        task._task_hash = hash_dict(task.task_config, {})
        kept = task._task_hash
        before = kept["hash"]
        task.set_model(None, {"model_path": [str(checkpoint), "elsewhere"]})
        task.build_all_requests()
        found[task.task_config["context_kwargs"]["dataset"]] = kept["hash"]
        if not dataset:
            assert kept["hash"] != before
    assert set(found) == {BIO, BIO + "&seed=3"}
    assert len(set(found.values())) == 2


def test_an_olmes_that_names_no_model_to_its_tasks_needs_the_dataset(host: None) -> None:
    task = made(context_kwargs={"dataset": BIO}, limit=2)
    del task.model_config
    task.build_all_requests()
    assert len(task._instances) == 2
    other = made()
    del other.model_config
    with pytest.raises(SystemExit, match=r"context_kwargs\.dataset is missing"):
        other.build_all_requests()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_shots": 5}, "bio_recall: num_shots: 5: .* have 0 only"),
        ({"split": "train"}, "bio_recall: split: 'train': .* have 'test' only"),
    ],
)
def test_examples_from_the_asked_questions_are_refused(
    host: None, settings: dict[str, Any], message: str
) -> None:
    task = made(context_kwargs={"dataset": BIO}, **settings)
    with pytest.raises(SystemExit, match=message):
        task.build_all_requests()
    with pytest.raises(ConfigError, match=f"task bio_recall: {next(iter(settings))}: "):
        catalog.make_task("bio_recall", settings)


def test_a_suite_of_several_sources_does_not_stop_olmes(host: None) -> None:
    assert olmes.task_suites()["mixlaw"]["tasks"] == [
        "bio_recall::mixlaw",
        "bio_recall:mc::mixlaw",
        "bio_recall:bpb::mixlaw",
    ]


@pytest.mark.parametrize("name", ["domain_loss", "domain_loss::mixlaw"])
def test_plain_olmes_says_which_name_to_use_instead(host: None, name: str) -> None:
    from oe_eval.tasks.oe_eval_tasks import TASK_REGISTRY

    assert name not in olmes.task_configs()  # so that OLMES's lists don't offer it
    with pytest.raises(SystemExit) as ended:  # OLMES makes every task before it loads the model
        TASK_REGISTRY[name](task_name=name, task_config={})
    assert str(ended.value) == (
        f"error: {name}: needs the tokens of text, which OLMES doesn't hand out; ask for "
        "domain_loss:documents::mixlaw, or score it with: olmo-mixlaw evaluate MODEL -t domain_loss"
    )


@pytest.mark.parametrize("name", ["domain_loss", "domain_loss::mixlaw"])
def test_a_task_that_olmes_can_not_run_is_told_with_the_one_to_ask_for(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(olmes_command, ["--task", name]) == 2
    assert "ask for domain_loss:documents::mixlaw, or score it with" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("said", "length"), [({"max_sequence_length": 64}, 64), ({"n_ctx": 0}, None), ({}, None)]
)
def test_the_context_is_the_one_that_the_model_says(
    said: dict[str, int], length: int | None
) -> None:
    assert stated_length(SimpleNamespace(**said)) == length
