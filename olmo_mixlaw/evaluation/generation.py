"""Continue prompts, greedily or by sampling, in batches of equal length with a cache."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from olmo_mixlaw.errors import DataError
from olmo_mixlaw.evaluation.language_model import LanguageModel, Reads
from olmo_mixlaw.evaluation.ranks import ALONE, Ranks
from olmo_mixlaw.evaluation.tasks import Request

if TYPE_CHECKING:
    import torch

SEQUENCES_AT_ONCE = 64


def generate(
    model: LanguageModel, requests: Sequence[Request], where: str = "", ranks: Ranks = ALONE
) -> list[dict[str, Any]]:
    """What the model says after each request's context: `repeats` answers a request, in order.

    An answer ends before the first of the request's `stop` strings, at end-of-text, after
    `max_tokens` tokens or where the model's context does. Raises `DataError` as `encode_prompts`.
    """
    import torch

    prompts = encode_prompts(model, requests, where)
    jobs = [i for i, request in enumerate(requests) for _ in range(request.repeats)]
    lengths: dict[tuple[int, float, int], list[int]] = defaultdict(list)
    for job, i in enumerate(jobs):
        request, length = requests[i], max(1, len(prompts[i]))
        lengths[length, request.temperature, request.seed].append(job)
    batches = [
        (temperature, seed, start, group[start : start + SEQUENCES_AT_ONCE])
        for (_, temperature, seed), group in sorted(lengths.items(), reverse=True)
        for start in range(0, len(group), SEQUENCES_AT_ONCE)
    ]

    def work() -> dict[int, dict[str, Any]]:
        texts: dict[int, dict[str, Any]] = {}
        with torch.inference_mode():
            for temperature, seed, start, batch in ranks.share(batches):
                # Each batch draws by itself, so that it doesn't matter who has it.
                draws = torch.Generator(device=model.device).manual_seed(seed + start)
                _continue(model, requests, prompts, jobs, batch, temperature, draws, texts)
        return texts

    found = ranks.gather(work)
    return [found[job] for job in range(len(jobs))]


def encode_prompts(model: Reads, requests: Sequence[Request], where: str) -> list[list[int]]:
    """The tokens of each request's context.

    Raises `DataError` for a prompt that leaves no room for the right answer (`continuation`, or
    `max_tokens` where none is known).
    """
    prompts = model.encode([request.context for request in requests])
    answers = model.encode([request.continuation for request in requests])
    for request, prompt, answer in zip(requests, prompts, answers, strict=True):
        length = max(1, len(prompt))
        needed = min(request.max_tokens, len(answer) or request.max_tokens)
        if length + needed > model.max_length:
            raise DataError(
                f"{where}: a prompt of {length} tokens ({request.context[-40:]!r}) and an answer "
                f"of {needed} are more than the model's context of {model.max_length}"
            )
    return prompts


def _continue(
    model: LanguageModel,
    requests: Sequence[Request],
    prompts: Sequence[Sequence[int]],
    jobs: Sequence[int],
    batch: Sequence[int],
    temperature: float,
    draws: torch.Generator,
    texts: dict[int, dict[str, Any]],
) -> None:
    import torch

    ids = torch.tensor(
        [prompts[jobs[job]] or [model.prefix_token_id] for job in batch], device=model.device
    )
    room = model.max_length - ids.shape[1]
    said: list[list[int]] = [[] for _ in batch]
    active = list(range(len(batch)))
    cache = None
    while active:
        logits, cache = model.logits(ids, cache, last=1, keep_cache=True)
        tokens = _choose(logits[:, -1].float(), temperature, draws)
        keep = []
        for row, (position, token) in enumerate(zip(active, tokens.tolist(), strict=True)):
            request = requests[jobs[batch[position]]]
            if token != model.eos_token_id:
                said[position].append(token)
            text = model.decode(said[position])
            if (
                token != model.eos_token_id
                and len(said[position]) < min(request.max_tokens, room)
                and not any(stop in text for stop in request.stop)
            ):
                keep.append(row)
        active = [active[row] for row in keep]
        if active:
            rows = torch.tensor(keep, device=model.device)
            ids = tokens[rows][:, None]
            if len(keep) < len(tokens):
                cache = model.take(cache, rows)
    for position, job in enumerate(batch):
        text = model.decode(said[position])
        cuts = [text.find(stop) for stop in requests[jobs[job]].stop if stop and stop in text]
        texts[job] = {
            "continuation": text[: min(cuts)] if cuts else text,
            "num_tokens": len(said[position]),
        }


def _choose(logits: torch.Tensor, temperature: float, draws: torch.Generator) -> torch.Tensor:
    import torch

    if temperature <= 0:
        return logits.argmax(dim=-1)
    weights = torch.softmax(logits / temperature, dim=-1)
    return torch.multinomial(weights, 1, generator=draws)[:, 0]
