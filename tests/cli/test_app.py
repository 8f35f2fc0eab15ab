import errno
import pickle
import subprocess
import sys

import click
import pytest

from olmo_mixlaw.cli import app as cli
from olmo_mixlaw.errors import MixlawError, UnknownNameError
from olmo_mixlaw.registry import Registry


def test_help_lists_every_command_without_importing_it():
    code = (
        "import sys; from olmo_mixlaw.cli import app as cli; cli.run(cli.app, ['--help']);"
        "heavy = {'torch', 'olmo', 'transformers', 'pandas', 'scipy', 'matplotlib'};"
        "sys.exit(bool(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in cli.COMMANDS)


@pytest.mark.parametrize("module", ["olmo_mixlaw", "olmo_mixlaw.cli"])
def test_the_package_runs_as_a_module(module):
    command = [sys.executable, "-m", module, "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("olmo-mixlaw, version ")


def test_what_olmes_loads_of_us_is_no_command():
    code = (
        "import sys, olmo_mixlaw.plugin; print(*(n for n in sys.modules if n.startswith("
        "('click', 'torch', 'numpy', 'olmo_mixlaw.cli', 'olmo_mixlaw.evaluation'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_every_command_can_be_loaded():
    for name in cli.COMMANDS:
        assert cli.app.get_command(None, name).help, name


def test_unknown_command_is_one_line_with_code_2(capsys):
    assert cli.run(cli.app, ["studdy"]) == 2
    error = capsys.readouterr().err
    assert "did you mean 'study'?" in error
    assert error.count("\n") == 1


def test_registry_resolves_lazily_and_names_the_closest():
    registry = Registry("shape", "olmo_mixlaw.nothing", {"square": "fractions:Fraction"})
    assert registry.get("square").__name__ == "Fraction"
    with pytest.raises(UnknownNameError, match=r"file.yaml: unknown shape 'squar'; did you mean"):
        registry.get("squar", "file.yaml")
    registry.add("circle", 3)
    assert registry.get("circle") == 3
    assert registry.names() == ["circle", "square"]


def raising(error):
    @click.command()
    def command():
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "out.csv"), "out.csv: No space left"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), "error: a: Permission denied"),
        (MemoryError(), "error: not enough memory"),
        (ModuleNotFoundError("no", name="torch.nn"), "needs torch, which is not installed: pip"),
        (ModuleNotFoundError("no", name="olmo"), "pip install 'olmo-mixlaw[olmo]'"),
        (ModuleNotFoundError("no", name="datasets"), "pip install 'olmo-mixlaw[olmo]'"),
        (ModuleNotFoundError("no", name="transformers"), "pip install 'olmo-mixlaw[hf]'"),
        (ImportError("numpy ABI", name="torch._C"), "torch can't be imported (numpy ABI)"),
        (pickle.UnpicklingError("blocked\n\nposix"), "save the model as safetensors"),
        (MixlawError(f"key {'x' * 5000} end"), f"error: key {'x' * 80}... end"),
        (MixlawError("two\nlines"), "error: two lines"),
        (click.UsageError("No such\noption"), "error: No such option (see"),
    ],
)
def test_what_goes_wrong_outside_of_us_is_one_line(capsys, error, said):
    assert cli.run(raising(error), []) == 2
    found = capsys.readouterr().err
    assert said in found
    assert found.count("\n") == 1


@pytest.mark.parametrize(
    "error", [ZeroDivisionError(), ModuleNotFoundError("ours", name="olmo_mixlaw.nothing")]
)
def test_a_defect_of_ours_is_not_dressed_up(error):
    with pytest.raises(type(error)):
        cli.run(raising(error), [])


def test_an_interrupt_is_one_word(capsys):
    assert cli.run(raising(KeyboardInterrupt()), []) == 130
    assert capsys.readouterr().err.strip() == "stopped"


@pytest.mark.parametrize(
    ("shell", "code", "said"),
    [
        ("{} ladder list > /dev/full", 2, "error: standard output: No space left on device\n"),
        ("{} ladder list >&-", 0, ""),
        ("{} ladder list >&- 2>&-", 0, ""),
        ("{} ladder show nowhere 2>&-", 2, ""),
        ("PYTHONIOENCODING=ascii {} ladder show olmo-dense > /dev/null", 0, ""),
        (
            "PYTHONIOENCODING=ascii {} ladder show é 2>&1 >/dev/null | grep -c error >/dev/null",
            0,
            "",
        ),
        ("{} ladder list | true", 0, ""),
    ],
)
def test_closed_full_and_ascii_streams_stop_no_command(shell, code, said):
    command = shell.format(f"{sys.executable} -m olmo_mixlaw")
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert done.stderr == said
