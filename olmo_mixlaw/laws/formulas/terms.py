"""The terms that every law shares: E, A N^-alpha and B D^-beta, each dropped when not asked.

Chinchilla's form (Hoffmann et al. 2022) with sizes and budgets centred on the table.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from olmo_mixlaw.laws.law import (
    EXPONENT_D,
    EXPONENT_N,
    SIZE_TERM,
    Inputs,
    Law,
    Layout,
    Parameter,
    Scene,
    amplitude,
    exponent,
    floor,
)


@dataclass(frozen=True)
class SeparableLaw(Law):
    """A law with parameters of its own for each target, named by `_layout`."""

    def _layout(self, scene: Scene, target: int = 0) -> Layout:
        raise NotImplementedError

    def parameters(self, scene: Scene, target: int) -> list[Parameter]:
        return self._layout(scene, target).parameters


def slopes_for(theta: np.ndarray, inputs: Inputs, wanted: bool) -> np.ndarray | None:
    """Room for the slopes (M, R, P), every column of which a law fills; None if not wanted."""
    return np.empty((len(theta), len(inputs), theta.shape[1])) if wanted else None


def add_scaling(layout: Layout, scene: Scene, target: int, n: bool, d: bool) -> None:
    """Append E and, where wanted, A, alpha and B, beta to a layout."""
    layout.add("E", floor(scene, target))
    if n:
        layout.add("A", amplitude("A", scene, target, *SIZE_TERM))
        layout.add("alpha", exponent("alpha", EXPONENT_N))
    if d:
        layout.add("B", amplitude("B", scene, target, 0.15))
        layout.add("beta", exponent("beta", EXPONENT_D))


def power_term(
    theta: np.ndarray,
    layout: Layout,
    parts: tuple[str, str],
    log_x: np.ndarray,
    jacobian: np.ndarray | None,
) -> np.ndarray:
    """`A exp(-alpha log_x)` (M, R); fills its two columns of `jacobian` (M, R, P).

    `log_x` is (R,) or (M, R).
    """
    scale, power = layout.slices[parts[0]], layout.slices[parts[1]]
    alpha = np.exp(theta[:, power])
    fall = alpha * log_x
    term = np.exp(np.clip(theta[:, scale] - fall, -200, 60))
    if jacobian is not None:
        jacobian[:, :, scale.start] = term
        jacobian[:, :, power.start] = -term * fall
    return term


def scaling_terms(
    theta: np.ndarray, layout: Layout, inputs: Inputs, jacobian: np.ndarray | None
) -> np.ndarray:
    """E plus the N and D terms that the layout has, (M, R); fills their columns of `jacobian`."""
    bottom = np.exp(theta[:, layout.slices["E"]])
    total = np.broadcast_to(bottom, (len(theta), len(inputs))).copy()
    if jacobian is not None:
        jacobian[:, :, layout.slices["E"].start] = bottom
    if "A" in layout.slices:
        total += power_term(theta, layout, ("A", "alpha"), inputs.log_n, jacobian)
    if "B" in layout.slices:
        total += power_term(theta, layout, ("B", "beta"), inputs.log_d, jacobian)
    return total
