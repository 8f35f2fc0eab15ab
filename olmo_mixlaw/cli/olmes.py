"""`olmo-mixlaw olmes`: OLMES with our tasks, where its start-up file isn't read."""

from __future__ import annotations

import click


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def olmes(arguments: tuple[str, ...]) -> None:
    """Run `olmes ARGUMENTS` in this process, for an environment without the start-up file."""
    from olmo_mixlaw.evaluation import olmes as bridge

    code = bridge.launch(list(arguments))
    if code:
        raise click.exceptions.Exit(code)
