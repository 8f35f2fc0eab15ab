"""Thresholds of facts in models of 1 to 50 thousand parameters: predicted first, then swept.

python benchmarks/phases.py predict     from results/phase-pure, before any mixture is trained
python benchmarks/phases.py measured    the sweeps beside the predictions, sweep by sweep

Run in this order: `study run phase-pure`, `predict`, then phase-ratio, phase-size, phase-warm and
phase-warm-start. `predict` never looks at a sweep; `measured` fits nothing to one.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import record

from olmo_mixlaw.advice.knowledge import Facts, Outlook, Rule, facts_of, storage_of, web_of
from olmo_mixlaw.advice.knowledge.barrier import NONE, PILOT
from olmo_mixlaw.advice.knowledge.change import find_change
from olmo_mixlaw.advice.knowledge.detect import crossing
from olmo_mixlaw.advice.knowledge.outlook import quantiles
from olmo_mixlaw.advice.knowledge.rule import logit
from olmo_mixlaw.advice.knowledge.sweep import Series, scaled, series_of, unscaled
from olmo_mixlaw.models.ladder import load_ladder
from olmo_mixlaw.runs import RunTable

FACTS = (
    "mixlaw:table?path={folder}/phase-facts.csv&fields={fields}"
    "&sentence={{name}}%20{{field}}%20{{value}}."
)
FOLDER = Path(__file__).parents[1] / "configs" / "studies"
# The sets: of the sweeps, and of the pure runs.
SWEPT, PURE = "one", "one,two,three,four"
TOKENS = 4_000_000
# Half of the bits (or of the facts) are known: the least that is called learned.
HALF = 0.5
# The sweeps: sizes by ratio, ratios by size.
SIZES, RATIOS = ("w12", "w16", "w24"), (0.2, 0.4)
PREDICTIONS = "phase_predictions"


def facts(fields: str, tokenizer: Path) -> Facts:
    return facts_of(FACTS.format(folder=FOLDER, fields=fields), tokenizer=str(tokenizer))


def predict(results: Path) -> dict[str, Any]:
    """Thresholds in ratio at each size, and in size at each ratio; nothing was swept."""
    swept = facts(SWEPT, results / "phase-pure" / "data" / "tokenizer.json")
    n_params = _sizes()
    rule = rule_of(results)
    by_ratio = {size: _in_ratio(swept, n, rule) for size, n in n_params.items()}
    by_size = {f"{ratio:g}": _in_size(swept, ratio, rule) for ratio in RATIOS}
    return {
        "facts": {"n": swept.n, "bits": swept.bits, "tokens": swept.tokens},
        "web": {key: float(getattr(rule.web, key)[0]) for key in ("floor", "scale", "exponent")},
        "storage": {"ceiling": float(rule.storage.ceiling[0]), "half": float(rule.storage.half[0])},
        "sources": [rule.web.source, rule.storage.source],
        "ratio": by_ratio,
        "size": by_size,
        "exponent": _exponent([(n_params[s], by_ratio[s]["optimum"]["middle"]) for s in SIZES]),
    }


def _sizes() -> dict[str, float]:
    ladder = load_ladder("phase")
    return {size: float(ladder.rung(size).n_params) for size in SIZES}


def rule_of(results: Path) -> Rule:
    """The rule of the runs on the web alone and on facts alone."""
    folder = results / "phase-pure"
    table = RunTable.load(folder / "table")
    return Rule(
        web_of(table, "web", float(np.median(list(_sizes().values())))),
        storage_of(table, "facts", facts(PURE, folder / "data" / "tokenizer.json")),
    )


def _in_ratio(swept: Facts, n_params: float, rule: Rule) -> dict[str, Any]:
    def of(barrier: Any) -> dict[str, float]:
        outlook = Outlook(swept, n_params, TOKENS, rule, barrier)
        drawn = outlook.ratios(HALF) if barrier is PILOT else _optimum(outlook)
        return {key: float(value) for key, value in quantiles(drawn).items()}

    return {"n_params": n_params, "optimum": of(NONE), "cold": of(PILOT)}


def _optimum(outlook: Outlook) -> np.ndarray:
    """The rule's own ratios (draws,), without barrier or floor of exposures."""
    drawn = outlook.rule.drawn(400)
    found = drawn.ratio_for(outlook.facts, outlook.n_params, outlook.n_tokens, HALF)
    return np.nan_to_num(found, nan=1.0)


