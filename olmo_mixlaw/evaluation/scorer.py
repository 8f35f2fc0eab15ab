"""Log-likelihoods of many continuations, quickly and exactly.

Requests are read in the batches that `batches` plans (what they share once, where that pays),
and only the states that a continuation's tokens follow are turned into probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from olmo_mixlaw.errors import CheckpointError, DataError
from olmo_mixlaw.evaluation.batches import Batch, Costs, Encoded, plan
from olmo_mixlaw.evaluation.chunks import Chunks
from olmo_mixlaw.evaluation.head import score_tokens
from olmo_mixlaw.evaluation.language_model import LanguageModel, Reads
from olmo_mixlaw.evaluation.ranks import ALONE, Ranks

if TYPE_CHECKING:
    import torch

TOKENS_AT_ONCE = 16384
LEAST_TOKENS = 256  # read at once even by a wide model
# Floats of states at once. On a CPU, what is larger than a cache is slow; a GPU wants much.
STATE_FLOATS = {"cpu": 2**19, "gpu": 2**25}
CACHE_FLOATS = 2**26  # of keys and values: 256 MiB in fp32
# One more call costs the dispatch of its layers (as FLOPs done meanwhile) and reads all weights
# again (as tokens that take as long).
CALL_FLOPS = {"cpu": 6e6, "gpu": 2e10}
CALL_TOKENS = {"cpu": 16, "gpu": 128}


@dataclass(frozen=True)
class Likelihood:
    """What a model says of one continuation: nats, tokens scored, and whether each was likeliest.

    `num_tokens_all` counts the tokens that the model read as well.
    """

    sum_logits: float
    num_tokens: int
    num_tokens_all: int
    is_greedy: bool

    def as_dict(self) -> dict[str, Any]:
        return {
            "sum_logits": self.sum_logits,
            "num_tokens": self.num_tokens,
            "num_tokens_all": self.num_tokens_all,
            "is_greedy": self.is_greedy,
        }


def encode_pairs(
    model: Reads, pairs: Sequence[tuple[str, str]], *, strict: bool, truncate: bool, where: str
) -> list[Encoded]:
    """Tokens of each (context, continuation): tok(context + continuation) less tok(context).

    Spaces that end a context move to its continuation, and an empty context becomes the model's
    prefix token, as in OLMES. With `strict`, raises `CheckpointError` for a tokenizer that
    reads the context otherwise once something follows it. A sequence longer than the model's
    context raises `DataError`, or with `truncate` loses its beginning.
    """
    split = [_move_spaces(context, continuation) for context, continuation in pairs]
    contexts = model.encode([context for context, _ in split])
    wholes = model.encode([context + continuation for context, continuation in split])
    encoded = []
    for (context, continuation), head, whole in zip(split, contexts, wholes, strict=True):
        if strict and whole[: len(head)] != head:
            raise CheckpointError(
                f"{where}: the tokenizer breaks prefix stability: it reads {context[-40:]!r} "
                f"otherwise once {continuation!r} follows, so the answer's tokens are not defined"
            )
        tail = whole[len(head) :]
        if not tail:
            raise DataError(f"{where}: {continuation!r} after {context[-40:]!r} has no tokens")
        head = head or [model.prefix_token_id]
        excess = len(head) + len(tail) - 1 - model.max_length
        if excess > 0:
            if not truncate or excess >= len(head):
                mend = (
                    "; truncation from the left (evaluate --truncate) keeps the last of them"
                    if excess < len(head)
                    else ", and the continuation alone fills it"
                )
                raise DataError(
                    f"{where}: {len(head)} + {len(tail)} tokens ({context[-40:]!r} ...) are more "
                    f"than the model's context of {model.max_length}{mend}"
                )
            head = head[excess:]
        encoded.append(Encoded(tuple(head), tuple(tail)))
    return encoded


def _move_spaces(context: str, continuation: str) -> tuple[str, str]:
    bare = context.rstrip()
    return bare, context[len(bare) :] + continuation


def loglikelihoods(
    model: LanguageModel, requests: Sequence[Encoded], ranks: Ranks = ALONE
) -> list[Likelihood]:
    """The likelihood of every continuation, in the order of `requests`."""
    batches = plan(requests, costs_of(model))
    found = ranks.gather(lambda: _score(model, requests, ranks.share(batches)))
    return [found[i] for i in range(len(requests))]


def costs_of(model: LanguageModel) -> Costs:
    """What a call of this model costs, and how much it reads in one."""
    place = "cpu" if model.device.type == "cpu" else "gpu"
    floats = model.width if model.head is not None else model.vocab_size
    dispatch = CALL_FLOPS[place] * model.n_layers / (2 * model.body)
    return Costs(
        call=round(dispatch) + CALL_TOKENS[place],
        batch=min(TOKENS_AT_ONCE, max(LEAST_TOKENS, STATE_FLOATS[place] // floats)),
        cached=max(1, CACHE_FLOATS // (2 * model.width * model.n_layers)),
    )


def _score(
    model: LanguageModel, requests: Sequence[Encoded], batches: Sequence[Batch]
) -> dict[int, Likelihood]:
    import torch

    results: dict[int, Likelihood] = {}
    prefix: tuple[int, ...] = ()
    cache = None
    with torch.inference_mode():
        for batch in batches:
            if batch.prefix != prefix:
                prefix, cache = batch.prefix, None
                if prefix:
                    ids = torch.tensor([prefix], device=model.device)
                    _, cache = model.read(ids, keep_cache=True)
            read = _read_split if batch.split else _read_whole
            states, starts = read(model, requests, batch, cache)
            _collect(model, requests, batch.requests, states, starts, results)
    return results


def _read_whole(
    model: LanguageModel, requests: Sequence[Encoded], batch: Batch, prefix: Any
) -> tuple[torch.Tensor, list[int]]:
    """States (B, T, d), and the position in each row that its continuation's first follows."""
    shared = len(batch.prefix)
    chosen = [requests[i] for i in batch.requests]
    ids = _padded([(r.context + r.continuation)[shared:-1] for r in chosen], model)
    states, _ = model.read(ids, _repeated(model, prefix, len(chosen)))
    return states, [len(r.context) - 1 - shared for r in chosen]


