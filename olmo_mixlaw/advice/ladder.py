"""Fit a ladder of small models and say what larger ones will score, with intervals.

Task tables go through the two-step law, loss tables through any mixture law with its largest
size held out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from olmo_mixlaw.advice.reach import form_error
from olmo_mixlaw.advice.two_step import (
    TwoStep,
    TwoStepOptions,
    checked_tasks,
    final_design,
    fit_with_replicates,
)
from olmo_mixlaw.advice.verdict import Verdict, proposed, tried_mixtures, verdict
from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws.choice.differences import Differences
from olmo_mixlaw.laws.choice.uncertainty import bootstrap, interval
from olmo_mixlaw.laws.fitting import fit
from olmo_mixlaw.laws.law import Law, resolve
from olmo_mixlaw.runs import Design, RunTable
from olmo_mixlaw.runs.units import label

LEVEL = 0.9
# Errors of form and noise drawn for each refit.
DRAWS = 10


@dataclass(frozen=True)
class Target:
    """A model to predict."""

    name: str
    n_params: float
    n_tokens: float


def predict_tasks(
    frame: pd.DataFrame,
    targets: list[Target],
    published: pd.DataFrame | None = None,
    *,
    options: TwoStepOptions | None = None,
    chance: Mapping[str, float] | None = None,
    replicates: int = 100,
    seed: int = 0,
) -> tuple[TwoStep, pd.DataFrame]:
    """The two-step law's predictions: a row a (target, task) with a 90 % interval.

    The interval holds the luck of runs (refits to resampled ones), the noise of a score, and how
    far the law's form errs (`reach.form_error`): on the sizes held out where three or more are
    apart, else as on public ladders; `result.attrs["form_error"]` says whether it was measured.
    Without `replicates` it is NaN. `options` are those of `fit_two_step`. `chance` maps the start
    of a task's name to its floor. `published` (model, task, accuracy) gives the column `actual`,
    else NaN; it is not fitted.
    """
    chain, others = fit_with_replicates(
        frame, options, seed=seed, chance=chance, replicates=replicates
    )
    n = np.array([t.n_params for t in targets])
    d = np.array([t.n_tokens for t in targets])
    loss, accuracy = chain.predict(n, d)
    rng = np.random.default_rng(seed)
    checked = checked_tasks(frame)
    form = form_error(checked, chain.options, chance=chance, seed=seed) if others else None
    draws = []
    for other in [o for o in others for _ in range(DRAWS)]:
        middle = other.predict(n, d)[1]
        if form is not None:
            middle = form.draw(middle, chain.curves.low, form.reach(n, d), rng)
        noisy = middle * np.exp(rng.normal(size=accuracy.shape) * chain.noise)
        draws.append(np.minimum(noisy, 1.0))  # an accuracy ends there, whatever the noise
    low, high = _around(accuracy, draws)
    known = (
        {} if published is None else published.set_index(["model", "task"])["accuracy"].to_dict()
    )
    rows = [
        (
            target.name,
            task,
            loss[i, j],
            accuracy[i, j],
            low[i, j],
            high[i, j],
            known.get((target.name, task), np.nan),
        )
        for i, target in enumerate(targets)
        for j, task in enumerate(chain.tasks)
    ]
    names = ["model", "task", "task_loss", "predicted", "low", "high", "actual"]
    result = pd.DataFrame(rows, columns=names)
    result["error"] = 100 * (result["predicted"] / result["actual"] - 1)
    result.attrs["form_error"] = form is not None and form.measured
    return chain, result


def _around(middle: np.ndarray, draws: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the interval of the draws, widened where the prediction itself lies outside.

    Refits to resampled runs are biased where the law bends: their middle isn't the whole fit's.
    """
    if not draws:
        return np.full_like(middle, np.nan), np.full_like(middle, np.nan)
    low, high = interval(np.array(draws), LEVEL)
    return np.minimum(low, middle), np.maximum(high, middle)


