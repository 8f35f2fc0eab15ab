"""Fitting the level of a table (`laws.level`): cells, what is left out, weights, the skeleton.

A cell is a size and budget; its loss is the mean over all mixtures of the largest size, of which
it saw some: `mean over rows of (log L - log law) + mean over h* of log law(h*)`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from olmo_mixlaw.laws.engine.search import draw_starts
from olmo_mixlaw.laws.engine.solver import Prior, Problems, Solutions, solve
from olmo_mixlaw.laws.level import Level, LogLaw, mean_over, with_embeddings
from olmo_mixlaw.laws.skeleton import LOWER, MIDDLE, SPREAD, UPPER, Skeleton, relative_loss
from olmo_mixlaw.runs import Design

# Checkpoints before this part of a size's longest run are transients, but so many are kept.
BURN_IN, LEAST_KEPT = 0.25, 6
# The least noise of a cell, from which a fit starts; and the share of cells that count as free.
LEAST_NOISE = 0.004
FREE_PART = 0.4
# A target's noise is drawn to that of all targets as if by so many cells; errors are clipped.
POOLED_CELLS = 8.0
MOST_ERROR = 0.05
STARTS, ROUNDS = 3, 2
# A mixture's own noise at the scale of an anchor, on top of that of its cell.
MIXTURE_NOISE = 0.005
# So many reference mixtures are enough for a mean.
MOST_MIXTURES = 64
# Sizes and budgets within this factor are one.
SAME = 1.05


def level_of(
    design: Design, law: LogLaw, anchors: Design | None = None, vocabulary: float = 0.0
) -> Level | None:
    """The level of a table under a law fitted to it; None where sizes or budgets aren't known.

    `law` gives the log losses (S, T) of mixtures (S, K) at N and D (S,); the anchors are runs at or
    near the scale of interest, of the same domains and targets, that the law was not fitted to.
    """
    n, d = design.n_params, design.n_tokens
    if not (np.isfinite(n).all() and np.isfinite(d).all()):
        return None
    largest = n >= n.max() / SAME
    mixtures = _reference(design.ratios[largest])
    scales, losses, _ = _cells(design, law, mixtures)
    kept = ~_transient(scales)
    scales, losses = scales[kept], losses[kept]
    compute = scales.prod(1)
    weight = np.minimum(1.0, compute / compute.max())
    if anchors is not None:
        more, theirs, count = _cells(anchors, law, mixtures)
        weight = np.concatenate([weight, _anchor_weight(more, count)])
        scales, losses = np.concatenate([scales, more]), np.concatenate([losses, theirs])
    total = np.c_[with_embeddings(scales[:, 0], vocabulary), scales[:, 1]]
    return Level(
        skeleton=fit_skeleton(total, losses, weight),
        mixtures=mixtures,
        n_top=float(n.max()),
        d_top=float(d.max()),
        d_of_largest=float(d[largest].max()),
        sizes=_distinct(n),
        budgets=_distinct(d),
        anchors=0 if anchors is None else len(anchors),
        vocabulary=vocabulary,
    )


def fit_skeleton(scales: np.ndarray, losses: np.ndarray, weight: np.ndarray) -> Skeleton:
    """The skeleton of cells: scales (C, 2) of N and D, losses (C, T), weights (C,).

    Maximum a posteriori under the prior of `laws.skeleton`, the noise of each target learnt.
    """
    low = np.nanmin(losses, axis=0)
    refs = [float(np.exp(np.log(np.unique(x)).mean())) for x in scales.T]
    log_n, log_d = np.log(scales / refs).T
    targets = len(low)
    prior = Prior(*(np.tile(x, (targets, 1)) for x in (MIDDLE, SPREAD, LOWER, UPPER)))
    log_loss = np.log(losses / low).T

    def evaluate(theta: np.ndarray, group: np.ndarray, rows: slice, jacobian: bool) -> Any:
        return relative_loss(theta, log_n[rows], log_d[rows], jacobian)

    problems = Problems(
        evaluate=evaluate,
        log_loss=log_loss,
        prior=prior,
        noise=np.full(targets, LEAST_NOISE),
        weight=np.tile(weight, (targets, 1)),
    )
    starts = np.concatenate([draw_starts(prior, STARTS, 0, t) for t in range(targets)])
    group = np.repeat(np.arange(targets), STARTS)
    best = _best(solve(problems, group, starts), targets)
    for _ in range(ROUNDS):
        problems = replace(problems, noise=_noise(problems, best.theta))
        best = solve(problems, np.arange(targets), best.theta)
    covariance = np.linalg.inv(best.curvature)
    return Skeleton(best.theta, covariance, low, *refs)


def _best(found: Solutions, targets: int) -> Solutions:
    """The end of least cost of each target."""
    pick = found.cost.reshape(targets, STARTS).argmin(1) + STARTS * np.arange(targets)
    return Solutions(*(value[pick] for value in vars(found).values()))


def _noise(problems: Problems, theta: np.ndarray) -> np.ndarray:
    """Standard deviation of a cell's log loss (T,), each target's drawn to that of all."""
    every = slice(0, problems.log_loss.shape[1])
    loss, _ = problems.evaluate(theta, np.arange(len(theta)), every, False)
    assert problems.weight is not None
    error = np.clip(np.log(loss) - problems.log_loss, -MOST_ERROR, MOST_ERROR)
    seen = np.isfinite(error)
    count = seen.sum(1)
    free = np.maximum(count - 4.0, FREE_PART * count)
    own = (problems.weight * np.where(seen, error, 0.0) ** 2).sum(1) / free
    variance = (own * free + own.mean() * POOLED_CELLS) / (free + POOLED_CELLS)
    return np.maximum(np.sqrt(variance), LEAST_NOISE)


def _cells(
    design: Design, law: LogLaw, mixtures: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scales (C, 2) of a design, losses (C, T) of the mean mixture there, and rows (C,)."""
    scales, which = np.unique(np.c_[design.n_params, design.n_tokens], axis=0, return_inverse=True)
    which = which.ravel()
    missed = np.log(design.losses) - law(design.ratios, design.n_params, design.n_tokens)
    seen = np.isfinite(missed)
    total, count = np.zeros((2, len(scales), missed.shape[1]))
    np.add.at(total, which, np.where(seen, missed, 0.0))
    np.add.at(count, which, seen)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total / count
    return scales, np.exp(mean + mean_over(law, mixtures, scales)), np.bincount(which)


