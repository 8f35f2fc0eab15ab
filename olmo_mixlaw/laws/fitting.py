"""`fit`: the one door to fitting any law to any table, whatever N counts.

The exponent rho of an effective size is found by a profile: the law is fitted at several rho, and
the cost of those fits is minimised over it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws.adjusted import law_alone
from olmo_mixlaw.laws.engine.formula import Formula
from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.laws.law import Law, Settings, resolve
from olmo_mixlaw.laws.leveling import level_of
from olmo_mixlaw.laws.repeating import fit_fresh
from olmo_mixlaw.laws.repetition import with_available
from olmo_mixlaw.laws.sizes import Size, check_capacity
from olmo_mixlaw.runs import Design, RunTable
from olmo_mixlaw.runs.table import design_of

GRID = (0.0, 0.25, 0.5, 0.75, 1.0)
GOLDEN = (np.sqrt(5.0) - 1) / 2
GOLDEN_STEPS = 4
# Fits of a profile differ little, so that few starts do.
PROFILE_STARTS = 2
# Residuals beyond this multiple of their typical size count as that much.
RESIDUAL_CLIP = 3.0
# A profile rises by this much at the ends of a 68 % interval (half a chi-square).
RISE = 0.5


def fit(
    law: str | Law,
    table: RunTable | Design,
    *,
    seed: int = 0,
    settings: Settings | None = None,
    capacity: str = "total",
    rho: float | None = None,
    level: bool = True,
    anchors: RunTable | Design | None = None,
    vocabulary: float | None = None,
    available: Mapping[str, float] | None = None,
    repeats: float | None = None,
) -> Fit:
    """Fit `law` (a registered name or a law) to a table; deterministic by `seed`.

    Raises `FitError` when the table has too few rows for the law (it says how many more), when a
    domain's ratio never varies, and when no start converges: a diverged fit is never returned.
    `Settings(strict=False)` lets the priors carry what the rows can't, for internal splits.
    `capacity` says what N is for mixture-of-experts models (a kind of `sizes.Size`); `rho` fixes
    the exponent of `effective`.

    Beyond the table's sizes and budgets, losses are brought to a `level` of their own
    (`laws.level`); without, they are the law's alone. `anchors` are runs at or near the scale of
    interest, which the law is not fitted to (default: those that the table marks); `vocabulary` is
    how many embeddings N leaves out, 0 where it counts them (default: what the table says, else
    50,304).

    Where runs see a domain more often than once, repeats count for less (`laws.repetition`). The
    tokens that domains have are the table's, else `available` for all runs alike; given both,
    `available` is of the runs that the fit will be asked about. `repeats` fixes r.
    """
    chosen: Law = resolve(law)
    design = design_of(table)
    if available is not None:
        design = with_available(design, available)
    if anchors is None and isinstance(table, RunTable):
        anchors = table.anchors()
    settings = settings or Settings()
    if not len(design) or not np.isfinite(design.losses).any():
        raise FitError("the table has no losses to fit")
    if np.isinf(design.losses).any() or (design.losses <= 0).any():
        raise FitError("the table has a loss that is not finite and positive")
    profiled = capacity == "effective" and rho is None
    check_capacity(design, "active" if capacity == "effective" and not profiled else capacity)
    size = _profiled(chosen, design, seed, settings) if profiled else Size.fixed(capacity, rho)
    seen = size.applied(design)
    fitted = fit_fresh(chosen, seen, seed=seed, settings=settings, worth=repeats)
    fitted = replace(fitted, size=size)
    if available is not None:
        fitted = fitted.having(available)
    if not level:
        if anchors is not None:
            raise FitError("anchors: they tell the level, which was not asked for")
        return fitted
    return leveled(fitted, design, anchors, vocabulary)


def leveled(
    fitted: Fit,
    design: Design,
    anchors: RunTable | Design | None = None,
    vocabulary: float | None = None,
) -> Fit:
    """The fit of a design with a level beyond it. Raises `FitError` for strange anchors."""
    near = None if anchors is None else fitted.seen(design_of(anchors))
    seen, law = fitted.seen(design), law_alone(fitted)
    # Runs that repeat were each made to their end: none is a checkpoint of another.
    whole = fitted.repetition is not None
    found = level_of(seen, law, near, vocabulary, checkpoints=not whole)
    return replace(fitted, level=found)


def _profiled(law: Law, design: Design, seed: int, settings: Settings) -> Size:
    """The size whose rho the table favours, by the law or a formula in its place."""
    formula, quick = law.in_profile(design), replace(settings, starts=PROFILE_STARTS)

    def cost(rho: float) -> float:
        seen = Size("effective", rho).applied(design)
        return fit_cost(formula, formula.fit(seen, seed=seed, settings=quick), seen)

    return Size("effective", *profile(cost))


def fit_cost(formula: Formula, fitted: Fit, design: Design) -> float:
    """Minus the log posterior of a fit, its noise profiled out: comparable between rho.

    `sum_t n_t log s_t` with s the clipped residual scale of log loss, plus the prior's half square.
    """
    guess = fitted.predict(design.ratios, design.n_params, design.n_tokens)
    error = np.log(guess) - np.log(design.losses)
    cost = 0.0
    for column in error.T:
        some = column[np.isfinite(column)]
        typical = 1.4826 * float(np.median(np.abs(some))) + 1e-4
        clipped = np.clip(some, -RESIDUAL_CLIP * typical, RESIDUAL_CLIP * typical)
        cost += 0.5 * len(some) * float(np.log(np.mean(clipped**2) + 1e-8))
    return cost + formula.prior_cost(fitted)


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