def final_scores(chain: TwoStep, frame: pd.DataFrame) -> pd.DataFrame:
    """Where each run ended: n_params, n_tokens, task, accuracy, a row a (task, run).

    The accuracy is the mean of the checkpoints that the first step takes; tasks are in the
    chain's order.
    """
    frame = checked_tasks(frame)
    window = chain.options.window
    ends = final_design(frame, chain.tasks, window)
    last = frame.groupby(["task", "run_id"], sort=False).tail(window)
    scores = last.groupby(["run_id", "task"])["accuracy"].mean().unstack()[chain.tasks]
    sizes = {"n_params": ends.n_params, "n_tokens": ends.n_tokens}
    return pd.concat(
        [pd.DataFrame({**sizes, "task": t, "accuracy": scores[t].to_numpy()}) for t in chain.tasks],
        ignore_index=True,
    )


def predict_losses(
    table: RunTable, law: str | Law, targets: list[Target], *, replicates: int = 100, seed: int = 0
) -> pd.DataFrame:
    """A law's predictions of the largest size from the smaller ones, and of `targets` from all.

    A row a (model, run or mixture, domain); `result.attrs["unit"]` is that of the losses, in words.
    With two sizes, the rows of a law that can't
    extrapolate from one are left out and `FitError` says so when nothing remains.
    """
    design = table.design()
    chosen: Law = resolve(law, "--law")
    sizes = np.unique(design.n_params[np.isfinite(design.n_params)])
    frames = []
    if len(sizes) >= 3:
        large = design.n_params >= sizes[-1] * 0.999
        name = f"{sizes[-1]:.4g} (held out)"
        held, rest = design.take(large), design.take(~large)
        frames.append(_predicted(chosen, rest, name, held, replicates, seed))
    elif not targets:
        raise FitError(
            f"{table.source}: {len(sizes)} sizes; three are needed to hold the largest out "
            "(or give --target)"
        )
    first = design.take(np.unique(np.round(design.ratios, 6), axis=0, return_index=True)[1])
    for target in targets:
        asked = replace(
            first,
            run_ids=[f"mixture of {name}" for name in first.run_ids],
            n_params=np.full(len(first), target.n_params),
            n_tokens=np.full(len(first), target.n_tokens),
            losses=np.full_like(first.losses, np.nan),
        )
        frames.append(_predicted(chosen, design, target.name, asked, replicates, seed))
    result = pd.concat(frames, ignore_index=True)
    result.attrs["unit"] = label(design.unit)
    return result


def told_apart(
    table: RunTable, law: str | Law, targets: list[Target], *, seed: int = 0
) -> list[Verdict]:
    """At each target, whether the best of the mixtures tried can be told from the next best.

    A verdict a target; none for a table of one mixture.
    """
    design = table.design()
    tried = tried_mixtures(table)
    if len(tried) < 2 or not targets:
        return []
    fitted = fit(law, design, seed=seed)
    between = Differences.measured(fitted, design, seed=seed)
    names, mixtures = list(tried), np.array(list(tried.values()))
    found = []
    for target in targets:
        scale = (target.n_params, target.n_tokens)
        first, second = fitted.predict(mixtures, *scale).mean(1).argsort()[:2]
        best = proposed(fitted, mixtures[first], *scale)
        found.append(
            verdict(
                fitted,
                best,
                mixtures[second],
                f"{names[second]}, the next best",
                between=between,
                at=target.name,
                subject=f"{names[first]}, the best mixture tried,",
            )
        )
    return found


def _predicted(
    law: Law, design: Design, model: str, asked: Design, replicates: int, seed: int
) -> pd.DataFrame:
    """Losses of the rows `asked` under the law fitted to `design`, beside what was measured."""
    fitted = fit(law, design, seed=seed)
    where = (asked.ratios, asked.n_params, asked.n_tokens)
    middle = fitted.predict(*where)
    rng = np.random.default_rng(seed)
    draws = [
        other.predict(*where) * np.exp(rng.normal(size=middle.shape) * fitted.noise)
        for other in bootstrap(fitted, design, replicates=replicates, seed=seed)
    ]
    low, high = _around(middle, draws)
    rows = [
        (model, name, domain, middle[i, j], low[i, j], high[i, j], asked.losses[i, j])
        for i, name in enumerate(asked.run_ids)
        for j, domain in enumerate(fitted.targets)
    ]
    columns = ["model", "run", "task", "predicted", "low", "high", "actual"]
    result = pd.DataFrame(rows, columns=columns)
    result["error"] = 100 * (result["predicted"] / result["actual"] - 1)
    return result
