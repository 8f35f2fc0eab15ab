"""Fit any law to any table: many starts, screened early, then polished; noise learnt on the way.

The engine knows no formula: it asks the law for its parameters and for losses with slopes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from olmo_mixlaw import __version__
from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws.engine.solver import Problems, Solutions, data_curvature, solve
from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.laws.formulas.coupled import CoupledLaw
from olmo_mixlaw.laws.law import Inputs, Law, Parameter, Scene
from olmo_mixlaw.runs import Design, RunTable

# The residual noise of log loss that a fit starts from, and the least that it may claim: no
# public table repeats a run to better than .1 %.
FIRST_NOISE = 0.02
LEAST_NOISE = 0.001
SCREENING_STEPS = 10
# Starts are compared on this many rows (or this multiple of the parameters): the rest of a long
# table only sharpens the winner.
SCREENING_ROWS = 150
SCREENING_ROWS_A_PARAMETER = 4


@dataclass(frozen=True)
class Settings:
    """How to fit: starts a target (None: the law's own), Huber's bend in units of the noise."""

    starts: int | None = None
    huber: float = 3.0
    iterations: int = 80
    strict: bool = True


def resolve(law: str | Law, where: str = "") -> Law:
    """The law of that name, or the law itself. Raises `UnknownNameError`."""
    if isinstance(law, str):
        from olmo_mixlaw.registry import LAWS

        return LAWS.get(law, where)()
    return law


def design_of(table: RunTable | Design) -> Design:
    return table.design() if isinstance(table, RunTable) else table


def fit(
    law: str | Law,
    table: RunTable | Design,
    *,
    seed: int = 0,
    settings: Settings | None = None,
    capacity: str = "total",
    rho: float | None = None,
) -> Fit:
    """Fit `law` (a registered name or a law) to a table; deterministic by `seed`.

    Raises `FitError` when the table has too few rows for the law (it says how many more), when a
    domain's ratio never varies, and when no start converges: a diverged fit is never returned.
    `Settings(strict=False)` lets the priors carry what the rows can't, for internal splits.
    `capacity` says what N is for mixture-of-experts models (`moe_capacity.fit_capacity`).
    """
    law = resolve(law)
    design = design_of(table)
    settings = settings or Settings()
    if not len(design) or not np.isfinite(design.losses).any():
        raise FitError("the table has no losses to fit")
    if np.isinf(design.losses).any() or (design.losses <= 0).any():
        raise FitError("the table has a loss that is not finite and positive")
    if capacity == "total":
        return law.fit(design, seed=seed, settings=settings)
    from olmo_mixlaw.laws.moe_capacity import fit_capacity

    return fit_capacity(law, design, capacity, seed=seed, settings=settings, rho=rho)


def fit_formula(
    law: Law,
    design: Design,
    *,
    seed: int,
    settings: Settings,
    warm: Fit | None = None,
    weight: np.ndarray | None = None,
) -> Fit:
    """Fit a law that has a formula. `warm` gives the only start; `weight` (R,) counts runs."""
    if warm is not None:
        counts = np.ones(len(design)) if weight is None else weight
        return refit(warm, design, counts[None], iterations=settings.iterations)[0]
    scene = Scene.of(design)
    items = _items(law, scene)
    if settings.strict:
        check_table(law, design, items)
    # In random order, the first rows of a long table are a fair sample of it.
    order = np.random.default_rng(seed).permutation(len(design))
    problems = _problems(law, scene, design.take(order), items, settings.huber)
    if weight is not None:
        problems = problems.weighted(_counts(problems, weight[None, order]))
    problems, best = _search(law, problems, items, scene, seed, settings)
    if not np.isfinite(best.cost).all() or not np.isfinite(best.theta).all():
        raise FitError(f"{law.name}: the fit diverged from every start; check the table's losses")
    noise = problems.noise if not law.coupled else np.repeat(problems.noise, scene.n_targets)
    return Fit(
        law=law,
        scene=scene,
        theta=best.theta,
        theta_sd=_standard_errors(best, problems),
        noise=noise,
        mixtures=np.unique(design.ratios, axis=0),
        n_rows=len(design),
        converged=best.converged,
        seed=seed,
        data_hash=data_hash(design),
        provenance=provenance(settings),
    )


def refit(
    fit: Fit, design: Design, weights: np.ndarray, *, iterations: int, tolerance: float = 1e-5
) -> list[Fit]:
    """Fits of a fit's formula to the same rows, counted by each of `weights` (B, R).

    All are solved at once, from where `fit` is; noise and prior stay as they are. Rows that no
    weight counts are left out.
    """
    law, scene, copies, digest = fit.law, fit.scene, len(weights), data_hash(design)
    drawn = weights.any(0)
    design, weights = design.take(drawn), weights[:, drawn]
    problems = _problems(
        law, scene, design, _items(law, scene), float(fit.provenance.get("huber", Settings.huber))
    )
    groups = len(problems.mean)
    many = replace(problems, noise=fit.noise[:groups]).weighted(_counts(problems, weights))
    best = solve(
        many,
        np.arange(copies * groups),
        np.tile(fit.theta, (copies, 1)),
        iterations=iterations,
        tolerance=tolerance,
    )
    errors = _standard_errors(best, many)
    return [
        replace(
            fit,
            theta=best.theta[s],
            theta_sd=errors[s],
            converged=best.converged[s],
            data_hash=digest,
        )
        for s in (slice(i * groups, (i + 1) * groups) for i in range(copies))
    ]


def _counts(problems: Problems, weights: np.ndarray) -> np.ndarray:
    """Weights of runs (B, R) as weights of every problem's residuals (B, G, ...)."""
    counts = np.repeat(weights, problems.run, axis=1)[:, None]
    return np.broadcast_to(counts, (len(weights), *problems.log_loss.shape))


def _items(law: Law, scene: Scene) -> list[list[Parameter]]:
    """The parameters of each of the law's problems: one a target, or one for all."""
    return [law.parameters(scene, t) for t in range(1 if law.coupled else scene.n_targets)]


def provenance(settings: Settings) -> dict[str, Any]:
    return {"version": __version__, "numpy": np.__version__, "huber": settings.huber}


def data_hash(design: Design) -> str:
    """A digest of everything that a fit reads."""
    digest = hashlib.sha256("\0".join([*design.domains, "|", *design.targets]).encode())
    for array in (design.ratios, design.n_params, design.n_tokens, design.losses):
        digest.update(np.ascontiguousarray(array, float).tobytes())
    return digest.hexdigest()[:16]


def check_table(law: Law, design: Design, items: list[list[Parameter]]) -> None:
    """Refuse a table that can't carry the law. Raises `FitError`."""
    if law.uses_mixture and len(design.domains) > 1:
        still = np.ptp(design.ratios, axis=0) < 1e-9
        if still.any():
            name = design.domains[int(np.argmax(still))]
            raise FitError(
                f"{law.name}: the ratio of domain {name!r} is the same in all {len(design)} runs, "
                "so its effect can't be fitted; vary it or merge it with another domain"
            )
    seen = np.isfinite(design.losses)
    for target, needed in enumerate(items):
        have = int(seen.sum() if law.coupled else seen[:, target].sum())
        free = sum(item.sd > 0 for item in needed)
        if have < free:
            what = "entries" if law.coupled else f"runs with a loss on {design.targets[target]!r}"
            raise FitError(
                f"{law.name}: {have} {what} for {free} parameters; {free - have} more are needed "
                "(or a law with fewer parameters)"
            )


def _problems(
    law: Law, scene: Scene, design: Design, items: list[list[Parameter]], huber: float
) -> Problems:
    inputs = scene.inputs(design.ratios, design.n_params, design.n_tokens)
    targets = scene.n_targets

    @cache
    def some(first: int, last: int) -> Inputs:
        return inputs.take(slice(first, last)).compact()

    def separable(theta: np.ndarray, group: np.ndarray, rows: slice, jacobian: bool) -> Any:
        return law.evaluate(theta, some(rows.start, rows.stop), scene, jacobian)

    def coupled(theta: np.ndarray, group: np.ndarray, rows: slice, jacobian: bool) -> Any:
        # Residual r is run r // T, target r % T; blocks are cut at whole runs.
        runs = some(rows.start // targets, rows.stop // targets)
        if isinstance(law, CoupledLaw):
            loss, slopes = law.evaluate_pooled(theta, runs, scene, jacobian)
            return loss.reshape(len(theta), -1), slopes
        loss, full = law.evaluate(theta, runs, scene, jacobian)
        return loss.reshape(len(theta), -1), None if full is None else full.reshape(
            len(theta), -1, theta.shape[1]
        )

    def column(attribute: str) -> np.ndarray:
        return np.array([[getattr(item, attribute) for item in group] for group in items], float)

    log_loss = np.log(design.losses)
    mean = column("mean")
    whole = Problems(
        coupled if law.coupled else separable,
        log_loss.reshape(1, -1) if law.coupled else np.ascontiguousarray(log_loss.T),
        mean,
        column("sd"),
        column("lower"),
        column("upper"),
        np.full(len(items), FIRST_NOISE),
        huber,
    )
    if not law.coupled:
        return whole
    blocks = law.blocks(mean, inputs, scene) if isinstance(law, CoupledLaw) else None
    return replace(whole, run=targets, blocks=blocks)


def _search(
    law: Law,
    problems: Problems,
    items: list[list[Parameter]],
    scene: Scene,
    seed: int,
    settings: Settings,
) -> tuple[Problems, Solutions]:
    """Screen many starts in few steps, polish the best two, then learn the noise and refit."""
    groups = len(items)
    count = settings.starts or law.n_starts
    starts = np.stack([_starts(items[g], count, seed, g) for g in range(groups)])
    group = np.repeat(np.arange(groups), count)
    per_run = scene.n_targets if law.coupled else 1
    enough = max(SCREENING_ROWS, SCREENING_ROWS_A_PARAMETER * len(items[0]) // per_run) * per_run
    sample = problems.first_rows(enough) if problems.log_loss.shape[1] > 1.5 * enough else problems
    first = solve(sample, group, starts.reshape(groups * count, -1), iterations=SCREENING_STEPS)
    keep = min(2, count)
    order = np.argsort(np.nan_to_num(first.cost, nan=np.inf).reshape(groups, count), axis=1)[
        :, :keep
    ]
    chosen = (order + np.arange(groups)[:, None] * count).ravel()
    second = solve(
        sample, group[chosen], first.theta[chosen], iterations=settings.iterations, tolerance=1e-4
    )
    pick = np.nan_to_num(second.cost, nan=np.inf).reshape(groups, keep).argmin(1)
    theta = second.theta[pick + np.arange(groups) * keep]
    who = np.arange(groups)
    # The first round only has to be near enough to tell the noise.
    for tolerance in (1e-3, 1e-5):
        problems = replace(problems, noise=learn_noise(problems, theta))
        best = solve(problems, who, theta, iterations=settings.iterations, tolerance=tolerance)
        theta = best.theta
    return problems, best


def _starts(items: list[Parameter], count: int, seed: int, group: int) -> np.ndarray:
    """Starts drawn from the prior, narrowed; the first is the prior's own middle."""
    rng = np.random.default_rng([seed, group])
    mean = np.array([item.mean for item in items])
    sd = np.array([item.sd for item in items])
    noise = rng.normal(size=(count, len(items)))
    noise[0] = 0.0
    return mean + np.minimum(sd, 0.7) * noise


def learn_noise(problems: Problems, theta: np.ndarray) -> np.ndarray:
    """Residual standard deviation a group, with the fit's effective parameters taken off.

    Robust (from the median) so that an outlier doesn't loosen the prior's opponents.
    """
    who = np.arange(len(theta))
    rows = slice(0, problems.log_loss.shape[1])
    seen = np.isfinite(problems.log_loss)
    data = data_curvature(problems, who, theta)
    precision = np.where(problems.sd > 0, 1 / np.where(problems.sd > 0, problems.sd, 1) ** 2, 1e12)
    whole = data + precision[:, :, None] * np.eye(theta.shape[1])
    used = np.trace(np.linalg.solve(whole, data), axis1=1, axis2=2)
    noise = np.empty(len(theta))
    for g in who:
        loss = problems.evaluate(theta[g : g + 1], who[g : g + 1], rows, False)[0][0]
        error = (np.log(loss) - problems.log_loss[g])[seen[g]]
        bend = problems.huber * problems.noise[g]
        clipped = np.clip(error, -bend, bend)
        freedom = max(len(error) - used[g], 0.25 * len(error), 1.0)
        noise[g] = np.sqrt((clipped**2).sum() / freedom)
    return np.maximum(noise, LEAST_NOISE)


def _standard_errors(best: Solutions, problems: Problems) -> np.ndarray:
    """Square roots of the diagonal of the inverse normal matrix (Laplace); 0 where fixed."""
    free = problems.sd > 0
    size = best.theta.shape[1]
    matrix = np.where(free[:, :, None] & free[:, None, :], best.curvature, np.eye(size))
    variance = np.diagonal(np.linalg.inv(matrix), axis1=1, axis2=2)
    return np.where(free, np.sqrt(np.maximum(variance, 0.0)), 0.0)
