"""How often the intervals of gains between two mixtures hold what two new runs show.

`python benchmarks/gains.py` takes pairs of runs that were not fitted: of made tables, whose truth
is known, at the largest size fitted and at six times it; and of a public table of fine-tuning
mixtures (19 sources, 17 scores): the other half of its 3B runs, and the answered 7B ones. Of the
made tables also what the mixture that looks best is predicted to gain, and what it does.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import record
from tables import FINE_TUNED, find, load_fine_tuned

from olmo_mixlaw.advice import optimum
from olmo_mixlaw.advice.gains import Luck, gains, luck_of, paired_draws, refits_of, usual_mixture
from olmo_mixlaw.advice.scores import Scores, fit_scores
from olmo_mixlaw.runs import RunTable

LEVEL, REFITS, PAIRS, TABLES = 0.9, 20, 10, 20
DOMAINS = ("web", "code", "wiki", "math")
WEIGHTS = {"quiz": (0.7, 0.0, 0.3, 0.0), "coding": (0.1, 0.9, 0.0, 0.0)}
SIZES, TOKENS, MIXTURES, QUESTIONS, NOISE = (1e7, 4e7, 1.6e8), 1e9, 12, 2000, 0.01
CHANCE = {"quiz": 0.25, "coding": 0.25}
# What is asked of the made tables: the largest size fitted, and one beyond.
ASKED = {"made, largest size fitted": 1.6e8, "made, six times as large": 1e9}


def made_losses(ratios: np.ndarray, n: float, rng: np.random.Generator | None = None) -> np.ndarray:
    """Losses (R, 4) of a transfer law, each domain worth 1 for itself and .1 for others."""
    share = ratios @ (0.1 + 0.9 * np.eye(4))
    losses = 1.5 + 0.8 * (n / 4e7) ** -0.25 + 0.5 * share**-0.3
    return losses if rng is None else losses * np.exp(NOISE * rng.normal(size=losses.shape))


def made_scores(losses: np.ndarray) -> dict[str, np.ndarray]:
    return {
        task: 0.25 + 0.7 / (1 + np.exp(-6 * (2.9 - losses @ np.array(weights))))
        for task, weights in WEIGHTS.items()
    }


def made_table(rng: np.random.Generator) -> RunTable:
    ratios = rng.dirichlet(np.full(4, 1.5), MIXTURES)
    losses, scores = [], []
    for n in SIZES:
        found = made_losses(ratios, n, rng)
        for i, run in enumerate(found):
            name = f"{n:g}-{i}"
            about = {"run_id": name, "n_params": n, "n_tokens": TOKENS}
            about |= {f"w_{d}": h for d, h in zip(DOMAINS, ratios[i], strict=True)}
            losses += [{**about, "domain": d, "loss": x} for d, x in zip(DOMAINS, run, strict=True)]
            for task, exact in made_scores(run[None]).items():
                share = rng.binomial(QUESTIONS, exact[0]) / QUESTIONS
                row = {"run_id": name, "task": task, "metric": "acc_raw", "value": share}
                scores.append({**row, "n_instances": QUESTIONS})
    return RunTable(pd.DataFrame(losses), pd.DataFrame(scores), source="made")


def held(
    scores: Scores,
    refits: list,
    luck: Luck,
    pairs: np.ndarray,
    n: float,
    d: float,
    truth: np.ndarray,
) -> list[dict[str, object]]:
    """A row a pair (P, 2, K): whether the intervals of tasks and of their mean held `truth`."""
    tasks, rows = scores.law.tasks, []
    weights = dict.fromkeys(tasks, 1 / len(tasks))
    for seed, (mixtures, measured) in enumerate(zip(pairs, truth, strict=True)):
        draws = paired_draws(scores, refits, mixtures, n, d, luck=luck, seed=seed)
        predicted = scores.predict(mixtures, n, d)
        (low,), (high,) = scores.interval(mixtures[1:], n, d, level=LEVEL)
        found = gains(predicted, draws, tasks, weights, level=LEVEL, best_ends=(low, high))
        gain, low, high = (found.tasks[key].to_numpy() for key in ("gain", "low", "high"))
        difference = measured[1] - measured[0]
        mean = float(difference.mean())
        rows.append(
            {
                "tasks": float(_within(found.tasks, "low", "high", difference)),
                "mean": float(found.mean["low"] <= mean <= found.mean["high"]),
                "scores": float(_within(found.tasks, "best_low", "best_high", measured[1])),
                "half width": 50 * float((high - low).mean()),
                "error": 100 * float(np.abs(gain - difference).mean()),
                "measured gain": 100 * float(np.abs(difference).mean()),
                "mean's sign": float(np.sign(mean) == np.sign(found.mean["gain"])),
                "mean's half width": 50 * (found.mean["high"] - found.mean["low"]),
                "mean's error": 100 * abs(found.mean["gain"] - mean),
            }
        )
    return rows


def _within(table: pd.DataFrame, low: str, high: str, truth: np.ndarray) -> float:
    """The part of `truth` within its intervals."""
    return float(((table[low] <= truth) & (truth <= table[high])).mean())


def chosen(scores: Scores, refits: list, luck: Luck, table: RunTable, n: float) -> dict[str, float]:
    """What the best mixture is predicted to gain over the mean of those tried, and what it does."""
    current = usual_mixture(table.design())[0]
    best = optimum(scores.fit, n, TOKENS, objective=scores.goal(), refits=refits)
    two = np.stack([current, best.ratios])
    draws = paired_draws(scores, refits, two, n, TOKENS, luck=luck)
    tasks = scores.law.tasks
    weights = dict.fromkeys(tasks, 1 / len(tasks))
    found = gains(scores.predict(two, n, TOKENS), draws, tasks, weights, level=LEVEL).mean
    exact = made_scores(made_losses(two, n))
    true = float(np.mean([np.diff(exact[task])[0] for task in tasks]))
    return {
        "predicted": 100 * found["gain"],
        "true": 100 * true,
        "within": float(found["low"] <= true <= found["high"]),
        "worse than current": float(true < 0),
    }


def chosen_rows(law: str, tables: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for seed in range(tables):
        table = made_table(np.random.default_rng(seed))
        scores = fit_scores(table, law, chance=CHANCE)
        refits, luck = list(refits_of(scores, table, REFITS)), luck_of(scores, table)
        for name, n in ASKED.items():
            rows.append({"what": name, "law": law, **chosen(scores, refits, luck, table, n)})
    return rows


def made_rows(law: str, tables: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for seed in range(tables):
        rng = np.random.default_rng(seed)
        table = made_table(rng)
        scores = fit_scores(table, law, chance=CHANCE)
        refits = list(refits_of(scores, table, REFITS))
        for name, n in ASKED.items():
            pairs = rng.dirichlet(np.full(4, 1.5), (PAIRS, 2))
            losses = made_losses(pairs.reshape(-1, 4), n, rng)
            exact = made_scores(losses)
            truth = np.stack([exact[task] for task in scores.law.tasks], 1).reshape(PAIRS, 2, -1)
            for row in held(scores, refits, luck_of(scores, table), pairs, n, TOKENS, truth):
                rows.append({"what": name, "law": law, **row})
    return rows


def fine_tuned_rows(law: str) -> list[dict[str, object]]:
    """Fitted to .5B and half of 3B; pairs of the other 3B runs, and of the answered 7B runs."""
    design = load_fine_tuned()
    rng = np.random.default_rng(0)
    sizes = np.unique(design.n_params)
    middle = np.flatnonzero(design.n_params == sizes[1])
    rng.shuffle(middle)
    train = np.r_[np.flatnonzero(design.n_params == sizes[0]), middle[: len(middle) // 2]]
    held_out = {sizes[1]: middle[len(middle) // 2 :]}
    held_out |= {n: np.flatnonzero(design.n_params == n) for n in sizes[2:]}
    fitted = design.take(train)
    base = pd.DataFrame({"run_id": fitted.run_ids, "n_params": fitted.n_params})
    for d, column in zip(fitted.domains, fitted.ratios.T, strict=True):
        base[f"w_{d}"] = column
    losses, scores = [], []
    for t, task in enumerate(fitted.targets):
        losses.append(base.assign(domain=f"error of {task}", loss=fitted.losses[:, t]))
        value = base[["run_id"]].assign(task=task, metric="acc", value=1 - fitted.losses[:, t])
        scores.append(value.dropna())
    table = RunTable(pd.concat(losses).dropna(), pd.concat(scores), "p18", unit="unstated")
    # Chance matters little here: every task is far above it.
    found = fit_scores(table, law, chance=dict.fromkeys(fitted.targets, 0.0))
    refits = list(refits_of(found, table, REFITS))
    columns = [design.targets.index(task) for task in found.law.tasks]
    rows: list[dict[str, object]] = []
    for n, runs in held_out.items():
        two = np.stack([rng.choice(runs, 2, replace=False) for _ in range(4 * PAIRS)])
        truth = 1 - design.losses[two][:, :, columns]
        known = np.isfinite(truth).all((1, 2))
        for row in held(
            found, refits, luck_of(found, table), design.ratios[two][known], n, np.nan, truth[known]
        ):
            rows.append({"what": f"fine-tuning, {n / 1e9:g}B", "law": law, **row})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two made tables")
    quick = parser.parse_args().quick
    start = time.process_time()
    rows = made_rows("transfer", 2 if quick else TABLES)
    if find(FINE_TUNED) and not quick:
        rows += fine_tuned_rows("shared_power")
    table = pd.DataFrame(rows).groupby(["what", "law"], sort=False)
    shown = table.mean().assign(pairs=table.size()).reset_index()
    print(shown.round(3).to_string(index=False))
    print(f"{time.process_time() - start:.0f} processor seconds\n")
    picks = pd.DataFrame(chosen_rows("transfer", 2 if quick else TABLES))
    picked = picks.groupby(["what", "law"], sort=False).mean().reset_index()
    print("the best mixture over the mean of those tried, points of the mean score")
    print(picked.round(3).to_string(index=False))
    if not quick:
        figures = {"pairs": shown.to_dict("records"), "best": picked.to_dict("records")}
        record.save("gains", figures, level=LEVEL, refits=REFITS, tables=TABLES)


if __name__ == "__main__":
    main()
