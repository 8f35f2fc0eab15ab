"""What the name of a metric says of its values, and which metric is a task's score.

An accuracy is a share of 1: -1 and text are damage, 45 is percent. Scores that some evaluators
write as percent (`f1`, `em`, `rouge`) may be either, losses and perplexities aren't negative, and
names that say nothing are left alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from olmo_mixlaw.errors import first_of

PRIMARY = "primary_score"
# Words of a metric's name, and the range that they stand for; the first that fits holds.
DIFFERENCES = frozenset(("diff", "delta", "gap", "change", "stderr"))
LOSSES = frozenset(("bpb", "bits", "loss", "ppl", "perplexity"))
SHARES = frozenset(("acc", "accuracy", "mc1", "mc2"))
PERCENT_OR_SHARES = re.compile(r"f1|em|exact|bleu|rouge\w*|chrf")
NAMED_SHARES = re.compile(r"exact_match|pass(@|_at_)\w+")
SHARE, PERCENT, LOSS = (0.0, 1.0), (0.0, 100.0), (0.0, math.inf)
ROUNDING = 1e-9
SHOWN = 3  # tasks that a line names
LONGEST = 80


def range_of(metric: str) -> tuple[float, float] | None:
    """The least and the greatest value of a metric; None where its name doesn't say.

    Of a name in parts (`accuracy:loose`, `extra_metrics:acc`) the first that says it decides.
    """
    for part in metric.lower().split(":"):
        words = set(re.split(r"[^a-z0-9@]+", part))
        if words & DIFFERENCES:
            return None
        if words & LOSSES:
            return LOSS
        if words & SHARES or NAMED_SHARES.search(part):
            return SHARE
        if any(PERCENT_OR_SHARES.fullmatch(word) for word in words):
            return PERCENT
    return None


def problem(metric: str, value: Any, number: float | None, primary: str = "") -> str:
    """What is wrong with the `value` of a metric, which reads as `number`; empty for nothing.

    `primary` is the metric that `primary_score` stands for.
    """
    allowed = range_of(primary if metric == PRIMARY else metric)
    known = allowed is not None or metric in (PRIMARY, primary)
    if value is None or not known:
        return ""
    if number is None:
        return f"{metric} is {repr(value)[:LONGEST]}, not a number"
    if not math.isfinite(number):
        return f"{metric} is {number}, not a number"
    if allowed is None or allowed[0] - ROUNDING <= number <= allowed[1] + ROUNDING:
        return ""
    low, high = allowed
    if math.isinf(high):
        return f"{metric} is {number:g}; it can't be below {low:g}"
    percent = "; divide percent by 100" if allowed == SHARE and 1 < number <= 100 else ""
    return f"{metric} is {number:g}, which is not within {low:g} and {high:g}{percent}"


def scores_among(metrics: Mapping[str, float]) -> list[str]:
    """The metrics that may be a task's score: the shares among them."""
    return [name for name in metrics if name != PRIMARY and range_of(name) == SHARE]


def choose(named: str, metrics: Mapping[str, float], prefer: Sequence[str] = ()) -> tuple[str, str]:
    """The metric that is a task's score, and why; no metric where no rule tells.

    An evaluator's word holds. Without it, a task's only share is its score; of several none is
    taken, for which of `acc` and `acc_norm` is meant depends on the task, unless the user says it:
    the first of `prefer` that is among them.
    """
    if named:
        return named, "its evaluator names it"
    if PRIMARY in metrics:
        return "", f"{PRIMARY} is given, but not of which metric"
    found = scores_among(metrics)
    if len(found) == 1:
        return found[0], "the only score among its metrics"
    if asked := [name for name in prefer if name in found]:
        return asked[0], "asked for"
    if found:
        return "", f"its evaluator names none of {', '.join(found)}"
    return "", "none of its metrics is a score"


def undecided(tasks: Mapping[str, Sequence[str]]) -> str:
    """One line about tasks that have several scores of which none is named; empty for none."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for task, found in tasks.items():
        groups.setdefault(tuple(found), []).append(task)
    parts = []
    for found, names in groups.items():
        parts.append(f"{first_of(names, SHOWN)} ({', '.join(found)})")
    return "; ".join(parts)
