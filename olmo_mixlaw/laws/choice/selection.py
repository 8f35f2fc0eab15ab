"""Which law predicts runs that it has not seen, and is the difference more than chance?

Each law is fitted without some mixtures, and without the largest size, and scored on what was
left out. The choice is the law with the fewest parameters within one standard error of the
best, the error being over runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from olmo_mixlaw.errors import ConfigError, FitError
from olmo_mixlaw.laws.choice.holdout import (
    LOOSE,
    SPLITS,
    Split,
    cells,
    make_splits,
    mixture_ids,
    predict_held,
    run_ids,
)
from olmo_mixlaw.laws.law import Law, resolve
from olmo_mixlaw.registry import COMPARED_LAWS
from olmo_mixlaw.runs import Design, RunTable
from olmo_mixlaw.runs.table import design_of
from olmo_mixlaw.runs.units import NATS, label

# A target whose error is so many times the median target's is noise to a law.
APART = 5.0

COLUMNS = [
    "law",
    "split",
    "mre",
    "mixture_r2",
    "rho",
    "regret",
    "n_parameters",
    "noise_floor",
    "note",
]


@dataclass(frozen=True)
class Comparison:
    """Held-out errors of several laws.

    `frame` has a row a (law, split): `mre` (%), `mixture_r2` (variance explained among mixtures
    at one size and budget), `rho` (rank correlation of mixtures by mean loss), `regret` (loss,
    in `unit`, by taking the mixture that the law calls best), `n_parameters`, `noise_floor` (%, NaN
    without repeated runs) and `note`. `errors` maps a law to its mean error a run, (runs,).
    `noise_targets` are those whose held-out mixtures the chosen law can't tell apart.
    """

    frame: pd.DataFrame
    choice: str
    reason: str
    errors: dict[str, np.ndarray]
    held: dict[str, list[tuple[Split, np.ndarray]]]
    unit: str = NATS
    noise_targets: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """That the choice can't tell mixtures apart, where it does no better than their mean."""
        frame = self.frame
        some = frame[(frame["law"] == self.choice) & (frame["split"] == "held_mixtures")]
        if some.empty or not some["mixture_r2"].iloc[0] <= 0:
            return ""
        return (
            f"NO ANSWER: mixtures can't be told apart by this table: on mixtures held out the "
            f"chosen law, {self.choice}, explains no more than their mean does; add runs"
        )

    def text(self) -> str:
        """The table as a user reads it, and the choice."""
        shown = self.frame.copy()
        for column in ("mre", "mixture_r2", "rho", "noise_floor"):
            shown[column] = shown[column].map(lambda v: f"{v:.3f}" if np.isfinite(v) else "-")
        shown["n_parameters"] = shown["n_parameters"].astype("Int64")
        shown["regret"] = shown["regret"].map(lambda v: f"{v:.4f}" if np.isfinite(v) else "-")
        regret = f"regret {label(self.unit)}"
        names = {"mre": "mre %", "regret": regret, "noise_floor": "noise %"}
        body = shown.rename(columns=names).to_string(index=False)
        head = f"{self.verdict}\n\n" if self.verdict else ""
        return f"{head}{body}\n\nchoice: {self.choice} ({self.reason})"


def compare(
    table: RunTable | Design,
    laws: Sequence[str | Law],
    *,
    splits: Sequence[str] = SPLITS,
    folds: int = 5,
    seed: int = 0,
    progress: Callable[[str], None] = lambda line: None,
) -> Comparison:
    """Score every law on rows that it was not fitted to, and choose one, by the name it has here.

    `progress` is told which law is being fitted.

    Raises `ConfigError` for a name that is given twice, `FitError` when the table allows no split
    or no law could be fitted. A law that can't be fitted keeps its row, with the reason as its
    note.
    """
    design = design_of(table)
    resolved = _by_name(laws)
    parts = make_splits(design, splits, folds=folds, seed=seed)
    if not parts:
        raise FitError(
            f"{len(design)} runs with {mixture_ids(design).max() + 1} mixtures and "
            f"{len(np.unique(design.n_params))} sizes can't be split: three mixtures, or three "
            "sizes or budgets, are needed"
        )
    floor = noise_floor(design)
    rows, held = [], {}
    for i, (called, law) in enumerate(resolved.items(), 1):
        progress(f"{called} ({i} of {len(resolved)}): {len(parts) + 1} fits")
        predictions, note = predict_held(law, design, parts, seed)
        count = _count_parameters(law, design, seed)
        held[called] = predictions
        for name in dict.fromkeys(part.name for part in parts):
            some = [(part, p) for part, p in predictions if part.name == name]
            scores = score(design, some) if some else dict.fromkeys(COLUMNS[2:6], np.nan)
            rows.append(
                {
                    "law": called,
                    "split": name,
                    **scores,
                    "n_parameters": count,
                    "noise_floor": floor,
                    "note": note if not some else "",
                }
            )
    errors = {name: _run_errors(design, predictions) for name, predictions in held.items()}
    frame = pd.DataFrame(rows)[COLUMNS]
    choice, reason = _choose(frame, errors)
    noise = _noise_targets(design, held[choice])
    return Comparison(frame, choice, reason, errors, held, design.unit, noise)


