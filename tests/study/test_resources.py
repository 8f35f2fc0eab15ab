"""Cores and GPUs are handed out exactly, and what a machine hasn't is refused by its key."""

import dataclasses
import os
import stat

import pytest
import yaml

from olmo_mixlaw.cli import app as cli
from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.study import resources
from olmo_mixlaw.study.config import load_study
from olmo_mixlaw.study.execution import work_of
from olmo_mixlaw.study.plan import olmo_config, plan
from olmo_mixlaw.study.resources import Slot, processes, slots, visible_gpus
from olmo_mixlaw.training_core.config import TRAINER as CORE


@pytest.fixture
def machine(monkeypatch):
    """Pretends that there are so many GPUs and processors."""

    def pretend(gpus=0, cores=2):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus))))
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4, 4 + cores)))

    return pretend


def study_of(study_file, *overrides):
    return load_study(study_file(), overrides)


def test_gpus_are_a_workers_own(study_file, machine):
    machine(gpus=8)
    asked = study_of(study_file, "workers=4", "local.gpus=2")
    got = slots(asked, "f")
    assert [s.gpus for s in got] == [("0", "1"), ("2", "3"), ("4", "5"), ("6", "7")]
    assert got[1].environment == {"CUDA_VISIBLE_DEVICES": "2,3"}


def test_a_choice_of_gpus_that_was_made_before_is_kept_to(study_file, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5f,6")
    asked = study_of(study_file, "workers=3", "local.gpus=1")
    assert [s.gpus for s in slots(asked, "f")] == [("3",), ("GPU-5f",), ("6",)]


def test_workers_take_gpus_in_turn_where_nothing_is_said(study_file, machine):
    machine(gpus=2)
    got = slots(study_of(study_file, "workers=3"), "f")
    assert [s.gpus for s in got] == [("0",), ("1",), ("0",)]


@pytest.mark.parametrize("key", ["local.gpus=0", "training.device=cpu"])
def test_no_gpu_is_seen_where_none_is_wanted(key, study_file, machine):
    machine(gpus=2)
    assert {
        s.environment["CUDA_VISIBLE_DEVICES"] for s in slots(study_of(study_file, key), "")
    } == {""}


def test_without_gpus_nothing_is_said_of_them(study_file, machine):
    machine(gpus=0)
    assert slots(study_of(study_file), "f") == [Slot(), Slot()]


def test_processors_are_a_workers_own_where_threads_are_asked_for(study_file, machine):
    machine(cores=6)
    got = slots(study_of(study_file, "workers=3", "local.threads=2"), "f")
    assert [s.cores for s in got] == [(4, 5), (6, 7), (8, 9)]


@pytest.mark.parametrize(
    ("overrides", "gpus", "message"),
    [
        (("local.gpus=1",), 1, "local.gpus: 1 for each of 2 workers: this machine has 1 GPUs"),
        (("local.gpus=1",), 1, "set workers: 1"),
        (("local.gpus=4",), 3, "lower local.gpus"),
        (("local.gpus=1",), 0, "this machine has 0 GPUs (CUDA_VISIBLE_DEVICES is '')"),
        (
            ("local.threads=2",),
            0,
            "local.threads: 2 for each of 2 workers: this machine has 2 proc",
        ),
        (("training.device=cuda",), 0, "training.device: cuda: no GPU is found on this machine"),
        (("training.precision=bf16",), 0, "training.precision: bf16: needs a GPU, and none is fo"),
    ],
)
def test_more_than_there_is_is_refused_by_its_key(overrides, gpus, message, study_file, machine):
    machine(gpus=gpus, cores=2)
    with pytest.raises(ConfigError) as refused:
        slots(study_of(study_file, *overrides), "f.yaml")
    assert str(refused.value).startswith("f.yaml: ")
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.precision=fp8"], "training.precision: unknown precision 'fp8'"),
        (["training.device=tpu"], "training.device: unknown device 'tpu'"),
        (["training.micro_batch=0"], "training.micro_batch: 0: at least 1"),
        (["local.gpus=-1"], "local.gpus: -1: at least 0"),
        (["local.threads=0"], "local.threads: 0: at least 1"),
        (["retries=-1"], "retries: -1: at least 0"),
        (["slurm={nodes: 0}"], "slurm.nodes: 0: at least 1"),
        (["local.gpus=1", "training.device=cpu"], "would leave the GPUs of local.gpus (1) unused"),
        (
            ["training.device=cpu", "training.precision=bf16"],
            "there is none by training.device: cpu",
        ),
        (["slurm={}", "training.precision=amp_bf16"], "there is none by slurm.gpus: 0"),
        (["local.gpus=3"], "a batch of w32 is 16 sequences, which 3 processes can't share evenly"),
        (["slurm={nodes: 3}"], "slurm.gpus: 0 on 3 nodes: a batch of w32 is"),
        (["slurm={sbatch: {mem: 3}}"], "slurm.sbatch.mem: use slurm.memory_gb"),
        (["slurm={sbatch: {array: 3}}"], "slurm.sbatch.array: is the study's own"),
        (["slurm={sbatch: {--exclude: n1}}"], "slurm.sbatch.--exclude: write an option as"),
    ],
)
def test_what_no_machine_could_do_is_refused_when_it_is_planned(
    overrides, message, study_file, capsys
):
    assert cli.run(cli.app, ["study", "plan", str(study_file()), *overrides]) == 2
    assert message in capsys.readouterr().err


