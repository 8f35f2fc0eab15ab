"""Fitting the level of a table (`laws.level`): cells, what is left out, weights, the skeleton.

A cell is a size and budget; its loss is the mean over all mixtures of the largest size, of which
it saw some: `mean over rows of (log L - log law) + mean over h* of log law(h*)`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws.engine.search import draw_starts
from olmo_mixlaw.laws.engine.solver import Prior, Problems, Solutions, solve
from olmo_mixlaw.laws.level import VOCABULARY, Level, LogLaw, mean_over, width_of, with_embeddings
from olmo_mixlaw.laws.skeleton import (
    K_PRIOR,
    KS,
    LOWER,
    MIXTURE_NOISE,
    PRIOR,
    UPPER,
    Skeleton,
    relative_loss,
)
from olmo_mixlaw.runs import Design

# Checkpoints before this part of a size's longest run are transients, but so many are kept.
BURN_IN, LEAST_KEPT = 0.25, 6
# The least noise of a cell, from which a fit starts; and the share of cells that count as free.
LEAST_NOISE = 0.004
FREE_PART = 0.4
# A target's noise is drawn to that of all targets as if by so many cells; errors are clipped.
POOLED_CELLS = 8.0
MOST_ERROR = 0.05
STARTS, ROUNDS = 2, 2
# The part of the evidence that counts in the choice of k.
TEMPER = 0.3
# An anchor is refused when it is off by this many half widths of the interval without it.
STRANGE = 3.0
# A law has a term of its own in N or D when log loss falls by so much at this multiple of it.
FARTHER, LEAST_FALL = 4.0, 1e-3
# So many reference mixtures are enough for a mean.
MOST_MIXTURES = 64
# Sizes and budgets within this factor are one.
SAME = 1.05


def level_of(
    design: Design,
    law: LogLaw,
    anchors: Design | None = None,
    vocabulary: float | None = None,
    prior: tuple[np.ndarray, np.ndarray] = PRIOR,
    checkpoints: bool = True,
) -> Level | None:
    """The level of a table under a law fitted to it; None where sizes or budgets aren't known.

    `law` gives the log losses (S, T) of mixtures (S, K) at N and D (S,); the anchors are runs at or
    near the scale of interest, of the same domains and targets, that the law was not fitted to.
    `vocabulary` is how many embeddings N leaves out (None: as the table says, else `VOCABULARY`).
    Where the runs of a size may be `checkpoints` of longer ones, early ones are left out.
    `prior` are the middles and spreads (5,) of the skeleton's parameters.
    Raises `FitError` for anchors that belong to another table.
    """
    n, d = design.n_params, design.n_tokens
    if not (np.isfinite(n).all() and np.isfinite(d).all()):
        if anchors is not None:
            raise FitError("anchors: the table needs n_params and n_tokens in every run")
        return None
    vocabulary = vocabulary_of(design) if vocabulary is None else vocabulary
    largest = n >= n.max() / SAME
    mixtures = _reference(design.ratios[largest])
    scales, losses, _ = _cells(design, law, mixtures)
    kept = ~_transient(scales) if checkpoints else np.ones(len(scales), bool)
    scales, losses = scales[kept], losses[kept]
    compute = scales.prod(1)
    weight = np.minimum(1.0, compute / compute.max())
    found = Level(
        skeleton=fit_skeleton(_total(scales, vocabulary), losses, weight, prior),
        mixtures=mixtures,
        n_top=float(n.max()),
        d_top=float(d.max()),
        c_top=float((n * d).max()),
        sizes=_distinct(n),
        budgets=_distinct(d),
        law_extrapolates=_extrapolates(law, mixtures, float(n.max()), float(d.max())),
        vocabulary=vocabulary,
    )
    if anchors is None:
        return found
    check_anchors(design, anchors)
    more, theirs, count = _cells(anchors, law, mixtures)
    _refuse_strange(found, more, theirs)
    scales, losses = np.concatenate([scales, more]), np.concatenate([losses, theirs])
    weight = np.concatenate([weight, _anchor_weight(more, count)])
    skeleton = fit_skeleton(_total(scales, vocabulary), losses, weight, prior)
    return replace(found, skeleton=skeleton, anchors=len(anchors))


def fit_skeleton(
    scales: np.ndarray,
    losses: np.ndarray,
    weight: np.ndarray,
    prior: tuple[np.ndarray, np.ndarray] = PRIOR,
) -> Skeleton:
    """The skeleton of cells: scales (C, 2) of N and D, losses (C, T), weights (C,).

    Maximum a posteriori under the prior of `laws.skeleton` for every k and target, the noise of
    each learnt. A k counts by its prior and, in part, by its evidence (Laplace): no skeleton is
    exactly true, so that evidence alone is too sure of itself.
    """
    low, targets = np.nanmin(losses, axis=0), losses.shape[1]
    refs = [float(np.exp(np.log(np.unique(x)).mean())) for x in scales.T]
    log_n, log_d = np.log(scales / refs).T
    k = np.repeat(KS, targets)
    drawn = Prior(*(np.tile(x, (len(k), 1)) for x in (*prior, LOWER, UPPER)))

    def evaluate(theta: np.ndarray, group: np.ndarray, rows: slice, jacobian: bool) -> Any:
        return relative_loss(theta, k[group], log_n[rows], log_d[rows], jacobian)

    problems = Problems(
        evaluate=evaluate,
        log_loss=np.tile(np.log(losses / low).T, (len(KS), 1)),
        prior=drawn,
        noise=np.full(len(k), LEAST_NOISE),
        weight=np.tile(weight, (len(k), 1)),
    )
    starts = np.concatenate([draw_starts(drawn, STARTS, 0, g) for g in range(len(k))])
    best = solve(problems, np.repeat(np.arange(len(k)), STARTS), starts).best_of(len(k))
    for _ in range(ROUNDS):
        noise = [
            _noise(problems, best.theta, rows) for rows in np.split(np.arange(len(k)), len(KS))
        ]
        problems = replace(problems, noise=np.concatenate(noise))
        best = solve(problems, np.arange(len(k)), best.theta)
    covariance = np.linalg.inv(best.curvature)
    shape = (len(KS), targets)
    share = _share(problems, best, covariance).reshape(shape)
    compute = scales.prod(1)
    return Skeleton(
        k=np.array(KS),
        theta=best.theta.reshape(*shape, -1),
        covariance=covariance.reshape(*shape, *covariance.shape[1:]),
        weight=share,
        noise=(share * problems.noise.reshape(shape)).sum(0),
        low=low,
        n_ref=refs[0],
        d_ref=refs[1],
        n_top=float(scales[:, 0].max()),
        c_top=float(compute.max()),
    )


def _share(problems: Problems, best: Solutions, covariance: np.ndarray) -> np.ndarray:
    """What each k counts for its target, (M T,): prior times tempered evidence."""
    count = np.isfinite(problems.log_loss).sum(1)
    volume = 0.5 * np.linalg.slogdet(covariance)[1]
    evidence = volume - best.cost - count * np.log(problems.noise)
    log_k = np.repeat(np.log(KS), len(count) // len(KS))
    score = TEMPER * evidence - 0.5 * ((log_k - K_PRIOR[0]) / K_PRIOR[1]) ** 2
    score = score.reshape(len(KS), -1)
    share = np.exp(score - score.max(0))
    return np.asarray((share / share.sum(0)).ravel())


def vocabulary_of(design: Design) -> float:
    """How many embeddings the sizes of a table leave out, by its own count where it has one."""
    if design.n_embedding is None:
        return float(VOCABULARY)
    if not design.n_embedding.any():
        return 0.0
    return float(np.exp(np.log(design.n_embedding / width_of(design.n_params)).mean()))


def check_anchors(design: Design, anchors: Design) -> None:
    """Refuse anchors of other domains, targets or units, or without scales. Raises `FitError`."""
    for what in ("domains", "targets", "unit"):
        ours, theirs = getattr(design, what), getattr(anchors, what)
        if ours != theirs:
            raise FitError(f"anchors: their {what}: {_few(theirs)}; the table's: {_few(ours)}")
    if not (np.isfinite(anchors.n_params).all() and np.isfinite(anchors.n_tokens).all()):
        raise FitError("anchors: n_params and n_tokens are needed in every run")


def _extrapolates(law: LogLaw, mixtures: np.ndarray, n: float, d: float) -> bool:
    """Whether a law's losses fall beyond the largest size and the largest budget alike."""
    scales = np.array([[n, d], [FARTHER * n, d], [n, FARTHER * d]])
    here, larger, longer = mean_over(law, mixtures, scales).mean(1)
    return bool(max(larger, longer) < here - LEAST_FALL)


