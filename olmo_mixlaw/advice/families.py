"""Families of tasks as one weighted goal: which tasks count, and how much, from a small YAML.

math: {weight: 2, tasks: [gsm8k, minerva_math*]}       names or globs; its tasks share its weight
code: [codex_humaneval, mbpp]                          the same with weight 1
qa: {tasks: {arc*: 2, hellaswag: 1, "!arc_easy": 1}}   weights within the family; ! leaves out

A pattern without `:` or `|` is compared with a task's bare name: `gsm8k` is `gsm8k::olmes` too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from olmo_mixlaw import schema
from olmo_mixlaw.errors import ConfigError, closest, first_of, unknown_name
from olmo_mixlaw.shipped import find_config

FOLDER = "configs/goals"
# Before a pattern whose tasks are left out of the family.
NOT = "!"
SHOWN = 4


@dataclass
class FamilyConfig:
    """What a goal file may say of a family; see the module."""

    tasks: Any
    weight: float = 1.0


@dataclass(frozen=True)
class Family:
    """Tasks that share `weight`: `patterns` maps names or globs to the weight of each task."""

    name: str
    weight: float
    patterns: Mapping[str, float]

    def share(self, task: str) -> float | None:
        """The weight of a task before it is rescaled; None for one that isn't of the family.

        A name goes before a glob, and of two globs the first holds.
        """
        if any(_is_like(task, p.removeprefix(NOT)) for p in self.patterns if p.startswith(NOT)):
            return None
        found = [p for p in self.patterns if _is_like(task, p)]
        named = [p for p in found if p in (task, bare(task))]
        return self.patterns[(named or found)[0]] if found else None


@dataclass(frozen=True)
class Members:
    """Which tasks of a table are of which family, with the weight of each before rescaling.

    `weights` are those of the families; `notes` say what of a goal file was not found.
    """

    shares: Mapping[str, Mapping[str, float]]
    weights: Mapping[str, float]
    notes: tuple[str, ...] = ()

    def family_of(self, task: str) -> str:
        """The family of a task, empty for one that is in none."""
        return next((name for name, tasks in self.shares.items() if task in tasks), "")

    def task_weights(self, among: Collection[str]) -> dict[str, float]:
        """The weights of these tasks, which sum to 1; those that are in no family are left out.

        A family's weight is shared by those of its tasks that are `among` them, so that it counts
        as much where some can't be predicted; a family without any is left out, and the others
        count for it. Raises `ConfigError` where no family with a weight has one.
        """
        found: dict[str, float] = {}
        for family, tasks in self.shares.items():
            here = {task: share for task, share in tasks.items() if task in among}
            whole = sum(here.values())
            if whole > 0:
                found |= {t: self.weights[family] * share / whole for t, share in here.items()}
        total = sum(found.values())
        if total <= 0:
            raise ConfigError(f"goal: no task of {', '.join(self.shares)} can be predicted")
        return {task: weight / total for task, weight in found.items()}

    def lost(self, among: Collection[str]) -> list[str]:
        """The families of which no task is `among` these."""
        return [name for name, tasks in self.shares.items() if not set(tasks) & set(among)]


@dataclass(frozen=True)
class Families:
    """A goal file: its families in order, and where it was read."""

    source: str
    families: tuple[Family, ...]

    @classmethod
    def load(cls, name: str | Path, where: str = "--goal") -> Families:
        """Read a goal file: a path, or a name in `configs/goals`. Olmix's `eval.tasks` is one too.

        Raises `ConfigError` naming file and key for a family without tasks, and for a weight that
        is negative or no number.
        """
        path = find_config(FOLDER, name, where)
        given = schema.read_mapping(path)
        found = _of_olmix(given, str(path)) if _is_olmix(given) else given
        families = tuple(_family(str(key), value, str(path)) for key, value in found.items())
        if not sum(family.weight for family in families) > 0:
            raise ConfigError(f"{path}: no family has a weight above 0")
        return cls(str(path), families)

    def among(self, tasks: Sequence[str]) -> Members:
        """The members of each family among the tasks of a table.

        Raises `ConfigError` for a task of two families, and `UnknownNameError` with the nearest
        names for a family of which the table has no task.
        """
        shares: dict[str, dict[str, float]] = {}
        first: dict[str, str] = {}
        notes = []
        for family in self.families:
            found = {task: family.share(task) for task in tasks}
            shares[family.name] = {t: share for t, share in found.items() if share is not None}
            missing = [p for p in family.patterns if not any(_is_like(t, p) for t in tasks)]
            missing = [p for p in missing if not p.startswith(NOT)]
            where = f"{self.source}: {family.name}.tasks"
            if not shares[family.name]:
                names = sorted({bare(task) for task in tasks})
                raise unknown_name("task", (missing or list(family.patterns))[0], names, where)
            for task in shares[family.name]:
                if task in first:
                    raise ConfigError(
                        f"{where}: task {task!r} is in {first[task]} too; leave it out of one "
                        f"('{NOT}{task}' does)"
                    )
                first[task] = family.name
            if missing:
                near = closest(missing[0], [bare(task) for task in tasks])
                hint = f" (did you mean {near!r}?)" if near and len(missing) == 1 else ""
                notes.append(f"{where}: no run has {first_of(missing, SHOWN)}{hint}")
        others = [task for task in tasks if task not in first]
        if others:
            notes.append(
                f"{self.source}: in no family, so they don't count: {first_of(others, SHOWN)}"
            )
        weights = {family.name: family.weight for family in self.families}
        return Members(shares, weights, tuple(notes))


def bare(task: str) -> str:
    """A task's name without its format, suite and number of shots (`gsm8k` of `gsm8k::olmes`)."""
    parts = task.split("|")  # lighteval's suite|task|shots
    return (parts[1] if len(parts) > 2 else task).partition(":")[0]


