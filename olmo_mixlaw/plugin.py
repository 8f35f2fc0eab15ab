"""Where the two hosts meet us: what is added to OLMES's tables, and a check of the environment.

Packages add tasks to OLMES with an entry point in the group `oe_eval.plugins`: an object or a
module with any of the functions in `TABLES`, each returning the entries to add. Ours is
`olmo_mixlaw.evaluation.olmes`, one of them like any other.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

import click

from olmo_mixlaw.errors import complain

GROUP = "oe_eval.plugins"

# Module of OLMES -> the table in it, and the plugin's function that returns additions.
TABLES = {
    "oe_eval.configs.tasks": ("TASK_CONFIGS", "task_configs"),
    "oe_eval.configs.task_suites": ("TASK_SUITE_CONFIGS", "task_suites"),
    "oe_eval.tasks.fewshot_sources": ("FEWSHOT_SOURCES", "fewshot_sources"),
    "oe_eval.tasks.oe_eval_tasks": ("TASK_REGISTRY", "tasks"),
}


def extend_olmes(module: ModuleType) -> None:
    """Add every plugin's entries to the table of a loaded module of OLMES, in place.

    An entry that OLMES has already is kept as OLMES has it. A plugin that fails is left out,
    and says so on standard error. Doing it twice changes nothing.
    """
    name, function = TABLES[module.__name__]
    table = getattr(module, name, None)
    if not isinstance(table, dict):
        complain(f"{module.__name__}.{name} is not a table in this OLMES; nothing is added")
        return
    for point in entry_points(group=GROUP):
        try:
            additions: dict[str, Any] = getattr(point.load(), function, dict)()
        except Exception as error:
            complain(f"plugin {point.name!r}: {function}: {type(error).__name__}: {error}")
            continue
        for key, value in additions.items():
            if table.setdefault(key, value) != value:
                complain(f"{name} has {key!r} already; plugin {point.name!r} doesn't replace it")


@click.command()
def doctor() -> None:
    """Check what works in this environment, and say how to mend what doesn't."""
    from olmo_mixlaw.cli import doctor as environment

    findings = environment.examine()
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        click.echo(f"{finding.mark} {finding.name:<{width}}  {finding.text}")
        if finding.mend:
            click.echo(f"  {'':<{width}}  mend: {finding.mend}")
    failed = [finding for finding in findings if finding.state == "fails"]
    click.echo("everything needed works" if not failed else f"{len(failed)} to mend")
    if failed:
        raise click.exceptions.Exit(1)


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
