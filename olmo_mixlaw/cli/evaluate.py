"""`olmo-mixlaw evaluate`: score a model and write OLMES's files."""

from __future__ import annotations

from pathlib import Path

import click

from olmo_mixlaw.cli.answer import Answer, answers
from olmo_mixlaw.errors import MixlawError


@click.command()
@click.argument("model", type=click.Path(path_type=Path), required=False)
@click.option("--task", "-t", "tasks", multiple=True, help="A task, a suite, or a task as JSON.")
@click.option("--output-dir", "-o", type=click.Path(path_type=Path), help="Where files go.")
@click.option("--limit", type=float, help="At most so many documents a task (below 1: a share).")
@click.option("--truncate", is_flag=True, help="Cut too long prompts from the left, as OLMES does.")
@click.option("--save-requests", is_flag=True, help="Write every request too.")
@click.option("--tokenizer", type=click.Path(path_type=Path), help="The tokenizer's file.")
@click.option("--device", help="cpu, cuda, cuda:1 ... [default: a GPU if there is one]")
@click.option("--dtype", default="float32", show_default=True, help="float32 or bfloat16.")
@click.option("--processes", type=int, default=1, show_default=True, help="That share the work.")
@click.option("--list-tasks", is_flag=True, help="Print the names of tasks and suites.")
@answers
def evaluate(
    answer: Answer,
    model: Path | None,
    tasks: tuple[str, ...],
    output_dir: Path | None,
    limit: float | None,
    truncate: bool,
    save_requests: bool,
    tokenizer: Path | None,
    device: str | None,
    dtype: str,
    processes: int,
    list_tasks: bool,
) -> None:
    """Score MODEL, a checkpoint of OLMo or OLMo-core or a HuggingFace folder, in OLMES format.

    \b
    olmo-mixlaw evaluate runs/quickstart/... -t bio_recall -t domain_loss -o scores
    torchrun --nproc-per-node 8 -m olmo_mixlaw evaluate ... (or --processes 8)
    """
    from olmo_mixlaw.evaluation import catalog, run
    from olmo_mixlaw.evaluation.provenance import newest_checkpoint
    from olmo_mixlaw.evaluation.ranks import of_launcher
    from olmo_mixlaw.study.places import moved_tokenizer

    if list_tasks:
        answer.document = {"tasks": catalog.task_names(), "suites": catalog.suite_names()}
        for name in [*catalog.task_names(), *catalog.suite_names()]:
            answer.show(name)
        return
    for value, name in ((model, "MODEL"), (tasks, "--task"), (output_dir, "--output-dir")):
        if not value:
            raise click.UsageError(f"{name} is missing")
    assert model is not None
    assert output_dir is not None
    if limit is not None and limit.is_integer():
        limit = int(limit)
    if tokenizer is None and model.is_dir():
        tokenizer = moved_tokenizer(newest_checkpoint(model))
    ranks = of_launcher()
    try:
        frame = run.evaluate(
            model,
            tasks,
            output_dir,
            limit=limit,
            truncate=truncate,
            save_requests=save_requests,
            tokenizer=tokenizer,
            device=device,
            dtype=dtype,
            processes=processes,
            ranks=ranks,
        )
    except MixlawError:
        if ranks.first:
            raise
        raise click.exceptions.Exit(2) from None  # the first process says it
    finally:
        ranks.leave()
    if not ranks.first:
        return
    shown = frame[["task", "metric", "value", "n_instances", "stderr"]]
    answer.show(shown.to_string(index=False, na_rep="", float_format=lambda v: f"{v:.6g}"))
    answer.document = {"model": model, "scores": frame, "saved": output_dir}
    click.echo(f"written to {output_dir}")
