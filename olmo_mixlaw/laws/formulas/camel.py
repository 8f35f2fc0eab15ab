"""CAMEL-style laws: a domain's capacity grows with its share and with size.

    camel_shares  cap_i = N (q_i + (1 - q_i) s_i),  s = softmax_i(k (w_i + log h~_i) + d_i log N)
    camel_dual    cap_i = q_i N + (1 - q_i) x_i,    x of the competition on h~
    both          L_i = E_i + c_i cap_i^-b_i + A_i (D h~_i)^-a_i
    camel_hybrid  L_i = E_i + exp(c_i + t_i.h) cap_i^-b_i + exp(A_i + u_i.h) D^-a_i

h~ = T h lends tokens between domains. The equation of arXiv 2603.08022 is not public; these
are the family that its inputs and findings describe.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from olmo_mixlaw.laws.formulas.allocation import allocate
from olmo_mixlaw.laws.formulas.coupled import (
    MOST_TRANSFER_DOMAINS,
    CoupledLaw,
    Pools,
    Pulls,
    each,
    effective,
    pools_of,
    worths,
)
from olmo_mixlaw.laws.formulas.parameters import Layout, layout_of
from olmo_mixlaw.laws.formulas.parameters import each as named
from olmo_mixlaw.laws.formulas.terms import LOG_RANGE
from olmo_mixlaw.laws.law import Inputs, Parameter, Scene


@dataclass(frozen=True)
class Flow:
    """The slopes of log cap (M, R, S): own parts, v and rank-one parts, as those of `Pulls`.

    `by_share` and `rank_share` are the slopes by log h~, own and rank-one.
    """

    own: dict[str, np.ndarray]
    v: np.ndarray
    rank: dict[str, np.ndarray]
    by_share: np.ndarray
    rank_share: np.ndarray


@dataclass(frozen=True)
class CamelShares(CoupledLaw):
    """A: capacity by a softmax of the shares; `drift` lets the shares move with size."""

    name = "camel_shares"
    formula = "E_i + c_i cap_i^-b_i + A_i (D h~_i)^-a_i, cap_i = K N (q_i + (1-q_i) softmax_i)"
    source = "family A, after arXiv 2603.08022"
    hybrid = False
    n_starts = 4
    drift: bool = False
    share_floor: float = 1e-3

    def layout(self, scene: Scene) -> Layout:
        pools, layout = pools_of(scene), Layout()
        low = pools.low(scene)
        layout.add("E", each(pools, "E", "nats", np.log(0.5 * low), 0.5, -6, 0.7))
        layout.add("c", each(pools, "c", "nats", np.log(0.25 * low), 0.8, -7, 4))
        layout.add("b", each(pools, "b", "1", np.log(0.22), 0.5, -4, 2.0))
        layout.add("A", each(pools, "A", "nats", np.log(0.12 * low), 1.0, -9, 5))
        layout.add("a", each(pools, "a", "1", np.log(0.3), 0.5, -4, 2.0))
        layout.add("q", each(pools, "q", "logit", -2.0, 1.0, -6, 6, log=False))
        self._add_capacity(layout, pools, scene)
        if self.hybrid:
            pairs = [f"{pool},{domain}" for pool in pools.names for domain in scene.domains]
            for part in ("t", "u"):
                layout.add(part, named(part, pairs, "log nats", 0.0, 1.0, -30.0, 30.0, log=False))
        elif len(pools) <= MOST_TRANSFER_DOMAINS:
            layout.add("T", worths(pools, scene))
        return layout

    def _add_capacity(self, layout: Layout, pools: Pools, scene: Scene) -> None:
        layout.add("k", Parameter("k", "1", np.log(0.5), 0.5, -4.0, 1.5))
        # A softmax doesn't see a common shift, so the prior alone holds the w to 0.
        layout.add("w", each(pools, "w", "log share", 0.0, 1.0, -8, 8, log=False))
        if self.drift and scene.has_n:
            layout.add("d", each(pools, "d", "1", 0.0, 0.2, -2, 2, log=False))

    def _flow(
        self, theta: np.ndarray, layout: Layout, inputs: Inputs, log_share: np.ndarray, slopes: bool
    ) -> tuple[np.ndarray, Flow | None]:
        k = layout.exp(theta, "k")[:, None]
        lure = theta[:, None, layout.slices["w"]] + log_share
        logits = k * lure
        if "d" in layout.slices:
            logits = logits + theta[:, None, layout.slices["d"]] * inputs.log_n[:, None]
        s = np.exp(logits - logits.max(-1, keepdims=True))
        s /= s.sum(-1, keepdims=True)
        q = 1 / (1 + np.exp(-theta[:, None, layout.slices["q"]]))
        part = q + (1 - q) * s
        # Units: an equal division is cap = 1 amid the table.
        log_cap = np.log(part * s.shape[-1]) + inputs.log_n[:, None]
        if not slopes:
            return log_cap, None
        lean = (1 - q) * s / part  # d log cap_i / d log s_i
        pulled, spread = lean * k, s * k
        own = {"q": (1 - s) * q * (1 - q) / part, "w": pulled, "k": pulled * lure}
        rank = {"w": spread, "k": (spread * lure).sum(-1, keepdims=True)}
        if "d" in layout.slices:
            own["d"], rank["d"] = lean * inputs.log_n[:, None], s * inputs.log_n[:, None]
        return log_cap, Flow(own, -lean, rank, pulled, spread)

    def respond(
        self, theta: np.ndarray, inputs: Inputs, scene: Scene, slopes: bool
    ) -> tuple[np.ndarray, Pulls | None]:
        layout, pools = layout_of(self, scene), pools_of(scene)
        shares = effective(theta, layout, inputs, pools, self.share_floor)
        log_share = np.log(shares.share)
        log_cap, flow = self._flow(theta, layout, inputs, log_share, slopes)
        bottom = layout.exp(theta, "E")[:, None]
        b, a = (layout.exp(theta, x)[:, None] for x in ("b", "a"))
        log_first = theta[:, None, layout.slices["c"]] - b * log_cap
        log_d = inputs.log_d[:, None] + (0.0 if self.hybrid else log_share)
        log_second = theta[:, None, layout.slices["A"]] - a * log_d
        if self.hybrid:
            k = inputs.ratios.shape[1]
            t, u = (
                theta[:, layout.slices[x]].reshape(len(theta), len(pools), k) for x in ("t", "u")
            )
            log_first = log_first + inputs.ratios @ t.transpose(0, 2, 1)
            log_second = log_second + inputs.ratios @ u.transpose(0, 2, 1)
        first, second = (np.exp(np.clip(x, *LOG_RANGE)) for x in (log_first, log_second))
        loss = bottom + first + second
        if flow is None:
            return loss, None
        pull = -first * b  # dL / d log cap
        own = {name: pull * value for name, value in flow.own.items()}
        own["E"] = np.broadcast_to(bottom, first.shape)
        own["A"], own["a"] = second, -second * a * log_d
        own["c"] = first + own.get("c", 0.0)
        own["b"] = pull * log_cap + own.get("b", 0.0)
        by_log = pull * flow.by_share - (0.0 if self.hybrid else second * a)
        return loss, Pulls(
            own,
            pull * flow.v,
            flow.rank,
            shares.slope(by_log, self.share_floor),
            shares.slope(flow.rank_share, self.share_floor),
            shares,
            {"t": first, "u": second} if self.hybrid else {},
        )


@dataclass(frozen=True)
class CamelHybrid(CamelShares):
    """H: capacity as in A, and exponential pulls of the mixture on both terms."""

    name = "camel_hybrid"
    formula = "E_i + exp(c_i + t_i.h) cap_i^-b_i + exp(A_i + u_i.h) D^-a_i"
    source = "family H, after arXiv 2603.08022"
    hybrid = True


@dataclass(frozen=True)
class CamelDual(CamelShares):
    """B: a part of the capacity is common, the rest is competed for; shares move with N."""

    name = "camel_dual"
    formula = "E_i + c_i cap_i^-b_i + A_i (D h~_i)^-a_i, cap_i = q_i N + (1-q_i) x_i"
    source = "family B, after arXiv 2603.08022"
    # H of the competition, in equal shares of the table's middle size; q is what a domain keeps.
    head: float = 0.01

    def _add_capacity(self, layout: Layout, pools: Pools, scene: Scene) -> None:
        """Nothing of its own: the competition has the b and c of the losses."""

    def _flow(
        self, theta: np.ndarray, layout: Layout, inputs: Inputs, log_share: np.ndarray, slopes: bool
    ) -> tuple[np.ndarray, Flow | None]:
        log_c = theta[:, None, layout.slices["c"]]
        b = layout.exp(theta, "b")[:, None]
        size = (np.log(log_share.shape[-1]) + inputs.log_n)[None, :, None]
        found = allocate(log_share + (log_c + np.log(b)), b, float(np.log(self.head)), size)
        x, whole = np.exp(found.log_x), np.exp(size)
        q = 1 / (1 + np.exp(-theta[:, None, layout.slices["q"]]))
        cap = q * whole + (1 - q) * x
        if not slopes:
            return np.log(cap), None
        lean = (1 - q) * x / cap  # d log cap / d log x
        free = lean * np.where(found.active, found.p, 0.0)
        bend = 1 - b * found.log_x
        own = {"q": (whole - x) * q * (1 - q) / cap, "c": free, "b": free * bend}
        rank = {"c": found.omega, "b": found.omega * bend}
        return np.log(cap), Flow(own, -free, rank, free, found.omega)
