"""`olmo-mixlaw train`."""

from __future__ import annotations

import click

from olmo_mixlaw.shipped import find_config


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    options_metavar="[--key.sub=value ...]",
)
@click.argument("config")
@click.pass_context
def train(context: click.Context, config: str) -> int:
    """Train one model with OLMo's own Trainer, as CONFIG says: a YAML file, or a shipped name.

    Every key of the file can be changed on the command line: --seed=1
    --optimizer.learning_rate=1e-3. A run that is started again goes on from its last checkpoint.
    Several processes: torchrun --nproc-per-node=8 -m olmo_mixlaw.training.launch CONFIG.
    """
    path = find_config("configs/train", config)
    from olmo_mixlaw.training import launch

    return launch.run(str(path), context.args)
