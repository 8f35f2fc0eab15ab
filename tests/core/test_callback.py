"""Losses by source, evaluations and endings of runs on OLMo-core."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import core_run
import pytest
import torch
from core_run import BATCH, LENGTH, ROWS, STEPS, seen, trainer, weights
from olmo_core.nn.lm_head import LMLossImplementation
from olmo_core.train import Trainer
from olmo_core.train.train_module import TransformerTrainModule

from olmo_mixlaw.datasets import load_tokenizer, open_dataset
from olmo_mixlaw.errors import ConfigError, DataError, NonFiniteLossError, StoppedError
from olmo_mixlaw.mixture.domains import DomainSums, items_of
from olmo_mixlaw.training_core import callback
from olmo_mixlaw.training_core.callback import MixtureCallback, check_module
from olmo_mixlaw.training_core.endings import exit_codes
from olmo_mixlaw.training_core.evaluators import MixtureEvaluatorConfig
from olmo_mixlaw.training_core.exact_head import exact_logits

BIO = "mixlaw:biography?n=8&seed=1&templates=1"


def rows(folder: Path, name: str = "metrics.csv") -> list[dict[str, str]]:
    with open(folder / name, newline="") as file:
        return list(csv.DictReader(file))


def test_losses_by_source_are_those_of_a_plain_forward_pass(tokens: Path, tmp_path: Path) -> None:
    run = trainer(tokens, tmp_path / "run", steps=1, micro=BATCH)
    before, loader = weights(run), run.data_loader
    run.fit()
    model = core_run.model_config().build(init_device="cpu")
    model.load_state_dict(before)
    batch = loader.batch(0)
    with torch.no_grad():
        logits = model(batch["input_ids"])[:, :-1]
    losses = torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), batch["input_ids"][:, 1:], reduction="none"
    )
    (row,) = rows(tmp_path / "run")
    assert float(row["loss"]) == pytest.approx(losses.mean().item(), rel=1e-6)
    for k, label in enumerate(loader.mixture.labels):
        mine = batch["source"] == k
        assert float(row[f"loss_{label}"]) == pytest.approx(losses[mine].mean().item(), rel=1e-6)
        assert int(row[f"tokens_{label}"]) == mine.sum() * LENGTH
        assert float(row[f"ratio_{label}"]) == mine.sum() / ROWS
    assert list(row)[:5] == ["step", "tokens", "loss", "learning_rate", "grad_norm"]
    assert float(row["grad_norm"]) > 0


def test_rows_of_an_interval_hold_all_its_steps(tokens: Path, tmp_path: Path) -> None:
    for name, interval in (("each", 1), ("five", 5)):
        run = trainer(tokens, tmp_path / name, callbacks={"mixture": MixtureCallback(interval)})
        run.fit()
    each, five = rows(tmp_path / "each"), rows(tmp_path / "five")
    assert [int(row["step"]) for row in five] == [5, 10, 12]
    mean = sum(float(row["loss"]) for row in each[:5]) / 5
    assert float(five[0]["loss"]) == pytest.approx(mean, rel=1e-12)
    assert five[1]["tokens_low"] == each[9]["tokens_low"]


@pytest.mark.parametrize("z_loss", [None, 1e-3])
def test_the_gradients_are_olmo_cores_own(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, z_loss: float | None
) -> None:
    ours = gradients(tokens, tmp_path / "ours", z_loss)
    monkeypatch.setattr(MixtureCallback, "_by_source", lambda self, forward: plain(forward))
    theirs = gradients(tokens, tmp_path / "theirs", z_loss)
    for name, value in theirs.items():
        if z_loss is None:
            assert torch.equal(ours[name], value)
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-6)


def gradients(tokens: Path, folder: Path, z_loss: float | None) -> dict[str, torch.Tensor]:
    """Those of the first step, before they are clipped."""
    run = trainer(tokens, folder, module={"z_loss_multiplier": z_loss})
    batch = run.data_loader.batch(0)
    run.global_step = 1
    for one in run.callbacks.values():
        one.pre_step(batch)
    run.train_module.train_batch(batch)
    return {name: value.grad.clone() for name, value in run.train_module.model.named_parameters()}


def plain(forward):
    return lambda *args, source=None, **kwargs: forward(*args, **kwargs)


def test_the_record_says_what_was_asked_and_seen(tokens: Path, tmp_path: Path) -> None:
    trainer(tokens, tmp_path / "run", mixture="flat").fit()
    record = json.loads((tmp_path / "run" / "mixture.json").read_text())
    assert (record["steps"], record["tokens"]) == (STEPS, STEPS * BATCH)
    assert record["sources"]["low"]["achieved_ratio"] == 0.25
    assert record["sources"]["high"]["asked_ratio"] == 0.75


# Evaluators


def evaluators(tokens: Path, **changes: object) -> dict[str, MixtureEvaluatorConfig]:
    known = {
        "datasets": {"people": BIO},
        "tokenizer": str(tokens / "tokenizer.json"),
        "n_items": 10,
        "eval_interval": 6,
    }
    return {
        kind: MixtureEvaluatorConfig(kind=kind, **{**known, **changes})
        for kind in ("heldout", "exact_match")
    }


LONG = {"length": 96, "batch": 96 * 8, "micro": 96 * 4}


def test_evaluations_are_those_of_a_plain_forward_pass_and_survive_a_stop(
    tokens: Path, tmp_path: Path
) -> None:
    whole = trainer(tokens, tmp_path / "whole", callbacks=evaluators(tokens), **LONG)
    whole.fit()
    found = {
        (int(row["step"]), row["metric"]): float(row["value"])
        for row in rows(tmp_path / "whole", "evals.csv")
    }
    names = ("heldout/people/CrossEntropyLoss", "exact_match/people/exact_match")
    names += ("exact_match/people/answer_bits",)
    assert set(found) == {(step, f"eval/{name}") for step in (6, 12) for name in names}

    model = core_run.model_config().build(init_device="cpu")
    model.load_state_dict(weights(whole))
    model.eval()
    vocabulary, people = load_tokenizer(tokens / "tokenizer.json"), open_dataset(BIO, "people")
    held, bits = [], []
    for kind in ("heldout", "exact_match"):
        _, items = items_of(
            kind,
            {"people": people},
            vocabulary,
            10,
            sequence_length=96,
            eos_token_id=0,
            where="test",
        )
        for item in items:
            ids = item["input_ids"]
            with torch.no_grad():
                logits = model(ids[None])[0, :-1]
            losses = torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none")
            if kind == "heldout":
                held.append(losses.mean().item())
            else:
                bits.append(losses[item["answer"][1:]].sum().item() / math.log(2))
    assert found[12, f"eval/{names[0]}"] == pytest.approx(sum(held) / len(held), rel=1e-5)
    assert found[12, f"eval/{names[2]}"] == pytest.approx(sum(bits) / len(bits), rel=1e-5)

    # Killed between the checkpoint of step 6 and its evaluation.
    parts = tmp_path / "parts"
    first = trainer(tokens, parts, stop=6, callbacks=evaluators(tokens), **LONG)
    first.fit()
    kept = (parts / "evals.csv").read_text().splitlines()[:1]
    (parts / "evals.csv").write_text("\n".join(kept) + "\n")
    trainer(tokens, parts, callbacks=evaluators(tokens), **LONG).fit()
    assert (parts / "evals.csv").read_bytes() == (tmp_path / "whole" / "evals.csv").read_bytes()


@pytest.mark.parametrize("compiled", [False, True])
def test_logits_of_an_evaluation_are_exact_under_autocast(compiled: bool) -> None:
    torch.manual_seed(0)
    model = core_run.model_config().build(init_device="cpu").eval()
    if compiled:  # the head as OLMo-core compiles it, by a backend that needs no compiler
        model.lm_head.compile(backend="eager")
    hidden: list[torch.Tensor] = []
    model.lm_head.norm.register_forward_hook(lambda _, __, out: hidden.append(out))
    ids = torch.randint(64, (4, 16))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model(ids)
        hidden.clear()
        with exact_logits(model):
            exact = model(ids)
        again = model(ids)
    expected = torch.nn.functional.linear(hidden[0].float(), model.lm_head.w_out.weight)
    torch.testing.assert_close(exact, expected)
    assert exact.dtype == torch.float32
    assert rough.dtype == again.dtype == torch.bfloat16
    assert torch.equal(rough, again)
    assert (exact != exact.bfloat16()).any()


def test_an_evaluation_in_bf16_has_exact_logits(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds, real = [], DomainSums.add_answers
    monkeypatch.setattr(
        DomainSums, "add_answers", lambda *args: (kinds.append(args[-1].dtype), real(*args))[1]
    )
    run = trainer(tokens, tmp_path, callbacks=evaluators(tokens), **LONG)
    run.train_module.autocast_precision = torch.bfloat16
    run.fit()
    assert set(kinds) == {torch.float32}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "recall"}, "unknown evaluator 'recall'"),
        ({"datasets": {}}, "evaluator heldout: datasets: is missing"),
        ({"n_items": 0}, "n_items: 0; it must be at least 1"),
        ({"eval_interval": 0}, "eval_interval: 0; it must be at least 1"),
        ({"tokenizer": "none.json"}, "tokenizer: none.json: no such tokenizer file"),
    ],
)
def test_mistakes_in_evaluators_are_found(
    tokens: Path, tmp_path: Path, changes: dict, message: str
) -> None:
    one = {"heldout": evaluators(tokens)["heldout"].replace(**changes)}
    with pytest.raises((ConfigError, DataError), match=message):
        trainer(tokens, tmp_path, callbacks=one)


# What can't be served


def module(**changes: object) -> TransformerTrainModule:
    found = TransformerTrainModule.__new__(TransformerTrainModule)
    known = {"_cp_config": None, "_tp_config": None, "model": SimpleNamespace()}
    found.__dict__.update({**known, **changes})
    return found


@pytest.mark.parametrize(
    ("unserved", "message"),
    [
        (module(_cp_config=object()), "train_module.cp_config: context parallelism"),
        (module(_tp_config=object()), "train_module.tp_config: tensor parallelism"),
        (object(), "train_module: object"),
        (
            module(
                model=SimpleNamespace(
                    lm_head=SimpleNamespace(loss_implementation=LMLossImplementation.fused_linear)
                )
            ),
            "model.lm_head.loss_implementation: fused_linear",
        ),
    ],
)
def test_models_without_losses_by_token_are_refused(unserved: object, message: str) -> None:
    with pytest.raises(ConfigError, match=f"{message} gives no loss of each token"):
        check_module(unserved)


def test_a_fused_loss_is_refused_before_training(tokens: Path, tmp_path: Path) -> None:
    pytest.importorskip("liger_kernel")
    model = core_run.model_config()
    model.lm_head.loss_implementation = LMLossImplementation.fused_linear
    with pytest.raises(ConfigError, match="fused_linear gives no loss"):
        trainer(tokens, tmp_path, model=model)


def test_other_data_is_refused() -> None:
    with pytest.raises(ConfigError, match="the run's data comes from SimpleNamespace"):
        callback.check_loader(SimpleNamespace(data_loader=SimpleNamespace()))


def test_a_run_longer_than_its_mixture_is_refused(tokens: Path, tmp_path: Path) -> None:
    run = trainer(tokens, tmp_path)
    run.max_duration.value = STEPS + 3
    with pytest.raises(ConfigError, match=r"is planned for 12 steps, .* asks for 3 more"):
        run.fit()


# Endings


def test_a_broken_loss_saves_the_state_before_its_step(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trainer(tokens, tmp_path / "whole")
    whole.fit()
    forward = TransformerTrainModule.model_forward

    def breaking(self: TransformerTrainModule, *args: object, **kwargs: object):
        output = forward(self, *args, **kwargs)
        scale = float("inf") if self.trainer.global_step == 6 else 1.0
        return output._replace(loss=output.loss * scale, ce_loss=output.ce_loss * scale)

    monkeypatch.setattr(TransformerTrainModule, "model_forward", breaking)
    broken = trainer(tokens, tmp_path / "broken")
    with pytest.raises(NonFiniteLossError, match="the loss of step 6 is not finite") as error:
        broken.fit()
    assert "the checkpoint of step 5 is in" in str(error.value)
    monkeypatch.undo()
    assert_goes_on_as(whole, tokens, tmp_path / "broken")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_after_its_step_with_a_checkpoint(
    tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    whole = trainer(tokens, tmp_path / "whole")
    whole.fit()
    before = signal.getsignal(number)
    step = TransformerTrainModule.train_batch

    def signalled(self: TransformerTrainModule, *args: object, **kwargs: object) -> None:
        if self.trainer.global_step == 6:
            os.kill(os.getpid(), number)
        step(self, *args, **kwargs)

    monkeypatch.setattr(TransformerTrainModule, "train_batch", signalled)
    with pytest.raises(StoppedError, match="the checkpoint of step 6") as error:
        trainer(tokens, tmp_path / "stopped").fit()
    assert error.value.signal == number
    assert signal.getsignal(number) == before
    monkeypatch.undo()
    assert_goes_on_as(whole, tokens, tmp_path / "stopped")


def assert_goes_on_as(whole: Trainer, tokens: Path, folder: Path) -> None:
    again = trainer(tokens, folder)
    again.fit()
    ours = weights(again)
    assert all(torch.equal(ours[name], value) for name, value in weights(whole).items())
    assert (folder / "metrics.csv").read_bytes() == (
        Path(whole.save_folder) / "metrics.csv"
    ).read_bytes()
    assert again.global_train_petaflops == pytest.approx(whole.global_train_petaflops, rel=1e-9)


SCRIPT = """
import os, signal, sys
from pathlib import Path
from dataclasses import dataclass
from olmo_core.distributed.utils import get_rank
from olmo_core.train import prepare_training_environment, teardown_training_environment
from olmo_core.train.callbacks import Callback
sys.path.insert(0, {tests!r})
from core_run import BATCH, trainer
from olmo_mixlaw.training_core.endings import exit_codes

