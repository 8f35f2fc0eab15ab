"""`Fit`: a fitted law, frozen: parameters, errors, provenance and the range that it has seen.

It predicts, and it is one JSON file: what was fitted on which data by which version.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from olmo_mixlaw.atomic import write_text
from olmo_mixlaw.errors import DataError, FitError
from olmo_mixlaw.laws.law import Law, Scene

FORMAT = 1


@dataclass(frozen=True, eq=False)
class Fit:
    """A law with values: what `fit` returns.

    `theta` is (T, P), a row a target, or (1, P) for a coupled law; `theta_sd` its standard
    errors in the optimizer's space. `noise` (T,) is the residual standard deviation of log loss.
    `mixtures` (m, K) are the sampled ratios. `state` holds the arrays of a law without a formula.
    `capacity` says what N is: the total count of parameters, the active one, or
    N_active^(1 - rho) N_total^rho (laws/moe_capacity.py), `rho_interval` being about 68 %.
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
    capacity: str = "total"
    rho: float = 1.0
    rho_interval: tuple[float, float] = (np.nan, np.nan)

    @property
    def domains(self) -> list[str]:
        return self.scene.domains

    @property
    def targets(self) -> list[str]:
        return self.scene.targets

    @property
    def n_parameters(self) -> int:
        """Free parameters, over all targets and all parts of the law."""
        return self.law.count(self) + int(np.isfinite(self.rho_interval).all())

    def predict(
        self,
        ratios: np.ndarray,
        n_params: Any = np.nan,
        n_tokens: Any = np.nan,
        n_active: Any = None,
    ) -> np.ndarray:
        """Losses in nats a token, (R, T), for `ratios` (R, K) or (K,), sizes and token budgets.

        `n_params`, `n_tokens` and `n_active` are numbers or (R,); `n_active` is needed by a fit
        whose capacity is not `total`. Raises `FitError` for ratios of a wrong shape or sum, and
        for a size or budget that the table can't speak of: one other than the table's when it
        has only one.
        """
        ratios = self.checked_ratios(ratios)
        n_params = self.checked_scale(n_params, n_tokens, n_active)
        inputs = self.scene.inputs(ratios, n_params, n_tokens)
        return self.law.predict(self, inputs)

    def ratio_gradient(
        self,
        ratios: np.ndarray,
        n_params: Any = np.nan,
        n_tokens: Any = np.nan,
        n_active: Any = None,
    ) -> np.ndarray:
        """Derivative of the losses by the ratios, (R, T, K), each ratio moved by itself."""
        n_params = self.size_of(n_params, n_active)
        inputs = self.scene.inputs(self.checked_ratios(ratios, tolerance=1e-3), n_params, n_tokens)
        return self.law.gradient(self, inputs)

    def checked_scale(self, n_params: Any, n_tokens: Any, n_active: Any = None) -> Any:
        """`size_of`, refusing a size or budget that the table can't speak of (`FitError`)."""
        size = self.size_of(n_params, n_active)
        self._refuse_unseen_scale(size, "n_params", self.scene.has_n, self.scene.n_range)
        self._refuse_unseen_scale(n_tokens, "n_tokens", self.scene.has_d, self.scene.d_range)
        return size

    def size_of(self, n_params: Any, n_active: Any = None) -> Any:
        """The N that the law sees, for total and active counts. Raises `FitError`."""
        if self.capacity == "total":
            return n_params
        counts = n_active if self.capacity == "active" else (n_params, n_active)
        if n_active is None or not np.all(np.isfinite(np.asarray(counts, float))):
            raise FitError(
                f"{self.law.name}: this fit's capacity is {self.capacity}: n_active is needed, "
                "and n_params beside it (the same in a dense model)"
            )
        if self.capacity == "active":
            return n_active
        from olmo_mixlaw.laws.moe_capacity import effective

        return effective(n_params, n_active, self.rho)

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
        if (off > tolerance).any():
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
        asked = asked[np.isfinite(asked)]
        if np.isfinite(seen[0]) and len(asked) and (np.abs(asked / seen[0] - 1) > 0.05).any():
            raise FitError(
                f"{self.law.name}: the table has one {name} only ({seen[0]:.6g}), so it can't "
                f"speak of {asked[np.argmax(np.abs(asked / seen[0] - 1))]:.6g}; add runs at another"
            )

    @property
    def parameters(self) -> pd.DataFrame:
        """One row a parameter: target, parameter, value, low, high (about 68 %), unit, fixed."""
        rows = []
        for index, theta in enumerate(self.theta):
            target = "all" if self.law.coupled else self.targets[index]
            for item, value, sd in zip(
                self.law.parameters(self.scene, index), theta, self.theta_sd[index], strict=True
            ):
                ends = np.array([value, value - sd, value + sd])
                middle, low, high = np.exp(np.clip(ends, -700, 700)) if item.log else ends
                rows.append((target, item.name, middle, low, high, item.unit, item.sd == 0))
        if self.capacity == "effective":
            fixed = bool(np.isnan(self.rho_interval).any())
            rows.append(("all", "rho", self.rho, *self.rho_interval, "1", fixed))
        names = ["target", "parameter", "value", "low", "high", "unit", "fixed"]
        return pd.DataFrame(rows, columns=names)

    def save(self, path: str | Path) -> Path:
        """Write the fit as JSON, atomically; returns the path."""
        return write_text(path, json.dumps(self.to_json(), indent=1) + "\n")

    def to_json(self) -> dict[str, Any]:
        scene = {k: _plain(v) for k, v in vars(self.scene).items()}
        record = {k: _plain(v) for k, v in vars(self).items() if k not in ("law", "scene")}
        law = {"name": self.law.name, "options": self.law.options()}
        return {"format": FORMAT, "law": law, "scene": scene, **record}

    @classmethod
    def load(cls, path: str | Path) -> Fit:
        """Read a fit that `save` wrote. Raises `DataError`."""
        path = Path(path)
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            return cls.from_json(record, str(path))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: not a saved fit ({type(error).__name__}: {error})") from None

    @classmethod
    def from_json(cls, record: dict[str, Any], where: str = "") -> Fit:
        from olmo_mixlaw.registry import LAWS

        record = dict(record)
        scene: dict[str, Any]
        if record.pop("format") != FORMAT:
            raise ValueError(f"format must be {FORMAT}")
        named = record.pop("law")
        law = LAWS.get(named["name"], where)(**named["options"])
        scene = {
            k: _array(v) if k in ("own", "low", "spread") else v
            for k, v in record.pop("scene").items()
        }
        for key in ("n_range", "d_range"):
            scene[key] = tuple(float(v) for v in scene[key])
        for key in ("theta", "theta_sd", "noise", "mixtures", "converged"):
            record[key] = _array(record[key])
        record["state"] = _revived(record["state"])
        if "rho_interval" in record:
            record["rho_interval"] = tuple(float(v) for v in record["rho_interval"])
        return cls(law=law, scene=Scene(**scene), **record)


def _plain(value: Any) -> Any:
    """Arrays as lists; JSON's own NaN is kept, as Python reads it back."""
    if isinstance(value, np.ndarray):
        return {
            "shape": list(value.shape),
            "dtype": str(value.dtype),
            "values": value.ravel().tolist(),
        }
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Fit):
        return value.to_json()
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def _revived(value: Any) -> Any:
    """What `_plain` wrote, with its arrays back."""
    if isinstance(value, dict):
        if set(value) == {"shape", "dtype", "values"}:
            return _array(value)
        if "format" in value and "law" in value:
            return Fit.from_json(value)
        return {k: _revived(v) for k, v in value.items()}
    return [_revived(v) for v in value] if isinstance(value, list) else value


def _array(value: dict[str, Any]) -> np.ndarray:
    return np.array(value["values"], dtype=value["dtype"]).reshape(value["shape"])
