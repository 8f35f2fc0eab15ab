"""Mixtures that a study file doesn't list: a grid, a swarm, a planner's choice or a table.

A recipe stands among the mixtures under its own name, `mixtures: {swarm: {n: 64}}`. What was drawn
is kept in the study's folder (`mixtures.json`), so that the study goes on with the same mixtures,
and a swarm that grows keeps those it has.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from olmo_mixlaw import schema
from olmo_mixlaw.atomic import write_text
from olmo_mixlaw.errors import ConfigError, MixlawError, unknown_name
from olmo_mixlaw.study.settings import (
    GridConfig,
    PlannerConfig,
    RunsConfig,
    StudyConfig,
    SwarmConfig,
    TableConfig,
)

if TYPE_CHECKING:
    from olmo_mixlaw.swarm.mixtures import Mixtures
    from olmo_mixlaw.swarm.sources import SourceTree

# What draws is imported where something is drawn: a study that goes on has its mixtures.

KEPT = "mixtures.json"
KINDS: dict[str, type] = {
    "grid": GridConfig,
    "swarm": SwarmConfig,
    "planner": PlannerConfig,
    "table": TableConfig,
}
MOST_OF_A_GRID = 10_000
ROUNDING = 1e-9
AS_LISTED = 1e-4  # a planner's ratios have four digits

Ratios = dict[str, dict[str, float]]


def told_apart(
    values: Mapping[str, Any], overrides: Iterable[str] = ()
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A study file's keys and overrides with the recipes taken out of `mixtures` into `drawn`.

    A mixture may be called like a recipe: it is one where all its keys are domains.
    """
    values = dict(values)
    mixtures, domains = values.get("mixtures"), values.get("domains")
    found: dict[str, Any] = {}
    if isinstance(mixtures, dict):
        names = set(domains) if isinstance(domains, dict) else set()
        found = {
            key: value
            for key, value in mixtures.items()
            if key in KINDS and not (isinstance(value, dict) and value and set(value) <= names)
        }
    if found:
        assert isinstance(mixtures, dict)
        values["mixtures"] = {k: v for k, v in mixtures.items() if k not in found}
        given = values.get("drawn")
        values["drawn"] = {**(given if isinstance(given, dict) else {}), **found}
    return values, tuple(_of_recipe(item, found) for item in overrides)


def _of_recipe(override: str, found: Mapping[str, Any]) -> str:
    """`mixtures.swarm.n=8` as the key that it is kept under."""
    parts = override.removeprefix("--").partition("=")[0].split(".")
    if len(parts) < 3 or parts[0] != "mixtures" or parts[1] not in KINDS:
        return override
    fields = [field.name for field in dataclasses.fields(KINDS[parts[1]])]
    if parts[1] not in found and parts[2] not in fields:
        return override
    return override.removeprefix("--").replace("mixtures.", "drawn.", 1)


def as_written(study: StudyConfig) -> dict[str, Any]:
    """The keys of a study as its file has them, a recipe in place of what was drawn by it."""
    values = dataclasses.asdict(study)
    drawn = values.pop("drawn")
    if study.drawn is None:
        return values
    recipes = {kind: _said(drawn[kind]) for kind in KINDS if drawn[kind] is not None}
    listed = {name: study.mixtures[name] for name in study.drawn.listed}
    values["mixtures"] = {**recipes, **listed}
    if study.drawn.planner is not None:
        values["runs"] = []
    return values


def with_mixtures(study: StudyConfig, where: str) -> StudyConfig:
    """The study with the mixtures of its recipe beside those listed, and a planner's runs.

    They are those that its folder keeps, where the recipe is the same. Raises `ConfigError`.
    """
    if study.drawn is None or not study.domains:
        return study
    kinds = [kind for kind in KINDS if getattr(study.drawn, kind) is not None]
    if len(kinds) != 1:
        said = ", ".join(kinds) or "none"
        raise ConfigError(f"{where}: mixtures: one of {', '.join(KINDS)} is needed, found {said}")
    place = f"{where}: mixtures.{kinds[0]}"
    if study.drawn.planner is not None and study.runs:
        raise ConfigError(f"{place}: chooses the runs; leave out `runs`, or list the mixtures")
    listed = study.mixtures
    study = dataclasses.replace(study, drawn=dataclasses.replace(study.drawn, listed=list(listed)))
    before = kept(study)
    if before is not None and _is_same(before["recipe"], _recipe(study)):
        made, runs = before["mixtures"], [RunsConfig(**some) for some in before["runs"]]
    else:
        made, runs = _made(study, before, place)
    for name in made:
        if name in listed:
            raise ConfigError(f"{place}: makes a mixture {name}, which is listed too; rename it")
    # Listed ones first: they are what the others are compared with.
    return dataclasses.replace(study, mixtures={**listed, **made}, runs=runs or study.runs)


def keep(study: StudyConfig) -> None:
    """Write what was drawn into the study's folder; nothing where all is listed."""
    if study.drawn is None:
        return
    made = {n: r for n, r in study.mixtures.items() if n not in study.drawn.listed}
    runs = [dataclasses.asdict(s) for s in study.runs] if study.drawn.planner is not None else []
    text = json.dumps({"recipe": _recipe(study), "runs": runs, "mixtures": made}, indent=1)
    write_text(Path(study.output) / KEPT, text + "\n")


