"""What else could have been proposed: by laws as good, under other weights, for the facts.

Each proposal is priced by the law that was chosen and the target's own weights, so that answers
that differ can be told from answers that matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from olmo_mixlaw import advice, laws
from olmo_mixlaw.advice.goal import MeanLoss
from olmo_mixlaw.advice.near_optimal import noise_of
from olmo_mixlaw.errors import MixlawError
from olmo_mixlaw.report.panels import Foreseen
from olmo_mixlaw.study.analysis import Answer
from olmo_mixlaw.study.settings import StudyConfig

STARTS = 4
UP = 2.0  # what a domain's weight is multiplied by
MOST_WEIGHTED = 8  # so many domains are weighted up, those of most weight first
BY_LAW, BY_WEIGHTS, BY_FACTS = "law", "weights", "facts"


@dataclass(frozen=True)
class Scenario:
    """A mixture (K,) that would be proposed, and why.

    `cost` is how much worse the objective at the target would be than at the proposal, in percent,
    as the chosen law and the target's own weights have it.
    """

    kind: str
    what: str
    law: str
    ratios: np.ndarray
    cost: float


@dataclass(frozen=True)
class WhatIf:
    """The scenarios, what reconciles them in words, and in percent what no choice is worth."""

    scenarios: list[Scenario]
    said: list[str]
    noise: float


def what_if(study: StudyConfig, answer: Answer, facts: dict[str, Foreseen]) -> WhatIf:
    """Proposals of laws as good, under other weights, and with the least ratio that teaches facts.

    `facts` says where half of a domain's facts are expected to be learned at the target.
    """
    fit, best = answer.fits[answer.chosen], answer.proposal
    where = best.n_params, best.n_tokens
    goal = MeanLoss.of(study.target.weights or None, best.targets)
    value = float(goal(best.losses[None])[0][0])
    noise = 100 * noise_of(fit, best, goal) / value
    found: list[Scenario] = []

    def add(
        kind: str,
        what: str,
        by: laws.Fit,
        weights: dict[str, float] | None,
        lower: dict[str, float],
        name: str = "",
    ) -> None:
        try:
            other = advice.optimum(
                by,
                *where,
                starts=STARTS,
                target_weights=weights,
                lower=lower,
                upper=study.target.upper,
            )
        except MixlawError:  # no mixture within the bounds, or a law that can't speak of the target
            return
        there = float(goal(fit.predict(other.ratios, *where))[0][0])
        cost = 100 * (there / value - 1)
        found.append(Scenario(kind, what, name or answer.chosen, other.ratios, cost))

    own, lower = study.target.weights or None, study.target.lower
    for name in (name for name in answer.comparison.near if name != answer.chosen):
        add(BY_LAW, f"by {name}", answer.fits[name], own, lower, name)
    if own and len(set(own.values())) > 1:
        add(BY_WEIGHTS, "all losses weighted alike", fit, None, lower)
    weights = dict(zip(best.targets, goal.weights, strict=True))
    for target in sorted(weights, key=lambda name: -weights[name])[:MOST_WEIGHTED]:
        heavier = {**weights, target: UP * weights[target]}
        if len(weights) > 1 and weights[target] > 0:
            add(BY_WEIGHTS, f"{target} weighted {UP:g} times", fit, heavier, lower)
    for domain, expected in facts.items():
        least = {**lower, domain: max(lower.get(domain, 0.0), expected.middle)}
        add(BY_FACTS, f"half of the facts of {domain} learned", fit, own, least)
    said = [
        _of_laws(answer, found, noise),
        _of_weights(best.domains, best.ratios, found),
        *_of_facts(answer, found, facts, noise),
    ]
    return WhatIf(found, [text for text in said if text], noise)


def _of_laws(answer: Answer, found: Sequence[Scenario], noise: float) -> str:
    some = [row for row in found if row.kind == BY_LAW]
    if not some:
        return (
            f"No other law is within one standard error of **{answer.chosen}**, so none "
            "is asked for a second opinion."
        )
    best = answer.proposal
    worst = max(row.cost for row in some)
    ratios = np.array([best.ratios, *(row.ratios for row in some)])
    widest = int(np.ptp(ratios, axis=0).argmax())
    names = ", ".join(row.law for row in some)
    apart = (
        f"{names}, within one standard error of the best, would also be believed: "
        f"{best.domains[widest]}, on which they differ most, lies between "
        f"{ratios[:, widest].min():.2f} and {ratios[:, widest].max():.2f}. "
    )
    if worst <= noise:
        return (
            f"{apart}**The difference does not matter**: under {answer.chosen} their mixtures cost "
            f"at most {max(worst, 0.0):.2f} %, less than two runs of one mixture may differ by "
            f"({noise:.2f} %)."
        )
    return (
        f"{apart}**The difference may matter**: under {answer.chosen} the worst of them costs "
        f"{worst:.2f} %, more than two runs of one mixture may differ by ({noise:.2f} %). More "
        f"runs that differ in {best.domains[widest]} would decide."
    )


def _of_weights(domains: list[str], ratios: np.ndarray, found: Sequence[Scenario]) -> str:
    some = [row for row in found if row.kind == BY_WEIGHTS]
    if not some:
        return ""
    moved = [0.5 * np.abs(row.ratios - ratios).sum() for row in some]
    most = int(np.argmax(moved))
    k = int(np.abs(some[most].ratios - ratios).argmax())
    return (
        f"What is wanted decides as well: with {some[most].what}, {domains[k]} would go from "
        f"{ratios[k]:.2f} to {some[most].ratios[k]:.2f}, the furthest that weights move the answer."
    )


def _of_facts(
    answer: Answer, found: Sequence[Scenario], facts: dict[str, Foreseen], noise: float
) -> list[str]:
    mixture, said = answer.proposal.mixture(), []
    priced = {row.what: row for row in found if row.kind == BY_FACTS}
    for domain, expected in facts.items():
        row = priced.get(f"half of the facts of {domain} learned")
        needed = f"{expected.middle:.2g} ({expected.low:.2g} to {expected.high:.2g})"
        if row is None:
            said.append(
                f"To learn half of the facts of {domain}, its ratio would have to be about {needed}"
                ", which the bounds don't allow."
            )
        elif mixture[domain] >= expected.high:
            said.append(
                f"The facts of {domain} ask for a ratio of {needed}; the proposal has more."
            )
        elif mixture[domain] >= expected.middle:
            said.append(
                f"The facts of {domain} ask for a ratio of {needed}; the proposal, "
                f"{mixture[domain]:.2f}, is within that interval: it may or may not be enough."
            )
        else:
            cheap = "no more than noise" if row.cost <= noise else "more than noise"
            said.append(
                f"Loss and recall ask for different things: the facts of {domain} need a ratio of "
                f"about {needed}, the proposal has {mixture[domain]:.2f}. Going there costs "
                f"{row.cost:.2f} % of the objective, {cheap}."
            )
    return said
