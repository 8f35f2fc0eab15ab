"""Which runs a finished study should make next: the planner's answer for its own target."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from olmo_mixlaw.advice.design import Candidates, Plan, Target, plan_runs
from olmo_mixlaw.advice.design.offer import Offered, draw_mixtures, offer
from olmo_mixlaw.advice.design.prices import Prices
from olmo_mixlaw.advice.design.told import runs_of, sentence
from olmo_mixlaw.advice.simplex import bounds_of
from olmo_mixlaw.errors import MixlawError
from olmo_mixlaw.laws.repetition import available_of
from olmo_mixlaw.models.ladder import load_ladder
from olmo_mixlaw.runs import RunTable
from olmo_mixlaw.study.analysis import Answer
from olmo_mixlaw.study.collect import target_tokens
from olmo_mixlaw.study.plan import groups, plan, rung_of, whole_batches
from olmo_mixlaw.study.settings import StudyConfig

# What is planned: so much of what the study has cost, in so many batches, among so many mixtures.
PART, BATCHES, MIXTURES = 0.5, 3, 60


@dataclass(frozen=True, eq=False)
class NextRuns:
    """The plan and its runs, or in `said` why there is none."""

    said: str
    runs: pd.DataFrame
    plan: Plan | None = None
    candidates: Candidates | None = None
    unit: str = ""


def next_runs(study: StudyConfig, table: RunTable, answer: Answer) -> NextRuns:
    """The runs that half of what the study has cost would best be spent on.

    Offered are its own sizes and lengths, and the larger rungs of its ladder below the target, all
    within the target's bounds and, where sources end, repeating them as the target will.
    """
    try:
        return _planned(study, table, answer)
    except MixlawError as error:
        return NextRuns(f"No plan could be made: {error}", pd.DataFrame())


def _planned(study: StudyConfig, table: RunTable, answer: Answer) -> NextRuns:
    design, names = table.design(), list(study.domains)
    order = [names.index(domain) for domain in design.domains]
    low, high = bounds_of(design.domains, study.target.lower, study.target.upper)
    mixtures = draw_mixtures(MIXTURES, design.ratios.mean(0), low, high, study.seeds[0])
    tried = np.array(
        [[ratios.get(name, 0.0) for name in names] for ratios in study.mixtures.values()]
    )[:, order]
    available = target_tokens(study, table)
    n_tokens = float(answer.n_tokens)
    candidates, which = offer(
        design.domains,
        _sizes(study, answer),
        np.concatenate([tried, mixtures]),
        Prices(),
        available=available,
        target_tokens=n_tokens,
    )
    spent = sum(run.rung.training_flops(run.n_tokens) for run in plan(study))
    ends = None if available is None else available_of(available, design.domains)
    found = plan_runs(
        candidates,
        target=Target(
            float(answer.rung.n_params),
            n_tokens,
            available=ends,
            price=answer.rung.training_flops(answer.n_tokens),
        ),
        budget=PART * spent,
        seen=design,
        batch=PART * spent / BATCHES,
        goal_weights=study.target.weights or None,
        seed=study.seeds[0],
    )
    runs = runs_of(candidates, which, found)
    target, cost = study.target.size, f"{found.spent:.3g} FLOPs"
    stop = f"{found.stop[:1].upper()}{found.stop[1:]}."
    said = f"{sentence(found, runs, design.unit, target, cost)} {stop}"
    return NextRuns(said, runs, found, candidates, design.unit)


def _sizes(study: StudyConfig, answer: Answer) -> list[Offered]:
    """The study's sizes and lengths, and larger rungs below the target at its longest."""
    asked = dict.fromkeys((size, tokens) for size, tokens, _, _ in groups(study))
    longest = max(tokens for _, tokens in asked)
    for name in load_ladder(study.ladder).rungs:
        if rung_of(study, name).n_params < answer.rung.n_params:
            asked.setdefault((name, longest))
    found = []
    for name, tokens in asked:
        rung = rung_of(study, name)
        _, whole = whole_batches(tokens, rung)
        found.append(Offered(name, float(rung.n_params), float(whole), rung.training_flops(whole)))
    return found
