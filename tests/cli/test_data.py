"""The command line of datasets."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from olmo_mixlaw.cli.app import app, run

ROOT = Path(__file__).parents[2]


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
