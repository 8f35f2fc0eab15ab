"""Loss on held-out text of a domain, in nats a token and in bits a byte.

`domain_loss` reads text as training does: documents joined by the end-of-text token and cut
into sequences of the model's length, so that its loss is the one that the laws are about.
`domain_loss:documents` scores each document by itself, as OLMES's rolling perplexity does.
Bits a byte are weighted by bytes: a ratio of sums, never a mean of ratios.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from olmo_mixlaw.errors import DataError
from olmo_mixlaw.evaluation.metrics import bits
from olmo_mixlaw.evaluation.tasks import Kind, Request, Task, TextTask

MAX_DOCUMENTS = 200


class HeldOut(Task):
    """A task about the held-out text of one source, or of every one that the model read."""

    every_source: ClassVar[bool] = True

    def texts(self) -> Iterator[str]:
        """The held-out documents, in the dataset's order."""
        from olmo_mixlaw.datasets import open_dataset

        uri = self.dataset_uri()
        try:
            return open_dataset(uri, where=f"{self.name}: dataset").heldout()
        except NotImplementedError as error:
            raise DataError(f"{self.name}: {error}") from None


class DomainLoss(HeldOut, TextTask):
    """`bits_per_byte` and `loss` over whole sequences, up to `max_tokens` tokens.

    A sequence of T tokens gives T - 1 predictions, the end-of-text token among them as in
    training; that token has no bytes and stays out of `bits_per_byte`.
    """

    metrics: ClassVar[tuple[str, ...]] = ("bits_per_byte", "loss", "n_tokens", "n_bytes")
    parameters: ClassVar[tuple[str, ...]] = ("dataset", "domain", *TextTask.parameters)

    def score(
        self, document: Mapping[str, Any], answers: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        answer = answers[0]
        return {
            "bits_per_byte": bits(answer["text_logits"]) / max(answer["num_bytes"], 1),
            "loss": -answer["sum_logits"] / answer["num_tokens"],
            "n_tokens": answer["num_tokens"],
            "n_bytes": answer["num_bytes"],
            "sum_logits": answer["sum_logits"],
            "text_logits": answer["text_logits"],
        }

    def aggregate(
        self, documents: Sequence[Mapping[str, Any]], scores: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        total = {
            key: sum(float(row[key]) for row in scores)
            for key in ("sum_logits", "text_logits", "n_tokens", "n_bytes")
        }
        return {
            "bits_per_byte": bits(total["text_logits"]) / max(total["n_bytes"], 1),
            "loss": -total["sum_logits"] / total["n_tokens"],
            "n_tokens": total["n_tokens"],
            "n_bytes": total["n_bytes"],
        }


class DocumentLoss(HeldOut):
    """`bits_per_byte` of each document after the end-of-text token, weighted by bytes.

    A document longer than the model's context is cut into windows that follow each other.
    There is no loss a token here: OLMES's count of tokens is not one to rely on.
    """

    kind: ClassVar[Kind] = "loglikelihood_rolling"
    metrics: ClassVar[tuple[str, ...]] = ("bits_per_byte", "n_bytes")
    parameters: ClassVar[tuple[str, ...]] = ("dataset", "domain", "max_documents")

    def items(self) -> Sequence[dict[str, Any]]:
        count = int(self.parameter("max_documents", MAX_DOCUMENTS))
        texts = itertools.islice(self.texts(), count)
        return [{"id": str(i), "query": text} for i, text in enumerate(texts) if text]

    def requests(self, document: Mapping[str, Any]) -> list[Request]:
        return [Request(document["query"], kind="loglikelihood_rolling")]

    def score(
        self, document: Mapping[str, Any], answers: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        size = len(document["query"].encode("utf-8"))
        total = float(answers[0]["sum_logits"])
        return {"bits_per_byte": bits(total) / size, "n_bytes": size, "sum_logits": total}

    def aggregate(
        self, documents: Sequence[Mapping[str, Any]], scores: Sequence[Mapping[str, Any]]
    ) -> dict[str, float]:
        size = sum(row["n_bytes"] for row in scores)
        return {
            "bits_per_byte": bits(sum(row["sum_logits"] for row in scores)) / size,
            "n_bytes": float(size),
        }
