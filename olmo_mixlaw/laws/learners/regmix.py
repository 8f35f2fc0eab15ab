"""RegMix: gradient-boosted trees from ratios to each loss (Liu et al. 2024, arXiv 2407.01492).

No formula and no extrapolation: log N and log D are features where they vary, and a size or
budget beyond the table is predicted like its edge. Needs the extra `olmo-mixlaw[lightgbm]`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.laws.law import Inputs, Law, Scene, Settings
from olmo_mixlaw.runs import Design


@dataclass(frozen=True)
class RegMix(Law):
    """LightGBM, a regressor a target; `rounds` and `rate` as in the paper's code."""

    name = "regmix"
    formula = "trees(h, log N, log D)"
    source = "arXiv 2407.01492"
    steps: ClassVar[bool] = True
    rounds: int = 1000
    rate: float = 0.01

    def fit(self, design: Design, *, seed: int, settings: Settings) -> Fit:
        """Raises `FitError` without LightGBM."""
        lightgbm = lightgbm_module(self.name)
        scene = Scene.of(design)
        if settings.strict:
            self.check(design)
        x = tree_columns(scene.inputs(design.ratios, design.n_params, design.n_tokens), scene)
        how = {
            "objective": "regression",
            "learning_rate": self.rate,
            "verbosity": -1,
            "num_threads": 1,
            "seed": seed,
            "deterministic": True,
            "force_row_wise": True,
        }
        texts, noise = [], np.zeros(scene.n_targets)
        for t in range(scene.n_targets):
            rows = np.isfinite(design.losses[:, t])
            log_loss = np.log(design.losses[rows, t])
            data = lightgbm.Dataset(x[rows], log_loss)
            model = lightgbm.train(how, data, num_boost_round=self.rounds)
            texts.append(model.model_to_string())
            noise[t] = np.std(log_loss - model.predict(x[rows]))
        state = {"trees": texts}
        return Fit.learnt(self, design, state=state, noise=noise, seed=seed, settings=settings)

    def count(self, fit: Fit) -> int:
        """Leaves of all trees."""
        return leaves(fit.state["trees"])

    def predict(self, fit: Fit, inputs: Inputs) -> np.ndarray:
        x = tree_columns(inputs, fit.scene)
        models = [booster(text, self.name) for text in fit.state["trees"]]
        return np.exp(np.stack([model.predict(x) for model in models], axis=1))


@dataclass(frozen=True)
class FastRegMix(RegMix):
    """The same in a tenth of the rounds, of ten times the rate.

    On two public swarms of 512 runs it errs by no more, in a tenth of the time.
    """

    name = "regmix_fast"
    rounds: int = 100
    rate: float = 0.1


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
