"""Join the scores of a study's finished runs into one RunTable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from olmo_mixlaw import schema
from olmo_mixlaw.errors import DataError
from olmo_mixlaw.evaluation.outputs import read_scores
from olmo_mixlaw.mixture.accounting import FILE
from olmo_mixlaw.runs import WEIGHT, RunTable
from olmo_mixlaw.runs.available import AVAILABLE
from olmo_mixlaw.study.plan import Run
from olmo_mixlaw.study.settings import StudyConfig
from olmo_mixlaw.study.worker import CHECKPOINTS

DOMAIN_LOSS = "domain_loss:"
# Not the hashes: a model's depends on the path of its folder, a table should not.
SCORED = ["task", "metric", "value", "n_instances", "stderr"]


def available(record: Path, domains: list[str]) -> dict[str, float]:
    """The tokens that a run had of each domain, by column; NaN for one without end or unused.

    Read from what the run saw (`mixture.json`); nothing where it left none.
    """
    if not record.is_file():
        return {}
    said = schema.read_mapping(record)  # JSON is YAML
    tokens = {}
    for domain in domains:
        sequences = said["sources"].get(domain, {}).get("sequences_an_epoch")
        known = sequences is not None
        tokens[AVAILABLE + domain] = float(sequences * said["sequence_length"]) if known else np.nan
    return tokens


def target_tokens(study: StudyConfig, table: RunTable) -> dict[str, float] | None:
    """The tokens that domains have for the study's target; None where no run has counted any.

    They are the most that a run had, scaled to the target where runs are cut to repeat as it will.
    """
    design = table.design()
    if design.available is None:
        return None
    longer = np.maximum(study.target.tokens / design.n_tokens, 1.0) if study.match_repeats else 1.0
    tokens = design.available * np.reshape(longer, (-1, 1))
    most = np.where(np.isfinite(tokens), tokens, 0.0).max(0)
    return {d: float(n) for d, n in zip(design.domains, most, strict=True) if n > 0} or None


def collect(runs: list[Run], folders: dict[str, Path], domains: list[str]) -> RunTable:
    """The losses and scores of `runs`, read from each run's `eval` folder.

    A run's `n_params` leave out the embeddings, which are `n_embedding`; its loss on a domain is
    the held-out one, in nats a token; `available_<domain>` are the tokens that it had of each.
    Raises `DataError` for a run that lacks a domain.
    """
    losses, scores = [], []
    for run in sorted(runs, key=lambda r: r.run_id):
        about = {
            "run_id": run.run_id,
            "n_params": run.rung.n_params,
            "n_active": run.rung.n_active,
            "n_embedding": run.rung.n_embedding,
            "n_tokens": run.n_tokens,
        }
        weights = {WEIGHT + domain: run.ratios.get(domain, 0.0) for domain in domains}
        counted = available(folders[run.run_id] / CHECKPOINTS / FILE, domains)
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
                    **counted,
                    "domain": domain,
                    "loss": float(found["value"].iloc[0]),
                }
            )
        scores += [{**about, **row} for row in read[SCORED].to_dict("records")]
    return RunTable(pd.DataFrame(losses), pd.DataFrame(scores), source="study")
