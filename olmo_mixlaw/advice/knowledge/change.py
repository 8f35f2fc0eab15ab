"""Jump or steep curve? Evidence for a change point against smooth alternatives.

Each family is a shape over x with a few shape parameters, whose heights are free. For one shape
the marginal likelihood is known in closed form (a g-prior on heights, noise unknown); it is
averaged over a grid of the shape parameters, so that a family pays for each. A jump rises between
two neighbouring points: what is steeper than the points are apart can't be told from it, and smooth
curves take at least that gap from 10 % to 90 %. The best sharp family is set against the best
smooth one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import stats

# 10-90 % rises in units of the scale: 2 ln 9 of a logistic, ln(ln .1 / ln .9) of a Gompertz curve.
_LOGISTIC, _GOMPERTZ = 2 * np.log(9.0), float(np.log(np.log(0.1) / np.log(0.9)))
_PLACES, _WIDTHS = 41, 14
# Quantiles of a chi-square of one degree of freedom, over which the prior's width is averaged.
_CHI_SQUARES = stats.chi2.ppf((np.arange(10) + 0.5) / 10, 1)
# Part of the largest value that no measurement is better than: 1 point of recall.
FLOOR = 0.01
# Sharp is called where its evidence is so many times that of any smooth curve: on made-up smooth
# curves this leaves about 1 % false alarms (`python benchmarks/knowledge.py alarms`).
DECISIVE = 10.0
# Anything at all is called where it beats a flat line by so much.
VISIBLE = 20.0
LEAST_POINTS = 6


@dataclass(frozen=True)
class Change:
    """What happens along x: `kind` is jump, threshold, smooth, gradual or flat.

    `at` is the change point with its 90 % interval (of a smooth curve, its middle); `log_evidence`
    is that of the best sharp family over the best smooth one; `width` the 10-90 % rise in x (for a
    jump an upper bound, the gap between its neighbours); `curve` the fitted line.
    """

    kind: str
    at: float
    low: float
    high: float
    log_evidence: float
    families: dict[str, float]
    width: float
    rise: float
    x: np.ndarray
    curve: np.ndarray

    @property
    def sharp(self) -> bool:
        return self.kind in ("jump", "threshold")


def find_change(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> Change:
    """Judge the values `y` (R,) along `x` (R,), an axis on which even steps mean even factors.

    Needs two different x at least (`LEAST_POINTS` for a jump or threshold to be called).
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    points = np.unique(x)
    scale = max(float(np.abs(y).max()), 1e-12)
    scores = {}
    for name, family in _families(tuple(points)).items():
        scores[name] = _evidence(family, points, x, y, FLOOR * scale)
    totals = {name: float(_mean_exp(score)) for name, score in scores.items()}
    sharp = max(_SHARP, key=lambda name: totals.get(name, -np.inf))
    smooth = max((n for n in totals if n not in _SHARP), key=lambda name: totals[name])
    gain = totals[sharp] - totals[smooth] if sharp in totals else -np.inf
    kind, name = _verdict(totals, sharp, smooth, gain, len(points))
    family = _families(tuple(points))[name]
    weight = np.exp(scores[name] - scores[name].max())
    best = int(np.argmax(scores[name]))
    at, low, high = _interval(family.at, family.span, weight)
    columns = _at_points(family, best, points, x)
    heights = np.linalg.lstsq(columns, y, rcond=None)[0]
    fine = np.linspace(x[0], x[-1], 400)
    curve = family.drawn(best, fine) @ heights
    width = float(family.width[best])
    if kind == "jump":
        after = int(np.searchsorted(points, at))
        width = float(points[min(after, len(points) - 1)] - points[max(after - 1, 0)])
    return Change(
        kind, at, low, high, gain, totals, width, float(curve[-1] - curve[0]), fine, curve
    )


@dataclass(frozen=True)
class _Family:
    """Shapes over the points: `columns` (G, P, p); place `at` (G,), its `span` and `width`."""

    name: str
    columns: np.ndarray
    at: np.ndarray
    span: np.ndarray
    width: np.ndarray

    def drawn(self, best: int, x: np.ndarray) -> np.ndarray:
        """The shape `best` at any x (R,), with a constant: (R, 1 + p)."""
        shape = _shape(self.name, x, self.at[best], self.width[best])
        return np.column_stack([np.ones(len(x)), shape])


_SHARP = ("step", "step and slope", "kink", "kink to a level")


def _shape(name: str, x: np.ndarray, at: float, width: float) -> np.ndarray:
    """The columns (R, p) of one shape."""
    if name == "straight":
        return x[:, None]
    if name == "parabola":
        return np.column_stack([x, x**2])
    if name == "step":
        return (x > at).astype(float)[:, None]
    if name == "step and slope":
        return np.column_stack([x > at, np.maximum(x - at, 0)]).astype(float)
    if name == "kink":
        return np.maximum(x - at, 0)[:, None]
    if name == "kink to a level":
        return np.minimum(x - at, 0)[:, None]
    z = (x - at) / (width / _LOGISTIC)
    if name == "logistic":
        return (0.5 * (1 + np.tanh(z / 2)))[:, None]
    if name == "bend up":
        return np.logaddexp(0, z)[:, None]
    if name == "bend to a level":
        return -np.logaddexp(0, -z)[:, None]
    z = np.clip((x - at) / (width / _GOMPERTZ), -30, 30)
    if name == "slow start":
        return (-np.expm1(-np.exp(z)))[:, None]
    return np.exp(-np.exp(-z))[:, None]  # "slow end"


