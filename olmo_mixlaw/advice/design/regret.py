"""What runs will have been worth: the regret of the mixture picked after them, and its forecast.

Worlds are drawn from a belief, runs are made in each, and the mixture that the belief then calls
best is compared with the one that is (a knowledge-gradient policy's value, Frazier et al. 2009,
by common random numbers).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from olmo_mixlaw.advice.design.belief import Belief

# Worlds drawn from every belief.
WORLDS = 512
# No forecast of a loss beyond a table is surer than this, in log loss: the floor of the intervals
# of `laws.skeleton` (.66 % at 90 %).
SUREST = 0.004


def outcomes(belief: Belief, rows: np.ndarray, ends: Sequence[int], seed: int) -> np.ndarray:
    """Regret and forecast error (E, 2) after the first `ends` of the runs `rows`.

    The regret is in the goal's unit, the error is the standard deviation of the log of the goal at
    the mixture picked.
    """
    rng = np.random.default_rng([seed, 1])
    targets, _, width = belief.goal.shape
    world = rng.normal(size=(targets, width, WORLDS))
    # A run has the same luck whatever is run beside it.
    luck = rng.normal(size=(len(rows), targets, WORLDS)).transpose(1, 0, 2)
    truth = belief.mean[:, None] + np.matmul(belief.goal, world).sum(0)
    least, each = truth.min(0), np.arange(WORLDS)
    found = []
    for end in ends:
        features = belief.runs[:, rows[:end]] / belief.noise[:, None, None]
        seen = features @ world + luck[:, :end]
        precision = np.eye(width) + features.transpose(0, 2, 1) @ features
        learnt = np.linalg.solve(precision, features.transpose(0, 2, 1) @ seen)
        pick = (belief.mean[:, None] + np.matmul(belief.goal, learnt).sum(0)).argmin(0)
        regret = float((truth[pick, each] - least).mean())
        at = belief.goal[:, np.bincount(pick).argmax()]
        variance = (at[:, None] @ np.linalg.solve(precision, at[:, :, None]))[:, 0, 0].sum()
        part = np.sqrt(variance) / abs(belief.mean[belief.best])
        found.append((regret, float(np.hypot(part, SUREST))))
    return np.array(found)


def contrasts(belief: Belief, count: int, seed: int) -> np.ndarray:
    """How the mixtures that may be best differ in the goal, as features (T, F, count).

    The mean over them of their variance is that of the goal at a mixture that may be best, less
    what all of these have in common: to second order, the regret of picking one for another. It
    is smooth in the runs, where the worth of a first run alone is often nothing.
    """
    rng = np.random.default_rng([seed, 2])
    world = rng.normal(size=(len(belief.goal), belief.goal.shape[2], count))
    truth = belief.mean[:, None] + np.matmul(belief.goal, world).sum(0)
    best = belief.goal[:, truth.argmin(0)]
    apart = best - best.mean(1, keepdims=True)
    return np.asarray(apart.transpose(0, 2, 1) / np.sqrt(count))
