"""Two fidelities: many cheap runs say how losses go with the mixture, a few dear ones how far.

    log L_i(h) = a_i + c_i log L_i,cheap(h)        at each size and budget

A scale is a size and budget. Where a scale has runs enough it has a law of its own; at every other
one a and c, a pair a target, bring the law of the nearest scale that has one to the few runs there.
A law of 20 parameters needs 40 runs; this needs one to five at the scale that costs the most.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from scipy.stats import t as student

from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws.choice.holdout import mixture_ids
from olmo_mixlaw.laws.fitted import Fit
from olmo_mixlaw.laws.law import BasedLaw, Inputs, Row, Scene, Settings, Surface
from olmo_mixlaw.laws.learners.calibration import LEAST_NOISE, OWN_SD, Lines, fit_lines
from olmo_mixlaw.laws.learners.residual import inputs_of
from olmo_mixlaw.registry import ONE_SCALE_LAW
from olmo_mixlaw.runs import Design

# Sizes, and budgets, within this factor of the largest of them are one scale.
SAME_SCALE = 1.15
# A scale with so many mixtures a parameter of a target has a law of its own. Held mixtures of five
# public tables (p5, p2, p3, p4b, p4), error in percent with 1, 2, 3: .66 .65 .89 | 1.62 1.62 1.62 |
# .46 .46 .46 | .73 .91 .91 | .55 .50 .61.
MIXTURES_A_PARAMETER = 2.0


@dataclass(frozen=True)
class TwoFidelity(BasedLaw):
    """The law `base` of the scales with most runs, brought to the others by a line a target.

    Between and beyond the table's scales the nearest one speaks, distances being of log N and
    log D. `state` holds the `laws` and the scales that they are of, `owner`; the `middles` (C, 2)
    of all scales in log N and log D, the law that each stands on, `source` (C,), and its `lines`.
    """

    name = "two_fidelity"
    formula = "exp(a + c log L_cheap(h)), L_cheap the base law at the nearest scale of many runs"
    source = "a line between log losses at two scales; loss-to-loss laws, arXiv 2411.12925"
    has_gradient: ClassVar[bool] = True
    base: str = ONE_SCALE_LAW

    def fit(self, design: Design, *, seed: int, settings: Settings) -> Fit:
        """Raises `FitError` for a table of one scale, or whose scales have nothing in common."""
        self.check(design)
        scene = Scene.of(design)
        middles, which = scales_of(inputs_of(design, scene))
        count = mixtures_of(design, which)
        laws, owner = self._laws(design, which, count, middles.sum(1), seed, settings)
        self._refuse_new_domains(design, np.isin(which, owner))
        state = {
            "laws": laws,
            "owner": owner,
            "middles": middles,
            "source": nearest(middles[owner], middles),
        }
        noise = laws[0].noise
        fitted = Fit.learnt(self, design, state=state, noise=noise, seed=seed, settings=settings)
        lines = self._lines(fitted, design, np.ones(len(design)))
        dearest = int(np.argmax(middles.sum(1)))
        return replace(fitted, state={**state, "lines": vars(lines)}, noise=lines.noise[dearest])

    def check(self, design: Design) -> None:
        """Raises `FitError` for a table without two scales, one of which has every target."""
        super().check(design)
        middles, which = scales_of(inputs_of(design, Scene.of(design)))
        if len(middles) < 2:
            raise FitError(
                f"{self.name}: all {len(design)} runs are of one size and budget, and it stands on "
                f"two; add runs at another, or fit {self.base!r}"
            )
        seen = np.isfinite(design.losses)
        if not any(seen[which == i].any(0).all() for i in range(len(middles))):
            raise FitError(
                f"{self.name}: no size and budget has losses on all {len(design.targets)} targets, "
                "so none can stand for the others; leave targets out"
            )

    def _refuse_new_domains(self, design: Design, cheap: np.ndarray) -> None:
        """Refuse a domain that no run of the cheap scale has, `cheap` (R,) being its runs."""
        used = design.ratios > 0
        lacking = used.any(0) & ~used[cheap].any(0)
        if lacking.any():
            name = design.domains[int(np.argmax(lacking))]
            raise FitError(
                f"{self.name}: domain {name!r} is in none of the {cheap.sum()} runs of the cheap "
                "scale, which tell nothing of it then; add such runs with it"
            )

    def _laws(
        self,
        design: Design,
        which: np.ndarray,
        count: np.ndarray,
        cost: np.ndarray,
        seed: int,
        settings: Settings,
    ) -> tuple[list[Fit], np.ndarray]:
        """Fits of the base law, and whose they are: all scales of many runs, else the cheap one.

        `count` (C,) are the mixtures of a scale, `cost` (C,) the log of its compute.
        """
        base, first = self.below(), most_runs(count, cost)

        def law(scale: int) -> Fit:
            return base.fit(design.take(which == scale), seed=seed, settings=settings)

        cheap = law(first)
        enough = MIXTURES_A_PARAMETER * cheap.n_parameters / len(design.targets)
        owner = np.flatnonzero(count >= enough)
        owner = owner if len(owner) else np.array([first])
        return [cheap if i == first else law(int(i)) for i in owner], owner

    def _lines(self, fit: Fit, design: Design, weight: np.ndarray) -> Lines:
        """The line of every scale from runs weighted by `weight` (R,).

        A scale that none of them is of keeps the line that it has: a resample of a few dear runs
        may lack them all.
        """
        state, inputs = fit.state, inputs_of(design, fit.scene)
        scale = nearest(state["middles"], place(inputs))
        below = _below(fit, inputs, scale)
        found = []
        for i, law in enumerate(state["source"]):
            rows = (scale == i) & (weight > 0)
            noise = state["laws"][law].noise
            if i in state["owner"]:
                found.append(Lines.none(noise))
            elif rows.any():
                y = np.log(design.losses[rows])
                found.append(fit_lines(below[rows], y, weight[rows], noise))
            else:
                found.append(Lines.of(state).take(i))
        return Lines.stacked(found)

    def refits(self, fit: Fit, design: Design, counts: np.ndarray) -> Iterator[Fit]:
        """The base laws are refitted, and then the lines.

        A scale beyond the fit's own sizes and budgets, as where it is held out, says nothing; if
        that leaves no law, all is fitted from the start.
        """
        state = fit.state
        silent = beyond(fit.scene, state["middles"])
        silent |= silent[state["owner"][state["source"]]]
        if silent.all():
            yield from super().refits(fit, design, counts)
            return
        scale = nearest(state["middles"], place(inputs_of(design, fit.scene)))
        own = [scale == i for i in state["owner"]]
        laws = zip(state["laws"], own, strict=True)
        again = [law.law.refits(law, design.take(r), counts[:, r]) for law, r in laws]
        heard = np.where(silent[:, None], np.inf, state["middles"])
        for count, refitted in zip(counts, zip(*again, strict=True), strict=True):
            other = replace(fit, state={**state, "laws": list(refitted)})
            lines = self._lines(other, design, count.astype(float))
            new = {**other.state, "middles": heard, "lines": vars(lines)}
            yield replace(other, state=new, data_hash=refitted[0].data_hash)

    def parts(self, fit: Fit) -> list[Fit]:
        return list(fit.state["laws"])

    def count(self, fit: Fit) -> int:
        """Those of the base laws, and two a target at each other scale."""
        lines = len(fit.state["source"]) - len(fit.state["owner"])
        return sum(law.n_parameters for law in self.parts(fit)) + 2 * lines * fit.scene.n_targets

    def rows(self, fit: Fit) -> list[Row]:
        """Parameters of the base laws, then a and c of every other scale with about 68 %."""
        names = [_named(fit.scene, middle) for middle in fit.state["middles"]]
        found: list[Row] = []
        for i, law in zip(fit.state["owner"], self.parts(fit), strict=True):
            found += [(row[0], f"{row[1]} at {names[i]}", *row[2:]) for row in law.law.rows(law)]
        lines = Lines.of(fit.state)
        shown = (
            ("a", lines.y - lines.slope * lines.x, lines.level_sd(0.0)),
            ("c", lines.slope, lines.slope_sd),
        )
        for i in np.setdiff1d(np.arange(len(names)), fit.state["owner"]):
            for t, target in enumerate(fit.targets):
                for name, value, sd in shown:
                    middle, wide = float(value[i, t]), float(sd[i, t])
                    ends = (middle - wide, middle + wide)
                    found.append((target, f"{name} at {names[i]}", middle, *ends, "1", False))
        return found

    def predict(self, fit: Fit, inputs: Inputs) -> np.ndarray:
        scale = nearest(fit.state["middles"], place(inputs))
        return np.exp(Lines.of(fit.state).take(scale).at(_below(fit, inputs, scale)))

    def gradient(self, fit: Fit, inputs: Inputs) -> np.ndarray:
        result = np.empty((len(inputs), fit.scene.n_targets, fit.scene.n_domains))
        scale = nearest(fit.state["middles"], place(inputs))
        lines = Lines.of(fit.state).take(scale)
        for law, rows, there in _by_law(fit, inputs, scale):
            result[rows] = law.law.gradient(law, there) / law.law.predict(law, there)[:, :, None]
        losses = np.exp(lines.at(_below(fit, inputs, scale)))
        return (losses * lines.slope)[:, :, None] * result

    def surface(self, fit: Fit, n_params: float, n_tokens: float) -> Surface:
        one = fit.scene.inputs(fit.mixtures[:1], n_params, n_tokens)
        scale = nearest(fit.state["middles"], place(one))
        line = Lines.of(fit.state).take(scale)
        [(law, _, _)] = _by_law(fit, one, scale)
        below = law.law.surface(law, *(float(x[0]) for x in _seen_by(law, fit.scene, one)))

        def at(ratios: np.ndarray, slopes: bool) -> tuple[np.ndarray, np.ndarray | None]:
            loss, slope = below(ratios, slopes)
            brought = np.exp(line.at(np.log(loss)))
            if slope is None:
                return brought, None
            return brought, (brought * line.slope / loss)[:, :, None] * slope

        return at

    def with_steps(self, fit: Fit, losses: np.ndarray, inputs: Inputs) -> np.ndarray:
        """With those of the base law, where it has any."""
        return self.predict(fit, inputs) if fit.steps else losses

    def half_width(self, fit: Fit, inputs: Inputs, level: float) -> np.ndarray:
        """By Student's t from the line's own error and the residuals about it.

        At least c times what the base law says of itself.
        """
        scale = nearest(fit.state["middles"], place(inputs))
        lines, wide = Lines.of(fit.state).take(scale), np.empty((len(inputs), len(fit.targets)))
        for law, rows, there in _by_law(fit, inputs, scale):
            wide[rows] = law.law.half_width(law, there, level)
        spread = np.hypot(lines.noise, lines.level_sd(_below(fit, inputs, scale)))
        drawn = student.ppf(0.5 + level / 2, lines.freedom) * spread
        own = np.isin(scale, fit.state["owner"])[:, None]
        return np.where(own, wide, np.maximum(drawn, lines.slope * wide))

    def suits(self, design: Design) -> bool:
        return len(scales_of(inputs_of(design, Scene.of(design)))[0]) > 1


def worth_running(cheap: Fit, ratios: np.ndarray, count: int) -> np.ndarray:
    """Which of the mixtures (R, K) to run at the dear scale, best first: `count` indices.

    `cheap` is a fit of the cheap runs. The first is the middle one by its losses, of all targets:
    where a level from one run is off least. Each later one adds most to what the runs tell of the
    slopes, the gain in log(prior precision + precision) summed over targets; so any first few are
    a design. Raises `FitError` for a count that isn't from 1 to R.
    """
    if not 1 <= count <= len(ratios):
        raise FitError(f"runs at the dear scale: {count} of {len(ratios)} mixtures; give 1 or more")
    law, scene = cheap.law, cheap.scene
    top = scene.inputs(ratios, scene.n_range[1], scene.d_range[1])
    logs = np.log(law.predict(cheap, top)) / np.maximum(cheap.noise, LEAST_NOISE)
    apart = (logs - logs.mean(0)) / np.maximum(logs.std(0), 1e-12)
    chosen = [int((apart**2).sum(1).argmin())]
    while len(chosen) < count:
        gains = [_told(logs[[*chosen, i]]) if i not in chosen else -1.0 for i in range(len(logs))]
        chosen.append(int(np.argmax(gains)))
    return np.array(chosen)


def _told(logs: np.ndarray) -> float:
    """What runs tell of the slopes, from the cheap law's log losses (n, T) over the noise."""
    return float(np.log(1 + OWN_SD**2 * ((logs - logs.mean(0)) ** 2).sum(0)).sum())


