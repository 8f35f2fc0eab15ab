"""Read a YAML file into a dataclass, or say in one line what is wrong with it.

The dataclass is the schema: an unknown key, a missing one or a value of the wrong type is
refused, naming file (or override), key and what is accepted, before anything runs.
"""

from __future__ import annotations

import dataclasses
import math
import re
import shlex
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from olmo_mixlaw.errors import ConfigError, unknown_name

T = TypeVar("T")

MOST_BYTES = 16 * 2**20  # of a file
MOST_VALUES = 1_000_000  # in a file, an alias counting as all that it stands for
LARGEST = 1e30  # a number, beyond which only slips are; infinity is one that is meant
LARGEST_INT = 2**63 - 1
DEEPEST = 100  # mappings and lists inside each other

# Counts as people write them; a unit is a power of ten, never of two.
UNITS = {"k": 3, "m": 6, "b": 9, "t": 12}
_COUNT = re.compile(r"([+-]?[0-9_]*\.?[0-9_]*(?:e[+-]?[0-9]+)?)\s*([kmbt]?)", re.IGNORECASE)
_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """Plain YAML whose keys stand once each: PyYAML keeps the last of two without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} stands there twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def load(path: str | Path, cls: type[T], overrides: Iterable[str] = ()) -> T:
    """Read the YAML file at `path` as a `cls`; `overrides` are `key.sub=value` strings.

    Raises `ConfigError` for a missing or malformed file and for any key or value that the
    dataclass doesn't accept.
    """
    values = read_mapping(path)
    return from_mapping(values, cls, where=str(path), overrides=overrides)


def read_mapping(path: str | Path) -> dict[str, Any]:
    """The mapping at the top level of a YAML file. Raises `ConfigError`."""
    path = Path(path)
    try:
        if path.is_dir():
            raise ConfigError(f"{path}: a folder; give a YAML file")
        if not path.is_file():
            raise ConfigError(f"{path}: no such file")
        if path.stat().st_size > MOST_BYTES:
            raise ConfigError(f"{path}: above {MOST_BYTES >> 20} MiB, which no such file needs")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error.reason})") from None
    except OSError as error:
        raise ConfigError(f"{path}: can't be read ({error.strerror})") from None
    values = parse(text, str(path))
    if values is None:
        raise ConfigError(f"{path}: the file is empty")
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of keys, found a {type(values).__name__}")
    return values


def parse(text: str, where: str) -> Any:
    """The value that a YAML text stands for. Raises `ConfigError`, also for one that explodes."""
    try:
        value = yaml.load(text, _Loader)  # a safe loader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{where}{line}: not valid YAML ({problem})") from None
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        # PyYAML's own constructors: 2024-13-45, or a number of thousands of digits.
        raise ConfigError(f"{where}: not valid YAML ({_first_line(error)})") from None
    _check_extent(value, where)
    return value


def parse_count(text: str, where: str) -> float:
    """12M, 1.2B, 590k, 2e9, 200_000 or a plain number. Raises `ConfigError`."""
    value = _number(text)
    if value is None:
        raise ConfigError(f"{where}: {text!r} is not a count; write 590k, 12M or 1.2B")
    if not 0 < value < math.inf:
        raise ConfigError(f"{where}: {text!r} must be above 0")
    return value


def from_mapping(
    values: Mapping[str, Any], cls: type[T], where: str, overrides: Iterable[str] = ()
) -> T:
    """`values` as a `cls`; `where` (the file) goes into every error.

    An override is checked by itself, so that its mistakes are not said of the file.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    laid = [(where, fitted(dict(values), cls, where, ""))]
    for item in overrides:
        place = f"override {item!r}"
        laid.append((place, fitted(_nested(item, place), cls, place, "")))
    place = where
    try:
        config = OmegaConf.structured(cls)
        for place, plain in laid:  # noqa: B007 (the error below names the last one)
            config = OmegaConf.merge(config, _by_number(config, plain))
        place = where
        result = OmegaConf.to_object(config)
    except MissingMandatoryValue as error:
        raise ConfigError(f"{where}: {error.full_key}: this key is required") from None
    except (OmegaConfBaseException, RecursionError, ValueError, TypeError) as error:
        key = getattr(error, "full_key", None)
        raise ConfigError(f"{place}: {f'{key}: ' if key else ''}{_first_line(error)}") from None
    assert isinstance(result, cls)
    return result


def _nested(override: str, place: str) -> dict[str, Any]:
    """`a.b=3` or `--a.b=3` as {a: {b: 3}}. Raises `ConfigError`."""
    key, sign, text = override.removeprefix("--").partition("=")
    parts = key.strip().split(".")
    if not sign or not all(parts):
        raise ConfigError(f"{place}: overrides are written KEY=VALUE or KEY.SUB=VALUE")
    try:
        nested = {parts.pop(): parse(text, place) if text.strip() else ""}
    except ConfigError as error:
        raise _misspelt(key.strip(), " ".join(text.split()), place, error) from None
    while parts:
        nested = {parts.pop(): nested}
    return nested


