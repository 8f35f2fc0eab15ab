"""What the coupled laws share: pools, effective shares, and slopes of diagonal plus rank-one form.

A pool is a domain of the mixture, or a target that is none (with no tokens of its own). Every
pool i has a capacity that all others compete for, so that dL_i = own_i + v_i sum_j r_j. The
slopes are kept in that form: normal matrices then cost a tenth of what dense slopes cost.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import ClassVar

import numpy as np

from olmo_mixlaw.laws.engine.formula import Formula
from olmo_mixlaw.laws.engine.solver import Problems
from olmo_mixlaw.laws.formulas.parameters import Layout, layout_of
from olmo_mixlaw.laws.law import TINY, Inputs, Parameter, Scene
from olmo_mixlaw.runs import Design

# Above this many domains the transfer matrix has more entries than tables can speak to.
MOST_TRANSFER_DOMAINS = 12


@dataclass(frozen=True)
class Pools:
    """Names of the pools, and the pool (T,) of each target."""

    names: list[str]
    of_target: np.ndarray

    @classmethod
    def of(cls, scene: Scene) -> Pools:
        names, index = list(scene.domains), []
        for target, own in zip(scene.targets, scene.own, strict=True):
            if own < 0:
                names.append(target)
            index.append(own if own >= 0 else len(names) - 1)
        return cls(names, np.array(index, int))

    def __len__(self) -> int:
        return len(self.names)

    def low(self, scene: Scene) -> np.ndarray:
        """The least loss of each pool; the median of the targets' where a pool has none."""
        values = np.full(len(self), np.median(scene.low))
        values[self.of_target] = scene.low
        return values

    def padded(self, ratios: np.ndarray) -> np.ndarray:
        """Ratios (R, K) as (R, S), 0 for a pool that is no domain."""
        result = np.zeros((len(ratios), len(self)))
        result[:, : ratios.shape[1]] = ratios
        return result


@lru_cache(maxsize=64)
def pools_of(scene: Scene) -> Pools:
    """The pools of a scene, kept as its layouts are."""
    return Pools.of(scene)


def each(
    pools: Pools,
    name: str,
    unit: str,
    mean: float | np.ndarray,
    sd: float,
    below: float,
    above: float,
    log: bool = True,
) -> list[Parameter]:
    """One parameter a pool, from `below` its mean to `above`; `mean` is one number or one each."""
    means = np.broadcast_to(np.asarray(mean, float), (len(pools),))
    return [
        Parameter(f"{name}[{pool}]", unit, float(m), sd, float(m) + below, float(m) + above, log)
        for pool, m in zip(pools.names, means, strict=True)
    ]


def worths(pools: Pools, scene: Scene) -> list[Parameter]:
    """The transfer matrix (pools x domains), T_ii = 1, row by row."""
    items = []
    for i, pool in enumerate(pools.names):
        for j, domain in enumerate(scene.domains):
            item = Parameter(f"T[{pool},{domain}]", "own tokens a token", -3.5, 1.5, -14.0, 4.0)
            items.append(item.fixed(0.0) if i == j else item)
    return items


@dataclass(frozen=True)
class Shares:
    """Effective shares h~ (M or 1, R, S) and what a domain adds to each, (M or 1, S, K)."""

    share: np.ndarray
    worth: np.ndarray
    lent: bool

    def slope(self, by_log: np.ndarray, floor: float) -> np.ndarray:
        """Slopes by log h~ as slopes by h~; 0 below the floor of shares that are not lent."""
        return by_log / self.share if self.lent else by_log * (self.share > floor) / self.share


def effective(
    theta: np.ndarray, layout: Layout, inputs: Inputs, pools: Pools, share_floor: float
) -> Shares:
    """Effective shares h~ = T h, or max(h, floor) without a transfer matrix."""
    k = inputs.ratios.shape[1]
    if "T" not in layout.slices:
        share = np.maximum(pools.padded(inputs.ratios), share_floor)
        return Shares(share[None], np.eye(len(pools), k)[None], False)
    worth = layout.exp(theta, "T").reshape(len(theta), len(pools), k)
    return Shares(inputs.ratios @ worth.transpose(0, 2, 1) + TINY, worth, True)


