"""The curve from a loss to a score, and what guessing scores.

score = lo + (hi - lo) sigma(k (x0 - loss))        Bhagia et al. 2024 (arXiv 2412.04403)
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

# Prior on the logit of (hi - lo) / (1 - lo): a good model gets nearly everything right, and the
# ladder's small models can't tell.
TOP_PRIOR = (3.0, 0.5)
# Accuracy of a guess among a task's answers; `main_avg` is the mean over the ladder's tasks.
CHANCE = {
    "arc_challenge": 0.25,
    "arc_easy": 0.25,
    "boolq": 0.5,
    "csqa": 0.2,
    "hellaswag": 0.25,
    "main_avg": 0.3,
    "mmlu": 0.25,
    "openbookqa": 0.25,
    "piqa": 0.5,
    "socialiqa": 1 / 3,
    "winogrande": 0.5,
}


def chance_floor(task: str, known: Mapping[str, float] | None = None) -> float:
    """A guess's score on a task, by how its name starts; 0 for a task not known."""
    for name, value in (known or CHANCE).items():
        if task.startswith(name):
            return value
    return 0.0


def sigmoid_curve(
    log_k: np.ndarray, x0: np.ndarray, top: np.ndarray, floor: np.ndarray, loss: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, their slopes by the losses, and those by (log k, x0, top) on a last axis.

    `top` is the logit of (hi - lo) / (1 - lo). All arguments are arrays of shapes that broadcast.
    """
    k, part, room = np.exp(log_k), 1 / (1 + np.exp(-top)), 1 - floor
    z = np.clip(k * (x0 - loss), -60, 60)
    s = 1 / (1 + np.exp(-z))
    bend = room * part * s * (1 - s)
    by_theta = np.stack([bend * z, bend * k, room * part * (1 - part) * s], axis=-1)
    return floor + room * part * s, -bend * k, by_theta


def highest(top: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """hi, from the logit `top` and the floor."""
    return floor + (1 - floor) / (1 + np.exp(-top))
