"""Choosing runs: greedily by gain a price, for every few scales that go together, then exchanged.

What is made small is a mean over beliefs of variances, each as a part of what it was. A run's gain
is exact (a Gaussian's rank-one update), so that a plan of many runs costs a pass over the
candidates for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from olmo_mixlaw.advice.design.belief import Belief
from olmo_mixlaw.advice.design.regret import contrasts

# Mixtures drawn as possibly best, and directions of their differences that are kept.
CONTRASTS, DIRECTIONS = 64, 12
# All candidates are looked at once, so many again and again, and of each scale these for every set
# of scales.
FOLLOWED, SHORTLIST = 1500, 64
# A plan has at most so many runs. In the order of worth each counts that part of the budget more
# than its price, so that a budget doesn't end in more tiny runs than anybody starts; and where one
# would all the same, with less than this part spent, so many times more, once or twice.
MOST_RUNS, SPENT, DEARER = 400, 0.9, (4.0, 16.0)
# Scales that are joined are tried one by one while they gain this part of what is left.
WORTH_JOINING = 0.01
# Runs given up for others, one after the other.
EXCHANGES, LEAST_GAIN = 8, 1e-6
# A budget may be spent to its last digit.
SLACK = 1e-12


@dataclass(frozen=True, eq=False)
class View:
    """A belief as the choice sees it: `runs` (T, C, F), `aim` (T, F, D) whose summed variance is
    1 before any run and is to become small, `variance` (T,) of a run's luck; `weight` counts it."""

    law: str
    runs: np.ndarray
    aim: np.ndarray
    variance: np.ndarray
    weight: float

    def take(self, rows: np.ndarray) -> View:
        return View(self.law, self.runs[:, rows], self.aim, self.variance, self.weight)


def view_of(belief: Belief, weight: float, error_part: float, seed: int) -> View:
    """`error_part` of the aim is the goal's forecast at the best mixture, the rest its choice."""
    parts = []
    if error_part < 1:
        apart = _fewer(contrasts(belief, CONTRASTS, seed))
        parts.append(_unit(apart) * np.sqrt(1 - error_part))
    if error_part > 0:
        parts.append(_unit(belief.goal[:, belief.best][:, :, None]) * np.sqrt(error_part))
    aim = np.concatenate(parts, axis=2)
    return View(belief.law, belief.runs, aim, belief.noise**2, weight)


def _unit(features: np.ndarray) -> np.ndarray:
    total = np.sqrt((features**2).sum())
    return features / total if total > 0 else features


def _fewer(features: np.ndarray) -> np.ndarray:
    """Fewer directions (T, F, D) with nearly the same products."""
    left, value, _ = np.linalg.svd(features, full_matrices=False)
    return np.asarray((left * value[:, None])[:, :, :DIRECTIONS])


