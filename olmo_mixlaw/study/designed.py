"""A study of the runs that a plan chose: the same study, with these runs in place of its grid."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from olmo_mixlaw.study.settings import RunsConfig, StudyConfig

# Digits of a ratio that are kept, and those of a mixture's number in its name.
DECIMALS = 4


def designed(
    study: StudyConfig, runs: Iterable[tuple[str, int, tuple[float, ...], int]]
) -> StudyConfig:
    """`study` with only these runs: size, tokens, ratios by the study's domains, and how often.

    It goes into a folder of its own beside that of `study`, whose runs stay as they are.
    A run that is made several times has the seeds 1, 2, ...
    """
    names: dict[tuple[float, ...], str] = {}
    groups: dict[tuple[str, int, int], list[str]] = {}
    for size, tokens, ratios, times in runs:
        name = names.setdefault(ratios, f"m{len(names) + 1:03d}")
        groups.setdefault((size, tokens, times), []).append(name)
    mixtures = {
        name: _rounded(dict(zip(study.domains, ratios, strict=True)))
        for ratios, name in names.items()
    }
    return dataclasses.replace(
        study,
        name=f"{study.name}-next",
        output=f"{study.output.rstrip('/')}-next",
        sizes=list(dict.fromkeys(size for size, _, _ in groups)),
        tokens=sorted({tokens for _, tokens, _ in groups}),
        mixtures=mixtures,
        seeds=[1],
        runs=[
            RunsConfig(size, tokens, mixtures=some, seeds=list(range(1, times + 1)))
            for (size, tokens, times), some in groups.items()
        ],
    )


def _rounded(ratios: dict[str, float]) -> dict[str, float]:
    """Ratios of few digits that sum to 1: the largest takes what rounding leaves."""
    found = {name: round(value, DECIMALS) for name, value in ratios.items()}
    most = max(found, key=lambda name: found[name])
    found[most] = round(found[most] + 1 - sum(found.values()), DECIMALS)
    return found
