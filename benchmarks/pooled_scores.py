"""Scores of runs that differ in their corpus or mixture, by what runs have in common.

p15: accuracies of corpora at three sizes, some runs with losses of tasks and some without.
p18: scores of fine-tuning mixtures over sizes of a base model, without any loss.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
from tables import LEAST_ERROR, METRIC, shares_of, sizes_of

from olmo_mixlaw.advice.scores.pooled import fit_pooled, linear, matern, same
from olmo_mixlaw.laws import fit
from olmo_mixlaw.laws.choice.holdout import LOOSE
from olmo_mixlaw.runs import Design

# Losses of tasks are summed up by so many factors; a loss counts where this part of runs has it.
FACTORS, SHARE = 2, 0.6
# Of a corpus without losses, its factors are guessed: how much its corpus, its name and luck
# move a factor (in its variance).
BY_CORPUS, BY_NAME, LUCK = 0.5, 0.5, 0.3
ROUNDS = 20
# The typical distance of two mixtures, in square roots of shares, times this is one length.
LENGTH = 0.65
# An accuracy of 0 or 1 is uncertain too: d accuracy / d angle counts as this at least.
LEAST_SLOPE = 0.1
# Runs of a size from which its mean and spread are taken.
LEAST_OF_SIZE = 3


@dataclass(frozen=True)
class Guess:
    """Scores of query rows and the standard errors of new measurements of them (R,)."""

    value: pd.Series
    sd: pd.Series


def of_corpora(frame: pd.DataFrame, query: pd.DataFrame) -> Guess:
    """Accuracies of (run, task) rows: by the losses of runs that have some, by size and corpus.

    The losses that query rows give are read, their accuracies are not there.
    """
    runs = pd.concat([_runs(frame), _runs(query)])
    given = [_wide(f, "task_loss") for f in (frame, query)]
    losses = pd.concat(given).reindex(runs.index).astype(float)
    score = _wide(frame, "accuracy").reindex(runs.index)
    size = np.log(runs[["N", "D"]].to_numpy(float))
    size = size - size[: frame["run_id"].nunique()].mean(0)
    alike, named = same(runs["corpus"]), _names_alike(runs["corpus"])
    factors, has = _factors(losses, size, alike, named)
    known = ~has.astype(bool)
    kernels = {
        "losses": factors @ factors.T / FACTORS,
        "corpus": alike,
        "name": named,
        "without losses": np.diag(known.astype(float)),
    }
    own = [_own(losses.get(task), factors, has) for task in score]
    found = fit_pooled(
        _angle(score.to_numpy(float)),
        kernels,
        {
            "own loss": [None if x is None else np.outer(x, x) for x in own],
            "size": [size @ size.T if grows else None for grows in _grow(score, runs["N"])],
        },
    )
    rows = runs.index.get_indexer(query["run_id"])
    rows = np.where(rows < frame["run_id"].nunique(), -1, rows)
    columns = score.columns.get_indexer(query["task"])
    asked = columns >= 0
    mean, sd = np.clip(found.mean[rows, columns], 0, np.pi / 2), found.sd[rows, columns]
    nothing = np.where(asked, 0.0, np.nan)
    return Guess(
        pd.Series(np.sin(mean) ** 2 + nothing, query.index),
        pd.Series(sd * np.maximum(np.sin(2 * mean), LEAST_SLOPE) + nothing, query.index),
    )


def of_mixtures(frame: pd.DataFrame, query: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores of mixtures at the sizes of a query, and their standard errors; a column a task.

    Mixtures act alike at all sizes, but not quite: half of the kernels are of one size alone. What
    they say is averaged with the stack of laws, fitted to error rates: at a size without scores
    about the same level.
    """
    both = pd.concat([frame, query], ignore_index=True)
    shares, n = shares_of(both).to_numpy(float), sizes_of(both)
    metrics = [c for c in frame if c.startswith(METRIC) and not c.startswith(f"{METRIC}avg_")]
    score = both[metrics].to_numpy(float)
    level, width = _by_size(score, n)
    points, one = np.sqrt(shares), same(n)
    line, bend = linear(points), matern(points, LENGTH)
    mixture = same([tuple(np.round(h, 4)) for h in shares])
    kernels = {
        "linear": line,
        "matern": bend,
        "linear, own size": line * one,
        "matern, own size": bend * one,
        "mixture": mixture,
    }
    found = fit_pooled((score - level) / width, kernels)
    asked, known = slice(len(frame), None), np.isin(n, n[: len(frame)])[:, None]
    value, sd = (
        (level + width * found.mean)[asked],
        np.where(known, width * found.sd, np.nan)[asked],
    )
    law = _by_law(frame, metrics, shares[asked], n[asked])
    law = np.where(known[asked], law, law - law.mean(0) + value.mean(0))
    value = (value + law) / 2
    return pd.DataFrame(value, query.index, metrics), pd.DataFrame(sd, query.index, metrics)


