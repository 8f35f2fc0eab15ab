import click
import pytest

from olmo_mixlaw.cli import app as cli
from olmo_mixlaw.cli.counts import COUNT


@click.command()
@click.option("--size", type=COUNT, default=3)
def sized(size):
    click.echo(repr(size))


@pytest.mark.parametrize(
    ("text", "value"), [("12M", 12e6), ("1B", 1e9), ("2e9", 2e9), ("590k", 590e3), ("7", 7.0)]
)
def test_counts_are_written_as_people_write_them(capsys, text, value):
    assert cli.run(sized, ["--size", text]) == 0
    assert capsys.readouterr().out == f"{value!r}\n"


def test_a_default_is_a_count_too(capsys):
    assert cli.run(sized, []) == 0
    assert capsys.readouterr().out == "3.0\n"


@pytest.mark.parametrize("text", ["many", "12Q", "0", "-1", "nan", "inf"])
def test_what_is_no_count_names_the_option(capsys, text):
    assert cli.run(sized, ["--size", text]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: --size: {text!r} ")
    assert error.count("\n") == 1
