"""Recall of counted facts: what share of a dataset's questions does a model answer?

No generation is needed: greedy decoding gives the answer exactly when every teacher-forced
argmax over the answer's tokens is right. The answer's bits are logged beside it, because a
transition that shows in accuracy alone may be one of the metric (arXiv 2304.15004).
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from olmo_mixlaw.datasets.base import Question
from olmo_mixlaw.errors import ConfigError, DataError, unknown_name
from olmo_mixlaw.evaluation.metrics import CHOICE_METRICS, bits, choice_scores, n_bytes
from olmo_mixlaw.evaluation.tasks import Kind, Request, Task, means

GENERATION_TOKENS = 32
SOLUTION_TOKENS = 512
FINAL = "Final Answer:"
STRATA = {"attribute": "", "group": "group_"}  # what scores are grouped by -> prefix of the metric
STOP = ("\n", ".")
CHOICES = 10  # offered where nothing else is said; a pool may hold thousands


class Recall(Task):
    """Teacher-forced exact match of each answer, in all, by attribute and by group.

    Metrics: `exact_match` (share), `answer_bits` (mean bits of the whole answer),
    `bits_per_byte_corr` (of " " + answer), and `exact_match_<attribute>`,
    `answer_bits_<attribute>`, `exact_match_group_<group>` where there are several.
    """

    metrics: ClassVar[tuple[str, ...]] = (
        "exact_match",
        "answer_bits",
        "bits_per_byte_corr",
        "sum_logits_corr",
    )
    parameters: ClassVar[tuple[str, ...]] = ("dataset", "attribute", "group", "max_entities")

    def questions(self) -> Iterable[Question]:
        """The questions of the dataset."""
        from olmo_mixlaw.datasets import open_dataset

        uri = self.dataset_uri()
        dataset: Any = open_dataset(uri, where=f"{self.name}: dataset")
        most = self.parameter("max_entities")
        questions = dataset.questions() if most is None else dataset.questions(int(most))
        if not questions:
            raise ConfigError(f"{self.name}: dataset {uri} asks no questions")
        return questions

    def items(self) -> Sequence[Question]:
        questions = list(self.questions())
        for key in ("attribute", "group"):
            wanted = self.parameter(key)
            if wanted is not None:
                known = {getattr(q, key) for q in questions}
                if wanted not in known:
                    raise unknown_name(key, wanted, known, f"{self.name}: context_kwargs")
                questions = [q for q in questions if getattr(q, key) == wanted]
        return questions

    def document(self, item: Question) -> dict[str, Any]:
        return {
            "id": item.id,
            "query": item.prompt,
            "answer": item.answer,
            "attribute": item.attribute,
            "group": item.group,
            "popularity": item.popularity,
            "final": item.final,
        }

    def requests(self, document: Mapping[str, Any]) -> list[Request]:
        return [Request(document["query"], " " + document["answer"])]

    def score(
        self, document: Mapping[str, Any], answers: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        total = float(answers[0]["sum_logits"])
        return {
            "exact_match": int(answers[0]["is_greedy"]),
            "answer_bits": bits(total),
            "bits_per_byte_corr": bits(total) / n_bytes(" " + document["answer"]),
            "sum_logits_corr": total,
            **stratum(document),
        }

    def aggregate(
        self, documents: Sequence[Mapping[str, Any]], scores: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        result = means(scores, self.metrics)
        broken_down = [m for m in ("exact_match", "acc_raw", "answer_bits") if m in result]
        for key, prefix in STRATA.items():
            rows: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
            for score in scores:
                rows[str(score[key])].append(score)
            if len(rows) > 1:
                for value in sorted(rows):
                    for metric, mean in means(rows[value], broken_down).items():
                        result[f"{metric}_{prefix}{value or 'none'}"] = mean
        return result


class RecallBits(Recall):
    """The same, led by the bits a byte of the right answer."""

    metrics: ClassVar[tuple[str, ...]] = (
        "bits_per_byte_corr",
        "answer_bits",
        "exact_match",
        "sum_logits_corr",
    )


class RecallChoice(Recall):
    """The right answer among the question's choices, ranked by likelihood.

    Of more than `n_choices` choices, that many are offered: the answer and others drawn by the
    question's id. `acc_raw` compares whole likelihoods; the other metrics are OLMES's for
    multiple choice.
    """

    metrics: ClassVar[tuple[str, ...]] = CHOICE_METRICS
    parameters: ClassVar[tuple[str, ...]] = (*Recall.parameters, "n_choices")

    def document(self, item: Question) -> dict[str, Any]:
        if len(item.choices) < 2 or item.answer not in item.choices:
            raise DataError(f"{self.name}: question {item.id!r} has no choices with its answer")
        choices, gold = _offer(item, int(self.parameter("n_choices", CHOICES)))
        return {**super().document(item), "choices": choices, "gold": gold}

    def requests(self, document: Mapping[str, Any]) -> list[Request]:
        return [Request(document["query"], " " + choice) for choice in document["choices"]]

    def score(
        self, document: Mapping[str, Any], answers: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        continuations = [" " + choice for choice in document["choices"]]
        return {**choice_scores(continuations, answers, document["gold"]), **stratum(document)}


class RecallGeneration(Recall):
    """Greedy generation that must begin with the answer; the slow way to `exact_match`."""

    kind: ClassVar[Kind] = "generate_until"
    metrics: ClassVar[tuple[str, ...]] = ("exact_match",)

    def requests(self, document: Mapping[str, Any]) -> list[Request]:
        stop = tuple(s for s in STOP if s not in document["answer"])
        tokens = int(self.config.generation_kwargs.get("max_gen_toks") or GENERATION_TOKENS)
        return [
            Request(document["query"], " " + document["answer"], "generate_until", stop, tokens)
        ]

    def score(
        self, document: Mapping[str, Any], answers: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        said = str(answers[0]["continuation"]).strip()
        return {"exact_match": int(begins_with(said, document["answer"])), **stratum(document)}


class Solution(RecallGeneration):
    """Problems that are worked out step by step: what follows the last `Final Answer:` counts.

    The solution is generated greedily, so that a model may find another way to the answer.
    """

    def requests(self, document: Mapping[str, Any]) -> list[Request]:
        tokens = int(self.config.generation_kwargs.get("max_gen_toks") or SOLUTION_TOKENS)
        return [
            Request(document["query"], " " + document["answer"], "generate_until", ("\n",), tokens)
        ]

    def score(
        self, document: Mapping[str, Any], answers: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        _, marked, said = str(answers[0]["continuation"]).rpartition(FINAL)
        right = bool(marked) and begins_with(said.strip(), document["final"])
        return {"exact_match": int(right), **stratum(document)}


def begins_with(said: str, answer: str) -> bool:
    """Whether a text begins with `answer`, and not with a longer word or number."""
    rest = said.removeprefix(answer)
    return said.startswith(answer) and not re.match(r"\w|[/.,]\d", rest)


def stratum(document: Mapping[str, Any]) -> dict[str, str]:
    """What a document's scores are grouped by."""
    return {key: str(document.get(key) or "") for key in STRATA}


def _offer(question: Question, count: int) -> tuple[list[str], int]:
    """`count` of the choices, the answer among them, and the answer's place."""
    choices, answer = question.choices, question.answer
    if len(choices) <= count:
        return list(choices), choices.index(answer)
    draw = random.Random(question.id)
    drawn = [choices[i] for i in draw.sample(range(len(choices)), count)]
    others = [choice for choice in drawn if choice != answer][: count - 1]
    place = draw.randrange(count)
    return [*others[:place], answer, *others[place:]], place
