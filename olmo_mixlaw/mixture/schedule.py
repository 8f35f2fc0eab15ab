"""Ratios over training, as a few pieces between which they change along straight lines.

Every schedule, however it is written, becomes `Pieces` with whole examples for borders. The
plan then needs one rule only, and a run of 1e12 examples costs no more than one of 1e3.
"""

from __future__ import annotations

import csv
import inspect
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from olmo_mixlaw.errors import ConfigError, unknown_name
from olmo_mixlaw.mixture.ratios import check_ratios

log = logging.getLogger(__name__)

UNITS = ("fraction", "steps", "tokens")
# Keys of a `schedule` section that a schedule may take besides its `options`.
KEYS = ("units", "knots", "file", "fit")
# A cosine in 64 lines is off by at most (pi / 128)^2 / 4 of its range: 0.04 examples in 256.
CURVE_PIECES = 64
# How finely a ratio function of an installed package is read.
FUNCTION_PIECES = 256


@dataclass(frozen=True)
class RunLength:
    """How long a run is, in the units that knots may use."""

    n_steps: int
    batch_size: int
    sequence_length: int

    @property
    def n_examples(self) -> int:
        return self.n_steps * self.batch_size

    @property
    def n_tokens(self) -> int:
        return self.n_examples * self.sequence_length

    def example(self, at: float, units: str) -> int:
        """The first example at or after the moment `at`, which may lie beyond the run."""
        if units == "fraction":
            return round(at * self.n_examples)
        if units == "steps":
            return round(at * self.batch_size)
        return math.ceil(at / self.sequence_length)


@dataclass(frozen=True)
class Pieces:
    """Ratios that change linearly from `first[p]` to `last[p]` over piece p.

    `borders` (P + 1,) are example numbers from 0 to the run's length, strictly increasing;
    `first` and `last` (P, K) are ratios of K sources, each row summing to 1.
    """

    borders: tuple[int, ...]
    first: np.ndarray
    last: np.ndarray

    @property
    def n_examples(self) -> int:
        return self.borders[-1]

    @property
    def is_constant(self) -> bool:
        return bool((self.first == self.first[0]).all() and (self.last == self.first[0]).all())

    def ratios(self, example: int) -> np.ndarray:
        """The asked ratios (K,) at `example`; the last ones beyond the end."""
        if example >= self.n_examples:
            return self.last[-1]
        p = int(np.searchsorted(self.borders, example, side="right")) - 1
        begin, end = self.borders[p], self.borders[p + 1]
        t = (example - begin) / (end - begin)
        return self.first[p] + (self.last[p] - self.first[p]) * t

    def asked(self, start: int, stop: int) -> np.ndarray:
        """Examples (K,) that the ratios ask for between two example numbers, not rounded."""
        borders = np.asarray(self.borders, float)
        length = np.diff(borders)
        a = np.clip((start - borders[:-1]) / length, 0, 1)
        b = np.clip((stop - borders[:-1]) / length, 0, 1)
        slope = self.last - self.first
        mean = self.first + slope * ((a + b) / 2)[:, None]
        return (mean * (length * (b - a))[:, None]).sum(axis=0)


def join(borders: Sequence[int], first: np.ndarray, last: np.ndarray, end: int) -> Pieces:
    """Pieces from 0 to `end` out of ones that may be empty, run over the end or stop short."""
    begins, stops = np.array(borders[:-1], np.int64), np.array(borders[1:], np.int64)
    kept = np.minimum(stops, end) > begins
    length, begins = (stops - begins)[kept], begins[kept]
    stops = np.minimum(stops[kept], end)
    first = first[kept]
    final = first + (last[kept] - first) * ((stops - begins) / length)[:, None]
    marks = stops.tolist()
    if not marks or marks[-1] < end:
        marks.append(end)
        first, final = np.vstack([first, last[-1:]]), np.vstack([final, last[-1:]])
    return Pieces((0, *marks), first, final)


@dataclass(frozen=True)
class Knot:
    """Ratios by source label, `at` a moment of the run in the units of its schedule."""

    at: float = 0.0
    ratios: dict[str, float] = field(default_factory=dict)


@dataclass
class ScheduleConfig:
    """Ratios that change: `name` says how they go from knot to knot."""

    name: str = "stages"
    """stages, linear, cosine, exponential, csv, from_law, or one of an installed package."""

    units: str = "fraction"
    """What `at` counts: `fraction` of the run, `steps` or `tokens`."""

    knots: list[Knot] = field(default_factory=list)
    file: str | None = None
    """csv: a file with a column `at` and one of ratios for each source."""

    fit: str | None = None
    """from_law: a fitted law, as `olmo-mixlaw fit` saves it."""

    options: dict[str, Any] = field(default_factory=dict)
    """What else the schedule understands (`rate` of an exponential, targets of a law)."""


