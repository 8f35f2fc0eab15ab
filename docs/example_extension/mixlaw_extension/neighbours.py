"""A law without a formula: `fit` keeps what it learnt in `state`, and `predict` reads it there.

The state is numbers, text and arrays in lists and dicts, so that a fit is saved as JSON. Fields of
the class are its options. `noise` is how far off the law is, in log loss, on runs it hasn't seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from olmo_mixlaw.laws import Fit, Law, Settings
from olmo_mixlaw.laws.law import Inputs, Scene
from olmo_mixlaw.runs import Design


@dataclass(frozen=True)
class Neighbours(Law):
    """Mean log loss of all runs, those nearest by mixture, size and budget counting most."""

    name = "neighbours"
    formula = "sum_r w_r log L_r / sum_r w_r,  w_r = (softness^2 + distance^2)^-2"
    source = "inverse distance weighting (Shepard 1968)"
    softness: float = 0.05

    def fit(self, design: Design, *, seed: int, settings: Settings) -> Fit:
        self.check(design)
        inputs = Scene.of(design).inputs(design.ratios, design.n_params, design.n_tokens)
        state = {"places": _places(inputs), "log_losses": np.log(design.losses)}
        weights = self._weights(state["places"], state["places"])
        np.fill_diagonal(weights, 0.0)  # each run as the others predict it
        error = _means(weights, state["log_losses"]) - state["log_losses"]
        noise = np.sqrt(np.nanmean(error**2, axis=0))
        return Fit.learnt(self, design, state=state, noise=noise, seed=seed, settings=settings)

    def predict(self, fit: Fit, inputs: Inputs) -> np.ndarray:
        weights = self._weights(_places(inputs), fit.state["places"])
        return np.exp(_means(weights, fit.state["log_losses"]))

    def _weights(self, places: np.ndarray, runs: np.ndarray) -> np.ndarray:
        squares = ((places[:, None] - runs) ** 2).sum(2)
        return (self.softness**2 + squares) ** -2.0


def _places(inputs: Inputs) -> np.ndarray:
    return np.column_stack([inputs.ratios, inputs.log_n, inputs.log_d])


def _means(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Weighted means (R, T) of `values` (runs, T), of which some may be missing."""
    seen = np.isfinite(values)
    return weights @ np.where(seen, values, 0.0) / (weights @ seen)
