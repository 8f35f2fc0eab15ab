"""RegMix: gradient-boosted trees from ratios to each loss (Liu et al. 2024, arXiv 2407.01492).

No formula and no extrapolation: log N and log D are features where they vary, and a size or
budget beyond the table is predicted like its edge. Needs the extra `olmo-mixlaw[lightgbm]`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.laws.fitting import Settings, check_table, data_hash, provenance
from olmo_mixlaw.laws.law import Inputs, Law, Parameter, Scene
from olmo_mixlaw.runs import Design


@dataclass(frozen=True)
class RegMix(Law):
    """LightGBM, a regressor a target; `rounds` and `rate` as in the paper's code."""

    name = "regmix"
    formula = "trees(h, log N, log D)"
    source = "arXiv 2407.01492"
    rounds: int = 1000
    rate: float = 0.01

    def parameters(self, scene: Scene, target: int) -> list[Parameter]:
        return []

    def fit(self, design: Design, *, seed: int, settings: Settings) -> Fit:
        lightgbm = lightgbm_module(self.name)
        scene = Scene.of(design)
        if settings.strict:
            check_table(self, design, [[]] * scene.n_targets)
        x = tree_columns(scene.inputs(design.ratios, design.n_params, design.n_tokens), scene)
        texts, noise = [], np.zeros(scene.n_targets)
        for t in range(scene.n_targets):
            rows = np.isfinite(design.losses[:, t])
            model = lightgbm.train(
                {
                    "objective": "regression",
                    "learning_rate": self.rate,
                    "verbosity": -1,
                    "num_threads": 1,
                    "seed": seed,
                    "deterministic": True,
                    "force_row_wise": True,
                },
                lightgbm.Dataset(x[rows], np.log(design.losses[rows, t])),
                num_boost_round=self.rounds,
            )
            texts.append(model.model_to_string())
            noise[t] = np.std(np.log(design.losses[rows, t]) - model.predict(x[rows]))
        empty = np.zeros((scene.n_targets, 0))
        return Fit(
            law=self,
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
            state={"trees": texts},
        )

    def count(self, fit: Fit) -> int:
        """Leaves of all trees."""
        return leaves(fit.state["trees"])

    def predict(self, fit: Fit, inputs: Inputs) -> np.ndarray:
        x = tree_columns(inputs, fit.scene)
        models = [booster(text, self.name) for text in fit.state["trees"]]
        return np.exp(np.stack([model.predict(x) for model in models], axis=1))

    def gradient(self, fit: Fit, inputs: Inputs) -> np.ndarray:
        """Trees are flat: no gradient leads anywhere, so an optimum is searched by sampling."""
        raise FitError("regmix: trees have no gradient; its optimum is found by sampling")


def tree_columns(inputs: Inputs, scene: Scene) -> np.ndarray:
    """Ratios, then log N and log D where they vary: (R, F)."""
    columns = [inputs.ratios]
    if scene.has_n:
        columns.append(inputs.log_n[:, None])
    if scene.has_d:
        columns.append(inputs.log_d[:, None])
    return np.concatenate(columns, axis=1)


@lru_cache(maxsize=256)
def booster(text: str, law: str) -> Any:
    """The trees that LightGBM wrote as text; kept, since reading takes longer than predicting."""
    return lightgbm_module(law).Booster(model_str=text)


def lightgbm_module(law: str) -> Any:
    """LightGBM, or `FitError` with the extra that brings it."""
    try:
        import lightgbm
    except ImportError:
        raise FitError(f"law {law!r} needs LightGBM: pip install 'olmo-mixlaw[lightgbm]'") from None
    return lightgbm


def leaves(trees: Sequence[str]) -> int:
    """How many leaves LightGBM's models, as text, have in all."""
    return sum(int(n) for text in trees for n in re.findall(r"^num_leaves=(\d+)", text, re.M))
