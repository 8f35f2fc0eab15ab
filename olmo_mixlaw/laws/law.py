"""What a law is: a formula for the loss of each target, with a prior for every parameter.

A law knows nothing of fitting. It names its parameters for a `Scene` (what the table offers:
domains, targets, whether sizes and budgets vary) and evaluates itself, with its exact
Jacobian, for a whole batch of parameter vectors at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from scipy.stats import norm

from olmo_mixlaw.runs import Design

# A ratio this small contributes nothing to an effective share but keeps its logarithm finite.
TINY = 1e-12


@dataclass(frozen=True)
class Parameter:
    """One parameter as the optimizer sees it: a Gaussian prior and a box.

    With `log`, the optimizer works on the logarithm, and `mean`, `sd`, `lower` and `upper` are
    in that space. `sd` 0 fixes the parameter at `mean`.
    """

    name: str
    unit: str
    mean: float
    sd: float
    lower: float = -np.inf
    upper: float = np.inf
    log: bool = True

    def fixed(self, value: float) -> Parameter:
        return replace(self, mean=value, sd=0.0, lower=value, upper=value)


@dataclass(frozen=True)
class Inputs:
    """The rows at which a law is evaluated.

    `ratios` (R, K); `log_n` and `log_d` (R,) are log(N / N_ref) and log(D / D_ref), all 0 where
    the scene has no such term. `mixtures` are the distinct ratios (U, K) and which of them each
    row has (R,), where `compact` found that rows repeat them.
    """

    ratios: np.ndarray
    log_n: np.ndarray
    log_d: np.ndarray
    mixtures: tuple[np.ndarray, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.ratios)

    def take(self, rows: Any) -> Inputs:
        return Inputs(self.ratios[rows], self.log_n[rows], self.log_d[rows])

    def compact(self) -> Inputs:
        """The same rows, with `mixtures` where there are at most half as many as rows."""
        unique, which = np.unique(self.ratios, axis=0, return_inverse=True)
        return (
            replace(self, mixtures=(unique, which.ravel()))
            if 2 * len(unique) <= len(self)
            else self
        )


@dataclass(frozen=True, eq=False)
class Scene:
    """What a table offers to a law. Two scenes are equal only when they are the same object.

    `n_ref` and `d_ref` are the geometric means of sizes and budgets, so that the coefficient of
    a power term is that term's value, in nats, amid the table. `low` and `spread` (T,) are each
    target's least loss and its range in nats: the scale of the priors. `own` (T,) is the index
    of the domain that a target is, or -1 for a target that no domain of the mixture is.
    """

    domains: list[str]
    targets: list[str]
    own: np.ndarray
    low: np.ndarray
    spread: np.ndarray
    has_n: bool
    has_d: bool
    n_ref: float
    d_ref: float
    n_range: tuple[float, float] = (np.nan, np.nan)
    d_range: tuple[float, float] = (np.nan, np.nan)

    @classmethod
    def of(cls, design: Design) -> Scene:
        n, d = design.n_params, design.n_tokens
        has_n, has_d = _varies(n), _varies(d)
        with np.errstate(all="ignore"):
            low = np.nanmin(design.losses, axis=0)
            high = np.nanmax(design.losses, axis=0)
        own = [design.domains.index(t) if t in design.domains else -1 for t in design.targets]
        return cls(
            domains=list(design.domains),
            targets=list(design.targets),
            own=np.array(own, int),
            low=low,
            spread=np.maximum(high - low, 0.02 * low),
            has_n=has_n,
            has_d=has_d,
            n_ref=_centre(n),
            d_ref=_centre(d),
            n_range=_range(n),
            d_range=_range(d),
        )

    @property
    def n_domains(self) -> int:
        return len(self.domains)

    @property
    def n_targets(self) -> int:
        return len(self.targets)

    def inputs(self, ratios: np.ndarray, n_params: Any, n_tokens: Any) -> Inputs:
        """Rows in the scene's units; a term that the scene lacks gets 0."""
        rows = len(ratios)
        return Inputs(
            np.asarray(ratios, float),
            _log_over(n_params, self.n_ref, rows) if self.has_n else np.zeros(rows),
            _log_over(n_tokens, self.d_ref, rows) if self.has_d else np.zeros(rows),
        )


def _varies(values: np.ndarray) -> bool:
    seen = values[np.isfinite(values)]
    return len(seen) == len(values) and len(seen) > 0 and seen.max() > seen.min() * 1.05


def _centre(values: np.ndarray) -> float:
    seen = values[np.isfinite(values)]
    return float(np.exp(np.log(np.unique(seen)).mean())) if len(seen) else float("nan")


