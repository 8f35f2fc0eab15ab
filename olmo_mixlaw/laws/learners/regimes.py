"""Regimes: a target whose losses fall into two groups gets a law in each, and trees choose.

    log L = log law_low(h, N, D) or log law_high(h, N, D), by P(high | h, N, D) from boosted trees

Knowledge comes in jumps (arXiv 2505.18091): past a threshold of a ratio a target is learnt, short
of it not, and no smooth formula in between is right. Needs the extra `olmo-mixlaw[lightgbm]`.
"""

from __future__ import annotations

from collections.abc import Iterator
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
        lightgbm_module(self.name)
        plain = _plain(design, seed)
        cut, high = _cuts(_levelled(design, plain))
        split = np.flatnonzero(np.isfinite(cut))
        if not len(split):
            raise FitError(
                f"{self.name}: no target's losses fall into two groups; fit {self.base!r} instead"
            )
        below, above = _parted(design, high, split)
        low = self.below().fit(below, seed=seed, settings=settings)
        top = self.below().fit(above, seed=seed, settings=settings)
        gates = self._gates(low, design, high[:, split], split, np.ones(len(design)), seed)
        state = {"low": low, "high": top, "gates": gates, "split": split, "cut": cut}
        if plain is not None:
            state["plain"] = plain
        return Fit.learnt(self, design, state=state, noise=low.noise, seed=seed, settings=settings)

    def refits(self, fit: Fit, design: Design, counts: np.ndarray) -> Iterator[Fit]:
        """Both groups' laws are refitted and the trees grown anew; what parts the groups stays."""
        split, (low, top) = fit.state["split"], self.parts(fit)
        with np.errstate(invalid="ignore"):
            high = _levelled(design, fit.state.get("plain")) > fit.state["cut"]
        below, above = _parted(design, high, split)
        both = zip(
            counts,
            low.law.refits(low, below, counts),
            top.law.refits(top, above, counts),
            strict=True,
        )
        for count, under, over in both:
            gates = self._gates(under, design, high[:, split], split, count, fit.seed)
            state = {**fit.state, "low": under, "high": over, "gates": gates}
            yield replace(fit, state=state, data_hash=under.data_hash)

    def _gates(
        self,
        low: Fit,
        design: Design,
        high: np.ndarray,
        split: np.ndarray,
        counts: np.ndarray,
        seed: int,
    ) -> list[str]:
        """The trees of each target with two groups; `high` (R, split) says which rows are above."""
        lightgbm = lightgbm_module(self.name)
        inputs = low.scene.inputs(design.ratios, design.n_params, design.n_tokens)
        x, gates = tree_columns(inputs, low.scene), []
        for i, t in enumerate(split):
            rows = np.isfinite(design.losses[:, t]) & (counts > 0)
            data = lightgbm.Dataset(x[rows], high[rows, i].astype(int), weight=counts[rows])
            model = lightgbm.train({**GATE, "seed": seed}, data, num_boost_round=ROUNDS)
            gates.append(model.model_to_string())
        return gates

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
    return _cuts(_levelled(design, _plain(design, seed)))


def _plain(design: Design, seed: int) -> Fit | None:
    """A law of size and budget alone, where they vary."""
    scene = Scene.of(design)
    if not scene.has_n and not scene.has_d:
        return None
    return NoMixture().fit(design, seed=seed, settings=Settings(strict=False))


def _levelled(design: Design, plain: Fit | None) -> np.ndarray:
    """Log losses (R, T) with size and budget accounted for."""
    residual = np.log(design.losses)
    if plain is None:
        return residual
    inputs = plain.scene.inputs(design.ratios, design.n_params, design.n_tokens)
    return residual - np.log(plain.law.predict(plain, inputs))


def _cuts(residual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cut = np.full(residual.shape[1], np.nan)
    high = np.zeros(residual.shape, bool)
    for t in range(residual.shape[1]):
        cut[t] = _cut(residual[np.isfinite(residual[:, t]), t])
        if np.isfinite(cut[t]):
            high[:, t] = residual[:, t] > cut[t]
    return cut, high


def _parted(design: Design, high: np.ndarray, split: np.ndarray) -> tuple[Design, Design]:
    """The design with the losses of the low group, and that of the targets with a high one."""
    below = replace(design, losses=np.where(high, np.nan, design.losses))
    above = replace(
        design,
        targets=[design.targets[t] for t in split],
        losses=np.where(high, design.losses, np.nan)[:, split],
    )
    return below, above


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