def _misspelt(key: str, text: str, place: str, error: ConfigError) -> ConfigError:
    """The error for an override whose value is no YAML, with what was probably meant."""
    problem, whole = str(error).partition("not valid YAML (")[2][:-1], _closed(text)
    if not problem:
        return error
    if whole != text:
        problem = "its brackets don't match"
    else:
        whole = "[A,B]" if set(text) & set("[]{}") else '"' + text.strip("\"'") + '"'
    return ConfigError(f"{place}: {key}: {problem}; write {shlex.quote(f'{key}={whole}')}")


def _closed(text: str) -> str:
    """The text with the brackets that it lacks, and without those that close nothing."""
    closers, missing, whole = {"[": "]", "{": "}"}, "", ""
    for sign in text:
        inner, found, rest = missing.partition(sign) if sign in "]}" else ("", sign, missing)
        if found:
            whole, missing = f"{whole}{inner}{sign}", closers.get(sign, "") + rest
    # A shell cuts an unquoted `[a, b]` after its comma.
    return whole + (" ..." if whole.endswith(",") else "") + missing


def _by_number(config: Any, values: Any) -> Any:
    """`values` with {"0": ...} laid over the list that stands at that place in `config`.

    omegaconf merges lists whole, so one item is changed in a copy of its list.
    """
    from omegaconf import DictConfig, ListConfig, OmegaConf

    if not isinstance(values, dict):
        return values
    if isinstance(config, ListConfig) and values:
        items = OmegaConf.to_container(config, resolve=False)
        assert isinstance(items, list)
        for key, value in values.items():
            if not 0 <= int(key) < len(items):
                raise ValueError(f"there is no item {key}: the list has {len(items)}")
            items[int(key)] = _laid_over(items[int(key)], value)
        return items
    if isinstance(config, DictConfig):
        there = {
            key
            for key in values
            if key in config
            and not OmegaConf.is_missing(config, key)
            and not OmegaConf.is_interpolation(config, key)
        }
        return {k: _by_number(config[k] if k in there else None, v) for k, v in values.items()}
    return values


def _laid_over(below: Any, above: Any) -> Any:
    if isinstance(below, dict) and isinstance(above, dict):
        return {**below, **{k: _laid_over(below.get(k), v) for k, v in above.items()}}
    return above