def _total(scales: np.ndarray, vocabulary: float) -> np.ndarray:
    """Scales (C, 2) with the embeddings counted."""
    return np.c_[with_embeddings(scales[:, 0], vocabulary), scales[:, 1]]


def _refuse_strange(below: Level, scales: np.ndarray, losses: np.ndarray) -> None:
    """Refuse anchors (C, T) that nothing in the table leads to. Raises `FitError`."""
    total = _total(scales, below.vocabulary)
    off = np.log(losses) - below.skeleton.log_loss(*total.T)
    wide = below.skeleton.half_width(*total.T)
    for i, (n, d) in enumerate(scales):
        mean = float(np.nanmean(off[i]))
        if abs(mean) > STRANGE * float(np.nanmean(wide[i])):
            raise FitError(
                f"anchors: the losses at {n:.4g} parameters and {d:.4g} tokens are "
                f"{100 * abs(np.expm1(mean)):.0f} % {'above' if mean > 0 else 'below'} what the "
                f"table leads to (+-{100 * float(np.nanmean(wide[i])):.0f} %): are they of another "
                "tokenizer, unit or text?"
            )


def _few(names: list[str] | str) -> str:
    return names if isinstance(names, str) else ", ".join(names[:6]) + (" ..." * (len(names) > 6))


def _noise(problems: Problems, theta: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Standard deviation of a cell's log loss in some problems, each drawn to that of all."""
    every = slice(0, problems.log_loss.shape[1])
    loss, _ = problems.evaluate(theta[rows], rows, every, False)
    error = np.clip(np.log(loss) - problems.log_loss[rows], -MOST_ERROR, MOST_ERROR)
    seen = np.isfinite(error)
    count = seen.sum(1)
    free = np.maximum(count - 4.0, FREE_PART * count)
    assert problems.weight is not None
    own = (problems.weight[rows] * np.where(seen, error, 0.0) ** 2).sum(1) / free
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
