"""Is the proposed mixture better than another one, as far as these runs can say?

The gain is predicted with predicted, so that neither mixture's luck counts, and its error is that
of the difference: what the law was off by between mixtures held out (`choice.differences`), and
more beyond the sizes tried; refits to resampled runs widen it where they move more. An interval
holds what training both would show 90 % of the time, run-to-run luck of both included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Unpack

import numpy as np

from olmo_mixlaw.advice.goal import Goal
from olmo_mixlaw.advice.judge import SAME, Judge, Verdict
from olmo_mixlaw.advice.optimum import Limits, Optimum, Problem, described
from olmo_mixlaw.advice.verdict_words import (
    AS_GOOD,
    BAND,
    CANT_TELL,
    DISTINGUISHABLE,
    LEVEL,
    PERCENT,
    POINTS,
    PROPOSED,
    WORSE,
    kind_of,
)
from olmo_mixlaw.laws.choice.differences import Differences
from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.runs import Design, RunTable

__all__ = [
    "AS_GOOD",
    "BAND",
    "CANT_TELL",
    "DISTINGUISHABLE",
    "LEVEL",
    "PERCENT",
    "POINTS",
    "WORSE",
    "Verdict",
    "kind_of",
    "measured_best",
    "proposed",
    "tried_mixtures",
    "verdict",
    "verdicts",
]

BEST_TRIED, CURRENT = "the best tried", "the current"


def verdict(
    fit: Fit,
    best: Optimum,
    reference: np.ndarray,
    against: str = CURRENT,
    *,
    between: Differences | None = None,
    refits: Sequence[Fit] = (),
    at: str = "",
    subject: str = PROPOSED,
    cautions: Sequence[str] = (),
    besides: tuple[float, float] | None = None,
    **limits: Unpack[Limits],
) -> Verdict:
    """The verdict on a proposal `best` of `fit` against a `reference` (K,), at `best`'s scale.

    `limits` are those that `optimum` was given; `between` defaults to what the fit keeps, `refits`
    are a bootstrap's, and `besides` another interval of the gain (in its unit) that the verdict's
    must hold. `at` names the target in the sentence and `subject` the mixture. Raises as `optimum`
    does.
    """
    judge = Judge.of(fit, best, between, refits, at, subject, limits)
    return judge.verdict(reference, against, cautions, besides)


def verdicts(
    fit: Fit,
    best: Optimum,
    *,
    tried: Mapping[str, np.ndarray] | None = None,
    measured: str = "",
    current: tuple[str, np.ndarray] | None = None,
    between: Differences | None = None,
    refits: Sequence[Fit] = (),
    at: str = "",
    cautions: Sequence[str] = (),
    **limits: Unpack[Limits],
) -> list[Verdict]:
    """The verdict against the best mixture tried and, if there is one, the `current` one.

    `tried` are the mixtures run, by name (default: those fitted, without names); of those within
    the bounds the one that the law calls best is taken, since what was measured best had luck
    too: `measured` is its name, and where the two disagree a caution says so. The rest is
    `verdict`'s.
    """
    judge = Judge.of(fit, best, between, refits, at, PROPOSED, limits)
    if tried is None:
        tried = {f"#{i}": mixture for i, mixture in enumerate(fit.mixtures)}
        against, name = judge.best_tried(tried)
        said = BEST_TRIED
    else:
        against, name = judge.best_tried(tried)
        said = f"{name}, {BEST_TRIED}"
    notes = list(cautions)
    if not judge.allows(against):
        notes.append("no mixture tried is within the bounds; the best of all is compared with")
    if measured and measured != name:
        notes.append(
            f"measured best at the largest size was {measured}, but the law calls {name} the best "
            "tried at the target: luck of one run, or a law that is off"
        )
    found = [judge.verdict(against, said, notes)]
    if current is not None:
        called, ratios = current
        notes = list(cautions)
        if not judge.allows(ratios):
            notes.append("the current mixture is outside the bounds that the proposal keeps")
        found.append(judge.verdict(ratios, called, notes))
    return found


def proposed(
    fit: Fit,
    ratios: np.ndarray,
    n_params: float = np.nan,
    n_tokens: float = np.nan,
    *,
    n_active: float | None = None,
    **limits: Unpack[Limits],
) -> Optimum:
    """A mixture (K,) that somebody else proposes, described as `optimum` does; bounds don't hold.

    Raises as `optimum` does.
    """
    problem = Problem.of(fit, n_params, n_tokens, n_active, **limits)
    mixture = fit.checked_ratios(ratios)
    losses = problem.predicted(mixture)
    value = float(problem.totals(losses, mixture)[0])
    where = (n_params, n_tokens, n_active)
    return described(problem.fit, mixture[0], losses[0], value, *where, problem.goal)


def tried_mixtures(table: RunTable) -> dict[str, np.ndarray]:
    """The mixtures (K,) of a table's runs, by the name in its column `mixture`, else by a run."""
    rows = table.losses.drop_duplicates("run_id").set_index("run_id")
    design = table.design()
    names = rows["mixture"].astype(str).to_dict() if "mixture" in rows else {}
    found: dict[str, np.ndarray] = {}
    for run, ratios in zip(design.run_ids, design.ratios, strict=True):
        if not any(np.abs(ratios - other).max() < SAME for other in found.values()):
            found[names.get(run, run)] = ratios
    return found


def measured_best(design: Design, tried: Mapping[str, np.ndarray], goal: Goal) -> str:
    """The name of the mixture measured best at the largest size and its longest budget; seeds are
    averaged. Nothing where no run there has every loss."""
    rows = np.isfinite(design.losses).all(1)
    for values in (design.n_params, design.n_tokens):
        some = values[rows & np.isfinite(values)]
        if len(some):
            rows &= values >= some.max() * 0.999
    if not rows.any():
        return ""
    value, names = goal(design.losses[rows])[0], list(tried)
    apart = np.abs(design.ratios[rows][:, None] - np.array(list(tried.values()))[None]).max(-1)
    which = apart.argmin(1)
    means = {names[i]: float(value[which == i].mean()) for i in np.unique(which)}
    return min(means, key=means.__getitem__)
