"""Sweeps out of a table of runs: recall and answer bits along ratio, size or time.

A series holds everything but one axis fixed; seeds are repeated points of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from olmo_mixlaw.errors import ConfigError, DataError, unknown_name
from olmo_mixlaw.models.ladder import short
from olmo_mixlaw.runs import RunTable
from olmo_mixlaw.runs.table import WEIGHT

AXES = {"ratio": "ratio", "size": "n_params", "time": "n_tokens"}
_HELD = {"ratio": "ratio", "n_params": "parameters", "n_tokens": "tokens"}
RECALL, BITS = "exact_match", "answer_bits"
# Ratios are compared by their odds, the rest by factors.
_EDGE = 1e-6


@dataclass(frozen=True)
class Series:
    """Values along one axis: `x` (R,) as it is, recall (R,) and bits (R,), NaN where unknown."""

    axis: str
    fixed: dict[str, float]
    x: np.ndarray
    recall: np.ndarray
    bits: np.ndarray
    task: str = ""

    def __post_init__(self) -> None:
        known = self.recall[np.isfinite(self.recall)]
        if not ((known >= 0) & (known <= 1)).all():
            bad = known[(known < 0) | (known > 1)][0]
            raise DataError(
                f"{self.axis} sweep: recall {bad:g} is not within 0 to 1; give parts of 1, "
                "no percent"
            )
        if not (self.x > 0).all() or (self.axis == "ratio" and (self.x > 1).any()):
            raise DataError(f"{self.axis} sweep: every {self.axis} must be positive (ratios to 1)")

    @property
    def scaled(self) -> np.ndarray:
        """The axis on which even steps are even factors: log odds of a ratio, else logs."""
        return scaled(self.axis, self.x)

    def text(self) -> str:
        held = [
            f"{_HELD[name]} {value:g}" if name == "ratio" else f"{short(value)} {_HELD[name]}"
            for name, value in self.fixed.items()
        ]
        return f"along {self.axis}" + (f" at {', '.join(held)}" if held else "")


def scaled(axis: str, x: Any) -> Any:
    x = np.asarray(x, float)
    if axis == "ratio":
        x = np.clip(x, _EDGE, 1 - _EDGE)
        return np.log(x) - np.log1p(-x)
    return np.log(x)


def unscaled(axis: str, x: Any) -> Any:
    """The ratio, size or number of tokens at a place of the scaled axis."""
    return 1 / (1 + np.exp(-np.asarray(x))) if axis == "ratio" else np.exp(x)


def series_of(
    table: RunTable, domain: str, axes: Sequence[str] = tuple(AXES), task: str = ""
) -> list[Series]:
    """Every series of the table along these axes with two points or more, longest first.

    `task` is whose scores count; without, the one that tells `exact_match` (for the domain, where
    names end in it). Raises `ConfigError` for an unknown axis or task, `DataError` for a table
    without recall or with one value of every axis.
    """
    for axis in axes:
        if axis not in AXES:
            raise unknown_name("axis", axis, AXES)
    runs = _runs(table, domain, task)
    found = []
    for axis in axes:
        column = AXES[axis]
        others = [c for c in AXES.values() if c != column]
        for key, rows in runs.groupby(others, dropna=False):
            if rows[column].nunique() < 2 or rows[column].isna().any():
                continue
            fixed = {name: float(v) for name, v in zip(others, key, strict=True) if v == v}
            found.append(
                Series(
                    axis,
                    fixed,
                    rows[column].to_numpy(float),
                    rows[RECALL].to_numpy(float),
                    rows[BITS].to_numpy(float),
                    str(rows["task"].iloc[0]),
                )
            )
    if not found:
        said = ", ".join(f"{a} {runs[c].iloc[0]:.4g}" for a, c in AXES.items() if len(runs))
        raise DataError(
            f"{table.source}: a sweep of one {' and one '.join(axes)} ({said}) shows no "
            f"transition; add runs at other values, to six or more of one of them"
        )
    return sorted(found, key=lambda s: -len(np.unique(s.x)))


def _runs(table: RunTable, domain: str, task: str) -> pd.DataFrame:
    """A row a run: ratio, n_params, n_tokens, recall, bits."""
    if domain not in table.domains:
        raise unknown_name("domain", domain, table.domains, table.source)
    scores = table.scores[table.scores["metric"].isin([RECALL, BITS])]
    with_recall = scores[scores["metric"] == RECALL]["task"].unique().tolist()
    if task and task not in with_recall:
        raise unknown_name("task", task, with_recall, table.source)
    if not with_recall:
        raise DataError(
            f"{table.source}: no scores with the metric {RECALL}; add recall of {domain} "
            "(`evaluation.tasks: [bio_recall]`, or fact_recall for a table)"
        )
    own = [name for name in with_recall if name.endswith(f":{domain}")]
    chosen = task or (own or with_recall)[0]
    if not task and len(own or with_recall) > 1:
        raise ConfigError(
            f"{table.source}: several tasks tell recall ({', '.join(own or with_recall)}); "
            "name one (--task)"
        )
    wide = scores[scores["task"] == chosen].pivot(index="run_id", columns="metric", values="value")
    runs = table.losses.drop_duplicates("run_id").set_index("run_id")
    runs = runs[["n_params", "n_tokens"]].assign(ratio=runs[WEIGHT + domain], task=chosen)
    joined = runs.join(wide.reindex(columns=[RECALL, BITS]), how="inner").dropna(subset=[RECALL])
    return joined[joined["ratio"] > 0].reset_index()
