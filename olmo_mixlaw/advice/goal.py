"""What an optimum is to minimise: a weighted mean of losses, or a benchmark's scores, negated.

A goal maps losses (S, T) to values (S,) with their slopes, so that gradients by the ratios follow
by the chain rule. `scores.ScoreLaw.goal` gives one for benchmarks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.laws.weights import weights_of


class Goal(Protocol):
    """`label` says what the value is; `value` (S,) and `slope` (S, T) for losses (S, T)."""

    @property
    def label(self) -> str: ...

    def __call__(self, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


@dataclass(frozen=True)
class MeanLoss:
    """The weighted mean of the losses, in their unit; `weights` (T,) sum to 1."""

    weights: np.ndarray
    label: str = "mean loss"

    def __call__(self, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return losses @ self.weights, np.broadcast_to(self.weights, losses.shape)

    @classmethod
    def of(cls, given: Mapping[str, float] | None, targets: list[str]) -> MeanLoss:
        """Weights by name, rescaled to sum to 1; equal ones for None. Raises `ConfigError`."""
        return cls(weights_of(given, targets, "target"))


def goal_of(
    objective: Goal | None, target_weights: Mapping[str, float] | None, targets: list[str]
) -> Goal:
    """The objective itself, or the weighted mean loss. Raises `ConfigError` for both at once."""
    if objective is None:
        return MeanLoss.of(target_weights, targets)
    if target_weights is not None:
        raise ConfigError("target weights and a benchmark: give one objective")
    return objective
