"""The wheel holds everything: built, installed and used where there is no source tree."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from site_of_packages import ROOT, Site
from tiny_study import STUDY

import olmo_mixlaw

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
# What a checkout keeps for those who work on it.
NOT_SHIPPED = ("tests/", "scripts/", "docs/", "benchmarks/results/")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    build = [*PIP, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*build, str(ROOT)], check=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The wheel beside this environment's packages, and an empty folder to work in."""
    site = tmp_path_factory.mktemp("site")
    install = [*PIP, "install", "--no-index", "--no-deps", "--target", str(site)]
    subprocess.run([*install, str(wheel)], check=True)
    return Site(site, tmp_path_factory.mktemp("elsewhere"))


def test_it_carries_the_package_and_what_its_files_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert wheel.name.startswith(f"olmo_mixlaw-{olmo_mixlaw.__version__}-py3")
    package = ROOT / "olmo_mixlaw"
    files = {f for f in package.rglob("*") if f.is_file() and "__pycache__" not in f.parts}
    assert {str(file.relative_to(ROOT)) for file in files} <= names
    for folder in ("configs", "eval_suites"):
        for file in (ROOT / folder).rglob("*.yaml"):
            assert f"olmo_mixlaw/{file.relative_to(ROOT)}" in names
    assert [n for n in names if n.removeprefix("olmo_mixlaw/").startswith(NOT_SHIPPED)] == []


def test_it_is_the_one_that_runs(installed: Site) -> None:
    where = "import json, olmo_mixlaw; print(json.dumps(olmo_mixlaw.__file__))"
    assert Path(installed.told(where)).is_relative_to(installed.packages)
    assert olmo_mixlaw.__version__ in installed.ok("--version")
    command = installed.packages / "bin" / "olmo-mixlaw"
    assert "olmo_mixlaw.cli.app" in command.read_text()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train --help", "Trainer"),
        ("ladder show micro-dense", "w64"),
        ("study plan micro", "w48-bio30-1M-s1"),
        ("swarm micro24 -n 4", "text:wikipedia"),
        ("evaluate --list-tasks", "bio_recall"),
        ("data show mixlaw:slope -n 1", "Final Answer"),
        ("fit --recipe moe-sparsity --no-held-out", "alpha"),
        ("doctor", "ok shipped files"),
    ],
)
def test_names_that_are_shipped_are_found(installed: Site, line: str, said: str) -> None:
    assert said in installed.ok(*line.split())


def test_the_ladder_is_fitted(installed: Site) -> None:
    done = installed.python("-m", "olmo_mixlaw.cli.fit_ladder", "--replicates", "2")
    assert done.returncode == 0, done.stderr
    assert "13B-5T" in done.stdout
    assert (installed.folder / "results" / "ladder" / "predictions.csv").is_file()


def test_a_study_ends_with_its_report(installed: Site) -> None:
    pytest.importorskip("olmo")
    (installed.folder / "tiny.yaml").write_text(STUDY.format(output="tiny"))
    assert "report" in installed.ok("study", "run", "tiny.yaml", "workers=1")
    page = (installed.folder / "tiny" / "report.html").read_text(encoding="utf-8")
    assert "<html" in page
    assert "{{" not in page
