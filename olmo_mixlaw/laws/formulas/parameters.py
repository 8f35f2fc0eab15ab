"""What formulas are made of: parts of a parameter vector, and priors that laws have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from olmo_mixlaw.laws.law import Parameter, Scene

# Priors on the shape of a law. Exponents of size and data terms in the published fits lie between
# .1 and .6 (Hoffmann et al. 2022, table A3; Shukor et al. 2025; Bhagia et al. 2024). That of size
# and the share of its term were set on two open tables with three sizes, the largest held out.
EXPONENT_N = (float(np.log(0.22)), 0.30)
EXPONENT_D = (float(np.log(0.30)), 0.60)
SIZE_TERM = (0.30, 0.7)
# Of the loss amid the table, the part of a data term.
DATA_SHARE = 0.15


@dataclass
class Layout:
    """Names of the parts of a parameter vector: `layout.slices["E"]` is where E stands."""

    parameters: list[Parameter] = field(default_factory=list)
    slices: dict[str, slice] = field(default_factory=dict)

    def add(self, part: str, items: Parameter | Sequence[Parameter]) -> None:
        items = [items] if isinstance(items, Parameter) else list(items)
        self.slices[part] = slice(len(self.parameters), len(self.parameters) + len(items))
        self.parameters += items

    def exp(self, theta: np.ndarray, part: str) -> np.ndarray:
        """exp of a part of theta, (M, n).

        Of a copy: on numbers that lie apart, the last digit of NumPy's exp may change with where
        in memory they happen to lie, and a fit would not be the same each time.
        """
        return np.exp(np.ascontiguousarray(theta[:, self.slices[part]]))

    def add_size(self, scene: Scene, target: int) -> None:
        """A and alpha, where sizes vary."""
        if scene.has_n:
            self.add("A", amplitude("A", scene, target, *SIZE_TERM))
            self.add("alpha", exponent("alpha", EXPONENT_N))

    def add_data(self, scene: Scene, target: int) -> None:
        """B and beta, where budgets vary."""
        if scene.has_d:
            self.add("B", amplitude("B", scene, target, DATA_SHARE))
            self.add("beta", exponent("beta", EXPONENT_D))


def scaling(scene: Scene, target: int, *, size: bool = True, data: bool = True) -> Layout:
    """A layout that begins with E and, where sizes or budgets vary, their terms."""
    layout = Layout()
    layout.add("E", floor(scene, target))
    if size:
        layout.add_size(scene, target)
    if data:
        layout.add_data(scene, target)
    return layout


@lru_cache(maxsize=64)
def layout_of(law: Any, scene: Scene) -> Layout:
    """The law's layout, kept: to build it takes longer than to evaluate a short table."""
    return law.layout(scene)


def floor(scene: Scene, target: int, share: float = 0.5, sd: float = 0.5) -> Parameter:
    """E: the loss that remains with unlimited size and data; below the least loss seen."""
    low = float(scene.low[target])
    return Parameter("E", "nats", np.log(share * low), sd, np.log(1e-3 * low), np.log(low))


def amplitude(name: str, scene: Scene, target: int, share: float, sd: float = 1.2) -> Parameter:
    """The value of a power term amid the table, as a share of the least loss."""
    scale = float(scene.low[target])
    return Parameter(
        name, "nats", np.log(share * scale), sd, np.log(1e-7 * scale), np.log(50 * scale)
    )


def exponent(name: str, prior: tuple[float, float], upper: float = 3.0) -> Parameter:
    """A power whose logarithm has this prior (mean, sd)."""
    return Parameter(name, "1", float(prior[0]), prior[1], np.log(1e-3), np.log(upper))


def each(
    name: str,
    names: Sequence[str],
    unit: str,
    mean: float | Sequence[float],
    sd: float,
    lower: float,
    upper: float,
    log: bool = True,
) -> list[Parameter]:
    """One parameter for each of `names`; `mean` is one number or one for each."""
    means = np.broadcast_to(np.asarray(mean, float), (len(names),))
    return [
        Parameter(f"{name}[{one}]", unit, float(m), sd, lower, upper, log)
        for one, m in zip(names, means, strict=True)
    ]
