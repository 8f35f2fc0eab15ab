"""Every command that takes a configuration takes it by name or by path, and says what is near."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from olmo_mixlaw.shipped import find_config

Command = Callable[..., int]
FAST = ("--law", "no_mixture", "--no-held-out", "--out", "f.json")

# The arguments, of which CONFIG is the configuration; its shipped folder, and a name there.
CASES = {
    "study plan": (("study", "plan", "CONFIG"), "configs/studies", "micro"),
    "study status": (("study", "status", "CONFIG"), "configs/studies", "micro"),
    "study report": (("study", "report", "CONFIG"), "configs/studies", "micro"),
    "ladder show": (("ladder", "show", "CONFIG"), "configs/ladders", "micro-dense"),
    "ladder make": (
        ("ladder", "make", "--active", "1M", "--like", "CONFIG"),
        "configs/ladders",
        "micro-dense",
    ),
    "fit --recipe": (("fit", "--recipe", "CONFIG", *FAST), "configs/fits", "moe-sparsity"),
    "fit --table": (("fit", "--table", "CONFIG", *FAST), "configs/tables", "moe-sparsity"),
    "compare --table": (("compare", "--table", "CONFIG"), "configs/tables", "wide"),
    "optimize --recipe": (("optimize", "no.json", "--recipe", "CONFIG"), "configs/fits", "wide"),
    "predict --recipe": (
        ("predict", "no.json", "--query", "no.csv", "--recipe", "CONFIG"),
        "configs/fits",
        "wide",
    ),
    "swarm": (("swarm", "CONFIG", "-n", "4"), "configs/swarms", "micro24"),
    "train": (("train", "CONFIG", "--max_duration=few"), "configs/train", "micro"),
    "evaluate": (("evaluate", "nowhere", "-t", "CONFIG", "-o", "out"), "eval_suites", "mixlaw"),
}


def swapped(arguments: tuple[str, ...], config: str | Path) -> list[str]:
    return [str(config) if argument == "CONFIG" else argument for argument in arguments]


@pytest.mark.parametrize("case", CASES)
def test_a_name_and_its_path_mean_the_same(
    case: str,
    tmp_path: Path,
    mixlaw: Command,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, folder, name = CASES[case]
    found = []
    for config in (name, find_config(folder, name)):
        code = mixlaw(*swapped(arguments, config))
        found.append((code, *(text.replace(str(config), name) for text in capsys.readouterr())))
    by_name, by_path = found
    assert by_name[0] == by_path[0]
    assert by_name[2].replace(str(find_config(folder, name)), name) == by_path[2]
    assert by_name[1] == by_path[1]


@pytest.mark.parametrize("case", CASES)
def test_a_name_that_is_nearly_one_is_asked_about(
    case: str, tmp_path: Path, mixlaw: Command, capsys: pytest.CaptureFixture
) -> None:
    arguments, _, name = CASES[case]
    assert mixlaw(*swapped(arguments, f"{name[:-1]}x")) == 2
    assert f"did you mean {name!r}?" in capsys.readouterr().err
    assert mixlaw(*swapped(arguments, tmp_path / "no.yaml")) == 2
    assert f"{tmp_path / 'no.yaml'}: no such file" in capsys.readouterr().err


@pytest.mark.olmo
def test_epochs_of_a_mixture_are_refused_with_what_to_write(
    tmp_path: Path, mixlaw: Command, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert mixlaw("train", "micro", "--max_duration=1ep") == 2
    error = capsys.readouterr().err
    assert "max_duration: '1ep' counts epochs, which a mixture doesn't have" in error
    assert "give steps (1000) or tokens (2e6T)" in error