def _range(values: np.ndarray) -> tuple[float, float]:
    seen = values[np.isfinite(values)]
    return (float(seen.min()), float(seen.max())) if len(seen) else (float("nan"),) * 2


def _log_over(values: Any, reference: float, rows: int) -> np.ndarray:
    return np.log(np.broadcast_to(np.asarray(values, float), (rows,)) / reference)


@dataclass(frozen=True)
class Law:
    """A formula with parameters. Subclasses give `parameters`, `evaluate`, `ratio_gradient`.

    A separable law has one parameter vector a target: `evaluate` maps (M, P) to (M, R). A
    coupled law has one vector for all targets and maps (M, P) to (M, R, T).
    """

    name: ClassVar[str] = ""
    formula: ClassVar[str] = ""
    source: ClassVar[str] = ""
    coupled: ClassVar[bool] = False
    uses_mixture: ClassVar[bool] = True
    n_starts: ClassVar[int] = 6

    def parameters(self, scene: Scene, target: int) -> list[Parameter]:
        """The parameters of one target, in the order of theta (a coupled law ignores `target`)."""
        raise NotImplementedError

    def evaluate(
        self, theta: np.ndarray, inputs: Inputs, scene: Scene, jacobian: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Losses in nats for each parameter vector, and their derivatives by theta."""
        raise NotImplementedError

    def ratio_gradient(self, theta: np.ndarray, inputs: Inputs, scene: Scene) -> np.ndarray:
        """Derivative of the losses by the ratios, (M, R, K) or (M, R, T, K), the ratios free."""
        raise NotImplementedError

    def fit(self, design: Design, *, seed: int, settings: Any) -> Any:
        """Fit this law to a design. Raises `FitError`; use `olmo_mixlaw.laws.fit`."""
        from olmo_mixlaw.laws.fitting import fit_formula

        return fit_formula(self, design, seed=seed, settings=settings)

    def predict(self, fit: Any, inputs: Inputs) -> np.ndarray:
        """Losses (R, T) under a fit of this law."""
        loss, _ = self.evaluate(fit.theta, inputs, fit.scene)
        return loss[0] if self.coupled else loss.T

    def gradient(self, fit: Any, inputs: Inputs) -> np.ndarray:
        """Derivative of `predict` by the ratios, (R, T, K)."""
        slopes = self.ratio_gradient(fit.theta, inputs, fit.scene)
        return slopes[0] if self.coupled else slopes.transpose(1, 0, 2)

    def count(self, fit: Any) -> int:
        """Numbers that a fit of this law learnt from the table, over all targets."""
        return int((fit.theta_sd > 0).sum()) or int(fit.theta.size)

    def half_width(self, fit: Any, inputs: Inputs, level: float) -> np.ndarray:
        """Half of the central interval of log loss that a new run falls in, (R, T).

        A single formula knows its residuals only, so this is the least that it may be off: what
        it misses where no run was made is in `uncertainty.bootstrap`.
        """
        wide = float(norm.ppf(0.5 + level / 2)) * fit.noise
        return np.broadcast_to(wide, (len(inputs), fit.scene.n_targets))

    def options(self) -> dict[str, Any]:
        """The law's own settings, for the record of a fit."""
        from dataclasses import asdict

        return asdict(self)


@dataclass
class Layout:
    """Names of the parts of a parameter vector: `layout["E"]` is where E stands."""

    parameters: list[Parameter] = field(default_factory=list)
    slices: dict[str, slice] = field(default_factory=dict)

    def add(self, part: str, items: Parameter | Sequence[Parameter]) -> None:
        items = [items] if isinstance(items, Parameter) else list(items)
        self.slices[part] = slice(len(self.parameters), len(self.parameters) + len(items))
        self.parameters += items


@lru_cache(maxsize=64)
def layout_of(law: Any, scene: Scene) -> Layout:
    """The law's layout, kept: to build it takes longer than to evaluate a short table."""
    return law._layout(scene)


# Priors on the shape of a law. Exponents of size and data terms in the published fits lie between
# .1 and .6 (Hoffmann et al. 2022, table A3; Shukor et al. 2025; Bhagia et al. 2024). That of size
# and the share of its term were set on two open tables with three sizes, the largest held out.
EXPONENT_N = (float(np.log(0.22)), 0.30)
EXPONENT_D = (float(np.log(0.30)), 0.60)
SIZE_TERM = (0.30, 0.7)


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
    return Parameter(name, "1", float(prior[0]), prior[1], np.log(1e-3), np.log(upper))
