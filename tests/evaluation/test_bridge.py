"""The bridge asks OLMES's model what the embedded scorer asks, and scores it the same way."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rounding import SCORES

from olmo_mixlaw.cli.app import run as run_command
from olmo_mixlaw.cli.doctor import doctor
from olmo_mixlaw.cli.olmes import olmes as olmes_command
from olmo_mixlaw.evaluation import catalog, evaluate, generation, olmes, scorer
from olmo_mixlaw.evaluation.language_model import LanguageModel
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


def in_host(name: str, settings: dict[str, Any], model: LanguageModel) -> dict[str, Any]:
    """Run a task as OLMES does: documents, requests, the model's answers, metrics."""
    from oe_eval.tasks.oe_eval_tasks import TASK_REGISTRY

    task = TASK_REGISTRY[name](task_name=name, task_config=settings)
    task.download()
    task.set_model(model, {"model": "tiny", "model_path": model.config["model_path"]})
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
    assert set(olmes.tasks()) == set(names)
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
