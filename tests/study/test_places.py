"""A study's folder may be moved, with or without what it was made of."""

import json

import pytest
import yaml

from olmo_mixlaw.cli import app as cli
from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.study.config import folder_of, load_study, save_study
from olmo_mixlaw.study.folders import check_same_study, in_common, write_configs
from olmo_mixlaw.study.places import moved, moved_tokenizer
from olmo_mixlaw.study.plan import plan

TEXT = "mixlaw:text?corpus=wikipedia"


@pytest.fixture
def begun(study_file, tmp_path):
    """Makes a project whose study has begun: its file, its text and the folder `out`."""
    project = tmp_path / "before"
    (project / "out" / "data").mkdir(parents=True)
    (project / "web.txt").write_text("one two three\n\n" * 9)
    path = study_file([(TEXT, "mixlaw:text?path=web.txt&heldout=0.3"), ("/out", "/before/out")])
    path = path.rename(project / path.name)
    out = project / "out"
    study = load_study(path)
    (out / "study.yaml").write_text(save_study(study))
    (out / "shared.json").write_text(json.dumps({**in_common(study), "output": str(out)}))
    (out / "data" / "tokenizer.json").write_text("{}")
    folders = write_configs(study, plan(study), out, out / "data" / "tokenizer.json")
    for folder in folders.values():
        (folder / "log.txt").touch()
    return project


def go_on(study, out):
    check_same_study(study, out)
    return write_configs(study, plan(study), out, out / "data" / "tokenizer.json")


def test_a_project_that_was_moved_goes_on(begun, tmp_path):
    project = begun.rename(tmp_path / "after")
    out = project / "out"
    for name in (project / "tiny.yaml", out, out / "study.yaml"):
        study = load_study(name, (f"output={out}",) if name.name == "tiny.yaml" else ())
        assert study.output == str(out)
        assert f"path={project}/web.txt" in study.domains["wiki"]
        folders = go_on(study, out)
    config = yaml.safe_load((folders["w16-low-40k-s1"] / "config.yaml").read_text())
    assert str(tmp_path / "before") not in json.dumps(config)


def test_a_folder_that_was_moved_alone_finds_what_stayed(begun, tmp_path):
    out = (begun / "out").rename(tmp_path / "alone")
    study = load_study(out)
    assert f"path={begun}/web.txt" in study.domains["wiki"]
    go_on(study, out)


def test_another_study_is_refused_wherever_it_is(begun, tmp_path):
    project = begun.rename(tmp_path / "after")
    (project / "other.txt").write_text("four five six\n\n" * 9)
    text = (project / "tiny.yaml").read_text().replace("web.txt", "other.txt")
    (project / "tiny.yaml").write_text(text)
    study = load_study(project / "tiny.yaml")
    with pytest.raises(ConfigError, match=r"other settings \(domains.wiki was .*web.txt"):
        check_same_study(study, project / "out")
    with pytest.raises(ConfigError, match="made under another configuration"):
        write_configs(study, plan(study), project / "out", project / "out/data/tokenizer.json")


def test_a_checkpoint_finds_the_tokenizer_that_moved_with_it(begun, tmp_path):
    inside = begun / "out" / "runs" / "w16-low-40k-s1" / "checkpoints" / "step5-unsharded"
    inside.mkdir(parents=True)
    named = {"identifier": str(begun / "out" / "data" / "tokenizer.json")}
    (inside / "config.yaml").write_text(yaml.safe_dump({"tokenizer": named}))
    assert moved_tokenizer(inside) is None
    after = begun.rename(tmp_path / "after")
    found = moved_tokenizer(after / inside.relative_to(begun))
    assert found == after / "out" / "data" / "tokenizer.json"
    found.unlink()
    assert moved_tokenizer(after / inside.relative_to(begun)) is None
    assert moved_tokenizer(tmp_path) is None


def test_status_takes_a_study_as_run_does(begun, capsys, monkeypatch):
    for name in (begun / "tiny.yaml", begun / "out", begun / "out" / "study.yaml"):
        assert folder_of(name) == begun / "out"
        assert cli.run(cli.app, ["study", "status", str(name)]) == 0
        assert "0 of 6 runs finished" in capsys.readouterr().out
    monkeypatch.chdir(begun)
    assert str(folder_of("micro")) == "results/micro"
    assert cli.run(cli.app, ["study", "status", "micro"]) == 2
    assert "results/micro: no study here" in capsys.readouterr().err
    assert cli.run(cli.app, ["study", "status", "mirco"]) == 2
    assert "unknown study 'mirco'; did you mean 'micro'?" in capsys.readouterr().err


def test_paths_keep_their_distance_from_the_folder(tmp_path):
    before, now = tmp_path / "a" / "out", tmp_path / "b" / "out"
    given = {"x": [f"{tmp_path}/a/t.txt"], "y": f"mixlaw:text?path={tmp_path}/a/t.txt", "n": 3}
    given |= {"rest": "mixlaw:biography?n=3", "own": "rel.txt"}
    found = moved(given, before, now)
    assert found["x"] == [f"{tmp_path}/b/t.txt"]
    assert found["y"].endswith(f"path={tmp_path}/b/t.txt")
    assert (found["n"], found["rest"], found["own"]) == (3, "mixlaw:biography?n=3", "rel.txt")
    assert moved(given, None, now) is given