def scales_of(inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """The scales of runs: their middles (C, 2) in log N and log D, and which each run has (R,)."""
    levels = np.stack([_levels(inputs.log_n), _levels(inputs.log_d)], axis=1)
    which = np.unique(levels, axis=0, return_inverse=True)[1].ravel()
    at = place(inputs)
    return np.stack([at[which == i].mean(0) for i in range(which.max() + 1)]), which


def _levels(logs: np.ndarray) -> np.ndarray:
    """A number (R,) for each group of values, none of them far below the group's largest."""
    found, left = np.zeros(len(logs), int), np.ones(len(logs), bool)
    while left.any():
        group = left & (logs > logs[left].max() - np.log(SAME_SCALE))
        found[group] = left.sum()
        left &= ~group
    return found


def mixtures_of(design: Design, which: np.ndarray) -> np.ndarray:
    """How many mixtures each scale has (C,), for the target that it has least of; `which` (R,).

    Checkpoints of one run tell no more of mixtures than one of them.
    """
    mixture, seen = mixture_ids(design), np.isfinite(design.losses)
    there = np.zeros((which.max() + 1, mixture.max() + 1, seen.shape[1]), bool)
    np.logical_or.at(there, (which, mixture), seen)
    return np.asarray(there.sum(1).min(1))


def most_runs(runs: np.ndarray, cost: np.ndarray) -> int:
    """The scale of the most runs below the dearest, the dearest of equals; the dearest itself only
    where no other has any. `runs` and `cost` are (C,)."""
    below = np.where(cost < cost.max(), runs, 0)
    some = below if below.any() else runs
    return int(np.argmax(np.where(some == some.max(), cost, -np.inf)))


def place(inputs: Inputs) -> np.ndarray:
    """Where runs are among scales, (R, 2)."""
    return np.stack([inputs.log_n, inputs.log_d], axis=1)


def nearest(middles: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The scale (R,) nearest to each of some places (R, 2)."""
    return np.asarray(((places[:, None] - middles) ** 2).sum(2).argmin(1))


def beyond(scene: Scene, middles: np.ndarray) -> np.ndarray:
    """Scales (C,) of larger sizes or budgets than the scene has."""
    found = np.zeros(len(middles), bool)
    sides = ((scene.has_n, scene.n_range, scene.n_ref), (scene.has_d, scene.d_range, scene.d_ref))
    for at, (has, (_, top), ref) in zip(middles.T, sides, strict=True):
        found |= has & (at > np.log(SAME_SCALE * top / ref))
    return found


def _named(scene: Scene, middle: np.ndarray) -> str:
    """A scale by what varies in the table: `N=6e+07 D=1e+09`."""
    sides = (("N", scene.has_n, scene.n_ref), ("D", scene.has_d, scene.d_ref))
    shown = zip(sides, middle, strict=True)
    return " ".join(f"{what}={ref * np.exp(at):.3g}" for (what, has, ref), at in shown if has)


def _by_law(fit: Fit, inputs: Inputs, scale: np.ndarray) -> Iterator[tuple[Fit, Any, Inputs]]:
    """Each law that runs at these scales (R,) stand on, which rows do, and how it sees them."""
    source = fit.state["source"][scale]
    for i in np.unique(source):
        law, rows = fit.state["laws"][i], source == i
        some = inputs.take(rows)
        yield law, rows, law.scene.inputs(some.ratios, *_seen_by(law, fit.scene, some))


def _seen_by(law: Fit, scene: Scene, inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """Sizes and budgets (R,) of runs, held to those of the law's own scale."""
    n, d = scene.n_ref * np.exp(inputs.log_n), scene.d_ref * np.exp(inputs.log_d)
    return np.clip(n, *law.scene.n_range), np.clip(d, *law.scene.d_range)


def _below(fit: Fit, inputs: Inputs, scale: np.ndarray) -> np.ndarray:
    """Log losses (R, T) of the laws that runs at these scales (R,) stand on."""
    found = np.empty((len(inputs), fit.scene.n_targets))
    for law, rows, there in _by_law(fit, inputs, scale):
        found[rows] = np.log(law.law.predict(law, there))
    return found
