"""Knowledge in mixtures: the published tables against the theory, and false alarms of `detect`.

python benchmarks/knowledge.py published     Table 1 fitted, carried over, and predicted unseen
python benchmarks/knowledge.py alarms        1,000 smooth curves, and jumps of known height
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import record
from scipy.optimize import least_squares
from scipy.stats import norm

from olmo_mixlaw.advice.knowledge import published
from olmo_mixlaw.advice.knowledge.change import DECISIVE, find_change
from olmo_mixlaw.advice.knowledge.facts import Facts
from olmo_mixlaw.advice.knowledge.outlook import Outlook
from olmo_mixlaw.advice.knowledge.remedies import subsampling
from olmo_mixlaw.advice.knowledge.rule import Rule, from_logit, logit

EXPONENT = float(Rule().web.exponent[0])
# Smooth curves: 6 to 16 values, even or not, 1 to 3 seeds, noise of a recall .005 to .08, which in
# half of them is three times that amid the rise, as seeds near a threshold differ.
POINTS, SEEDS, NOISE = (6, 16), (1, 3), (0.005, 0.08)
SMOOTH = ("logistic", "normal", "straight", "power", "saturating", "slow start", "hill", "flat")
# 10-90 % rises of the smooth curves, in gaps between neighbours; narrower ones stand apart.
LEAST_GAPS = 1.5


def two_constants(
    critical: float, kappa: float, facts: Facts, n_params: float, ratio: np.ndarray
) -> np.ndarray:
    """Known part (R,) of a learner of kappa N bits whose threshold is `critical`."""
    odds = ratio / (1 - ratio)
    kept = (critical / (1 - critical) / odds) ** (1 / (1 + EXPONENT))
    return np.clip(kappa * n_params * (1 - kept) / facts.bits_in_all, 0, 1)


def fit_two_constants() -> tuple[float, float, float]:
    """r_c, kappa and the RMSE (points) of the curve fitted to Table 1."""
    cases = published.TABLE_1
    r, y = (np.array([getattr(c, key) for c in cases]) for key in ("ratio", "recall"))

    def errors(theta: np.ndarray) -> np.ndarray:
        critical = 1 / (1 + np.exp(-theta[0]))
        return two_constants(critical, np.exp(theta[1]), cases[0].facts, 70e6, r) - y

    starts = [(float(logit(c)), np.log(k)) for c in (0.2, 0.26, 0.29, 0.32) for k in (0.2, 0.4)]
    best = min((least_squares(errors, start) for start in starts), key=lambda end: end.cost)
    rmse = 100 * float(np.sqrt(np.mean(errors(best.x) ** 2)))
    return float(1 / (1 + np.exp(-best.x[0]))), float(np.exp(best.x[1])), rmse


def carried(critical: float, facts: Facts, n_params: float) -> float:
    """r_c elsewhere: its odds grow as n t N^-(alpha + 1)."""
    first = published.TABLE_1[0]
    factor = facts.tokens_a_pass / first.facts.tokens_a_pass
    factor *= (n_params / first.n_params) ** -(1 + EXPONENT)
    odds = critical / (1 - critical) * factor
    return odds / (1 + odds)


def against_published() -> dict[str, Any]:
    critical, kappa, rmse = fit_two_constants()
    rule, rows = Rule(), []
    for case in published.CASES:
        outlook = Outlook(case.facts, case.n_params, case.n_tokens, rule)
        there = carried(critical, case.facts, case.n_params)
        fitted = two_constants(there, kappa, case.facts, case.n_params, np.array([case.ratio]))
        rows.append(
            {
                "n_params": case.n_params,
                "people": case.people,
                "n_tokens": case.n_tokens,
                "ratio": case.ratio,
                "measured": case.recall,
                "two_constants": float(fitted[0]),
                "rule_optimum": float(
                    rule.known_part(case.facts, case.ratio, case.n_params, case.n_tokens)[0]
                ),
                "cold_expected": outlook.expected(case.ratio),
                "cold_half_known": outlook.probability(case.ratio, 0.5),
            }
        )
    print(
        f"Table 1 (70M, 320k people, 32B): r_c {critical:.4f}, kappa {kappa:.4f}, "
        f"RMSE {rmse:.2f} points"
    )
    print(
        "      N  people tokens ratio measured | two constants | "
        "rule: optimum, cold expected, P(half known)"
    )
    for row in rows:
        print(
            f"{row['n_params'] / 1e6:6.0f}M {row['people'] / 1e3:5.0f}k "
            f"{row['n_tokens'] / 1e9:5.0f}B {row['ratio']:5.2f} {row['measured']:8.3f} | "
            f"{row['two_constants']:13.3f} | {row['rule_optimum']:13.3f} "
            f"{row['cold_expected']:14.3f} {row['cold_half_known']:14.3f}"
        )
    thresholds = _thresholds(critical)
    errors = {
        name: _rmse(rows[: len(published.TABLE_1)], name)
        for name in ("two_constants", "rule_optimum", "cold_expected")
    }
    over = {
        name: _rmse(rows[len(published.TABLE_1) : -1], name)
        for name in ("two_constants", "rule_optimum", "cold_expected")
    }
    print(f"RMSE on Table 1, points: {_said(errors)}")
    print(f"RMSE carried to 410M / 1.28M people, points: {_said(over)}")
    chance = np.array([row["cold_half_known"] for row in rows])
    half = np.array([row["measured"] >= 0.5 for row in rows], float)
    brier, base = float(np.mean((chance - half) ** 2)), float(half.mean() * (1 - half.mean()))
    print(
        f"Brier score of P(half known), {len(rows)} cases: {brier:.3f}; always the mean: {base:.3f}"
    )
    return {
        "two_constants": {"critical_ratio": critical, "kappa": kappa, "rmse_points": rmse},
        "rows": rows,
        "thresholds": thresholds,
        "rmse_points": errors,
        "rmse_points_carried": over,
        "brier": brier,
        "brier_of_the_mean": base,
        "subsampling": _subsampled(),
        "table_1_judged": _judged(),
    }


def _thresholds(critical: float) -> list[dict[str, Any]]:
    """Where recall begins: measured, carried over, and by the rule with the cold interval."""
    rows = []
    print("onset, as a ratio            measured  two constants  rule (optimum)  cold, 90 %")
    for n, people, seen in ((70e6, 320e3, (0.25, 0.30)), (410e6, 1.28e6, (0.30, 0.40))):
        outlook = Outlook(Facts(people), n, published.TOKENS, Rule())
        found = np.quantile(outlook.ratios(0.01), [0.05, 0.5, 0.95])
        best = outlook.critical_ratio(0.01)[0]
        other = carried(critical, Facts(people), n)
        factors = [s / (1 - s) / (best / (1 - best)) for s in seen]
        print(
            f"{n / 1e6:5.0f}M, {people / 1e3:5.0f}k people       {seen[0]:.2f}-{seen[1]:.2f}  "
            f"{other:13.3f}  {best:14.3f}  {found[0]:.3f}-{found[2]:.3f} (middle {found[1]:.3f}); "
            f"measured odds over the rule's: {factors[0]:.2f}-{factors[1]:.2f}"
        )
        rows.append(
            {
                "n_params": n,
                "people": people,
                "measured": seen,
                "two_constants": other,
                "rule": best,
                "cold": found,
                "odds_over_rule": factors,
            }
        )
    return [{k: _plain(v) for k, v in row.items()} for row in rows]


def _subsampled() -> dict[str, Any]:
    """Subsampling at a ratio of .2, 410M, 1.28M people: measured against expected."""
    outlook = Outlook(Facts(1.28e6), 410e6, published.TOKENS, Rule())
    rows = [
        {
            "rho": rho,
            "measured": known,
            "expected": rho * replace(outlook, facts=Facts(rho * 1.28e6)).expected(0.2),
        }
        for rho, known in published.SUBSAMPLED
    ]
    best = subsampling(outlook, 0.2)
    print(
        "subsampling, known of all: "
        + "; ".join(
            f"{row['rho']:.1%} kept: measured {row['measured']:.3f}, expected {row['expected']:.3f}"
            for row in rows
        )
    )
    print(f"best share expected {best.rho:.2f} ({best.known:.3f} known); measured .56 (.398)")
    return {"rows": rows, "best_rho": best.rho, "best_known": best.known}


def _judged() -> dict[str, Any]:
    """What `detect` says of the eight means of Table 1."""
    cases = published.TABLE_1
    found = find_change(logit([c.ratio for c in cases]), [c.recall for c in cases])
    at, low, high = from_logit(np.array([found.at, found.low, found.high])).tolist()
    odds = float(np.exp(found.log_evidence))
    print(
        f"Table 1 is called {found.kind}, at {at:.3f} ({low:.3f} - {high:.3f}); sharp over smooth"
    )
    print(f"  {odds:.2f} : 1 (a call needs {DECISIVE:g} : 1)")
    return {"kind": found.kind, "at": at, "low": low, "high": high, "sharp_over_smooth": odds}


def _rmse(rows: list[dict[str, Any]], name: str) -> float:
    return 100 * float(np.sqrt(np.mean([(row[name] - row["measured"]) ** 2 for row in rows])))


def _said(values: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:.1f}" for name, value in values.items())


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


# Made-up curves


def smooth_curve(rng: np.random.Generator, narrow: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """x and y (R,) of a smooth sweep; `narrow`: rises over half a gap to 1.5 gaps."""
    x, noise = _sweep(rng)
    gap = np.diff(np.unique(x)).max()
    ends = (0.5 * gap, LEAST_GAPS * gap) if narrow else (LEAST_GAPS * gap, 1.5)
    width, at = np.exp(rng.uniform(*np.log(ends))), rng.uniform(0.1, 0.9)
    z = (x - at) / width
    shapes: dict[str, Callable[[], np.ndarray]] = {
        "logistic": lambda: 1 / (1 + np.exp(-2 * np.log(9) * z)),
        "normal": lambda: norm.cdf(2.563 * z),
        "straight": lambda: x,
        "power": lambda: x ** rng.uniform(0.5, 4),
        "saturating": lambda: 1 - np.exp(-x / width),
        "slow start": lambda: 1 - np.exp(-np.exp(np.clip(3.084 * z, -30, 30))),
        "hill": lambda: x**3 / (x**3 + at**3),
        "flat": lambda: np.zeros_like(x),
    }
    shape = shapes["logistic" if narrow else str(rng.choice(SMOOTH))]()
    low, high = rng.uniform(0, 0.1), rng.uniform(0.4, 1)
    if rng.random() < 0.5:
        noise = noise * (1 + 8 * shape * (1 - shape))
    return x, np.clip(low + (high - low) * shape + noise * rng.normal(size=len(x)), 0, 1)


def jump_curve(
    rng: np.random.Generator, height: float, noise: float, points: int = 10, seeds: int = 2
) -> tuple[np.ndarray, np.ndarray, float]:
    """x, y (R,) and the place of a jump of known height."""
    x = np.repeat(np.linspace(0, 1, points), seeds)
    at = rng.uniform(0.25, 0.75)
    y = 0.02 + height * (x > at) + noise * rng.normal(size=len(x))
    return x, np.clip(y, 0, 1), at


def _sweep(rng: np.random.Generator) -> tuple[np.ndarray, float]:
    points, seeds = int(rng.integers(POINTS[0], POINTS[1] + 1)), int(rng.integers(1, SEEDS[1] + 1))
    noise = float(np.exp(rng.uniform(*np.log(NOISE))))
    steps = rng.uniform(0.6, 1.4, points - 1) if rng.random() < 0.5 else np.ones(points - 1)
    values = np.r_[0.0, np.cumsum(steps)] / steps.sum()
    return np.repeat(values, seeds), noise


def alarm_rate(count: int, seed: int, narrow: bool = False) -> float:
    """Part of `count` smooth curves that are called a jump or a threshold."""
    rng = np.random.default_rng(seed)
    return float(np.mean([find_change(*smooth_curve(rng, narrow)).sharp for _ in range(count)]))


def power(height: float, noise: float, count: int, seed: int) -> tuple[float, float]:
    """Part of true jumps that are called, and part whose interval holds the true place."""
    rng = np.random.default_rng(seed)
    called, held = [], []
    for _ in range(count):
        x, y, at = jump_curve(rng, height, noise)
        found = find_change(x, y)
        called.append(found.sharp)
        held.append(found.low <= at <= found.high)
    return float(np.mean(called)), float(np.mean(held))


def alarms(count: int) -> dict[str, Any]:
    rate, narrow = alarm_rate(count, 11), alarm_rate(count, 12, narrow=True)
    print(f"false alarms: {rate:.2%} of {count} smooth curves (rises of {LEAST_GAPS} gaps or more)")
    print(
        f"called sharp: {narrow:.1%} of {count} logistic curves that rise within 0.5 to "
        f"{LEAST_GAPS} gaps"
    )
    rows = []
    print("jump   noise   called   interval holds its place (10 values, 2 seeds)")
    for height in (0.1, 0.2, 0.4, 0.6, 0.8):
        for noise in (0.01, 0.03, 0.08):
            called, held = power(height, noise, max(count // 5, 20), 13)
            rows.append({"height": height, "noise": noise, "power": called, "coverage": held})
            print(f"{height:4.1f} {noise:7.2f} {called:8.2f} {held:8.2f}", flush=True)
    return {"curves": count, "false_alarms": rate, "narrow_called": narrow, "power": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["published", "alarms"])
    parser.add_argument("--curves", type=int, default=1000)
    options = parser.parse_args()
    if options.what == "published":
        record.save("knowledge_published", against_published())
    else:
        record.save("knowledge_alarms", alarms(options.curves), decisive=DECISIVE)


if __name__ == "__main__":
    main()
