"""`Fit`: a fitted law, frozen: parameters, errors, provenance and the range that it has seen.

It predicts, and it is one JSON file: what was fitted on which data by which version. The law is
saved under its name in the registry, so that a package's law is found again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from olmo_mixlaw import __version__
from olmo_mixlaw.atomic import write_text
from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws import adjusted
from olmo_mixlaw.laws.law import Law, Scene, Settings, Surface
from olmo_mixlaw.laws.level import Level
from olmo_mixlaw.laws.repetition import NAMES, Repetition, available_of
from olmo_mixlaw.laws.saved import array_of, plain, read_saved
from olmo_mixlaw.laws.sizes import Size
from olmo_mixlaw.registry import LAWS
from olmo_mixlaw.runs import Design
from olmo_mixlaw.runs.units import UNSTATED

FORMAT = 2


@dataclass(frozen=True, eq=False)
class Fit:
    """A law with values: what `fit` returns.

    `theta` is (T, P), a row a target, or (1, P) for a coupled law; `theta_sd` its standard
    errors in the optimizer's space. `noise` (T,) is the residual standard deviation of log loss.
    `mixtures` (m, K) are the sampled ratios. `state` holds what a law without a formula learnt:
    numbers, text, arrays and fits, in lists and dicts. `size` says what N is, `repetition` what
    repeated tokens count, `level` what the losses are beyond the table.
    """

    law: Law
    scene: Scene
    theta: np.ndarray
    theta_sd: np.ndarray
    noise: np.ndarray
    mixtures: np.ndarray
    n_rows: int
    converged: np.ndarray
    seed: int = 0
    data_hash: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    size: Size = field(default_factory=Size)
    repetition: Repetition | None = None
    level: Level | None = None

    @classmethod
    def learnt(
        cls,
        law: Law,
        design: Design,
        *,
        state: dict[str, Any],
        noise: np.ndarray,
        seed: int,
        settings: Settings,
    ) -> Fit:
        """The fit of a law without a formula: all that it learnt is in `state`."""
        scene = Scene.of(design)
        empty = np.zeros((scene.n_targets, 0))
        return cls(
            law=law,
            scene=scene,
            theta=empty,
            theta_sd=empty,
            noise=noise,
            mixtures=np.unique(design.ratios, axis=0),
            n_rows=len(design),
            converged=np.ones(scene.n_targets, bool),
            seed=seed,
            data_hash=data_hash(design),
            provenance=provenance(settings),
            state=state,
        )

    def __repr__(self) -> str:
        return (
            f"<Fit of {self.law.label}: {self.n_rows} runs, {len(self.domains)} domains, "
            f"{len(self.targets)} targets, {self.n_parameters} parameters>"
        )

    @property
    def domains(self) -> list[str]:
        return self.scene.domains

    @property
    def targets(self) -> list[str]:
        return self.scene.targets

    @property
    def n_parameters(self) -> int:
        """Free parameters, over all targets and all parts of the law."""
        repeats = self.repetition is not None and self.repetition.is_fitted
        return self.law.count(self) + int(self.size.is_fitted) + len(NAMES) * repeats

    @property
    def has_gradient(self) -> bool:
        """Whether the losses have slopes by the ratios, at least those of some part."""
        parts = self.law.parts(self)
        return self.law.has_gradient and (not parts or any(p.has_gradient for p in parts))

    @property
    def steps(self) -> bool:
        """Whether the losses jump, as those of trees do, in any part."""
        return self.law.steps or any(part.steps for part in self.law.parts(self))

    def predict(
        self,
        ratios: np.ndarray,
        n_params: Any = np.nan,
        n_tokens: Any = np.nan,
        n_active: Any = None,
        available: Any = None,
    ) -> np.ndarray:
        """Losses (R, T), in the table's unit, for `ratios` (R, K) or (K,), sizes and budgets.

        `n_params`, `n_tokens` and `n_active` are numbers or (R,); `n_active` is needed by a fit
        whose capacity is not `total`. `available` are the tokens that each domain has for these
        runs, as `having` takes them. Raises `FitError` for ratios of a wrong shape or sum, and
        for a size or budget that the table can't speak of: one other than the table's when it
        has only one, and for a law whose predictions are no positive numbers or of another shape.
        """
        if available is not None:
            return self.having(available).predict(ratios, n_params, n_tokens, n_active)
        ratios = self.checked_ratios(ratios)
        n_params = self.checked_scale(n_params, n_tokens, n_active)
        losses = adjusted.losses(self, ratios, n_params, n_tokens)
        if np.shape(losses) != (len(ratios), len(self.targets)):
            raise FitError(
                f"{self.law.label}: predicts losses of shape {np.shape(losses)} for {len(ratios)} "
                f"rows and {len(self.targets)} targets"
            )
        if not (np.isfinite(losses) & (losses > 0)).all():
            raise FitError(f"{self.law.label}: predicts a loss that is no positive number")
        return losses

    def having(self, available: Any) -> Fit:
        """The fit, asked about runs whose domains have so many tokens, which they may repeat.

        `available` is a mapping (what it leaves out never ends), (K,), or (R, K) for runs that
        differ; None for runs without repeats. Raises `FitError`.
        """
        if available is None:
            plain = self.repetition and replace(self.repetition, available=None)
            return replace(self, repetition=plain)
        tokens = available_of(available, self.domains)
        repetition = self.repetition or Repetition(budgets_vary=self.scene.has_d)
        return replace(self, repetition=replace(repetition, available=tokens))

    def seen(self, design: Design) -> Design:
        """A design as the law of this fit sees it: its N, and the fresh text it counts as."""
        design = self.size.applied(design)
        return design if self.repetition is None else self.repetition.applied(design)

    def ratio_gradient(
        self,
        ratios: np.ndarray,
        n_params: Any = np.nan,
        n_tokens: Any = np.nan,
        n_active: Any = None,
    ) -> np.ndarray:
        """Derivative of the losses by the ratios, (R, T, K), each ratio moved by itself."""
        n_params = self.size_of(n_params, n_active)
        ratios = self.checked_ratios(ratios, tolerance=1e-3)
        return adjusted.gradient(self, ratios, n_params, n_tokens)

    def surface(self, size: float, n_tokens: float) -> Surface:
        """The losses at one size, as the law sees it, and budget, as a function of the mixture."""
        return adjusted.surface(self, size, n_tokens)

    def with_steps(
        self, losses: np.ndarray, ratios: np.ndarray, size: float, n_tokens: float
    ) -> np.ndarray:
        """The losses (S, T) that `predict` gives, from those of the surface at these ratios."""
        return adjusted.with_steps(self, losses, ratios, size, n_tokens)

    def half_width(
        self, ratios: np.ndarray, size: Any, n_tokens: Any, level: float = 0.9
    ) -> np.ndarray:
        """Half of the central interval of log loss that a new run falls in, (R, T)."""
        return adjusted.half_width(self, self.checked_ratios(ratios), size, n_tokens, level)

    def checked_scale(self, n_params: Any, n_tokens: Any, n_active: Any = None) -> Any:
        """The N that the law sees, refusing a size or budget that the table can't speak of."""
        size = self.size_of(n_params, n_active)
        self._refuse_unseen_scale(size, "n_params", self.scene.has_n, self.scene.n_range)
        self._refuse_unseen_scale(n_tokens, "n_tokens", self.scene.has_d, self.scene.d_range)
        fresh = n_tokens if self.repetition is None else self.repetition.at_most(n_tokens)
        refusal = "" if self.level is None else self.level.refusal(fresh)
        if refusal:
            raise FitError(f"{self.law.name}: {refusal}")
        return size

    def size_of(self, n_params: Any, n_active: Any = None) -> Any:
        """The N that the law sees, for total and active counts. Raises `FitError`."""
        return self.size.of(n_params, n_active, self.law.name)

    def checked_ratios(self, ratios: np.ndarray, tolerance: float = 1e-6) -> np.ndarray:
        ratios = np.atleast_2d(np.asarray(ratios, float))
        if ratios.ndim != 2 or ratios.shape[1] != len(self.domains):
            raise FitError(
                f"ratios have {ratios.shape[-1]} values, the fit has {len(self.domains)} domains "
                f"({', '.join(self.domains)})"
            )
        if not np.isfinite(ratios).all() or (ratios < -1e-12).any():
            raise FitError("ratios must be finite and not negative")
        off = np.abs(ratios.sum(1) - 1)
        # The law alone of a table of one budget sees less than all of runs that repeat.
        effective = bool((self.mixtures.sum(1) < 1 - tolerance).any())
        if (off > tolerance).any() and not effective:
            i = int(off.argmax())
            raise FitError(f"ratios of row {i + 1} sum to {ratios[i].sum():.9g}, not 1")
        return np.maximum(ratios, 0.0)

    def _refuse_unseen_scale(
        self, values: Any, name: str, has: bool, seen: tuple[float, float]
    ) -> None:
        values = np.asarray(values, float)
        if has:
            if not np.all(np.isfinite(values) & (values > 0)):
                raise FitError(f"{self.law.name}: {name} is needed and must be positive")
            return
        asked = np.atleast_1d(values)
        if np.isinf(asked).any() or (asked <= 0).any():
            raise FitError(f"{self.law.name}: {name} must be positive and finite")
        asked = asked[np.isfinite(asked)]
        if self.level is not None:
            return
        if len(asked) and not np.isfinite(seen[0]):
            raise FitError(
                f"{self.law.name}: the table has no {name}, so it can't speak of {asked[0]:.6g}; "
                f"leave it out, or fit a table with a column {name}"
            )
        if np.isfinite(seen[0]) and len(asked) and (np.abs(asked / seen[0] - 1) > 0.05).any():
            raise FitError(
                f"{self.law.name}: the table has one {name} only ({seen[0]:.6g}), so it can't "
                f"speak of {asked[np.argmax(np.abs(asked / seen[0] - 1))]:.6g}; add runs at another"
                + ("" if name != "n_tokens" else " (a longer run's caps alone: cap_tokens)")
            )

    @property
    def unit(self) -> str:
        """The unit of the losses (`runs.units`)."""
        return self.scene.unit

    @property
    def mixture_r2(self) -> float:
        """Variance explained among mixtures that were held out; NaN where nobody measured it."""
        found = self.provenance.get("mixture_r2")
        return float("nan") if found is None else float(found)

    def cannot_tell_mixtures(self) -> str:
        """Why no mixture can be read from this fit; nothing where one can, as far as is known."""
        parts = self.law.parts(self)
        if not self.law.uses_mixture or (parts and not any(p.law.uses_mixture for p in parts)):
            return (
                f"NO ANSWER: {self.law.label} knows no mixture, so that every mixture is as good; "
                "fit a law that does"
            )
        if self.mixture_r2 < 0:
            return (
                f"NO ANSWER: mixtures can't be told apart by this table: on mixtures held out "
                f"{self.law.label} explains less than their mean does (R2 {self.mixture_r2:.2f}); "
                "add runs, or compare laws"
            )
        return ""

    @property
    def parameters(self) -> pd.DataFrame:
        """One row a parameter: target, parameter, value, low, high (about 68 %), unit, fixed."""
        rows = self.law.rows(self)
        if self.size.kind == "effective":
            fixed = not self.size.is_fitted
            low, high = self.size.interval or (np.nan, np.nan)
            rows.append(("all", "rho", self.size.rho, low, high, "1", fixed))
        if self.repetition is not None:
            rows += self.repetition.rows()
        names = ["target", "parameter", "value", "low", "high", "unit", "fixed"]
        return pd.DataFrame(rows, columns=names).astype({"fixed": bool})

    def save(self, path: str | Path) -> Path:
        """Write the fit as JSON, atomically; returns the path.

        Raises `FitError` for a law that no registry knows: it could not be read again.
        """
        return write_text(path, json.dumps(self.to_json(), indent=1) + "\n")

    def to_json(self) -> dict[str, Any]:
        name = LAWS.name_of(type(self.law))
        if name is None:
            raise FitError(
                f"the law {type(self.law).__qualname__} is in no registry, so its fit can't "
                f"be saved: give it an entry point in {LAWS.group}, or call registry.LAWS.add"
            )
        scene = {k: plain(v) for k, v in vars(self.scene).items()}
        apart = ("law", "scene", "size", "repetition", "level")
        record = {k: plain(v) for k, v in vars(self).items() if k not in apart}
        law = {"name": name, "options": self.law.options()}
        head = {"format": FORMAT, "law": law, "scene": scene, "size": asdict(self.size)}
        parts = {"repetition": self.repetition, "level": self.level}
        return {**head, **{k: v and plain(asdict(v)) for k, v in parts.items()}, **record}

    @classmethod
    def load(cls, path: str | Path) -> Fit:
        """Read a fit that `save` wrote. Raises `DataError`."""
        fit: Fit = read_saved(path, "fit", lambda record: cls.from_json(record, str(path)))
        return fit

    def _try_out(self) -> None:
        """Predict once: parts that don't go together show here, and not in the midst of work.

        Raises `ValueError`.
        """
        if self.mixtures.ndim != 2 or self.mixtures.shape[1] != len(self.domains):
            raise ValueError(f"mixtures of shape {self.mixtures.shape}")
        at = (self.mixtures[:1], self.scene.n_range[1], self.scene.d_range[1])
        if np.shape(adjusted.losses(self, *at)) != (1, len(self.targets)):
            raise ValueError("its law predicts something else than a loss a target")

    @classmethod
    def from_json(cls, record: dict[str, Any], where: str = "") -> Fit:
        record = dict(record)
        if record.pop("format") != FORMAT:
            raise ValueError(f"format must be {FORMAT}; fit again with this version")
        named = record.pop("law")
        options = {k: tuple(v) if isinstance(v, list) else v for k, v in named["options"].items()}
        law = LAWS.get(named["name"], where)(**options)
        scene = {k: revived(v) for k, v in record.pop("scene").items()}
        scene.setdefault("unit", UNSTATED)  # fits from before tables had one
        for key in ("n_range", "d_range"):
            scene[key] = tuple(float(v) for v in scene[key])
        size = record.pop("size")
        size["interval"] = size["interval"] and tuple(size["interval"])
        values = {key: revived(value) for key, value in record.items()}
        if values.get("repetition"):
            values["repetition"] = Repetition.of_saved(values["repetition"])
        if values.get("level"):
            values["level"] = Level.of_saved(values["level"])
        fit = cls(law=law, scene=Scene(**scene), size=Size(**size), **values)
        fit._try_out()
        return fit


def provenance(settings: Settings) -> dict[str, Any]:
    """By what a fit was made: versions, and how outliers were held."""
    return {"version": __version__, "numpy": np.__version__, "huber": settings.huber}


def data_hash(design: Design) -> str:
    """A digest of everything that a fit reads."""
    digest = hashlib.sha256("\0".join([*design.domains, "|", *design.targets]).encode())
    for array in (design.ratios, design.n_params, design.n_tokens, design.losses):
        digest.update(np.ascontiguousarray(array, float).tobytes())
    return digest.hexdigest()[:16]


def revived(value: Any) -> Any:
    """What `plain` wrote, with its arrays back."""
    if isinstance(value, dict):
        if set(value) == {"shape", "dtype", "values"}:
            return array_of(value)
        if "format" in value and "law" in value:
            return Fit.from_json(value)
        return {k: revived(v) for k, v in value.items()}
    return [revived(v) for v in value] if isinstance(value, list) else value
