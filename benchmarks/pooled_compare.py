"""p15 and p18, rows with answers held out: scores by what runs have in common, beside the peers.

`python benchmarks/pooled_compare.py [p15|p18]` prints a table and writes it; about three minutes of
a processor. p15's peer is one curve a task of its own loss (arXiv 2412.04403, step 2), with
Chinchilla's law on error rates where a run has no loss; p18's are laws fitted to error rates.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import record
from pooled_scores import of_corpora, of_mixtures
from scipy.stats import norm, spearmanr
from scores import curve_a_task
from tables import FINE_TUNED, METRIC, load_fine_tuned, read

from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws import fit
from olmo_mixlaw.laws.choice.holdout import LOOSE

LEVEL = 0.9
HALVES, FOLDS = 4, 5
# Penalty of the linear peer, on shares that are not scaled (Wettig et al. use none).
RIDGE = 0.01
PEERS = ("log_linear", "regmix", "additive", "transfer", "shared_power", "kriging", "stack")


def corpora() -> list[dict[str, object]]:
    """p15: the 1.4B runs from those at .41B, and half of their corpora from the other half."""
    rows = []
    for split, train, held in corpora_splits(read("p15_dclm")):
        query = held.drop(columns="accuracy")
        start = time.process_time()
        found = of_corpora(train, query)
        seconds = time.process_time() - start
        peers = {
            "in common": found.value,
            "a curve a task": curve_a_task(train, query)["accuracy"],
            "mean of the task": held["task"].map(train.groupby("task")["accuracy"].mean()),
        }
        inside = _inside(held["accuracy"] - found.value, found.sd)
        has_loss = held.groupby("run_id")["task_loss"].transform("count") > 0
        for name, guess in peers.items():
            off = (held["accuracy"] - guess).abs()
            rows.append(
                {
                    "table": "p15",
                    "split": split,
                    "by": name,
                    "mae": float(off.mean()),
                    "mae with losses": float(off[has_loss].mean()),
                    "mae without": float(off[~has_loss].mean()),
                    "inside": inside if name == "in common" else None,
                    "cpu_seconds": seconds if name == "in common" else None,
                }
            )
    return rows


def corpora_splits(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """(name, fitted rows, held rows); a task that no fitted run has isn't asked for."""
    large = frame["N"] > 1e9
    parts = {"412M -> 1.44B": large}
    names = frame["corpus"][large].unique()
    for seed in range(HALVES):
        half = np.random.default_rng(seed).permutation(names)[: len(names) // 2]
        parts[f"half of the corpora, {seed + 1}"] = large & frame["corpus"].isin(half)
    for name, held in parts.items():
        train = frame[~held]
        yield name, train, frame[held & frame["task"].isin(train["task"])]


def mixtures() -> list[dict[str, object]]:
    """p18: fifths of the 7B mixtures from the rest and the smaller sizes; 7B from those alone."""
    frame = read(FINE_TUNED)
    large = np.flatnonzero(frame["model"] == "Qwen2.5-7B")
    fold = np.random.default_rng(0).permutation(len(large)) % FOLDS
    fifths = [large[fold == k] for k in range(FOLDS)]
    return [*_mixtures(frame, fifths, "fifths of 7B"), *_mixtures(frame, [large], "<= 3B -> 7B")]


def _mixtures(frame: pd.DataFrame, folds: list[np.ndarray], split: str) -> list[dict[str, object]]:
    metrics = [c for c in frame if c.startswith(METRIC) and not c.startswith(f"{METRIC}avg_")]
    truth = np.concatenate([frame.loc[held, metrics].to_numpy(float) for held in folds])
    guesses: dict[str, list[np.ndarray]] = {}
    seconds: dict[str, float] = {}
    spreads = []
    for held in folds:
        rest, asked = frame.drop(frame.index[held]), frame.iloc[held].drop(columns=metrics)
        for name in ("in common", "linear", *PEERS):
            start = time.process_time()
            try:
                if name == "in common":
                    value, sd = of_mixtures(rest, asked)
                    spreads.append(sd.to_numpy())
                    guess = value.to_numpy()
                else:
                    guess = _linear(held) if name == "linear" else _by_law(name, held)
            except FitError as error:
                print(f"{split} {name}: {error}", flush=True)
                continue
            guesses.setdefault(name, []).append(guess)
            seconds[name] = seconds.get(name, 0.0) + time.process_time() - start
            print(f"{split} {name}: {seconds[name]:.0f} s", flush=True)
    rows = []
    for name, parts in guesses.items():
        if len(parts) < len(folds):
            continue
        guess = np.concatenate(parts)
        off = guess - truth
        rows.append(
            {
                "table": "p18",
                "split": split,
                "by": name,
                "rho of tasks": float(
                    np.nanmean([_rho(*pair) for pair in zip(truth.T, guess.T, strict=True)])
                ),
                "rho of the mean": _rho(truth.mean(1), guess.mean(1)),
                "mae": float(np.abs(off).mean()),
                "inside": _inside(off, np.concatenate(spreads)) if name == "in common" else None,
                "cpu_seconds": seconds[name] / len(folds),
            }
        )
    return rows


def _by_law(name: str, held: np.ndarray) -> np.ndarray:
    """Scores (r, Q) of held rows by a law fitted to the error rates of all others."""
    design = load_fine_tuned()
    rest = np.setdiff1d(np.arange(len(design)), held)
    fitted = fit(name, design.take(rest), settings=LOOSE, level=False)
    at = design.take(held)
    return 1 - fitted.predict(at.ratios, at.n_params, at.n_tokens)


def _linear(held: np.ndarray) -> np.ndarray:
    """Scores (r, Q) linear in the shares, of the rows of the held size (of all where it has none),
    each size about its own mean."""
    design = load_fine_tuned()
    score, n = 1 - design.losses, design.n_params
    rest = np.setdiff1d(np.arange(len(n)), held)
    same = rest[n[rest] == n[held[0]]]
    rows = same if len(same) else rest
    x = design.ratios - design.ratios[rows].mean(0)
    y = score - np.stack(
        [
            score[rows[n[rows] == s]].mean(0) if (n[rows] == s).any() else score[rows].mean(0)
            for s in n
        ]
    )
    system = x[rows].T @ x[rows] + RIDGE * np.eye(x.shape[1])
    slopes = np.linalg.solve(system, x[rows].T @ y[rows])
    return score[rows].mean(0) + x[held] @ slopes


def _rho(truth: np.ndarray, guess: np.ndarray) -> float:
    if np.ptp(truth) == 0 or np.ptp(guess) < 1e-12:
        return float("nan")
    return float(spearmanr(truth, guess).statistic)


def _inside(off: pd.Series | np.ndarray, sd: pd.Series | np.ndarray) -> float | None:
    """The share of errors within the interval of `LEVEL`; None where there is none."""
    known = np.isfinite(sd)
    if not np.any(known):
        return None
    return float(np.mean(np.abs(off)[known] <= norm.ppf((1 + LEVEL) / 2) * sd[known]))


if __name__ == "__main__":
    asked = sys.argv[1:] or ["p15", "p18"]
    found = [row for name in asked for row in {"p15": corpora, "p18": mixtures}[name]()]
    print(pd.DataFrame(found).round(4).to_string(index=False))
    record.save(f"pooled_scores_{'_'.join(asked)}", found, level=LEVEL)
