"""Laws that learn what another law missed: the law underneath, fitted first, and a process over it.

How the two parts of such a fit are made, refitted and shown is said here once; a subclass says how
residuals of log loss are learnt, and learnt again with the scales of a first time.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from scipy.stats import norm

from olmo_mixlaw.laws.choice.holdout import thinned
from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.laws.law import BasedLaw, Inputs, Row, Scene, Settings, Surface
from olmo_mixlaw.laws.learners.process import MOST_ROWS, Groups, labels
from olmo_mixlaw.runs import Design

# An effect needs this many rows a group, on average, to be told from noise.
LEAST_SHARING = 1.5
BUDGET, RUN = "budget", "run"


@dataclass(frozen=True)
class Residual(BasedLaw):
    """The law `base` and a process over its residuals; `state` holds the fit of the base law.

    Of a table longer than `MOST_ROWS` a fair sample of that many rows is fitted: a process costs
    the cube of its rows, and its base law has more rows than parameters by far.
    """

    has_gradient: ClassVar[bool] = True

    @abstractmethod
    def learn(self, base: Fit, design: Design, seed: int) -> tuple[dict[str, Any], np.ndarray]:
        """What goes into the state beside the base law's fit, and the noise (T,)."""

    @abstractmethod
    def relearn(self, fit: Fit, base: Fit, design: Design, counts: np.ndarray) -> dict[str, Any]:
        """The same over another fit of the base law, scales kept, rows counted by `counts` (R,)."""

    @abstractmethod
    def variance(self, fit: Fit, inputs: Inputs) -> np.ndarray:
        """Variance (R, T) of a new run's log loss about what is expected, the base law known."""

    @abstractmethod
    def blocks(self, fit: Fit, n_params: float, n_tokens: float) -> tuple[Surface, int]:
        """The residuals' surface at one size and budget, and how many numbers a mixture costs."""

    def fit(self, design: Design, *, seed: int, settings: Settings) -> Fit:
        some = design.take(thinned(design, MOST_ROWS, seed))
        return self.over_fit(self.below().fit(some, seed=seed, settings=settings), design, settings)

    def over_fit(self, base: Fit, design: Design, settings: Settings) -> Fit:
        """The fit over a base law that has been fitted to this design."""
        some = design.take(thinned(design, MOST_ROWS, base.seed))
        learnt, noise = self.learn(base, some, base.seed)
        return Fit.learnt(
            self,
            design,
            state={"base": base, **learnt},
            noise=noise,
            seed=base.seed,
            settings=settings,
        )

    def refits(self, fit: Fit, design: Design, counts: np.ndarray) -> Iterator[Fit]:
        """The base law is refitted; the process keeps its scales."""
        some = thinned(design, MOST_ROWS, fit.seed)
        base = fit.state["base"]
        again = base.law.refits(base, design.take(some), counts[:, some])
        return self.refits_over(fit, again, design, counts)

    def refits_over(
        self, fit: Fit, bases: Iterable[Fit], design: Design, counts: np.ndarray
    ) -> Iterator[Fit]:
        """`refits` where those of the base law are known."""
        some = thinned(design, MOST_ROWS, fit.seed)
        few = design.take(some)
        for base, count in zip(bases, counts[:, some].astype(float), strict=True):
            learnt = self.relearn(fit, base, few, count)
            yield replace(fit, state={"base": base, **learnt}, data_hash=base.data_hash)

    def parts(self, fit: Fit) -> list[Fit]:
        return [fit.state["base"]]

    def rows(self, fit: Fit) -> list[Row]:
        base = fit.state["base"]
        return base.law.rows(base)

    def half_width(self, fit: Fit, inputs: Inputs, level: float) -> np.ndarray:
        """From the process's own variance: a new run's luck, a new budget's, and the distance.

        The formula underneath counts as known, so with few runs these are too narrow; a stack's
        come from held-out errors and are not.
        """
        return float(norm.ppf(0.5 + level / 2)) * np.sqrt(self.variance(fit, inputs))

    def surface(self, fit: Fit, n_params: float, n_tokens: float) -> Surface:
        """The base law times exp of the process, all targets in one batch of matrix products.

        All that a budget's runs share is in it; what a single run keeps should not draw an optimum.
        """
        base = fit.state["base"]
        below = base.law.surface(base, n_params, n_tokens)
        residual, step = self.blocks(fit, n_params, n_tokens)

        def at(ratios: np.ndarray, slopes: bool) -> tuple[np.ndarray, np.ndarray | None]:
            if len(ratios) > step:
                blocks = [at(ratios[i : i + step], slopes) for i in range(0, len(ratios), step)]
                gradient = [b for _, b in blocks if b is not None]
                losses = np.concatenate([a for a, _ in blocks])
                return losses, np.concatenate(gradient) if slopes else None
            middle, slope = below(ratios, slopes)
            value, by_ratio = residual(ratios, slopes)
            loss = middle * np.exp(value)
            if slope is None or by_ratio is None:
                return loss, None
            return loss, np.exp(value)[:, :, None] * slope + loss[:, :, None] * by_ratio

        return at


def features(columns: np.ndarray, inputs: Inputs, scene: Scene) -> np.ndarray:
    """`columns` (R, K) of the ratios, then log N and log D up to the table's largest: (R, F)."""
    found = [columns]
    if scene.has_n:
        found.append(np.minimum(inputs.log_n, np.log(scene.n_range[1] / scene.n_ref))[:, None])
    if scene.has_d:
        found.append(np.minimum(inputs.log_d, np.log(scene.d_range[1] / scene.d_ref))[:, None])
    return np.concatenate(found, axis=1)


def groups_of(scene: Scene) -> Groups:
    """The features that rows with an effect in common have in common, by kind of effect."""
    k = scene.n_domains
    size = [k] if scene.has_n else []
    return {RUN: [*range(k), *size], BUDGET: [k + len(size)]} if scene.has_d else {}


def telling(x: np.ndarray, groups: Groups) -> Groups:
    """Those of the groups that are large enough for an effect to be told from noise."""
    return {
        kind: columns
        for kind, columns in groups.items()
        if len(x) >= LEAST_SHARING * (labels(x, columns).max() + 1)
    }


def inputs_of(design: Design, scene: Scene) -> Inputs:
    return scene.inputs(design.ratios, design.n_params, design.n_tokens)


def missed(base: Fit, design: Design) -> np.ndarray:
    """What the base law missed of log loss, (R, T)."""
    guess = base.law.predict(base, inputs_of(design, base.scene))
    return np.log(design.losses) - np.log(guess)


def below(fit: Fit, inputs: Inputs) -> np.ndarray:
    """The losses (R, T) of the base law alone."""
    base = fit.state["base"]
    return base.law.predict(base, inputs)
