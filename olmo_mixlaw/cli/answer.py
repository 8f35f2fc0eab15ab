"""A command's answer: text as it works, or with `--json` one document at its end.

With `--json` standard output holds that document and nothing else; whatever is printed besides
(how a table was read, where a file went) goes to standard error. Numbers are plain, and one that
isn't known is null.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import wraps
from typing import Any

import click

from olmo_mixlaw.report.document import jsonable


class Answer:
    """What a command found: `document` is its JSON, `show` prints a part of its text."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.document: Any = None

    def show(self, text: str = "") -> None:
        """A line or a table of the answer, which the JSON document has in its own way."""
        if not self.as_json:
            click.echo(text)

    def close(self) -> None:
        """Write the document, where it was asked for and there is one."""
        if self.as_json and self.document is not None:
            click.echo(json.dumps(jsonable(self.document), indent=1, allow_nan=False))


def answers(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--json` for a command that takes an `answer` first and fills it."""

    @wraps(command)
    def answered(*given: Any, as_json: bool, **options: Any) -> None:
        answer = Answer(as_json)
        if not as_json:
            command(answer, *given, **options)
            return
        code = 0
        with redirect_stdout(sys.stderr):
            try:
                command(answer, *given, **options)
            except click.exceptions.Exit as stop:  # an answer that is bad news
                code = stop.exit_code
        answer.close()
        if code:
            raise click.exceptions.Exit(code)

    return click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")(
        answered
    )