def _transient(scales: np.ndarray) -> np.ndarray:
    """Cells (C,) early in the longest run of their size, beyond the few that must stay."""
    early = np.zeros(len(scales), bool)
    for size in np.unique(scales[:, 0]):
        rows = np.flatnonzero(scales[:, 0] == size)
        rows = rows[np.argsort(-scales[rows, 1])]
        some = rows[LEAST_KEPT:]
        early[some] = scales[some, 1] < BURN_IN * scales[rows[0], 1]
    return early


def _anchor_weight(scales: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Weights (C,) of the cells of anchors: a few mixtures stand for all, and a run counts once."""
    checkpoints = np.array([(scales[:, 0] == n).sum() for n in scales[:, 0]])
    spread = MIXTURE_NOISE**2 / rows * checkpoints
    return LEAST_NOISE**2 / (spread + LEAST_NOISE**2)


def _reference(ratios: np.ndarray) -> np.ndarray:
    """The distinct mixtures (m, K), some of them spread over all where they are many."""
    mixtures = np.unique(ratios, axis=0)
    step = max(1, -(-len(mixtures) // MOST_MIXTURES))
    return mixtures[::step]


def _distinct(values: np.ndarray) -> int:
    """How many values there are, those within a few percent counted once."""
    ordered = np.sort(np.unique(values))
    return 1 + int((ordered[1:] > SAME * ordered[:-1]).sum())