def arguments(
    part: Callable[..., Any], plan: ScheduleConfig, where: str, **known: Any
) -> dict[str, Any]:
    """What `part`, a schedule's class or function, takes of its section after two arguments.

    A parameter gets the `known` value of its name; the others are options. Raises `ConfigError`
    for a key or an option that `part` doesn't take, and for one that it needs.
    """
    rest = list(inspect.signature(part).parameters.values())[2:]
    named = {p.name: p for p in rest if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    values = {name: known[name] for name in named if name in known}
    unset = ScheduleConfig()
    for key in KEYS:
        if key not in values and getattr(plan, key) != getattr(unset, key):
            raise ConfigError(f"{where}.{key}: the schedule {plan.name} has no use for it")
    if "options" not in values:
        accepted = {name: named[name] for name in named if name not in values}
        for key, value in plan.options.items():
            if key in accepted:
                _require_number(value, accepted[key].default, f"{where}.options.{key}")
            elif all(p.kind != p.VAR_KEYWORD for p in rest):
                raise unknown_name("option", key, accepted, f"{where}.options")
        values |= plan.options
    for name, parameter in named.items():
        if parameter.default is parameter.empty and values.get(name) is None:
            key = name if name in known else f"options.{name}"
            raise ConfigError(f"{where}.{key}: is missing; the schedule {plan.name} needs it")
    return values


def _require_number(value: Any, default: Any, where: str) -> None:
    if type(default) in (int, float) and not isinstance(value, (int, float)):
        raise ConfigError(f"{where}: {value!r} is not a number")


@dataclass(frozen=True)
class Schedule(ABC):
    """Ratios of `labels` over a run. `where` (file and key) goes into errors.

    A subclass is a frozen dataclass. Its fields `units`, `knots`, `file`, `fit` and `options`
    hold these keys of the `schedule` section, `n_params` the size of the run's model
    (non-embedding parameters, None where unknown); every other field is one of the options.
    """

    labels: tuple[str, ...]
    where: str = "mixture"

    @classmethod
    def build(
        cls, plan: ScheduleConfig, labels: Sequence[str], where: str, *, n_params: int | None = None
    ) -> Schedule:
        """The schedule of the section `plan`, which is at `where`. Raises `ConfigError`."""
        known = {key: getattr(plan, key) for key in (*KEYS, "options")}
        values = arguments(cls, plan, where, **known, n_params=n_params)
        return cls(tuple(labels), where, **values)

    @abstractmethod
    def pieces(self, run: RunLength) -> Pieces:
        """The ratios over `run`. Raises `ConfigError`."""


@dataclass(frozen=True)
class Constant(Schedule):
    """The same ratios throughout."""

    ratios: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def build(cls, plan: ScheduleConfig, labels: Sequence[str], where: str, **_: Any) -> Schedule:
        place = where.removesuffix(".schedule")
        raise ConfigError(f"{where}.name: constant ratios are given as {place}.ratios")

    def pieces(self, run: RunLength) -> Pieces:
        row = check_ratios(self.ratios, self.labels, f"{self.where}.ratios")[None]
        return Pieces((0, run.n_examples), row, row)


@dataclass(frozen=True)
class Knotted(Schedule):
    """A schedule given at knots, the first of them at 0; the last one holds to the end."""

    knots: Sequence[Knot] = ()
    units: str = "fraction"

    #: Whether a knot at the run's very end still counts, as the place that a line leads to.
    reaches_end = True

    def table(self, run: RunLength) -> tuple[list[int], np.ndarray]:
        """Example numbers of the knots and the ratios (knots, K) there."""
        if self.units not in UNITS:
            raise unknown_name("unit", self.units, UNITS, f"{self.where}.units")
        if not self.knots:
            raise ConfigError(f"{self.where}.knots: is empty; give at least the ratios at 0")
        moments = [knot.at for knot in self.knots]
        if moments[0] != 0:
            raise ConfigError(f"{self.where}.knots.0.at: is {moments[0]:g}; the first must be at 0")
        for k in range(1, len(moments)):
            if not moments[k] > moments[k - 1]:
                raise ConfigError(
                    f"{self.where}.knots.{k}.at: {moments[k]:g} comes after {moments[k - 1]:g}; "
                    "knots must be in rising order"
                )
        if self.units == "fraction" and moments[-1] > 1:
            raise ConfigError(
                f"{self.where}.knots.{len(moments) - 1}.at: {moments[-1]:g} is beyond 1, the end "
                "of the run, in units of fraction"
            )
        rows = [
            check_ratios(knot.ratios, self.labels, f"{self.where}.knots.{k}.ratios")
            for k, knot in enumerate(self.knots)
        ]
        borders = [run.example(at, self.units) for at in moments]
        for k in range(1, len(borders)):
            if borders[k] > run.n_examples or (
                borders[k] == run.n_examples and not self.reaches_end
            ):
                log.warning(
                    "%s.knots.%d.at: %g %s is beyond the run, which ends after %d steps "
                    "(%d tokens); its ratios are not reached",
                    self.where,
                    k,
                    moments[k],
                    self.units,
                    run.n_steps,
                    run.n_tokens,
                )
        return borders, np.array(rows)


class Stages(Knotted):
    """Each knot's ratios hold until the next one's: pretraining, then mid-training, ..."""

    reaches_end = False

    def pieces(self, run: RunLength) -> Pieces:
        borders, rows = self.table(run)
        ends = [*borders, max(run.n_examples, borders[-1])]
        return join(ends, rows, rows, run.n_examples)


@dataclass(frozen=True, kw_only=True)
class Csv(Schedule):
    """As `Stages`, from a `file` with a column `at` and one of ratios for each source."""

    file: str
    units: str = "fraction"

    def pieces(self, run: RunLength) -> Pieces:
        knots = read_steps(Path(self.file), self.labels, self.where)
        return Stages(self.labels, self.where, knots, self.units).pieces(run)


@dataclass(frozen=True)
class Linear(Knotted):
    """Straight lines between the knots."""

    #: Lines that stand for the curve between two knots.
    n_lines = 1

    def curve(self, t: np.ndarray) -> np.ndarray:
        """How much of the way to the next knot is gone after a part `t` of the time."""
        return t

    def pieces(self, run: RunLength) -> Pieces:
        knots, rows = self.table(run)
        t = np.linspace(0, 1, self.n_lines + 1)
        way = self.curve(t)[:, None]
        if len(knots) == 1:
            return Pieces((0, run.n_examples), rows, rows)
        borders, points = [0], [rows[:1]]
        for k in range(len(knots) - 1):
            length = knots[k + 1] - knots[k]
            borders += np.rint(knots[k] + length * t[1:]).astype(np.int64).tolist()
            points.append(rows[k] + (rows[k + 1] - rows[k]) * way[1:])
        table = np.vstack(points)
        return join(borders, table[:-1], table[1:], run.n_examples)


class Cosine(Linear):
    """Half a cosine between the knots: slow, fast, slow."""

    n_lines = CURVE_PIECES

    def curve(self, t: np.ndarray) -> np.ndarray:
        return (1 - np.cos(np.pi * t)) / 2


@dataclass(frozen=True)
class Exponential(Linear):
    """Fast first, then slower: (1 - exp(-rate t)) / (1 - exp(-rate)) of the way to the next knot.

    A negative `rate` starts slowly and ends fast.
    """

    rate: float = 5.0
    n_lines = CURVE_PIECES

    def curve(self, t: np.ndarray) -> np.ndarray:
        if self.rate == 0 or not math.isfinite(self.rate) or abs(self.rate) > 100:
            raise ConfigError(
                f"{self.where}.options.rate: {self.rate:g}; accepted are -100 to 100 except 0"
            )
        return np.expm1(-self.rate * t) / np.expm1(-self.rate)


def read_steps(path: Path, labels: Sequence[str], where: str) -> list[Knot]:
    """The knots of a CSV file: a column `at`, and one of ratios for each source.

    Raises `ConfigError` for a missing file or column, and `UnknownNameError` for a column that
    no source has.
    """
    if not path.is_file():
        raise ConfigError(f"{where}.file: {path}: no such file")
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = list(rows[0]) if rows else []
    if "at" not in columns:
        found = ", ".join(map(str, columns)) or "none"
        raise ConfigError(f"{path}: column 'at' is missing (found: {found})")
    for column in columns:
        if column != "at" and column not in labels:
            raise unknown_name("source", column, labels, str(path))
    knots = []
    for line, row in enumerate(rows, start=2):
        try:
            values = {column: float(row[column]) for column in columns}
        except (TypeError, ValueError):
            raise ConfigError(f"{path}: line {line}: not a number in every column") from None
        knots.append(Knot(values.pop("at"), values))
    return knots


@dataclass(frozen=True)
class Sampled(Schedule):
    """A function of an installed package: ratios by label at a fraction of the run.

    It is read at 256 places and joined by lines, so a jump is spread over 1/256 of the run:
    write jumps as stages.
    """

    function: Callable[..., Mapping[str, float]] = dict
    options: Mapping[str, object] = field(default_factory=dict)

    def pieces(self, run: RunLength) -> Pieces:
        count = min(FUNCTION_PIECES, run.n_examples)
        borders = [round(run.n_examples * p / count) for p in range(count + 1)]
        rows = []
        for p in range(count + 1):
            ratios = self.function(p / count, list(self.labels), **self.options)
            place = f"{self.where}: the schedule's ratios at {p / count:.3g} of the run"
            rows.append(check_ratios(ratios, self.labels, place))
        table = np.array(rows)
        return join(borders, table[:-1], table[1:], run.n_examples)
