"""Ladders of other packages: found by name wherever a shipped one is, and refused by name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from olmo_mixlaw.cli.app import app, run
from olmo_mixlaw.errors import ConfigError, ExtensionError, UnknownNameError
from olmo_mixlaw.models import ladder as module
from olmo_mixlaw.models.ladder import load_ladder
from olmo_mixlaw.registry import LADDERS, Registry

SHAPE = {"n_layers": 2, "n_heads": 2, "mlp_size": 32}
DEEP = {
    "description": "Two rungs of my own.",
    "defaults": SHAPE,
    "rungs": {"small": {"d_model": 16}, "large": {"d_model": 32}},
}
YAML = "defaults: {n_layers: 2, n_heads: 2, mlp_size: 32}\nrungs:\n  a: {d_model: 16}\n"


@pytest.fixture
def ladders(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry of this test alone."""
    fresh = Registry(LADDERS.kind, LADDERS.group, {})
    monkeypatch.setattr(module, "LADDERS", fresh)
    return fresh


@pytest.fixture
def package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ladders: Registry
) -> Callable[[str, str], None]:
    """Installs the package `my-ladders`: the source of its module, and its entry points."""

    def install(source: str, points: str) -> None:
        (tmp_path / "my_ladders.py").write_text(source)
        info = tmp_path / "my_ladders-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-ladders\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{LADDERS.group}]\n{points}\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "my_ladders", raising=False)

    return install


def yaml_file(folder: Path) -> Path:
    path = folder / "file.yaml"
    path.write_text(YAML)
    return path


@pytest.mark.parametrize(
    "part_of",
    [
        lambda folder: DEEP,
        lambda folder: lambda: DEEP,
        yaml_file,
        lambda folder: str(yaml_file(folder)),
        lambda folder: lambda: yaml_file(folder),
    ],
    ids=["mapping", "function", "path", "path as text", "function to path"],
)
def test_each_form_of_a_ladder_is_found_under_its_name(
    ladders: Registry, tmp_path: Path, part_of: Callable[[Path], Any]
) -> None:
    ladders.add("deep", part_of(tmp_path))
    found = load_ladder("deep")
    assert found.name == "deep"
    assert next(iter(found.rungs.values())).d_model == 16


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (3, "is 3; a ladder must be the path of a YAML file, a mapping with its keys or a func"),
        (lambda: None, "is None; a ladder must be"),
        (lambda: {}["gone"], r"can't be made \(KeyError: 'gone'\); mend or uninstall"),
        (lambda folder: DEEP, r"can't be made \(TypeError: .* 1 required positional argument"),
        ("nowhere.yaml", "nowhere.yaml: no such file"),
        ({"rungz": {}}, "unknown key 'rungz'; did you mean 'rungs'"),
        ({"rungs": {}}, "a ladder needs at least one"),
        ({"rungs": {"a": {**SHAPE, "d_model": 15}}}, "doesn't divide into 2 heads"),
        ({"rungs": {"a": {**SHAPE, "d_model": 16, "training": 3}}}, "a.training: expected a map"),
        ({"rungs": {"a": object()}}, "'object' is not a supported primitive type"),
    ],
)
def test_a_part_that_is_no_ladder_is_one_clear_error(
    ladders: Registry, part: Any, said: str
) -> None:
    ladders.add("deep", part)
    with pytest.raises(ExtensionError, match=said) as caught:
        load_ladder("deep", "study.yaml: ladder")
    assert str(caught.value).startswith("study.yaml: ladder: ladder 'deep'")
    assert "\n" not in str(caught.value)


def test_unknown_names_list_ladders_of_both_kinds(ladders: Registry) -> None:
    ladders.add("deep", DEEP)
    with pytest.raises(UnknownNameError, match=r"did you mean 'deep'\? .*deep, micro-dense"):
        load_ladder("deeep")
    with pytest.raises(ConfigError, match=r"^ladders/deep\.yaml: no such file$"):
        load_ladder("ladders/deep.yaml")


def test_shipped_ladders_win_over_packages_and_packages_over_files(
    ladders: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("micro-dense", "deep", "mine"):
        (tmp_path / name).write_text(YAML)
    ladders.add("micro-dense", DEEP)
    ladders.add("deep", DEEP)
    assert "w16" in load_ladder("micro-dense").rungs
    assert "large" in load_ladder("deep").rungs
    assert list(load_ladder("mine").rungs) == ["a"]
    assert run(app, ["ladder", "list"]) == 0
    shown = capsys.readouterr()
    assert shown.out.count("micro-dense") == 1
    assert "ladder 'micro-dense' is left out: the name is taken by a built-in one" in shown.err


def test_an_installed_ladder_is_listed_shown_and_studied(
    package: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    from olmo_mixlaw.study.config import load_study

    package(f"DEEP = {DEEP!r}", "deep = my_ladders:DEEP")
    assert run(app, ["ladder", "list"]) == 0
    assert "deep            2 rungs  Two rungs of my own." in capsys.readouterr().out
    assert run(app, ["ladder", "show", "deep"]) == 0
    assert "large" in capsys.readouterr().out
    changes = ("ladder=deep", "sizes=[small]", "target.size=small")
    assert load_study("micro", changes).ladder == "deep"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import nothing_of_this_name", "can't be loaded (ModuleNotFoundError"),
        ("DEEP = 3", "is 3; a ladder must be"),
        ("def DEEP(): raise RuntimeError('no disk')", "can't be made (RuntimeError: no disk)"),
    ],
)
def test_a_broken_package_is_named_once_and_breaks_nothing(
    package: Callable[[str, str], None], capsys: pytest.CaptureFixture[str], source: str, said: str
) -> None:
    package(source, "deep = my_ladders:DEEP")
    assert run(app, ["ladder", "list"]) == 0
    shown = capsys.readouterr()
    assert "micro-dense" in shown.out
    assert shown.err.startswith("olmo-mixlaw: ladder 'deep' of package 'my-ladders'")
    assert said in shown.err
    assert shown.err.count("\n") == 1
    assert run(app, ["ladder", "show", "deep"]) == 2
    assert "ladder 'deep' of package 'my-ladders'" in capsys.readouterr().err
