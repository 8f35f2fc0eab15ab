"""In-loop evaluators and learning-rate schedules, through the real Trainer."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("olmo")

from olmo.model import OLMo

from olmo_mixlaw.datasets import load_tokenizer, open_dataset
from olmo_mixlaw.training.config import load
from olmo_mixlaw.training.launch import train
from olmo_mixlaw.training.schedulers import WarmupStableDecay

Write = Callable[..., Path]

BIO = "mixlaw:biography?n=8&seed=1&templates=1"


def evals(folder: Path) -> dict[tuple[int, str], float]:
    with open(folder / "evals.csv", newline="") as file:
        return {(int(r["step"]), r["metric"]): float(r["value"]) for r in csv.DictReader(file)}


def with_evaluators(write: Write, name: str = "run", **changes: object) -> Path:
    model = load(write(name)).plain()["model"]
    model.update(max_sequence_length=96)
    evaluators = [
        {"label": "heldout", "type": "heldout", "n_items": 12, "datasets": {"people": BIO}},
        {"label": "recall", "type": "exact_match", "n_items": 10, "datasets": {"people": BIO}},
    ]
    return write(
        name,
        model=model,
        evaluators=evaluators,
        eval_interval=6,
        device_eval_batch_size=5,
        **changes,
    )


def test_heldout_loss_and_recall_are_those_of_a_plain_forward_pass(write: Write) -> None:
    path = with_evaluators(write)
    final = train(path)
    found = evals(final.parent)
    assert {step for step, _ in found} == {6, 12}

    config = load(path)
    config.model.init_device, config.model.precision = "cpu", "fp32"
    model = OLMo(config.model)
    model.load_state_dict(torch.load(final / "model.pt", weights_only=True))
    model.eval()
    tokenizer, dataset = load_tokenizer(config.tokenizer.identifier), open_dataset(BIO)
    ids = [i for text in dataset.heldout() for i in [*tokenizer.encode(text).ids, 0]]
    rows = torch.tensor(ids[: 12 * 96]).view(12, 96)
    with torch.no_grad():
        logits = model(rows).logits[:, :-1]
    loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), rows[:, 1:]).item()
    assert found[12, "eval/heldout/people/CrossEntropyLoss"] == pytest.approx(loss, rel=1e-5)

    questions = dataset.questions()
    bits = []
    for i in np.linspace(0, len(questions) - 1, 10).astype(int):
        prompt = tokenizer.encode(questions[i].prompt).ids
        whole = tokenizer.encode(f"{questions[i].prompt} {questions[i].answer}").ids
        with torch.no_grad():
            logs = model(torch.tensor([whole])).logits[0].log_softmax(-1)
        answer = range(len(prompt), len(whole))
        bits.append(-sum(logs[t - 1, whole[t]].item() for t in answer) / math.log(2))
    assert found[12, "eval/recall/people/answer_bits"] == pytest.approx(np.mean(bits), rel=1e-4)
    assert 0 <= found[12, "eval/recall/people/exact_match"] <= 1


def test_held_out_text_is_encoded_as_training_text_is(write: Write, tokens: Path) -> None:
    """A template that puts a start before every text changes no evaluation, as no training."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = load_tokenizer(tokens / "tokenizer.json")
    tokenizer.post_processor = TemplateProcessing(
        single="<|padding|> $A", special_tokens=[("<|padding|>", 1)]
    )
    start = tokens / "start.json"
    tokenizer.save(str(start))
    assert tokenizer.encode("1").ids[0] == 1
    plain = with_evaluators(write, "plain")
    with_start = with_evaluators(write, "start", tokenizer={"identifier": str(start)})
    folders = [train(path).parent for path in (plain, with_start)]
    assert evals(folders[0]) == evals(folders[1])


def test_sources_that_a_mixture_file_names_are_evaluated_as_those_in_the_training_file(
    write: Write, tmp_path: Path
) -> None:
    import yaml

    mixture = tmp_path / "m.yaml"
    mixture.write_text(yaml.safe_dump({"sources": {"people": [BIO]}, "ratios": {"people": 1.0}}))
    evaluators = [{"label": "heldout", "type": "heldout", "n_items": 4}]
    here = {"data": {"datasets": {"people": [BIO]}}, "mixture": {"ratios": {"people": 1.0}}}
    there = {"data": {}, "mixture": {"file": str(mixture)}}
    found = [
        evals(train(write(name, evaluators=evaluators, max_duration=2, **where)).parent)
        for name, where in (("here", here), ("there", there))
    ]
    assert list(found[0]) == [(2, "eval/heldout/people/CrossEntropyLoss")]
    assert found[0] == found[1]


