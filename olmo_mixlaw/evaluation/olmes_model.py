"""What OLMES's model is to our tasks: where it lies, how much it reads, whether a prompt fits.

OLMES cuts from the left what is too long and says nothing; the embedded scorer refuses it. Our
tasks refuse it in OLMES too, so that no score of theirs is of half a prompt.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from olmo_mixlaw.errors import ConfigError, complain
from olmo_mixlaw.evaluation.language_model import stated_length
from olmo_mixlaw.evaluation.records import read_json
from olmo_mixlaw.evaluation.tasks import Request, Task

WEKA = "/weka-mount/"  # where OLMES looks for `weka://`


@dataclass(frozen=True)
class Reader:
    """A tokenizer as OLMES calls it, and how many tokens its model reads at once."""

    tokenizer: Any
    max_length: int
    starts: bool = False  # whether OLMES puts a start before every text (`add_bos_token`)
    prefix_token_id: int = 0  # one token in place of an empty context; which one doesn't matter

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        start = [self.prefix_token_id] if self.starts else []
        return [start + self.tokenizer.encode(text, add_special_tokens=False) for text in texts]


def folder_of(model_config: Mapping[str, Any]) -> str | None:
    """A model's folder, or its name where it has none.

    Of several paths OLMES takes the first that exists, with `hf://` and `weka://` read as here.
    """
    paths = model_config.get("model_path") or model_config.get("model") or []
    named = [paths] if isinstance(paths, str) else list(paths)
    read = [p.removeprefix("hf://").replace("weka://", WEKA) for p in named]
    there = (path for path, name in zip(read, named, strict=True) if _is_there(path, name))
    return next(there, read[0] if read else None)


def _is_there(path: str, name: str) -> bool:
    return name.startswith("hf://") or Path(path).exists()


def keep_to_context(
    name: str, settings: dict[str, Any], model: Any, model_config: Mapping[str, Any]
) -> None:
    """No input longer than the model's own context, whatever `max_length` OLMES has (2048).

    Ends OLMES with one line where this release has no `model_max_length` of a task.
    """
    from oe_eval.default_configs import TASK_DEFAULTS

    context = _context_of(model, folder_of(model_config))
    asked = settings.get("model_max_length")
    if context is None or (asked or model_config.get("max_length") or 0) <= context:
        return
    if asked:
        sys.exit(f"error: {name}: model_max_length: {asked}: the model's context is {context}")
    if "model_max_length" not in TASK_DEFAULTS:
        sys.exit(
            f"error: {name}: OLMES reads {model_config['max_length']} tokens at once, and the "
            f"model's context is {context}; add to --model-args: "
            f'{{"max_length": {context}}}'
        )
    settings["model_max_length"] = context


def _context_of(model: Any, path: str | None) -> int | None:
    """The longest input that a model says it takes: its own object, or the folder's record."""
    shape = getattr(getattr(model, "model", None), "config", None)
    if shape is None and path and (Path(path) / "config.json").is_file():
        shape = SimpleNamespace(**read_json(Path(path) / "config.json"))
    return stated_length(shape)


def say_unknown(name: str, kind: str) -> None:
    """Of a release that doesn't tell a task its model: what isn't checked, or can't be scored."""
    if kind == "loglikelihood_rolling":
        sys.exit(
            f"error: {name}: this OLMES (before 2025-03) reads 2048 tokens at once, whatever the "
            f"model's context; take a newer one, or: olmo-mixlaw evaluate MODEL -t {name}"
        )
    complain(
        f"{name}: this OLMES (before 2025-03) doesn't tell tasks which model they are for: that "
        "prompts fit into its context, and what it was trained on, isn't checked"
    )


def reader_of(
    settings: Mapping[str, Any], model: Any, model_config: Mapping[str, Any]
) -> Reader | None:
    """How the model reads, once it is kept to its context; None where no model is loaded."""
    tokenizer = getattr(model, "tokenizer", None)
    length = (
        settings.get("model_max_length")
        or model_config.get("max_length")
        or _context_of(model, folder_of(model_config))
    )
    if tokenizer is None or length is None:
        return None
    return Reader(tokenizer, int(length), bool(model_config.get("add_bos_token")))


def placed(prompt: Any, query: str, context: str) -> Any:
    """OLMES's prompt for a document's `query`, with a request's own context in the query's place.

    A prompt of a chat is a mapping whose last message has the query. Raises `ConfigError` where
    the query isn't to be found.
    """
    if context == query:
        return prompt
    if isinstance(prompt, Mapping):
        *earlier, last = prompt["messages"]
        last = {**last, "content": placed(last["content"], query, context)}
        return {**prompt, "messages": [*earlier, last]}
    if prompt == query:
        return context
    before, found, after = prompt.rpartition(query) if query else ("", "", "")
    if not found:
        raise ConfigError(
            f"the prompt {prompt[-40:]!r} has no place for a context of its own, {context[-40:]!r}"
        )
    return before + context + after


def fitted(task: Task, requests: Sequence[Request], reader: Reader) -> list[Request]:
    """The requests as this model can take them, whole.

    Raises `DataError` for one that is longer than what the model reads, and `CheckpointError` for
    a tokenizer that breaks a task's answers. An answer that is generated is given the tokens that
    its prompt leaves, lest OLMES cut the prompt to make room.
    """
    from olmo_mixlaw.evaluation import generation, scorer

    if task.kind == "loglikelihood":
        scorer.encode_pairs(
            reader,
            [(request.context, request.continuation) for request in requests],
            strict=task.strict_prefix,
            truncate=False,
            where=task.name,
        )
    if task.kind != "generate_until":
        return list(requests)
    prompts = generation.encode_prompts(reader, requests, task.name)
    rooms = [reader.max_length - max(1, len(prompt)) for prompt in prompts]
    return [
        replace(request, max_tokens=min(request.max_tokens, room))
        for request, room in zip(requests, rooms, strict=True)
    ]
