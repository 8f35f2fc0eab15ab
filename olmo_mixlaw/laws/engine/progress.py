"""Where slow work says how far it is: nobody listens unless a command does.

with reporting(print):
    fit("stack", table)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_LISTENER: ContextVar[Callable[[str], None] | None] = ContextVar("listener", default=None)


@contextmanager
def reporting(to: Callable[[str], None]) -> Iterator[None]:
    """Lines of `report` go to this function inside the block."""
    token = _LISTENER.set(to)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def report(line: str) -> None:
    """Tell whoever listens, if anybody, what is being done."""
    listener = _LISTENER.get()
    if listener is not None:
        listener(line)