def _is_like(task: str, pattern: str) -> bool:
    whole = ":" in pattern or "|" in pattern
    return pattern == task or fnmatchcase(task if whole else bare(task), pattern)


def _family(name: str, value: Any, source: str) -> Family:
    where = f"{source}: {name}"
    if isinstance(value, str | list):
        value = {"tasks": value}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: expected a list of tasks, or a mapping with tasks and weight")
    given = schema.from_mapping(value, FamilyConfig, where)
    _check_weight(given.weight, f"{where}.weight")
    return Family(name, given.weight, _patterns(given.tasks, f"{where}.tasks"))


def _patterns(tasks: Any, where: str) -> dict[str, float]:
    """Patterns with the weight of each. Raises `ConfigError`."""
    if isinstance(tasks, str):
        tasks = [tasks]
    if isinstance(tasks, list):
        tasks = dict.fromkeys(map(str, tasks), 1.0)
    if not isinstance(tasks, Mapping) or not tasks:
        raise ConfigError(f"{where}: expected a list of names or globs, or a mapping to weights")
    patterns = {str(pattern): weight for pattern, weight in tasks.items()}
    for pattern, weight in patterns.items():
        _check_weight(weight, f"{where}.{pattern}")
    if all(pattern.startswith(NOT) for pattern in patterns):
        raise ConfigError(f"{where}: only leaves out; name what is in the family too")
    return patterns


def _check_weight(weight: Any, key: str) -> None:
    is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not is_number or not 0 <= weight <= schema.LARGEST:
        raise ConfigError(f"{key}: must be a number from 0 up, found {weight!r}")


def _is_olmix(given: Mapping[str, Any]) -> bool:
    part = given.get("eval")
    return isinstance(part, Mapping) and isinstance(part.get("tasks"), Mapping)


def _of_olmix(given: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The families of an Olmix configuration, weighted by its `filtering.obj_weights`."""
    filtering = given.get("filtering")
    weights = filtering.get("obj_weights") if isinstance(filtering, Mapping) else None
    weights = weights if isinstance(weights, Mapping) else {}
    found = {}
    for name, tasks in given["eval"]["tasks"].items():
        key = f"{source}: filtering.obj_weights.{name}"
        # In-loop tasks map an id to the metric's name.
        names = list(tasks.values()) if isinstance(tasks, Mapping) else tasks
        found[name] = {"tasks": names, "weight": _quotient(weights.get(name, 1.0), key)}
    return found


def _quotient(value: Any, key: str) -> float:
    """A number, or two with a stroke between: 7/52. Raises `ConfigError`."""
    above, stroke, below = str(value).partition("/")
    try:
        return float(above) / float(below) if stroke else float(above)
    except (ValueError, ZeroDivisionError):
        raise ConfigError(f"{key}: expected a number such as 2 or 7/52, found {value!r}") from None
