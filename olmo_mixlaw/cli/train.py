"""`olmo-mixlaw train`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import click

from olmo_mixlaw import schema
from olmo_mixlaw.errors import ConfigError, unknown_name
from olmo_mixlaw.shipped import find_config

# A file's `trainer` key -> what trains it. Two hosts, never in one environment.
TRAINERS = {
    "ai2-olmo": "olmo_mixlaw.training.launch",
    "olmo-core": "olmo_mixlaw.training_core.launch",
}
DEFAULT = "ai2-olmo"


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    options_metavar="[--key.sub=value ...]",
)
@click.argument("config")
@click.pass_context
def train(context: click.Context, config: str) -> int:
    """Train one model with OLMo's own Trainer, as CONFIG says: a YAML file, or a shipped name.

    Its key `trainer` says whose: ai2-olmo (OLMo 0.6, the default) or olmo-core (OLMo 2 and 3).
    Every key of the file can be changed on the command line: --seed=1
    --optimizer.learning_rate=1e-3. A run that is started again goes on from its last checkpoint.
    Several processes: torchrun --nproc-per-node=8 -m olmo_mixlaw.training.launch CONFIG, and
    -m olmo_mixlaw.training_core.launch CONFIG for olmo-core.
    """
    path = find_config("configs/train", config)
    return import_module(TRAINERS[trainer_of(path, context.args)]).run(str(path), context.args)


def trainer_of(path: Path, overrides: Sequence[str] = ()) -> str:
    """The trainer that a training file asks for. Raises `ConfigError`."""
    for item in overrides:
        if item.removeprefix("--").partition("=")[0].strip() == "trainer":
            raise ConfigError(f"{item}: the trainers' files have different keys; edit {path}")
    name = schema.read_mapping(path).get("trainer", DEFAULT)
    if name not in TRAINERS:
        raise unknown_name("trainer", str(name), TRAINERS, f"{path}: trainer")
    return name
