"""`plan_runs`: which runs to buy for a target, under a budget, and whether they pay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from olmo_mixlaw.advice.design.belief import Belief, Question, beliefs_of
from olmo_mixlaw.advice.design.candidates import Candidates, Target
from olmo_mixlaw.advice.design.choose import MOST_RUNS, Chooser, view_of
from olmo_mixlaw.advice.design.regret import outcomes
from olmo_mixlaw.advice.goal import Goal, goal_of
from olmo_mixlaw.errors import ConfigError, unknown_name
from olmo_mixlaw.laws.choice.selection import held_out
from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.laws.law import Law, resolve
from olmo_mixlaw.laws.level import MOST_TOKENS
from olmo_mixlaw.runs import Design

# Three shapes that differ in how a mixture acts, each of which a short table can carry.
LAWS = ("shared_power", "modulated", "transfer")
# How the laws' gains are joined.
MEAN, WORST = "mean", "worst"
ACROSS = (MEAN, WORST)
# Mixtures among which the optimum is sought where nobody says, half of them candidates'.
MIXTURES = 192
# Digits by which a candidate is a run that was made already: of ratios, log N and log D.
SAME = 4
# A law's held-out error counts as this much at least (%), in the weights of laws.
LEAST_ERROR = 0.05
# A batch is worth no more than so many times the price of the run at the target.
MOST_WORTH = 4.0


@dataclass(frozen=True)
class Batch:
    """What a batch buys: rows `first` to `last` (excluded) of the plan.

    `spent`, `regret` and `error` are those after it. `worth` is the price of the compute that the
    gain so far would take at the target, None where the target has no price.
    """

    first: int
    last: int
    spent: float
    regret: float
    error: float
    worth: float | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """Runs worth buying, the most worth first.

    `rows` are indices into the candidates (an index comes again where a run is repeated);
    `expected_regret` (before, after) is how much worse the mixture picked will be than the best, in
    the unit of the goal; `expected_error` (before, after) the standard deviation of the log of
    the goal's forecast at the mixture picked. `pays` is how many of the batches are worth more than
    they cost, `stop` says in words why the plan ends where it does. `laws` are the laws' weights.
    """

    rows: np.ndarray
    expected_regret: tuple[float, float]
    expected_error: tuple[float, float]
    spent: float
    stop: str
    batches: list[Batch] = field(default_factory=list)
    pays: int | None = None
    laws: dict[str, float] = field(default_factory=dict)


def plan_runs(
    candidates: Candidates,
    *,
    laws: Sequence[str | Law] = LAWS,
    target: Target,
    budget: float,
    seen: Design | None = None,
    fits: Mapping[str, Fit] | None = None,
    targets: Sequence[str] | None = None,
    batch: float | None = None,
    goal: Goal | None = None,
    goal_weights: Mapping[str, float] | None = None,
    error_part: float = 0.5,
    across: str = MEAN,
    stop_early: bool = False,
    seed: int = 0,
) -> Plan:
    """The runs among `candidates` that tell most about the target's optimum for `budget`.

    `seen` are runs made already (None: none, and the laws' priors say what is known); `fits` are
    fits to them, by name, of laws without a formula, where they are at hand. `targets` names the
    losses that runs will have where none was made (default: the domains). `goal_weights` weigh
    them (default: equally); `goal` is another objective. `error_part` is how much the forecast's
    error at the optimum counts beside the choice of mixture, 0 to 1. Over the laws the gain is the
    `mean`, weighted by held-out errors where runs exist, or that of the `worst`. The budget is
    spent in batches of `batch` (None: one); `stop_early` ends the plan after the batch up to which
    it pays most. Deterministic by `seed`.

    Raises `ConfigError` for a budget below the cheapest run and for candidates that don't reach
    towards the target, `FitError` as fits do.
    """
    check(candidates, target, budget, seen)
    if not 0 <= error_part <= 1:
        raise ConfigError(f"error_part: must be 0 to 1, found {error_part:g}")
    if batch is not None and not batch > 0:
        raise ConfigError(f"batch: must be positive, found {batch:g}")
    if across not in ACROSS:
        raise unknown_name("way to join laws", across, ACROSS, "across")
    chosen = [resolve(law, "laws") for law in laws]
    if not chosen:
        raise ConfigError("laws: none is named")
    names = _targets(candidates, seen, targets)
    aim = goal_of(goal, goal_weights, names)
    mixtures = _mixtures(candidates, target, seed)
    question = Question.of(candidates, target, mixtures, seen, names, aim, seed)
    weights = _weights(chosen, seen, seed)
    believed: list[tuple[Belief, float]] = []
    for law in chosen:
        some = beliefs_of(question, law, (fits or {}).get(law.label))
        believed += [(belief, weights[law.label] / len(some)) for belief in some]
    scales = np.c_[candidates.n_params, candidates.n_tokens]
    chooser = Chooser(
        views=[view_of(belief, weight, error_part, seed) for belief, weight in believed],
        price=np.asarray(candidates.price, float),
        scale=np.unique(scales, axis=0, return_inverse=True)[1].ravel(),
        budget=budget,
        repeatable=candidates.repeatable,
        worst=across == WORST,
        free=_unmade(candidates, seen),
    )
    rows = np.array(chooser.plan().rows, int)
    return _valued(candidates, target, budget, rows, batch, believed, weights, stop_early, seed)


def check(
    candidates: Candidates, target: Target, budget: float, seen: Design | None = None
) -> None:
    """Refuse what no plan can be made of. Raises `ConfigError`."""
    candidates.check()
    for name in ("n_params", "n_tokens"):
        value = getattr(target, name)
        if not 0 < value < np.inf:
            raise ConfigError(f"target: {name} must be positive and finite, found {value:g}")
    cheapest = float(candidates.price.min())
    if not budget >= cheapest:
        raise ConfigError(
            f"budget: {budget:.4g} buys no run; the cheapest candidate costs {cheapest:.4g}"
        )
    reached = float(candidates.n_tokens[candidates.price <= budget].max())
    if seen is not None and np.isfinite(seen.n_tokens).any():
        reached = max(reached, float(np.nanmax(seen.n_tokens)))
    if target.n_tokens > MOST_TOKENS * reached:
        raise ConfigError(
            f"the runs that the budget can buy don't reach: the longest has {reached:.3g} tokens, "
            f"the target {target.n_tokens / reached:.3g} times as many, and no forecast was ever "
            f"right beyond {MOST_TOKENS:.3g} times; offer longer runs or a larger budget"
        )


def _targets(
    candidates: Candidates, seen: Design | None, targets: Sequence[str] | None
) -> list[str]:
    """Names of the losses that runs have. Raises `ConfigError`."""
    if seen is None:
        return list(targets or candidates.domains)
    if seen.domains != candidates.domains:
        raise ConfigError(
            f"candidates: their domains are {', '.join(candidates.domains)}, those of the runs "
            f"made already {', '.join(seen.domains)}"
        )
    if targets is not None and list(targets) != seen.targets:
        raise ConfigError("targets: the runs made already say which there are")
    return seen.targets


def _mixtures(candidates: Candidates, target: Target, seed: int) -> np.ndarray:
    """The mixtures (M, K) among which the target's optimum is sought."""
    if target.mixtures is not None:
        return np.asarray(target.mixtures, float)
    rng = np.random.default_rng([seed, 3])
    offered = np.unique(np.round(candidates.ratios, 9), axis=0)
    offered = offered / offered.sum(1, keepdims=True)
    some = offered[rng.permutation(len(offered))[: MIXTURES // 2]]
    # Between candidates, so that bounds which they keep are kept.
    left, right = rng.integers(len(offered), size=(2, MIXTURES // 2))
    part = rng.uniform(size=(MIXTURES // 2, 1))
    return np.concatenate([some, part * offered[left] + (1 - part) * offered[right]])


def _unmade(candidates: Candidates, seen: Design | None) -> np.ndarray | None:
    """The candidates (C,) that may be bought: not those made already, unless runs are repeated.

    Raises `ConfigError` where none is left.
    """
    if seen is None or candidates.repeatable:
        return None

    def names(runs: Candidates | Design) -> list[tuple[float, ...]]:
        scale = np.c_[np.log(runs.n_params), np.log(runs.n_tokens)]
        return [tuple(row) for row in np.round(np.c_[runs.ratios, scale], SAME)]

    made = set(names(seen))
    free = np.array([name not in made for name in names(candidates)])
    if not free.any():
        raise ConfigError("candidates: every one was run already; offer others, or repeats")
    return free


def _weights(laws: Sequence[Law], seen: Design | None, seed: int) -> dict[str, float]:
    """How much each law counts: as the precision of its held-out forecasts, where runs exist."""
    errors = {law.label: np.nan for law in laws}
    if seen is not None and len(laws) > 1:
        errors = {law.label: held_out(law, seen, seed=seed).get("mre", np.nan) for law in laws}
    if not np.isfinite(list(errors.values())).all():
        return dict.fromkeys(errors, 1 / len(errors))
    worth = {name: max(error, LEAST_ERROR) ** -2 for name, error in errors.items()}
    return {name: value / sum(worth.values()) for name, value in worth.items()}


def _valued(
    candidates: Candidates,
    target: Target,
    budget: float,
    rows: np.ndarray,
    batch: float | None,
    believed: Sequence[tuple[Belief, float]],
    weights: dict[str, float],
    stop_early: bool,
    seed: int,
) -> Plan:
    """The plan with what is expected of it, batch by batch."""
    paid = np.cumsum(candidates.price[rows])
    ends = _ends(paid, batch)
    after = sum(weight * outcomes(belief, rows, [0, *ends], seed) for belief, weight in believed)
    assert isinstance(after, np.ndarray)
    by_budget = float(sum(weight * belief.by_budget for belief, weight in believed))
    gains = np.maximum(-np.diff(after[:, 0]), 0.0)
    worths = _worths(gains, by_budget, target.price)
    batches = [
        Batch(first, last, float(paid[last - 1]), float(regret), float(error), worth)
        for first, last, (regret, error), worth in zip(
            [0, *ends[:-1]], ends, after[1:], worths, strict=True
        )
    ]
    pays = None
    if target.price is not None:
        pays = int(np.argmax([0.0, *((b.worth or 0.0) - b.spent for b in batches)]))
    stopped = stop_early and pays is not None and pays < len(batches)
    stop = _stop(batches, pays, budget, candidates, stopped)
    if stopped:
        batches = batches[:pays]
        rows = rows[: batches[-1].last if batches else 0]
    last = after[len(batches)]
    return Plan(
        rows=rows,
        expected_regret=(float(after[0, 0]), float(last[0])),
        expected_error=(float(after[0, 1]), float(last[1])),
        spent=batches[-1].spent if batches else 0.0,
        stop=stop,
        batches=batches,
        pays=pays,
        laws=weights,
    )


def _ends(paid: np.ndarray, batch: float | None) -> list[int]:
    """One past the last row of each batch, which costs `batch` at most or is a single run."""
    if batch is None:
        return [len(paid)]
    ends, first = [], 0
    while first < len(paid):
        before = paid[first - 1] if first else 0.0
        last = max(
            int(np.searchsorted(paid, before + batch * (1 + 1e-12), side="right")), first + 1
        )
        ends.append(last)
        first = last
    return ends


def _worths(gains: np.ndarray, by_budget: float, price: float | None) -> list[float | None]:
    """What the gains in the goal, batch by batch, would cost at the target, summed up to each.

    As more tokens for the same run: the goal falls by `by_budget` for every factor e of them.
    """
    if price is None:
        return [None] * len(gains)
    each = [
        price * min(float(np.expm1(min(gain / by_budget, 50.0))), MOST_WORTH)
        if by_budget > 0
        else 0.0
        for gain in gains
    ]
    return [float(total) for total in np.cumsum(each)]


def _stop(
    batches: list[Batch], pays: int | None, budget: float, candidates: Candidates, stopped: bool
) -> str:
    """Why the plan ends where it does, in words."""
    whole, every = batches[-1], len(batches)
    if whole.last == MOST_RUNS:
        said = f"a plan has at most {MOST_RUNS} runs"
    elif not candidates.repeatable and whole.last == len(candidates):
        said = "every candidate is bought"
    else:
        said = f"the budget is spent: the {budget - whole.spent:.3g} left buy no further run"
    if pays is None:
        return said
    if pays == 0:
        why = (
            f"the {whole.spent:.3g} that they cost bring what {whole.worth or 0.0:.3g} more at the "
            "target would"
        )
        return f"no run pays: {why}" if stopped else f"{said}. The runs don't pay: {why}"
    chosen = batches[pays - 1]
    which = "the runs pay" if every == 1 else f"all {every} batches pay"
    if pays < every:
        which = "the first batch pays" if pays == 1 else f"the first {pays} of {every} batches pay"
    which += f": {chosen.spent:.3g} bring what {chosen.worth or 0.0:.3g} more at the target would"
    if pays == every:
        return f"{said}. {which[:1].upper()}{which[1:]}"
    more, gain = whole.spent - chosen.spent, (whole.worth or 0.0) - (chosen.worth or 0.0)
    which += f"; the next {more:.3g} would bring {gain:.3g}"
    if stopped:
        return f"{which}, so that the plan stops there"
    return f"{said}. {which[:1].upper()}{which[1:]}: one may stop there"
