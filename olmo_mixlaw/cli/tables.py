"""Tables of an answer: drawn by `rich` on a terminal, plain lines where a program reads them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from olmo_mixlaw.cli.answer import Answer


@dataclass(frozen=True)
class Column:
    """A column's title, its least width in plain lines, and whether it holds numbers."""

    title: str
    width: int = 0
    right: bool = False


def is_terminal() -> bool:
    """Whether standard output is a person's."""
    return sys.stdout is not None and sys.stdout.isatty()


def show_table(
    answer: Answer, columns: Sequence[Column], rows: Sequence[Sequence[str]], *, titled: bool = True
) -> None:
    """Show `rows`, a cell a column; on plain lines the titles only where they are asked for."""
    if answer.as_json:
        return
    if is_terminal():
        from rich.console import Console

        Console().print(rich_table(columns, rows))
        return
    for row in [[column.title for column in columns], *rows] if titled else rows:
        answer.show(plain_line(columns, row))


def plain_line(columns: Sequence[Column], row: Sequence[str]) -> str:
    """A row as text: cells padded to the columns' widths."""
    cells = [
        cell.rjust(column.width) if column.right else cell.ljust(column.width)
        for column, cell in zip(columns, row, strict=True)
    ]
    return " ".join(cells).rstrip()


def rich_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]):  # type: ignore[no-untyped-def]
    """The table as `rich` draws it."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column.title, justify="right" if column.right else "left")
    for row in rows:
        table.add_row(*map(Text, row))  # as text: nothing in a name is markup
    return table
