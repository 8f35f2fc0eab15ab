"""Time to learn: how many tokens until the facts are known, by their ratio.

    log T = a + b / r   or   log T = a - b log r

The first grows without bound as r falls (longer training doesn't help below a threshold), the
second is a power law. Both have two constants, so their evidence is compared by the errors alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from olmo_mixlaw.errors import DataError

FORMS = {"exponential": "log T = a + b / r", "power law": "log T = a - b log r"}
_LEAST = 3
# Evidence of 20 to 1 tells two forms apart; 3 to 1 says little.
DECISIVE = 20.0
# Tokens to a level are read off between two evaluations: 1 % at best.
_LEAST_NOISE = 0.01


@dataclass(frozen=True)
class TimeToLearn:
    """a and b of both forms, their R2, and how much better the better one is (a ratio)."""

    constants: dict[str, tuple[float, float]]
    r2: dict[str, float]
    better: str
    evidence: float
    left_out: int = 0

    @property
    def told_apart(self) -> bool:
        return self.evidence >= DECISIVE

    def tokens(self, ratio: float, form: str = "") -> float:
        """Tokens to the level at this ratio, by the better form or the one named."""
        form = form or self.better
        a, b = self.constants[form]
        return float(np.exp(a + b * float(_column(form, np.array([ratio]))[0])))


def time_to_learn(
    ratios: Sequence[float] | np.ndarray, tokens: Sequence[float] | np.ndarray
) -> TimeToLearn:
    """Fit both forms to the tokens (R,) at which runs of these ratios reached a level.

    Runs that never did have NaN and are left out. Raises `DataError` for fewer than three ratios.
    """
    r, t = np.asarray(ratios, float), np.asarray(tokens, float)
    if not ((r > 0) & (r < 1)).all():
        raise DataError("time to learn: ratios lie between 0 and 1")
    reached = np.isfinite(t) & (t > 0)
    left_out = int((~reached).sum())
    r, y = r[reached], np.log(t[reached])
    if len(np.unique(r)) < _LEAST:
        raise DataError(
            f"time to learn: {len(np.unique(r))} ratios reach the level; add longer runs, or "
            f"larger ratios, to {_LEAST} or more"
        )
    total = ((y - y.mean()) ** 2).sum()
    constants, r2, score = {}, {}, {}
    for form in FORMS:
        design = np.column_stack([np.ones(len(r)), _column(form, r)])
        solution = np.linalg.lstsq(design, y, rcond=None)[0]
        rest = ((y - design @ solution) ** 2).sum()
        constants[form] = (float(solution[0]), float(solution[1]))
        r2[form] = float(1 - rest / total) if total > 0 else np.nan
        score[form] = -len(y) / 2 * np.log(rest / len(y) + _LEAST_NOISE**2)
    best, other = sorted(score, key=lambda form: -score[form])
    return TimeToLearn(
        constants, r2, best, float(np.exp(min(score[best] - score[other], 50.0))), left_out
    )


def _column(form: str, ratio: np.ndarray) -> np.ndarray:
    return 1 / ratio if form == "exponential" else -np.log(ratio)
