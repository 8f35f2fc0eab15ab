"""What a study takes is known before it runs, and what can't fit is refused."""

import json
import os
from pathlib import Path

import pytest

from olmo_mixlaw.cli import app as cli
from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.study import needs, probe
from olmo_mixlaw.study.config import load_study
from olmo_mixlaw.study.cost import GPUS, hardware, on_hardware, on_this_machine
from olmo_mixlaw.study.needs import check_needs, needs_of
from olmo_mixlaw.study.paces import finished, learned
from olmo_mixlaw.study.plan import plan


@pytest.fixture
def tiny(study_file, monkeypatch, tmp_path):
    monkeypatch.setenv("OLMO_MIXLAW_CACHE", str(tmp_path / "cache"))
    study = load_study(study_file())
    return study, plan(study)


def planned(capsys, *arguments):
    """The last lines of a plan."""
    assert cli.run(cli.app, ["study", "plan", *map(str, arguments)]) == 0
    return capsys.readouterr().out.splitlines()


def test_stated_hardware_takes_operations_over_what_it_reaches_of_its_peak(tiny):
    study, runs = tiny
    flops = sum(run.rung.training_flops(run.n_tokens) for run in runs)
    cost = on_hardware(study, runs, hardware("1e9"), mfu=0.5, price=2.0)
    # Beside the operations each run begins and is scored, which takes 5 and 3 s.
    assert cost.busy == pytest.approx(flops / 0.5e9 + 6 * 8)
    assert cost.dollars == pytest.approx(2.0 * cost.busy / 3600)
    assert cost.busy / 2 <= cost.wall < cost.busy