@dataclass
class Killer(Callback):
    def post_step(self):
        if self.step == 3 and get_rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)

if __name__ == "__main__":
    prepare_training_environment(backend="gloo")
    found = trainer(Path(sys.argv[1]), Path(sys.argv[2]), dp="ddp", micro=BATCH // 4,
                    callbacks={{"killer": Killer()}})
    try:
        found.fit()
    except BaseException as error:
        Path(sys.argv[2] + f".{{get_rank()}}").write_text(repr(error))
    teardown_training_environment()
"""


def test_a_signal_to_one_process_ends_both_at_one_step(tokens: Path, tmp_path: Path) -> None:
    script, folder = tmp_path / "two.py", tmp_path / "two"
    script.write_text(SCRIPT.format(tests=str(Path(core_run.__file__).parent)))
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(
        [sys.executable, *command, str(tokens), str(folder)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in (0, 1):
        ended = Path(f"{folder}.{rank}").read_text()
        assert ended.startswith("StoppedError('stopped by signal 15; the checkpoint of step 4")
    assert (folder / "step4" / ".metadata.json").is_file()
    assert len(seen(folder, 0)) == len(seen(folder, 1)) == 4


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (StoppedError("stopped by signal 15; saved", 15), 143, "stopped: stopped by signal 15"),
        (NonFiniteLossError("the loss is not finite"), 2, "error: the loss is not finite"),
    ],
)
def test_exit_codes_say_how_a_script_ended(
    error: Exception, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left, exit_codes():
        raise error
    assert left.value.code == code
    assert capsys.readouterr().err.startswith(line)
