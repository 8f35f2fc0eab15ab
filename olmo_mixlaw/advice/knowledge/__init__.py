"""Will it be learned? Facts in a mixture, predicted before they are measured, and detected after.

Below a critical ratio or size a model learns almost none of a set of facts, above it nearly all
(arXiv 2505.18091). `plan` predicts from pure runs alone; `detect` judges sweeps that were run.
"""

from olmo_mixlaw.advice.knowledge.barrier import Barrier, calibrated
from olmo_mixlaw.advice.knowledge.detect import Detected, Transition, detect
from olmo_mixlaw.advice.knowledge.facts import Facts, facts_of
from olmo_mixlaw.advice.knowledge.learner import FactSet, TextSet, allocate, fact_set
from olmo_mixlaw.advice.knowledge.outlook import Outlook, least_ratio
from olmo_mixlaw.advice.knowledge.plan import KnowledgePlan, plan
from olmo_mixlaw.advice.knowledge.popularity import size_from_threshold, threshold_popularity
from olmo_mixlaw.advice.knowledge.rule import Rule
from olmo_mixlaw.advice.knowledge.storage import fit_storage, storage_of
from olmo_mixlaw.advice.knowledge.web import fit_web, web_of

__all__ = [
    "Barrier",
    "Detected",
    "FactSet",
    "Facts",
    "KnowledgePlan",
    "Outlook",
    "Rule",
    "TextSet",
    "Transition",
    "allocate",
    "calibrated",
    "detect",
    "fact_set",
    "facts_of",
    "fit_storage",
    "fit_web",
    "least_ratio",
    "plan",
    "size_from_threshold",
    "storage_of",
    "threshold_popularity",
    "web_of",
]