def _noise_targets(design: Design, held: Sequence[tuple[Split, np.ndarray]]) -> tuple[str, ...]:
    """Targets that are noise to a law on mixtures held out; none where it held out none."""
    some = [(part, p) for part, p in held if part.name == SPLITS[0]]
    if not some:
        return ()
    return tuple(noisy(design.targets, *mixture_scores(*_held_rows(design, some))))


def held_out(law: Law, design: Design, *, folds: int = 5, seed: int = 0) -> dict[str, float]:
    """The scores of one law on mixtures held out, as `score` has them; none without three."""
    parts = make_splits(design, ("held_mixtures",), folds=folds, seed=seed)
    predictions, _ = predict_held(law, design, parts, seed)
    return score(design, predictions) if predictions else {}


def default_laws(design: Design) -> list[str]:
    """One law of each kind, those that are slow only on tables short enough for them."""
    return [name for name in COMPARED_LAWS if resolve(name).suits(design)]


def _by_name(laws: Sequence[str | Law]) -> dict[str, Law]:
    found: dict[str, Law] = {}
    for law in laws:
        called = law if isinstance(law, str) else law.label
        if called in found:
            raise ConfigError(f"law {called!r} is to be compared twice; leave one of them out")
        found[called] = resolve(law)
    if not found:
        raise FitError("no law to compare")
    return found


def score(design: Design, held: Sequence[tuple[Split, np.ndarray]]) -> dict[str, float]:
    """MRE (%), mixture R2, rho and regret (in the unit) of held-out predictions."""
    truth, guess, cell = _held_rows(design, held)
    seen = np.isfinite(truth)
    error = np.where(seen, np.abs(guess / np.where(seen, truth, 1.0) - 1), np.nan)
    residual, total, ranks, regrets = 0.0, 0.0, [], []
    for c in np.unique(cell):
        t, g = truth[cell == c], guess[cell == c]
        if len(t) < 3:
            continue
        t_centred, g_centred = t - np.nanmean(t, 0), np.where(np.isfinite(t), g, np.nan)
        g_centred = g_centred - np.nanmean(g_centred, 0)
        residual += np.nansum((t_centred - g_centred) ** 2)
        total += np.nansum(t_centred**2)
        whole = np.isfinite(t).all(1)
        if whole.sum() >= 3:
            t_mean, g_mean = t[whole].mean(1), g[whole].mean(1)
            if np.ptp(g_mean) > 1e-9:
                ranks.append(spearmanr(t_mean, g_mean).statistic)
            regrets.append(t_mean[g_mean.argmin()] - t_mean.min())
    return {
        "mre": 100 * float(np.nanmean(error)),
        "mixture_r2": 1 - residual / total if total > 0 else np.nan,
        "rho": float(np.mean(ranks)) if ranks else np.nan,
        "regret": float(np.mean(regrets)) if regrets else np.nan,
    }


