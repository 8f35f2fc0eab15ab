"""Join the scores of a study's finished runs into one RunTable."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from olmo_mixlaw.errors import DataError
from olmo_mixlaw.evaluation.outputs import read_scores
from olmo_mixlaw.runs import WEIGHT, RunTable
from olmo_mixlaw.study.plan import Run

DOMAIN_LOSS = "domain_loss:"
# Not the hashes: a model's depends on the path of its folder, a table should not.
SCORED = ["task", "metric", "value", "n_instances", "stderr"]


def collect(runs: list[Run], folders: dict[str, Path], domains: list[str]) -> RunTable:
    """The losses and scores of `runs`, read from each run's `eval` folder.

    A run's `n_params` leave out the embeddings; its loss on a domain is the held-out one, in
    nats a token. Raises `DataError` for a run that lacks a domain.
    """
    losses, scores = [], []
    for run in sorted(runs, key=lambda r: r.run_id):
        about = {
            "run_id": run.run_id,
            "n_params": run.rung.n_params,
            "n_active": run.rung.n_active,
            "n_tokens": run.n_tokens,
        }
        weights = {WEIGHT + domain: run.ratios.get(domain, 0.0) for domain in domains}
        read = read_scores(folders[run.run_id] / "eval")
        task, metric = read["task"], read["metric"]
        for domain in domains:
            found = read[(task == DOMAIN_LOSS + domain) & (metric == "loss")]
            if found.empty:
                raise DataError(f"{folders[run.run_id] / 'eval'}: no loss on domain {domain!r}")
            losses.append(
                {
                    **about,
                    "seed": run.seed,
                    "mixture": run.mixture,
                    **weights,
                    "domain": domain,
                    "loss": float(found["value"].iloc[0]),
                }
            )
        scores += [{**about, **row} for row in read[SCORED].to_dict("records")]
    return RunTable(pd.DataFrame(losses), pd.DataFrame(scores), source="study")
