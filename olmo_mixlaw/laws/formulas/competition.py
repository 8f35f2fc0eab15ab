"""Capacity competition: domains divide a model's capacity, each by its own power law.

    competition        L_i = E_i + c_i x_i^-b_i                          (Eq. 1)
    competition_noise  L_i = E_i + c_i x_i^-b_i + A_i (D h_i)^-a_i       (Eq. 3)

x minimises sum h_i c_i x_i^-b_i under sum x_i = N + (K - 1) H, x_i >= H: K domains divide N
parameters, of which they have a head of H, fitted too, in common (arXiv 2606.08167). Shares below
`share_floor` count as that in the noise term, which is undefined at 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from olmo_mixlaw.laws.formulas.allocation import allocate
from olmo_mixlaw.laws.formulas.coupled import CoupledLaw, Pools, Pulls, Shares, each, pools_of
from olmo_mixlaw.laws.formulas.parameters import Layout, layout_of
from olmo_mixlaw.laws.formulas.terms import LOG_RANGE
from olmo_mixlaw.laws.law import Inputs, Parameter, Scene
from olmo_mixlaw.runs import Design

# The head in equal shares of the table's middle size: middle and width of its prior, and the most
# of the smallest model that it may be. A domain without a share has the head alone.
HEAD, HEAD_SD = 0.02, 1.5
MOST_OF_SMALLEST = 0.5
# In a model that is hardly larger than the head, the head counts as this part of it.
MOST_OF_MODEL = 0.99


@dataclass(frozen=True)
class Competition(CoupledLaw):
    """Eq. 1. N is in units of N_ref / pools, so that an equal division is x = 1 amid the table."""

    name = "competition"
    formula = (
        "E_i + c_i x_i^-b_i, x = argmin sum_j h_j c_j x_j^-b_j, "
        "mean_j x_j = N + (1 - 1/K) H, x_j >= H"
    )
    source = "arXiv 2606.08167, Eq. 1"
    noise = False
    n_starts = 6
    share_floor: float = 1e-3

    def layout(self, scene: Scene) -> Layout:
        pools, layout = pools_of(scene), Layout()
        low = pools.low(scene)
        layout.add("E", each(pools, "E", "nats", np.log(0.6 * low), 0.5, -6, 0.5))
        layout.add("c", each(pools, "c", "nats", np.log(0.3 * low), 0.8, -7, 4))
        layout.add("b", each(pools, "b", "1", np.log(0.25), 0.6, -4, 2.0))
        if self.noise:
            layout.add("A", each(pools, "A", "nats", np.log(0.05 * low), 1.2, -9, 5))
            layout.add("a", each(pools, "a", "1", np.log(0.3), 0.6, -4, 2.0))
        layout.add("H", _head(pools, scene))
        return layout

    def respond(
        self, theta: np.ndarray, inputs: Inputs, scene: Scene, slopes: bool
    ) -> tuple[np.ndarray, Pulls | None]:
        layout, pools = layout_of(self, scene), pools_of(scene)
        log_c, b = (theta[:, None, layout.slices["c"]], layout.exp(theta, "b")[:, None])
        bottom = layout.exp(theta, "E")[:, None]
        h = pools.padded(inputs.ratios)
        with np.errstate(divide="ignore"):
            u = np.log(h) + (log_c + np.log(b))
        log_size = (np.log(len(pools)) + inputs.log_n)[None, :, None]
        log_most = log_size + np.log(MOST_OF_MODEL)
        given = theta[:, None, layout.slices["H"]]
        found = allocate(u, b, np.minimum(given, log_most), log_size)
        q = np.exp(log_c - b * found.log_x)
        loss = bottom + q
        if self.noise:
            a = layout.exp(theta, "a")[:, None]
            log_d = inputs.log_d[:, None] + np.log(np.maximum(h, self.share_floor))
            noise = np.exp(np.clip(theta[:, None, layout.slices["A"]] - a * log_d, *LOG_RANGE))
            loss = loss + noise
        if not slopes:
            return loss, None
        bend = 1 - b * found.log_x
        v = q * b * np.where(found.active, found.p, 0.0)  # dq / dmu
        free = given < log_most
        own = {
            "E": np.broadcast_to(bottom, q.shape),
            "c": q - v,
            "b": -q * b * found.log_x - v * bend,
            "H": np.where(free & ~found.active, -q * b, 0.0),
        }
        by_h = -v * (h > 0)
        if self.noise:
            own["A"], own["a"] = noise, -noise * a * log_d
            by_h = by_h - noise * a * (h > self.share_floor)
        inverse = np.where(h > 0, 1 / np.maximum(h, 1e-300), 0.0)
        # The allocation follows h itself; the noise term has its own floor.
        shares = Shares(h[None], np.eye(len(pools), inputs.ratios.shape[1])[None], False)
        return loss, Pulls(
            own,
            v,
            {"c": found.omega, "b": found.omega * bend, "H": found.by_head * free},
            by_h * inverse,
            found.omega * inverse,
            shares,
        )


@dataclass(frozen=True)
class CompetitionNoise(Competition):
    """Eq. 3: competition and a noise term in the domain's own tokens."""

    name = "competition_noise"
    formula = (
        "E_i + c_i x_i^-b_i + A_i (D h_i)^-a_i, x as in competition: "
        "mean_j x_j = N + (1 - 1/K) H, x_j >= H"
    )
    source = "arXiv 2606.08167, Eq. 3"
    noise = True

    def suits(self, design: Design) -> bool:
        """Where every target is a domain of the mixture: others have no tokens of their own."""
        return set(design.targets) <= set(design.domains)


def _head(pools: Pools, scene: Scene) -> Parameter:
    """H, fixed where there is but one pool, which has all of N whatever the head."""
    smallest = len(pools) * (scene.n_range[0] / scene.n_ref if scene.has_n else 1.0)
    middle, most = np.log(HEAD), np.log(MOST_OF_SMALLEST * smallest)
    unit = "equal shares of the middle size"
    item = Parameter("H", unit, min(middle, most), HEAD_SD, middle - 6.0, most)
    return item.fixed(item.mean) if len(pools) == 1 else item
