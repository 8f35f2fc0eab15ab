"""What all runs of a study share: its tokenizer and, through it, its tokenised text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from olmo_mixlaw.atomic import write_text
from olmo_mixlaw.datasets import load_tokenizer, open_dataset, open_tokens, train_tokenizer
from olmo_mixlaw.datasets.memmap import dtype_for
from olmo_mixlaw.datasets.tokenizer import first_characters
from olmo_mixlaw.errors import ConfigError, DataError
from olmo_mixlaw.evaluation.catalog import resolve
from olmo_mixlaw.evaluation.chunks import cut
from olmo_mixlaw.models.ladder import Rung
from olmo_mixlaw.study.plan import rung_of
from olmo_mixlaw.study.scoring import heldout_uri, tasks
from olmo_mixlaw.study.settings import StudyConfig

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def prepare(study: StudyConfig, folder: Path) -> Path:
    """Train the tokenizer, or copy the one given, and tokenise finite text, unless that is done.

    Returns the tokenizer's file. All is written under its final name only when complete. Raises
    `DataError` for a domain whose held-out text doesn't fill one sequence to be scored on.
    """
    heldout = {domain: heldout_uri(study, domain) for domain in study.domains}
    for domain, uri in heldout.items():
        if next(open_dataset(uri).heldout(1), None) is None:
            raise DataError(f"domains.{domain}: {uri}: no document is held out to score models on")
    path = folder / "tokenizer.json"
    if study.tokenizer.identifier is not None:
        _copy(study.tokenizer.identifier, path)
    elif not path.is_file():
        share = study.tokenizer.characters // len(study.domains)
        documents = (
            text
            for domain, uri in study.domains.items()
            for text in first_characters(open_dataset(uri, where=f"domains.{domain}"), share)
        )
        train_tokenizer(documents, study.tokenizer.vocab_size, path)
    tokenizer = load_tokenizer(path)
    rungs = [rung_of(study, size) for size in dict.fromkeys([*study.sizes, study.target.size])]
    end = rungs[0].eos_token_id
    longest = max(rung.context for rung in rungs)
    for domain, uri in study.domains.items():
        place = f"domains.{domain}"
        open_tokens(
            [uri],
            tokenizer=tokenizer,
            sequence_length=longest,
            eos_token_id=end,
            seed=0,
            cache_dir=folder,
            memmap_dtype=dtype_for(rungs[0].vocab_size),
            where=place,
        )
        # As the scorer cuts it after the training, when it would be too late.
        texts = open_dataset(heldout[domain]).heldout()
        cut(texts, tokenizer, end, longest, max(longest, 1), where=f"{place}: {heldout[domain]}")
    if not study.evaluation.truncate:
        _check_prompts(study, tokenizer, [r for r in rungs if r.name in study.sizes])
    return path


def _check_prompts(study: StudyConfig, tokenizer: Tokenizer, rungs: list[Rung]) -> None:
    """Raises `DataError` for a prompt that the model of least context can't hold."""
    rung = min(rungs, key=lambda rung: rung.context)
    for task in resolve(tasks(study)):
        if task.kind != "loglikelihood":
            continue
        texts = [r.context + r.continuation for d in task.documents() for r in task.requests(d)]
        lengths = [len(e.ids) for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
        if max(lengths, default=0) > rung.context:
            raise DataError(
                f"evaluation.tasks: {task.name}: a prompt of {max(lengths)} tokens is longer than "
                f"the context of {rung.context} of {rung.name}; leave the task out, or set "
                "evaluation.truncate: true (OLMES cuts such prompts from the left)"
            )


def _copy(identifier: str, path: Path) -> None:
    """Keep the study's own copy of a tokenizer. Raises `ConfigError` if it has another one."""
    text = load_tokenizer(identifier, "tokenizer.identifier").to_str(pretty=False)
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        raise ConfigError(
            f"{path}: the study was made with another tokenizer than {identifier} is now; give it "
            "another output or remove that folder"
        )
    write_text(path, text)
