"""metrics.csv of a run on a mixture, whichever trainer: what each row says of the sources.

A trainer sums losses (K), in nats, and predicted tokens (K) by source, and hands the sums over;
ratios, tokens and epochs come from the plan, exact for whatever step.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from olmo_mixlaw.mixture.opened import Mixture

_FIRST = ("step", "tokens", "loss", "learning_rate", "grad_norm")
_OF_SOURCE = ("loss", "tokens", "ratio", "epochs")


def columns(mixture: Mixture) -> list[str]:
    """The columns of metrics.csv that every trainer writes."""
    return [*_FIRST, *(f"{kind}_{label}" for kind in _OF_SOURCE for label in mixture.labels)]


def row(
    mixture: Mixture, losses: np.ndarray, predicted: np.ndarray, examples: int, length: int
) -> dict[str, Any]:
    """`loss` and what `_OF_SOURCE` names, after `examples` sequences of `length` tokens.

    `losses` (K) and `predicted` (K) are the sums since the row before.
    """
    plan = mixture.plan
    counts = plan.counts(examples)
    total = float(predicted.sum())
    found: dict[str, Any] = {"loss": float(losses.sum()) / total if total else None}
    for k, label in enumerate(mixture.labels):
        found[f"loss_{label}"] = float(losses[k] / predicted[k]) if predicted[k] else None
        found[f"tokens_{label}"] = int(counts[k]) * length
        found[f"ratio_{label}"] = float(counts[k] / counts.sum())
        size = plan.sizes[k]
        found[f"epochs_{label}"] = None if size is None else float(counts[k] / size)
    return found


def shown(
    mixture: Mixture, losses: np.ndarray, predicted: np.ndarray, examples: int, length: int
) -> dict[str, float]:
    """What consoles and W&B show, for sources met by then; arguments as those of `row`."""
    plan = mixture.plan
    counts = plan.counts(examples)
    found: dict[str, float] = {}
    for k, label in enumerate(mixture.labels):
        if not counts[k]:
            continue
        found[f"mixture/{label}/ratio"] = float(counts[k] / counts.sum())
        found[f"mixture/{label}/tokens"] = float(counts[k] * length)
        size = plan.sizes[k]
        if size is not None:
            found[f"mixture/{label}/epochs"] = float(counts[k] / size)
        if predicted[k]:
            found[f"mixture/{label}/CrossEntropyLoss"] = float(losses[k] / predicted[k])
    return found
