"""The columns that name a row: ids, domains, seeds, splits. What can't be one is refused by line.

Most such cells come from a column under another's header: a size called `split`, a loss called
`domain`.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from olmo_mixlaw.runs.frames import numbers, refuse

# A greater number under `split` is a size or a count, no fold.
MOST_FOLDS = 1000


def check_names(frame: pd.DataFrame, columns: Iterable[str], source: str) -> None:
    """Refuse ids and names that are missing, blank or no finite number. Raises `DataError`."""
    for column in columns:
        cells = frame[column]
        blank = cells.isna() | (cells.astype(str).str.strip() == "")
        refuse(frame, column, blank, source, "is missing")
        refuse(frame, column, np.isinf(_floats(cells)), source, "is no name")


def named_domains(frame: pd.DataFrame, source: str) -> pd.Series:
    """The domains as text; a whole number is a name. Raises `DataError` for any other."""
    values = _floats(frame["domain"])
    broken = np.isfinite(values) & (values != np.floor(values))
    refuse(frame, "domain", broken, source, "is a number, and no name of a domain")
    return frame["domain"].astype(str)


def check_seeds(frame: pd.DataFrame, source: str) -> None:
    """Refuse seeds that are no whole numbers; an empty cell is none. Raises `DataError`."""
    seeds = numbers(frame, "seed", source)
    broken = seeds.notna() & (np.isinf(seeds) | (seeds != np.floor(seeds)))
    refuse(frame, "seed", broken, source, "a seed is a whole number, or left empty")


def check_splits(frame: pd.DataFrame, source: str) -> None:
    """Refuse numbers under `split` that are no fold. Raises `DataError`."""
    values = _floats(frame["split"])
    fold = np.isin(values, np.arange(MOST_FOLDS))
    reason = "names a part of the runs (train, 3): if this is something else, rename the column"
    refuse(frame, "split", ~np.isnan(values) & ~fold, source, reason)


def _floats(cells: pd.Series) -> np.ndarray:
    """Cells as numbers, NaN for those that are none."""
    return pd.to_numeric(cells, errors="coerce").to_numpy(float, na_value=np.nan)
