"""Mixtures drawn within limits: Dirichlet about the prior, or spread evenly (scrambled Sobol).

Candidates come in one stream a seed, a block at a time, and are taken in order unless one lies too
near to what was taken before. So a swarm of 64 is the beginning of one of 128, and one that grows
keeps what it has.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist
from scipy.stats import qmc

from olmo_mixlaw.errors import ConfigError, unknown_name
from olmo_mixlaw.swarm.limits import Limits
from olmo_mixlaw.swarm.placing import within

# The strengths and the least ratio of Olmix (its SwarmConfig and ConfigDefaults); RegMix has the
# same strengths, a temperature of .5 and 2e-4 (its synthesize_mixture.py, arXiv 2407.01492).
MIN_STRENGTH, MAX_STRENGTH = 0.1, 5.0
LEAST_RATIO = 0.002
STRENGTHS = (1e-6, 1e9)  # that mean anything: one source a mixture, and all mixtures the prior
# Mixtures nearer than this, as half the sum of absolute differences, tell a fit the same.
APART = 0.01
# Candidates made at once; Sobol points are balanced in powers of 2.
BLOCK = 512
# Candidates looked at for each mixture asked for, before a swarm is given up.
MOST_CANDIDATES = 64
# Of a source that the floors take whole, the part of its share that still counts as free.
FREE_PART = 0.1
# The weight of a source that the limits leave no choice.
NEXT_TO_NOTHING = 1e-12
MOST_UNITS = qmc.Sobol.MAXDIM


@dataclass(frozen=True)
class Draw:
    """How a swarm is drawn; strengths are of the Dirichlet, log-uniform between the two.

    At strength s the prior counts as s observations: a small one gives mixtures of few sources.
    """

    method: str = "dirichlet"
    seed: int = 0
    min_strength: float = MIN_STRENGTH
    max_strength: float = MAX_STRENGTH
    temperature: float = 1.0
    apart: float = APART

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise unknown_name("method", self.method, METHODS)
        low, high = STRENGTHS
        if not low <= self.min_strength <= self.max_strength <= high:
            raise ConfigError(
                f"strengths {self.min_strength:g} to {self.max_strength:g}: expected {low:g} <= "
                f"min-strength <= max-strength <= {high:g}"
            )
        if not 0 < self.temperature < math.inf:
            raise ConfigError(f"temperature: {self.temperature:g}; it must be above 0 and finite")
        if not 0 <= self.apart < 1:
            raise ConfigError(f"apart: {self.apart:g}; expected 0 or more, and below 1")


def draw(
    n: int, prior: np.ndarray, limits: Limits, how: Draw, begun: np.ndarray | None = None
) -> np.ndarray:
    """`n` mixtures (n, F) about `prior` (F,) that meet `limits`; `begun` (B, F) come first.

    Raises `ConfigError` where too few are so far `apart`, or `begun` has more than `n`.
    """
    units = len(prior)
    begun = np.zeros((0, units)) if begun is None else np.asarray(begun, float)
    if n < 1 or len(begun) > n:
        raise ConfigError(f"{n} mixtures: expected {max(1, len(begun))} or more")
    if units > MOST_UNITS:
        raise ConfigError(f"{units} sources: at most {MOST_UNITS} can be drawn")
    taken, looked_at = [begun], 0
    found = len(begun)
    for shares, odds in METHODS[how.method](prior, limits, how):
        candidates = within(limits, shares, odds)
        far = _far(candidates, np.concatenate(taken), how.apart)
        taken.append(candidates[far][: n - found])
        found += len(taken[-1])
        looked_at += len(candidates)
        if found >= n:
            break
        if looked_at >= MOST_CANDIDATES * max(n, BLOCK):
            raise ConfigError(
                f"only {found} of {n} mixtures lie {how.apart:g} or more apart, in {looked_at:,} "
                "draws; set apart lower, or the strengths or limits wider"
            )
    return np.concatenate(taken)


def _far(candidates: np.ndarray, taken: np.ndarray, apart: float) -> np.ndarray:
    """Which candidates (C,), in their order, are `apart` from those taken and from each other.

    The distance is total variation, half the sum of absolute differences. At 0 only equal ones
    are too near.
    """
    reach = 2 * apart
    keep = np.ones(len(candidates), bool)
    if len(taken):
        # Strictly nearer than `reach`; equal mixtures are at distance 0.
        bound = max(reach, np.finfo(float).tiny)
        nearest = cKDTree(taken).query(candidates, p=1, distance_upper_bound=bound)[0]
        keep &= ~(nearest < bound)
    near = cdist(candidates, candidates, "cityblock")
    near = near < reach if reach > 0 else near == 0
    for i in np.flatnonzero(keep):
        if keep[i]:
            keep[i + 1 :] &= ~near[i, i + 1 :]
    return keep


Block = tuple[np.ndarray, np.ndarray]


def _dirichlet(prior: np.ndarray, limits: Limits, how: Draw) -> Iterator[Block]:
    """log shares and log odds (BLOCK, F) of Dirichlet draws about the prior within the limits.

    A small strength makes shares too small for a float, but not their logarithms: log Gamma(a) is
    log Gamma(a + 1) + log(U) / a.
    """
    centre = _centre(_tempered(prior, how.temperature), limits)
    ends = math.log(how.min_strength), math.log(how.max_strength)
    for number in range(2**32):
        rng = np.random.default_rng([how.seed, number])
        strength = np.exp(rng.uniform(*ends, (BLOCK, 1)))
        alpha = strength * centre
        log_gamma = np.log(rng.standard_gamma(alpha + 1.0))
        log_gamma += np.log1p(-rng.random(alpha.shape)) / alpha
        yield _shares_and_odds(log_gamma, limits)


def _tempered(prior: np.ndarray, temperature: float) -> np.ndarray:
    """The prior (F,) to the power `temperature`, no source of it quite 0."""
    power = np.exp(temperature * np.log(prior / prior.max()))
    power = np.maximum(power, NEXT_TO_NOTHING)
    return power / power.sum()


def _centre(prior: np.ndarray, limits: Limits) -> np.ndarray:
    """The prior (F,) of what lies above the floors; it keeps a source that is all floor moving."""
    placed = within(limits, *_shares_and_odds(np.log(prior)[None], limits))[0]
    if limits.least_ratio > 0:  # a source below it in the prior is drawn all the same
        placed = np.where((placed == 0) & (limits.high > 0), prior, placed)
    above = np.maximum(placed - limits.low, FREE_PART * placed)
    above = np.where(limits.high > limits.low, above, NEXT_TO_NOTHING)
    return above / above.sum()


def _shares_and_odds(log_weights: np.ndarray, limits: Limits) -> Block:
    """Weights (R, F) as log shares, and as log odds between the bounds that a share would have."""
    top = log_weights.max(1, keepdims=True)
    total = top + np.log(np.exp(log_weights - top).sum(1, keepdims=True))
    shares = log_weights - total
    with np.errstate(divide="ignore"):
        rest = np.log(-np.expm1(np.minimum(shares, 0.0)))
    return shares, shares - rest - _log_width(limits)


def _log_width(limits: Limits) -> np.ndarray:
    """log of the widths (F,) between bounds, as parts of what the floors leave."""
    left = max(1 - limits.low.sum(), np.finfo(float).tiny)
    return np.log(np.clip((limits.high - limits.low) / left, np.finfo(float).tiny, 1.0))


def _sobol(prior: np.ndarray, limits: Limits, how: Draw) -> Iterator[Block]:
    """log shares and log odds (BLOCK, F) of points spread evenly over the simplex.

    Sticks are broken: of K pieces, the first takes 1 - (1 - u)^(1 / (K - 1)), so that u in the
    cube is uniform on the simplex. A piece with a ceiling has the same distribution up to there.
    """
    units = len(prior)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        engine = qmc.Sobol(max(units - 1, 1), scramble=True, seed=np.random.default_rng(how.seed))
    pieces = np.arange(units - 1, 0, -1.0)
    width = np.exp(_log_width(limits))
    for _ in range(2**20):
        points = np.clip(engine.random(BLOCK)[:, : units - 1], 2.0**-32, 1 - 2.0**-32)
        log_left = np.log1p(-points) / pieces
        before = np.concatenate([np.zeros((BLOCK, 1)), np.cumsum(log_left, 1)], 1)
        taken = np.concatenate([-np.expm1(log_left), np.ones((BLOCK, 1))], 1)
        shares = np.exp(before) * taken
        if units > 1:
            shares = np.where(width < 1, _cut(shares, width, units - 1), shares)
        inside = np.clip(shares / width, np.finfo(float).tiny, 1.0)
        with np.errstate(divide="ignore"):
            yield np.log(shares), np.log(inside) - np.log1p(-inside)


def _cut(shares: np.ndarray, most: np.ndarray, pieces: int) -> np.ndarray:
    """Shares (R, F), each Beta(1, `pieces`), with the distribution that they have below `most`."""
    with np.errstate(divide="ignore"):
        below = -np.expm1(pieces * np.log1p(-np.minimum(shares, 1.0)))
        whole = -np.expm1(pieces * np.log1p(-most))
    return -np.expm1(np.log1p(-np.minimum(below * whole, 1 - 2.0**-53)) / pieces)


METHODS: dict[str, Callable[[np.ndarray, Limits, Draw], Iterator[Block]]] = {
    "dirichlet": _dirichlet,
    "sobol": _sobol,
}
