"""A task: what a model is asked, and how its answers are scored, here and in OLMES alike.

`dataset_name` says which dataset it asks about: a run that was trained on one names it itself. The
first of `metrics` leads. `Recall` would do without a line more; this adds a metric of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from olmo_mixlaw.evaluation.knowledge import RecallGeneration


class SquareRecall(RecallGeneration):
    """Squares by greedy generation: the whole number right, and its first digit."""

    dataset_name = "squares"
    metrics = ("exact_match", "first_digit")

    def score(
        self, document: Mapping[str, Any], answers: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        said = str(answers[0]["continuation"]).strip()
        right = said[:1] == document["answer"][0]
        return {**super().score(document, answers), "first_digit": int(right)}
