"""What a user can get wrong: one line that names file and key, before any work."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("olmo")

from olmo_mixlaw.cli import app as cli
from olmo_mixlaw.errors import MixlawError
from olmo_mixlaw.shipped import shipped_folder
from olmo_mixlaw.training import launch
from olmo_mixlaw.training.config import check, load
from olmo_mixlaw.training.launch import train

Write = Callable[..., Path]

RATIOS = {"low": 0.3, "high": 0.7}
BAD: list[tuple[dict[str, Any], str]] = [
    ({"mixtrue": {}}, "unknown key 'mixtrue'; did you mean 'mixture'?"),
    ({"mixture": {"ratioss": RATIOS}}, "unknown key 'mixture.ratioss'; did you mean"),
    ({"mixture": {"ratios": {"low": "much"}}}, "mixture.ratios.low: Value 'much'"),
    ({"mixture": {"ratios": {"low": 0.3, "high": 0.6}}}, "mixture.ratios: the ratios sum to 0.9"),
    ({"mixture": {"ratios": {"low": -0.3, "high": 1.3}}}, "mixture.ratios.low: -0.3 is negative"),
    (
        {"mixture": {"ratios": {"lwo": 0.3, "high": 0.7}}},
        "unknown source 'lwo'; did you mean 'low'",
    ),
    ({"mixture": {}}, "mixture: needs either ratios or schedule"),
    ({"mixture": {"ratios": RATIOS, "block_size": 0}}, "mixture.block_size: 0"),
    ({"mixture": {"ratios": RATIOS, "repetition": "loop"}}, "unknown repetition 'loop'"),
    ({"mixture": {"ratios": RATIOS, "max_epochs": 0}}, "mixture.max_epochs: 0; it must be above 0"),
    (
        {"mixture": {"ratios": RATIOS, "max_epochs": 0.01}},
        "source 'high' has 2500 sequences and would be seen 0.03 times; allowed are 0.01 epochs",
    ),
    ({"mixture": {"ratios": RATIOS, "source_epochs": {"lo": 1}}}, "unknown source 'lo'"),
    ({"mixture": {"file": "no_such_mixture"}}, "unknown mixture 'no_such_mixture'"),
    ({"data": {"datasets": {"low": ["none.npy"], "high": ["none.npy"]}}}, "none.npy: no such file"),
    ({"data": {"datasets": {}}}, "data: names no source"),
    (
        {"data": {"datasets": {"low": ["none.npy"]}, "generate_doc_lengths": True}},
        "data.generate_doc_lengths: can't be used with a mixture",
    ),
    (
        {"data": {"datasets": {"a": ["mixlaw:biografy?n=4"]}}, "mixture": {"ratios": {"a": 1}}},
        "unknown dataset 'biografy'; did you mean 'biography'?",
    ),
    ({"tokenizer": {"identifier": "none.json"}}, "none.json: no such tokenizer file"),
    ({"max_duration": "2ep"}, "max_duration: '2ep' counts epochs"),
    ({"max_duration": "soon"}, "max_duration: 'soon' is neither steps (1000) nor tokens"),
    ({"max_duration": 0}, "max_duration: '0' leaves no step"),
    ({"precision": "amp_bf16"}, "precision: amp_bf16 needs a GPU"),
    ({"precision": "int8"}, "precision: 'int8'; accepted are fp32"),
    ({"distributed_strategy": "fsdp"}, "distributed_strategy: fsdp needs a GPU"),
    ({"device_train_microbatch_size": 0}, "device_train_microbatch_size: 0"),
    ({"metrics_interval": 0}, "metrics_interval: 0"),
    ({"scheduler": {"name": "wsdd"}}, "unknown learning-rate schedule 'wsdd'; did you mean 'wsd'"),
    ({"scheduler": {"name": "ladder"}}, "the ladder schedule counts tokens; set units: tokens"),
    (
        {"scheduler": {"name": "wsd", "decay_fraction": 1.5}},
        "scheduler.decay_fraction: 1.5; it must be above 0, up to 1",
    ),
    ({"evaluators": [{"label": "x", "type": "held_out"}]}, "unknown evaluator 'held_out'"),
    ({"evaluators": [{"label": "x", "type": "heldout"}]}, "no source of the run is a dataset"),
    ({"load_path": "nowhere"}, "load_path: nowhere: no such checkpoint folder"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message for _, message in BAD])
def test_a_mistake_is_one_line_with_file_and_key(write: Write, change: dict, message: str) -> None:
    path = write("bad", **change)
    with pytest.raises(MixlawError) as error:
        train(path)
    text = str(error.value)
    assert message in text
    assert "bad.yaml" in text
    assert "\n" not in text
    assert not list(path.with_suffix("").glob("step*"))


def test_a_batch_that_the_processes_cannot_share_is_refused(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(MixlawError, match="global_train_batch_size: 8 can't be shared by 3"):
        train(write())


def test_sharded_checkpoints_that_cannot_be_read_back_are_refused(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    from olmo import checkpoint

    fsdp = {"distributed_strategy": "fsdp", "fsdp": {}}
    config = load(write(**fsdp, sharded_checkpointer="torch_new"))
    monkeypatch.setattr(
        checkpoint.RemoteFileSystemReader, "__abstractmethods__", frozenset({"reset"})
    )
    with pytest.raises(MixlawError, match=r"torch_new: .*; use torch_legacy"):
        check(config, "run.yaml", 2, on_gpu=True)
    check(load(write(**fsdp)), "run.yaml", 2, on_gpu=True)


SHARDED = {"distributed_strategy": "fsdp"}
PAIRS = [
    ({"precision": "amp_fp16"}, {}, "precision: 'amp_fp16'; accepted are fp32, amp_bf16; OLMo"),
    (
        {**SHARDED, "fsdp": {"wrapping_strategy": "size_based"}},
        {"moe": {}},
        "fsdp.wrapping_strategy: size_based shards the matrices of experts",
    ),
    (
        {**SHARDED, "fsdp": {"wrapping_strategy": "by_block_and_size"}},
        {},
        "fsdp.wrapping_strategy: by_block_and_size shards the embedding by itself",
    ),
    ({}, {"init_device": "meta"}, "model.init_device: meta leaves weights without values"),
    ({"compile": {"fullgraph": True}}, {"moe": {}}, "compile.fullgraph: a mixture of experts"),
]


@pytest.mark.parametrize(("change", "of_model", "message"), PAIRS, ids=[p[2][:30] for p in PAIRS])
def test_settings_that_break_each_other_on_a_gpu_are_refused(
    write: Write, change: dict, of_model: dict, message: str
) -> None:
    model = {**yaml.safe_load(write().read_text())["model"], **of_model}
    with pytest.raises(MixlawError) as error:
        check(load(write(**change, model=model)), "run.yaml", 1, on_gpu=True)
    assert message in str(error.value)


def test_a_mixture_that_is_missing_is_asked_for(write: Write, tmp_path: Path) -> None:
    uris = {label: [f"mixlaw:text?path={tmp_path}/{label}.txt"] for label in ("one", "two")}
    with pytest.raises(
        MixlawError, match="mixture: is missing; say in what ratios to mix one, two"
    ):
        train(write(mixture=None, data={"datasets": uris}))


def test_a_checkpoint_of_another_vocabulary_is_refused_before_work(write: Write) -> None:
    other = train(write("other", max_duration=1))
    path = write("run", load_path=str(other))
    model = copy.deepcopy(load(path).plain()["model"])
    model.update(vocab_size=310)
    path = write("run", load_path=str(other), model=model)
    with pytest.raises(MixlawError) as error:
        train(path)
    assert "model.vocab_size: is 310, but the checkpoint" in str(error.value)
    assert not path.with_suffix("").exists()


def test_a_vocabulary_below_the_tokenizers_is_refused(write: Write) -> None:
    model = load(write()).plain()["model"]
    model.update(vocab_size=270, embedding_size=270)
    with pytest.raises(MixlawError, match=r"model\.vocab_size: 270 is below the 300 entries"):
        train(write(model=model))


def test_the_command_exits_with_2_and_one_line(write: Write, capsys: pytest.CaptureFixture) -> None:
    path = write("bad", mixture={"ratios": {"low": 0.3, "high": 0.6}})
    assert cli.run(cli.app, ["train", str(path)]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert errors == [f"error: {path}: mixture.ratios: the ratios sum to 0.9, not 1"]
    assert cli.run(cli.app, ["train", "nowhere.yaml"]) == 2
    assert "nowhere.yaml: no such file" in capsys.readouterr().err


def test_the_module_takes_a_shipped_name_as_the_command_does(
    write: Write, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(launch, "train", lambda *given: asked.append(given) or "done")
    path = write()
    assert launch.main(["micro", "--seed=4"]) == launch.main([str(path)]) == 0
    shipped = shipped_folder("configs/train") / "micro.yaml"
    assert asked == [(shipped, ["--seed=4"]), (path, [])]
    capsys.readouterr()
    assert launch.main(["micor"]) == launch.main(["nowhere.yaml"]) == 2
    said = capsys.readouterr().err
    assert "unknown training configuration 'micor'; did you mean 'micro'?" in said
    assert "error: nowhere.yaml: no such file" in said


def test_overrides_change_the_file_and_are_checked_like_it(write: Write) -> None:
    path = write()
    assert load(path, ["--optimizer.learning_rate=0.5"]).optimizer.learning_rate == 0.5
    assert train(path, ["--max_duration=2"]).name == "step2-unsharded"
    with pytest.raises(MixlawError, match=r"unknown key 'optimizer.lr'"):
        load(path, ["--optimizer.lr=0.5"])


def test_a_source_of_ratio_0_need_not_exist(write: Write) -> None:
    data = load(write()).data.datasets
    data["none"] = ["mixlaw:text?path=/nowhere"]
    ratios = {**RATIOS, "none": 0.0}
    final = train(write(data={"datasets": data}, mixture={"ratios": ratios}, max_duration=2))
    assert final.is_dir()


def test_a_whole_mixture_in_a_file_brings_its_sources(write: Write, tmp_path: Path) -> None:
    import yaml

    data = load(write()).data.datasets
    mixture = tmp_path / "whole.yaml"
    mixture.write_text(yaml.safe_dump({"sources": data, "ratios": RATIOS}))
    final = train(write(data={}, mixture={"file": str(mixture)}, max_duration=2))
    # The configuration that is kept says what was read, whatever becomes of the file.
    for kept in (final, final.parent):
        said = yaml.safe_load((kept / "config.yaml").read_text())
        assert said["data"]["datasets"] == data
    assert said["mixture"]["ratios"] == RATIOS
    assert said["mixture"]["file"] is said["mixture"]["sources"] is None
    with pytest.raises(MixlawError, match="names some too, in data; keep one of the two"):
        train(write("both", mixture={"file": str(mixture)}))


@pytest.mark.parametrize("name", ["micro"])
def test_the_shipped_examples_are_read(name: str) -> None:
    from olmo_mixlaw.mixture import RunLength, build_schedule
    from olmo_mixlaw.shipped import shipped_folder

    config = load(shipped_folder("configs/train") / f"{name}.yaml")
    labels = sorted(config.data.datasets)
    build_schedule(config.mixture, labels).pieces(RunLength(10, 16, 128))


@pytest.mark.parametrize("name", ["web-then-facts", "ramp"])
def test_the_shipped_mixtures_are_read(name: str) -> None:
    from olmo_mixlaw.mixture import RunLength, build_schedule
    from olmo_mixlaw.mixture.config import read_mixture

    config, _ = read_mixture(name, "test")
    pieces = build_schedule(config, ["bio", "wiki"]).pieces(RunLength(10, 16, 128))
    assert pieces.ratios(0).tolist() == [0.1, 0.9]
    assert pieces.ratios(159)[0] > 0.5
