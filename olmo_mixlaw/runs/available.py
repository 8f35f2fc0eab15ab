"""How many tokens each domain had for a run: optional columns `available_<domain>` of a table.

A run that sees more of a domain than it has repeats it. An empty cell is a domain without end, or
one that nobody counted.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from olmo_mixlaw.errors import DataError, unknown_name
from olmo_mixlaw.runs.frames import numbers, refuse

AVAILABLE = "available_"


def checked_available(
    frame: pd.DataFrame, domains: list[str], source: str, per_run: bool = True
) -> list[str]:
    """Checks such columns in place; their names, none where the table has none.

    Raises `DataError` for columns of some domains only, or of no domain, and for cells that are
    neither empty nor a positive, finite number, and `per_run` the same in all rows of a run.
    """
    found = [c for c in frame.columns if str(c).startswith(AVAILABLE)]
    for column in found:
        if column[len(AVAILABLE) :] not in domains:
            raise unknown_name("domain", column[len(AVAILABLE) :], domains, f"{source}: {column}")
        frame[column] = checked_tokens(frame, column, source)
    lacking = [name for name in domains if AVAILABLE + name not in found]
    if found and lacking:
        raise DataError(
            f"{source}: column {AVAILABLE + lacking[0]!r} is missing, but {found[0]!r} is there; "
            "give the available tokens of every domain (empty cells: not known), or of none"
        )
    for column in found if per_run else []:
        first = frame.groupby("run_id", sort=False)[column].transform("first")
        reason = "the rows of a run differ"
        refuse(frame, column, frame[column].fillna(-1) != first.fillna(-1), source, reason)
    return found


def checked_tokens(frame: pd.DataFrame, column: str, source: str) -> pd.Series:
    """The tokens of a column, NaN where a cell is empty. Raises `DataError` for any but those."""
    tokens = numbers(frame, column, source)
    reason = "available tokens must be positive and finite; leave the cell empty if not known"
    refuse(frame, column, tokens.notna() & ~((tokens > 0) & np.isfinite(tokens)), source, reason)
    return tokens


def available_tokens(runs: pd.DataFrame, domains: list[str]) -> np.ndarray | None:
    """The tokens (R, K) that domains had, infinite where a cell is empty; None without columns."""
    if AVAILABLE + domains[0] not in runs:
        return None
    return runs[[AVAILABLE + name for name in domains]].fillna(np.inf).to_numpy(float)