@dataclass(frozen=True)
class Pulls:
    """The pieces of the slopes of the pools' losses.

    `own` maps a part of theta to each pool's slope by its own entry (M, R, S). `v` (M, R, S) and
    `rank` (M, R, S, or 1 for a parameter that all pools have in common) are the rank-one form.
    `by_share` and `through` are the slopes by the pools' shares, own and rank-one, and `shares`
    what shares are made of. `bends` maps a part with K entries a pool to the slope by its
    product with h.
    """

    own: dict[str, np.ndarray]
    v: np.ndarray
    rank: dict[str, np.ndarray]
    by_share: np.ndarray
    through: np.ndarray
    shares: Shares
    bends: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class PooledSlopes:
    """Slopes of the losses of targets by theta (`size` entries), never written out in full.

    Target i has the slopes `own[:, i]` (M, T, n, R) by the entries `own_at[i]` (T, n), and
    `v[:, i]` (M, T, R) times `rank` (M, Q, R) by the entries `rank_at` (Q,).
    """

    size: int
    own: np.ndarray
    own_at: np.ndarray
    v: np.ndarray
    rank: np.ndarray
    rank_at: np.ndarray

    def normal(self, pull: np.ndarray, stiffness: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """J' pull (M, P) and J' diag(stiffness) J (M, P, P), for residuals (M, R T), run by run."""
        members, targets, width, rows = self.own.shape
        pull, stiffness = (
            np.ascontiguousarray(x.reshape(members, rows, targets).transpose(0, 2, 1))
            for x in (pull, stiffness)
        )
        gradient, matrix = np.zeros((members, self.size)), np.zeros((members, self.size, self.size))
        across = self.rank.transpose(0, 2, 1)
        both = stiffness * self.v
        gradient[:, self.rank_at] = ((pull * self.v).sum(1)[:, None] @ across)[:, 0]
        matrix[:, self.rank_at[:, None], self.rank_at] = (
            self.rank * (both * self.v).sum(1)[:, None]
        ) @ across
        straight = (self.own @ pull[..., None])[..., 0]
        blocks = (self.own * stiffness[:, :, None]) @ self.own.transpose(0, 1, 3, 2)
        mixed = (self.own * both[:, :, None]).reshape(members, targets * width, rows) @ across
        for i, at in enumerate(self.own_at):
            part = mixed[:, i * width : (i + 1) * width]
            gradient[:, at] += straight[:, i]
            matrix[:, at[:, None], at] += blocks[:, i]
            matrix[:, at[:, None], self.rank_at] += part
            matrix[:, self.rank_at[:, None], at] += part.transpose(0, 2, 1)
        return gradient, matrix

    def dense(self) -> np.ndarray:
        """The slopes (M, R, T, P)."""
        members, targets, _, rows = self.own.shape
        full = np.zeros((members, rows, targets, self.size))
        for i, at in enumerate(self.own_at):
            full[:, :, i, self.rank_at] += (self.rank * self.v[:, i, None]).transpose(0, 2, 1)
            full[:, :, i, at] += self.own[:, i].transpose(0, 2, 1)
        return full


def pooled(pulls: Pulls, layout: Layout, pools: Pools, inputs: Inputs, size: int) -> PooledSlopes:
    """The slopes that the pieces make, for the pools that targets are."""
    at, k = pools.of_target, inputs.ratios.shape[1]
    first = {part: where.start for part, where in layout.slices.items()}
    own_at: list[np.ndarray] = []
    pieces: list[np.ndarray] = []
    for part, value in pulls.own.items():
        one_each = layout.slices[part].stop - first[part] == len(pools)
        own_at.append((first[part] + at * one_each)[:, None])
        pieces.append(value[:, :, at].transpose(0, 2, 1)[:, :, None])
    rank_at = [np.arange(layout.slices[p].start, layout.slices[p].stop) for p in pulls.rank]
    rank = [value.transpose(0, 2, 1) for value in pulls.rank.values()]
    if "T" in layout.slices:
        worth = pulls.shares.worth
        added = worth[..., None] * inputs.ratios.T  # (M, S, K, R)
        own_at.append(first["T"] + at[:, None] * k + np.arange(k))
        pieces.append(pulls.by_share[:, :, at].transpose(0, 2, 1)[:, :, None] * added[:, at])
        rank_at.append(np.arange(first["T"], layout.slices["T"].stop))
        through = pulls.through.transpose(0, 2, 1)[:, :, None] * added
        rank.append(through.reshape(len(through), -1, len(inputs)))
    for part, value in pulls.bends.items():
        own_at.append(first[part] + at[:, None] * k + np.arange(k))
        pieces.append(value[:, :, at].transpose(0, 2, 1)[:, :, None] * inputs.ratios.T)
    return PooledSlopes(
        size,
        np.concatenate(pieces, axis=2),
        np.concatenate(own_at, axis=1),
        np.ascontiguousarray(pulls.v[:, :, at].transpose(0, 2, 1)),
        np.concatenate(rank, axis=1),
        np.concatenate(rank_at),
    )


@dataclass(frozen=True)
class CoupledLaw(Formula):
    """A law of pools that compete; subclasses give `layout` and `respond`."""

    coupled: ClassVar[bool] = True

    @abstractmethod
    def layout(self, scene: Scene) -> Layout:
        """The parts of the parameter vector, with their priors."""

    @abstractmethod
    def respond(
        self, theta: np.ndarray, inputs: Inputs, scene: Scene, slopes: bool
    ) -> tuple[np.ndarray, Pulls | None]:
        """Losses of the pools (M, R, S), and the pieces of their slopes when asked for."""

    def parameters(self, scene: Scene, target: int) -> list[Parameter]:
        return self.layout(scene).parameters

    def evaluate(
        self, theta: np.ndarray, inputs: Inputs, scene: Scene, jacobian: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        loss, slopes = self._pooled(theta, inputs, scene, jacobian)
        return loss, None if slopes is None else slopes.dense()

    def residuals(
        self, theta: np.ndarray, inputs: Inputs, scene: Scene, jacobian: bool
    ) -> tuple[np.ndarray, PooledSlopes | None]:
        loss, slopes = self._pooled(theta, inputs, scene, jacobian)
        return loss.reshape(len(theta), -1), slopes

    def problems(
        self, design: Design, scene: Scene, items: list[list[Parameter]], huber: float
    ) -> Problems:
        whole = super().problems(design, scene, items, huber)
        one = scene.inputs(design.ratios[:1], design.n_params[:1], design.n_tokens[:1])
        # Slopes in their own form are about three numbers a pool and parameter.
        width = 1 + 3 * whole.prior.mean.shape[1] // scene.n_targets
        return replace(whole, blocks=self._blocks(whole.prior.mean, one, scene), width=width)

    def ratio_gradient(self, theta: np.ndarray, inputs: Inputs, scene: Scene) -> np.ndarray:
        pools, layout = pools_of(scene), layout_of(self, scene)
        _, pulls = self.respond(theta, inputs, scene, True)
        assert pulls is not None
        worth = pulls.shares.worth
        full = pulls.by_share[..., None] * worth[:, None]
        full = full + pulls.v[..., None] * (pulls.through @ worth)[:, :, None]
        for part, bend in pulls.bends.items():
            slope = theta[:, layout.slices[part]].reshape(len(theta), 1, len(pools), -1)
            full = full + bend[..., None] * slope
        return full[:, :, pools.of_target]

    def _pooled(
        self, theta: np.ndarray, inputs: Inputs, scene: Scene, jacobian: bool
    ) -> tuple[np.ndarray, PooledSlopes | None]:
        """Losses (M, R, T) and their slopes, not written out in full."""
        pools = pools_of(scene)
        loss, pulls = self.respond(theta, inputs, scene, jacobian)
        loss = loss[:, :, pools.of_target]
        if pulls is None:
            return loss, None
        return loss, pooled(pulls, layout_of(self, scene), pools, inputs, theta.shape[1])

    def _blocks(self, theta: np.ndarray, inputs: Inputs, scene: Scene) -> np.ndarray:
        """Entries of theta (S, n) that act on the loss of one pool alone, pool by pool."""
        slices, count = layout_of(self, scene).slices, len(pools_of(scene))
        _, pulls = self.respond(theta, inputs, scene, True)
        assert pulls is not None
        shared = {"T", *pulls.rank}
        own = [
            np.arange(s.start, s.stop).reshape(count, -1)
            for part, s in slices.items()
            if part not in shared
        ]
        return np.concatenate(own, axis=1)
