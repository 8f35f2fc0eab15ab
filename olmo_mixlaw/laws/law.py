"""What a law is: anything that can be fitted to runs and then predicts the losses of others.

A law reads a `Scene` (what the table offers: domains, targets, whether sizes and budgets vary)
and `Inputs` in its units. Laws with a formula are `engine.formula.Formula`; all others say here
what they can do, so that nobody has to know them by name.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from scipy.stats import norm

from olmo_mixlaw.errors import ConfigError, FitError
from olmo_mixlaw.registry import DEFAULT_LAW, LAWS, PLAIN_LAW
from olmo_mixlaw.runs import Design
from olmo_mixlaw.runs.units import NATS

if TYPE_CHECKING:
    from olmo_mixlaw.laws.engine.formula import Formula
    from olmo_mixlaw.laws.fitted import Fit

# A ratio this small contributes nothing to an effective share but keeps its logarithm finite.
TINY = 1e-12

# Ratios (S, K) and whether slopes are wanted -> losses (S, T) and slopes (S, T, K) or None.
Surface = Callable[[np.ndarray, bool], tuple[np.ndarray, np.ndarray | None]]

# A parameter as a fit shows it: target, name, value, low, high, unit, whether it was fixed.
Row = tuple[str, str, float, float, float, str, bool]


@dataclass(frozen=True)
class Settings:
    """How to fit: starts a target (None: the law's own), Huber's bend in units of the noise."""

    starts: int | None = None
    huber: float = 3.0
    iterations: int = 80
    strict: bool = True


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
    a power term is that term's value amid the table. `low` and `spread` (T,) are each target's
    least loss and its range: the scale of the priors. `own` (T,) is the index of the domain that a
    target is, or -1 for a target that no domain of the mixture is. Losses are in `unit`.
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
    unit: str = NATS

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
            unit=design.unit,
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
class Law(ABC):
    """Something that learns losses from runs. Subclasses give at least `fit` and `predict`.

    `has_gradient` says that losses have slopes by the ratios (`gradient`), `steps` that they jump,
    as trees do: an optimum is sought accordingly. `coupled` says that all targets share one set of
    parameters, `uses_mixture` that the ratios matter at all.
    """

    name: ClassVar[str] = ""
    formula: ClassVar[str] = ""
    source: ClassVar[str] = ""
    coupled: ClassVar[bool] = False
    uses_mixture: ClassVar[bool] = True
    has_gradient: ClassVar[bool] = False
    steps: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "name" not in vars(cls):
            cls.name = cls.__name__

    @abstractmethod
    def fit(self, design: Design, *, seed: int, settings: Settings) -> Fit:
        """Fit this law to a design. Raises `FitError`; use `olmo_mixlaw.laws.fit`."""

    @abstractmethod
    def predict(self, fit: Fit, inputs: Inputs) -> np.ndarray:
        """Losses (R, T) under a fit of this law."""

    def gradient(self, fit: Fit, inputs: Inputs) -> np.ndarray:
        """Derivative of `predict` by the ratios, (R, T, K). Raises `FitError` without one."""
        raise FitError(f"{self.name}: its losses have no slope by the ratios")

    def parts(self, fit: Fit) -> list[Fit]:
        """The fits of other laws that a fit of this one is made of."""
        return []

    def surface(self, fit: Fit, n_params: float, n_tokens: float) -> Surface:
        """The losses at one size (as the law sees it) and budget, as a function of the mixture.

        What an optimizer calls often: losses and slopes from one pass. Smooth where the law has a
        smooth part: the luck of single runs and the steps of trees should not draw an optimum.
        """

        def at(ratios: np.ndarray, slopes: bool) -> tuple[np.ndarray, np.ndarray | None]:
            inputs = fit.scene.inputs(ratios, n_params, n_tokens)
            return self.predict(fit, inputs), self.gradient(fit, inputs) if slopes else None

        return at

    def with_steps(self, fit: Fit, losses: np.ndarray, inputs: Inputs) -> np.ndarray:
        """What the law predicts (S, T), from the `losses` of its surface there."""
        return losses

    def count(self, fit: Fit) -> int:
        """Numbers that a fit of this law learnt from the table, over all targets.

        Unless a law knows better, all that its fit holds: a law that says nothing of its size is
        never taken for the simplest.
        """
        return _numbers(fit.theta) + _numbers(fit.state)

    def rows(self, fit: Fit) -> list[Row]:
        """The parameters that a fit shows."""
        return []

    def written(self, scene: Scene) -> str:
        """The formula with N and D as they are in it: over the table's middle, `N/4.2e+07`.

        A term in N or D alone that the scene lacks is none; what is left out is said.
        """
        formula, notes = self.formula, []
        for name, has, middle, what in (
            ("N", scene.has_n, scene.n_ref, "sizes"),
            ("D", scene.has_d, scene.d_ref, "budgets"),
        ):
            if has:
                formula = re.sub(rf"(?<!log )\b{name}\b", f"({name}/{middle:.6g})", formula)
                formula = re.sub(rf"log {name}\b", f"log({name}/{middle:.6g})", formula)
            elif re.search(rf"\b{name}\b", formula):
                formula = re.sub(rf"\b{name}\b", f"{name}'", formula)
                why = "don't vary" if np.isfinite(middle) else "are not known"
                notes.append(f"{name}' = 1, without a term of its own: the table's {what} {why}")
        return "\n  ".join([formula, *notes])

    def half_width(self, fit: Fit, inputs: Inputs, level: float) -> np.ndarray:
        """Half of the central interval of log loss that a new run falls in, (R, T).

        Unless a law knows better, from its residuals: the least that it may be off. What it misses
        where no run was made is in `choice.uncertainty.bootstrap`.
        """
        wide = float(norm.ppf(0.5 + level / 2)) * fit.noise
        return np.broadcast_to(wide, (len(inputs), fit.scene.n_targets))

    def refits(self, fit: Fit, design: Design, counts: np.ndarray) -> Iterator[Fit]:
        """Fits to the same runs, each counted as often as a row of `counts` (B, R) says."""
        for count in counts:
            drawn = design.take(np.repeat(np.arange(len(design)), count))
            drawn = replace(drawn, run_ids=[f"{i}" for i in range(len(drawn))])
            yield self.fit(drawn, seed=fit.seed, settings=Settings(strict=False))

    def suits(self, design: Design) -> bool:
        """Whether the law is worth its time on this table, when nobody asked for it by name."""
        return True

    def in_profile(self, design: Design) -> Formula:
        """The formula that is fitted in its place where only the exponent of a size counts."""
        return resolve(DEFAULT_LAW if len(design.domains) > 1 else PLAIN_LAW)

    def over(self, base: str) -> Law:
        """This law standing on the law called `base`. Raises `ConfigError` for one that can't."""
        raise ConfigError(f"law {self.name!r} stands on no other law, so not on {base!r}")

    @property
    def label(self) -> str:
        """The name under which it can be asked for, `law` or `law:base`."""
        return self.name

    def options(self) -> dict[str, Any]:
        """The law's own settings, for the record of a fit."""
        return asdict(self)

    def check(self, design: Design) -> None:
        """Refuse a table that can't carry the law. Raises `FitError`."""
        if not self.uses_mixture or len(design.domains) < 2:
            return
        still = np.ptp(design.ratios, axis=0) < 1e-9
        if still.any():
            name = design.domains[int(np.argmax(still))]
            raise FitError(
                f"{self.name}: the ratio of domain {name!r} is the same in all {len(design)} runs, "
                "so its effect can't be fitted; vary it or merge it with another domain"
            )


@dataclass(frozen=True)
class BasedLaw(Law):
    """A law that stands on another one, `base`: `kriging:two_pool` is kriging over two_pool."""

    base: str = ""

    def below(self) -> Law:
        """The law underneath. Raises `UnknownNameError`."""
        return resolve(self.base, f"{self.name}: base")

    def over(self, base: str) -> Law:
        found = replace(self, base=base)
        found.below()
        return found

    @property
    def label(self) -> str:
        return self.name if self == type(self)() else f"{self.name}:{self.base}"


def resolve(law: str | Law, where: str = "") -> Any:
    """The law of that name (`law`, or `law:base`), or the law itself. Raises `UnknownNameError`."""
    if not isinstance(law, str):
        return law
    name, _, base = law.partition(":")
    part = LAWS.get(name, where)
    try:
        found = part()
    except TypeError as error:
        place = f"{where}: " if where else ""
        raise ConfigError(f"{place}law {name!r} can't be asked for by its name ({error})") from None
    return found.over(base) if base else found


def _numbers(value: Any) -> int:
    """How many numbers an array, a fit, or a structure of them holds; a text counts as one."""
    if isinstance(value, np.ndarray):
        return value.size
    if isinstance(value, dict):
        return sum(_numbers(item) for item in value.values())
    if isinstance(value, list | tuple):
        return sum(_numbers(item) for item in value)
    return getattr(value, "n_parameters", 1)
