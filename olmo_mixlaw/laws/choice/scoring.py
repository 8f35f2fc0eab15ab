"""How good predictions of held-out rows are: errors, differences of mixtures, ranks, regret."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import spearmanr

from olmo_mixlaw.laws.choice.holdout import Split, cells, run_ids
from olmo_mixlaw.laws.weights import weights_of
from olmo_mixlaw.runs import Design

# A target whose error is so many times the median target's is noise to a law.
APART = 5.0


def score(
    design: Design, held: Sequence[tuple[Split, np.ndarray]], weights: np.ndarray | None = None
) -> dict[str, float]:
    """`SCORES` of held-out predictions: MRE in %, regret in the unit; targets by `weights` (T,)."""
    truth, guess, cell = held_rows(design, held)
    weights = weights_of(None, design.targets, "target") if weights is None else weights
    seen = np.isfinite(truth)
    error = np.where(seen, np.abs(guess / np.where(seen, truth, 1.0) - 1), np.nan)
    residual, total, ranks, regrets = 0.0, 0.0, [], []
    missed, spread = 0.0, 0.0
    for c in np.unique(cell):
        t, g = truth[cell == c], guess[cell == c]
        if len(t) < 3:
            continue
        t_centred, g_centred = t - np.nanmean(t, 0), np.where(np.isfinite(t), g, np.nan)
        g_centred = g_centred - np.nanmean(g_centred, 0)
        residual += np.nansum((t_centred - g_centred) ** 2)
        total += np.nansum(t_centred**2)
        whole = np.isfinite(t).all(1)
        if whole.sum() >= 3:
            t_mean, g_mean = t[whole] @ weights, g[whole] @ weights
            missed += float(((t_mean - t_mean.mean() - g_mean + g_mean.mean()) ** 2).sum())
            spread += float(((t_mean - t_mean.mean()) ** 2).sum())
            if np.ptp(g_mean) > 1e-9:
                ranks.append(spearmanr(t_mean, g_mean).statistic)
            regrets.append(t_mean[g_mean.argmin()] - t_mean.min())
    return {
        "mre": 100 * float(np.nanmean(error)),
        "mixture_r2": 1 - residual / total if total > 0 else np.nan,
        "objective_r2": 1 - missed / spread if spread > 0 else np.nan,
        "rho": float(np.mean(ranks)) if ranks else np.nan,
        "regret": float(np.mean(regrets)) if regrets else np.nan,
    }


def mixture_scores(
    truth: np.ndarray, guess: np.ndarray, cell: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mixture R2 (T,) and MRE (T,), %, of each target alone; `cell` (rows,) is size and budget.

    R2 is NaN for a target whose mixtures don't differ.
    """
    residual, total = np.zeros(truth.shape[1]), np.zeros(truth.shape[1])
    guess = np.where(np.isfinite(truth), guess, np.nan)
    for c in np.unique(cell):
        t, g = truth[cell == c], guess[cell == c]
        if len(t) < 3:
            continue
        count = np.maximum(np.isfinite(t).sum(0), 1)
        t, g = t - np.nansum(t, 0) / count, g - np.nansum(g, 0) / count
        residual += np.nansum((t - g) ** 2, 0)
        total += np.nansum(t**2, 0)
    error = np.abs(guess / truth - 1)
    seen = np.maximum(np.isfinite(error).sum(0), 1)
    r2 = np.where(total > 0, 1 - residual / np.where(total > 0, total, 1.0), np.nan)
    return r2, 100 * np.nansum(error, 0) / seen


def noisy(targets: Sequence[str], r2: np.ndarray, mre: np.ndarray) -> list[str]:
    """Targets that are noise to a law: R2 between mixtures not above 0, or errors far above others.

    `r2` and `mre` (T,) are of rows held out.
    """
    apart = (np.asarray(r2) <= 0) | (np.asarray(mre) > APART * np.median(mre))
    return [target for target, bad in zip(targets, apart, strict=True) if bad]


def held_rows(
    design: Design, held: Sequence[tuple[Split, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Losses, predictions (rows, T) and cells (rows,) of all rows held out."""
    cell = cells(design)
    return (
        np.concatenate([design.losses[part.test] for part, _ in held]),
        np.concatenate([p for _, p in held]),
        np.concatenate([cell[part.test] for part, _ in held]),
    )


def noise_floor(design: Design) -> float:
    """Mean relative error (%) of a perfect law, from runs repeated with another seed; else NaN."""
    key = np.c_[run_ids(design), np.nan_to_num(design.n_tokens, nan=-1.0)]
    group = np.unique(key, axis=0, return_inverse=True)[1].ravel()
    spread = []
    for g in np.unique(group):
        some = design.losses[group == g]
        if len(some) > 1:
            sd = np.nanstd(some, axis=0, ddof=1) / np.nanmean(some, axis=0)
            spread.append(np.nanmean(sd))
    # The mean absolute value of a normal error is sqrt(2 / pi) of its standard deviation.
    return 100 * float(np.sqrt(2 / np.pi) * np.mean(spread)) if spread else float("nan")
