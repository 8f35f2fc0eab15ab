"""What else would teach the facts: fewer of them, or each in fewer tokens.

Subsampling shows a share rho of the facts 1 / rho times as often; compact mixing adds tau tokens of
bare tuples for each token of sentences (arXiv 2505.18091, section 6).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from olmo_mixlaw.advice.knowledge.outlook import Outlook

_SHARES = np.r_[np.geomspace(0.01, 0.2, 14)[:-1], np.arange(0.2, 1.001, 0.02)]
_TAUS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0)
# Mixing was measured up to here; beyond, facts may be known in tuples and not in sentences.
MOST_TAU = 0.3
# A share must beat the whole set by this much to be worth leaving facts out.
_WORTH = 0.02


@dataclass(frozen=True)
class Subsampling:
    """The best share of the facts: `known` is of the full set, `whole` what all of them would."""

    rho: float
    known: float
    whole: float
    shares: np.ndarray
    curve: np.ndarray

    @property
    def helps(self) -> bool:
        return self.known > self.whole + _WORTH


@dataclass(frozen=True)
class Mixing:
    """The least tau that reaches the probability, or the best tried; `rows` are (tau, P)."""

    tau: float
    probability: float
    reached: bool
    rows: list[tuple[float, float]]


def subsampling(outlook: Outlook, ratio: float) -> Subsampling:
    """The share of the facts with the most known of the full set, on average."""
    curve = np.array(
        [
            rho * replace(outlook, facts=outlook.facts.subsampled(float(rho))).expected(ratio)
            for rho in _SHARES
        ]
    )
    best = int(np.argmax(curve))
    return Subsampling(
        float(_SHARES[best]), float(curve[best]), float(curve[-1]), _SHARES.copy(), curve
    )


def mixing(outlook: Outlook, ratio: float, accuracy: float, probability: float) -> Mixing:
    """The least share of tuples that teaches this part with this probability."""
    rows = [
        (tau, replace(outlook, facts=outlook.facts.compacted(tau)).probability(ratio, accuracy))
        for tau in _TAUS
    ]
    for tau, p in rows:
        if p >= probability:
            return Mixing(tau, p, True, rows)
    tau, p = max(rows, key=lambda row: row[1])
    return Mixing(tau, p, False, rows)
