"""What is wrong with a study's mixtures, and with names that become those of folders."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from olmo_mixlaw.errors import ConfigError, unknown_name
from olmo_mixlaw.runs.table import WEIGHT_TOLERANCE
from olmo_mixlaw.study.plan import rung_of
from olmo_mixlaw.study.settings import StudyConfig

MOST_OF_ANY = 1e16  # tokens; beyond it no study would ever end
LONGEST_NAME = 100  # bytes of what becomes a folder's or a column's name


def check_ratios(ratios: Mapping[str, float], domains: Mapping[str, str], where: str) -> None:
    """Raises `ConfigError` unless the ratios name known domains, are in [0, 1] and sum to 1."""
    for domain, ratio in ratios.items():
        if domain not in domains:
            raise unknown_name("domain", domain, domains, where)
        if not (math.isfinite(ratio) and 0 <= ratio <= 1):
            raise ConfigError(f"{where}.{domain}: {ratio}: a ratio lies between 0 and 1")
    total = sum(ratios.values())
    if abs(total - 1) > WEIGHT_TOLERANCE:
        raise ConfigError(f"{where}: the ratios sum to {total:.6g}, not 1")


def check_current(study: StudyConfig, where: str) -> None:
    """Raises `ConfigError` unless `target.current` names a mixture or is one."""
    current, where = study.target.current, f"{where}: target.current"
    if isinstance(current, Mapping):
        for domain, ratio in current.items():
            if isinstance(ratio, bool) or not isinstance(ratio, int | float):
                raise ConfigError(f"{where}.{domain}: {ratio!r}: expected a ratio")
        check_ratios(current, study.domains, where)
    elif isinstance(current, str):
        if current not in study.mixtures:
            raise unknown_name("mixture", current, study.mixtures, where)
    elif current is not None:
        raise ConfigError(f"{where}: {current!r}: expected the name of a mixture, or ratios")


def check_name(name: str, where: str) -> None:
    """Raises `ConfigError` for what can't be, or would leave, a folder of that name."""
    plain = name.isprintable() and name.strip() == name and not set(name) & set('/\\:*?"<>|')
    if not plain or not name or name.startswith("."):
        raise ConfigError(
            f'{where}: {name!r} becomes the name of files: give one without / \\ : * ? " < > | '
            "that doesn't begin with a dot or a space"
        )
    if len(name.encode()) > LONGEST_NAME:
        raise ConfigError(f"{where}: {name[:20]!r}...: longer than {LONGEST_NAME} bytes")


def check_mixtures(study: StudyConfig, where: str) -> None:
    """Raises `ConfigError` for ratios, names or cuts that no run could have."""
    if len(study.mixtures) == 1:
        raise ConfigError(
            f"{where}: mixtures: one mixture: a study chooses among several; add another (one "
            "model of one mixture: olmo-mixlaw train)"
        )
    for name, ratios in study.mixtures.items():
        check_name(name, f"{where}: mixtures")
        check_ratios(ratios, study.domains, f"{where}: mixtures.{name}")
    for name in study.cuts:
        if name not in study.mixtures:
            raise unknown_name("mixture", name, study.mixtures, f"{where}: cuts")
    _check_cuts(study.source_tokens, study, f"{where}: source_tokens")
    for name, tokens in study.cuts.items():
        _check_cuts(tokens, study, f"{where}: cuts.{name}")
    _refuse_equal(study, where)


def _refuse_equal(study: StudyConfig, where: str) -> None:
    """Raises `ConfigError` for two mixtures of the same ratios and cuts."""
    names, domains = list(study.mixtures), list(study.domains)
    ratios = np.array([[study.mixtures[n].get(d, 0.0) for d in domains] for n in names])
    # Equal ones are neighbours in the order of a sum with weights that are no multiples.
    weights = np.sqrt(np.arange(2.0, 2.0 + len(domains)))
    order = np.argsort(ratios @ weights, kind="stable")
    keys = ratios[order] @ weights
    ends = np.searchsorted(keys, keys + weights.sum() * WEIGHT_TOLERANCE, side="right")
    for place, end in enumerate(ends):
        for other in order[place + 1 : end]:
            i, j = sorted((int(order[place]), int(other)))
            a, b = names[i], names[j]
            apart = np.abs(ratios[i] - ratios[j]).max()
            if apart <= WEIGHT_TOLERANCE and study.cuts.get(a) == study.cuts.get(b):
                raise ConfigError(
                    f"{where}: mixtures.{b}: the same ratios as mixtures.{a}, so the same runs; "
                    "remove it, or add a seed to seeds for repeated runs"
                )


def _check_cuts(tokens: Mapping[str, float], study: StudyConfig, where: str) -> None:
    """Raises `ConfigError` for tokens of no domain, or fewer than one sequence of any size."""
    least = max(rung_of(study, size).context for size in study.sizes)
    for domain, count in tokens.items():
        if domain not in study.domains:
            raise unknown_name("domain", domain, study.domains, where)
        if not least <= count <= MOST_OF_ANY:
            raise ConfigError(
                f"{where}.{domain}: {count:g}: expected at least one sequence ({least} tokens)"
            )