def test_evaluations_are_the_same_after_a_stop(write: Write) -> None:
    whole = train(with_evaluators(write, "whole")).parent
    config = with_evaluators(write, "parts")
    train(config, ["stop_at=7"])
    folder = config.with_suffix("")
    # As if killed after the checkpoint of step 12 but before its evaluation.
    train(config)
    lines = (folder / "evals.csv").read_text().splitlines(keepends=True)
    (folder / "evals.csv").write_text("".join(line for line in lines if not line.startswith("12")))
    train(config)
    assert (folder / "evals.csv").read_bytes() == (whole / "evals.csv").read_bytes()


@pytest.mark.slow
def test_a_model_that_learns_the_answers_recalls_them(write: Write) -> None:
    """One person's five sentences in one order: enough steps make every answer exact."""
    one = "mixlaw:biography?n=1&seed=1&templates=1"
    model = load(write()).plain()["model"]
    model.update(max_sequence_length=96, d_model=32, mlp_hidden_size=64)
    final = train(
        write(
            "learn",
            model=model,
            data={"datasets": {"people": [one]}},
            mixture=None,
            evaluators=[{"label": "recall", "type": "exact_match"}],
            max_duration=300,
            save_interval_unsharded=300,
            metrics_interval=50,
            eval_interval=1000,
            optimizer={"name": "adamw", "learning_rate": 2e-2},
        )
    )
    found = evals(final.parent)
    assert found[300, "eval/recall/people/exact_match"] == 1.0
    assert found[300, "eval/recall/people/answer_bits"] < 1.0


def test_wsd_warms_up_holds_and_decays_over_the_last_part() -> None:
    rate = WarmupStableDecay(
        grad_clip_warmup_steps=None,
        grad_clip_warmup_factor=None,
        warmup_min_lr=0.0,
        warmup=10,
        decay_fraction=0.2,
        alpha_f=0.1,
    )
    values = [rate.get_lr(1.0, step, 100) for step in (0, 5, 10, 50, 80, 90, 100, 110)]
    assert values == pytest.approx([0, 0.5, 1, 1, 1, 0.55, 0.1, 0.1])


def test_the_ladders_schedule_warms_up_over_as_many_tokens_as_parameters(write: Write) -> None:
    path = write(
        scheduler={"name": "ladder", "units": "tokens", "alpha_f": 0.0, "warmup_min_lr": 0.0},
        max_duration=60,
        save_interval_unsharded=60,
    )
    final = train(path)
    rows = np.genfromtxt(final.parent / "metrics.csv", delimiter=",", names=True)
    config = load(path)
    config.model.init_device = "cpu"
    n_params = OLMo(config.model).num_params(include_embedding=False)
    warm = rows["tokens"] < n_params
    assert 5 < warm.sum() < 50
    peak = 1e-2
    np.testing.assert_allclose(
        rows["learning_rate"][warm], peak * rows["tokens"][warm] / n_params, rtol=1e-9
    )
    assert rows["learning_rate"][-1] == 0.0
    assert rows["learning_rate"][53] == peak


def test_mixture_json_counts_tokens_by_source_and_stage_and_exposures(write: Write) -> None:
    import json

    schedule = {
        "units": "steps",
        "knots": [
            {"at": 0, "ratios": {"people": 0.25, "high": 0.75}},
            {"at": 8, "ratios": {"people": 0.75, "high": 0.25}},
        ],
    }
    data = {"datasets": {**load(write()).data.datasets, "people": [BIO]}}
    data["datasets"].pop("low")
    path = write(data=data, mixture={"schedule": schedule, "block_size": 32})
    record = json.loads((train(path).parent / "mixture.json").read_text())
    length, batch = 16, 8
    assert record["tokens"] == 12 * batch * length
    first, second = record["stages"]
    assert (first["steps"], second["steps"]) == ([0.0, 8.0], [8.0, 12.0])
    assert first["sources"]["people"]["achieved_tokens"] == 8 * batch * length // 4
    assert second["sources"]["people"]["achieved_tokens"] == 4 * batch * length * 3 // 4
    people = record["sources"]["people"]
    assert people["achieved_tokens"] == people["asked_tokens"] == (16 + 24) * length
    assert people["exposures_a_fact"]["facts"] == 8
    assert record["sources"]["high"]["epochs"] == pytest.approx((48 + 8) / 2500)


def test_a_source_that_ends_stops_the_run_where_asked(write: Write) -> None:
    # 250 sequences of `low`, two or three of each batch of eight.
    ratios = {"ratios": {"low": 0.3, "high": 0.7}, "repetition": "stop", "max_epochs": 0.1}
    final = train(write(mixture=ratios, max_duration=100))
    steps = int(final.name.removeprefix("step").removesuffix("-unsharded"))
    assert 9 <= steps <= 11
    rows = np.genfromtxt(final.parent / "metrics.csv", delimiter=",", names=True)
    assert rows["epochs_low"][-1] <= 0.1
