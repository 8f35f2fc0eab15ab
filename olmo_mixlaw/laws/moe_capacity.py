"""The capacity of a mixture-of-experts model, between its total and its active parameters.

    N_eff = N_active^(1 - rho) N_total^rho         rho in [0, 1]

Every law's N may be the total count (rho 1), the active one (rho 0) or N_eff with rho found by a
profile: the law is fitted at several rho, and the cost of those fits is minimised over it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.stats import norm

from olmo_mixlaw.errors import ConfigError, FitError
from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.laws.law import Law
from olmo_mixlaw.runs import Design

CAPACITIES = ("total", "active", "effective")
# Sparsities N_total / N_active within this factor of one another count as one.
SAME_SPARSITY = 1.05
# Models off the most common sparsity that make rho identifiable.
OFF_RATIO = 2
GRID = (0.0, 0.25, 0.5, 0.75, 1.0)
GOLDEN = (np.sqrt(5.0) - 1) / 2
GOLDEN_STEPS = 4
# Fits of a profile differ little, so that few starts do.
PROFILE_STARTS = 2
# Residuals beyond this multiple of their typical size count as that much.
CLIP = 3.0
# A profile rises by this much at the ends of a 68 % interval (half a chi-square).
RISE = 0.5
# Values of rho that the replicates of a bootstrap are shared out among.
RHO_STRATA = 5


def effective(n_params: Any, n_active: Any, rho: float) -> np.ndarray:
    """N_eff for total and active counts (R,) each."""
    total, active = np.asarray(n_params, float), np.asarray(n_active, float)
    if rho == 1.0:
        return total
    return np.exp((1 - rho) * np.log(active) + rho * np.log(total))


def with_capacity(design: Design, rho: float) -> Design:
    """The design with N_eff as its size, total and active alike: applying it twice is once."""
    if rho == 1.0:
        return design
    size = effective(design.n_params, design.n_active, rho)
    return replace(design, n_params=size, n_active=size)


def check_capacity(design: Design, capacity: str) -> None:
    """Refuse a table whose counts can't give this capacity.

    Raises `ConfigError` for an unknown name, `FitError` for missing counts, an active count above
    the total, or, for `effective`, fewer than two models off the most common sparsity.
    """
    if capacity not in CAPACITIES:
        raise ConfigError(f"capacity: {capacity!r} is none of {', '.join(CAPACITIES)}")
    if capacity == "total":
        return
    counts = np.c_[design.n_params, design.n_active]
    if not np.isfinite(counts).all():
        i = int(np.argmax(~np.isfinite(counts).all(1)))
        raise FitError(
            f"capacity {capacity}: run {design.run_ids[i]!r} lacks n_params or n_active; both are "
            "needed (n_active equals n_params in a dense model)"
        )
    over = design.n_active > design.n_params * SAME_SPARSITY
    if over.any():
        i = int(np.argmax(over))
        raise FitError(
            f"capacity {capacity}: run {design.run_ids[i]!r} has n_active {design.n_active[i]:.6g} "
            f"above n_params {design.n_params[i]:.6g}"
        )
    if capacity == "effective":
        _refuse_one_sparsity(counts)


def _refuse_one_sparsity(counts: np.ndarray) -> None:
    models = np.unique(counts, axis=0)
    log_ratio = np.log(models[:, 0] / models[:, 1])
    near = np.abs(log_ratio[:, None] - log_ratio) < np.log(SAME_SPARSITY)
    common = int(near.sum(1).argmax())
    off = int((~near[common]).sum())
    if off < OFF_RATIO:
        raise FitError(
            f"capacity effective: rho needs {OFF_RATIO} models off the most common sparsity "
            f"n_params / n_active ({np.exp(log_ratio[common]):.3g}); {len(models)} models have "
            f"{off}. Add models of another sparsity, or use capacity active or total"
        )


def fit_capacity(
    law: Law, design: Design, capacity: str, *, seed: int, settings: Any, rho: float | None = None
) -> Fit:
    """Fit `law` with this capacity as its N. `rho` fixes the exponent of `effective`.

    The profile uses the law itself, or a formula in its place where it has none (`kriging`,
    `regmix`, `stack`). Raises as `check_capacity` and the fit do.
    """
    check_capacity(design, "active" if capacity == "effective" and rho is not None else capacity)
    if rho is not None and not 0 <= rho <= 1:
        raise ConfigError(f"rho: {rho:g} is not within 0 to 1")
    interval = (np.nan, np.nan)
    if capacity == "effective" and rho is None:
        formula, quick = _profiled(law, design), replace(settings, starts=PROFILE_STARTS)

        def cost(r: float) -> float:
            seen = with_capacity(design, r)
            return fit_cost(formula.fit(seen, seed=seed, settings=quick), seen)

        rho, interval = profile(cost)
    elif capacity != "effective":
        rho = 1.0 if capacity == "total" else 0.0
    assert rho is not None
    seen = with_capacity(design, rho)
    fitted = law.fit(seen, seed=seed, settings=settings)
    return replace(fitted, capacity=capacity, rho=float(rho), rho_interval=interval)


def _profiled(law: Law, design: Design) -> Law:
    from olmo_mixlaw.laws.fitting import resolve

    if type(law).evaluate is not Law.evaluate:
        return law
    return resolve("transfer" if len(design.domains) > 1 else "no_mixture")


def fit_cost(fitted: Fit, design: Design) -> float:
    """Minus the log posterior of a fit, its noise profiled out: comparable between rho.

    `sum_t n_t log s_t` with s the clipped residual scale of log loss, plus the prior's half square.
    """
    guess = fitted.predict(design.ratios, design.n_params, design.n_tokens)
    error = np.log(guess) - np.log(design.losses)
    cost = 0.0
    for column in error.T:
        some = column[np.isfinite(column)]
        typical = 1.4826 * float(np.median(np.abs(some))) + 1e-4
        clipped = np.clip(some, -CLIP * typical, CLIP * typical)
        cost += 0.5 * len(some) * float(np.log(np.mean(clipped**2) + 1e-8))
    for index, theta in enumerate(fitted.theta):
        items = fitted.law.parameters(fitted.scene, index)
        cost += 0.5 * sum(
            ((value - item.mean) / item.sd) ** 2
            for item, value in zip(items, theta, strict=True)
            if item.sd > 0
        )
    return cost


def profile(cost: Callable[[float], float]) -> tuple[float, tuple[float, float]]:
    """The rho of least cost and its 68 % interval: a grid, a golden section, then a parabola.

    The interval is where the parabola through the best point and its neighbours rises by a half,
    cut to [0, 1].
    """
    known = {r: cost(r) for r in GRID}
    best = min(known, key=known.__getitem__)
    step = GRID[1] - GRID[0]
    left, right = max(best - step, 0.0), min(best + step, 1.0)
    low, high = right - GOLDEN * (right - left), left + GOLDEN * (right - left)
    known[low], known[high] = cost(low), cost(high)
    for _ in range(GOLDEN_STEPS):
        if known[low] <= known[high]:
            right, high = high, low
            new = low = right - GOLDEN * (right - left)
        else:
            left, low = low, high
            new = high = left + GOLDEN * (right - left)
        known[new] = cost(new)
    ordered = sorted(known)
    middle = int(np.clip(ordered.index(min(known, key=known.__getitem__)), 1, len(ordered) - 2))
    x = np.array(ordered[middle - 1 : middle + 2])
    bend, slope, _ = np.polyfit(x - x[1], [known[r] - known[x[1]] for r in x], 2)
    if bend <= 0:
        best = min(known, key=known.__getitem__)
        return best, _where_it_rises(known, best)
    rho = float(np.clip(x[1] - slope / (2 * bend), 0.0, 1.0))
    sd = float(np.sqrt(RISE / bend))
    return rho, (max(rho - sd, 0.0), min(rho + sd, 1.0))


def _where_it_rises(known: dict[float, float], best: float) -> tuple[float, float]:
    """The ends of the stretch around `best` where the profile, linear between its points, rises
    by less than a half: for a minimum at an end of [0, 1], which no parabola fits."""
    ends = []
    for side in (
        sorted((r for r in known if r < best), reverse=True),
        sorted(r for r in known if r > best),
    ):
        end = last = best
        for r in side:
            low, high = known[last] - known[best], known[r] - known[best]
            if high >= RISE:
                end = last + (r - last) * (RISE - low) / (high - low)
                break
            end = last = r
        ends.append(end)
    return ends[0], ends[1]


def bootstrap_capacity(fit: Fit, design: Design, *, replicates: int, seed: int) -> Iterator[Fit]:
    """`uncertainty.bootstrap` for a fit whose N is not the total count.

    A profiled rho varies too: the replicates are shared out among `RHO_STRATA` values of it, the
    middles of equal parts of its (normal, cut to [0, 1]) interval.
    """
    from olmo_mixlaw.laws.choice.uncertainty import bootstrap

    known = np.isfinite(fit.rho_interval).all()
    strata = min(RHO_STRATA, replicates) if known else 1
    sd = 0.5 * (fit.rho_interval[1] - fit.rho_interval[0]) if known else 0.0
    middles = norm.ppf((np.arange(strata) + 0.5) / strata)
    for i, z in enumerate(middles):
        rho = float(np.clip(fit.rho + sd * z, 0.0, 1.0))
        share = replicates // strata + (i < replicates % strata)
        plain = replace(fit, capacity="total", rho=1.0)
        seen = with_capacity(design, rho)
        for other in bootstrap(plain, seen, replicates=share, seed=seed + i):
            yield replace(other, capacity=fit.capacity, rho=rho, rho_interval=fit.rho_interval)
