"""A count of parameters or tokens on the command line, as people write it.

`--size 12M`, `--tokens 2e9`, `--n-params 1.2B` and `200_000` mean the same everywhere.
"""

from __future__ import annotations

from typing import Any

import click

from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.schema import parse_count


class Count(click.ParamType):
    """A positive number, with a unit (k, M, B, T) where one is written."""

    name = "count"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, int | float):  # a default
            return float(value)
        try:
            return parse_count(str(value), param.opts[0] if param else "count")
        except ConfigError as error:
            raise click.UsageError(str(error), ctx) from None


COUNT = Count()


def counted(text: str) -> float:
    """A number, or a count with its unit. Raises `ConfigError` for anything else."""
    try:
        return float(text)
    except ValueError:
        return parse_count(text, "count")
