"""`olmo-mixlaw data`: look at a dataset, count what it holds, write its tokens."""

from __future__ import annotations

import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import click

from olmo_mixlaw.cli.answer import Answer, answers
from olmo_mixlaw.datasets.base import Dataset, Ledger
from olmo_mixlaw.datasets.tokenizer import end_of_text, load_tokenizer, wrong_end
from olmo_mixlaw.datasets.uri import open_dataset
from olmo_mixlaw.datasets.writer import write_shards
from olmo_mixlaw.errors import DataError, complain


@click.group()
def data() -> None:
    """Make, show and count training corpora."""


def _context(tokenizer: str | None, ratio: float | None, tokens: float | None) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if tokenizer:
        given["tokenizer"] = load_tokenizer(tokenizer)
    if ratio is not None:
        given["ratio"] = ratio
    if tokens is not None:
        given["n_tokens"] = int(tokens)
    if given and "tokenizer" not in given:
        raise DataError("--ratio, --tokens: exposures are counted in tokens: give --tokenizer too")
    return given


_tokenizer = click.option("--tokenizer", help="Tokenizer file, to count tokens.")
_ratio = click.option("--ratio", type=float, help="Share of training tokens this source gets.")
_tokens = click.option("--tokens", type=float, help="Training tokens of the whole run.")


@data.command()
@click.argument("uri")
@click.option("-n", "--documents", default=3, show_default=True, help="How many documents.")
@_tokenizer
@_ratio
@_tokens
def show(
    uri: str, documents: int, tokenizer: str | None, ratio: float | None, tokens: float | None
) -> None:
    """Print a few documents and questions of a dataset, and its ledger."""
    dataset = open_dataset(uri)
    for text in islice(dataset.documents(), documents):
        click.echo(f"{text}\n")
    for question in _some_questions(dataset, documents):
        click.echo(f"? {question.prompt} ___ [{question.answer}]")
    click.echo(_ledger_text(dataset.ledger(**_context(tokenizer, ratio, tokens))))


@data.command()
@click.argument("uri")
@_tokenizer
@_ratio
@_tokens
@answers
def ledger(
    answer: Answer, uri: str, tokenizer: str | None, ratio: float | None, tokens: float | None
) -> None:
    """Count what a dataset holds: bits, tokens, exposures."""
    counted = open_dataset(uri).ledger(**_context(tokenizer, ratio, tokens))
    answer.document = [
        dict(zip(("quantity", "value", "unit"), row, strict=True)) for row in counted.rows
    ]
    answer.show(_ledger_text(counted))


def _some_questions(dataset: Dataset, n: int) -> list[Any]:
    questions = dataset.questions(n)
    return questions[:: max(len(questions) // max(n, 1), 1)][:n]


def _ledger_text(counted: Ledger) -> str:
    lines = [""]
    width = max((len(row[0]) for row in counted.rows), default=0)
    for quantity, value, unit in counted.rows:
        shown = f"{value:,.4g}" if isinstance(value, float) else str(value)
        if isinstance(value, int):
            shown = f"{value:,}"
        lines.append(f"{quantity:<{width}}  {shown} {unit}".rstrip())
    return "\n".join(lines)


@data.command()
@click.argument("uri")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--tokenizer", required=True, help="Tokenizer file, or one that OLMo carries.")
@click.option("--documents", type=float, help="How many documents; all if there is an end.")
@click.option("--tokens", type=float, help="About how many tokens, instead.")
@click.option("--processes", default=1, show_default=True, help="How many at once.")
@click.option("--eos", type=int, help="End-of-text token id, if the tokenizer doesn't say.")
@click.option("--dtype", help="uint16, uint32, ...; the smallest that fits if left out.")
def make(
    uri: str,
    folder: Path,
    tokenizer: str,
    documents: float | None,
    tokens: float | None,
    processes: int,
    eos: int | None,
    dtype: str | None,
) -> None:
    """Write a dataset's tokens into FOLDER, as OLMo reads them; goes on where it stopped."""
    loaded = load_tokenizer(tokenizer, "--tokenizer")
    if eos is not None and (problem := wrong_end(loaded, eos)):
        complain(f"--eos: {problem}")
    started = time.monotonic()

    def progress(done: int, shards: int, written: int) -> None:
        rate = written / max(time.monotonic() - started, 1e-9)
        line = f"{done}/{shards} shards, {written:,} tokens, {rate:,.0f} a second"
        print(f"\r{line}", end="", file=sys.stderr, flush=True)

    result = write_shards(
        uri,
        loaded,
        folder,
        eos_token_id=end_of_text(loaded, "--eos") if eos is None else eos,
        documents=None if documents is None else int(documents),
        tokens=None if tokens is None else int(tokens),
        dtype=dtype,
        processes=processes,
        progress=progress,
    )
    print(file=sys.stderr)
    rate = result.tokens / result.seconds
    click.echo(
        f"{folder}: {result.tokens:,} tokens of {result.documents:,} documents in "
        f"{result.seconds:.1f} s ({rate:,.0f} a second); "
        f"{len(result.paths)} shards, {result.skipped} of them already there"
    )
