"""Continue prompts, greedily or by sampling, in batches with a cache.

The prompts of a batch are read as far as the shortest goes, then token by token: where a prompt
goes on its own next token is read, elsewhere what the model said. So nothing is padded or masked,
and what a prompt is given doesn't depend on those beside it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from olmo_mixlaw.errors import DataError
from olmo_mixlaw.evaluation.language_model import LanguageModel, Reads
from olmo_mixlaw.evaluation.ranks import ALONE, Ranks
from olmo_mixlaw.evaluation.tasks import Request

if TYPE_CHECKING:
    import torch

SEQUENCES_AT_ONCE = 64
# How much longer than the shortest the prompts of a batch may be: as many more calls of the model.
SPREAD = 16


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
    alike: dict[tuple[float, int], list[int]] = defaultdict(list)
    for job, i in enumerate(jobs):
        alike[requests[i].temperature, requests[i].seed].append(job)
    batches = [
        (temperature, seed, number, batch)
        for (temperature, seed), group in sorted(alike.items())
        for number, batch in enumerate(_by_length(group, [len(prompts[jobs[j]]) for j in group]))
    ]

    def work() -> dict[int, dict[str, Any]]:
        texts: dict[int, dict[str, Any]] = {}
        with torch.inference_mode():
            for temperature, seed, number, batch in ranks.share(batches):
                # Each batch draws by itself, so that it doesn't matter who has it.
                start = seed + SEQUENCES_AT_ONCE * number
                draws = torch.Generator(device=model.device).manual_seed(start)
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


def _by_length(jobs: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """Batches of jobs whose prompts have about the same length, the longest first."""
    batch: list[int] = []
    longest = 0
    for length, job in sorted(zip(lengths, jobs, strict=True), key=lambda pair: -pair[0]):
        if batch and (len(batch) == SEQUENCES_AT_ONCE or longest - length > SPREAD):
            yield batch
            batch = []
        if not batch:
            longest = length
        batch.append(job)
    if batch:
        yield batch


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

    given = [list(prompts[jobs[job]]) or [model.prefix_token_id] for job in batch]
    read = min(map(len, given))
    ids = torch.tensor([prompt[:read] for prompt in given], device=model.device)
    said: list[list[int]] = [[] for _ in batch]
    active = list(range(len(batch)))
    cache = None
    while active:
        logits, cache = model.logits(ids, cache, last=1, keep_cache=True)
        chosen = _choose(logits[:, -1].float(), temperature, draws).tolist()
        keep, tokens = [], []
        for row, (position, token) in enumerate(zip(active, chosen, strict=True)):
            request, prompt = requests[jobs[batch[position]]], given[position]
            if read < len(prompt):
                token = prompt[read]
            elif token == model.eos_token_id:
                continue
            else:
                said[position].append(token)
                room = min(request.max_tokens, model.max_length - len(prompt))
                if len(said[position]) >= room or _stops(model, said[position], request):
                    continue
            keep.append(row)
            tokens.append([token])
        active = [active[row] for row in keep]
        read += 1
        if active:
            ids = torch.tensor(tokens, device=model.device)
            if len(keep) < len(chosen):
                cache = model.take(cache, torch.tensor(keep, device=model.device))
    for position, job in enumerate(batch):
        text = model.decode(said[position])
        cuts = [text.find(stop) for stop in requests[jobs[job]].stop if stop and stop in text]
        texts[job] = {
            "continuation": text[: min(cuts)] if cuts else text,
            "num_tokens": len(said[position]),
        }


def _stops(model: LanguageModel, said: Sequence[int], request: Request) -> bool:
    if not request.stop:
        return False
    text = model.decode(said)
    return any(stop in text for stop in request.stop)


def _choose(logits: torch.Tensor, temperature: float, draws: torch.Generator) -> torch.Tensor:
    import torch

    if temperature <= 0:
        return logits.argmax(dim=-1)
    weights = torch.softmax(logits / temperature, dim=-1)
    return torch.multinomial(weights, 1, generator=draws)[:, 0]
