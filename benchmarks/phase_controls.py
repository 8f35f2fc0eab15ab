"""More tokens, fewer facts, tuples beside sentences: predicted from the pure runs, then measured.

python benchmarks/phase_controls.py predict     from results/phase-pure, before the studies are run
python benchmarks/phase_controls.py measured    phase-horizon, subsample and compact beside it

The rule is that of `phases.py`: `predict` looks at no study and `measured` fits nothing to one.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import phases
import record

from olmo_mixlaw.advice.knowledge import Facts, Outlook, Rule, facts_of
from olmo_mixlaw.advice.knowledge.outlook import quantiles
from olmo_mixlaw.advice.knowledge.sweep import BITS, RECALL, series_of
from olmo_mixlaw.models.ladder import load_ladder
from olmo_mixlaw.runs import RunTable

PREDICTED = "phase_controls_predicted"
HORIZON = (2_000_000, 4_000_000, 8_000_000, 16_000_000)  # tokens
PEOPLE = "mixlaw:biography?n=64&seed=1&templates=2&pools=small"
# By mixture: the share of the facts that is kept, the tokens of tuples for each of sentences.
SHARES = {"part025": 0.25, "part050": 0.5, "part075": 0.75, "part100": 1.0}
TAUS = {"mix000": 0.0, "mix010": 0.1, "mix030": 0.3, "mix100": 1.0}


def predict(results: Path) -> dict[str, Any]:
    """Part of all facts known at each setting (mean and 90 %), and half-known ratios by tokens."""
    rule = phases.rule_of(results)
    tokenizer = results / "phase-pure" / "data" / "tokenizer.json"
    swept = phases.facts(phases.SWEPT, tokenizer)
    people = facts_of(PEOPLE, tokenizer=str(tokenizer))
    phase, dense = load_ladder("phase"), load_ladder("micro-dense")
    n_params = float(phase.rung("w24").n_params)
    whole = Outlook(swept, n_params, 8e6, rule)
    mixed = Outlook(people, float(dense.rung("w32").n_params), 4e6, rule)
    return {
        "horizon": {str(t): _ratios(swept, n_params, t, rule) for t in HORIZON},
        "subsample": {
            name: _known(replace(whole, facts=swept.subsampled(share)), 0.2, share)
            for name, share in SHARES.items()
        },
        "compact": {
            name: _known(replace(mixed, facts=people.compacted(tau)), 0.15)
            for name, tau in TAUS.items()
        },
        "people": {"n": people.n, "bits": people.bits, "tokens": people.tokens},
    }


def _ratios(swept: Facts, n_params: float, n_tokens: float, rule: Rule) -> dict[str, Any]:
    found = quantiles(Outlook(swept, n_params, n_tokens, rule).ratios(phases.HALF))
    return {key: float(value) for key, value in found.items()}


def _known(outlook: Outlook, ratio: float, share: float = 1.0) -> dict[str, float]:
    part = share * outlook.known_part(ratio)
    low, high = np.quantile(part, (0.05, 0.95))
    exposures = float(outlook.facts.exposures(ratio, outlook.n_tokens))
    return {
        "mean": float(part.mean()),
        "low": float(low),
        "high": float(high),
        "exposures": exposures,
    }


def measured(results: Path) -> dict[str, Any]:
    """Recall and bits of each study that was run, beside what was said."""
    said = json.loads((record.RESULTS / f"{PREDICTED}.json").read_text(encoding="utf-8"))["figures"]
    found: dict[str, Any] = {}
    if (folder := results / "phase-horizon" / "table").exists():
        found["horizon"] = _horizon(RunTable.load(folder), said["horizon"])
    for study, settings in (("subsample", SHARES), ("compact", TAUS)):
        if (folder := results / study / "table").exists():
            found[study] = _by_mixture(RunTable.load(folder), settings, said[study])
    return found


def _horizon(table: RunTable, said: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for series in series_of(table, "facts", ["ratio"]):
        tokens = series.fixed["n_tokens"]
        asked = min(said, key=lambda t: abs(float(t) - tokens))
        rows.append(
            {
                "at": series.fixed,
                "half_of_answers": phases.half_known(series, series.recall),
                "predicted": said[asked],
                "mean_recall": phases.means(series, series.recall),
                "recalls": {f"{x:g}": series.recall[series.x == x].tolist() for x in set(series.x)},
            }
        )
    return sorted(rows, key=lambda row: row["at"]["n_tokens"])


def _by_mixture(
    table: RunTable, settings: dict[str, float], said: dict[str, Any]
) -> list[dict[str, Any]]:
    scores = table.scores
    assert scores is not None
    runs = table.losses.drop_duplicates("run_id").set_index("run_id")["mixture"]
    rows = []
    for mixture, setting in settings.items():
        mine = scores[scores["run_id"].map(runs) == mixture]
        values = {
            # Every domain asks the same questions of a run.
            metric: mine[mine["metric"] == metric].groupby("run_id")["value"].first().tolist()
            for metric in (RECALL, BITS)
        }
        rows.append(
            {
                "mixture": mixture,
                "setting": setting,
                "recall": values[RECALL],
                "mean_recall": float(np.mean(values[RECALL])) if values[RECALL] else None,
                "mean_bits_left": float(np.mean(values[BITS])) if values[BITS] else None,
                "predicted": said[mixture],
            }
        )
    return rows


if __name__ == "__main__":
    asked = {"predict": (predict, PREDICTED), "measured": (measured, "phase_controls")}
    phases.main(__doc__, asked)