def _in_size(swept: Facts, ratio: float, rule: Rule) -> dict[str, Any]:
    outlook = Outlook(swept, 1e4, TOKENS, rule, PILOT)
    optimum = np.nan_to_num(rule.drawn(400).size_for(swept, ratio, TOKENS, HALF), nan=np.inf)
    said = {"optimum": quantiles(optimum), "cold": quantiles(outlook.sizes(ratio, HALF))}
    return {k: {q: _finite(value) for q, value in found.items()} for k, found in said.items()}


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _exponent(points: list[tuple[float, float]]) -> float | None:
    """The power of N by which the odds of critical ratios fall."""
    n, r = np.array([p for p in points if 0 < p[1] < 1]).reshape(-1, 2).T
    return float(np.polyfit(np.log(n), logit(r), 1)[0]) if len(n) > 1 else None


def measured(results: Path) -> dict[str, Any]:
    """Where half of the bits, and of the answers, are known in each sweep, beside what was said."""
    path = record.RESULTS / f"{PREDICTIONS}.json"
    said = json.loads(path.read_text(encoding="utf-8"))["figures"]
    bits = said["facts"]["bits"]
    rows = []
    for study, axis in (("phase-ratio", "ratio"), ("phase-size", "size")):
        folder = results / study / "table"
        if not folder.exists():
            continue
        for series in series_of(RunTable.load(folder), "facts", [axis]):
            rows.append(_row(study, series, bits, said))
    for study, arm in (("phase-warm", "cold"), ("phase-warm-start", "warm")):
        folder = results / study / "table"
        if folder.exists():
            rows += [
                {**_row(study, series, bits, said), "arm": arm}
                for series in series_of(RunTable.load(folder), "facts", ["ratio"])
            ]
    swept = [row for row in rows if row["study"] == "phase-ratio"]
    found = [(row["at"]["n_params"], row["half_of_bits"]) for row in swept]
    return {
        "sweeps": rows,
        "exponent": {
            "measured": _exponent([p for p in found if p[1] is not None]),
            "predicted": said["exponent"],
        },
    }


def _row(study: str, series: Series, bits: float, said: dict[str, Any]) -> dict[str, Any]:
    known = np.clip(1 - series.bits / bits, 0, 1)
    recall, change = find_change(series.scaled, series.recall), find_change(series.scaled, known)
    at, low, high = unscaled(series.axis, np.array([change.at, change.low, change.high]))
    half = half_known(series, known)
    told = _told(series, said)
    return {
        "study": study,
        "at": series.fixed,
        "runs": len(series.x),
        "recall_kind": recall.kind,
        "bits_kind": change.kind,
        "log10_evidence": [recall.log_evidence / np.log(10), change.log_evidence / np.log(10)],
        "change_at": [float(at), float(low), float(high)],
        "half_of_bits": half,
        "half_of_answers": half_known(series, series.recall),
        "predicted": told,
        "over_optimum": _over(series.axis, half, told and told["optimum"]["middle"]),
        "over_cold": _over(series.axis, half, told and told["cold"]["middle"]),
        "within_90": bool(told and half and _within(half, told["cold"])),
        "mean_known": means(series, known),
        "mean_recall": means(series, series.recall),
    }


def _told(series: Series, said: dict[str, Any]) -> dict[str, Any] | None:
    if series.axis == "size":
        return said["size"].get(f"{series.fixed['ratio']:g}")
    alike = [v for v in said["ratio"].values() if v["n_params"] == series.fixed["n_params"]]
    return alike[0] if alike else None


def means(series: Series, values: np.ndarray) -> dict[str, float]:
    """The mean of the values at each place of the axis, over seeds."""
    return {f"{x:g}": float(values[series.x == x].mean()) for x in sorted(set(series.x.tolist()))}


def half_known(series: Series, values: np.ndarray) -> float | None:
    """Where the values cross one half; None where they don't."""
    found = crossing(series, values, HALF)
    return float(found) if np.isfinite(found) else None


def _over(axis: str, found: float | None, told: float | None) -> float | None:
    """Measured over predicted: of odds for ratios, of sizes."""
    if found is None or not told or not told < 1e13 or (axis == "ratio" and told >= 1):
        return None
    return float(np.exp(scaled(axis, found) - scaled(axis, told)))


def _within(found: float, told: dict[str, Any]) -> bool:
    high = told["high"]
    return told["low"] is not None and told["low"] <= found and (high is None or found <= high)


Asked = Callable[[Path], dict[str, Any]]


def main(description: str, asked: Mapping[str, tuple[Asked, str]]) -> None:
    """Print and save, under its name, what is asked for by the first word of the command line."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("what", choices=asked)
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of studies")
    options = parser.parse_args()
    find, name = asked[options.what]
    found = find(options.results)
    print(json.dumps(found, indent=2))
    record.save(name, found)


if __name__ == "__main__":
    main(__doc__, {"predict": (predict, PREDICTIONS), "measured": (measured, "phases")})
