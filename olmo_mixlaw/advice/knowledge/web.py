"""What one more parameter gains on the other text: the slope of its loss against size.

    L(N) = C + A (N / N0)^-alpha,    |dL/dN| = alpha A (N / N0)^-alpha / N      nats a token

fitted to runs on that text alone, sizes near the one asked about counting most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from olmo_mixlaw.advice.knowledge.storage import ALONE
from olmo_mixlaw.errors import DataError
from olmo_mixlaw.runs import RunTable
from olmo_mixlaw.runs.table import WEIGHT

REPLICATES = 200
LEAST_SIZES = 3
# Exponents tried, and what is believed of them before any run: the middle of published ones.
_EXPONENTS = np.geomspace(0.05, 1.6, 80)
_USUAL, _SPREAD = 0.3, 0.7
# Sizes this factor away count half.
_NEAR = 16.0
# Noise of a run's loss where runs don't tell: 0.2 % of it, as seeds of small models differ.
_LEAST_NOISE = 0.002
# Slopes further than this factor outside the ladder are the law's word only.
REACH = 3.0


@dataclass(frozen=True)
class WebLoss:
    """C, A and alpha as arrays (B,), the best fit first; sizes are in units of `middle`."""

    floor: np.ndarray
    scale: np.ndarray
    exponent: np.ndarray
    middle: float
    sizes: tuple[float, float] = (0.0, np.inf)
    source: str = ""

    def loss(self, n_params: np.ndarray) -> np.ndarray:
        """Nats a token (B,)."""
        return self.floor + self.scale * (n_params / self.middle) ** -self.exponent

    def slope(self, n_params: np.ndarray) -> np.ndarray:
        """|dL/dN|, nats a token that one more parameter gains (B,)."""
        return self.exponent * self.scale * (n_params / self.middle) ** -self.exponent / n_params

    def reach(self, n_params: float) -> str:
        """A caution where the ladder doesn't reach this size; else nothing."""
        low, high = self.sizes
        if low / REACH <= n_params <= high * REACH:
            return ""
        return (
            f"{n_params:.3g} parameters are far outside the web-only ladder "
            f"({low:.3g} to {high:.3g}): its slope there is extrapolated"
        )


# FineWeb-Edu, sizes in millions of parameters (arXiv 2505.18091, appendix F).
PUBLISHED = WebLoss(
    np.array([1.769]),
    np.array([4.952]),
    np.array([0.283]),
    1e6,
    (14e6, 1.4e9),
    "FineWeb-Edu, arXiv 2505.18091",
)


def fit_web(
    n_params: Sequence[float] | np.ndarray,
    losses: Sequence[float] | np.ndarray,
    near: float | None = None,
    seed: int = 0,
) -> WebLoss:
    """Fit the loss of web-only runs (R,) of several sizes, with a parametric bootstrap.

    `near` is the size whose slope is wanted. Raises `DataError` for fewer than three sizes and for
    a loss that doesn't fall.
    """
    n, y = np.asarray(n_params, float), np.asarray(losses, float)
    sizes = np.unique(n)
    if len(sizes) < LEAST_SIZES:
        raise DataError(
            f"web-only ladder: {len(sizes)} sizes tell no slope; add runs on the web alone, to "
            f"{LEAST_SIZES} sizes or more around the one asked about"
        )
    if y[n == sizes[-1]].mean() >= y[n == sizes[0]].mean():
        raise DataError(
            "web-only ladder: the loss doesn't fall from the smallest size to the largest; add "
            "larger sizes, or train longer"
        )
    middle = float(np.exp(np.log(n).mean()))
    x = n / middle
    far = np.log(x) - np.log((near or middle) / middle)
    weight = 1 / (1 + (far / np.log(_NEAR)) ** 2)
    noise = _LEAST_NOISE * y.mean()
    best = _fitted(x, y, weight, noise)
    spread = y - (best[0] + best[1] * x ** -best[2])
    free = max(len(y) - 3, 1)
    noise = max(noise, float(np.sqrt((spread**2).sum() / free)))
    best = _fitted(x, y, weight, noise)
    rng = np.random.default_rng(seed)
    drawn = best[0] + best[1] * x ** -best[2]
    found = [best] + [
        _fitted(x, drawn + noise * rng.normal(size=len(y)), weight, noise)
        for _ in range(REPLICATES)
    ]
    floor, scale, exponent = np.array(found).T
    source = f"{len(y)} web-only runs of {len(sizes)} sizes"
    return WebLoss(floor, scale, exponent, middle, (sizes[0], sizes[-1]), source)


def web_of(table: RunTable, domain: str, near: float | None = None, seed: int = 0) -> WebLoss:
    """`fit_web` on those runs of a table that saw `domain` alone, at their largest budget.

    Raises `DataError`.
    """
    runs = table.losses
    if WEIGHT + domain not in runs:
        raise DataError(
            f"{table.source}: no domain {domain!r} (it has: {', '.join(table.domains)})"
        )
    alone = runs[(runs[WEIGHT + domain] >= ALONE) & (runs["domain"] == domain)]
    budgets = alone.groupby("n_tokens")["n_params"].nunique()
    good = budgets[budgets >= LEAST_SIZES]
    if len(good):
        alone = alone[alone["n_tokens"] == good.index.max()]
    return fit_web(alone["n_params"].to_numpy(float), alone["loss"].to_numpy(float), near, seed)


def _fitted(
    x: np.ndarray, y: np.ndarray, weight: np.ndarray, noise: float
) -> tuple[float, float, float]:
    """C, A, alpha of least squared error over a grid of alpha, C and A not negative."""
    power = x ** -_EXPONENTS[:, None]  # (G, R)
    total = weight.sum()
    mean_p, mean_y = (power * weight).sum(1) / total, (y * weight).sum() / total
    centred = power - mean_p[:, None]
    scale = (centred * weight * (y - mean_y)).sum(1) / (centred**2 * weight).sum(1)
    floor = mean_y - scale * mean_p
    low = floor < 0
    scale = np.where(low, (power * weight * y).sum(1) / (power**2 * weight).sum(1), scale)
    floor = np.where(low, 0.0, floor)
    error = (weight * (y - floor[:, None] - scale[:, None] * power) ** 2).sum(1) / noise**2
    error += (np.log(_EXPONENTS / _USUAL) / _SPREAD) ** 2 + 1e12 * (scale <= 0)
    best = int(np.argmin(error))
    return float(floor[best]), float(scale[best]), float(_EXPONENTS[best])