@lru_cache(maxsize=64)
def _families(points: tuple[float, ...]) -> dict[str, _Family]:
    """Every family over these points, its shape parameters on a grid."""
    x = np.array(points)
    gaps = np.diff(x)
    reach = x[-1] - x[0]
    zero = np.zeros(1)
    found = {"straight": (zero, zero, zero), "parabola": (zero, zero, zero)}
    inner = (x[1:] + x[:-1]) / 2
    found["step"] = (inner, gaps, zero + 0 * inner)
    if len(x) >= 4:
        early = inner[:-1]
        found["step and slope"] = (early, gaps[:-1], 0 * early)
        places = np.linspace(x[0], x[-1], _PLACES + 2)[1:-1]
        span = np.full(_PLACES, reach / _PLACES)
        found["kink"] = found["kink to a level"] = (places, span, 0 * places)
        # The least width of a smooth curve is the gap that its middle lies in.
        least = gaps[np.searchsorted(x, places, side="right") - 1]
        grid = np.tile(places, _WIDTHS)
        wide = np.concatenate([w * least for w in _multiples(reach, gaps)])
        for name in ("logistic", "bend up", "bend to a level", "slow start", "slow end"):
            found[name] = (grid, np.full(len(grid), reach / _PLACES), wide)
    families = {}
    for name, (at, span, width) in found.items():
        columns = np.stack([_shape(name, x, a, w) for a, w in zip(at, width, strict=True)])
        families[name] = _Family(name, columns, at, span, width)
    return families


def _multiples(reach: float, gaps: np.ndarray) -> np.ndarray:
    """Widths (W,) of smooth curves in gaps, up to about twice the whole range."""
    return np.geomspace(1.0, max(2.0 * reach / float(np.median(gaps)), 2.0), _WIDTHS)


def _at_points(family: _Family, best: int, points: np.ndarray, x: np.ndarray) -> np.ndarray:
    shape = family.columns[best][np.searchsorted(points, x)]
    return np.column_stack([np.ones(len(x)), shape])


def _evidence(
    family: _Family, points: np.ndarray, x: np.ndarray, y: np.ndarray, floor: float
) -> np.ndarray:
    """log marginal likelihood (G,) of each shape over that of a flat line.

    (1 + g)^((R - 1 - p) / 2) (1 + g (1 - R2))^(-(R - 1) / 2), averaged over g = R / chi2
    (Zellner and Siow's prior: a near-perfect fit counts as one); R2 counts a least noise.
    """
    n = len(y)
    columns = family.columns[:, np.searchsorted(points, x)]
    columns = columns - columns.mean(1, keepdims=True)
    centred = y - y.mean()
    gram = np.einsum("grp,grq->gpq", columns, columns)
    size = np.trace(gram, axis1=1, axis2=2)[:, None, None]
    gram += (1e-12 * size + 1e-300) * np.eye(gram.shape[1])  # two columns may be one
    against = np.einsum("grp,r->gp", columns, centred)
    explained = np.einsum("gp,gp->g", against, np.linalg.solve(gram, against[..., None])[..., 0])
    total = centred @ centred
    least = n * floor**2
    rest = (np.clip(total - explained, 0, None) + least) / (total + least)
    p = columns.shape[2]
    g = (n / _CHI_SQUARES)[:, None]
    score = (n - 1 - p) / 2 * np.log1p(g) - (n - 1) / 2 * np.log1p(g * rest)
    top = score.max(0)
    return top + np.log(np.exp(score - top).mean(0))


def _mean_exp(score: np.ndarray) -> float:
    top = score.max()
    return float(top + np.log(np.exp(score - top).mean()))


def _verdict(
    totals: dict[str, float], sharp: str, smooth: str, gain: float, points: int
) -> tuple[str, str]:
    """The kind and the family that is drawn."""
    best = max(totals.values())
    if best < np.log(VISIBLE):
        return "flat", smooth
    if gain >= np.log(DECISIVE) and points >= LEAST_POINTS:
        return ("jump" if sharp.startswith("step") else "threshold"), sharp
    return ("gradual" if smooth in ("straight", "parabola") else "smooth"), smooth


def _interval(at: np.ndarray, span: np.ndarray, weight: np.ndarray) -> tuple[float, float, float]:
    """Best place and the 90 % interval of places weighted so, each spread over its span."""
    order = np.argsort(at, kind="stable")
    place, wide, w = at[order], span[order], weight[order] / weight.sum()
    total = np.cumsum(w)
    first = int(np.searchsorted(total, 0.05))
    last = min(int(np.searchsorted(total, 0.95)), len(place) - 1)
    low = place[first] - wide[first] / 2
    high = place[last] + wide[last] / 2
    return float(at[int(np.argmax(weight))]), float(low), float(high)
