"""Laws that are sums of power terms: each says its terms, and losses and slopes follow.

    L = sum_m exp(c_m -+ sum_e p_e log x_e)      x_e a product of N, D and shares of the mixture

A term whose scale a layout lacks is left out, and so is a power that it lacks: sizes or budgets
that don't vary. N and D are in units of the table's middle (Hoffmann et al. 2022 without them).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from olmo_mixlaw.laws.engine.formula import Formula
from olmo_mixlaw.laws.formulas.parameters import Layout, layout_of
from olmo_mixlaw.laws.formulas.shares import Pull, Share, Worths
from olmo_mixlaw.laws.law import Inputs, Parameter, Scene

# The logarithm of a term; beyond, exp would under- or overflow on the way to a fit.
LOG_RANGE = (-200.0, 60.0)


@dataclass(frozen=True)
class Separable(Formula):
    """A formula with parameters of its own for each target, named by `layout`."""

    @abstractmethod
    def layout(self, scene: Scene, target: int = 0) -> Layout:
        """The parts of the parameter vector of one target, with their priors."""

    def parameters(self, scene: Scene, target: int) -> list[Parameter]:
        return self.layout(scene, target).parameters


@dataclass(frozen=True)
class Power:
    """x^-p, or with `sign` 1 x^p: x the product of `of` (n, d, names of shares), p a part of theta.

    Without an `exponent`, p is 1.
    """

    of: tuple[str, ...]
    exponent: str = ""
    sign: float = -1.0


@dataclass(frozen=True)
class Term:
    """A product of powers and of exp(theta[scale]), or of either alone."""

    powers: tuple[Power, ...] = ()
    scale: str = ""

    def within(self, layout: Layout) -> bool:
        """Whether the layout has what the term is named after."""
        key = self.scale or self.powers[0].exponent
        return not key or key in layout.slices


def term(scale: str, **powers: str) -> Term:
    """`term("B", beta="d S")` is B (D S)^-beta."""
    return Term(tuple(Power(tuple(of.split()), name) for name, of in powers.items()), scale)


FLOOR = term("E")
SIZE = term("A", alpha="n")
DATA = term("B", beta="d")


@dataclass(frozen=True)
class SumOfTerms(Separable):
    """`terms` added in their order, over the effective `shares` that they name."""

    terms: ClassVar[tuple[Term, ...]] = ()
    shares: ClassVar[tuple[Worths | Pull, ...]] = ()

    def evaluate(
        self, theta: np.ndarray, inputs: Inputs, scene: Scene, jacobian: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        # Every column is filled.
        slopes = np.empty((len(theta), len(inputs), theta.shape[1])) if jacobian else None
        loss, shares, by_share = self._sum(theta, inputs, scene, slopes, ratios=False)
        if slopes is not None:
            at = layout_of(self, scene).slices
            for name, share in shares.items():
                for part, slope in share.by_part.items():
                    slopes[:, :, at[part]] = by_share[name][:, :, None] * slope
        return loss, slopes

    def ratio_gradient(self, theta: np.ndarray, inputs: Inputs, scene: Scene) -> np.ndarray:
        _, shares, by_share = self._sum(theta, inputs, scene, None, ratios=True)
        total = np.zeros((len(theta), *inputs.ratios.shape))
        for name, share in shares.items():
            total += by_share[name][:, :, None] * share.by_ratio
        return total

    def _sum(
        self,
        theta: np.ndarray,
        inputs: Inputs,
        scene: Scene,
        slopes: np.ndarray | None,
        ratios: bool,
    ) -> tuple[np.ndarray, dict[str, Share], dict[str, np.ndarray]]:
        """Losses (M, R), shares, and the slopes of the losses by the shares' logs (M, R).

        Fills all columns of `slopes` but those that the shares are made of.
        """
        layout = layout_of(self, scene)
        used = [one for one in self.terms if one.within(layout)]
        named = {x for one in used for power in one.powers for x in power.of}
        shares = {
            share.name: share.at(theta, layout, inputs, slopes is not None, ratios)
            for share in self.shares
            if share.name in named
        }
        logs = {"n": inputs.log_n, "d": inputs.log_d, **{k: s.log for k, s in shares.items()}}
        by_share = {name: np.zeros(share.log.shape) for name, share in shares.items()}
        total = np.zeros((len(theta), len(inputs)))
        for one in used:
            value, bends = _value(one, theta, layout, logs)
            total += value
            if slopes is not None and one.scale:
                slopes[:, :, layout.slices[one.scale].start] = value
            for power, p, x in bends:
                pull = p * value  # by log x
                if slopes is not None and power.exponent:
                    column = layout.slices[power.exponent].start
                    if not layout.parameters[column].log:
                        by_p = power.sign * value * x
                    elif set(power.of) <= shares.keys():
                        by_p = pull * x
                    else:
                        by_p = value * (p * x)
                    slopes[:, :, column] = by_p
                for name in shares.keys() & power.of:
                    by_share[name] += pull
        return total, shares, by_share


def _value(
    one: Term, theta: np.ndarray, layout: Layout, logs: dict[str, np.ndarray]
) -> tuple[np.ndarray, list[tuple[Power, np.ndarray, np.ndarray]]]:
    """A term (M, R), and of its powers the signed exponent (M, 1) and log x."""
    log_value: np.ndarray | float = theta[:, layout.slices[one.scale]] if one.scale else 0.0
    bends = []
    for power in one.powers:
        if power.exponent and power.exponent not in layout.slices:
            continue
        x = logs[power.of[0]]
        for name in power.of[1:]:
            x = x + logs[name]
        p = np.full((len(theta), 1), power.sign)
        if power.exponent:
            where = layout.slices[power.exponent]
            is_log = layout.parameters[where.start].log
            p *= layout.exp(theta, power.exponent) if is_log else theta[:, where]
        bends.append((power, p, x))
        log_value = log_value + p * x
    return np.exp(np.clip(log_value, *LOG_RANGE)), bends


def power_term(
    theta: np.ndarray,
    layout: Layout,
    parts: tuple[str, str],
    log_x: np.ndarray,
    jacobian: np.ndarray | None,
) -> np.ndarray:
    """`A exp(-alpha log_x)` (M, R); fills its two columns of `jacobian` (M, R, P)."""
    one = term(parts[0], **{parts[1]: "x"})
    value, [(_, p, x)] = _value(one, theta, layout, {"x": log_x})
    if jacobian is not None:
        jacobian[:, :, layout.slices[parts[0]].start] = value
        jacobian[:, :, layout.slices[parts[1]].start] = value * (p * x)
    return value
