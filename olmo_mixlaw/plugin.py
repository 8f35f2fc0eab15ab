"""Where OLMES meets us: what its tables are given as they load.

Packages add tasks to OLMES with an entry point in the group `oe_eval.plugins`: an object or a
module with any of the functions in `TABLES`, each returning the entries to add. Ours is
`olmo_mixlaw.evaluation.olmes`, one of them like any other.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

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
            additions: dict[str, Any] = dict(getattr(point.load(), function, dict)())
        except (Exception, SystemExit) as error:
            complain(f"plugin {point.name!r}: {function}: {type(error).__name__}: {error}")
            continue
        for key, value in additions.items():
            if table.setdefault(key, value) != value:
                complain(f"{name} has {key!r} already; plugin {point.name!r} doesn't replace it")
