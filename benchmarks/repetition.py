"""Muennighoff et al.'s law of repeated data, all constants fitted: peer of the repetition table.

    L = E + A N'^-alpha + B D'^-beta
    D' = U + U r* (1 - exp(-R / r*)),  R = D / U - 1       U: tokens before repeats
    N' = V + V s* (1 - exp(-S / s*)),  S = N / V - 1       V: the parameters that suit U tokens

(arXiv 2305.16264, equations 5 and 6.) V = min(N, G (U G)^(beta / alpha)), G^(alpha + beta) =
alpha A / (beta B), is the compute-optimal size for U tokens under the law's own exponents.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

# Middles and widths of log E, log A, log alpha, log B, log beta, log r*, log s*: A and B are the
# terms amid the table, exponents and half-lives the paper's.
PAPER_POWER, PAPER_REPEATS, PAPER_EXCESS = 0.353, 15.39, 5.31
WIDTHS = np.array([0.5, 1.0, 0.4, 1.0, 0.4, 1.0, 1.0])
SHARES = np.log([0.5, 0.25, PAPER_POWER, 0.25, PAPER_POWER, PAPER_REPEATS, PAPER_EXCESS])
# Errors beyond this multiple of their noise count as their size, not its square.
BEND = 3.0
FIRST_NOISE, LEAST_NOISE = 0.05, 0.005
ROUNDS, STARTS = 4, 6
# Half of the central 90 % of a normal distribution.
HALF_WIDTH = 1.645


@dataclass(frozen=True)
class RepeatedLaw:
    """A fit: `theta` (7,) in logs, N and D over their middles, noise of log loss."""

    theta: np.ndarray
    middle: tuple[float, float]
    noise: float
    excess: bool

    def predict(self, n: np.ndarray, d: np.ndarray, unique: np.ndarray) -> np.ndarray:
        """Losses (R,) of models of `n` parameters after `d` tokens, `unique` of them different."""
        return np.exp(_log_loss(self.theta, n, d, unique, self.middle, self.excess))

    def ends(self, guess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Low and high losses that hold 90 % of new runs, by the residuals alone."""
        wide = HALF_WIDTH * self.noise
        return guess * np.exp(-wide), guess * np.exp(wide)

    @property
    def repeats(self) -> float:
        """r*: so many repeats are worth as much as fresh text."""
        return float(np.exp(self.theta[5]))


def effective(used: np.ndarray, base: np.ndarray, worth: float) -> np.ndarray:
    """`base + base r (1 - exp(-R / r))`, R = used / base - 1 and not below 0; `used` below base."""
    again = np.maximum(used / base - 1, 0.0)
    return np.minimum(used, base) - base * worth * np.expm1(-again / worth)


def fit_repeated(
    n: np.ndarray, d: np.ndarray, unique: np.ndarray, loss: np.ndarray, *, excess: bool = False
) -> RepeatedLaw:
    """Fit the law to runs (R,); with `excess`, parameters that exceed what the data suit decay too.

    MAP with Huber's loss on log residuals; the noise is learnt between rounds.
    """
    middle = (float(np.exp(np.log(n).mean())), float(np.exp(np.log(unique).mean())))
    prior = SHARES.copy()
    prior[[0, 1, 3]] += np.log(loss.min())
    target, noise = np.log(loss), FIRST_NOISE
    rng = np.random.default_rng(0)
    starts = prior + 0.7 * WIDTHS * np.vstack([np.zeros(7), rng.normal(size=(STARTS - 1, 7))])

    def residuals(theta: np.ndarray) -> np.ndarray:
        error = (_log_loss(theta, n, d, unique, middle, excess) - target) / noise
        size = np.abs(error)
        bent = np.sqrt(BEND * np.maximum(2 * size - BEND, 0.0))
        huber = np.sign(error) * np.where(size > BEND, bent, size)
        return np.r_[huber, (theta - prior) / WIDTHS]

    for _ in range(ROUNDS):
        ends = [least_squares(residuals, start, max_nfev=200) for start in starts]
        best = min(ends, key=lambda end: end.cost).x
        off = np.abs(_log_loss(best, n, d, unique, middle, excess) - target)
        noise = max(1.4826 * float(np.median(off)), LEAST_NOISE)
        starts = best[None]
    return RepeatedLaw(best, middle, noise, excess)


def _log_loss(
    theta: np.ndarray,
    n: np.ndarray,
    d: np.ndarray,
    unique: np.ndarray,
    middle: tuple[float, float],
    excess: bool,
) -> np.ndarray:
    floor, size, alpha, data, beta, repeats, spare = np.exp(np.clip(theta, -30.0, 30.0))
    x, u, seen = n / middle[0], unique / middle[1], d / middle[1]
    tokens = effective(seen, np.minimum(u, seen), repeats)
    if excess:
        ratio = (alpha * size / (beta * data)) ** (1 / (alpha + beta))
        suits = np.exp(np.clip(np.log(ratio) + beta / alpha * np.log(u * ratio), -50.0, 50.0))
        x = effective(x, np.minimum(x, suits), spare)
    return np.log(floor + size * x**-alpha + data * tokens**-beta)