def mixture_scores(
    truth: np.ndarray, guess: np.ndarray, cell: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mixture R2 (T,) and MRE (T,), %, of each target alone; `cell` (rows,) is size and budget.

    R2 is NaN for a target whose mixtures don't differ.
    """
    residual, total = np.zeros(truth.shape[1]), np.zeros(truth.shape[1])
    guess = np.where(np.isfinite(truth), guess, np.nan)
    for c in np.unique(cell):
        t, g = truth[cell == c], guess[cell == c]
        if len(t) < 3:
            continue
        count = np.maximum(np.isfinite(t).sum(0), 1)
        t, g = t - np.nansum(t, 0) / count, g - np.nansum(g, 0) / count
        residual += np.nansum((t - g) ** 2, 0)
        total += np.nansum(t**2, 0)
    error = np.abs(guess / truth - 1)
    seen = np.maximum(np.isfinite(error).sum(0), 1)
    r2 = np.where(total > 0, 1 - residual / np.where(total > 0, total, 1.0), np.nan)
    return r2, 100 * np.nansum(error, 0) / seen


def noisy(targets: Sequence[str], r2: np.ndarray, mre: np.ndarray) -> list[str]:
    """Targets that are noise to a law: R2 between mixtures not above 0, or errors far above others.

    `r2` and `mre` (T,) are of rows held out.
    """
    apart = (np.asarray(r2) <= 0) | (np.asarray(mre) > APART * np.median(mre))
    return [target for target, bad in zip(targets, apart, strict=True) if bad]


def _held_rows(
    design: Design, held: Sequence[tuple[Split, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Losses, predictions (rows, T) and cells (rows,) of all rows held out."""
    cell = cells(design)
    return (
        np.concatenate([design.losses[part.test] for part, _ in held]),
        np.concatenate([p for _, p in held]),
        np.concatenate([cell[part.test] for part, _ in held]),
    )


def noise_floor(design: Design) -> float:
    """Mean relative error (%) of a perfect law, from runs repeated with another seed; else NaN."""
    key = np.c_[run_ids(design), np.nan_to_num(design.n_tokens, nan=-1.0)]
    group = np.unique(key, axis=0, return_inverse=True)[1].ravel()
    spread = []
    for g in np.unique(group):
        some = design.losses[group == g]
        if len(some) > 1:
            sd = np.nanstd(some, axis=0, ddof=1) / np.nanmean(some, axis=0)
            spread.append(np.nanmean(sd))
    # The mean absolute value of a normal error is sqrt(2 / pi) of its standard deviation.
    return 100 * float(np.sqrt(2 / np.pi) * np.mean(spread)) if spread else float("nan")


def _run_errors(design: Design, held: Sequence[tuple[Split, np.ndarray]]) -> np.ndarray:
    """Relative errors averaged over targets and a run's rows, one a (split, run); NaN if absent."""
    runs = run_ids(design)
    names = list(dict.fromkeys(part.name for part, _ in held))
    result = np.full((len(names), runs.max() + 1), np.nan)
    for i, name in enumerate(names):
        total, count = np.zeros(runs.max() + 1), np.zeros(runs.max() + 1)
        for part, guess in held:
            if part.name == name:
                error = np.abs(guess / design.losses[part.test] - 1)
                np.add.at(total, runs[part.test], np.nansum(error, 1))
                np.add.at(count, runs[part.test], np.isfinite(error).sum(1))
        result[i] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return result


def _count_parameters(law: Law, design: Design, seed: int) -> float:
    """Of a fit to the whole table; NaN where that can't be made, so that it wins no tie."""
    try:
        return law.fit(design, seed=seed, settings=LOOSE).n_parameters
    except FitError:
        return np.nan


def _choose(frame: pd.DataFrame, errors: dict[str, np.ndarray]) -> tuple[str, str]:
    """Fewest parameters within one standard error of the best, splits weighted alike."""
    table = frame.pivot(index="law", columns="split", values="mre")
    whole = table.dropna()
    if whole.empty:
        reasons = "; ".join(dict.fromkeys(n for n in frame["note"] if n))
        raise FitError(f"no law could be scored on every split: {reasons}")
    relative = np.log(whole / whole.min()).mean(axis=1)
    best = str(relative.idxmin())
    counts = frame.drop_duplicates("law").set_index("law")["n_parameters"].fillna(np.inf)
    near = [best]
    for law in whole.index:
        if law == best:
            continue
        gap = (errors[law] - errors[best]) / np.nanmean(errors[best], 1, keepdims=True)
        flat = gap[np.isfinite(gap)]
        if len(flat) > 1 and flat.mean() <= flat.std(ddof=1) / np.sqrt(len(flat)):
            near.append(str(law))
    choice = min(near, key=lambda law: (counts[law], relative[law]))
    if choice == best:
        return choice, "least held-out error"
    return choice, f"fewest parameters within one standard error of {best}"
