"""What scores are read from: losses of domains, of tasks, and the scores themselves as losses.

Each kind is a design, so that any law can be fitted to it. A task's loss is named `loss of TASK`;
its score `score of TASK` is the positive number -log((acc - lo) / (1 - lo)), the "loss" of
predicting the score directly (arXiv 2512.08894, equation 1, uses it against compute).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from olmo_mixlaw.advice.score_table import ScoreTable
from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.laws.fitting import fit
from olmo_mixlaw.runs import Design
from olmo_mixlaw.runs.units import BITS, UNSTATED

LOSS_OF, SCORE_OF = "loss of ", "score of "
# What a score has above chance counts as at least and at most this part of what it could have.
LEAST_ABOVE, MOST_ABOVE = 0.01, 0.999
# What one standard deviation to either side holds of a normal distribution.
ONE_SD = 0.6826894921


def above_chance(read: ScoreTable) -> np.ndarray:
    """(acc - lo) / (1 - lo), (R, Q), kept within (0, 1)."""
    part = (read.score - read.floors) / (1 - read.floors)
    return np.clip(part, LEAST_ABOVE, MOST_ABOVE)


def kinds_of_losses(read: ScoreTable) -> dict[str, Design]:
    """A design for each kind of loss that the table has, without losses that no run has."""
    found = {"domains": read.design}
    if read.loss is not None:
        names = [LOSS_OF + task for task in read.loss_tasks]
        found["tasks"] = _known(read.design, names, read.loss, BITS)
    names = [SCORE_OF + task for task in read.tasks]
    found["scores"] = _known(read.design, names, -np.log(above_chance(read)), UNSTATED)
    return {kind: design for kind, design in found.items() if design.targets}


def _known(design: Design, names: list[str], losses: np.ndarray, unit: str) -> Design:
    some = np.isfinite(losses).any(0)
    targets = [name for name, is_known in zip(names, some, strict=True) if is_known]
    return replace(design, targets=targets, losses=losses[:, some], unit=unit)


def joint_design(read: ScoreTable, inputs: Sequence[str] | None = None) -> Design:
    """All losses of a table side by side, or those named `inputs`, of whatever kind."""
    kinds = list(kinds_of_losses(read).values())
    names = [name for design in kinds for name in design.targets]
    losses = np.concatenate([design.losses for design in kinds], axis=1)
    wanted = names if inputs is None else list(inputs)
    units = {d.unit for d in kinds if set(d.targets) & set(wanted)}
    columns = [names.index(name) for name in wanted]
    unit = units.pop() if len(units) == 1 else UNSTATED
    return replace(read.design, targets=wanted, losses=losses[:, columns], unit=unit)


@dataclass(frozen=True)
class Below:
    """Fits of a law to each kind of loss that it can be fitted to."""

    fits: dict[str, Fit]

    @classmethod
    def of(cls, read: ScoreTable, law: str, how: dict[str, Any]) -> Below:
        """Fit `law` to every kind; a kind that it can't do is left out."""
        found = {}
        for kind, design in kinds_of_losses(read).items():
            try:
                found[kind] = fit(law, design, **how)
            except FitError:
                continue
        return cls(found)

    def losses(self, design: Design, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Losses (R, T) of runs by name, NaN where no fit has them, and errors of their logs."""
        losses = np.full((len(design), len(names)), np.nan)
        errors = losses.copy()
        place = {name: i for i, name in enumerate(names)}
        scale = (design.n_params, design.n_tokens, design.n_active)
        at = (design.ratios, *scale, design.available)
        for fitted in self.fits.values():
            try:
                value, error = predicted_losses(fitted, *at)
            except FitError:
                continue
            columns = [place[name] for name in fitted.targets]
            losses[:, columns], errors[:, columns] = value, error
        return losses, errors


def predicted_losses(
    fitted: Fit, ratios: np.ndarray, n_params: Any, n_tokens: Any, n_active: Any, available: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Losses (R, T) as `Fit.predict` gives them, and the standard errors of their logarithms."""
    asked = fitted if available is None else fitted.having(available)
    losses = asked.predict(ratios, n_params, n_tokens, n_active)
    size = asked.size_of(n_params, n_active)
    return losses, asked.half_width(ratios, size, n_tokens, ONE_SD)