def _read_split(
    model: LanguageModel, requests: Sequence[Encoded], batch: Batch, prefix: Any
) -> tuple[torch.Tensor, list[int]]:
    """The same, with each context read once; a row begins with its context's last state."""
    import torch

    contexts = [requests[group[0]].context[len(batch.prefix) :] for group in batch.groups]
    rests = [requests[i].continuation[:-1] for i in batch.requests]
    longer = any(rests)
    ids = torch.tensor(contexts, device=model.device)
    cache = _repeated(model, prefix, len(contexts))
    states, cache = model.read(ids, cache, keep_cache=longer)
    rows = torch.tensor(
        [row for row, group in enumerate(batch.groups) for _ in group], device=model.device
    )
    states = states[:, -1:].index_select(0, rows)
    if longer:
        rest, _ = model.read(_padded(rests, model), model.take(cache, rows))
        states = torch.cat([states, rest], dim=1)
    return states, [0] * len(rests)


def _repeated(model: LanguageModel, cache: Any, count: int) -> Any:
    """The cache of one sequence, for `count` that go on from it."""
    import torch

    if cache is None:
        return None
    return model.take(cache, torch.zeros(count, dtype=torch.long, device=model.device))


def _padded(inputs: Sequence[Sequence[int]], model: LanguageModel) -> torch.Tensor:
    """Sequences as one tensor, padded on the right, where a causal model doesn't look."""
    import torch

    width = max(1, max(map(len, inputs)))
    array = np.full((len(inputs), width), model.eos_token_id, dtype=np.int64)
    for row, sequence in zip(array, inputs, strict=True):
        row[: len(sequence)] = sequence
    return torch.from_numpy(array).to(model.device)