def test_hardware_has_the_peak_of_the_studys_precision():
    h100 = GPUS["h100"]
    assert hardware("H100") is h100
    assert h100.peak("fp32") < h100.peak("bf16") == 989e12
    assert hardware("312T").peak("bf16") == 312e12


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--hardware", "h1000"), "--hardware: unknown hardware 'h1000'; did you mean 'h100'"),
        (("--hardware", "3x"), "--hardware: '3x' is not a count"),
        (("--hardware", "h100", "--mfu", "40"), "--mfu: 40: expected above 0, and 1 at most"),
        (("--hardware", "h100", "--price", "-1"), "--price: -1: must not be negative"),
        (("--mfu", "0.4"), "--mfu and --price go with --hardware"),
        (("--hardware", "h100", "--probe"), "--probe: measures this machine"),
    ],
)
def test_options_that_mean_nothing_are_refused(study_file, capsys, arguments, said):
    assert cli.run(cli.app, ["study", "plan", str(study_file()), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_model_that_no_gpu_holds_is_refused(study_file, capsys):
    path = study_file()
    large = ["ladder=olmo-core", "sizes=[olmo2_190M,olmo2_13B]", "target.size=olmo2_13B"]
    large += [
        "tokens=1B",
        "target.tokens=1B",
        "evaluation.heldout_tokens=65536",
        "evaluation.truncate=true",
    ]
    asked = ["study", "plan", str(path), *large, "--hardware", "h100"]
    assert cli.run(cli.app, asked) == 2
    assert "weights and optimizer take" in capsys.readouterr().err


def test_runs_that_are_finished_say_how_long_the_others_take(tiny, capsys):
    study, runs = tiny
    out = Path(study.output)
    for run in runs[:4]:
        folder = out / "runs" / run.run_id
        folder.mkdir(parents=True)
        said = {"seconds": {"train": 10.0 * run.steps, "evaluate": 4.0}}
        (folder / "run.json").write_text(json.dumps(said))
    assert finished(runs, out) == {run.run_id for run in runs[:4]}
    known = learned(runs, out)
    assert known.paces == {"w32": pytest.approx(10.0), "w16": pytest.approx(10.0)}
    assert known.scorings["w32"] == pytest.approx(4.0)
    cost = on_this_machine(study, runs[4:], known.paces, "here")
    assert cost.wall == pytest.approx(10.0 * runs[-1].steps + 8)
    lines = planned(capsys, out.parent / "tiny.yaml")
    assert lines[-3].startswith("on this machine, as its finished runs were: about 3 min")
    assert lines[-1].startswith("6 runs, 4 of them finished, ")


def test_a_disk_that_is_too_small_is_known_before(tiny, monkeypatch):
    study, runs = tiny
    least = sum(12 * run.rung.n_total for run in runs)
    found = needs_of(study, runs)
    assert least < found.disk < 2 * least
    full = type("Usage", (), {"free": least})
    monkeypatch.setattr(needs.shutil, "disk_usage", lambda path: full)
    with pytest.raises(ConfigError, match=r"x: output: .*checkpoints take .* are free there"):
        check_needs(study, runs, "x")
    full.free = int(found.disk * 1.1)
    assert "of the" in check_needs(study, runs, "x")[0]
    full.free = 10 * found.disk
    assert check_needs(study, runs, "x") == []
    for run in runs[:5]:
        folder = Path(study.output) / "runs" / run.run_id
        folder.mkdir(parents=True)
        (folder / "run.json").touch()
    assert needs_of(study, runs).disk == 2 * 12 * runs[-1].rung.n_total


def test_memory_that_is_too_small_is_known_before(tiny, monkeypatch):
    study, runs = tiny
    monkeypatch.setattr(needs, "visible_gpus", lambda: ())
    monkeypatch.setattr(needs, "_memory", lambda: runs[0].rung.training_bytes)
    with pytest.raises(ConfigError, match=r"x: workers: 2: weights and optimizers of the largest"):
        check_needs(study, runs, "x")
    monkeypatch.setattr(needs, "visible_gpus", lambda: ("0",))
    assert check_needs(study, runs, "x") == []


def test_a_node_of_too_little_memory_is_known_before(study_file, capsys):
    path = study_file()
    assert cli.run(cli.app, ["study", "plan", str(path), "slurm={memory_gb: 0.00001}"]) == 2
    assert "slurm.memory_gb: 1e-05: weights and optimizer of w32" in capsys.readouterr().err


def test_a_plan_says_what_it_needs_and_counts_tokens(study_file, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("OLMO_MIXLAW_CACHE", str(tmp_path / "cache"))
    lines = planned(capsys, study_file())
    assert lines[-2].startswith("at least ")
    assert "tokens, " in lines[-1]
    assert not any(line.startswith("on this machine") for line in lines)  # nothing was measured
    said = planned(capsys, study_file(), "--json", "--hardware", "h200", "--price", "3.5")
    found = json.loads("\n".join(said))
    assert found["tokens"] == sum(run["n_tokens"] for run in found["runs"])
    assert found["cost"]["dollars"] > 0
    assert found["cost"]["seconds_a_step"].keys() == {"w16", "w32"}


def test_a_probe_that_is_kept_is_used_again_and_only_for_what_it_measured(tiny, monkeypatch):
    study, runs = tiny
    measured = []

    def fake(study, chosen, folder, places):
        measured.append([run.rung.name for run in chosen])
        return {"w16": 0.01, "w32": 0.02}

    monkeypatch.setattr(probe, "_measured", fake)
    monkeypatch.setattr(probe, "require_trainer", lambda *_: None)
    assert probe.known(study, runs, "x") is None
    found = probe.probe(study, runs, "x", lambda line: None)
    assert measured == [["w16", "w32"]]
    assert probe.known(study, runs, "x") == found
    threads = load_study(Path(study.output).parent / "tiny.yaml", ("local.threads=1", "workers=1"))
    assert probe.known(threads, plan(threads), "x") is None
    (Path(os.environ["OLMO_MIXLAW_CACHE"]) / probe.KEPT).write_text("{")
    assert probe.known(study, runs, "x") is None


@pytest.mark.slow
@pytest.mark.olmo
def test_a_probe_measures_the_real_trainer_and_leaves_the_study_alone(tiny):
    study, runs = tiny
    found = probe.probe(study, runs, "x", lambda line: None)
    assert found.paces.keys() == {"w16", "w32"}
    assert all(0 < pace < 10 for pace in found.paces.values())
    assert not Path(study.output).exists()
    assert probe.known(study, runs, "x") == found


@pytest.mark.slow
@pytest.mark.olmo
def test_a_probe_that_fails_says_why(tiny, monkeypatch):
    study, runs = tiny
    real = probe.run_config
    monkeypatch.setattr(
        probe, "run_config", lambda *given: {**real(*given), "device_train_microbatch_size": -1}
    )
    with pytest.raises(ConfigError, match=r"probe of w\d\d: "):
        probe.probe(study, runs, "x", lambda line: None)
