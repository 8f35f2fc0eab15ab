"""How long the rest of a study will take, from how fast its runs have been.

A run takes a start, its steps and a scoring. Seconds a step are learned size by size, the latest
counting most; a size that hasn't run yet lies on the line through the others in log seconds over
log operations. What is left is then laid out over the workers as the study does, and what is said
moves towards that slowly: a run that is slow for a minute doesn't change an hour's forecast.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

# The line's slope where one size is all that is known, and its limits: between models so small
# that only their layers are counted (0) and those whose operations are (1).
SLOPE, SLOPES = 0.5, (0.0, 1.0)
MEMORY = 180.0  # seconds over which what was learned of a pace fades to 1/e
# What is said goes this part of the way to what is found in so many seconds, or in this part of
# what is left, whichever is longer.
SETTLING, SETTLING_PART = 20.0, 0.15
LEAST_STEPS = 0.02  # of a run, before its pace is believed
START, SCORING = 5.0, 3.0  # seconds, where no run has shown them yet


@dataclass(frozen=True)
class Work:
    """A run as far as time goes: operations of one step (of its size), and how many steps."""

    run_id: str
    size: str
    flops: float
    steps: int


@dataclass
class _Fading:
    """A mean of amounts over weights, of which the latest count most."""

    amount: float = 0.0
    weight: float = 0.0
    at: float | None = None

    def add(self, amount: float, weight: float, now: float) -> None:
        kept = 1.0 if self.at is None else math.exp(-max(0.0, now - self.at) / MEMORY)
        self.amount, self.weight = self.amount * kept + amount, self.weight * kept + weight
        self.at = now

    @property
    def mean(self) -> float | None:
        return self.amount / self.weight if self.weight > 0 else None


@dataclass
class _Going:
    """A run under way: when it began, its first step that was seen, and its last."""

    began: float
    first: tuple[int, float] | None = None
    last: tuple[int, float] | None = None


@dataclass
class Estimate:
    """Learns from steps and ends of runs; `left` says the seconds to the end of all.

    `paces` are seconds a step by size that were measured before (a probe, finished runs), and
    `scorings` those of a scoring. Times are of a clock that never jumps.
    """

    works: Mapping[str, Work]
    workers: int
    paces: Mapping[str, float] = field(default_factory=dict)
    scorings: Mapping[str, float] = field(default_factory=dict)
    _pace: dict[str, _Fading] = field(init=False, default_factory=dict)
    _start: dict[str, _Fading] = field(init=False, default_factory=dict)
    _scoring: dict[str, _Fading] = field(init=False, default_factory=dict)
    _going: dict[str, _Going] = field(init=False, default_factory=dict)
    _said: tuple[float, float] | None = field(init=False, default=None)  # when, how much
    _flops: dict[str, float] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._flops = {work.size: work.flops for work in self.works.values()}
        for size, pace in self.paces.items():
            steps = next((w.steps for w in self.works.values() if w.size == size), 1)
            self._of(self._pace, size).add(pace * steps, steps, -math.inf)
        for size, seconds in self.scorings.items():
            self._of(self._scoring, size).add(seconds, 1.0, -math.inf)

    @staticmethod
    def _of(table: dict[str, _Fading], size: str) -> _Fading:
        return table.setdefault(size, _Fading())

    def observe(self, run_id: str, step: int, now: float) -> None:
        """A run that is under way has made `step` steps by `now` (0: none yet)."""
        work = self.works[run_id]
        going = self._going.setdefault(run_id, _Going(now))
        if step <= 0 or (going.last is not None and step <= going.last[0]):
            return
        if going.last is None:
            # The first row tells when training began, or went on; not how fast it is.
            going.first = going.last = (step, now)
            self._of(self._start, work.size).add(now - going.began, 1.0, now)
            return
        steps, seconds = step - going.last[0], now - going.last[1]
        self._of(self._pace, work.size).add(seconds, steps, now)
        going.last = (step, now)

    def finished(self, run_id: str, now: float) -> None:
        """A run that was observed is trained and scored."""
        going, work = self._going.pop(run_id, None), self.works[run_id]
        if going is None or going.last is None:
            return
        step, at = going.last
        rest = (work.steps - step) * (self.pace(work.size) or 0.0)
        self._of(self._scoring, work.size).add(max(0.0, now - at - rest), 1.0, now)

    def only(self, running: Iterable[str]) -> None:
        """No other run is under way: one has failed, or somebody else has it now."""
        kept = set(running)
        self._going = {name: going for name, going in self._going.items() if name in kept}

    def pace(self, size: str) -> float | None:
        """Seconds a step of a size; None while nothing is known of any."""
        return self._by_size(self._pace, size)

    def seconds(self, work: Work) -> float | None:
        """How long a whole run takes, start and scoring included."""
        pace = self.pace(work.size)
        return None if pace is None else self._fixed(work.size) + work.steps * pace

    def left(
        self, running: Sequence[str], waiting: Iterable[str], now: float, elsewhere: int = 0
    ) -> float | None:
        """Seconds until all is done, as said before with what was learned since.

        `running` and `waiting` are runs, the latter in their order; `elsewhere` counts workers of
        other processes that take from them too. None while nothing is known.
        """
        found = self._found(running, waiting, now, elsewhere)
        if found is None:
            return None
        if self._said is None:
            self._said = (now, found)
            return found
        then, said = self._said
        passed = max(0.0, now - then)
        expected = max(said - passed, 0.0)
        settling = max(SETTLING, SETTLING_PART * found)
        part = 1 - math.exp(-passed / settling)
        told = expected + part * (found - expected)
        self._said = (now, told)
        return told

    def _found(
        self, running: Sequence[str], waiting: Iterable[str], now: float, elsewhere: int
    ) -> float | None:
        rest = [self._rest(run_id, now) for run_id in running]
        whole = [self.seconds(self.works[run_id]) for run_id in waiting]
        if not self._is_known(running) or any(value is None for value in [*rest, *whole]):
            return None
        ends = [value for value in rest if value is not None]
        ends += [0.0] * (max(1, self.workers + elsewhere) - len(ends))
        heapq.heapify(ends)
        for value in whole:
            assert value is not None
            heapq.heapreplace(ends, ends[0] + value)
        return max(ends)

    def _is_known(self, running: Sequence[str]) -> bool:
        """Whether a pace was measured over more than the first of a run's steps."""
        if len(self._pace) > 1 or self.paces:
            return True
        return any(
            going.first and going.last and going.last[0] - going.first[0] >= LEAST_STEPS * steps
            for going, steps in (
                (self._going[r], self.works[r].steps) for r in running if r in self._going
            )
        )

    def _rest(self, run_id: str, now: float) -> float | None:
        """Seconds that a run which is under way still takes."""
        work, going = self.works[run_id], self._going.get(run_id)
        whole = self.seconds(work)
        if whole is None or going is None:
            return whole
        if going.last is None:
            return max(0.0, whole - (now - going.began))
        step, at = going.last
        pace = self.pace(work.size)
        assert pace is not None
        scoring = self._by_size(self._scoring, work.size)
        ahead = (work.steps - step) * pace + (SCORING if scoring is None else scoring)
        return max(0.0, ahead - (now - at))

    def _fixed(self, size: str) -> float:
        start, scoring = self._by_size(self._start, size), self._by_size(self._scoring, size)
        return (START if start is None else start) + (SCORING if scoring is None else scoring)

    def _by_size(self, table: Mapping[str, _Fading], size: str) -> float | None:
        """What was learned of a size, or lies on the line through others."""
        own = table[size].mean if size in table else None
        if own is not None:
            return own
        known = sorted(
            (math.log(self._flops[name]), math.log(max(some.mean, 1e-9)))
            for name, some in table.items()
            if some.mean is not None and name in self._flops
        )
        if not known:
            return None
        x = math.log(self._flops[size])
        nearest = sorted(known, key=lambda point: abs(point[0] - x))
        (x0, y0), slope = nearest[0], SLOPE
        if len(known) > 1 and nearest[1][0] != x0:
            x1, y1 = nearest[1]
            slope = min(max((y1 - y0) / (x1 - x0), SLOPES[0]), SLOPES[1])
        return math.exp(y0 + slope * (x - x0))
