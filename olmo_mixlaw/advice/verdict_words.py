"""The kinds of a verdict, and how a careful colleague says them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DISTINGUISHABLE = "distinguishable"
AS_GOOD = "as good as"
CANT_TELL = "can't tell"
# The reference is the better one: bounds or caps can make a proposal so.
WORSE = "worse"

LEVEL = 0.9  # what an interval holds
PERCENT, POINTS = "%", "points"
# Differences below this are worth no choice: .5 % of a loss is what a tenth more compute buys
# (L ~ C^-.05, Kaplan et al., arXiv 2001.08361), .5 points are the standard error of a mean of some
# ten benchmarks of a thousand questions each.
BAND = {PERCENT: 0.5, POINTS: 0.5}


def kind_of(low: float, high: float, unit: str = PERCENT) -> str:
    """The kind of a gain by its interval: better, worse, as good within `BAND`, or unknown."""
    if low > 0:
        return DISTINGUISHABLE
    if high < 0:
        return WORSE
    return AS_GOOD if -BAND[unit] <= low and high <= BAND[unit] else CANT_TELL


PROPOSED = "The proposed mixture"


@dataclass(frozen=True)
class Said:
    """A verdict's figures, and how one says them."""

    subject: str
    kind: str
    against: str
    what: str
    at: str
    gain: float
    low: float
    high: float
    unit: str
    error: float
    tested: bool = True

    def sentence(self) -> str:
        """What is predicted, how sure that is, and what follows."""
        if self.gain == 0 == self.low:
            return f"{self.subject} is {self.against} itself, within a rounding."
        return f"{self.predicted()}{self.judged()}"

    def predicted(self) -> str:
        """The gain and its interval."""
        better = "raise" if self.unit == POINTS else "lower"
        worse = "lower" if self.unit == POINTS else "raise"
        at = f" at {self.at}" if self.at else ""
        verb = better if self.gain >= 0 else worse
        told = f"{short(abs(self.gain))} {self.unit}"
        if np.isfinite(self.low):
            of = "" if self.gain >= 0 else " of the gain"
            told += f" (90 % interval{of} {short(self.low)} to {short(self.high)} {self.unit})"
        return (
            f"{self.subject} is predicted to {verb} the {self.what}{at} by {told} against "
            f"{self.against}"
        )

    def judged(self) -> str:
        """What follows from that."""
        error = f"{short(self.error)} {self.unit}"
        band = f"{BAND[self.unit]:g} {self.unit}"
        if not np.isfinite(self.low):
            return (
                "; how far the law errs between mixtures isn't known, so nor is whether that is a "
                "gain. Fit with mixtures held out, or compare laws."
            )
        if self.kind == DISTINGUISHABLE:
            small = f", if by less than {band}" if self.high < BAND[self.unit] else ""
            return (
                f". The law's own errors between mixtures held out are {error}: the gain is beyond "
                f"what it may be off here. Take it; it is better{small}."
            )
        if self.kind == WORSE:
            return (
                f". That is beyond what the law may be off here ({error} between mixtures held "
                "out): keep that mixture, or loosen what the proposal must obey."
            )
        if not self.tested:
            return (
                f"; the law's own errors between mixtures held out are {error}, but it lies "
                "farther outside of what was tried than any of these, where errors are larger. "
                "Keep ratios nearer to those tried (bounds do), or run this mixture once at a "
                "small size."
            )
        if self.kind == AS_GOOD:
            return (
                f": no difference of {band} or more either way. Either is as good; choose by what "
                "the goal leaves out, such as the tokens at hand or what is known to work."
            )
        lean = "Either is a fair choice" if self.gain >= 0 else "Nothing speaks for a change"
        if -BAND[self.unit] <= self.low:
            lean = f"At worst it costs {short(-self.low)} {self.unit}; {lean[0].lower()}{lean[1:]}"
        return (
            f"; the law's own errors between mixtures held out are {error}, so these runs can't "
            f"tell the two apart. {lean}; a run of each at the largest size that can be paid, or "
            "more mixtures between them, would settle it."
        )


def short(value: float) -> str:
    """A percentage or points as one says it: two decimals below 1, else one."""
    return f"{value:.2f}" if abs(value) < 1 else f"{value:.1f}"
