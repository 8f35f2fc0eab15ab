"""How far a two-step law errs beyond the runs fitted, learnt from the sizes that it can hold out.

A bootstrap knows the luck of runs, not that a power law and a sigmoid are approximations. Each of
the larger sizes is predicted from the smaller ones; sizes that are near each other are one. An
error, on the logit of the accuracy above chance, has two parts: error^2 = (scale reach)^2 +
noise^2. The reach is how far log N or log(N D), whichever is farther, lies beyond the fitted runs,
over the range of log(N D) that they span; the noise is that of a score, which the law's residuals
tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from olmo_mixlaw.advice.two_step import TwoStep, TwoStepOptions, final_design, fit_two_step

# Sizes held out in turn, each leaving at least two to fit.
MOST_HELD = 2
# Sizes that differ by less than this factor say nothing of how the law extrapolates.
APART = 1.15
# A task's own errors are few: the median task's counts as this many more of them.
SHARED_ERRORS = 2.0
# What was found on public ladders whose larger sizes were held out (benchmarks/scores.py): an error
# of this many logits at a reach of 1. It counts as so many errors, and alone where no size is held.
USUAL_SCALE, USUAL_ERRORS = 0.4, 2.0
# Accuracies this near chance or 1 (as parts of the way between) have no steady logit.
EDGE = 0.02


@dataclass(frozen=True)
class Edge:
    """Where runs end: the largest log N and log(N D), and the range of log(N D)."""

    size: float
    compute: float
    span: float

    @classmethod
    def of(cls, frame: pd.DataFrame) -> Edge:
        """That of the ends of the runs in a table of tasks."""
        log_n, log_d = np.log(frame.groupby("run_id")[["N", "D"]].max().to_numpy(float)).T
        compute = log_n + log_d
        return cls(float(log_n.max()), float(compute.max()), float(np.ptp(compute)))

    def reach(self, n_params: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
        """Distance beyond them over their range, (R,)."""
        log_n, log_d = (np.log(np.asarray(x, float)) for x in (n_params, n_tokens))
        beyond = np.maximum(log_n - self.size, log_n + log_d - self.compute)
        return np.asarray(np.maximum(beyond, 0.0) / self.span)


@dataclass(frozen=True)
class FormError:
    """`scale` (T,) is the error in logits at a reach of 1, with `freedom` degrees of freedom.

    `edge` says where the fitted runs end; `measured` is whether sizes could be held out, or the
    scale is the usual one.
    """

    scale: np.ndarray
    freedom: float
    edge: Edge
    measured: bool = True

    def reach(self, n_params: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
        """Distance beyond the fitted runs over their range, (R,); 0 within it."""
        return self.edge.reach(n_params, n_tokens)

    def draw(
        self, accuracy: np.ndarray, floors: np.ndarray, reach: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Accuracies (R, T), each moved by a Student-t error of its task at its reach."""
        error = rng.standard_t(self.freedom, size=accuracy.shape) * self.scale * reach[:, None]
        moved = to_logit(accuracy, floors) + error
        return floors + (1 - floors) / (1 + np.exp(-moved))


def to_logit(accuracy: np.ndarray, floors: np.ndarray) -> np.ndarray:
    """The logit of the way from chance to 1, kept off its ends."""
    part = np.clip((accuracy - floors) / (1 - floors), EDGE, 1 - EDGE)
    return np.log(part / (1 - part))


def form_error(
    frame: pd.DataFrame,
    options: TwoStepOptions,
    *,
    chance: Mapping[str, float] | None = None,
    seed: int = 0,
) -> FormError:
    """Errors of the law's form on held-out sizes; the usual ones with fewer than three apart.

    `frame` is a checked table of tasks. Of each held size the run of most compute counts: what a
    target is like. Larger sizes than the held one are predicted by the same fit.
    """
    groups = groups_of(frame["N"].to_numpy(float))
    squares, reaches = [], []
    for held in range(1, min(MOST_HELD, len(groups) - 2) + 1):
        edge = groups[-held][0] * 0.999
        small = frame[frame["N"] < edge]
        if small["D"].nunique() < 2:
            continue
        chain = fit_two_step(small, options, seed=seed, chance=chance)
        large = frame[frame["N"] >= edge]
        for square, reach in _errors(chain, large, groups[-held:], Edge.of(small), options):
            squares.append(square)
            reaches.append(reach**2)
    edge = Edge.of(frame)
    usual, tasks = USUAL_SCALE**2, frame["task"].nunique()
    if not squares:
        return FormError(np.full(tasks, USUAL_SCALE), USUAL_ERRORS, edge, measured=False)
    # A least-squares line through the origin, each error as uncertain as its reach makes it.
    found = np.array(squares)
    weight = np.where(np.isfinite(found), np.array(reaches)[:, None], 0.0)
    own = np.maximum(np.nansum(found, axis=0), 0.0) / np.maximum(weight.sum(0), 1e-300)
    count, shared = len(squares), float(np.nanmedian(own))
    freedom = count + SHARED_ERRORS + USUAL_ERRORS
    square = (count * own + SHARED_ERRORS * shared + USUAL_ERRORS * usual) / freedom
    return FormError(np.sqrt(square), freedom, edge)


def groups_of(sizes: np.ndarray) -> list[np.ndarray]:
    """The sizes, smallest first, those within a factor `APART` of their group's first together."""
    groups: list[list[float]] = []
    for size in np.unique(sizes):
        if groups and size < APART * groups[-1][0]:
            groups[-1].append(size)
        else:
            groups.append([size])
    return [np.array(group) for group in groups]


def _errors(
    chain: TwoStep,
    held: pd.DataFrame,
    groups: list[np.ndarray],
    edge: Edge,
    options: TwoStepOptions,
) -> list[tuple[np.ndarray, float]]:
    """Squared errors in logits (T,) less the noise's, and the reach, a group beyond the fit."""
    design = final_design(held, chain.tasks, options.window)
    last = held.groupby(["task", "run_id"], sort=False).tail(options.window)
    wide = last.groupby(["run_id", "task"])["accuracy"].mean().unstack()
    actual = wide.loc[design.run_ids, chain.tasks].to_numpy(float)
    compute = np.log(design.n_params) + np.log(design.n_tokens)
    errors, low = [], chain.curves.low
    for group in groups:
        rows = np.flatnonzero(np.isin(design.n_params, group))
        i = int(rows[compute[rows].argmax()])
        reach = float(edge.reach(design.n_params[i], design.n_tokens[i]))
        if reach <= 0:
            continue
        guess = chain.predict(design.n_params[i], design.n_tokens[i])[1][0]
        error = to_logit(guess, low) - to_logit(actual[i], low)
        noise = _logit_noise(actual[i], low, chain.noise)
        errors.append((error**2 - noise**2, reach))
    return errors


def _logit_noise(accuracy: np.ndarray, floors: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """The noise of log accuracy, in logits of the way from chance to 1."""
    part = np.clip((accuracy - floors) / (1 - floors), EDGE, 1 - EDGE)
    return noise * accuracy / ((1 - floors) * part * (1 - part))
