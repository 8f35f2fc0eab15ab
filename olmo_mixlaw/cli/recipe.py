"""A recipe: the options of `fit`, `compare`, `optimize`, `predict` and `scores` in one small YAML.

`--recipe NAME` takes a shipped one (`configs/fits/`) or a path. An option on the command line wins
over the recipe; a file that the recipe names is looked for here, then beside the recipe.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import click

from olmo_mixlaw import schema
from olmo_mixlaw.shipped import find_config

FOLDER = "configs/fits"
FILES = ("table", "ratios", "metrics", "goal")


@dataclass
class Recipe:
    """Keys are the commands' options; mappings stand for options that may be repeated."""

    table: str | None = None
    ratios: str | None = None
    metrics: str | None = None
    target: list[str] = field(default_factory=list)
    unit: str | None = None
    size: float | None = None
    tokens: float | None = None
    weight_tolerance: float | None = None
    law: str | None = None
    laws: list[str] = field(default_factory=list)
    folds: int | None = None
    seed: int | None = None
    capacity: str | None = None
    rho: float | None = None
    n_params: float | None = None
    n_active: float | None = None
    n_tokens: float | None = None
    path: list[str] = field(default_factory=list)
    goal: str | None = None
    current: dict[str, float] = field(default_factory=dict)
    target_weight: dict[str, float] = field(default_factory=dict)
    task_weight: dict[str, float] = field(default_factory=dict)
    at_least: dict[str, float] = field(default_factory=dict)
    at_most: dict[str, float] = field(default_factory=dict)
    available: dict[str, float] = field(default_factory=dict)
    cap_tokens: float | None = None
    prior: dict[str, float] = field(default_factory=dict)
    max_epochs: float | None = None
    kl: float | None = None
    bootstrap: int | None = None


def load_recipe(name: str | Path) -> dict[str, Any]:
    """The options that a recipe sets, by the names that click has for them.

    Raises `ConfigError` for a path that doesn't exist, an unknown key or a value of a wrong type.
    """
    path = find_config(FOLDER, name, "--recipe")
    recipe = schema.load(path, Recipe)
    options: dict[str, Any] = {}
    for item in fields(recipe):
        value = getattr(recipe, item.name)
        if value is None or value in ([], {}):
            continue
        if item.name in FILES and not Path(value).exists():
            value = str(path.parent / value) if (path.parent / value).exists() else value
        if isinstance(value, dict):
            value = tuple(f"{k}={v}" for k, v in value.items())
        options[item.name] = ",".join(value) if item.name == "laws" else value
    return options


def _read(context: click.Context, _: click.Parameter, name: str | None) -> str | None:
    if name is not None:
        given = load_recipe(name)
        known = {option.name for option in context.command.params}
        context.default_map = {k: v for k, v in given.items() if k in known}
    return name


def recipe_option(command: Any) -> Any:
    """`--recipe`: read before the other options, so that it sets their defaults."""
    return click.option(
        "--recipe",
        metavar="NAME",
        default=None,
        is_eager=True,
        expose_value=False,
        callback=_read,
        help="A YAML of options: a shipped name (configs/fits) or a path.",
    )(command)