def _collect(
    model: LanguageModel,
    requests: Sequence[Encoded],
    batch: Sequence[int],
    states: torch.Tensor,
    starts: Sequence[int],
    results: dict[int, Likelihood],
) -> None:
    """Sum the log-probabilities of each continuation; its first is at `starts` in `states`."""
    import torch

    lengths = np.array([len(requests[i].continuation) for i in batch])
    ends = np.cumsum(lengths)
    row = np.repeat(np.arange(len(batch)), lengths)
    column = np.arange(ends[-1]) + np.repeat(np.asarray(starts) - (ends - lengths), lengths)
    targets = np.array([token for i in batch for token in requests[i].continuation])
    where = [torch.from_numpy(x).to(model.device) for x in (row, column, targets)]
    values, right = _finite_scores(model, states[where[0], where[1]], where[2])
    for i, end, n in zip(batch, ends.tolist(), lengths.tolist(), strict=True):
        results[i] = Likelihood(
            float(values[end - n : end].sum()),
            n,
            len(requests[i].context) + n,
            bool(right[end - n : end].all()),
        )


def _finite_scores(
    model: LanguageModel, states: torch.Tensor, targets: torch.Tensor
) -> tuple[np.ndarray, np.ndarray]:
    values, right = score_tokens(model.head, states, targets)
    if not np.isfinite(values).all():
        raise CheckpointError(f"{model.config['model']}: the model's logits are not finite")
    return values, right


def score_chunks(
    model: LanguageModel, chunks: Chunks, ranks: Ranks = ALONE
) -> list[dict[str, Any]]:
    """Nats, tokens and bytes of each sequence; every token but the first is predicted.

    `sum_logits` is over all predictions, `text_logits` over those of tokens that are text. The
    start of a text within a sequence is given, not predicted.
    """
    length = chunks.ids.shape[1]
    if length > model.max_length:
        raise DataError(
            f"sequences of {length} tokens are longer than the model's context, {model.max_length}"
        )
    size = max(1, costs_of(model).batch // length)
    starts = ranks.share(range(0, len(chunks.ids), size))
    found = ranks.gather(
        lambda: {
            start + row: answer
            for start in starts
            for row, answer in enumerate(_score_sequences(model, chunks, start, start + size))
        }
    )
    return [found[i] for i in range(len(chunks.ids))]


def _score_sequences(
    model: LanguageModel, chunks: Chunks, start: int, end: int
) -> list[dict[str, Any]]:
    import torch

    ids, n_bytes = chunks.ids[start:end], chunks.n_bytes[start:end, 1:]
    inputs = torch.from_numpy(ids).to(model.device)
    with torch.inference_mode():
        states, _ = model.read(inputs[:, :-1])
        values, _ = _finite_scores(model, states.flatten(0, 1), inputs[:, 1:].flatten())
    values = values.reshape(len(ids), -1)
    targets = ids[:, 1:]
    given = np.zeros(targets.shape, bool)
    if model.bos_token_id is not None:
        given = targets == model.bos_token_id
        values = np.where(given, 0.0, values)
    text = np.where(targets != model.eos_token_id, values, 0.0)
    return [
        {
            "sum_logits": float(row.sum()),
            "num_tokens": targets.shape[1] - int(start.sum()),
            "num_tokens_all": ids.shape[1],
            "text_logits": float(part.sum()),
            "num_bytes": int(count.sum()),
        }
        for row, part, count, start in zip(values, text, n_bytes, given, strict=True)
    ]


def rolling(
    model: LanguageModel, texts: Sequence[str], ranks: Ranks = ALONE
) -> list[dict[str, Any]]:
    """Nats and counts of each whole text, in windows that follow each other, as in OLMES.

    The first window begins after the model's prefix token, each later one after what came before
    it as far as the model's context reaches. Every token is predicted once.
    """
    windows: list[Encoded] = []
    owners: list[int] = []
    for owner, ids in enumerate(model.encode(texts)):
        for start in range(0, len(ids), model.max_length):
            end = min(start + model.max_length, len(ids))
            before = ids[max(end - model.max_length - 1, 0) : start] or [model.prefix_token_id]
            windows.append(Encoded(tuple(before), tuple(ids[start:end])))
            owners.append(owner)
    totals = [
        {
            "sum_logits": 0.0,
            "num_tokens": 0,
            "num_tokens_all": 0,
            "num_chars": len(text),
            "num_bytes": len(text.encode("utf-8")),
        }
        for text in texts
    ]
    for owner, found in zip(owners, loglikelihoods(model, windows, ranks), strict=True):
        totals[owner]["sum_logits"] += found.sum_logits
        totals[owner]["num_tokens"] += found.num_tokens
        totals[owner]["num_tokens_all"] += found.num_tokens_all
    return totals
