"""`plan`: will these facts be learned at this ratio, and what would it take?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from olmo_mixlaw.advice.knowledge import remedies
from olmo_mixlaw.advice.knowledge.barrier import FLOOR, NONE, PILOT, Barrier
from olmo_mixlaw.advice.knowledge.facts import Facts, facts_of
from olmo_mixlaw.advice.knowledge.outlook import Outlook, check_part, check_ratio, quantiles
from olmo_mixlaw.advice.knowledge.published import Case, most_alike, nearest
from olmo_mixlaw.advice.knowledge.rule import Rule

# Seen so often, a fact is at 9/10 of what kappa ever stores: more is spent for little.
OVER_REPEATED = 1000.0
_LIKELY, _UNLIKELY = 0.9, 0.1
_SURELY_LARGER = 1e13


@dataclass(frozen=True)
class KnowledgePlan:
    """The answer. `ratio_needed` and `size_needed` hold middle, low, high (90 %) and `enough`.

    `optimum_ratio` is the rule's own threshold with its interval: what a model that knows the facts
    keeps. `sweep` has rows (ratio, part the best learner knows, chance that a cold start learns).
    """

    facts: Facts
    ratio: float
    n_params: float
    n_tokens: float
    accuracy: float
    sure: float
    exposures: float
    probability: float
    expected: float
    kept_if_known: float
    optimum_ratio: tuple[float, float, float]
    ratio_needed: dict[str, float]
    size_needed: dict[str, float]
    subsampling: remedies.Subsampling
    mixing: remedies.Mixing
    near: Case
    alike: Case
    sweep: list[tuple[float, float, float]]
    barrier: Barrier
    sources: tuple[str, str]
    warnings: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """One word: yes, probably, open, probably not, no."""
        steps = [(_LIKELY, "yes"), (0.65, "probably"), (0.35, "open"), (_UNLIKELY, "probably not")]
        return next((word for least, word in steps if self.probability >= least), "no")


def plan(
    facts: Facts | str | float,
    *,
    ratio: float,
    n_params: float,
    n_tokens: float,
    accuracy: float = 0.5,
    sure: float = 0.9,
    rule: Rule | None = None,
    barrier: Barrier = PILOT,
    warm: bool = False,
    seed: int = 0,
) -> KnowledgePlan:
    """Whether a model of `n_params` trained on `n_tokens`, a part `ratio` of them facts, knows it.

    Learned means that at least `accuracy` of them are known. `sure` is the probability that the
    needed ratio, size and remedies are chosen for. `rule` is the published one unless given
    (`Rule(web_of(...), storage_of(...))`); `warm` is for a start that knows the facts.
    Raises `ConfigError`, `DataError`.
    """
    facts = facts if isinstance(facts, Facts) else facts_of(str(facts))
    check_ratio(ratio)
    check_part(accuracy, "accuracy")
    check_part(sure, "sure")
    rule = rule or Rule()
    barrier = NONE if warm else barrier
    outlook = Outlook(facts, float(n_params), float(n_tokens), rule, barrier, seed)
    exposures = float(facts.exposures(ratio, n_tokens))
    best = rule.best()
    found = KnowledgePlan(
        facts=facts,
        ratio=float(ratio),
        n_params=float(n_params),
        n_tokens=float(n_tokens),
        accuracy=accuracy,
        sure=sure,
        exposures=exposures,
        probability=outlook.probability(ratio, accuracy),
        expected=outlook.expected(ratio),
        kept_if_known=float(best.known_part(facts, ratio, n_params, n_tokens)[0]),
        optimum_ratio=outlook.critical_ratio(accuracy),
        ratio_needed=quantiles(outlook.ratios(accuracy), sure),
        size_needed=quantiles(outlook.sizes(ratio, accuracy), sure),
        subsampling=remedies.subsampling(outlook, ratio),
        mixing=remedies.mixing(outlook, ratio, accuracy, sure),
        near=nearest(facts, ratio, n_params, n_tokens),
        alike=most_alike(facts, ratio, n_params, n_tokens, best),
        sweep=_sweep(outlook, best, accuracy),
        barrier=barrier,
        sources=(rule.web.source, rule.storage.source),
    )
    return replace(found, warnings=_warnings(found, rule))


def _sweep(outlook: Outlook, best: Rule, accuracy: float) -> list[tuple[float, float, float]]:
    rows = []
    for r in np.r_[np.geomspace(1e-3, 0.3, 100), np.linspace(0.31, 0.95, 33)]:
        known = float(best.known_part(outlook.facts, r, outlook.n_params, outlook.n_tokens)[0])
        rows.append((float(r), known, outlook.probability(float(r), accuracy)))
    return rows


def _warnings(found: KnowledgePlan, rule: Rule) -> list[str]:
    e, notes = found.exposures, []
    if e > OVER_REPEATED:
        enough = OVER_REPEATED * found.facts.tokens_a_pass / found.n_tokens
        notes.append(
            f"over-repeated: each fact is seen {e:,.0f} times, and beyond {OVER_REPEATED:,.0f} "
            f"little is gained; a ratio of {enough:.3g} shows it so often"
        )
    elif e > FLOOR[0]:
        notes.append(
            f"each fact is seen {e:,.0f} times: in one wording it is learned by heart and not as "
            "an answer, so give every fact several wordings"
        )
    if e < FLOOR[1]:
        notes.append(
            f"{e:.3g} exposures a fact: about 100 are needed (known to a factor of two, "
            f"{FLOOR[0]:.0f} to {FLOOR[1]:.0f}), however large the model"
        )
    full = found.facts.bits_in_all / found.n_params
    most = float(rule.best().storage.bits(np.array([e]))[0])
    if full > most:
        notes.append(
            f"the facts hold {full:.3g} bits a parameter, and at {e:.3g} exposures a parameter "
            f"stores {most:.3g}: this size can't know them all, at any ratio of the same exposures"
        )
    if rule.draws == 1:
        notes.append(
            "web loss and storage are published constants without an interval; runs of your own on "
            "the web alone and on the facts alone bring one (--runs)"
        )
    if found.barrier == PILOT:
        notes.append(
            "the barrier of a cold start was measured at 10 to 26 thousand parameters; published "
            "runs of 70M and 410M began at 1.6 to 3.3 times the rule's odds, within it, but the "
            "climb after that is slower than the rule's"
        )
    if reach := rule.web.reach(found.n_params):
        notes.append(reach)
    return notes


def document(found: KnowledgePlan) -> dict[str, Any]:
    """A plan as `--json` has it; sizes that no model reaches are null."""
    best, low, high = found.optimum_ratio
    return {
        "verdict": found.verdict,
        "probability": found.probability,
        "expected_accuracy": found.expected,
        "accuracy": found.accuracy,
        "sure": found.sure,
        "ratio": found.ratio,
        "n_params": found.n_params,
        "n_tokens": found.n_tokens,
        "facts": {
            "n": found.facts.n,
            "bits": found.facts.bits,
            "tokens": found.facts.tokens,
            "tuple_tokens": found.facts.short_tokens,
            "bits_in_all": found.facts.bits_in_all,
        },
        "exposures": found.exposures,
        "optimum": {"known": found.kept_if_known, "ratio": best, "low": low, "high": high},
        "ratio_needed": found.ratio_needed,
        "size_needed": _finite(found.size_needed),
        "barrier": {
            "odds_low": found.barrier.low,
            "odds_high": found.barrier.high,
            "sweeps": found.barrier.count,
            "odds_90_percent": [found.barrier.quantile(0.05), found.barrier.quantile(0.95)],
            "source": found.barrier.source,
        },
        "subsampling": {
            "rho": found.subsampling.rho,
            "known_of_all": found.subsampling.known,
            "known_without": found.subsampling.whole,
            "helps": found.subsampling.helps,
        },
        "compact_mixing": {
            "tau": found.mixing.tau,
            "probability": found.mixing.probability,
            "reached": found.mixing.reached,
            "tried": found.mixing.rows,
        },
        "nearest_measured": found.near.text(),
        "most_alike_measured": found.alike.text(),
        "sources": {"web": found.sources[0], "storage": found.sources[1]},
        "warnings": found.warnings,
    }


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {key: value if value < _SURELY_LARGER else None for key, value in values.items()}
