"""What can be wrong with a training file for OLMo-core, each told before any work is done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_core import example, write_run, write_tokens

from olmo_mixlaw.cli.app import app, run
from olmo_mixlaw.cli.train import trainer_of
from olmo_mixlaw.errors import ConfigError, MixlawError
from olmo_mixlaw.training_core import process
from olmo_mixlaw.training_core.config import check, from_mapping, load
from olmo_mixlaw.training_core.launch import train

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokens(tmp_path_factory.mktemp("tokens"))


@pytest.fixture
def write(tokens: Path, tmp_path: Path) -> Write:
    def write(name: str = "bad", **changes: Any) -> Path:
        return write_run(tokens, tmp_path, name, **changes)

    return write


BAD: list[tuple[dict[str, Any], str]] = [
    ({"global_batch_sise": 1}, "unknown key 'global_batch_sise'; did you mean 'global_batch_size'"),
    ({"global_batch_size": 100}, "100 tokens are not whole sequences of 16; give 96"),
    ({"global_batch_size": 0}, "global_batch_size: 0 tokens are not whole sequences"),
    ({"sequence_length": 1}, "sequence_length: 1; it must be at least 2"),
    ({"rank_microbatch_size": 48}, "rank_microbatch_size: 48 tokens; it must be whole sequences"),
    ({"rank_microbatch_size": 24}, "rank_microbatch_size: 24 tokens; it must be whole sequences"),
    ({"precision": "bf16"}, "precision: bf16 needs a GPU"),
    ({"precision": "int8"}, "unknown precision 'int8' (known: bf16, fp32)"),
    ({"scheduler": {"name": "wsdd"}}, "unknown learning-rate schedule 'wsdd'; did you mean 'wsd'"),
    ({"scheduler": {"decay_fraction": 1.5}}, "scheduler.decay_fraction: 1.5; it must lie in 0 to"),
    ({"scheduler": {"warmup": -1}}, "scheduler.warmup: -1; it must be at least 0"),
    ({"optimizer": {"lr": 0}}, "optimizer.lr: 0; it must be above 0"),
    ({"optimizer": {"name": "adamw"}}, "optimizer.lr: this key is required"),
    ({"data_parallel": {"name": "fdsp"}}, "unknown parallelism 'fdsp'; did you mean 'fsdp'"),
    ({"data_parallel": {"name": "ddp", "num_replicas": 1}}, "num_replicas: is of hsdp alone"),
    ({"data_parallel": {"name": "hsdp", "shard_degree": 2}}, "2 doesn't divide 1 processes"),
    ({"evaluators": [{"kind": "held_out"}]}, "unknown evaluator 'held_out'; did you mean"),
    ({"evaluators": [{"kind": "heldout", "n_items": 0}]}, "evaluators[0].n_items: 0"),
    ({"evaluators": [{"kind": "heldout"}] * 2}, "evaluators[0].label: 'heldout' is used twice"),
    ({"metrics_interval": 0}, "metrics_interval: 0; it must be at least 1"),
    ({"keep_checkpoints": 0}, "keep_checkpoints: 0; it must be at least 1"),
    ({"max_grad_norm": 0}, "max_grad_norm: 0; it must be above 0"),
    ({"model": None}, "model: is missing; only with load_path can it be left out"),
    ({"train_module": {"max_sequence_length": 8}}, "max_sequence_length: say it as sequence_len"),
    ({"trainer_config": {"save_folder": "x"}}, "trainer_config.save_folder: say it as save_folder"),
    ({"train_module": {"tp_config": {"degree": 2}}}, "train_module.tp_config: losses can't be"),
    ({"train_module": {"cp_config": {"degree": 2}}}, "train_module.cp_config: losses can't be"),
    ({"train_module": {"pp_config": {"degree": 2}}}, "train_module.pp_config: losses can't be"),
    ({"trainer": "ai2-olmo"}, "trainer: 'ai2-olmo' is not trained here; start it with"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message for _, message in BAD])
def test_a_mistake_is_one_line_with_file_and_key(
    write: Write, monkeypatch: pytest.MonkeyPatch, change: dict, message: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    path = write(**change)
    with pytest.raises(MixlawError) as error:
        train(path)
    text = str(error.value)
    assert message in text
    assert "bad.yaml" in text
    assert "\n" not in text
    assert not path.with_suffix("").exists()


def test_a_batch_that_the_processes_cannot_share_is_refused(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match=r"128 tokens \(8 sequences\) can't be shared by 3 .*144"):
        train(write())


@pytest.mark.parametrize(
    ("replicas", "degree", "fits"), [(2, 4, True), (4, None, True), (2, 2, False), (3, None, False)]
)
def test_replicas_and_shards_make_up_the_processes(
    tokens: Path, tmp_path: Path, replicas: int, degree: int | None, fits: bool
) -> None:
    section = {"name": "hsdp", "num_replicas": replicas, "shard_degree": degree}
    config = from_mapping(example(tokens, tmp_path, data_parallel=section), "run.yaml")
    if fits:
        check(config, "run.yaml", 8, on_gpu=True)
        return
    with pytest.raises(ConfigError, match="data_parallel"):
        check(config, "run.yaml", 8, on_gpu=True)


def test_overrides_reach_every_key(write: Write) -> None:
    changes = ["--optimizer.lr=1e-3", "--mixture.ratios.low=0.1", "--max_duration=2e6T"]
    config = load(write(), changes)
    assert (config.optimizer.lr, config.max_duration) == (1e-3, "2e6T")
    assert config.mixture is not None
    assert config.mixture.ratios == {"low": 0.1, "high": 0.7}


@pytest.mark.parametrize(
    ("core", "olmo", "message"),
    [
        (None, None, "needs ai2-olmo-core 3, which isn't installed: pip install"),
        ("2.4.0", None, "needs ai2-olmo-core 3, found 2.4.0: pip install"),
        ("4.0.0", None, "needs ai2-olmo-core 3, found 4.0.0: pip install"),
        ("0.1.0", "0.6.0", "ai2-olmo 0.6.0 is installed here too, and needs another"),
        ("3.0.0", "0.6.0", "ai2-olmo 0.6.0 is installed here too, and needs another"),
        ("3.0.0", None, ""),
        ("3.1.2", None, ""),
    ],
)
def test_an_environment_that_cannot_train_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, core: str | None, olmo: str | None, message: str
) -> None:
    found = {"ai2-olmo-core": core, "ai2-olmo": olmo}
    monkeypatch.setattr(process, "installed", found.__getitem__)
    if not message:
        process.check_environment("run.yaml")
        return
    with pytest.raises(ConfigError) as error:
        process.check_environment("run.yaml")
    assert str(error.value).startswith("run.yaml: trainer: olmo-core: ")
    assert message in str(error.value)
    assert "olmo-mixlaw[olmo-core]" in str(error.value)


def test_the_command_takes_the_trainer_that_the_file_names(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert trainer_of(write()) == "olmo-core"
    plain = tmp_path / "plain.yaml"
    plain.write_text("seed: 1\n")
    assert trainer_of(plain) == "ai2-olmo"
    assert run(app, ["train", str(write("odd", trainer="olmo-cor"))]) == 2
    assert "unknown trainer 'olmo-cor'; did you mean 'olmo-core'?" in capsys.readouterr().err
    assert run(app, ["train", str(plain), "--trainer=olmo-core"]) == 2
    assert "the trainers' files have different keys" in capsys.readouterr().err


def test_the_command_says_what_is_not_installed(
    write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(process, "installed", lambda package: None)
    assert run(app, ["train", str(write())]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "needs ai2-olmo-core 3" in error
