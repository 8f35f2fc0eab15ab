"""What each task and family gains and loses when one mixture takes the place of another.

Two predictions of one fit err alike, so the interval of a gain is that of the difference: both
mixtures are asked of the same refits and the same curves, and only what two runs differ by besides
is drawn for each by itself, from what the table's runs score beyond their predictions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from olmo_mixlaw.advice.families import Members
from olmo_mixlaw.advice.score_table import read_scores
from olmo_mixlaw.advice.scores.inputs import ONE_SD
from olmo_mixlaw.laws.choice.uncertainty import bootstrap, interval
from olmo_mixlaw.runs import Design, RunTable

if TYPE_CHECKING:
    from olmo_mixlaw.advice.scores import ScoreLaw, Scores
    from olmo_mixlaw.laws.fitted import Fit

# What is drawn for each mixture by itself, for each refit.
LUCKS = 20
# Runs of a size whose luck is told by themselves.
LEAST_RUNS = 8
# What a curve takes of its scores' freedom, and the least part of it that is left.
CURVE_PARAMETERS, LEAST_FREE = 3, 0.25
# Ratios nearer to each other than this are one mixture, written twice.
SAME = 1e-6
# A mixture that has this many times the runs of the next one is the usual one.
OFTEN = 2


@dataclass(frozen=True)
class Gains:
    """Scores (parts of 1) of a mixture `best` beside those of a mixture `current`.

    `tasks` has a row a task: `task`, `family`, `weight`, `current`, `best` (with `best_low` and
    `best_high` where they were given), `gain` with `low` and `high`; `families` a row a family, its
    tasks weighed as in the goal; `mean` the same for the goal. Intervals hold what new runs show
    `level` of the time.
    """

    tasks: pd.DataFrame
    families: pd.DataFrame
    mean: dict[str, float]
    level: float


def gains(
    predicted: np.ndarray,
    draws: np.ndarray,
    tasks: Sequence[str],
    weights: Mapping[str, float],
    members: Members | None = None,
    level: float = 0.9,
    best_ends: tuple[np.ndarray, np.ndarray] | None = None,
) -> Gains:
    """Gains from one mixture to another: `predicted` are their scores (2, Q), the current first.

    `draws` (2, S, Q) are paired: row s of one and of the other come from one refit
    (`paired_draws`). `weights` are those of the goal by task; a task that they lack is shown and
    doesn't count. `best_ends` (Q,) are the ends of what a new run of the other mixture scores
    (`Scores.interval`).
    """
    by_task = np.array([weights.get(task, 0.0) for task in tasks])
    family = [members.family_of(task) if members else "" for task in tasks]
    rows = pd.DataFrame({"task": list(tasks), "family": family, "weight": by_task})
    known = list(members.shares) if members else []
    shares = [by_task * (rows["family"] == name).to_numpy() for name in known]
    names = [name for name, share in zip(known, shares, strict=True) if share.sum() > 0]
    shares = [share for share in shares if share.sum() > 0]
    means = np.array([share / share.sum() for share in [by_task, *shares]])
    averaged = _gains(predicted @ means.T, draws @ means.T, level)
    head = pd.DataFrame({"family": names, "weight": [share.sum() for share in shares]})
    if best_ends is not None:
        rows["best_low"], rows["best_high"] = best_ends
    return Gains(
        rows.join(_gains(predicted, draws, level)),
        head.join(averaged[1:].reset_index(drop=True)),
        averaged.iloc[0].to_dict(),
        level,
    )


def _gains(predicted: np.ndarray, draws: np.ndarray, level: float) -> pd.DataFrame:
    """A row a score: what it is for both mixtures, its gain, and the interval of that."""
    (current, best), gain = predicted, predicted[1] - predicted[0]
    found = {"current": current, "best": best}
    found["gain"] = gain
    found["low"], found["high"] = _around(gain, draws[1] - draws[0], level)
    return pd.DataFrame(found)


def refits_of(scores: Scores, table: RunTable, replicates: int, seed: int = 0) -> Iterator[Fit]:
    """The bootstrap of the losses below a benchmark; `table` is what `scores` was fitted to."""
    design = scores.design_below(table)
    return bootstrap(scores.fit, design, replicates=replicates, seed=seed)


@dataclass(frozen=True)
class Luck:
    """What R runs of a table have beyond what is predicted for them, a row a run.

    `losses` (R, T) are logarithms of measured over predicted losses that the curves read, `scores`
    (R, Q) what was scored above the curves at the measured losses; apart from what all runs of one
    size and budget share. What a run lacks counts as predicted.
    """

    losses: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.losses)


def luck_of(scores: Scores, table: RunTable) -> Luck:
    """The luck of the runs that `scores` was fitted to, widened for what the fit took from it.

    It is that of the largest size that has `LEAST_RUNS`, which is nearest to a target; else all.
    """
    at = scores.design_below(table)
    read = read_scores(table, dict.fromkeys(map(str, table.scores["task"]), 0.0))
    measured = read.score[:, [read.tasks.index(task) for task in scores.law.tasks]]
    fitted = scores.fit if at.available is None else scores.fit.having(at.available)
    guess = fitted.predict(at.ratios, at.n_params, at.n_tokens, at.n_active)
    columns = [at.targets.index(name) for name in scores.law.inputs]
    known = np.where(np.isfinite(at.losses), at.losses, guess)
    losses = np.log(at.losses / guess)[:, columns]
    score = measured - scores.law(known[:, columns])[0]
    near = _largest(at.n_params)
    return Luck(
        _apart(losses, at, scores.fit.n_parameters / len(at.targets))[near],
        _apart(score, at, CURVE_PARAMETERS)[near],
    )


def _largest(n_params: np.ndarray) -> np.ndarray:
    """The rows (R,) of the largest size that has `LEAST_RUNS`; all where none has."""
    sizes, counts = np.unique(n_params, return_counts=True)
    enough = sizes[(counts >= LEAST_RUNS) & np.isfinite(sizes)]
    return n_params == enough.max() if len(enough) else np.ones(len(n_params), bool)


def _apart(off: np.ndarray, at: Design, taken: float) -> np.ndarray:
    """Residuals (R, T) without the mean of their size and budget, 0 where one is missing.

    `taken` are the parameters a column that were fitted: what is left is that much too small.
    """
    cell = [pd.Series(at.n_params), pd.Series(at.n_tokens)]
    frame = pd.DataFrame(off)
    frame -= frame.groupby(cell, dropna=False).transform("mean")
    free = max(1 - taken / len(at), LEAST_FREE)
    return np.asarray(np.nan_to_num(frame.to_numpy(float) / np.sqrt(free)))


def paired_draws(
    scores: Scores,
    refits: Iterable[Fit],
    mixtures: np.ndarray,
    n_params: float = np.nan,
    n_tokens: float = np.nan,
    n_active: float | None = None,
    *,
    luck: Luck,
    seed: int = 0,
) -> np.ndarray:
    """Scores (2, S, Q) of two mixtures (2, K), as two new runs may show them.

    Row s of both has in common: a refit of the losses' law to resampled runs; an error of the
    losses' level, of the size that the fit's own interval has beyond its residual noise; and the
    curves, drawn from their Laplace posterior. The latter two are widened as runs held out of the
    table told (`Scores.calibration`). Each mixture has by itself the `luck` of a run of the table
    (`luck_of`), all its losses and tasks together. Of one mixture written twice nothing differs.
    """
    rng = np.random.default_rng(seed)
    fit, law = scores.fit, scores.law
    mixtures = fit.checked_ratios(mixtures)
    columns = [fit.targets.index(name) for name in law.inputs]
    wider = max(float(scores.calibration.factor(n_params, 1)[0]), 1.0)
    common = wider * _common(fit, mixtures, n_params, n_tokens, n_active)[columns]
    own = float(np.abs(mixtures[0] - mixtures[1]).max() >= SAME)
    drawn = []
    for other in refits:
        losses = other.predict(mixtures, n_params, n_tokens, n_active)[:, columns]
        rows = rng.integers(len(luck), size=(LUCKS, 2))
        moved = rng.normal(size=(LUCKS, 1, 1)) * common + own * luck.losses[rows]
        score = _drawn(law, wider, rng)((losses * np.exp(moved)).reshape(-1, len(columns)))[0]
        drawn.append(score.reshape(LUCKS, 2, -1) + own * luck.scores[rows])
    return np.clip(np.concatenate(drawn), 0, 1).transpose(1, 0, 2)


def _common(
    fit: Fit, mixtures: np.ndarray, n_params: float, n_tokens: float, n_active: float | None
) -> np.ndarray:
    """The standard error of log loss (T,) that both mixtures have in common."""
    wide = fit.half_width(mixtures, fit.size_of(n_params, n_active), n_tokens, ONE_SD).min(0)
    return np.sqrt(np.maximum(wide**2 - fit.noise**2, 0.0))


def _drawn(law: ScoreLaw, wider: float, rng: np.random.Generator) -> ScoreLaw:
    """Curves as the posterior of their parameters has them, `wider` times as far off."""
    if law.directions is None:
        return law
    steps = wider * rng.normal(size=law.directions.shape[:2])
    return replace(law, theta=law.theta + np.einsum("qd,qdp->qp", steps, law.directions))


def _around(value: Any, draws: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """The interval of draws (S, ...), which always holds the prediction itself."""
    low, high = interval(draws, level)
    return np.minimum(low, value), np.maximum(high, value)


def usual_mixture(design: Design) -> tuple[np.ndarray, str]:
    """The mixture (K,) that runs would have had without any advice, and what it is.

    It is the one that most runs have, where that is twice as often as any other; of a grid or a
    swarm, whose mixtures are about as frequent as one another, it is their mean.
    """
    rounded = np.round(design.ratios / SAME).astype(np.int64)
    _, first, counts = np.unique(rounded, axis=0, return_index=True, return_counts=True)
    if len(counts) == 1:
        return design.ratios[0], "the only mixture tried"
    second, most = np.sort(counts)[-2:]
    if most >= OFTEN * second:
        return design.ratios[first[counts.argmax()]], f"the mixture that {most} runs have"
    return design.ratios[first].mean(0), f"the mean of the {len(counts)} mixtures tried"
