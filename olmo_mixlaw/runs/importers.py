"""Tables that others wrote, as RunTables: Olmix, RegMix, and wide CSVs described by a small YAML.

file: swarm.csv            beside the YAML
run_id: name               column; the row's number without it
n_params: 60e6             a number, or the name of a column; likewise n_tokens and n_active
params_unit: 1             what those counts are in (1e9 for billions); likewise tokens_unit
unit: nats                 or bits (a token)
weights: {web: p_web, code: p_code}      domain: column, or a number for all rows
losses: {web: loss_web, wiki: loss_wiki}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from olmo_mixlaw import schema
from olmo_mixlaw.errors import ConfigError, DataError
from olmo_mixlaw.runs import WEIGHT, RunTable, read_frame

ID_COLUMNS = ("run_id", "run", "name", "index", "id")
# Swarm files write ratios with a few digits.
ROUNDED = 0.02
UNITS = {"nats": 1.0, "bits": float(np.log(2))}


@dataclass
class WideTable:
    """What a wide CSV's YAML may say; see the module."""

    file: str = ""
    run_id: str = ""
    n_params: str = ""
    n_active: str = ""
    n_tokens: str = ""
    params_unit: float = 1.0
    tokens_unit: float = 1.0
    unit: str = "nats"
    weight_tolerance: float = ROUNDED
    weights: dict[str, str] = field(default_factory=dict)
    losses: dict[str, str] = field(default_factory=dict)


def wide_table(path: str | Path) -> RunTable:
    """The RunTable that a YAML describes. Raises `ConfigError` or `DataError`."""
    path = Path(path)
    given = schema.load(path, WideTable)
    for key in ("file", "weights", "losses"):
        if not getattr(given, key):
            raise ConfigError(f"{path}: {key}: is needed")
    if given.unit not in UNITS:
        raise ConfigError(f"{path}: unit: {given.unit!r} is none of {', '.join(UNITS)}")
    source = path.parent / given.file
    frame = read_frame(source)
    names = _column(frame, given.run_id, source) if given.run_id else frame.index.astype(str)
    return _joined(
        pd.Series(np.asarray(names).astype(str)),
        {d: pd.Series(_scale(frame, c, f"weights.{d}", source)) for d, c in given.weights.items()},
        {d: _column(frame, c, source) * UNITS[given.unit] for d, c in given.losses.items()},
        _scale(frame, given.n_params, "n_params", source) * given.params_unit,
        _scale(frame, given.n_tokens, "n_tokens", source) * given.tokens_unit,
        str(source),
        given.weight_tolerance,
        _scale(frame, given.n_active or given.n_params, "n_active", source) * given.params_unit,
    )


def two_files(
    ratios: str | Path, metrics: str | Path, *, n_params: float = np.nan, n_tokens: float = np.nan
) -> RunTable:
    """Olmix's `ratios.csv` + `metrics.csv`, or RegMix's mixture and loss tables.

    Rows are joined on the id column that both have (run_id, run, name, index or id); every other
    numeric column is a domain or a loss. RegMix's prefixes (`train_`, `valid_`, `metric/`) and
    endings (`_val`, `/loss`) are taken off, so that a loss finds its domain.
    """
    left, right = read_frame(ratios), read_frame(metrics)
    shared = [c for c in ID_COLUMNS if c in left.columns and c in right.columns]
    if not shared:
        raise DataError(f"{ratios} and {metrics}: no id column in both ({', '.join(ID_COLUMNS)})")
    key = shared[0]
    for path, frame in ((ratios, left), (metrics, right)):
        if frame[key].duplicated().any():
            first = frame.loc[frame[key].duplicated(), key].iloc[0]
            raise DataError(f"{path}: a second row for {key} {first!r}")
    missing = set(left[key]) ^ set(right[key])
    if missing:
        raise DataError(
            f"{ratios} and {metrics}: {key} {sorted(missing, key=str)[0]!r} is in one only"
        )
    right = right.set_index(key).loc[left[key]].reset_index()
    return _joined(
        left[key].astype(str),
        _numeric(left, str(ratios)),
        _numeric(right, str(metrics)),
        np.full(len(left), n_params),
        np.full(len(left), n_tokens),
        str(ratios),
        ROUNDED,
    )


def _numeric(frame: pd.DataFrame, where: str) -> dict[str, pd.Series]:
    columns = {
        _domain(c): frame[c]
        for c in frame.columns
        if c not in ID_COLUMNS
        and not str(c).startswith("Unnamed")
        and pd.api.types.is_numeric_dtype(frame[c])
    }
    if not columns:
        raise DataError(f"{where}: no numeric column besides the id")
    return columns


def _domain(column: str) -> str:
    name = str(column).removeprefix("metric/").removesuffix("/loss").removesuffix("_val")
    for prefix in ("train_", "valid_"):
        name = name.removeprefix(prefix)
    return name


def _column(frame: pd.DataFrame, name: str, where: Path) -> pd.Series:
    if name not in frame:
        raise DataError(
            f"{where}: column {name!r} is missing (found: {', '.join(map(str, frame))})"
        )
    return frame[name]


def _scale(frame: pd.DataFrame, given: str, key: str, where: Path) -> np.ndarray:
    """A number for all rows, or the column of that name."""
    if not given:
        return np.full(len(frame), np.nan)
    try:
        return np.full(len(frame), float(given))
    except ValueError:
        if given not in frame:
            raise DataError(f"{where}: {key}: {given!r} is neither a number nor a column") from None
        return frame[given].to_numpy(float)


def _joined(
    names: pd.Series,
    weights: Mapping[str, pd.Series],
    losses: Mapping[str, pd.Series],
    n_params: np.ndarray,
    n_tokens: np.ndarray,
    source: str,
    tolerance: float,
    n_active: np.ndarray | None = None,
) -> RunTable:
    base = pd.DataFrame(
        {
            "run_id": names.to_numpy(),
            "n_params": n_params,
            "n_tokens": n_tokens,
            "n_active": n_params if n_active is None else n_active,
        }
    )
    for domain, values in weights.items():
        base[WEIGHT + domain] = pd.to_numeric(values, errors="coerce").to_numpy(float)
    parts = [base.assign(domain=d, loss=v.to_numpy()) for d, v in losses.items()]
    frame = pd.concat(parts, ignore_index=True)
    return RunTable(frame, source=source, weight_tolerance=tolerance)


def load_table(
    table: str | None,
    ratios: str | None = None,
    metrics: str | None = None,
    *,
    n_params: float = np.nan,
    n_tokens: float = np.nan,
    weight_tolerance: float = 1e-6,
) -> RunTable:
    """The table that a command was given: a RunTable, a YAML of a wide CSV, or a pair of files."""
    if bool(ratios) != bool(metrics):
        raise ConfigError("--ratios and --metrics: give both")
    if bool(table) == bool(ratios):
        raise ConfigError("--table, or --ratios with --metrics: give one of them")
    if ratios and metrics:
        return two_files(ratios, metrics, n_params=n_params, n_tokens=n_tokens)
    assert table is not None
    if Path(table).suffix in (".yaml", ".yml"):
        return wide_table(table)
    return RunTable.load(table, weight_tolerance)