def kept(study: StudyConfig) -> dict[str, Any] | None:
    """What the study's folder keeps of an earlier draw; None without one. Raises `ConfigError`."""
    path = Path(study.output) / KEPT
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        shape = {"recipe": dict, "runs": list, "mixtures": dict}
        if any(not isinstance(found[key], kind) for key, kind in shape.items()):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(
            f"{path}: is not what a study keeps of its mixtures; remove it and they are made again"
        ) from None
    return found


def _recipe(study: StudyConfig) -> dict[str, Any]:
    """All that the mixtures depend on, as JSON has it."""
    assert study.drawn is not None
    said = {k: _said(v) for k, v in dataclasses.asdict(study.drawn).items() if k in KINDS and v}
    recipe: dict[str, Any] = {**said, "domains": list(study.domains)}
    if study.drawn.planner is not None:
        recipe |= {key: getattr(study, key) for key in ("ladder", "sizes", "tokens")}
        recipe |= {"target": dataclasses.asdict(study.target)}
        recipe |= {"listed": {name: study.mixtures[name] for name in study.drawn.listed}}
    if study.drawn.table is not None:  # by what it holds: it may be moved
        path = Path(study.drawn.table.path)
        there = path.is_file()
        recipe["table"] = hashlib.sha256(path.read_bytes()).hexdigest() if there else None
    return json.loads(json.dumps(recipe))


