"""Bring draws inside the limits of a swarm, moving each as little as that takes.

One shift of all log odds makes a mixture's sum 1. Clipping would put every draw beyond a bound on
it; so only those far beyond come near, in their order.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.swarm.limits import ROUNDING, Group, Limits

# Log odds beyond this are as good as 0 or 1; there only their order counts, and it is kept.
FAR = 40.0
BISECTIONS = 64


def within(limits: Limits, log_share: np.ndarray, log_odds: np.ndarray) -> np.ndarray:
    """Mixtures (R, F) that meet the limits, for draws (R, F).

    A draw is taken as it is where exp(`log_share`), scaled to what the floors leave, meets the
    limits. Else `log_odds` say where each ratio lies between its bounds, and one shift of them
    makes the sum 1. Units below the least ratio are then left out and the rest is placed anew.
    Raises `ConfigError` where leaving out makes that impossible.
    """
    rows = len(log_share)
    low = np.broadcast_to(limits.low, (rows, len(limits.low))).copy()
    high = np.broadcast_to(limits.high, low.shape).copy()
    ratios = _placed(limits.whole, log_share, log_odds, low, high)
    todo = np.arange(rows)
    while limits.least_ratio > 0 and len(todo):
        small = (ratios[todo] < limits.least_ratio) & (high[todo] > 0) & (low[todo] == 0)
        changed = small.any(1)
        todo, small = todo[changed], small[changed]
        if not len(todo):
            break
        high[todo] = np.where(small, 0.0, high[todo])
        _take_back(limits, log_odds, low, high, todo)
        ratios[todo] = _placed(limits.whole, log_share[todo], log_odds[todo], low[todo], high[todo])
    return ratios


def _take_back(
    limits: Limits, log_odds: np.ndarray, low: np.ndarray, high: np.ndarray, rows: np.ndarray
) -> None:
    """Bring back the largest units left out, at the least ratio, while the rest is too few."""
    while len(rows):
        lower, upper = limits.whole.parts_reach(low[rows], high[rows])
        rows = rows[(upper < 1 - ROUNDING) | (lower > 1 + ROUNDING)]
        if not len(rows):
            return
        out = (high[rows] == 0) & (limits.high > 0)
        if not out.any(1).all():
            raise ConfigError(
                f"least ratio {limits.least_ratio:g}: no mixture meets it together with the "
                "ceilings and floors; set it lower"
            )
        back = np.where(out, log_odds[rows], -np.inf).argmax(1)
        low[rows, back], high[rows, back] = limits.least_ratio, limits.high[back]


def _placed(
    whole: Group, log_share: np.ndarray, log_odds: np.ndarray, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """Draws (R, F) inside the bounds (R, F): scaled where that suffices, else shifted."""
    open_share = np.where(high > low, log_share, -np.inf)
    top = open_share.max(1, keepdims=True)
    share = np.exp(open_share - np.where(np.isfinite(top), top, 0.0))
    total = share.sum(1, keepdims=True)
    left = 1 - low.sum(1, keepdims=True)
    ratios = low + left * share / np.where(total > 0, total, 1.0)
    fits = (ratios <= high).all(1) & (total[:, 0] > 0)
    for group in list(whole.all())[1:]:
        inside = ratios[:, list(group.units)].sum(1)
        fits &= (inside >= group.low) & (inside <= group.high)
    rest = ~fits
    if rest.any():
        odds = _tamed(log_odds[rest])
        ratios[rest] = _shifted(whole, np.ones(rest.sum()), odds, low[rest], high[rest])
    return _exact(ratios, low, high)


def _shifted(
    group: Group, total: np.ndarray, odds: np.ndarray, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """Ratios (R, F) of a group's units that sum to `total` (R,), 0 elsewhere: low + width sigma."""
    span = 2 * (np.abs(odds).max(1) + FAR)
    left, right = -span, span
    for _ in range(BISECTIONS):
        shift = 0.5 * (left + right)
        over = _sums(group, odds + shift[:, None], low, high)[0] > total
        left, right = np.where(over, left, shift), np.where(over, shift, right)
    odds = odds + (0.5 * (left + right))[:, None]
    ratios = np.zeros_like(odds)
    loose = group.loose
    ratios[:, loose] = low[:, loose] + (high - low)[:, loose] * expit(odds[:, loose])
    for inner in group.inner:
        share = _bounded_sum(inner, odds, low, high)[0]
        units = list(inner.units)
        ratios[:, units] = _shifted(inner, share, odds, low, high)[:, units]
    return ratios


def _sums(
    group: Group, odds: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What the parts of a group sum to (R,), and how far that is below its greatest (R,)."""
    loose = group.loose
    width = (high - low)[:, loose]
    total = (low[:, loose] + width * expit(odds[:, loose])).sum(1)
    below = (width * expit(-odds[:, loose])).sum(1)
    for inner in group.inner:
        part, gap = _bounded_sum(inner, odds, low, high)
        total, below = total + part, below + gap
    return total, below


def _bounded_sum(
    group: Group, odds: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The same with the group's own bounds: its odds between the sums of its parts' bounds, scaled.

    Where its own bounds say no more than theirs, this is the plain sum.
    """
    total, below = _sums(group, odds, low, high)
    parts_low, parts_high = group.parts_reach(low, high)
    lower, upper = group.reach(low, high)
    above, wide, room = total - parts_low, parts_high - parts_low, upper - lower
    scaled = np.where(room > 0, above * wide / np.where(room > 0, room, 1.0), 0.0)
    share = scaled / np.maximum(scaled + below, np.finfo(float).tiny)
    return lower + room * share, room * (1 - share)


def _tamed(odds: np.ndarray) -> np.ndarray:
    """Log odds whose far ends are drawn in, so that a search over their shifts is short."""
    size = np.minimum(np.abs(odds), np.finfo(float).max)
    return np.where(size > FAR, np.sign(odds) * (FAR + np.log1p(np.maximum(size - FAR, 0))), odds)


def _exact(ratios: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Ratios whose sums are 1 to the last digits: what is missing goes where there is most room."""
    ratios = np.clip(ratios, low, high)
    missing = 1 - ratios.sum(1)
    rows = np.arange(len(ratios))
    place = np.where(missing > 0, (high - ratios).argmax(1), (ratios - low).argmax(1))
    ratios[rows, place] += missing
    return ratios
