"""Which rows are held out, and the figures of a prediction: error, bias, ranks, coverage, reach.

Beyond a table every step that its sizes allow is held out: fitted up to some size, the next
larger is predicted, and the largest. Sizes within 15 % of their neighbour count as one.
"""

from __future__ import annotations

import numpy as np
from tables import Table, joined

from olmo_mixlaw.advice.scores.by_size import size_groups as scale_groups
from olmo_mixlaw.laws.choice.holdout import Split, reaching_splits, sampled_splits
from olmo_mixlaw.laws.choice.scoring import score
from olmo_mixlaw.runs import Design

# How many times the compute of the fitted runs a row has: the groups that are told apart.
REACHES = {"<=1": (0.0, 1.05), "1-3": (1.05, 3.0), "3-10": (3.0, 10.0), ">10": (10.0, np.inf)}
NAN = float("nan")
Splits = list[Split]


def splits_of(table: Table, folds: int, quick: bool = False) -> tuple[Design, dict[str, Splits]]:
    """The table's runs, and its splits: held mixtures (or runs) in folds, then every step beyond.

    Where two sizes or fewer leave one step at most, the longest budgets are held out too. `later`
    rows join the runs as one more step. With `quick`, two folds and of the steps the last.
    """
    design = table.load()
    held = sampled_splits(design, folds, 0)
    found = {"held mixtures": held} if held else {"held runs": held_runs(design, folds)}
    steps = scale_steps(design, table.by_compute)
    beyond = {step.name: [step] for step in steps}
    if len(steps) < 2:
        beyond |= {s.name.replace("_", " "): [s] for s in reaching_splits(design)}
    if quick:
        found = {name: parts[:2] for name, parts in found.items()}
        beyond = dict(list(beyond.items())[-1:])
    found |= beyond
    if table.later is None:
        return design, found
    later = table.later()
    new = np.r_[np.zeros(len(design), bool), np.ones(len(later), bool)]
    found = {name: [_longer(s, len(later)) for s in parts] for name, parts in found.items()}
    name = f"<= {short(design.n_params.max())} -> {short(later.n_params.max())} (development)"
    return joined(design, later), found | {name: [Split(name, 0, ~new, new)]}


def _longer(split: Split, more: int) -> Split:
    """The split of a table with so many more rows, none of which it has."""
    train, test = (np.r_[rows, np.zeros(more, bool)] for rows in (split.train, split.test))
    return Split(split.name, split.fold, train, test)


def held_runs(design: Design, folds: int) -> list[Split]:
    """Folds over sizes where a size has many budgets, else over runs."""
    sizes = np.unique(design.n_params, return_inverse=True)[1].ravel()
    many = len(design) > 10 * (sizes.max() + 1)
    cluster = sizes if many else np.arange(len(design))
    count = int(cluster.max()) + 1
    folds = min(folds, count)
    fold_of = np.empty(count, int)
    fold_of[np.random.default_rng(0).permutation(count)] = np.arange(count) % folds
    held = fold_of[cluster]
    return [Split("held_runs", f, held != f, held == f) for f in range(folds)]


def scale_steps(design: Design, by_compute: bool = False) -> list[Split]:
    """Fitted up to a size (or compute), the next larger predicted, and the largest."""
    scale = 6 * design.n_params * design.n_tokens if by_compute else design.n_params
    if not np.isfinite(scale).all():
        return []
    group, say = scale_groups(scale), flops if by_compute else short
    last = int(group.max())
    found = []
    for step in range(last):
        for at in sorted({step + 1, last}):
            name = f"<= {say(scale[group == step].max())} -> {say(scale[group == at].max())}"
            found.append(Split(name, 0, group <= step, group == at))
    return found


def flops(compute: float) -> str:
    """Floating-point operations, as `2.4e+20`."""
    return f"{compute:.1e}"


def short(count: float) -> str:
    """A number of parameters, as `310M`."""
    unit, letter = (1e9, "B") if count >= 1e9 else (1e6, "M")
    return f"{count / unit:.3g}{letter}"


def reach(train: Design, test: Design) -> np.ndarray:
    """Compute N D of the test rows (R,) over the largest that was fitted; NaN where not known."""
    most = np.max(train.n_params * train.n_tokens)
    return test.n_params * test.n_tokens / most


def figures(
    design: Design, held: list[tuple[Split, np.ndarray, tuple[np.ndarray, np.ndarray] | None]]
) -> dict[str, object]:
    """What a law's predictions of the folds are worth.

    `held` has for each fold its losses (R, T) and the ends of their intervals, or None without.
    """
    truth = np.concatenate([design.losses[s.test] for s, _, _ in held])
    guess = np.concatenate([g for _, g, _ in held])
    error = guess / truth - 1
    inside = np.concatenate([_inside(design.losses[s.test], ends) for s, _, ends in held])
    far = np.concatenate([reach(design.take(s.train), design.take(s.test)) for s, _, _ in held])
    seen = np.isfinite(truth)
    row = {
        **score(design, [(s, g) for s, g, _ in held]),
        "bias": 100 * float(np.nanmean(error)),
        "coverage": mean_of(inside[seen]),
        "reach": float(np.nanmedian(far)) if np.isfinite(far).any() else NAN,
        "by_reach": {},
    }
    for name, (low, high) in REACHES.items():
        some = seen & ((far > low) & (far <= high))[:, None]
        if some.any():
            row["by_reach"][name] = {
                "losses": int(some.sum()),
                "mre": 100 * float(np.abs(error[some]).mean()),
                "bias": 100 * float(error[some].mean()),
                "coverage": mean_of(inside[some]),
            }
    return row


def _inside(truth: np.ndarray, ends: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray:
    """1 where a loss lies in its interval, 0 where not, NaN where there is none (R, T)."""
    if ends is None:
        return np.full(truth.shape, NAN)
    low, high = ends
    return np.where(np.isfinite(low), (truth >= low) & (truth <= high), NAN)


def mean_of(values: np.ndarray) -> float:
    """The mean of those that are numbers, NaN without any."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else NAN
