"""Which law predicts runs that it has not seen, and is the difference more than chance?

Each law is fitted without some mixtures, and without the largest size, and scored on what was
left out. The choice is the law with the fewest parameters within one standard error of the
best, the error being over runs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pandas as pd

from olmo_mixlaw.errors import ConfigError, FitError
from olmo_mixlaw.laws.choice.differences import Differences, differences
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
from olmo_mixlaw.laws.choice.scoring import (
    APART,
    held_rows,
    mixture_scores,
    noise_floor,
    noisy,
    score,
)
from olmo_mixlaw.laws.law import Law, Scene, resolve
from olmo_mixlaw.laws.weights import weights_of
from olmo_mixlaw.registry import COMPARED_LAWS, DEFAULT_LAW, ONE_SCALE_LAW, PLAIN_LAW, SCALES_LAW
from olmo_mixlaw.runs import Design, RunTable
from olmo_mixlaw.runs.table import design_of
from olmo_mixlaw.runs.units import NATS, label

# So many of them are named.
MOST_NAMED = 6
# Smaller mean errors count as this much: no law is infinitely better than another.
LEAST_ERROR = 1e-9

# What a law is chosen for: what losses will be, or which mixture is best.
FORECAST, MIXTURE = "forecast", "mixture"
PURPOSES = (FORECAST, MIXTURE)

COLUMNS = [
    "law",
    "split",
    "mre",
    "mixture_r2",
    "objective_r2",
    "rho",
    "regret",
    "n_parameters",
    "noise_floor",
    "note",
]
SCORES = COLUMNS[2:7]


@dataclass(frozen=True)
class Comparison:
    """Held-out errors of several laws.

    `frame` has a row a (law, split): `mre` (%), `mixture_r2` (variance explained among mixtures
    at one size and budget), and of the objective, the weighted mean loss: `objective_r2`, `rho`
    (rank correlation of mixtures) and `regret` (in `unit`, by taking the mixture that the law calls
    best); `n_parameters`, `noise_floor` (%, NaN without repeated runs) and `note`. `errors` maps a
    law to its mean error a run, (splits, runs), in the sense of `purpose`. `other` is the law that
    the other purpose would have chosen. `noise_targets` are those whose held-out mixtures the
    chosen law can't tell apart. `near` are the laws within one standard error of the best, the
    choice first.
    """

    frame: pd.DataFrame
    choice: str
    reason: str
    errors: dict[str, np.ndarray]
    held: dict[str, list[tuple[Split, np.ndarray]]]
    unit: str = NATS
    noise_targets: tuple[str, ...] = ()
    purpose: str = FORECAST
    other: str = ""
    near: tuple[str, ...] = ()

    @property
    def no_answer(self) -> str:
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
        for column in ("mre", "mixture_r2", "objective_r2", "rho", "noise_floor"):
            shown[column] = shown[column].map(lambda v: f"{v:.3f}" if np.isfinite(v) else "-")
        shown["n_parameters"] = shown["n_parameters"].astype("Int64")
        shown["regret"] = shown["regret"].map(lambda v: f"{v:.4f}" if np.isfinite(v) else "-")
        regret = f"regret {label(self.unit)}"
        names = {"mre": "mre %", "regret": regret, "noise_floor": "noise %"}
        body = shown.rename(columns=names).to_string(index=False)
        head = f"{self.no_answer}\n\n" if self.no_answer else ""
        lines = [f"{head}{body}\n", f"choice: {self.choice}, for a {self.purpose} ({self.reason})"]
        return "\n".join([*lines, *self.remarks()])

    def remarks(self) -> list[str]:
        """What to know beside the choice: that the other purpose chooses otherwise, and noise."""
        found = []
        if self.other and self.other != self.choice:
            purpose = PURPOSES[1 - PURPOSES.index(self.purpose)]
            found.append(
                f"for a {purpose} it would be {self.other}: the two disagree, so neither is sure"
            )
        if self.noise_targets:
            few = ", ".join(self.noise_targets[:MOST_NAMED])
            more = " ..." if len(self.noise_targets) > MOST_NAMED else ""
            found.append(
                f"{len(self.noise_targets)} of {self.n_targets} targets are noise to it (R2 "
                f"between held-out mixtures not above 0, or errors {APART:g} times the median): "
                f"{few}{more}"
            )
        return found

    @property
    def n_targets(self) -> int:
        """How many targets were predicted."""
        return next((p.shape[1] for held in self.held.values() for _, p in held), 0)


def compare(
    table: RunTable | Design,
    laws: Sequence[str | Law],
    *,
    splits: Sequence[str] = SPLITS,
    folds: int = 5,
    seed: int = 0,
    purpose: str = FORECAST,
    target_weights: Mapping[str, float] | None = None,
    level: bool = True,
    progress: Callable[[str], None] = lambda line: None,
) -> Comparison:
    """Score every law on rows that it was not fitted to, and choose one, by the name it has here.

    The choice is for a `purpose`: by the error of all losses for a `forecast`, by that of the
    objective's differences between mixtures for a `mixture`. The objective is the mean loss, by
    `target_weights` (default: equal). Beyond the rows fitted, losses are brought to the `level`, as
    a fit does. `progress` is told which law is being fitted.

    Raises `ConfigError` for a name that is given twice, `FitError` when the table allows no split
    or no law could be fitted. A law that can't be fitted keeps its row, with the reason as its
    note.
    """
    design = design_of(table)
    resolved, weights = _by_name(laws), weights_of(target_weights, design.targets, "target")
    if purpose not in PURPOSES:
        raise ConfigError(f"purpose: {purpose!r} is none of {', '.join(PURPOSES)}")
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
        predictions, note = predict_held(law, design, parts, seed, level=level)
        count = _count_parameters(law, design, seed)
        held[called] = predictions
        for name in dict.fromkeys(part.name for part in parts):
            some = [(part, p) for part, p in predictions if part.name == name]
            scores = score(design, some, weights) if some else dict.fromkeys(SCORES, np.nan)
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
    frame = pd.DataFrame(rows)[COLUMNS]
    whole = {FORECAST: _relative(design), MIXTURE: _between(design, weights)}
    errors = {
        why: {name: _run_errors(design, some, of) for name, some in held.items()}
        for why, of in whole.items()
    }
    chosen = {why: _choose(frame, errors[why]) for why in PURPOSES}
    choice, reason, near = chosen.pop(purpose)
    [(other, _, _)] = chosen.values()
    noise = _noise_targets(design, held[choice])
    return Comparison(
        frame, choice, reason, errors[purpose], held, design.unit, noise, purpose, other, near
    )


def _noise_targets(design: Design, held: Sequence[tuple[Split, np.ndarray]]) -> tuple[str, ...]:
    """Targets that are noise to a law on mixtures held out; none where it held out none."""
    some = [(part, p) for part, p in held if part.name == SPLITS[0]]
    if not some:
        return ()
    return tuple(noisy(design.targets, *mixture_scores(*held_rows(design, some))))


def held_out(law: Law, design: Design, *, folds: int = 5, seed: int = 0) -> dict[str, float]:
    """The scores of one law on mixtures held out, as `score` has them; none without three."""
    parts = make_splits(design, ("held_mixtures",), folds=folds, seed=seed)
    predictions, _ = predict_held(law, design, parts, seed)
    weights = weights_of(None, design.targets, "target")
    return score(design, predictions, weights) if predictions else {}


def measured(
    law: Law, design: Design, *, folds: int = 5, seed: int = 0
) -> tuple[dict[str, float], Differences | None]:
    """`held_out`, and how far the law errs between mixtures, by the same fits."""
    parts = make_splits(design, ("held_mixtures",), folds=folds, seed=seed)
    whole, _ = predict_held(law, design, parts, seed, whole=True)
    if not whole:
        return {}, None
    held = [(part, guess[part.test]) for part, guess in whole]
    return score(design, held), differences(law, design, seed=seed, held=whole)


def default_laws(design: Design) -> list[str]:
    """One law of each kind, those that are slow only on tables short enough for them."""
    return [name for name in COMPARED_LAWS if resolve(name).suits(design)]


def default_law(design: Design) -> str:
    """The single law that errs least on public tables like this one and that it has runs for."""
    scene = Scene.of(design)
    best = SCALES_LAW if scene.has_n or scene.has_d else ONE_SCALE_LAW
    if len(design.domains) > 1:
        for name in (best, DEFAULT_LAW):
            with suppress(FitError):
                resolve(name).check(design)
                return name
    return PLAIN_LAW if len(design.domains) == 1 else DEFAULT_LAW


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


# Predictions of a split's rows (R, T), NaN elsewhere, -> an error of each row (R,), NaN where none.
Errors = Callable[[np.ndarray], np.ndarray]


def _relative(design: Design) -> Errors:
    """The mean relative error of a row over its targets."""

    def of(guess: np.ndarray) -> np.ndarray:
        error = np.abs(guess / design.losses - 1)
        seen = np.isfinite(error)
        return np.where(seen.any(1), np.nansum(error, 1) / np.maximum(seen.sum(1), 1), np.nan)

    return of


def _between(design: Design, weights: np.ndarray) -> Errors:
    """How far a row's objective is off, both taken from the mean of its size and budget."""
    truth, cell = design.losses @ weights, cells(design)

    def of(guess: np.ndarray) -> np.ndarray:
        objective = guess @ weights
        found = np.full(len(design), np.nan)
        for c in np.unique(cell):
            rows = np.flatnonzero((cell == c) & np.isfinite(objective) & np.isfinite(truth))
            if len(rows) >= 3:
                off = objective[rows] - truth[rows]
                found[rows] = np.abs(off - off.mean())
        return found

    return of


