"""`olmo-mixlaw train`."""

from __future__ import annotations

from pathlib import Path

import click

from olmo_mixlaw.errors import ConfigError


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    options_metavar="[--key.sub=value ...]",
)
@click.argument("config", type=click.Path(path_type=Path))
@click.pass_context
def train(context: click.Context, config: Path) -> int:
    """Train one model as the YAML file CONFIG says, with OLMo's own Trainer.

    Every key of the file can be changed on the command line: --seed=1
    --optimizer.learning_rate=1e-3. A run that is started again goes on from its last checkpoint.
    Several processes: torchrun --nproc-per-node=8 -m olmo_mixlaw.training.launch CONFIG.
    """
    if not config.is_file():
        raise ConfigError(f"{config}: no such file")
    from olmo_mixlaw.training import launch

    return launch.run(str(config), context.args)
