"""A run's folder is used for that run alone, by all that it was made of."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.study import content, folders
from olmo_mixlaw.study.claims import Claims
from olmo_mixlaw.study.config import load_study
from olmo_mixlaw.study.folders import (
    another_study,
    check_same_study,
    move_study_aside,
    write_configs,
    write_study,
)
from olmo_mixlaw.study.plan import plan


@pytest.fixture
def begun(study_file, tmp_path):
    """The tiny study whose folder holds its runs' configurations; and how to go on with it."""
    path = study_file()

    def go_on(*overrides, rerun=False):
        study = load_study(path, overrides)
        out = Path(study.output)
        check_same_study(study, out)
        write_study(study, out)
        return write_configs(study, plan(study), out, out / "data" / "tokenizer.json", rerun)

    for folder in go_on().values():
        (folder / "log.txt").touch()
    return go_on


def stamps(folder):
    return {p: p.stat().st_mtime_ns for p in Path(folder).rglob("*") if p.is_file()}


@pytest.mark.olmo
def test_a_run_keeps_the_whole_of_what_it_is_made_of(begun, tmp_path):
    said = content.kept(tmp_path / "out" / "runs" / "w16-low-40k-s1")
    assert said["content"]["training"]["model"]["d_model"] == 16
    assert said["content"]["evaluation"]["tasks"][0]["context_kwargs"]["max_tokens"] == 4096
    assert said["defaults"]["mixlaw:biography?order"] == "'shuffled'"
    assert "TrainConfig.max_grad_norm" in said["defaults"]
    assert str(tmp_path) not in json.dumps(said)
    assert said["hash"] == content.hash_of(said["content"])


def test_what_is_added_is_all_that_is_new(begun, tmp_path):
    runs = tmp_path / "out" / "runs"
    before = stamps(runs)
    found = begun(
        "sizes=[w16,w32,w96]", "seeds=[1,2]", "mixtures.more={wiki: 0.6, bio: 0.4}", "workers=3"
    )
    assert len(found) == 3 * 4 * 2
    assert {p: t for p, t in stamps(runs).items() if p in before} == before
    assert len({content.kept(folder)["hash"] for folder in found.values()}) == 24


def test_a_run_of_the_same_name_and_another_content_is_refused(begun, tmp_path):
    before = stamps(tmp_path / "out" / "runs")
    with pytest.raises(ConfigError, match=r"save_interval_unsharded was 5, now 9\) \(5 more runs"):
        begun("checkpoint_every=9")
    with pytest.raises(ConfigError, match=r"mixture.ratios.wiki was 0.8, now 0.9"):
        begun("mixtures.low={wiki: 0.9, bio: 0.1}")
    assert stamps(tmp_path / "out" / "runs") == before


def test_the_first_change_is_said_where_it_is():
    before = {"a": {"b": [1, {"c": 2}]}, "d": 3}
    now = {"a": {"b": [1, {"c": 5}]}, "d": 4}
    assert content.first_change(before, now) == "a.b[1].c was 2, now 5"
    assert content.first_change({"a": 1}, {}) == "a was 1, now None"
    assert len(content.first_change({"a": "x" * 999}, {"a": "y" * 999})) < 420


def test_a_run_that_never_began_may_be_made_of_anything(begun, tmp_path, capsys):
    for path in (tmp_path / "out" / "runs").glob("*/log.txt"):
        path.unlink()
    found = begun("checkpoint_every=9")
    for folder in found.values():
        assert yaml.safe_load((folder / "config.yaml").read_text())["save_interval_unsharded"] == 9
        training = content.kept(folder)["content"]["training"]
        assert training["save_interval_unsharded"] == 9
    assert not (tmp_path / "out" / "aside").exists()


def test_rerun_moves_what_differs_aside_and_nothing_else(begun, tmp_path):
    runs = tmp_path / "out" / "runs"
    (runs / "w16-low-40k-s1" / "run.json").write_text("{}")
    kept = stamps(runs / "w16-mid-40k-s1")
    begun("mixtures.low={wiki: 0.9, bio: 0.1}", rerun=True)
    assert not (runs / "w16-low-40k-s1" / "run.json").exists()
    assert (tmp_path / "out/aside/1/runs/w16-low-40k-s1/run.json").read_text() == "{}"
    assert len(list((tmp_path / "out/aside/1/runs").iterdir())) == 2  # of two sizes
    assert stamps(runs / "w16-mid-40k-s1") == kept
    (runs / "w16-low-40k-s1" / "log.txt").touch()
    (runs / "w32-low-40k-s1" / "log.txt").touch()
    begun(rerun=True)
    assert len(list((tmp_path / "out/aside/2/runs").iterdir())) == 2


