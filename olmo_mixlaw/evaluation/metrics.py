"""Metrics of one document from log-likelihoods, with the definitions that OLMES uses.

Per-character and per-byte figures count the whole continuation with its leading space. The
evaluators inside OLMo's trainer leave the space out, so theirs are given beside, as `in_loop`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

CHOICE_METRICS = (
    "acc_raw",
    "acc_per_token",
    "acc_per_char",
    "acc_per_byte",
    "acc_uncond",
    "sum_logits_corr",
    "logits_per_token_corr",
    "logits_per_char_corr",
    "bits_per_byte_corr",
)
IN_LOOP_METRICS = ("in_loop_len_norm", "in_loop_bpb")


def bits(log_likelihood: float) -> float:
    """Minus a natural log-likelihood, in bits."""
    return -log_likelihood / math.log(2)


def n_bytes(text: str) -> int:
    return max(len(text.encode("utf-8")), 1)


def choice_scores(
    continuations: Sequence[str], answers: Sequence[Mapping[str, Any]], label: int
) -> dict[str, Any]:
    """OLMES's multiple-choice metrics of one document.

    `answers[i]` has `sum_logits` (nats), `num_tokens` and perhaps `sum_logits_uncond` of
    `continuations[i]`; `label` is the index of the right one. Ties go to the first choice.
    """
    raw = [float(a["sum_logits"]) for a in answers]
    per_token = [s / max(a["num_tokens"], 1) for s, a in zip(raw, answers, strict=True)]
    per_char = [s / max(len(c), 1) for s, c in zip(raw, continuations, strict=True)]
    per_byte = [bits(s) / n_bytes(c) for s, c in zip(raw, continuations, strict=True)]
    bare = [s / max(len(c) - 1, 1) for s, c in zip(raw, continuations, strict=True)]
    best = {
        "raw": _argmax(raw),
        "per_token": _argmax(per_token),
        "per_char": _argmax(per_char),
        "per_byte": _argmax([-b for b in per_byte]),
    }
    scores: dict[str, Any] = {f"predicted_index_{k}": v for k, v in best.items()}
    scores["correct_choice"] = label
    scores |= {f"acc_{k}": int(v == label) for k, v in best.items()}
    if all("sum_logits_uncond" in a for a in answers):
        uncond = _argmax([s - a["sum_logits_uncond"] for s, a in zip(raw, answers, strict=True)])
        scores |= {"predicted_index_uncond": uncond, "acc_uncond": int(uncond == label)}
    return scores | {
        "sum_logits_corr": raw[label],
        "logits_per_token_corr": per_token[label],
        "logits_per_char_corr": per_char[label],
        "bits_per_byte_corr": per_byte[label],
        "in_loop_len_norm": int(_argmax(bare) == label),
        "in_loop_bpb": bits(raw[label]) / n_bytes(continuations[label][1:]),
    }


def _argmax(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)
