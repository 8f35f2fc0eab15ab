"""Every mistake of a user ends with code 2 and one line, before any work is done."""

import subprocess
import sys
from pathlib import Path

import pytest

from olmo_mixlaw.cli import app as cli

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "configs" / "train" / "micro.yaml"
TABLE = """run_id,n_params,n_tokens,w_web,w_bio,domain,loss
a,10,100,0.25,0.75,web,3.0
a,10,100,0.25,0.75,bio,1.0
b,20,100,0.5,0.5,web,2.5
b,20,100,0.5,0.5,bio,1.5
"""


def mistake(capsys, arguments):
    """What one command prints to standard error, after the checks that all of them share."""
    assert cli.run(cli.app, arguments) == 2
    out, error = capsys.readouterr()
    assert error.startswith("error: ")
    assert error.count("\n") == 1, error
    assert "Traceback" not in out + error
    return error


def train_config(tmp_path, *edits):
    text = CONFIG.read_text().replace("runs/micro", str(tmp_path / "run"))
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        ([("max_grad_norm", "max_grad_nrom")], ["max_grad_nrom", "did you mean 'max_grad_norm'"]),
        ([("wiki: 0.6", "wiki: 0.7")], ["mixture.ratios", "1.1"]),
        ([("bio: 0.4}", "boi: 0.4}")], ["boi", "bio"]),
        ([("mixlaw:biography", "mixlaw:biografy")], ["biografy", "did you mean 'biography'"]),
        ([("n=64", "n=64&colour=red")], ["colour", "known: "]),
        ([("name: wsd", "name: wsdd")], ["wsdd", "did you mean 'wsd'"]),
    ],
)
@pytest.mark.olmo
def test_wrong_training_configuration(tmp_path, capsys, edits, words):
    error = mistake(capsys, ["train", train_config(tmp_path, *edits)])
    assert "config.yaml" in error
    assert all(word in error for word in words), error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("b,20,100,0.5,0.5,web,2.5", "b,20,100,0.5,0.5,web,nan", ["line 4", "'loss'"]),
        ("a,10,100,0.25,0.75,bio", "a,10,100,-0.25,1.25,bio", ["line 3", "'w_web'", "negative"]),
        ("a,10,100,0.25,0.75,web", "a,10,100,0.35,0.75,web", ["line 2", "sum to 1.1"]),
        ("domain,loss", "domain,bpb", ["'loss'", "missing"]),
    ],
)
def test_wrong_table(tmp_path, capsys, old, new, words):
    path = tmp_path / "table.csv"
    path.write_text(TABLE.replace(old, new))
    error = mistake(capsys, ["fit", "--table", str(path), "--out", str(tmp_path / "fit.json")])
    assert str(path) in error
    assert all(word in error for word in words), error
    assert not (tmp_path / "fit.json").exists()


def test_unknown_law_names_the_closest(tmp_path, capsys):
    path = tmp_path / "table.csv"
    path.write_text(TABLE)
    error = mistake(capsys, ["fit", "--table", str(path), "--law", "aditive"])
    assert "did you mean 'additive'" in error


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "nowhere.yaml"],
        ["study", "run", "nowhere.yaml"],
        ["fit", "--table", "nowhere.csv"],
        ["optimize", "nowhere.json", "--n-params", "10"],
        ["predict", "nowhere.json", "--query", "nowhere.csv"],
        ["evaluate", "nowhere", "-t", "bio_recall", "-o", "scores"],
        ["data", "show", "mixlaw:text?path=nowhere.txt"],
        ["ladder", "show", "nowhere.yaml"],
    ],
)
def test_missing_file_is_named(capsys, arguments):
    assert "nowhere" in mistake(capsys, arguments)


@pytest.mark.slow
def test_checkpoint_of_another_vocabulary_is_refused_before_training(tmp_path):
    def train(*overrides):
        command = [sys.executable, "-m", "olmo_mixlaw", "train", config, *overrides]
        return subprocess.run(command, capture_output=True, text=True)

    config = train_config(tmp_path)
    first = train("--max_duration=2")
    assert first.returncode == 0, first.stderr
    checkpoint = tmp_path / "run" / "step2-unsharded"
    assert checkpoint.is_dir()
    other = tmp_path / "other"
    done = train(
        f"--load_path={checkpoint}",
        f"--save_folder={other}",
        "--model.vocab_size=512",
        "--model.embedding_size=512",
        f"--tokenizer.identifier={other}/tokenizer.json",
        "--tokenizer.train_vocab_size=512",
    )
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "vocab" in last
    assert "1024" in last
    assert not list(other.glob("step*"))


def test_scripts_say_what_they_do_and_refuse_as_the_command_does():
    for script in sorted((ROOT / "scripts").glob("*.py")):
        said = subprocess.run(
            [sys.executable, str(script), "--help"], capture_output=True, text=True
        )
        assert said.returncode == 0, said.stderr
        assert "Usage" in said.stdout or "usage" in said.stdout
        wrong = subprocess.run(
            [sys.executable, str(script), "--no-such-option"], capture_output=True, text=True
        )
        assert wrong.returncode == 2
        assert "Traceback" not in wrong.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["study", "plan", "micr"], "unknown study 'micr'; did you mean 'micro'?"),
        (["study", "plan", "a/b.yaml"], "a/b.yaml: no such file"),
        (["study", "plan", "x" * 5000], "not a file's name"),
        (["study", "plan", "a\0b"], "unknown study 'a\\x00b'"),
        (["study", "plan", "micro", "workers"], "overrides are written KEY=VALUE"),
        (
            ["study", "plan", "micro", "--wrokers=3"],
            "unknown key 'wrokers'; did you mean 'workers'",
        ),
        (["study", "status"], "Missing argument 'FOLDER'"),
        (["study", "plan", "micro", "sizes=w17"], "and its overrides: sizes: unknown size 'w17'"),
    ],
)
def test_one_line_names_what_was_meant(capsys, arguments, said):
    assert said in mistake(capsys, arguments)


@pytest.mark.parametrize("command", ["run", "plan", "report"])
def test_a_folder_without_a_study_is_one_line(tmp_path, capsys, command):
    assert "no study here" in mistake(capsys, ["study", command, str(tmp_path)])


@pytest.mark.olmo
def test_output_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    said = mistake(capsys, ["study", "run", "micro", f"output={tmp_path / 'file' / 'out'}"])
    assert "Not a directory" in said