@dataclass(eq=False)
class State:
    """A view after some runs: covariance (T, F, F), `reach` (T, C, D) the candidates' with the
    aim, `own` (T, C) their variances, `pull` (T, C) the summed squares of reach; `left` the aim's.
    """

    view: View
    covariance: np.ndarray
    reach: np.ndarray
    own: np.ndarray
    pull: np.ndarray
    left: float

    @classmethod
    def of(cls, view: View, rows: Sequence[int] | np.ndarray = ()) -> State:
        """The state after the runs `rows`, made at once."""
        made = view.runs[:, list(rows)] / np.sqrt(view.variance)[:, None, None]
        precision = np.eye(made.shape[2]) + made.transpose(0, 2, 1) @ made
        covariance = np.linalg.inv(precision)
        root = covariance @ view.aim
        left = float((view.aim * root).sum())
        reach = view.runs @ root
        own = ((view.runs @ covariance) * view.runs).sum(2)
        return cls(view, covariance, reach, own, (reach**2).sum(2), left)

    def gains(self) -> np.ndarray:
        """What the aim's variance would lose to each candidate, (C,)."""
        return np.asarray((self.pull / (self.own + self.view.variance[:, None])).sum(0))

    def losses(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """What it would gain back without each of the runs `rows`, all made already."""
        some = list(rows)
        free = np.maximum(self.view.variance[:, None] - self.own[:, some], 1e-300)
        return np.asarray((self.pull[:, some] / free).sum(0))

    def add(self, row: int) -> None:
        """Make the run `row`."""
        features = self.view.runs[:, row]
        moved = np.matmul(self.covariance, features[:, :, None])[:, :, 0]
        spread = self.own[:, row] + self.view.variance
        along = np.matmul(self.view.runs, moved[:, :, None])[:, :, 0] / spread[:, None]
        there = self.reach[:, row].copy()
        both = np.matmul(self.reach, there[:, :, None])[:, :, 0]
        square = (there**2).sum(1)
        self.left -= float((square / spread).sum())
        self.pull += along * (along * square[:, None] - 2 * both)
        self.reach -= along[:, :, None] * there[:, None]
        self.own -= along**2 * spread[:, None]
        self.covariance -= moved[:, :, None] * (moved / spread[:, None])[:, None]
        np.maximum(self.pull, 0.0, out=self.pull)
        np.maximum(self.own, 0.0, out=self.own)


@dataclass(frozen=True, eq=False)
class Choice:
    """Runs in the order they were chosen, what they cost, and what is left of the aim."""

    rows: list[int]
    spent: float
    left: float


@dataclass(frozen=True, eq=False)
class Chooser:
    """The candidates under all views; `scale` (C,) numbers their sizes and budgets, and `free` (C,)
    are those that may be bought.

    Over the views the aim is their weighted mean, or `worst`: that of the law which has most left.
    """

    views: list[View]
    price: np.ndarray
    scale: np.ndarray
    budget: float
    repeatable: bool = False
    worst: bool = False
    free: np.ndarray | None = None
    effort: float = 1.0

    def plan(self) -> Choice:
        """The best choice found within the budget."""
        found = self._planned()
        for effort in DEARER:
            if len(found.rows) < MOST_RUNS or found.spent > SPENT * self.budget:
                break
            found = min(found, replace(self, effort=effort)._planned(), key=lambda c: c.left)
        return found

    def _planned(self) -> Choice:
        most = np.zeros(len(self.price))
        found = self.greedy(self._followed(), most=most)
        few = self._shortlist(found, most)
        scales = np.unique(self.scale[few])
        singles = [(s, self.greedy(few[self.scale[few] == s])) for s in scales]
        if len(scales) > 1:
            joined, held = min(
                (({int(s)}, choice) for s, choice in singles), key=lambda pair: pair[1].left
            )
            while len(joined) < len(scales):
                tries = [
                    (joined | {int(s)}, self.greedy(few[np.isin(self.scale[few], [*joined, s])]))
                    for s in scales
                    if int(s) not in joined
                ]
                wider, better = min(tries, key=lambda pair: pair[1].left)
                if better.left > held.left * (1 - WORTH_JOINING):
                    break
                joined, held = wider, better
            found = min(found, held, key=lambda choice: choice.left)
        return self._ordered(self._exchanged(found, few))

    def _followed(self) -> np.ndarray:
        """Of each scale the candidates of most gain by themselves, and others at random; sorted."""
        every = np.arange(len(self.price))
        every = every if self.free is None else every[self.free]
        if len(every) <= FOLLOWED:
            return every
        gain = self._gains([State.of(view) for view in self.views])
        kept, rng = [], np.random.default_rng(0)
        scales = np.unique(self.scale[every])
        share = FOLLOWED // len(scales)
        for scale in scales:
            rows = every[self.scale[every] == scale]
            rows = rows[np.argsort(-gain[rows], kind="stable")]
            kept += [rows[: share // 2], rng.permutation(rows[share // 2 :])[: share // 2]]
        return np.sort(np.concatenate(kept))

    def greedy(
        self, pool: np.ndarray, start: Sequence[int] = (), most: np.ndarray | None = None
    ) -> Choice:
        """Runs of the sorted `pool` by gain a price until no other is affordable, after `start`.

        `most` (C,) is filled with the greatest gain a price that each candidate had on the way.
        """
        views = self._among(pool)
        price, free = self.price[pool], np.ones(len(pool), bool)
        effort = price + self.effort * self.budget / MOST_RUNS
        first = np.searchsorted(pool, list(start))
        states = [State.of(view, first) for view in views]
        free[first] = self.repeatable
        rows, spent = list(start), float(self.price[list(start)].sum())
        while len(rows) < MOST_RUNS:
            fits = free & (price <= (self.budget - spent) * (1 + SLACK))
            if not fits.any():
                break
            worth = self._gains(states) / effort
            if most is not None:
                most[pool] = np.maximum(most[pool], worth)
            pick = int(np.where(fits, worth, -np.inf).argmax())
            for state in states:
                state.add(pick)
            free[pick] = self.repeatable
            rows.append(int(pool[pick]))
            spent += float(price[pick])
        return Choice(rows, spent, self._left(states))

    def _left(self, states: list[State]) -> float:
        """What is left of the aim: over all views, or of the law that has most."""
        if not self.worst:
            return sum(state.view.weight * state.left for state in states)
        return max(self._by_law(states).values())

    def _gains(self, states: list[State]) -> np.ndarray:
        if not self.worst:
            return np.asarray(sum(state.view.weight * state.gains() for state in states))
        by_law = self._by_law(states)
        behind = max(by_law, key=by_law.__getitem__)
        some = [state for state in states if state.view.law == behind]
        return np.mean([state.gains() for state in some], axis=0)

    @staticmethod
    def _by_law(states: list[State]) -> dict[str, float]:
        laws = {state.view.law for state in states}
        return {law: float(np.mean([s.left for s in states if s.view.law == law])) for law in laws}

    def _shortlist(self, first: Choice, most: np.ndarray) -> np.ndarray:
        """The candidates worth another look, scale by scale, sorted."""
        kept = [np.array(first.rows, int)]
        for scale in np.unique(self.scale):
            rows = np.flatnonzero((self.scale == scale) & (self.price <= self.budget) & (most > 0))
            kept.append(rows[np.argsort(-most[rows], kind="stable")[:SHORTLIST]])
        return np.unique(np.concatenate(kept))

    def _exchanged(self, found: Choice, pool: np.ndarray) -> Choice:
        """The run that would be missed least for its price makes way for others, while that gains.

        In the mean over the views, also where the worst law counts.
        """
        views = self._among(pool)
        for _ in range(EXCHANGES if len(found.rows) > 1 else 0):
            at = np.searchsorted(pool, found.rows)
            missed = [view.weight * State.of(view, at).losses(at) for view in views]
            out = int(np.argmin(np.sum(missed, axis=0) / self.price[found.rows]))
            other = self.greedy(pool, found.rows[:out] + found.rows[out + 1 :])
            if other.left >= found.left * (1 - LEAST_GAIN):
                break
            found = other
        return found

    def _among(self, pool: np.ndarray) -> list[View]:
        return [view.take(pool) for view in self.views]

    def _ordered(self, found: Choice) -> Choice:
        """The same runs, the most worth for its price first."""
        left = found.rows
        states = [State.of(view) for view in self._among(np.array(left, int))]
        order: list[int] = []
        todo = np.ones(len(left), bool)
        while todo.any():
            worth = np.where(todo, self._gains(states) / self.price[left], -np.inf)
            pick = int(worth.argmax())
            for state in states:
                state.add(pick)
            todo[pick] = False
            order.append(left[pick])
        return Choice(order, found.spent, found.left)
