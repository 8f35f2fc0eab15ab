import subprocess
import sys

import pytest

from olmo_mixlaw.cli import app as cli
from olmo_mixlaw.errors import UnknownNameError
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
