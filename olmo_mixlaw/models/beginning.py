"""The token that a tokenizer puts before every text by itself, found by encoding one."""

from __future__ import annotations

from collections.abc import Sequence

PROBE = "a"


def added_start(bare: Sequence[int], whole: Sequence[int]) -> int | None:
    """The start that `whole` has before `bare`, a text without special tokens; None for none."""
    bare, whole = list(bare), list(whole)
    begins = bool(bare) and len(whole) > len(bare) and whole[1 : len(bare) + 1] == bare
    return int(whole[0]) if begins else None
