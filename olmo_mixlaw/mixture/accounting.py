"""mixture.json: what a run was asked to see of each source, and what it saw.

Counted from the plan, not from logs, so it is exact for whatever step a run ended at.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from olmo_mixlaw.atomic import write_text
from olmo_mixlaw.mixture.opened import Mixture

FILE = "mixture.json"


def account(
    mixture: Mixture, n_steps: int, batch_size: int, sequence_length: int
) -> dict[str, Any]:
    """Asked and achieved tokens by source, over the run and over each stage of its schedule."""
    plan = mixture.plan
    seen = n_steps * batch_size
    stages = []
    borders = [b for b in plan.pieces.borders if b < seen] + [seen]
    for begin, end in pairwise(borders):
        stages.append(
            {
                "steps": [begin / batch_size, end / batch_size],
                "sources": _counts(mixture, begin, end, sequence_length),
            }
        )
    total = _counts(mixture, 0, seen, sequence_length)
    drawn = plan.counts(seen)
    for k, label in enumerate(mixture.labels):
        size = plan.sizes[k]
        entry = total[label]
        entry["uris"] = list(mixture.uris[k])
        entry["sequences_an_epoch"] = size
        entry["epochs"] = None if size is None else float(drawn[k] / size)
        entry["made_from"] = list(getattr(mixture.sources[k], "made_from", ()))
        facts = exposures(mixture, k, int(drawn[k]))
        if facts is not None:
            entry["exposures_a_fact"] = facts
    return {
        "steps": n_steps,
        "tokens": seen * sequence_length,
        "sequence_length": sequence_length,
        "global_train_batch_size": batch_size,
        "seed": plan.seed,
        "sources": total,
        "stages": stages,
    }


def _counts(mixture: Mixture, begin: int, end: int, length: int) -> dict[str, dict[str, Any]]:
    plan = mixture.plan
    asked = plan.pieces.asked(begin, end)
    achieved = plan.counts(end) - plan.counts(begin)
    n = end - begin
    return {
        label: {
            "asked_tokens": float(asked[k] * length),
            "achieved_tokens": int(achieved[k]) * length,
            "asked_ratio": float(asked[k] / n) if n else 0.0,
            "achieved_ratio": float(achieved[k] / n) if n else 0.0,
        }
        for k, label in enumerate(mixture.labels)
    }


def exposures(mixture: Mixture, source: int, n_sequences: int) -> dict[str, float] | None:
    """How often each fact of a knowledge source was met: mean, least and most.

    None for a source that has no facts, or whose facts are not fixed.
    """
    count = getattr(mixture.sources[source], "exposures", None)
    if count is None or n_sequences == 0:
        return None
    try:
        met = count(n_sequences)
    except (NotImplementedError, AssertionError):
        return None
    # The count ends with the last fact met; how many there are, the dataset says.
    known = getattr(getattr(mixture.sources[source], "dataset", None), "n", len(met))
    if not known:
        return None
    met = np.pad(met, (0, max(0, known - len(met))))
    return {
        "facts": len(met),
        "mean": float(met.mean()),
        "least": int(met.min()),
        "most": int(met.max()),
    }


def write(folder: Path, record: dict[str, Any]) -> Path:
    return write_text(folder / FILE, json.dumps(record, indent=1) + "\n")
