"""Everything that can be known to be wrong with a study before its first run.

A study costs days; whatever would end it after the training is looked for here, by planning the
runs and asking the laws and tasks about them.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from olmo_mixlaw.datasets import load_tokenizer, open_dataset
from olmo_mixlaw.datasets.tokenizer import end_of_text
from olmo_mixlaw.datasets.tokens import token_paths
from olmo_mixlaw.datasets.uri import is_uri
from olmo_mixlaw.errors import ConfigError, FitError, unknown_name
from olmo_mixlaw.laws.choice.holdout import make_splits
from olmo_mixlaw.laws.law import resolve
from olmo_mixlaw.models.ladder import load_ladder
from olmo_mixlaw.runs import Design
from olmo_mixlaw.runs.table import WEIGHT_TOLERANCE
from olmo_mixlaw.study.base import check_base
from olmo_mixlaw.study.mixture_checks import MOST_OF_ANY, check_current, check_mixtures, check_name
from olmo_mixlaw.study.plan import Run, groups, plan, rung_of, whole_batches
from olmo_mixlaw.study.resources import check_resources
from olmo_mixlaw.study.scoring import check_tasks
from olmo_mixlaw.study.settings import StudyConfig
from olmo_mixlaw.study.slurm import check_options
from olmo_mixlaw.study.trainers import TRAINERS, check_models

LEAST = {"tokenizer.vocab_size": 258}
WHY = {"tokenizer.vocab_size": " (the bytes and two markers)"}
# Beyond these no study would ever end: slips of the keyboard, or of a unit.
MOST = {
    "workers": 10_000,
    "checkpoint_every": 10**9,
    "tokenizer.characters": 10**11,
    "tokenizer.vocab_size": 2**20,
    "evaluation.heldout_tokens": 10**9,
    "slurm.minutes": 10**6,
    "slurm.cpus": 10**4,
    "slurm.memory_gb": 10**5,
}
SLURM_NUMBERS = ("minutes", "cpus", "memory_gb")
MOST_SEED = 2**32 - 1


def check(study: StudyConfig, where: str) -> None:
    """Raises `ConfigError` naming file, key and what is accepted; `where` is the file."""
    check_grounds(study, where)
    check_runs(study, where)


def check_grounds(study: StudyConfig, where: str) -> None:
    """The part of `check` that needs no mixtures: they may be drawn after it."""
    for key in ("name", "output", "sizes", "tokens", "domains", "seeds"):
        if not getattr(study, key):
            raise ConfigError(f"{where}: {key}: at least one is needed")
    if Path(study.output).is_file():
        raise ConfigError(f"{where}: output: {study.output}: a file; give a folder")
    if study.trainer not in TRAINERS:
        raise unknown_name("trainer", study.trainer, TRAINERS, f"{where}: trainer")
    _check_numbers(study, where)
    ladder = load_ladder(study.ladder, f"{where}: ladder")
    for key, size in [*(("sizes", s) for s in study.sizes), ("target.size", study.target.size)]:
        if size not in ladder.rungs:
            raise unknown_name("size", size, ladder.rungs, f"{where}: {key}")
    _check_domains(study, where)
    if len(set(study.sizes)) == 1 and study.target.size not in study.sizes:
        raise ConfigError(
            f"{where}: target.size: {study.target.size}: runs of one size ({study.sizes[0]}) can't "
            "speak of another; add a second to sizes"
        )
    if len(set(study.tokens)) == 1 and study.target.tokens not in study.tokens:
        raise ConfigError(
            f"{where}: target.tokens: {study.target.tokens}: runs of one budget "
            f"({study.tokens[0]}) can't speak of another; add a second to tokens"
        )
    _check_target(study, where)
    for law in study.laws:
        resolve(law, f"{where}: laws")
    for key in ("sizes", "tokens", "seeds", "laws"):
        _refuse_twice(getattr(study, key), f"{where}: {key}")
    check_tasks(study, where)


def check_runs(study: StudyConfig, where: str) -> None:
    """The rest of `check`: mixtures, the runs that they make, and what runs must be able to do."""
    if not study.mixtures:
        raise ConfigError(f"{where}: mixtures: at least one is needed")
    check_mixtures(study, where)
    _check_groups(study, where)
    runs = plan(study)
    _check_runs(study, runs, where)
    check_models(runs, study.trainer, where)
    check_resources(study, runs, where)
    check_options(study, where)
    check_base(study, runs, where)
    possible_laws(study, runs, where)


def possible_laws(study: StudyConfig, runs: list[Run], where: str) -> tuple[list[str], list[str]]:
    """The laws that the planned runs can carry, and a note on each that they can't.

    Raises `ConfigError` if none is left, or if nothing could be held out to choose among them.
    A study may name none: its runs are for something else.
    """
    if not study.laws:
        return [], []
    design = planned_design(study, runs)
    if not make_splits(design):
        raise ConfigError(
            f"{where}: mixtures: {len(study.mixtures)} mixtures of {len(study.sizes)} sizes: no "
            "law could be held to account; add mixtures up to three, or sizes or tokens up to three"
        )
    possible, notes = [], []
    for name in study.laws:
        try:
            resolve(name).check(design)
        except FitError as error:
            notes.append(f"law {name} is left out: {error}")
        else:
            possible.append(name)
    if not possible:
        raise ConfigError(f"{where}: laws: none can be fitted to these runs; {'; '.join(notes)}")
    return possible, notes


def planned_design(study: StudyConfig, runs: list[Run]) -> Design:
    """The table that the runs will make, with invented losses: laws look at what varies."""
    domains = list(study.domains)
    ratios = np.array([[run.ratios.get(d, 0.0) for d in domains] for run in runs])
    n_params = np.array([run.rung.n_params for run in runs], float)
    n_tokens = np.array([run.n_tokens for run in runs], float)
    scale = (n_params * n_tokens) ** -0.05
    return Design(
        [run.run_id for run in runs],
        domains,
        domains,
        ratios,
        n_params,
        np.array([run.rung.n_active for run in runs], float),
        n_tokens,
        2.0 + scale[:, None] + 1 / (1 + ratios),
    )


def _check_numbers(study: StudyConfig, where: str) -> None:
    numbers: list[tuple[str, float]] = [
        *(("tokens", tokens) for tokens in study.tokens),
        ("target.tokens", study.target.tokens),
        ("workers", study.workers),
        ("checkpoint_every", study.checkpoint_every),
        ("tokenizer.characters", study.tokenizer.characters),
        ("evaluation.heldout_tokens", study.evaluation.heldout_tokens),
    ]
    if study.tokenizer.identifier is None:
        numbers.append(("tokenizer.vocab_size", study.tokenizer.vocab_size))
    if study.slurm is not None:
        cluster = dataclasses.asdict(study.slurm)
        numbers += [(f"slurm.{key}", cluster[key]) for key in SLURM_NUMBERS]
    for key, value in numbers:
        least = LEAST.get(key, 0)
        if value <= 0 and least == 0:
            raise ConfigError(f"{where}: {key}: {value}: must be positive")
        if value < least:
            raise ConfigError(f"{where}: {key}: {value}: at least {least}{WHY.get(key, '')}")
        if not value <= (most := MOST.get(key, MOST_OF_ANY)):
            raise ConfigError(f"{where}: {key}: {value:g}: at most {most:g}")
    if study.slurm is not None and study.slurm.gpus < 0:
        raise ConfigError(f"{where}: slurm.gpus: {study.slurm.gpus}: must not be negative")
    for seed in study.seeds:
        if not 0 <= seed <= MOST_SEED:
            raise ConfigError(f"{where}: seeds: {seed}: expected 0 to {MOST_SEED}")


def _check_domains(study: StudyConfig, where: str) -> None:
    identifier = study.tokenizer.identifier
    if identifier is not None:
        end_of_text(
            load_tokenizer(identifier, f"{where}: tokenizer.identifier"),
            f"{where}: tokenizer.identifier: {identifier}",
        )
    for domain, uri in study.domains.items():
        check_name(domain, f"{where}: domains")
        place = f"{where}: domains.{domain}"
        if is_uri(uri):
            open_dataset(uri, where=place)
            continue
        token_paths(uri, place)
        if not any(path.is_file() for path in token_paths(uri, place)):
            raise ConfigError(f"{place}: {uri}: no such file or folder, and no mixlaw: dataset")
        if identifier is None:
            raise ConfigError(
                f"{place}: {uri}: token files need the tokenizer that made them: give its file in "
                "tokenizer.identifier"
            )
    for domain, uri in study.evaluation.heldout.items():
        place = f"{where}: evaluation.heldout"
        if domain not in study.domains:
            raise unknown_name("domain", domain, study.domains, place)
        open_dataset(uri, where=f"{place}.{domain}")


def _check_target(study: StudyConfig, where: str) -> None:
    target = study.target
    for key in ("weights", "bounds"):
        for domain in getattr(target, key):
            if domain not in study.domains:
                raise unknown_name("domain", domain, study.domains, f"{where}: target.{key}")
    for domain, weight in target.weights.items():
        if not 0 <= weight < math.inf:
            raise ConfigError(
                f"{where}: target.weights.{domain}: {weight}: a weight is 0 or above, and finite"
            )
    if target.weights and not sum(target.weights.values()) > 0:
        raise ConfigError(f"{where}: target.weights: all are 0; one at least must be above")
    check_current(study, where)
    for domain, bounds in target.bounds.items():
        if len(bounds) != 2 or not 0 <= bounds[0] <= bounds[1] <= 1:
            raise ConfigError(
                f"{where}: target.bounds.{domain}: {bounds}: expected [least, most] within 0 and 1"
            )
    low = sum(target.bounds[d][0] for d in study.domains if d in target.bounds)
    high = sum(target.bounds[d][1] if d in target.bounds else 1.0 for d in study.domains)
    if low > 1 + WEIGHT_TOLERANCE or high < 1 - WEIGHT_TOLERANCE:
        what = (
            f"the least sum to {low:g}, above 1"
            if low > 1
            else f"the most sum to {high:g}, below 1"
        )
        raise ConfigError(f"{where}: target.bounds: no mixture meets them: {what}")


def _check_runs(study: StudyConfig, runs: list[Run], where: str) -> None:
    """Every run is one of its own, under a name of its own, of a length near the one asked for."""
    lengths_of: dict[str, list[int]] = {}
    for size, tokens, _, _ in groups(study):
        lengths_of.setdefault(size, []).append(tokens)
    asked = [("tokens", size, n) for size, each in lengths_of.items() for n in each]
    for key, size, tokens in [*asked, ("target.tokens", study.target.size, study.target.tokens)]:
        if tokens < (batch := rung_of(study, size).batch_tokens):
            raise ConfigError(
                f"{where}: {key}: {tokens}: fewer than the {batch} of one batch of {size}"
            )
    contexts = {size: rung_of(study, size).context for size in study.sizes}
    size, context = max(contexts.items(), key=lambda item: item[1])
    if study.evaluation.heldout_tokens < context:
        raise ConfigError(
            f"{where}: evaluation.heldout_tokens: {study.evaluation.heldout_tokens}: fewer than "
            f"the {context} of one sequence of {size}"
        )
    for size, each in lengths_of.items():
        lengths = {tokens: whole_batches(tokens, rung_of(study, size))[1] for tokens in each}
        for a, b in itertools.combinations(sorted(set(each)), 2):
            if lengths[a] == lengths[b]:
                raise ConfigError(
                    f"{where}: tokens: {a} and {b} are the same whole batches ({lengths[a]} "
                    f"tokens) of {size}, so the same runs; set them further apart"
                )
    seen: dict[str, Run] = {}
    for run in runs:
        check_name(run.run_id, f"{where}: runs")
        other = seen.setdefault(run.run_id.casefold(), run)
        if other is not run:
            raise ConfigError(
                f"{where}: two runs would share the folder {run.run_id} (size {other.rung.name}, "
                f"mixture {other.mixture}, {other.n_tokens} tokens; size {run.rung.name}, mixture "
                f"{run.mixture}, {run.n_tokens} tokens); rename a mixture or set tokens further "
                "apart"
            )


def _check_groups(study: StudyConfig, where: str) -> None:
    """What stands in `runs` is of the study's grid."""
    for i, some in enumerate(study.runs):
        place = f"{where}: runs[{i}]"
        if some.size not in study.sizes:
            raise unknown_name("size", some.size, study.sizes, f"{place}.size")
        if some.tokens not in study.tokens:
            said = ", ".join(map(str, study.tokens))
            raise ConfigError(f"{place}.tokens: {some.tokens}: is none of tokens ({said})")
        for name in some.mixtures:
            if name not in study.mixtures:
                raise unknown_name("mixture", name, study.mixtures, f"{place}.mixtures")
        for key in ("mixtures", "seeds"):
            if not getattr(some, key):
                raise ConfigError(f"{place}.{key}: at least one is needed")
            _refuse_twice(getattr(some, key), f"{place}.{key}")
        if not all(0 <= seed <= MOST_SEED for seed in some.seeds):
            raise ConfigError(f"{place}.seeds: expected 0 to {MOST_SEED}")


def _refuse_twice(values: Iterable[Any], where: str) -> None:
    seen = set()
    for value in values:
        if value in seen:
            raise ConfigError(f"{where}: {value} stands there twice; each makes runs of its own")
        seen.add(value)