def _by_law(
    frame: pd.DataFrame, metrics: list[str], shares: np.ndarray, n: np.ndarray
) -> np.ndarray:
    """Scores (r, Q) by the stack of laws."""
    known, sizes = shares_of(frame), sizes_of(frame)
    rates = np.maximum(1 - frame[metrics].to_numpy(float), LEAST_ERROR)
    runs, nothing = [str(r) for r in frame["run_id"]], np.full(len(frame), np.nan)
    ratios = known.to_numpy(float)
    design = Design(
        runs, list(known), metrics, ratios, sizes, sizes, nothing, rates, "unstated", False
    )
    fitted = fit("stack", design, settings=LOOSE, level=False)
    return 1 - fitted.predict(shares, n if fitted.scene.has_n else np.nan)


def _by_size(score: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and spread (R, Q) of each row's size; of one without scores, those of the largest, so
    that only ranks are told there."""
    level, width = np.zeros(score.shape), np.ones(score.shape)
    seen = [s for s in np.unique(n) if np.isfinite(score[n == s]).all(1).sum() >= LEAST_OF_SIZE]
    for size in np.unique(n):
        like = size if size in seen else max(seen)
        level[n == size] = np.nanmean(score[n == like], axis=0)
        width[n == size] = np.maximum(np.nanstd(score[n == like], axis=0), 1e-6)
    return level, width


def _runs(frame: pd.DataFrame) -> pd.DataFrame:
    """A row a run: corpus, N, D; a corpus without a name is one of its own."""
    found = frame.groupby("run_id", sort=False)[["corpus", "N", "D"]].first()
    return found.assign(corpus=found["corpus"].fillna(found.index.to_series()))


def _wide(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    return frame.pivot_table(index="run_id", columns="task", values=column, sort=False)


def _angle(accuracy: np.ndarray) -> np.ndarray:
    """Accuracies so that equal steps are as uncertain everywhere (Anscombe 1948), 0 and 1 too."""
    return np.asarray(np.arcsin(np.sqrt(accuracy)))


def _grow(score: pd.DataFrame, n: pd.Series) -> np.ndarray:
    """Tasks (Q,) whose mean doesn't fall from the smallest size to the largest.

    A fall is luck: of the 13 tasks of p8's that fell by more than .005 a factor e from one size to
    the next, the mean moved by +-.003 to the one after, while those that rose went on rising.
    """
    seen = n.loc[score.notna().any(axis=1)]
    small, large = (score.loc[seen.index[seen == end]].mean() for end in (seen.min(), seen.max()))
    return ~(large < small).to_numpy()


def _names_alike(corpora: pd.Series) -> np.ndarray:
    """The part of two names' words that they share, (R, R)."""
    words = [set(re.split(r"[_.]+", name.lower())) for name in corpora]
    return np.array([[len(a & b) / len(a | b) for b in words] for a in words])


def _factors(
    losses: pd.DataFrame, size: np.ndarray, alike: np.ndarray, named: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Factors of the losses (R, F) of every run, and which runs have losses (R,).

    Those of runs without are guessed from their size, corpus and its name (kriging).
    """
    has = losses.notna().any(axis=1).to_numpy()
    table = losses[has]
    table = table[table.columns[table.notna().mean() >= SHARE]].to_numpy(float)
    scaled = (table - np.nanmean(table, 0)) / (np.nanstd(table, 0) + 1e-9)
    filled = np.nan_to_num(scaled)
    for _ in range(ROUNDS):
        left, scale, right = np.linalg.svd(filled, full_matrices=False)
        part = left[:, :FACTORS] * scale[:FACTORS]
        filled = np.where(np.isfinite(scaled), scaled, part @ right[:FACTORS])
    part = (part - part.mean(0)) / part.std(0)
    found = np.zeros((len(losses), FACTORS))
    found[has] = part
    covariance = 4 + size @ size.T + BY_CORPUS * alike + BY_NAME * named
    among = covariance[np.ix_(has, has)] + LUCK * np.eye(has.sum())
    found[~has] = covariance[np.ix_(~has, has)] @ np.linalg.solve(among, part)
    return found, has


def _own(loss: pd.Series | None, factors: np.ndarray, has: np.ndarray) -> np.ndarray | None:
    """A task's own losses (R,), scaled, filled in by the factors where a run has none."""
    if loss is None or loss.notna().sum() < 2 * (FACTORS + 2):
        return None
    own = loss.to_numpy(float)
    own = (own - np.nanmean(own)) / (np.nanstd(own) + 1e-9)
    x, seen = np.c_[np.ones(len(own)), factors], np.isfinite(own)
    by_factors = x @ np.linalg.lstsq(x[seen], own[seen], rcond=None)[0]
    return np.where(seen, own, by_factors)
