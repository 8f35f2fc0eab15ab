"""A fit at one size and budget, as a smooth function of the mixture: what an optimizer calls often.

Losses and their slopes come from one pass, for many mixtures at once, and what doesn't depend on
the mixture is done once. Smooth: the luck of single runs that a kriging keeps and the steps of
trees are left out, since neither should draw an optimum.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.laws.law import Inputs
from olmo_mixlaw.laws.learners.kriging import ROOT5, SOFT, Kriging, features, shared_effects
from olmo_mixlaw.laws.learners.stack import Stack

# Ratios (S, K) and whether slopes are wanted -> losses (S, T) and slopes (S, T, K) or None.
Surface = Callable[[np.ndarray, bool], tuple[np.ndarray, np.ndarray | None]]
# Mixtures are evaluated in blocks that keep a kriging's kernel below this many numbers.
BLOCK = 2_000_000


def surface(fit: Fit, n_params: float = np.nan, n_tokens: float = np.nan) -> Surface:
    """The losses of `fit` at one size (as the law sees it) and budget."""
    if isinstance(fit.law, Stack):
        return _stacked(fit, n_params, n_tokens)
    if isinstance(fit.law, Kriging):
        return _kriged(fit, n_params, n_tokens)
    return _plain(fit, n_params, n_tokens)


def with_trees(
    fit: Fit, losses: np.ndarray, ratios: np.ndarray, n_params: float, n_tokens: float
) -> np.ndarray:
    """What a stack predicts (S, T), from the `losses` that its surface gives without its trees."""
    members = fit.state.get("fits", {})
    if not isinstance(fit.law, Stack) or "regmix" not in members:
        return losses
    inputs = _at(fit, ratios, n_params, n_tokens)
    weight = fit.law.weights_at(fit, inputs, "regmix")
    trees = members["regmix"].law.predict(members["regmix"], inputs)
    return np.exp((1 - weight) * np.log(losses) + weight * np.log(trees))


def has_trees(fit: Fit) -> bool:
    """Whether trees take part in what the fit predicts."""
    return fit.law.name in ("regmix", "regimes") or any(
        has_trees(member) for member in fit.state.get("fits", {}).values()
    )


def _at(fit: Fit, ratios: np.ndarray, n_params: float, n_tokens: float) -> Inputs:
    return fit.scene.inputs(ratios, n_params, n_tokens)


def _plain(fit: Fit, n_params: float, n_tokens: float) -> Surface:
    law = fit.law

    def at(ratios: np.ndarray, slopes: bool) -> tuple[np.ndarray, np.ndarray | None]:
        inputs = _at(fit, ratios, n_params, n_tokens)
        return law.predict(fit, inputs), law.gradient(fit, inputs) if slopes else None

    return at


def _stacked(fit: Fit, n_params: float, n_tokens: float) -> Surface:
    """log L is the members' weighted mean; trees are left out and the rest weighted up."""
    law = fit.law
    assert isinstance(law, Stack)
    first = _at(fit, fit.mixtures[:1], n_params, n_tokens)
    members = law.members_of(fit)
    weights = {name: law.weights_at(fit, first, name)[0] for name in members if name != "regmix"}
    total = np.sum(list(weights.values()), axis=0) if weights else np.zeros(len(fit.targets))
    if (total < 1e-9).any():
        # A target that only trees predict: the other members in equal parts lead the search.
        weights = {name: np.where(total < 1e-9, 1.0, w) for name, w in weights.items()}
        total = np.sum(list(weights.values()), axis=0)
    parts = [
        (weight / total, surface(members[name], n_params, n_tokens))
        for name, weight in weights.items()
        if weight.max() > 1e-3
    ]

    def at(ratios: np.ndarray, slopes: bool) -> tuple[np.ndarray, np.ndarray | None]:
        log_loss = np.zeros((len(ratios), len(fit.targets)))
        by_ratio = np.zeros((*log_loss.shape, ratios.shape[1])) if slopes else None
        for weight, part in parts:
            loss, slope = part(ratios, slopes)
            log_loss += weight * np.log(loss)
            if by_ratio is not None and slope is not None:
                by_ratio += (weight / loss)[:, :, None] * slope
        loss = np.exp(log_loss)
        return loss, None if by_ratio is None else by_ratio * loss[:, :, None]

    return at


def _kriged(fit: Fit, n_params: float, n_tokens: float) -> Surface:
    """The mean law times exp of the process, all targets in one batch of matrix products."""
    law = fit.law
    assert isinstance(law, Kriging)
    mean, k = law._mean(), fit.scene.n_domains
    here = features(_at(fit, fit.mixtures[:1], n_params, n_tokens), fit.scene)
    parts = fit.state["targets"]
    # All that a budget's runs share; what a single run keeps should not draw an optimum.
    shared = np.array([shared_effects(p, here, fit.scene, ("budget",))[0] for p in parts])
    here = here[0, k:]
    most = max(len(part["x"]) for part in parts)
    count = len(parts)
    rows, away = np.zeros((count, most, k)), np.zeros((count, most))
    weights, scale = np.zeros((count, most)), np.zeros((count, k))
    for t, part in enumerate(parts):
        x, phi = part["x"], part["phi"]
        some = slice(0, len(x))
        scale[t] = np.exp(-phi[2 : 2 + k])
        rows[t, some] = x[:, :k] * scale[t]
        away[t, some] = (((x[:, k:] - here) * np.exp(-phi[2 + k :])) ** 2).sum(1)
        weights[t, some] = part["weights"] * np.exp(2 * phi[0])
    fixed = away + (rows**2).sum(2)
    turned = np.ascontiguousarray(rows.transpose(0, 2, 1))

    def residual(ratios: np.ndarray, slopes: bool) -> tuple[np.ndarray, np.ndarray | None]:
        z = np.log(ratios + SOFT) * scale[:, None]  # (T, S, K)
        r2 = (z**2).sum(2)[:, :, None] + fixed[:, None] - 2 * z @ turned
        r = np.sqrt(np.maximum(r2, 0.0))
        decay = np.exp(-ROOT5 * r) * weights[:, None]
        value = (decay * (1 + ROOT5 * r + 5 / 3 * r**2)).sum(2) + shared[:, None]
        if not slopes:
            return value.T, None
        pull = decay * (1 + ROOT5 * r)
        by_z = -5 / 3 * (z * pull.sum(2)[:, :, None] - pull @ rows)
        return value.T, (by_z * scale[:, None]).transpose(1, 0, 2) / (ratios + SOFT)[:, None]

    def at(ratios: np.ndarray, slopes: bool) -> tuple[np.ndarray, np.ndarray | None]:
        step = max(1, BLOCK // (count * most))
        if len(ratios) > step:
            blocks = [at(ratios[i : i + step], slopes) for i in range(0, len(ratios), step)]
            gradient = [b for _, b in blocks if b is not None]
            return (
                np.concatenate([a for a, _ in blocks]),
                np.concatenate(gradient) if slopes else None,
            )
        inputs = _at(fit, ratios, n_params, n_tokens)
        base = mean.predict(fit, inputs)
        value, by_ratio = residual(ratios, slopes)
        loss = base * np.exp(value)
        if by_ratio is None:
            return loss, None
        slope = mean.gradient(fit, inputs)
        return loss, np.exp(value)[:, :, None] * slope + loss[:, :, None] * by_ratio

    return at
