"""Effective shares of a mixture for one target, with their slopes: the inside of several laws.

S = sum_j T_j h_j                 tokens lent at a fixed worth
S = sum_j T_j h_j^g_j             worth that wears off as a domain grows
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from olmo_mixlaw.laws.law import TINY, Inputs, Layout, Parameter, Scene

# A token of another domain is worth, a priori, this much of an own one (log mean, log sd). The
# width was set on mixtures held out of four public tables.
TRANSFER_PRIOR = (-3.0, 0.7)
# Without an own domain the shares have no unit: any one domain may be as good as the next.
TRANSFER_PRIOR_UNOWNED = (-1.0, 1.5)
# Powers of published additive fits lie between .2 and 1 (Shukor et al. 2025).
POWER_PRIOR = (float(np.log(0.8)), 0.4)


@dataclass(frozen=True)
class Share:
    """log S (M, R) and its slopes by log T_j, log g_j (M, R, K; None without powers) and h_j."""

    log: np.ndarray
    by_worth: np.ndarray | None
    by_power: np.ndarray | None
    by_ratio: np.ndarray | None


def worth_parameters(name: str, scene: Scene, target: int) -> list[Parameter]:
    """What one token of each domain is worth to the target; the own domain's is 1."""
    own = int(scene.own[target])
    mean, sd = TRANSFER_PRIOR if own >= 0 else TRANSFER_PRIOR_UNOWNED
    free = [
        Parameter(f"{name}[{domain}]", "own tokens a token", mean, sd, -14.0, 6.0)
        for domain in scene.domains
    ]
    if own >= 0:
        free[own] = free[own].fixed(0.0)
    return free


def power_parameters(
    name: str, scene: Scene, prior: tuple[float, float] = POWER_PRIOR
) -> list[Parameter]:
    return [
        Parameter(f"{name}[{domain}]", "1", prior[0], prior[1], np.log(1e-2), np.log(4.0))
        for domain in scene.domains
    ]


def linear_share(
    theta: np.ndarray, layout: Layout, name: str, inputs: Inputs, slopes: bool, ratios: bool = False
) -> Share:
    """log of sum_j T_j h_j."""
    worth = np.exp(theta[:, layout.slices[name]])
    h, which = _distinct(inputs)
    share = worth @ h.T + TINY
    by_worth = h * worth[:, None] / share[:, :, None] if slopes else None
    by_ratio = worth[:, None] / share[:, :, None] if ratios else None
    return _of_rows(Share(np.log(share), by_worth, None, by_ratio), which)


def power_share(
    theta: np.ndarray,
    layout: Layout,
    names: tuple[str, str],
    inputs: Inputs,
    slopes: bool,
    ratios: bool = False,
) -> Share:
    """log of sum_j T_j h_j^g_j; a domain at h_j = 0 adds nothing."""
    power = np.exp(theta[:, layout.slices[names[1]]])
    worth = theta[:, None, layout.slices[names[0]]]
    h, which = _distinct(inputs)
    there = h > 0
    bend = power[:, None] * np.log(np.where(there, h, 1.0))
    parts = np.exp(bend + worth)
    if not there.all():
        parts *= there
    share = parts @ np.ones(h.shape[1]) + TINY
    if slopes or ratios:
        parts /= share[:, :, None]
    by_ratio = parts * power[:, None] / np.maximum(h, TINY) if ratios else None
    by_power = bend * parts if slopes else None
    by_worth = parts if slopes else None
    return _of_rows(Share(np.log(share), by_worth, by_power, by_ratio), which)


def _distinct(inputs: Inputs) -> tuple[np.ndarray, np.ndarray | None]:
    """The ratios to compute, and which of them each row has (None: its own)."""
    return inputs.mixtures if inputs.mixtures is not None else (inputs.ratios, None)


def _of_rows(share: Share, which: np.ndarray | None) -> Share:
    """The shares of distinct mixtures as those of the rows that have them."""
    if which is None:
        return share
    log, *slopes = (
        None if x is None else np.take(x, which, axis=1)
        for x in (share.log, share.by_worth, share.by_power, share.by_ratio)
    )
    assert log is not None
    return Share(log, *slopes)
