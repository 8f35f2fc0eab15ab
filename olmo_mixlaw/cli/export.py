"""`olmo-mixlaw export`: checkpoints to HuggingFace and back, a mixture to other trainers' files."""

from __future__ import annotations

import json
from pathlib import Path

import click

from olmo_mixlaw.cli.counts import COUNT
from olmo_mixlaw.errors import ConfigError, complain


@click.group()
def export() -> None:
    """Turn OLMo checkpoints into HuggingFace folders and back, mixtures into others' files."""


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
    """Write CHECKPOINT, an unsharded one of OLMo or one of OLMo-core, as HuggingFace folder OUT.

    Of a run's folder the newest checkpoint is taken.
    """
    from olmo_mixlaw.datasets.tokenizer import load_tokenizer, wrong_end
    from olmo_mixlaw.evaluation.provenance import newest_checkpoint
    from olmo_mixlaw.study.places import moved_tokenizer
    from olmo_mixlaw.training_core.saved import is_checkpoint, require_core

    checkpoint = newest_checkpoint(checkpoint)
    tokenizer = tokenizer or moved_tokenizer(checkpoint)
    if is_checkpoint(checkpoint):
        from olmo_mixlaw.training_core.to_hf import export as write_core

        if own_class:
            raise ConfigError("--own-class: is for checkpoints of OLMo, not of OLMo-core")
        require_core(checkpoint)
        written = write_core(checkpoint, out, tokenizer=tokenizer)
    else:
        from olmo_mixlaw.models.export import export as write

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


@export.command()
@click.argument("mixture")
@click.argument("sources", nargs=-1, required=True)
@click.option(
    "--olmo-core", "core", metavar="FILE", help="Write the source list that OLMo-core reads."
)
@click.option("--olmix", metavar="FILE", help="Write an Olmix launch file. Needs --template.")
@click.option("--template", metavar="FILE", help="A launch file of yours: all but the mixture.")
@click.option(
    "--run-tokens",
    type=COUNT,
    default=None,
    help="Tokens of the run: a source that it sees more than once is told so.",
)
def mixture(
    mixture: str,
    sources: tuple[str, ...],
    core: str | None,
    olmix: str | None,
    template: str | None,
    run_tokens: float | None,
) -> None:
    """Write MIXTURE over SOURCES as another trainer takes it.

    MIXTURE is a file with ratios, such as `optimize --out` and `study run` leave; SOURCES are as
    `olmo-mixlaw swarm` takes them.
    """
    import numpy as np

    from olmo_mixlaw.swarm import olmix as olmix_files
    from olmo_mixlaw.swarm import olmo_core
    from olmo_mixlaw.swarm.config import read_sources
    from olmo_mixlaw.swarm.listed import by_leaf, read_mixture

    if core is None and olmix is None:
        raise ConfigError("export mixture: give --olmo-core FILE or --olmix FILE")
    if (template is None) != (olmix is None):
        raise ConfigError("--template: goes with --olmix, whose launch file it completes")
    tree = read_sources(list(sources))
    row = np.array([*by_leaf(read_mixture(mixture), tree, mixture).values()])
    if core is not None:
        path = olmo_core.write_source_mixture(tree, row, core, run_tokens=run_tokens)
        click.echo(f"wrote {path}")
    if olmix is not None:
        assert template is not None
        where = Path(olmix)
        name = where.name.removesuffix(".yaml")
        [path] = olmix_files.write_launch(
            tree, row[None], where.parent, names=[name], template=template, run_tokens=run_tokens
        )
        click.echo(f"wrote {path}")
