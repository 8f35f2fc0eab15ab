"""The command line, and a dataset that another package brings."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from olmo_mixlaw.cli.app import app, run

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "example_dataset"


@pytest.fixture
def tokenizer_path(byte_tokenizer, tmp_path):
    path = tmp_path / "tokenizer.json"
    byte_tokenizer.save(str(path))
    return str(path)


def test_show_prints_documents_questions_and_the_ledger(small_uri, capsys):
    assert run(app, ["data", "show", small_uri, "-n", "2"]) == 0
    out = capsys.readouterr().out
    assert out.count("? ") == 2
    assert "bits a person" in out


def test_ledger_counts_exposures(small_uri, tokenizer_path, capsys):
    arguments = ["--tokenizer", tokenizer_path, "--ratio", "0.3", "--tokens", "2e6", "--json"]
    assert run(app, ["data", "ledger", small_uri, *arguments]) == 0
    rows = {row["quantity"]: row["value"] for row in json.loads(capsys.readouterr().out)}
    each = rows["tokens an exposure"]
    exposures = rows["exposures a person, ratio 0.3, 2,000,000 tokens"]
    assert exposures == pytest.approx(0.3 * 2e6 / (64 * each))
    assert rows["parameters filled at 2 bits each"] == pytest.approx(rows["bits in all"] / 2)


def test_make_writes_and_goes_on(small_uri, tokenizer_path, tmp_path, capsys):
    out = str(tmp_path / "out")
    arguments = ["data", "make", small_uri, out, "--tokenizer", tokenizer_path]
    assert run(app, [*arguments, "--documents", "100"]) == 0
    assert "of 100 documents" in capsys.readouterr().out
    assert run(app, [*arguments, "--documents", "100"]) == 0
    assert "1 of them already there" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "mixlaw:biografy"], "did you mean 'biography'"),
        (["show", "biography"], "a dataset is written mixlaw:<name>?key=value"),
        (["ledger", "mixlaw:slope", "--ratio", "0.3"], "give --tokenizer too"),
        (["make", "mixlaw:slope", "out", "--tokenizer", "gone.json"], "no such tokenizer file"),
        (["ledger", "mixlaw:slope", "--tokenizer", "pyproject.toml"], "not a tokenizers JSON"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(arguments, message, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert run(app, ["data", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_script_does_what_the_command_does(small_uri, tokenizer_path, tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "make_data.py"), small_uri]
    command += [str(tmp_path / "out"), "--tokenizer", tokenizer_path, "--documents", "50"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "of 50 documents" in result.stdout


@pytest.mark.slow
def test_a_package_adds_a_dataset(tokenizer_path, tmp_path):
    pytest.importorskip("setuptools")
    source, target = tmp_path / "source", tmp_path / "site"
    # A copy, since building leaves files beside the sources.
    for path in EXAMPLE.rglob("*"):
        if path.suffix in (".py", ".toml"):
            copy = source / path.relative_to(EXAMPLE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(target), str(source)], check=True)
    environment = {**os.environ, "PYTHONPATH": str(target)}

    def command(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "olmo_mixlaw.cli.app", "data", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    shown = command("show", "mixlaw:squares?n=13")
    assert shown.returncode == 0, shown.stderr
    assert "The square of 2 is 4." in shown.stdout
    assert command("show", "mixlaw:squares?n=0").returncode == 2
    made = command(
        "make",
        "mixlaw:squares?n=13",
        str(tmp_path / "out"),
        "--documents",
        "90",
        "--tokenizer",
        tokenizer_path,
        "--processes",
        "2",
    )
    assert made.returncode == 0, made.stderr
    assert "of 90 documents" in made.stdout
