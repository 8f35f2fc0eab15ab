"""Tables that others wrote, as RunTables: Olmix, RegMix, and wide CSVs described by a small YAML.

file: swarm.csv            beside the YAML
run_id: name               column; the row's number without it
n_params: 60e6             a number, or the name of a column; likewise n_tokens and n_active
params_unit: 1             what those counts are in (1e9 for billions); likewise tokens_unit
unit: nats                 or bits (a token), or bits_per_byte
weights: {web: p_web, code: p_code}      domain: column, or a number for all rows
losses: {web: loss_web, wiki: loss_wiki}
available: {code: code_tokens}           tokens that a domain had, in tokens_unit: likewise
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from olmo_mixlaw import schema
from olmo_mixlaw.errors import ConfigError, DataError, unknown_name
from olmo_mixlaw.runs.available import AVAILABLE, checked_tokens
from olmo_mixlaw.runs.frames import numbers, read_frame
from olmo_mixlaw.runs.labels import check_names
from olmo_mixlaw.runs.metrics import numeric_columns, read_metrics
from olmo_mixlaw.runs.names import ID_COLUMNS, not_a_loss, stripped
from olmo_mixlaw.runs.table import WEIGHT, RunTable, check_losses, checked_weights
from olmo_mixlaw.runs.units import NATS, accepted_unit
from olmo_mixlaw.shipped import find_config

TABLES = "configs/tables"
# Swarm files write ratios with a few digits.
ROUNDED = 0.02
SHOWN = 4


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
    available: dict[str, str] = field(default_factory=dict)


def wide_table(path: str | Path) -> RunTable:
    """The RunTable that a YAML describes. Raises `ConfigError` or `DataError`."""
    path = Path(path)
    given = schema.load(path, WideTable)
    for key in ("file", "weights", "losses"):
        if not getattr(given, key):
            raise ConfigError(f"{path}: {key}: is needed")
    for key in ("params_unit", "tokens_unit"):
        if not 0 < getattr(given, key) < np.inf:
            raise ConfigError(f"{path}: {key}: must be positive, found {getattr(given, key):g}")
    unit, factor = accepted_unit(given.unit, f"{path}: unit")
    source = path.parent / given.file
    frame = read_frame(source)
    for domain, column in given.losses.items():
        _column(frame, column, source)
        if why := not_a_loss(column):
            raise ConfigError(f"{path}: losses.{domain}: column {column!r} is {why}")
        frame[column] = numbers(frame, column, str(source))
        check_losses(frame, column, str(source))
    names: pd.Series | pd.Index = frame.index
    if given.run_id:
        names = _column(frame, given.run_id, source)
        check_names(frame, [given.run_id], str(source))
    for key, parts in (("weights", given.weights), ("losses", given.losses)):
        _refuse_twice(parts, f"{path}: {key}", frame)
    return _joined(
        pd.Series(np.asarray(names).astype(str)),
        {d: _scale(frame, c, f"{path}: weights.{d}", source) for d, c in given.weights.items()},
        {d: frame[c] * factor for d, c in given.losses.items()},
        _scale(frame, given.n_params, f"{path}: n_params", source, 0.0) * given.params_unit,
        _scale(frame, given.n_tokens, f"{path}: n_tokens", source, 0.0) * given.tokens_unit,
        str(source),
        given.weight_tolerance,
        _scale(frame, given.n_active, f"{path}: n_active", source, 0.0) * given.params_unit,
        unit,
        available=_available(frame, given, f"{path}: available", source),
    )


def two_files(
    ratios: str | Path,
    metrics: str | Path,
    *,
    n_params: float = np.nan,
    n_tokens: float = np.nan,
    unit: str = "",
    targets: Sequence[str] = (),
    weight_tolerance: float = ROUNDED,
) -> RunTable:
    """Olmix's `ratios.csv` + `metrics.csv`, or RegMix's mixture and loss tables.

    Rows are joined on the id column that both have (run_id, run, name, index or id); runs that
    are in one file only are left out, and `notes` says so. Every other column of numbers is a
    domain or, by the rules of `metrics`, a loss; columns `available_<domain>` of the ratios are
    the tokens that domains had. RegMix's affixes (`train_`, `valid_`, `metric/`,
    `_val`, `_loss`) are taken off, so that a loss finds its domain. `unit` and `targets` say what
    the columns' names don't.
    """
    for option, value in (("--size", n_params), ("--tokens", n_tokens)):
        if value <= 0 or np.isinf(value):
            raise ConfigError(f"{option}: must be positive and finite, found {value:g}")
    left, right = read_frame(ratios), read_frame(metrics)
    shared = [c for c in ID_COLUMNS if c in left.columns and c in right.columns]
    if not shared:
        raise DataError(f"{ratios} and {metrics}: no id column in both ({', '.join(ID_COLUMNS)})")
    key = shared[0]
    for path, frame in ((ratios, left), (metrics, right)):
        check_names(frame, [key], str(path))
        if frame[key].duplicated().any():
            first = frame.loc[frame[key].duplicated(), key].iloc[0]
            raise DataError(f"{path}: a second row for {key} {first!r}")
    alone = _alone(left, right, key, str(ratios), str(metrics))
    left, right = left[left[key].isin(right[key])], right[right[key].isin(left[key])]
    tolerance = max(weight_tolerance, ROUNDED)
    had = [c for c in left if str(c).startswith(AVAILABLE)]
    weights, notes = _weights(left.drop(columns=had), str(ratios), tolerance)
    available = _by_domain(left, had, list(weights), str(ratios))
    read = read_metrics(right, list(weights), str(metrics), targets=targets, unit=unit)
    order = pd.Index(right[key]).get_indexer(left[key])
    return _joined(
        left[key].astype(str),
        {d: v.to_numpy() for d, v in weights.items()},
        {t: v.iloc[order] for t, v in read.losses.items()},
        np.full(len(left), n_params),
        np.full(len(left), n_tokens),
        str(ratios),
        tolerance,
        unit=read.unit,
        notes=(*alone, *notes, *read.notes),
        available=available,
    )


def _alone(
    left: pd.DataFrame, right: pd.DataFrame, key: str, ratios: str, metrics: str
) -> tuple[str, ...]:
    """A line for each file that has runs of its own; `DataError` where no run is in both."""
    if not left[key].isin(right[key]).any():
        raise DataError(f"{ratios} and {metrics}: no {key} is in both")
    notes = []
    for one, other, path in ((left, right, ratios), (right, left, metrics)):
        only = [str(v) for v in one[key][~one[key].isin(other[key])]]
        if only:
            more = ", ..." if len(only) > SHOWN else ""
            notes.append(
                f"{path}: {len(only)} of {len(one)} runs are in this file only and left out: "
                f"{key} {', '.join(only[:SHOWN])}{more}"
            )
    return tuple(notes)


def _weights(
    frame: pd.DataFrame, where: str, tolerance: float
) -> tuple[dict[str, pd.Series], list[str]]:
    """The ratios by domain, and what was left out."""
    columns, out = numeric_columns(frame, where)
    if not columns:
        raise DataError(f"{where}: no numeric column besides the id")
    first: dict[str, str] = {}
    for column in columns:
        name = stripped(column)
        if name in first:
            raise DataError(
                f"{where}: columns {first[name]!r} and {column!r} are both domain {name!r} without "
                "affixes; rename one"
            )
        first[name] = column
    checked_weights(frame, list(first.values()), where, tolerance)
    notes = [f"{where}: left out: {', '.join(f'{c} ({why})' for c, why in out.items())}"]
    found = {name: numbers(frame, column, where) for name, column in first.items()}
    notes = notes if out else []
    # Nobody knows what such a domain does, and without it the mixtures are the same.
    untried = [name for name, values in found.items() if (values == 0).all()]
    if untried and len(untried) < len(found):
        notes.append(f"{where}: domains that no run has, left out: {', '.join(untried)}")
    return {name: v for name, v in found.items() if name not in untried}, notes


def _column(frame: pd.DataFrame, name: str, where: Path) -> pd.Series:
    if name not in frame:
        raise DataError(
            f"{where}: column {name!r} is missing (found: {', '.join(map(str, frame))})"
        )
    return frame[name]


def _scale(
    frame: pd.DataFrame, given: str, key: str, where: Path, above: float = -np.inf
) -> np.ndarray:
    """A number for all rows, which must be finite and `above`, or the column of that name."""
    if not given:
        return np.full(len(frame), np.nan)
    if given in frame:
        return numbers(frame, given, str(where)).to_numpy(float)
    try:
        value = float(given)
    except ValueError:
        raise DataError(f"{key}: {given!r} is neither a number nor a column of {where}") from None
    if not (np.isfinite(value) and value > above):
        raise ConfigError(f"{key}: {given!r}: must be finite{' and positive' * (above == 0)}")
    return np.full(len(frame), value)


def _available(
    frame: pd.DataFrame, given: WideTable, key: str, where: Path
) -> dict[str, np.ndarray]:
    """The tokens (R,) that each domain had, NaN where nobody says; empty where it says of none.

    Raises `UnknownNameError`, `ConfigError` and `DataError`.
    """
    for domain, column in given.available.items():
        if domain not in given.weights:
            raise unknown_name("domain", domain, given.weights, key)
        if column in frame:
            checked_tokens(frame, column, str(where))
    _refuse_twice(given.available, key, frame)
    return {
        domain: given.tokens_unit
        * _scale(frame, given.available.get(domain, ""), f"{key}.{domain}", where, 0.0)
        for domain in (given.weights if given.available else ())
    }


def _by_domain(
    frame: pd.DataFrame, columns: Sequence[str], kept: Sequence[str], where: str
) -> dict[str, np.ndarray]:
    """The tokens (R,) that the domains `kept` had, by columns `available_<domain>` of the ratios.

    Raises `UnknownNameError` for the column of no domain, and `DataError`.
    """
    domains = [stripped(c) for c in numeric_columns(frame.drop(columns=list(columns)), where)[0]]
    found: dict[str, np.ndarray] = {}
    for column in columns:
        domain = stripped(column.removeprefix(AVAILABLE))
        if domain not in domains:
            raise unknown_name("domain", domain, domains, f"{where}: {column}")
        if domain in found:
            raise DataError(
                f"{where}: a second column of available tokens for {domain!r}: {column}"
            )
        found[domain] = checked_tokens(frame, column, where).to_numpy(float)
    return {domain: tokens for domain, tokens in found.items() if domain in kept}


def _refuse_twice(parts: Mapping[str, str], key: str, frame: pd.DataFrame) -> None:
    """Refuse one column for two domains, which is a slip of copying."""
    first: dict[str, str] = {}
    for domain, column in parts.items():
        if column in frame and first.setdefault(column, domain) != domain:
            raise ConfigError(f"{key}.{domain}: column {column!r} is that of {first[column]} too")


def _joined(
    names: pd.Series,
    weights: Mapping[str, np.ndarray],
    losses: Mapping[str, pd.Series],
    n_params: np.ndarray,
    n_tokens: np.ndarray,
    source: str,
    tolerance: float,
    n_active: np.ndarray | None = None,
    unit: str = NATS,
    notes: tuple[str, ...] = (),
    available: Mapping[str, np.ndarray] | None = None,
) -> RunTable:
    counts = {"n_params": n_params, "n_tokens": n_tokens}
    base = pd.DataFrame({"run_id": names.to_numpy(), **counts})
    base["n_active"] = np.nan if n_active is None else n_active
    for domain, values in weights.items():
        base[WEIGHT + domain] = values
    for domain, values in (available or {}).items():
        base[AVAILABLE + domain] = values
    parts = [base.assign(domain=d, loss=v.to_numpy()) for d, v in losses.items()]
    frame = pd.concat(parts, ignore_index=True)
    return RunTable(frame, source=source, weight_tolerance=tolerance, unit=unit, notes=notes)


def _shipped(name: str) -> Path | None:
    """The shipped YAML of that name, unless it is a path; None for anything else."""
    path = Path(name)
    if path.exists() or path.suffix or len(path.parts) != 1:
        return None
    return find_config(TABLES, name, "--table")


def load_table(
    table: str | None,
    ratios: str | None = None,
    metrics: str | None = None,
    *,
    n_params: float = np.nan,
    n_tokens: float = np.nan,
    weight_tolerance: float = 1e-6,
    unit: str = "",
    targets: Sequence[str] = (),
) -> RunTable:
    """The table that a command was given: a RunTable, a YAML of a wide CSV, or a pair of files.

    `unit` is that of the losses (default: what the table says); `targets` are those that count.
    """
    if bool(ratios) != bool(metrics):
        raise ConfigError("--ratios and --metrics: give both")
    if bool(table) == bool(ratios):
        raise ConfigError("--table, or --ratios with --metrics: give one of them")
    if ratios and metrics:
        return two_files(
            ratios,
            metrics,
            n_params=n_params,
            n_tokens=n_tokens,
            unit=unit,
            targets=targets,
            weight_tolerance=weight_tolerance,
        )
    assert table is not None
    for option, value in (("--size", n_params), ("--tokens", n_tokens)):
        if not np.isnan(value):
            raise ConfigError(f"{option}: is for --ratios; a --table has its own counts")
    if Path(table).suffix in (".yaml", ".yml"):
        if unit:
            raise ConfigError(f"--unit: is for files of losses; {table} has a key `unit`")
        found = wide_table(table)
    elif shipped := _shipped(table):
        found = wide_table(shipped)
    else:
        found = RunTable.load(table, weight_tolerance, unit=unit)
    return found.only(targets) if targets else found
