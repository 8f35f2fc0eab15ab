"""From many starts to one end: screened early, the best two polished, the noise learnt on the way.

Knows problems only, and nothing of the law that they come from.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from olmo_mixlaw.laws.engine.solver import Prior, Problems, Solutions, data_curvature, solve

# The residual noise of log loss that a fit starts from, and the least that it may claim: no
# public table repeats a run to better than .1 %.
FIRST_NOISE = 0.02
LEAST_RESIDUAL = 0.001
SCREENING_STEPS = 10
# Starts are compared on this many rows (or this multiple of the parameters): the rest of a long
# table only sharpens the winner.
SCREENING_ROWS = 150
SCREENING_ROWS_A_PARAMETER = 4


def search(
    problems: Problems, n_starts: int, seed: int, iterations: int
) -> tuple[Problems, Solutions]:
    """The best end of each problem, and the problems with the noise that was learnt."""
    groups, width = problems.prior.mean.shape
    starts = np.concatenate([draw_starts(problems.prior, n_starts, seed, g) for g in range(groups)])
    group = np.repeat(np.arange(groups), n_starts)
    enough = max(SCREENING_ROWS, SCREENING_ROWS_A_PARAMETER * width // problems.run) * problems.run
    sample = problems.first_rows(enough) if problems.log_loss.shape[1] > 1.5 * enough else problems
    first = solve(sample, group, starts, iterations=SCREENING_STEPS)
    keep = min(2, n_starts)
    cost = np.nan_to_num(first.cost, nan=np.inf).reshape(groups, n_starts)
    order = np.argsort(cost, axis=1)[:, :keep]
    chosen = (order + np.arange(groups)[:, None] * n_starts).ravel()
    second = solve(
        sample, group[chosen], first.theta[chosen], iterations=iterations, tolerance=1e-4
    )
    theta = second.best_of(groups).theta
    who = np.arange(groups)
    # The first round only has to be near enough to tell the noise.
    for tolerance in (1e-3, 1e-5):
        problems = replace(problems, noise=learn_noise(problems, theta))
        best = solve(problems, who, theta, iterations=iterations, tolerance=tolerance)
        theta = best.theta
    return problems, best


def draw_starts(prior: Prior, count: int, seed: int, group: int) -> np.ndarray:
    """Starts (count, P) drawn from the prior, narrowed; the first is the prior's own middle."""
    rng = np.random.default_rng([seed, group])
    mean, sd = prior.mean[group], prior.sd[group]
    noise = rng.normal(size=(count, len(mean)))
    noise[0] = 0.0
    return mean + np.minimum(sd, 0.7) * noise


def learn_noise(problems: Problems, theta: np.ndarray) -> np.ndarray:
    """Residual standard deviation a group, with the fit's effective parameters taken off.

    Robust (from the median) so that an outlier doesn't loosen the prior's opponents.
    """
    who = np.arange(len(theta))
    rows = slice(0, problems.log_loss.shape[1])
    seen = np.isfinite(problems.log_loss)
    data = data_curvature(problems, who, theta)
    sd = problems.prior.sd
    precision = np.where(sd > 0, problems.prior.precision, 1e12)
    whole = data + precision[:, :, None] * np.eye(theta.shape[1])
    used = np.trace(np.linalg.solve(whole, data), axis1=1, axis2=2)
    noise = np.empty(len(theta))
    for g in who:
        loss = problems.evaluate(theta[g : g + 1], who[g : g + 1], rows, False)[0][0]
        error = (np.log(loss) - problems.log_loss[g])[seen[g]]
        bend = problems.huber * problems.noise[g]
        clipped = np.clip(error, -bend, bend)
        freedom = max(len(error) - used[g], 0.25 * len(error), 1.0)
        noise[g] = np.sqrt((clipped**2).sum() / freedom)
    return np.maximum(noise, LEAST_RESIDUAL)


def standard_errors(best: Solutions, prior: Prior) -> np.ndarray:
    """Square roots of the diagonal of the inverse normal matrix (Laplace); 0 where fixed."""
    free = prior.sd > 0
    size = best.theta.shape[1]
    matrix = np.where(free[:, :, None] & free[:, None, :], best.curvature, np.eye(size))
    variance = np.diagonal(np.linalg.inv(matrix), axis1=1, axis2=2)
    return np.where(free, np.sqrt(np.maximum(variance, 0.0)), 0.0)


def log_evidence(problems: Problems, best: Solutions) -> float:
    """The log of the losses' probability, parameters integrated out (Laplace), over all problems.

    Up to a constant of the table; MacKay 1992.
    """
    prior, size = problems.prior, best.theta.shape[1]
    free = prior.sd > 0
    matrix = np.where(free[:, :, None] & free[:, None, :], best.curvature, np.eye(size))
    seen = np.isfinite(problems.log_loss)
    count = seen.sum(1) if problems.weight is None else (problems.weight * seen).sum(1)
    determinants = np.log(np.where(free, prior.sd, 1.0)).sum(1) + 0.5 * np.linalg.slogdet(matrix)[1]
    return float(-(best.cost + count * np.log(problems.noise) + determinants).sum())
