"""Which columns of a table of metrics are losses, of what and in which unit; and why others aren't.

Names decide first, then values: a column that may be a score is never minimised. What was taken and
what was left out is said in `Metrics.notes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from olmo_mixlaw.errors import ConfigError, DataError, first_of, unknown_name
from olmo_mixlaw.runs.frames import numbers, refuse, written
from olmo_mixlaw.runs.names import (
    BITS_WORDS,
    ID_COLUMNS,
    LOSS_WORDS,
    domain_of,
    is_bookkeeping,
    not_a_loss,
    stripped,
    words,
)
from olmo_mixlaw.runs.table import check_losses
from olmo_mixlaw.runs.units import BITS_PER_BYTE, NATS, UNSTATED, accepted_unit, label

# A column without a telling name is a loss where it goes above 1, as no accuracy does, and stays
# below this, as percent do not.
MOST_UNNAMED = 20.0
SHOWN = 4


@dataclass(frozen=True)
class Metrics:
    """Losses by target, in `unit`, and how they were recognised, in lines."""

    losses: dict[str, pd.Series]
    unit: str
    notes: tuple[str, ...]


def numeric_columns(frame: pd.DataFrame, source: str) -> tuple[list[str], dict[str, str]]:
    """Columns of numbers, and why others are left out. Raises `DataError`.

    A column of numbers with one cell of text is refused: left out in silence, it would be missed.
    """
    kept, out = [], {}
    for column in frame.columns:
        values = frame[column]
        if column in ID_COLUMNS:
            continue
        if is_bookkeeping(column):
            out[column] = "bookkeeping"
        elif values.isna().all():
            out[column] = "empty"
        elif pd.api.types.is_bool_dtype(values):
            out[column] = "true or false"
        elif pd.api.types.is_numeric_dtype(values) or _meant_as_numbers(values, column):
            numbers(frame, column, source)
            kept.append(column)
        else:
            out[column] = "text"
    return kept, out


def _meant_as_numbers(values: pd.Series, column: str) -> bool:
    """Whether half of the cells are numbers, however written, or any of what is called a loss."""
    cells = values.dropna()
    known = pd.to_numeric(cells, errors="coerce").notna().to_numpy()
    meant = known | np.array([isinstance(c, str) and written(c) is not None for c in cells])
    called = words(column) & (LOSS_WORDS | BITS_WORDS)
    return bool(meant.mean() >= 0.5) or bool(called and known.any())


def read_metrics(
    frame: pd.DataFrame,
    domains: Sequence[str],
    source: str,
    *,
    targets: Sequence[str] = (),
    unit: str = "",
) -> Metrics:
    """The losses of a frame, a row a run; `targets` names columns, with or without affixes.

    Raises `DataError` for cells that are no losses, columns that may be scores or that collide, two
    units at once, and where nothing is left.
    """
    out: dict[str, str] = {}
    if targets:
        columns = _declared(frame, domains, targets, source)
    else:
        columns, out = numeric_columns(frame, source)
    named = {}
    for column in columns:
        why = "" if domain_of(column, domains) in domains else not_a_loss(column)
        if why and targets:
            raise DataError(f"{source}: column {column!r} is {why}; a target must be a loss")
        if why:
            out[column] = why
        else:
            named[column] = domain_of(column, domains)
    if not named:
        raise DataError(
            f"{source}: no column is a loss ({_left_out(out) or 'it has no numbers'}); name those "
            "that are with --target, and their unit with --unit"
        )
    _refuse_collisions(named, source)
    for column in named:
        reason = "a loss is missing: give it, or leave this run out of the file"
        refuse(frame, column, frame[column].isna(), source, reason)
    losses = frame[list(named)].apply(pd.to_numeric).astype(float)
    for column in named:
        check_losses(losses, column, source)
    found, why, factor = _unit(losses, domains, source, unit)
    notes = [f"{source}: {len(named)} targets in {label(found)} ({why})"]
    if out:
        notes.append(f"{source}: left out: {_left_out(out)}")
    matched = [f"{t} <- {c}" for c, t in named.items() if t in domains and t != c]
    if matched:
        notes.append(f"{source}: domains without affixes: {first_of(matched, SHOWN)}")
    return Metrics({t: losses[c] * factor for c, t in named.items()}, found, tuple(notes))


def _declared(
    frame: pd.DataFrame, domains: Sequence[str], targets: Sequence[str], source: str
) -> list[str]:
    """The columns that were asked for, by their own names or by those of targets."""
    columns = [str(c) for c in frame.columns if c not in ID_COLUMNS]
    by_name = {column: column for column in columns}
    for column in columns:
        for name in (stripped(column), domain_of(column, domains)):
            by_name.setdefault(name, column)
    chosen = []
    for name in targets:
        if name not in by_name:
            raise unknown_name("target", name, by_name, f"{source}: --target")
        column = by_name[name]
        numbers(frame, column, source)
        chosen.append(column)
    return list(dict.fromkeys(chosen))


def _refuse_collisions(named: dict[str, str], source: str) -> None:
    first: dict[str, str] = {}
    for column, target in named.items():
        if target in first:
            raise DataError(
                f"{source}: columns {first[target]!r} and {column!r} are both {target!r} without "
                "affixes; choose one with --target, or rename it"
            )
        first[target] = column


def _unit(
    losses: pd.DataFrame, domains: Sequence[str], source: str, given: str
) -> tuple[str, str, float]:
    """The unit, by which rule, and the factor that brings the losses to it."""
    said: dict[str, list[str]] = {BITS_PER_BYTE: [], NATS: [], UNSTATED: []}
    for column in losses.columns:
        if words(column) & BITS_WORDS:
            said[BITS_PER_BYTE].append(column)
        elif words(column) & LOSS_WORDS:
            said[NATS].append(column)
        else:
            said[UNSTATED].append(column)
    bits, nats = said[BITS_PER_BYTE], said[NATS]
    if bits and nats:
        raise DataError(
            f"{source}: two units: {bits[0]!r} is in bits a byte, {nats[0]!r} in nats by its name; "
            "choose columns of one with --target"
        )
    if given:
        unit, factor = accepted_unit(given, "--unit")
        if bits and given != BITS_PER_BYTE:
            raise ConfigError(
                f"--unit {given}: {source}: {bits[0]!r} is in bits a byte by its name"
            )
        return unit, "as --unit says", factor
    _refuse_scores(losses, said[UNSTATED], domains, source)
    if bits:
        return BITS_PER_BYTE, "by their names", 1.0
    if any("::" in column for column in said[UNSTATED]) and not nats:
        return BITS_PER_BYTE, "OLMES's tasks, above 1 as no accuracy is", 1.0
    return (NATS, "by their names", 1.0) if nats else (UNSTATED, "--unit says it", 1.0)


def _refuse_scores(
    losses: pd.DataFrame, columns: list[str], domains: Sequence[str], source: str
) -> None:
    """Refuse columns that may hold accuracies: no name says otherwise, nor values of their kind."""
    kinds: dict[str, list[str]] = {}
    for column in columns:
        kinds.setdefault(_kind(column, domains), []).append(column)
    for some in kinds.values():
        most = losses[some].max()
        worst = str(most.idxmin() if most.max() <= 1 else most.idxmax())
        if most.max() <= 1 or most.max() > MOST_UNNAMED:
            low, high = losses[worst].min(), losses[worst].max()
            raise DataError(
                f"{source}: column {worst!r} ({low:.4g} to {high:.4g}) may be a score: say its "
                "--unit (nats, bits or bits_per_byte) if it is a loss, or name the losses with "
                "--target"
            )


def _kind(column: str, domains: Sequence[str]) -> str:
    """Columns of one kind hold one metric: a task's variants, OLMES's tasks of one format."""
    if "::" in column or column.count(":") > 1:
        return column.partition(":")[2]
    return "domain" if domain_of(column, domains) in domains else column.partition(":")[0]


def _left_out(out: dict[str, str]) -> str:
    reasons = dict.fromkeys(out.values())
    return "; ".join(
        f"{first_of([c for c in out if out[c] == why], SHOWN)} ({why})" for why in reasons
    )