def _run_errors(
    design: Design, held: Sequence[tuple[Split, np.ndarray]], errors: Errors
) -> np.ndarray:
    """Errors averaged over a run's rows, one a (split, run); NaN where there is none."""
    runs = run_ids(design)
    names = list(dict.fromkeys(part.name for part, _ in held))
    result = np.full((len(names), runs.max() + 1), np.nan)
    for i, name in enumerate(names):
        guess = np.full(design.losses.shape, np.nan)
        for part, some in held:
            if part.name == name:
                guess[part.test] = some
        error = errors(guess)
        seen = np.isfinite(error)
        count = np.bincount(runs[seen], minlength=runs.max() + 1)
        total = np.bincount(runs[seen], error[seen], minlength=runs.max() + 1)
        result[i] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return result


def _count_parameters(law: Law, design: Design, seed: int) -> float:
    """Of a fit to the whole table; NaN where that can't be made, so that it wins no tie."""
    try:
        return law.fit(design, seed=seed, settings=LOOSE).n_parameters
    except FitError:
        return np.nan


def _choose(frame: pd.DataFrame, errors: dict[str, np.ndarray]) -> tuple[str, str, tuple[str, ...]]:
    """Fewest parameters within one standard error of the best, splits weighted alike.

    The choice, the reason, and all that are within that error.
    """
    splits = list(dict.fromkeys(frame["split"]))
    scored = {
        law: np.array([np.nanmean(some) if np.isfinite(some).any() else np.nan for some in error])
        for law, error in errors.items()
        if len(error) == len(splits)
    }
    table = pd.DataFrame.from_dict(scored, orient="index", columns=splits)
    whole = table.dropna(axis=1, how="all").dropna()
    if whole.empty or not whole.shape[1]:
        reasons = "; ".join(dict.fromkeys(n for n in frame["note"] if n))
        raise FitError(f"no law could be scored on every split: {reasons}")
    whole = whole.clip(lower=LEAST_ERROR)
    relative = np.log(whole / whole.min()).mean(axis=1)
    best = str(relative.idxmin())
    counts = frame.drop_duplicates("law").set_index("law")["n_parameters"].fillna(np.inf)
    near = [best]
    for law in whole.index:
        if law == best:
            continue
        with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a split that is no one's
            gap = (errors[law] - errors[best]) / np.nanmean(errors[best], 1, keepdims=True)
        flat = gap[np.isfinite(gap)]
        if len(flat) > 1 and flat.mean() <= flat.std(ddof=1) / np.sqrt(len(flat)):
            near.append(str(law))
    near.sort(key=lambda law: (counts[law], relative[law]))
    choice = near[0]
    if choice == best:
        return choice, "least held-out error", tuple(near)
    return choice, f"fewest parameters within one standard error of {best}", tuple(near)
