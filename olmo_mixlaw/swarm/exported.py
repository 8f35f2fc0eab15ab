"""What mixtures written for other trainers share: their check, their repeats, their text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.swarm.sources import SUM_TOLERANCE, Source, SourceTree

# Olmix rounds repetition factors up to so many decimals (its synthesize_mixture.py).
DECIMALS = 3


def checked(ratios: np.ndarray, tree: SourceTree, names: Sequence[str]) -> np.ndarray:
    """Mixtures (n, L) of a tree's leaves, one a name. Raises `ConfigError`."""
    ratios = np.atleast_2d(np.asarray(ratios, float))
    if ratios.shape != (len(names), len(tree.leaves)):
        raise ConfigError(
            f"{tree.file}: mixtures of shape {ratios.shape}: expected {len(names)} of "
            f"{len(tree.leaves)} sources"
        )
    if (ratios < 0).any() or (np.abs(ratios.sum(1) - 1) > SUM_TOLERANCE).any():
        raise ConfigError(f"{tree.file}: a mixture's ratios must be 0 or above and sum to 1")
    if len(set(names)) < len(names):
        raise ConfigError(f"{tree.file}: two mixtures have one name; each is a file of its own")
    return ratios


def repetition(ratios: np.ndarray, tokens: np.ndarray, run_tokens: float | None) -> np.ndarray:
    """How often runs of `run_tokens` see each leaf (n, L), at least 1, rounded up; 1 if unknown.

    `tokens` (L,) are those of the leaves.
    """
    if run_tokens is None:
        return np.ones_like(ratios)
    known = np.where(np.isfinite(tokens) & (tokens > 0), tokens, np.inf)
    return np.maximum(1.0, np.ceil(ratios * run_tokens / known * 10**DECIMALS) / 10**DECIMALS)


def files_of(leaf: Source, tree: SourceTree, reader: str) -> list[str]:
    """A leaf's files, found from wherever the configuration lies. Raises `ConfigError`."""
    if not leaf.paths:
        raise ConfigError(f"{tree.file}: {leaf.name}: has no files for {reader}; give paths")
    return [p if "://" in p else str(Path(p).absolute()) for p in leaf.paths]


def as_yaml(values: Mapping[str, Any]) -> str:
    """A configuration's text, its keys in their order."""
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, width=100)