@pytest.mark.olmo
def test_a_default_that_changed_is_not_taken_in_silence(begun, tmp_path, monkeypatch):
    real = content.trainer_defaults
    monkeypatch.setattr(
        content, "trainer_defaults", lambda t: {**real(t), "TrainConfig.max_grad_norm": "2.0"}
    )
    with pytest.raises(ConfigError, match=r"the default of TrainConfig.max_grad_norm was None, n"):
        begun()


def test_a_setting_that_is_new_changed_nothing(begun, monkeypatch):
    real = content.trainer_defaults
    monkeypatch.setattr(
        content, "trainer_defaults", lambda t: {**real(t), "TrainConfig.brand_new": "True"}
    )
    begun()


def test_a_datasets_default_counts_too(begun, monkeypatch):
    from olmo_mixlaw.datasets.biography import Biography

    defaults = Biography.__init__.__defaults__
    changed = tuple("fixed" if value == "shuffled" else value for value in defaults)
    monkeypatch.setattr(Biography.__init__, "__defaults__", changed)
    with pytest.raises(ConfigError, match=r"default of mixlaw:biography\?order was 'shuffled', no"):
        begun()


def test_text_that_changed_under_its_name_is_another_run(study_file, tmp_path):
    text = tmp_path / "web.txt"
    text.write_text("one two three\n\n" * 90)
    path = study_file([("text?corpus=wikipedia", f"text?path={text}&heldout=0.3")])
    study = load_study(path)
    out = Path(study.output)
    for folder in write_configs(study, plan(study), out, out / "tokenizer.json").values():
        (folder / "log.txt").touch()
    write_configs(study, plan(study), out, out / "tokenizer.json")
    text.write_text("one two three\n\n" * 91)
    with pytest.raises(ConfigError, match=r"files.wiki was 1350, now 1365"):
        write_configs(study, plan(study), out, out / "tokenizer.json")


def test_runs_of_an_earlier_version_go_on_and_are_told_of(begun, tmp_path, capsys):
    runs = tmp_path / "out" / "runs"
    for path in runs.glob("*/content.json"):
        path.unlink()
    before = {p: p.read_bytes() for p in runs.glob("*/config.yaml")}
    begun()
    assert "6 runs are of an earlier version" in capsys.readouterr().out
    assert {p: p.read_bytes() for p in before} == before
    begun()
    assert "earlier version" not in capsys.readouterr().out


def test_content_is_the_same_wherever_the_study_is(begun, tmp_path):
    out = tmp_path / "out"
    before = {p.parent.name: json.loads(p.read_text())["hash"] for p in out.rglob("content.json")}
    there = tmp_path / "elsewhere"
    shutil.move(out, there)
    study = load_study(there)
    write_configs(study, plan(study), there, there / "data" / "tokenizer.json")
    after = {p.parent.name: json.loads(p.read_text())["hash"] for p in there.rglob("content.json")}
    assert after == before


def test_another_study_is_moved_aside_whole(begun, study_file, tmp_path):
    out = tmp_path / "out"
    other = load_study(study_file(name="other.yaml"), ("tokenizer.vocab_size=600",))
    assert another_study(other, out) == "tokenizer.vocab_size was 512, now 600"
    with pytest.raises(ConfigError, match="--rerun to move that one aside"):
        check_same_study(other, out)
    (out / ".lock").touch()
    held = Claims()
    held.take(out / "runs" / "w16-low-40k-s1")
    with pytest.raises(ConfigError, match=r"works on this run; stop it before"):
        move_study_aside(out)
    held.drop_all()
    move_study_aside(out)
    assert sorted(p.name for p in out.iterdir()) == [".lock", "aside"]
    assert (out / "aside/1/runs/w16-low-40k-s1/content.json").is_file()
    check_same_study(other, out)


def test_one_prepares_while_another_waits(tmp_path, capsys, monkeypatch):
    import threading

    monkeypatch.setattr(folders, "LOOK", 0.01)
    order, inside = [], threading.Event()

    def second():
        with folders.alone(tmp_path):
            order.append("second")

    with folders.alone(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        inside.wait(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert "waiting for another process" in capsys.readouterr().out


def test_the_configuration_of_a_run_is_what_train_reads(begun, tmp_path):
    config = yaml.safe_load((tmp_path / "out/runs/w16-low-40k-s1/config.yaml").read_text())
    assert config["save_folder"] == str(tmp_path / "out/runs/w16-low-40k-s1/checkpoints")
