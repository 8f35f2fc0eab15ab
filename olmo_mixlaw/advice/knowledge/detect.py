"""`detect`: is there a transition in a table of runs, where, and is it one in bits too?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from olmo_mixlaw.advice.knowledge.change import LEAST_POINTS, Change, find_change
from olmo_mixlaw.advice.knowledge.horizon import TimeToLearn, time_to_learn
from olmo_mixlaw.advice.knowledge.sweep import AXES, Series, series_of, unscaled
from olmo_mixlaw.errors import DataError
from olmo_mixlaw.runs import RunTable

# Recall that counts as known on the way (arXiv 2505.18091: 40 % for time to learn).
LEVEL = 0.4
_MORE = {"ratio": "larger ratios", "size": "larger sizes", "time": "more tokens"}


@dataclass(frozen=True)
class Transition:
    """One series judged: in recall, in bits (None without them), and in words.

    `crossing` is where recall first reaches `LEVEL` for good, read off between its neighbours; NaN
    where it never does.
    """

    series: Series
    recall: Change
    bits: Change | None
    crossing: float
    verdict: str
    add: list[str] = field(default_factory=list)

    @property
    def found(self) -> bool:
        """Whether there is a transition: sharp in recall, and in bits where they are known."""
        return self.recall.sharp and (self.bits is None or self.bits.sharp)


@dataclass(frozen=True)
class Detected:
    """All series of a table, and the time to learn where several ratios reach the level."""

    transitions: list[Transition]
    time: TimeToLearn | None


def detect(
    runs: RunTable | str | Path,
    domain: str,
    *,
    axes: Sequence[str] = tuple(AXES),
    task: str = "",
    level: float = LEVEL,
) -> Detected:
    """Judge every sweep of a table along ratio, size and time.

    Raises `ConfigError` and `DataError` naming what to add.
    """
    table = runs if isinstance(runs, RunTable) else RunTable.load(runs)
    judged = [judge(series, level) for series in series_of(table, domain, axes, task)]
    return Detected(judged, _time(judged))


def judge(series: Series, level: float = LEVEL) -> Transition:
    """The verdict on one series."""
    points = len(np.unique(series.x))
    if points < 2:
        raise DataError(
            f"a sweep of one {series.axis} ({series.x[0]:.4g}) shows no transition; add runs at "
            f"other values, to {LEAST_POINTS} or more"
        )
    recall = find_change(series.scaled, series.recall)
    has_bits = bool(np.isfinite(series.bits).all())
    bits = find_change(series.scaled, series.bits) if has_bits else None
    reached = crossing(series, series.recall, level)
    add = _to_add(series, recall, bits, reached, level, points)
    return Transition(series, recall, bits, reached, _words(recall, bits, points, series), add)


def _words(recall: Change, bits: Change | None, points: int, series: Series) -> str:
    if np.ptp(series.recall) == 0:
        return "ties only: every run has the same recall"
    if points < LEAST_POINTS:
        return f"too few: {points} values can't tell a jump from a steep curve"
    if recall.kind == "flat":
        return "no change: a flat line says as much"
    if not recall.sharp:
        return "no transition: a smooth curve says as much"
    if recall.rise < 0:
        return f"a {recall.kind} downwards"
    if bits is None:
        return f"{recall.kind} in recall; bits are not known, so it may be one of the metric"
    if not bits.sharp:
        return (
            f"{recall.kind} in recall alone: bits change smoothly, so it may be one of the metric"
        )
    return f"transition: {recall.kind} in recall, {bits.kind} in bits"


def _to_add(
    series: Series, recall: Change, bits: Change | None, reached: float, level: float, points: int
) -> list[str]:
    add = []
    more = _MORE[series.axis]
    if np.ptp(series.recall) == 0:
        add.append(f"ties only: add {more}, and smaller ones if all is known")
    elif not np.isfinite(reached):
        add.append(f"never crosses {level:.0%} (at most {series.recall.max():.1%}): add {more}")
    if points < LEAST_POINTS:
        add.append(f"add runs, to {LEAST_POINTS} values of the {series.axis} or more")
    if bits is None:
        add.append("add the metric answer_bits")
    if recall.sharp and len(series.x) == points:
        add.append("add seeds: runs near a threshold differ by chance")
    if recall.sharp:
        low, high = unscaled(series.axis, np.array([recall.low, recall.high]))
        add.append(f"to place it closer, add runs between {low:.4g} and {high:.4g}")
    return add


def crossing(series: Series, values: np.ndarray, level: float) -> float:
    """Where the mean of `values` (R,) reaches the level for good; between runs a straight line.

    NaN where it never does.
    """
    x, place = np.unique(series.scaled, return_inverse=True)
    mean = np.bincount(place, values) / np.bincount(place)
    below = np.flatnonzero(mean < level)
    if not len(below):
        return float(unscaled(series.axis, x[0]))
    last = int(below[-1])
    if last + 1 == len(x):
        return float("nan")
    part = (level - mean[last]) / (mean[last + 1] - mean[last])
    return float(unscaled(series.axis, x[last] + part * (x[last + 1] - x[last])))


def _time(judged: list[Transition]) -> TimeToLearn | None:
    """The law of the time to learn, from the series along time of one size."""
    along: dict[float, list[Transition]] = {}
    for one in judged:
        if one.series.axis == "time" and "ratio" in one.series.fixed:
            along.setdefault(one.series.fixed.get("n_params", 0.0), []).append(one)
    for group in sorted(along.values(), key=len, reverse=True):
        ratios = [one.series.fixed["ratio"] for one in group]
        try:
            return time_to_learn(ratios, [one.crossing for one in group])
        except DataError:
            continue
    return None


def document(found: Detected) -> dict[str, Any]:
    """What was detected as `--json` has it; places are ratios, sizes and tokens."""
    return {
        "transitions": [row(one) for one in found.transitions],
        "found": sum(one.found for one in found.transitions),
        "time_to_learn": None
        if found.time is None
        else {
            "better": found.time.better,
            "evidence": found.time.evidence,
            "told_apart": found.time.told_apart,
            "constants": found.time.constants,
            "r2": found.time.r2,
            "left_out": found.time.left_out,
        },
    }


def row(one: Transition) -> dict[str, Any]:
    return {
        "axis": one.series.axis,
        "fixed": one.series.fixed,
        "task": one.series.task,
        "runs": len(one.series.x),
        "points": len(np.unique(one.series.x)),
        "transition": one.found,
        "verdict": one.verdict,
        "crossing": one.crossing,
        "recall": _change(one.series.axis, one.recall),
        "bits": None if one.bits is None else _change(one.series.axis, one.bits),
        "add": one.add,
    }


def _change(axis: str, change: Change) -> dict[str, Any]:
    at, low, high = (
        float(v) for v in unscaled(axis, np.array([change.at, change.low, change.high]))
    )
    said = change.kind in ("jump", "threshold", "smooth")
    return {
        "kind": change.kind,
        "at": at if said else None,
        "low": low if said else None,
        "high": high if said else None,
        "log10_evidence": change.log_evidence / np.log(10),
        "rise": change.rise,
        "width_factor": float(np.exp(change.width)) if said else None,
    }