def test_precision_and_micro_batch_reach_the_trainers(study_file, tmp_path):
    study = study_of(study_file, "training={precision: bf16, micro_batch: 2}", "local.gpus=2")
    run, path = plan(study)[0], tmp_path
    olmo = olmo_config(study, run, path, path, path)
    assert (olmo["precision"], olmo["device_train_microbatch_size"]) == ("amp_bf16", 2)
    from olmo_mixlaw.study.core import core_config

    on_core = dataclasses.replace(study, trainer=CORE)
    core = core_config(on_core, run, path, path, path)
    assert (core["precision"], core["rank_microbatch_size"]) == ("bf16", 2 * run.rung.context)


def test_what_is_not_asked_for_leaves_configurations_as_they_were(study_file, tmp_path):
    study = study_of(study_file)
    run, path = plan(study)[0], tmp_path
    olmo = olmo_config(study, run, path, path, path)
    assert (olmo["precision"], olmo["device_train_microbatch_size"]) == ("fp32", 16)
    from olmo_mixlaw.study.core import core_config

    assert "rank_microbatch_size" not in core_config(study, run, path, path, path)
    assert yaml.safe_dump(olmo) == yaml.safe_dump(
        olmo_config(study_of(study_file, "local.threads=1", "retries=5"), run, path, path, path)
    )


@pytest.mark.parametrize(
    ("overrides", "shared", "threads", "device"),
    [
        ((), 1, 1, "auto"),
        (("local={gpus: 2, threads: 3}",), 2, 3, "cuda"),
        (("slurm={gpus: 4, nodes: 2, cpus: 16}",), 8, 4, "cuda"),
        (("slurm={cpus: 6}", "local.gpus=8"), 1, 6, "auto"),
    ],
)
def test_what_a_run_works_with(overrides, shared, threads, device, study_file):
    study = study_of(study_file, *overrides)
    work = work_of(study)
    assert (processes(study), work.threads, work.device) == (shared, threads, device)


@pytest.mark.parametrize(
    ("said", "count"),
    [("GPU 0: H200 (UUID: GPU-1)\n  MIG 1g  Device 0: (UUID: M)\nGPU 1: H200\n", 2), ("", 0)],
)
def test_the_driver_is_asked_where_nothing_was_chosen(said, count, tmp_path, monkeypatch):
    command = tmp_path / "nvidia-smi"
    command.write_text(f"#!/bin/sh\ncat <<E\n{said}E\n")
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path) + os.pathsep + os.environ["PATH"])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == tuple(map(str, range(count)))
    monkeypatch.setattr(resources.shutil, "which", lambda _: None)
    assert visible_gpus() == ()


@pytest.mark.parametrize(
    ("text", "found"), [("", ()), ("-1", ()), ("2,-1,3", ("2",)), ("1, 2", ("1", "2"))]
)
def test_the_choice_is_read_as_cuda_reads_it(text, found, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", text)
    assert visible_gpus() == found
