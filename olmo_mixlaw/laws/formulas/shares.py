"""Effective shares of a mixture for one target, with their slopes: the inside of several laws.

Worths   S = sum_j T_j h_j                  tokens lent at a fixed worth
Worths   S = sum_j T_j N^v_j h_j^g_j        worth that wears off as a domain grows, or drifts
Worths   S = sum_j T_j h_j^(g d_j)          wears off alike for all, or nearly
Pull     S = exp(sum_j t_j h_j)
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from olmo_mixlaw.laws.formulas.parameters import Layout, each
from olmo_mixlaw.laws.law import TINY, Inputs, Parameter, Scene

# A token of another domain is worth, a priori, this much of an own one (log mean, log sd). The
# width was set on mixtures held out of four public tables.
TRANSFER_PRIOR = (-3.0, 0.7)
# Without an own domain the shares have no unit: any one domain may be as good as the next.
TRANSFER_PRIOR_UNOWNED = (-1.0, 1.5)
# Powers of published additive fits lie between .2 and 1 (Shukor et al. 2025).
POWER_PRIOR = (float(np.log(0.8)), 0.4)


@dataclass(frozen=True)
class Share:
    """log S (M, R), and its slopes by parts of theta and by the ratios (M, R, K) when asked for."""

    log: np.ndarray
    by_part: dict[str, np.ndarray] = field(default_factory=dict)
    by_ratio: np.ndarray | None = None


@dataclass(frozen=True)
class Worths:
    """A share called `name`, from the parts of theta `worth` and, where there, `power`, `drift`.

    `power` has one number, or one for each domain; one number may be multiplied, domain by
    domain, by those of `bend`.
    """

    name: str
    worth: str
    power: str = ""
    drift: str = ""
    bend: str = ""

    def at(
        self, theta: np.ndarray, layout: Layout, inputs: Inputs, slopes: bool, ratios: bool
    ) -> Share:
        if self.drift in layout.slices:
            return self._drifting(theta, layout, inputs, slopes, ratios)
        h, which = inputs.mixtures if inputs.mixtures is not None else (inputs.ratios, None)
        by_part: dict[str, np.ndarray] = {}
        if not self.power:
            worth = layout.exp(theta, self.worth)
            share = worth @ h.T + TINY
            if slopes:
                by_part[self.worth] = h * worth[:, None] / share[:, :, None]
            by_ratio = worth[:, None] / share[:, :, None] if ratios else None
        else:
            power = layout.exp(theta, self.power)
            one = power.shape[1] == 1 < h.shape[1]
            if self.bend:
                power = power * layout.exp(theta, self.bend)
            there = h > 0
            bend = power[:, None] * np.log(np.where(there, h, 1.0))
            parts = np.exp(bend + theta[:, None, layout.slices[self.worth]])
            if not there.all():  # a domain at h_j = 0 adds nothing
                parts *= there
            share = parts @ np.ones(h.shape[1]) + TINY
            if slopes or ratios:
                parts /= share[:, :, None]
            if slopes:
                bend *= parts
                by_part = {self.worth: parts}
                by_part[self.power] = bend.sum(2, keepdims=True) if one else bend
                if self.bend:
                    by_part[self.bend] = bend
            by_ratio = parts * power[:, None] / np.maximum(h, TINY) if ratios else None
        found = Share(np.log(share), by_part, by_ratio)
        return found if which is None else _of_rows(found, which)

    def _drifting(
        self, theta: np.ndarray, layout: Layout, inputs: Inputs, slopes: bool, ratios: bool
    ) -> Share:
        """The worth of a token is T_j N^v_j, so sizes are done one at a time."""
        sizes, which = np.unique(inputs.log_n, return_inverse=True)
        order = np.argsort(which, kind="stable")
        fixed = Worths(self.name, self.worth, self.power)
        found = []
        for s, size in enumerate(sizes):
            moved = theta.copy()
            moved[:, layout.slices[self.worth]] += size * theta[:, layout.slices[self.drift]]
            rows = inputs.take(order[which[order] == s])
            found.append(fixed.at(moved, layout, rows, slopes, ratios))
        back = np.argsort(order, kind="stable")

        def joined(pieces: list[np.ndarray]) -> np.ndarray:
            return np.concatenate(pieces, axis=1)[:, back]

        by_part = {
            part: joined([share.by_part[part] for share in found]) for part in found[0].by_part
        }
        if slopes:
            by_part[self.drift] = by_part[self.worth] * inputs.log_n[:, None]
        by_ratio = [share.by_ratio for share in found if share.by_ratio is not None]
        return Share(
            joined([share.log for share in found]), by_part, joined(by_ratio) if ratios else None
        )


@dataclass(frozen=True)
class Pull:
    """A share S called `name` whose log is linear in the ratios, by the part `slope` of theta."""

    name: str
    slope: str

    def at(
        self, theta: np.ndarray, layout: Layout, inputs: Inputs, slopes: bool, ratios: bool
    ) -> Share:
        slope = theta[:, layout.slices[self.slope]]
        shape = (len(theta), *inputs.ratios.shape)
        return Share(
            slope @ inputs.ratios.T,
            {self.slope: np.broadcast_to(inputs.ratios, shape)} if slopes else {},
            np.broadcast_to(slope[:, None], shape) if ratios else None,
        )


def worth_parameters(name: str, scene: Scene, target: int) -> list[Parameter]:
    """What one token of each domain is worth to the target; the own domain's is 1."""
    own = int(scene.own[target])
    mean, sd = TRANSFER_PRIOR if own >= 0 else TRANSFER_PRIOR_UNOWNED
    free = each(name, scene.domains, "own tokens a token", mean, sd, -14.0, 6.0)
    if own >= 0:
        free[own] = free[own].fixed(0.0)
    return free


def own_worth_parameters(name: str, scene: Scene, target: int, sd: float) -> list[Parameter]:
    """Worths with spread `sd` about that of a domain which is no better than the next.

    The own domain's is 1 where there is one, the others' as in `worth_parameters`.
    """
    own = int(scene.own[target])
    mean = TRANSFER_PRIOR[0] if own >= 0 else TRANSFER_PRIOR_UNOWNED[0]
    free = each(name, scene.domains, "own tokens a token", mean, sd, -14.0, 6.0)
    if own >= 0:
        free[own] = free[own].fixed(0.0)
    return free


def power_parameters(
    name: str, scene: Scene, prior: tuple[float, float] = POWER_PRIOR
) -> list[Parameter]:
    """With which power of its ratio each domain counts."""
    return each(name, scene.domains, "1", prior[0], prior[1], np.log(1e-2), np.log(4.0))


def _of_rows(share: Share, which: np.ndarray) -> Share:
    """The shares of distinct mixtures as those of the rows that have them."""
    return Share(
        np.take(share.log, which, axis=1),
        {part: np.take(slope, which, axis=1) for part, slope in share.by_part.items()},
        None if share.by_ratio is None else np.take(share.by_ratio, which, axis=1),
    )
