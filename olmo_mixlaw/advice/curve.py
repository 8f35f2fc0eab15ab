"""The curve from a loss to a score, and what guessing scores.

score = lo + (hi - lo) sigma(k (x0 - loss))        Bhagia et al. 2024 (arXiv 2412.04403)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from olmo_mixlaw.errors import DataError

# Prior on the logit of (hi - lo) / (1 - lo): a good model gets nearly everything right, and the
# ladder's small models can't tell.
TOP_PRIOR = (3.0, 0.5)
# Accuracy of a guess among a task's answers, under the names of OLMES, OLMo's in-loop evaluators,
# the LM harness and lighteval; `main_avg` is the mean over the ladder's tasks.
CHANCE: dict[str, float] = {
    "anli": 1 / 3,
    "arc": 0.25,
    "arc_challenge": 0.25,
    "arc_easy": 0.25,
    "blimp": 0.5,
    "boolq": 0.5,
    "cb": 1 / 3,
    "commonsense_qa": 0.2,
    "commonsenseqa": 0.2,
    "copa": 0.5,
    "csqa": 0.2,
    "gpqa": 0.25,
    "hellaswag": 0.25,
    "logiqa": 0.25,
    "main_avg": 0.3,
    "mathqa": 0.2,
    "medmcqa": 0.25,
    "mmlu": 0.25,
    "mnli": 1 / 3,
    "mrpc": 0.5,
    "openbookqa": 0.25,
    "piqa": 0.5,
    "pubmedqa": 1 / 3,
    "qnli": 0.5,
    "qqp": 0.5,
    "race": 0.25,
    "rte": 0.5,
    "sciq": 0.25,
    "siqa": 1 / 3,
    "social_i_qa": 1 / 3,
    "social_iqa": 1 / 3,
    "socialiqa": 1 / 3,
    "sst2": 0.5,
    "storycloze": 0.5,
    "swag": 0.25,
    "wic": 0.5,
    "winogrande": 0.5,
    "wnli": 0.5,
    "wsc": 0.5,
    "wsc273": 0.5,
    "xcopa": 0.5,
    "xstorycloze": 0.5,
    "xwinograd": 0.5,
}
# Their numbers of choices vary, so that the chance must be said, whatever their names begin with.
VARIES = ("mmlu_pro", "truthfulqa")
# Tasks whose answer is written, not chosen: a guess is never right. Their variants among choices
# (`:mc`, `:rc`) have another chance, which must be said.
WRITTEN = (
    "bio_recall",
    "codex_humaneval",
    "codex_humanevalplus",
    "coqa",
    "drop",
    "fact_recall",
    "gsm8k",
    "humaneval",
    "jeopardy",
    "lambada",
    "max_over_n",
    "mbpp",
    "minerva_math",
    "mt_mbpp",
    "naturalqs",
    "nq_open",
    "slope",
    "squad",
    "triviaqa",
    "webqs",
)
CHOSEN = re.compile(r"_(mc|rc|gen2mc)(_|$)")


def chance_floor(task: str, known: Mapping[str, float] | None = None) -> float:
    """A guess's score on a task, by the longest name that its own begins with.

    `known` goes before what is known of tasks here. Raises `DataError` for a task that neither
    knows: a floor of 0 would be a guess of ours.
    """
    return float(chance_floors([task], known)[0])


def chance_floors(tasks: Sequence[str], known: Mapping[str, float] | None = None) -> np.ndarray:
    """The same for T tasks, (T,); the error names all that aren't known."""
    # What repeats our table isn't the user's: a name of ours ends at a word, `copa` is no `copal`.
    said = {k: v for k, v in (known or {}).items() if k not in CHANCE or CHANCE[k] != v}
    found = {task: _said(task, said) for task in tasks}
    missing = [task for task, value in found.items() if value is None]
    if missing:
        raise DataError(
            f"tasks whose score by chance isn't known: {', '.join(missing)}; say each one's, or "
            f"that of all whose names begin alike, with --chance {missing[0]}=0.25 (0 where "
            "answers are written freely)"
        )
    wrong = [(task, value) for task, value in found.items() if not 0 <= (value or 0) < 1]
    if wrong:
        task, value = wrong[0]
        raise DataError(f"chance of {task}: {value}: expected a share of 1, from 0 to below 1")
    return np.array([found[task] for task in tasks], dtype=float)


def _said(task: str, said: Mapping[str, float]) -> float | None:
    own = [name for name in said if task.startswith(name)]
    if own:
        return said[max(own, key=len)]
    plain = _plain(task)
    named = [name for name in (*CHANCE, *VARIES, *WRITTEN) if f"{plain}_".startswith(f"{name}_")]
    if not named:
        return None
    name = max(named, key=len)
    if name in CHANCE:
        return CHANCE[name]
    return None if name in VARIES or CHOSEN.search(plain) else 0.0


def _plain(task: str) -> str:
    """A task's name in words joined by `_`, without lighteval's suite and number of shots."""
    parts = task.split("|")
    core = parts[1] if len(parts) > 2 else parts[0]
    return re.sub(r"[^a-z0-9]+", "_", core.lower()).strip("_")


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
