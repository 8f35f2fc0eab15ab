"""Where a study's facts are expected to be learned, by size, without any of the study's runs.

The published rule of capacity and exposures with the barrier of a cold start
(`advice.knowledge`): drawn beside what was measured, and at the target, where nothing was.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from olmo_mixlaw.advice.knowledge import Barrier, Facts, Outlook, Rule, facts_of
from olmo_mixlaw.advice.knowledge.barrier import PILOT
from olmo_mixlaw.advice.knowledge.outlook import quantiles
from olmo_mixlaw.errors import MixlawError
from olmo_mixlaw.models.ladder import short as size_label
from olmo_mixlaw.report.panels import Band, Foreseen
from olmo_mixlaw.study.analysis import LEARNT
from olmo_mixlaw.study.plan import plan, rung_of
from olmo_mixlaw.study.settings import StudyConfig

POINTS = 80  # ratios along a band


def foreseen(
    study: StudyConfig, domain: str, tokenizer: Path, barrier: Barrier = PILOT
) -> list[Foreseen]:
    """The ratios that teach half of the facts of `domain`, at each size and at the target.

    Each size is taken at its longest runs. Nothing where the domain holds no facts that could be
    counted, or where the study's models didn't start from nothing.
    """
    facts = _facts(study, domain, tokenizer)
    if facts is None:
        return []
    tokens: dict[int, int] = {}
    for run in plan(study):
        tokens[run.rung.n_params] = max(run.n_tokens, tokens.get(run.rung.n_params, 0))
    target = rung_of(study, study.target.size).n_params, study.target.tokens
    rows = [(n, d, False) for n, d in sorted(tokens.items())]
    found = []
    for n_params, n_tokens, is_target in [*rows, (*target, True)]:
        outlook = Outlook(facts, float(n_params), float(n_tokens), Rule(), barrier, 0)
        ratio = quantiles(outlook.ratios(LEARNT))
        found.append(
            Foreseen(float(n_params), ratio["middle"], ratio["low"], ratio["high"], is_target)
        )
    return found


def band_at_target(
    study: StudyConfig, domain: str, tokenizer: Path, barrier: Barrier = PILOT
) -> Band | None:
    """The part of the facts that the target is expected to know, by ratio, and its 90 %."""
    facts = _facts(study, domain, tokenizer)
    if facts is None:
        return None
    n_params = float(rung_of(study, study.target.size).n_params)
    outlook = Outlook(facts, n_params, float(study.target.tokens), Rule(), barrier, 0)
    ratios = np.linspace(0.005, 0.95, POINTS)
    known = np.array([outlook.known_part(float(ratio)) for ratio in ratios])
    low, middle, high = np.quantile(known, [0.05, 0.5, 0.95], axis=1)
    return Band(ratios, middle, low, high)


def _facts(study: StudyConfig, domain: str, tokenizer: Path) -> Facts | None:
    """The facts of a domain; None where there are none, or the models didn't start from nothing."""
    if study.base is not None:
        return None
    try:
        return facts_of(study.domains[domain], tokenizer=str(tokenizer))
    except MixlawError:  # token files, or a dataset without facts
        return None


def foreseen_text(rows: Sequence[Foreseen]) -> str:
    """What the bars are and what they say of the target, in two sentences."""
    target = rows[-1]
    return (
        "Bars at one half: where it was to be expected from no run of this study, by published "
        "constants of capacity, about 100 exposures a fact and the barrier of a cold start (90 %). "
        f"At the target, {size_label(target.size)} parameters: {target.middle:.2g} "
        f"({target.low:.2g} - {target.high:.2g})."
    )
