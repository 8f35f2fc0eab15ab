"""One proposal, and what is known of its gain over any other mixture: `verdict` asks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student

from olmo_mixlaw.advice.optimum import HULL_LIMIT, Limits, Optimum, Problem
from olmo_mixlaw.advice.repetition import for_run
from olmo_mixlaw.advice.verdict_words import (
    AS_GOOD,
    CANT_TELL,
    LEVEL,
    PERCENT,
    POINTS,
    WORSE,
    Said,
    kind_of,
)
from olmo_mixlaw.laws.choice.differences import Differences, reach_of
from olmo_mixlaw.laws.choice.uncertainty import interval
from olmo_mixlaw.laws.fitted import Fit

# Mixtures whose ratios all differ by less are one, written twice.
SAME = 1e-4
# A law's favourite fell short of what was predicted, on average, by this part of the error: it is
# chosen by its predictions, and so by their luck (benchmarks/verdict.py).
FAVOUR = 0.4
# A mixture so many times as far outside of those tried as the mixtures held out is not judged: a
# law's optimum there was often no gain at all (the same benchmark).
UNTESTED = 1.2
# Below this part of differences explained a law is named a weak guide.
WEAK = 0.5
# Below this part, which chance may reach, it tells nothing at all.
BLIND = 0.1
# An interval needs this many mixtures held out not to be called rough (the same benchmark).
FEW = 12
# The target is called far where it lies this much farther (in logs) than any size held out.
FARTHER = 0.1


@dataclass(frozen=True)
class Verdict:
    """Whether a proposed mixture is better than a reference: `kind` is one of the constants above.

    `against` names the reference, whose `ratios` (K,) are by `domains`. `gain` is the goal's,
    positive where the proposal is better, `low` and `high` its 90 % interval, in `unit`: percent of
    the reference's loss, or points (hundredths) of score. They are NaN where nobody measured how
    far the law errs between mixtures. `error` is the standard deviation of that at the usual
    distance. `sentence` is what a careful colleague would say; `cautions` what to keep in mind.
    """

    kind: str
    against: str
    domains: tuple[str, ...]
    ratios: np.ndarray
    gain: float
    low: float
    high: float
    unit: str
    cautions: tuple[str, ...]
    sentence: str
    error: float = np.nan

    def document(self) -> dict[str, Any]:
        """The verdict as `--json` has it."""
        mixture = dict(zip(self.domains, map(float, self.ratios), strict=True))
        return {
            "kind": self.kind,
            "against": self.against,
            "mixture": mixture,
            "gain": self.gain,
            "low": self.low,
            "high": self.high,
            "level": LEVEL,
            "unit": self.unit,
            "error_between_mixtures": self.error,
            "sentence": self.sentence,
            "cautions": list(self.cautions),
        }

    def text(self) -> str:
        """The sentence, and a line for each caution."""
        return "\n".join([self.sentence, *(f"  but: {note}" for note in self.cautions)])


@dataclass(frozen=True)
class Judge:
    """What all verdicts on one proposal have in common."""

    problem: Problem
    best: Optimum
    between: Differences | None
    refits: tuple[Fit, ...]
    at: str
    subject: str

    @classmethod
    def of(
        cls,
        fit: Fit,
        best: Optimum,
        between: Differences | None,
        refits: Sequence[Fit],
        at: str,
        subject: str,
        limits: Limits,
    ) -> Judge:
        problem = Problem.of(fit, best.n_params, best.n_tokens, best.n_active, **limits)
        available, cap = limits.get("available_tokens"), limits.get("cap_tokens")
        others = tuple(for_run(other, best.n_tokens, available, cap) for other in refits)
        return cls(problem, best, between or Differences.of(fit), others, at, subject)

    @property
    def unit(self) -> str:
        """Points where the goal has scores, else percent of its value."""
        return POINTS if hasattr(self.problem.goal, "scores") else PERCENT

    def allows(self, ratios: np.ndarray) -> bool:
        """Whether a mixture (K,) keeps the bounds."""
        low, high = self.problem.low, self.problem.high
        return bool(((ratios >= low - SAME) & (ratios <= high + SAME)).all())

    def best_tried(self, tried: Mapping[str, np.ndarray]) -> tuple[np.ndarray, str]:
        """The mixture that the law calls best of those within the bounds (or of all), its name."""
        names, mixtures = list(tried), np.array(list(tried.values()), float)
        allowed = np.array([self.allows(mixture) for mixture in mixtures])
        value = self.problem.goal(self.problem.predicted(mixtures))[0]
        if allowed.any():
            value = np.where(allowed, value, np.inf)
        return mixtures[value.argmin()], names[int(value.argmin())]

    def gain(self, losses: np.ndarray) -> float:
        """The goal's gain from losses (2, T) of a reference and of the proposal, in the unit."""
        value = self.problem.goal(losses)[0]
        if self.unit == POINTS:
            return 100 * float(value[0] - value[1])
        return 100 * float((value[0] - value[1]) / abs(value[0]))

    def slope(self, losses: np.ndarray) -> np.ndarray:
        """The gain's slopes (T,) by log losses, midway between both mixtures' (2, T)."""
        middle = losses.mean(0)
        value, by_loss = self.problem.goal(middle[None])
        scale = 100.0 if self.unit == POINTS else 100.0 / abs(float(value[0]))
        return np.asarray(scale * by_loss[0] * middle)

    def reach(self) -> float:
        """How far the target lies beyond the runs fitted, in logs."""
        scene = self.problem.fit.scene
        size = float(np.asarray(self.problem.size, float))
        return reach_of(size, self.best.n_tokens, scene.n_range[1], scene.d_range[1])

    def spread(self) -> float:
        """The variance of the gain between two of the mixtures fitted, at the target."""
        value = self.problem.goal(self.problem.predicted(self.problem.fit.mixtures))[0]
        scale = 100.0 if self.unit == POINTS else 100.0 / abs(float(value.mean()))
        return 2 * float(np.var(scale * value))

    def error(self, losses: np.ndarray, distance: float) -> float:
        """The standard deviation of the gain's error for two mixtures so far apart."""
        assert self.between is not None
        slope = self.slope(losses)
        variance = self.between.variance(slope, distance)
        # What a law's form leaves out bends away with the square of the distance outside.
        variance *= self.outdone() ** 4
        if (reach := self.reach()) > 0:
            share = (distance / self.between.usual) ** 2
            variance += self.between.drift(slope) * reach * self.spread() * share
        return float(np.sqrt(variance))

    def outdone(self) -> float:
        """How many times as far outside every blend of those tried it lies as any held out."""
        if self.between is None:
            return 1.0
        return self.between.outdone(self.best.hull_distance, HULL_LIMIT)

    def ends(self, losses: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
        """The 90 % interval of the gain; NaN where the error between mixtures isn't known."""
        gain, distance = self.gain(losses), _distance(reference, self.best.ratios)
        if self.between is None:
            return np.nan, np.nan
        freedom = max(self.between.mixtures - 1, 1)
        error = self.error(losses, distance)
        half, short = float(student.ppf((1 + LEVEL) / 2, freedom)) * error, FAVOUR * error
        low, high = gain - short - half, gain - short + half
        if self.refits:
            pair = np.stack([reference, self.best.ratios])
            where = (self.best.n_params, self.best.n_tokens, self.best.n_active)
            moved = [self.gain(other.predict(pair, *where)) for other in self.refits]
            ends = interval(np.array(moved), LEVEL)
            low, high = min(low, float(ends[0])), max(high, float(ends[1]))
        return low, high

    def verdict(
        self,
        reference: np.ndarray,
        against: str,
        cautions: Sequence[str],
        besides: tuple[float, float] | None = None,
    ) -> Verdict:
        """The verdict against one mixture (K,).

        `besides` are the ends of another interval of the gain, which theirs is widened to hold.
        """
        fit = self.problem.fit
        reference = fit.checked_ratios(reference)[0]
        losses = self.problem.predicted(np.stack([reference, self.best.ratios]))
        gain, (low, high) = self.gain(losses), self.ends(losses, reference)
        if besides is not None:
            low, high = min(low, besides[0]), max(high, besides[1])
        slope = self.slope(losses)
        error = np.nan if self.between is None else self.between.typical(slope)
        no_answer = fit.cannot_tell_mixtures() or self.blind(slope)
        tested = self.outdone() < UNTESTED
        same = np.abs(reference - self.best.ratios).max() < SAME
        if no_answer or (self.between is None and not same):
            kind = CANT_TELL
        elif same:
            kind, gain, low, high = AS_GOOD, 0.0, 0.0, 0.0
        else:
            kind = kind_of(low, high, self.unit)
            if not tested and kind != WORSE:
                kind = CANT_TELL
        where = self.what(), self.at
        said = Said(self.subject, kind, against, *where, gain, low, high, self.unit, error, tested)
        notes = (*self.cautions(slope), *cautions)
        sentence = no_answer or said.sentence()
        domains = tuple(fit.domains)
        return Verdict(
            kind, against, domains, reference, gain, low, high, self.unit, notes, sentence, error
        )

    def what(self) -> str:
        """What is gained: the mean loss or score, weighted or not."""
        kind = "score" if self.unit == POINTS else "loss"
        weights = getattr(self.problem.goal, "weights", None)
        weighted = weights is not None and np.ptp(np.asarray(weights, float)) > 1e-9
        return f"weighted mean {kind}" if weighted else f"mean {kind}"

    def blind(self, slope: np.ndarray) -> str:
        """That the law tells nothing of the goal's differences on mixtures held out, if so."""
        if self.between is None or not self.between.r2(slope) < BLIND:
            return ""
        return (
            f"NO ANSWER: on mixtures held out {self.problem.fit.law.label} explains next to "
            f"nothing of how the {self.what()} differs (R2 {self.between.r2(slope):.2f}), so no "
            "mixture is known to be better; add runs"
        )

    def cautions(self, slope: np.ndarray) -> list[str]:
        """What speaks against believing this law here, whatever the reference."""
        between, reach = self.between, self.reach()
        if between is None:
            return [
                "how far the law errs between mixtures was not measured (fewer than three to hold "
                "out, or a fit that was saved without); refits alone are far too sure"
            ]
        found = []
        if BLIND <= between.r2(slope) < WEAK:
            found.append(
                f"on mixtures held out the law explains {between.r2(slope):.0%} of the differences"
            )
        if between.mixtures < FEW:
            found.append(f"only {between.mixtures} mixtures were held out: the interval is rough")
        if (outdone := self.outdone()) > 1:
            found.append(
                f"the mixture lies {outdone:.2g} times as far outside every blend of those tried "
                "as the mixtures held out, where nothing tested the law: its error is taken for "
                "larger"
            )
        return [*found, *_of_scale(between, slope, reach, self.at)]


def _of_scale(between: Differences, slope: np.ndarray, reach: float, at: str) -> list[str]:
    """What is not known of mixtures' differences beyond the runs fitted."""
    if reach <= 0:
        return []
    target, far = at or "the target", f"{np.exp(reach):.2g} times"
    if not between.beyond_mixtures:
        return [
            f"{target} lies {far} beyond the runs and no size could be held out: how differences "
            "carry over is what public tables show"
        ]
    found = []
    if between.beyond_r2(slope) < WEAK:
        found.append(
            "with the largest size held out the law explains "
            f"{max(between.beyond_r2(slope), 0):.0%} of its differences between mixtures"
        )
    if reach > between.reach + FARTHER:
        found.append(
            f"{target} lies {far} beyond the runs; the size held out lay "
            f"{np.exp(between.reach):.2g} times beyond the rest"
        )
    return found


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """Total variation between two mixtures."""
    return float(0.5 * np.abs(one - other).sum())
