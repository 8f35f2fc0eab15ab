"""How far a two-step law errs beyond the runs fitted, learnt from the sizes that it can hold out.

A bootstrap knows the luck of runs, not that a power law and a sigmoid are approximations. Each of
the larger sizes is predicted from the smaller ones. Errors are taken on the logit of the accuracy
above chance, and divided by the reach: the distance in log(N D) beyond the fitted runs, over the
range of log(N D) that they span. A target's error is a draw of that size times its own reach.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from olmo_mixlaw.advice.two_step import TwoStep, TwoStepOptions, final_design, fit_two_step

# Sizes held out in turn, each leaving at least two to fit.
MOST_HELD = 2
# A task's own errors are few: the median task's counts as this many more of them.
SHARED_ERRORS = 2.0
# Accuracies this near chance or 1 (as parts of the way between) have no steady logit.
EDGE = 0.02


@dataclass(frozen=True)
class FormError:
    """`scale` (T,) is the error in logits at a reach of 1, with `freedom` degrees of freedom.

    `top` and `span` are the largest log(N D) fitted and the range of all of them.
    """

    scale: np.ndarray
    freedom: float
    top: float
    span: float

    def reach(self, n_params: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
        """Distance beyond the fitted runs over their range, (R,); 0 within it."""
        compute = np.log(np.asarray(n_params, float)) + np.log(np.asarray(n_tokens, float))
        return np.maximum(compute - self.top, 0.0) / self.span

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
    chance: dict[str, float] | None = None,
    seed: int = 0,
) -> FormError | None:
    """Errors of the law's form on held-out sizes; None with fewer than three sizes.

    `frame` is a checked table of tasks. Of each held size the run of most compute counts: what a
    target is like. Larger sizes than the held one are predicted by the same fit.
    """
    sizes = np.unique(frame["N"].to_numpy(float))
    found = []
    for held in range(1, min(MOST_HELD, len(sizes) - 2) + 1):
        edge = sizes[-held] * 0.999
        small = frame[frame["N"] < edge]
        if small["D"].nunique() < 2:
            continue
        chain = fit_two_step(small, options, seed=seed, chance=chance)
        found += _errors(chain, frame[frame["N"] >= edge], *_range(small), options)
    if not found:
        return None
    squares = np.nanmean(np.square(found), axis=0)
    count = len(found)
    shared = float(np.nanmedian(squares))
    scale = np.sqrt((count * squares + SHARED_ERRORS * shared) / (count + SHARED_ERRORS))
    top, span = _range(frame)
    return FormError(scale, count + SHARED_ERRORS, top, span)


def _range(frame: pd.DataFrame) -> tuple[float, float]:
    """Largest log(N D) of the runs' ends, and the range of them."""
    ends = frame.groupby("run_id")[["N", "D"]].max().to_numpy(float)
    compute = np.log(ends).sum(1)
    return float(compute.max()), float(np.ptp(compute))


def _errors(
    chain: TwoStep, held: pd.DataFrame, top: float, span: float, options: TwoStepOptions
) -> list[np.ndarray]:
    """Errors in logits (T,) at a reach of 1, one a held size that lies beyond the fitted runs."""
    design = final_design(held, chain.tasks, options.window)
    last = held.groupby(["task", "run_id"], sort=False).tail(options.window)
    wide = last.groupby(["run_id", "task"])["accuracy"].mean().unstack()
    actual = wide.loc[design.run_ids, chain.tasks].to_numpy(float)
    compute = np.log(design.n_params) + np.log(design.n_tokens)
    errors = []
    for size in np.unique(design.n_params):
        rows = np.flatnonzero(design.n_params == size)
        i = int(rows[compute[rows].argmax()])
        reach = (compute[i] - top) / span
        if reach <= 0:
            continue
        guess = chain.predict(design.n_params[i], design.n_tokens[i])[1][0]
        errors.append((to_logit(guess, chain.floors) - to_logit(actual[i], chain.floors)) / reach)
    return errors
