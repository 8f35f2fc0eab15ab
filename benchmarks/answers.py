"""How a table is answered: the one procedure of all figures and of all query files.

`fitted_for` is the only place where a law is fitted; nothing here knows which table it has.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws.choice.uncertainty import predicted_interval
from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.laws.fitting import Settings, fit
from olmo_mixlaw.runs import WEIGHT, Design

LOOSE = Settings(strict=False)
# Of held-out losses, how many lie in the intervals that should hold this part of them?
LEVEL = 0.9
# Beyond this multiple of its one size, a table of one size is asked about another.
OTHER_SIZE = 1.05
# Such a table says nothing of others: the part of its least loss that size and data take off, and
# the exponents, are the middles of the priors.
SIZE_PART, SIZE_POWER, DATA_PART, DATA_POWER = 0.3, 0.22, 0.15, 0.3


def fitted_for(
    design: Design, law: str = "stack", *, level: bool = True, has_embeddings: bool = True
) -> Fit:
    """The fit that answers for a table; without `level` it is the law alone beyond the table too.

    `has_embeddings` is whether N counts them.
    """
    vocabulary = 0.0 if has_embeddings else None
    return fit(law, design, settings=LOOSE, level=level, vocabulary=vocabulary)


@dataclass(frozen=True)
class Answer:
    """A fit and the table that it was fitted to, for rows within and beyond it.

    Where no level can be said the law alone answers, and where that has one size the prior.
    """

    design: Design
    fit: Fit

    def losses(self, ratios: np.ndarray, n: np.ndarray, d: np.ndarray) -> np.ndarray:
        """Losses (R, T). Raises `FitError` for a budget that the table can't speak of."""
        if self.other_size(n):
            return self._by_the_prior(ratios, n, d)
        found = np.empty((len(ratios), len(self.fit.targets)))
        refused = self._refused(d)
        if refused.any():
            found[refused] = self._alone().losses(ratios[refused], n[refused], d[refused])
        if not refused.all():
            rows = ~refused
            found[rows] = self.fit.predict(ratios[rows], n[rows], d[rows])
        return found

    def ends(
        self, ratios: np.ndarray, n: np.ndarray, d: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Low and high losses (R, T) that hold 90 %; none, or NaN, where the prior alone speaks."""
        if self.other_size(n):
            return None
        found = np.full((2, len(ratios), len(self.fit.targets)), np.nan)
        refused = self._refused(d)
        if refused.any():
            alone = self._alone().ends(ratios[refused], n[refused], d[refused])
            found[:, refused] = np.nan if alone is None else alone
        if not refused.all():
            some = (x[~refused] for x in (ratios, n, d))
            found[:, ~refused] = predicted_interval(self.fit, *some, level=LEVEL)
        return found[0], found[1]

    def other_size(self, n: np.ndarray) -> bool:
        """Whether a table of one size, without a level, is asked about a larger one."""
        scene = self.fit.scene
        largest = OTHER_SIZE * scene.n_range[1]
        beyond = np.nanmax(n, initial=0) > largest
        return bool(self.fit.level is None and not scene.has_n and beyond)

    def _refused(self, d: np.ndarray) -> np.ndarray:
        """The rows (R,) whose budget is too far for a level."""
        level = self.fit.level
        return np.array([level is not None and bool(level.refusal(budget)) for budget in d], bool)

    def _alone(self) -> Answer:
        """The law without its level."""
        return replace(self, fit=replace(self.fit, level=None))

    def _by_the_prior(self, ratios: np.ndarray, n: np.ndarray, d: np.ndarray) -> np.ndarray:
        n0, d0 = (float(np.nanmax(x)) for x in (self.design.n_params, self.design.n_tokens))
        drop = SIZE_PART * (1 - (n / n0) ** -SIZE_POWER) + DATA_PART * (1 - (d / d0) ** -DATA_POWER)
        at_home = d0 if self.fit.scene.has_d else np.nan
        low = np.nanmin(self.design.losses, axis=0)
        return self.fit.predict(ratios, np.nan, at_home) - low * drop[:, None]

    def of_query(self, query: pd.DataFrame) -> np.ndarray:
        """The loss of each row (run, domain) of a query (R,)."""
        ratios, n, d = rows_of(query, self.design.domains)
        unique, back = np.unique(np.c_[ratios, n, d], axis=0, return_inverse=True)
        k = ratios.shape[1]
        losses = self.losses(unique[:, :k], unique[:, k], unique[:, k + 1])
        return losses[back.ravel(), column_of(query["domain"], self.fit.targets)]


def rows_of(query: pd.DataFrame, domains: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ratios (R, K) that sum to 1, N and D (R,) of a query; all 1 where there is one mixture."""
    names = [WEIGHT + d for d in domains]
    missing = [name for name in names if name not in query]
    if missing and len(domains) > 1:
        raise KeyError(f"the query has no column {missing[0]!r}")
    ratios = np.ones((len(query), 1)) if missing else query[names].to_numpy(float)
    n, d = (query[c].to_numpy(float) for c in ("N", "D"))
    return ratios / ratios.sum(1, keepdims=True), n, d


def column_of(names: pd.Series, known: list[str]) -> np.ndarray:
    """The place (R,) of each name among those known. Raises `KeyError` for one that isn't."""
    places = {name: i for i, name in enumerate(known)}
    return np.array([places[name] for name in names.astype(str)], int)


def answer_for(
    design: Design, law: str = "stack", *, level: bool = True, has_embeddings: bool = True
) -> Answer:
    """`fitted_for`, ready to be asked."""
    return Answer(design, fitted_for(design, law, level=level, has_embeddings=has_embeddings))


def repeated_losses(
    design: Design,
    unique: np.ndarray,
    n: np.ndarray,
    d: np.ndarray,
    asked: np.ndarray,
    law: str = "stack",
    *,
    level: bool = True,
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
    """Losses (R, T) and their intervals where one source repeats: what repeats are worth is fitted.

    `unique` and `asked` are tokens before repeats, of the fitted runs and of those asked about.
    """
    fitted = fitted_for(replace(design, available=unique[:, None]), law, level=level)
    fitted, rows = fitted.having(asked[:, None]), (np.ones((len(n), 1)), n, d)
    try:
        return fitted.predict(*rows), predicted_interval(fitted, *rows, level=LEVEL)
    except FitError:  # too far for a level: the law alone
        fitted = replace(fitted, level=None)
        return fitted.predict(*rows), predicted_interval(fitted, *rows, level=LEVEL)
