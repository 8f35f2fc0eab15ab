"""`olmo-mixlaw export`: an OLMo checkpoint to HuggingFace, and back."""

from __future__ import annotations

import json
from pathlib import Path

import click

from olmo_mixlaw.errors import complain


@click.group()
def export() -> None:
    """Turn OLMo checkpoints into HuggingFace folders, and back."""


@export.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--tokenizer", help="A tokenizer.json, instead of the one the run was trained with.")
@click.option(
    "--own-class",
    is_flag=True,
    help="Export to olmo_mixlaw's class: shared experts, dense layers, sigmoid routing.",
)
def hf(checkpoint: Path, out: Path, tokenizer: str | Path | None, own_class: bool) -> None:
    """Write the unsharded OLMo CHECKPOINT as the HuggingFace folder OUT."""
    from olmo_mixlaw.datasets.tokenizer import load_tokenizer, wrong_end
    from olmo_mixlaw.models.export import export as write
    from olmo_mixlaw.study.places import moved_tokenizer

    tokenizer = tokenizer or moved_tokenizer(checkpoint)
    written = write(checkpoint, out, tokenizer=tokenizer, own_class=own_class)
    eos = json.loads((written / "config.json").read_text(encoding="utf-8"))["eos_token_id"]
    if problem := wrong_end(load_tokenizer(written / "tokenizer.json"), eos):
        complain(f"model.eos_token_id: {problem}; generation stops at {eos}")
    click.echo(f"wrote {written}")


@export.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def olmo(model: Path, out: Path) -> None:
    """Write the HuggingFace folder MODEL as the OLMo checkpoint OUT (ending in -unsharded)."""
    from olmo_mixlaw.models.export import import_hf

    click.echo(f"wrote {import_hf(model, out)}; train it with --load_path={out}")
    click.echo("  --reset_optimizer_state=true --reset_trainer_state=true")