def _check_extent(value: Any, where: str) -> None:
    """Refuse what aliases make larger or deeper than a file of ours can be."""
    found, waiting = 0, [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        found += 1
        if depth > DEEPEST:
            raise ConfigError(f"{where}: nested more than {DEEPEST} deep, or an alias in itself")
        if found > MOST_VALUES:
            raise ConfigError(f"{where}: its aliases stand for more than {MOST_VALUES:,} values")
        inner = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        waiting += [(part, depth + 1) for part in inner]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def fitted(value: Any, annotation: Any, where: str, key: str) -> Any:
    """`value` as `annotation` wants it, where it is plain what is meant; else `ConfigError`.

    One value stands for a list of one and a list of one for its value, a count may have a unit
    (12M), and a number may stand where a name is expected. What omegaconf resolves (`${...}`)
    and types that are not of ours are left to it.
    """
    annotation, optional = _strip_optional(annotation)
    if isinstance(value, str) and "${" in value:
        return value
    if value is None:
        if optional or annotation is Any:
            return None
        raise ConfigError(f"{where}: {key}: is empty; {_expected(annotation)}")
    if value == "???":  # which omegaconf takes for a key that isn't there
        raise ConfigError(f"{where}: {key}: is still to be filled in; {_expected(annotation)}")
    if annotation is Any:
        return value
    if dataclasses.is_dataclass(annotation):
        return _fitted_fields(value, annotation, where, key)
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is dict:
        if not isinstance(value, dict):
            raise _wrong(value, annotation, where, key)
        named = {_name(k, where, key): v for k, v in value.items()}
        return {k: fitted(v, inner[1], where, _join(key, k)) for k, v in named.items()}
    if origin in (list, tuple):
        return _fitted_items(value, annotation, where, key)
    if isinstance(value, list) and len(value) == 1 and annotation in (str, int, float, bool):
        value = value[0]
    if annotation in (str, int, float, bool):
        return _fitted_scalar(value, annotation, where, key)
    return value


def _fitted_fields(value: Any, annotation: Any, where: str, key: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(value, annotation, where, key)
    hints = typing.get_type_hints(annotation)
    known = [field.name for field in dataclasses.fields(annotation) if field.init]
    found = {}
    for name, item in value.items():
        full = _join(key, name)
        if name not in known:
            raise unknown_name("key", full, [_join(key, k) for k in known], where)
        found[name] = fitted(item, hints[name], where, full)
    return found


def _fitted_items(value: Any, annotation: Any, where: str, key: str) -> Any:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if isinstance(value, dict) and value and all(str(k).isdigit() for k in value):
        # `layers.0.depth=3`: an override of one item.
        return {str(k): fitted(v, inner[0], where, _join(key, k)) for k, v in value.items()}
    if isinstance(value, dict) and not dataclasses.is_dataclass(_strip_optional(inner[0])[0]):
        raise _wrong(value, annotation, where, key)
    if several := _several(value, inner[0], where):
        spelt = f"{key}=[{several}]" if where.startswith("override") else f"[{several}]"
        raise ConfigError(f"{where}: {key}: {value!r} is one value; write several as {spelt}")
    items = list(value) if isinstance(value, list | tuple) else [value]
    wanted = [inner[0]] * len(items)
    if origin is tuple and inner[-1] is not Ellipsis:
        if len(items) != len(inner):
            raise _wrong(value, annotation, where, key)
        wanted = list(inner)
    return [
        fitted(item, kind, where, f"{key}.{i}" if isinstance(item, dict) else f"{key}[{i}]")
        for i, (item, kind) in enumerate(zip(items, wanted, strict=True))
    ]


def _several(value: Any, kind: Any, where: str) -> str:
    """The names or numbers in a text that was given for a list; none where it may be one name."""
    if not isinstance(value, str) or not (kind in (int, float) or where.startswith("override")):
        return ""
    parts = re.split(r"[,;\s]+" if kind in (int, float) else r",\s*", value.strip("()[]{} "))
    plain = all(re.fullmatch(r"[\w.+-]+", part) for part in parts)
    return ",".join(parts) if plain and len(parts) > 1 else ""


def _fitted_scalar(value: Any, annotation: type, where: str, key: str) -> Any:
    if annotation is str:
        if isinstance(value, bool):
            raise ConfigError(f"{where}: {key}: {value}: a name like yes, no or on needs quotes")
        if isinstance(value, str | int | float):
            return str(value)
    elif annotation is bool:
        if isinstance(value, bool):
            return value
        if str(value).lower() in ("true", "false"):
            return str(value).lower() == "true"
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        number = _number(value)
        if number is not None and (abs(number) <= LARGEST or math.isinf(number)):
            if annotation is float:
                return number
            if number.is_integer() and abs(number) <= LARGEST_INT:
                return int(value) if isinstance(value, int) else int(number)
    raise _wrong(value, annotation, where, key)


def _number(value: str | int | float) -> float | None:
    """A number, or a text that people write for one; None for anything else."""
    try:
        if not isinstance(value, str):
            return float(value)
        match = _COUNT.fullmatch(value.strip())
        if match and match[2]:
            # One rounding: 1.1M is 1100000, not 1100000.0000000002.
            return float(f"{match[1]}e{UNITS[match[2].lower()]}")
        return float(value)
    except (ValueError, OverflowError):
        return None


def _wrong(value: Any, annotation: Any, where: str, key: str) -> ConfigError:
    shown = " ".join(repr(value).split())
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    return ConfigError(f"{where}: {key}: Value {shown}: {_expected(annotation)}")


def _expected(annotation: Any) -> str:
    return f"expected {_in_words(annotation)}"


def _in_words(annotation: Any) -> str:
    annotation = _strip_optional(annotation)[0]
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    if annotation in words:
        return words[annotation]
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is list:
        return f"a list, each item {_in_words(inner[0])}"
    if origin is tuple and inner[-1] is not Ellipsis:
        return f"a list of {len(inner)}, each {_in_words(inner[0])}"
    if origin is dict:
        return f"a mapping, each value {_in_words(inner[1])}"
    if dataclasses.is_dataclass(annotation):
        names = [field.name for field in dataclasses.fields(annotation) if field.init]
        some = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        return f"a mapping with the keys {some}"
    return "a value"


def _name(key: Any, where: str, prefix: str) -> str:
    """A key of a mapping as text; YAML reads an unquoted `no` as false and `2024` as a number."""
    if isinstance(key, str):
        return key
    if isinstance(key, int | float) and not isinstance(key, bool):
        return str(key)
    place = f"{where}: {prefix}: " if prefix else f"{where}: "
    raise ConfigError(f"{place}the key {key!r} is no text; put it in quotes")


def _join(prefix: str, name: Any) -> str:
    return f"{prefix}.{name}" if prefix else str(name)


def _strip_optional(annotation: Any) -> tuple[Any, bool]:
    """The annotation without None, and whether None was in it; other unions count as anything."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        parts = typing.get_args(annotation)
        inner = [a for a in parts if a is not type(None)]
        return (inner[0] if len(inner) == 1 else Any), len(inner) < len(parts)
    return annotation, annotation is Any