def _is_same(then: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether two recipes make the same; a table that is gone made what it made."""
    if "table" in then and now.get("table", "") is None:
        then = {**then, "table": None}
    return then == now


def _said(values: Any) -> Any:
    """Keys that say something."""
    if not isinstance(values, dict):
        return values
    return {key: value for key, value in values.items() if value not in (None, {}, [])}


def _made(
    study: StudyConfig, before: dict[str, Any] | None, where: str
) -> tuple[Ratios, list[RunsConfig]]:
    drawn = study.drawn
    assert drawn is not None
    try:
        if drawn.grid is not None:
            return _grid(study, drawn.grid), []
        if drawn.swarm is not None:
            return _swarm(study, drawn.swarm, before), []
        if drawn.table is not None:
            from olmo_mixlaw.swarm.mixtures import read_mixtures

            return _named(read_mixtures(drawn.table.path, _tree(study)), study), []
        assert drawn.planner is not None
        return _planned(study, drawn.planner)
    except MixlawError as error:
        raise ConfigError(f"{where}: {str(error).removeprefix(': ')}") from None


def _tree(study: StudyConfig, prior: Mapping[str, float] | None = None) -> SourceTree:
    from olmo_mixlaw.swarm.sources import Source, SourceTree

    tokens = study.source_tokens
    sources = tuple(Source(name, tokens.get(name, math.nan)) for name in study.domains)
    return SourceTree(sources, "domains", prior or dict.fromkeys(study.domains, 1.0))


def _named(mixtures: Mixtures, study: StudyConfig) -> Ratios:
    """Named ratios above 0, in the order of the domains."""
    domains = list(study.domains)
    return {
        name: {d: r for d, r in zip(domains, row, strict=True) if r > 0}
        for name, row in zip(mixtures.ids, mixtures.ratios.tolist(), strict=True)
    }


def _swarm(study: StudyConfig, how: SwarmConfig, before: dict[str, Any] | None) -> Ratios:
    from olmo_mixlaw.swarm.draws import APART, LEAST_RATIO, MAX_STRENGTH, MIN_STRENGTH, Draw
    from olmo_mixlaw.swarm.limits import limits_of
    from olmo_mixlaw.swarm.making import drawn as draw_swarm
    from olmo_mixlaw.swarm.mixtures import Mixtures

    if how.n < 1:
        raise ConfigError(f"n: {how.n}: must be positive")
    tree = _tree(study, how.prior)
    limits = limits_of(
        tree,
        at_least=how.at_least,
        at_most=how.at_most,
        keep=how.keep,
        least_ratio=LEAST_RATIO if how.least_ratio is None else how.least_ratio,
    )
    draw = Draw(
        how.method,
        how.seed,
        MIN_STRENGTH if how.min_strength is None else how.min_strength,
        MAX_STRENGTH if how.max_strength is None else how.max_strength,
        how.temperature,
        APART if how.apart is None else how.apart,
    )
    begun = _begun(study, before)
    made = draw_swarm(tree, limits, max(how.n, 0 if begun is None else len(begun.ids)), draw, begun)
    named = _named(Mixtures(made.ids, made.ratios), study)
    return dict(itertools.islice(named.items(), how.n))


def _begun(study: StudyConfig, before: dict[str, Any] | None) -> Mixtures | None:
    """The swarm that the folder keeps, where this one differs from it in how large it is."""
    from olmo_mixlaw.swarm.mixtures import Mixtures

    if before is None or not before["mixtures"]:
        return None
    now, then = _recipe(study), dict(before["recipe"])
    then["swarm"] = {**then.get("swarm", {}), "n": now["swarm"]["n"]}
    if then != now:
        return None
    made = before["mixtures"]
    ratios = [[row.get(domain, 0.0) for domain in study.domains] for row in made.values()]
    return Mixtures(tuple(made), np.array(ratios))


def _grid(study: StudyConfig, how: GridConfig) -> Ratios:
    """Names say the parts in percent, so that a finer grid has those of a coarser one."""
    parts = round(1 / how.step) if 0 < how.step <= 1 else 0
    if not parts or abs(parts * how.step - 1) > ROUNDING:
        raise ConfigError(f"step: {how.step:g}: expected 1 divided by a whole number, as 0.25")
    for key in ("at_least", "at_most"):
        for domain, bound in getattr(how, key).items():
            if domain not in study.domains:
                raise unknown_name("domain", domain, study.domains, key)
            if not 0 <= bound <= 1:
                raise ConfigError(f"{key}.{domain}: {bound:g}: a ratio lies between 0 and 1")
    domains = list(study.domains)
    low = [math.ceil(how.at_least.get(d, 0.0) * parts - ROUNDING) for d in domains]
    high = [math.floor(how.at_most.get(d, 1.0) * parts + ROUNDING) for d in domains]
    made: Ratios = {}
    for counts in _compositions(parts, low, high):
        if len(made) == MOST_OF_A_GRID:
            raise ConfigError(f"step: {how.step:g}: above {MOST_OF_A_GRID} mixtures")
        name = "g" + "-".join(f"{100 * count / parts:.4g}" for count in counts)
        made[name] = {d: c / parts for d, c in zip(domains, counts, strict=True) if c}
    if not made:
        raise ConfigError("no mixture of this step meets at_least and at_most")
    return made


def _compositions(total: int, low: list[int], high: list[int]) -> Iterable[tuple[int, ...]]:
    """Whole numbers within bounds that sum to `total`, in falling order."""
    if len(low) == 1:
        if low[0] <= total <= high[0]:
            yield (total,)
        return
    rest = sum(low[1:])
    for first in range(min(high[0], total - rest), low[0] - 1, -1):
        for others in _compositions(total - first, low[1:], high[1:]):
            yield (first, *others)


def _planned(study: StudyConfig, how: PlannerConfig) -> tuple[Ratios, list[RunsConfig]]:
    from olmo_mixlaw.advice.design import Target, plan_runs
    from olmo_mixlaw.advice.design.offer import Offered, draw_mixtures, offer
    from olmo_mixlaw.advice.design.plan import LAWS
    from olmo_mixlaw.advice.design.prices import Prices
    from olmo_mixlaw.advice.design.told import runs_of
    from olmo_mixlaw.advice.simplex import bounds_of
    from olmo_mixlaw.study.designed import designed
    from olmo_mixlaw.study.plan import rung_of, whole_batches

    budget = schema.parse_count(how.budget, "budget")
    if how.n < 2:
        raise ConfigError(f"n: {how.n}: at least 2")
    domains = list(study.domains)
    low, high = bounds_of(domains, study.target.lower, study.target.upper)
    mixtures = draw_mixtures(how.n, np.full(len(domains), 1 / len(domains)), low, high, how.seed)
    listed = [[row.get(d, 0.0) for d in domains] for row in study.mixtures.values()]
    sizes = []
    for size, tokens in itertools.product(study.sizes, study.tokens):
        rung = rung_of(study, size)
        whole = whole_batches(tokens, rung)[1]
        flops = rung.training_flops(whole)
        # The length asked for, which names the run, beside what it costs.
        sizes.append(Offered(size, float(rung.n_params), float(tokens), flops))
    rows = np.concatenate([np.reshape(listed, (-1, len(domains))), mixtures])
    candidates, which = offer(domains, sizes, rows, Prices())
    target = rung_of(study, study.target.size)
    plan = plan_runs(
        candidates,
        laws=how.laws or LAWS,
        target=Target(
            float(target.n_params),
            float(study.target.tokens),
            price=target.training_flops(study.target.tokens),
        ),
        budget=budget,
        goal_weights=study.target.weights or None,
        seed=how.seed,
    )
    found = runs_of(candidates, which, plan)
    shares = [f"w_{name}" for name in domains]
    chosen = designed(
        study,
        [
            (str(row["size"]), int(row["n_tokens"]), tuple(row[shares]), int(row["seeds"]))
            for _, row in found.iterrows()
        ],
    )
    # Those of them that the file lists keep their names.
    names = {}
    for name, ratios in chosen.mixtures.items():
        near = (n for n, r in study.mixtures.items() if _distance(r, ratios) < AS_LISTED)
        names[name] = next(near, name)
    runs = [
        dataclasses.replace(some, mixtures=[names[name] for name in some.mixtures])
        for some in chosen.runs
    ]
    return {n: r for n, r in chosen.mixtures.items() if names[n] == n}, runs


def _distance(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    return max(abs(one.get(d, 0.0) - other.get(d, 0.0)) for d in {*one, *other})
