"""Regimes: a target whose losses fall into two groups gets a law in each, and trees choose.

    log L = log law_low(h, N, D) or log law_high(h, N, D), by P(high | h, N, D) from boosted trees

Knowledge comes in jumps (arXiv 2505.18091): past a threshold of a ratio a target is learnt, short
of it not, and no smooth formula in between is right. Needs the extra `olmo-mixlaw[lightgbm]`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.laws.formulas.no_mixture import NoMixture
from olmo_mixlaw.laws.law import BasedLaw, Inputs, Row, Scene, Settings
from olmo_mixlaw.laws.learners.kriging import Kriging
from olmo_mixlaw.laws.learners.regmix import booster, leaves, lightgbm_module, tree_columns
from olmo_mixlaw.runs import Design

# Two groups: they explain this part of the variance (one uniform group would explain .75), and
# the empty stretch between them is this part of the whole range.
LEAST_EXPLAINED = 0.8
LEAST_GAP = 0.1
# Each group has at least this part of the rows, and this many.
LEAST_PART = 0.1
LEAST_ROWS = 10
ROUNDS = 300
GATE = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 4,
    "min_data_in_leaf": 3,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "verbosity": -1,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
}


@dataclass(frozen=True)
class Regimes(BasedLaw):
    """Two fits of `base` and a classifier for every target whose losses fall into two groups.

    The other targets are as under `base` alone. A table without such a target is refused: `base`
    is then the law to fit.
    """

    name = "regimes"
    formula = "law_low or law_high of the base law, by boosted trees"
    source = "thresholds of knowledge, arXiv 2505.18091"
    has_gradient: ClassVar[bool] = True
    steps: ClassVar[bool] = True
    base: str = Kriging.name

    def fit(self, design: Design, *, seed: int, settings: Settings) -> Fit:
        """Raises `FitError` where no target's losses fall into two groups."""
        lightgbm = lightgbm_module(self.name)
        cut, high = find_cuts(design, seed=seed)
        split = np.flatnonzero(np.isfinite(cut))
        if not len(split):
            raise FitError(
                f"{self.name}: no target's losses fall into two groups; fit {self.base!r} instead"
            )
        below = replace(design, losses=np.where(high, np.nan, design.losses))
        low = self.below().fit(below, seed=seed, settings=settings)
        above = replace(
            design,
            targets=[design.targets[t] for t in split],
            losses=np.where(high, design.losses, np.nan)[:, split],
        )
        top = self.below().fit(above, seed=seed, settings=settings)
        inputs = low.scene.inputs(design.ratios, design.n_params, design.n_tokens)
        x = tree_columns(inputs, low.scene)
        gates = []
        for t in split:
            rows = np.isfinite(design.losses[:, t])
            data = lightgbm.Dataset(x[rows], high[rows, t].astype(int))
            model = lightgbm.train({**GATE, "seed": seed}, data, num_boost_round=ROUNDS)
            gates.append(model.model_to_string())
        return Fit.learnt(
            self,
            design,
            state={"low": low, "high": top, "gates": gates, "split": split},
            noise=low.noise,
            seed=seed,
            settings=settings,
        )

    def parts(self, fit: Fit) -> list[Fit]:
        return [fit.state["low"], fit.state["high"]]

    def rows(self, fit: Fit) -> list[Row]:
        """Those of both groups' laws."""
        named = zip(("low", "high"), self.parts(fit), strict=True)
        return [
            (row[0], f"{group}: {row[1]}", *row[2:])
            for group, part in named
            for row in part.law.rows(part)
        ]

    def count(self, fit: Fit) -> int:
        """Those of both groups' fits, and the leaves of the trees that choose."""
        both = sum(part.n_parameters for part in self.parts(fit))
        return both + leaves(fit.state["gates"])

    def probability(self, fit: Fit, inputs: Inputs) -> np.ndarray:
        """P(high) of the targets with two groups, (R, len(state["split"]))."""
        x = tree_columns(inputs, fit.scene)
        models = [booster(text, self.name) for text in fit.state["gates"]]
        return np.stack([model.predict(x) for model in models], axis=1)

    def predict(self, fit: Fit, inputs: Inputs) -> np.ndarray:
        """The median: the loss of the likelier group."""
        low, high = self.parts(fit)
        result = low.law.predict(low, inputs)
        top = high.law.predict(high, inputs)
        split = fit.state["split"]
        result[:, split] = np.where(self.probability(fit, inputs) > 0.5, top, result[:, split])
        return result

    def gradient(self, fit: Fit, inputs: Inputs) -> np.ndarray:
        """Of the likelier group's law; the jump itself has no slope."""
        low, high = self.parts(fit)
        result = low.law.gradient(low, inputs)
        top = high.law.gradient(high, inputs)
        split = fit.state["split"]
        chosen = (self.probability(fit, inputs) > 0.5)[:, :, None]
        result[:, split] = np.where(chosen, top, result[:, split])
        return result


def find_cuts(design: Design, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Targets whose losses, size and budget accounted for, fall into two groups.

    Returns the cut of each target as a residual of log loss (T,), NaN without two groups, and
    which rows lie above it (R, T).
    """
    residual = np.log(design.losses)
    scene = Scene.of(design)
    if scene.has_n or scene.has_d:
        plain = NoMixture().fit(design, seed=seed, settings=Settings(strict=False))
        residual = residual - np.log(plain.predict(design.ratios, design.n_params, design.n_tokens))
    cut = np.full(residual.shape[1], np.nan)
    high = np.zeros(residual.shape, bool)
    for t in range(residual.shape[1]):
        cut[t] = _cut(residual[np.isfinite(residual[:, t]), t])
        if np.isfinite(cut[t]):
            high[:, t] = residual[:, t] > cut[t]
    return cut, high


def _cut(values: np.ndarray) -> float:
    """Middle of the gap between two groups, or NaN."""
    y = np.sort(values)
    least = max(LEAST_ROWS, int(np.ceil(LEAST_PART * len(y))))
    if len(y) < 2 * least or np.ptp(y) == 0:
        return np.nan
    gaps = np.diff(y)[least - 1 : len(y) - least]
    at = least - 1 + int(gaps.argmax())
    gap, low, high = y[at + 1] - y[at], y[: at + 1], y[at + 1 :]
    within = ((low - low.mean()) ** 2).sum() + ((high - high.mean()) ** 2).sum()
    explained = 1 - within / ((y - y.mean()) ** 2).sum()
    if explained < LEAST_EXPLAINED or gap < LEAST_GAP * np.ptp(y):
        return np.nan
    return float(0.5 * (y[at] + y[at + 1]))
