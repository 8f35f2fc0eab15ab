"""What a proposed mixture is compared with, and the verdicts on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from olmo_mixlaw.cli.options import pairs, said
from olmo_mixlaw.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from olmo_mixlaw.advice import Optimum
    from olmo_mixlaw.advice.verdict import Verdict
    from olmo_mixlaw.laws.fitted import Fit
    from olmo_mixlaw.runs import RunTable

# How far the ratios of a mixture that is given may sum from 1, before they are rescaled.
ROUNDED = 0.02


def current_mixture(
    items: Sequence[str], domains: list[str], tried: Mapping[str, np.ndarray] | None
) -> tuple[str, np.ndarray] | None:
    """The mixture (K,) of `--current` and what a sentence calls it; None where nobody gave one.

    Besides what `given_mixture` takes, the name of one of the mixtures `tried`. Raises as that
    does.
    """
    from olmo_mixlaw.advice.verdict import CURRENT

    if not items:
        return None
    if len(items) == 1 and tried and items[0] in tried:
        return f"{items[0]}, {CURRENT}", tried[items[0]]
    return CURRENT, given_mixture(items, domains)


def given_mixture(items: Sequence[str], domains: list[str]) -> np.ndarray:
    """The ratios (K,) of `--current`: DOMAIN=H, with commas or repeated, or a YAML's mixture.

    Raises `UnknownNameError` for a domain that the table lacks, and `ConfigError` for ratios that
    don't sum to 1 within 2 %, which are rescaled.
    """
    from olmo_mixlaw.laws.weights import named
    from olmo_mixlaw.swarm.listed import read_ratios

    if len(items) == 1 and "=" not in items[0]:
        if not Path(items[0]).suffix and not Path(items[0]).is_file():
            raise ConfigError(
                f"--current: expected DOMAIN=H or a YAML of a mixture, found {items[0]!r}"
            )
        where, given = items[0], read_ratios(items[0])
    else:
        parts = tuple(part.strip() for item in items for part in item.split(",") if part.strip())
        where, given = "--current", pairs(parts, "--current")
    ratios = named(given, domains, "domain", where, 0.0)
    if not np.isfinite(ratios).all() or (ratios < 0).any() or abs(ratios.sum() - 1) > ROUNDED:
        raise ConfigError(
            f"{where}: the ratios must not be negative and sum to 1, found {ratios.sum():.6g} "
            f"(domains: {', '.join(domains)})"
        )
    return ratios / ratios.sum()


def judged(
    fitted: Fit,
    best: Optimum,
    drawn: list[Fit],
    table: RunTable | None,
    tried: dict[str, np.ndarray] | None,
    now: tuple[str, np.ndarray] | None,
    how: dict[str, Any],
) -> list[Verdict]:
    """Whether the mixture is better than the best tried, and than the one that the user has."""
    from olmo_mixlaw.advice.goal import goal_of
    from olmo_mixlaw.advice.verdict import measured_best, verdicts
    from olmo_mixlaw.laws.choice.differences import Differences

    between, measured = Differences.of(fitted), ""
    if table is not None and tried is not None:
        design = table.design()
        if between is None:
            with said():
                between = Differences.measured(fitted, design, seed=how["seed"])
        goal = goal_of(how["objective"], how["target_weights"], fitted.targets)
        measured = measured_best(design, tried, goal)
    limits = {key: value for key, value in how.items() if key != "seed"}
    return verdicts(
        fitted,
        best,
        tried=tried,
        measured=measured,
        current=now,
        between=between,
        refits=drawn,
        **limits,
    )
