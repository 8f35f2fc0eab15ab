"""`mixlaw:<dataset>?key=value&...`: a dataset named in one string, anywhere a path may stand.

Keys are the arguments of the dataset's constructor; values become what its annotations say.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, unquote

from olmo_mixlaw.datasets.base import Dataset
from olmo_mixlaw.errors import DataError, ExtensionError, MixlawError, unknown_name
from olmo_mixlaw.registry import DATASETS

SCHEME = "mixlaw:"


def is_uri(text: str) -> bool:
    """Whether `text` names a dataset rather than a file."""
    return text.startswith(SCHEME)


def dataset_name(uri: str) -> str:
    """`biography` for `mixlaw:biography?...`; empty for a path."""
    return uri.removeprefix(SCHEME).partition("?")[0] if is_uri(uri) else ""


def parse(uri: str, where: str = "") -> tuple[str, dict[str, str]]:
    """The name and the parameters of a URI. Raises `DataError` for a malformed one."""
    place = f"{where}: " if where else ""
    if not is_uri(uri):
        raise DataError(f"{place}{uri!r}: a dataset is written {SCHEME}<name>?key=value&...")
    query = uri.partition("?")[2]
    try:
        # A plus sign stands for itself here (c++.txt, 1e+6), not for a space as in a web form.
        pairs = parse_qsl(
            query.replace("+", "%2B"), keep_blank_values=True, strict_parsing=bool(query)
        )
    except ValueError:
        raise DataError(f"{place}{uri!r}: parameters are written key=value, joined by &") from None
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = next(key for key in values if [k for k, _ in pairs].count(key) > 1)
        raise DataError(f"{place}{uri!r}: {twice} is given twice")
    return dataset_name(uri), values


def take(uri: str, key: str, where: str = "") -> tuple[str, str | None]:
    """The URI without its parameter `key`, letter by letter, and the value that it had.

    The value is None where `key` isn't given. Raises `DataError` for a malformed URI.
    """
    value = parse(uri, where)[1].get(key)
    start, _, query = uri.partition("?")
    rest = "&".join(pair for pair in query.split("&") if unquote(pair.partition("=")[0]) != key)
    return (f"{start}?{rest}" if rest else start), value


def open_dataset(uri: str, where: str = "") -> Dataset:
    """The dataset that a URI names; `where` (file and key) goes into every error.

    Raises `UnknownNameError` for an unknown dataset or parameter and `DataError` for a value
    that is not accepted.
    """
    name, values = parse(uri, where)
    factory = DATASETS.get(name, where)
    accepted = _parameters(factory)
    place = f"{where}: {uri}" if where else uri
    for key in values:
        if key not in accepted:
            raise unknown_name("parameter", key, accepted, place)
    for key, parameter in accepted.items():
        if parameter.default is inspect.Parameter.empty and key not in values:
            raise DataError(f"{place}: {key} is required")
    converted = {
        key: convert(value, accepted[key].annotation, f"{place}: {key}")
        for key, value in values.items()
    }
    try:
        found = factory(**converted)
    except MixlawError as error:
        raise type(error)(f"{place}: {error}") from None
    if not isinstance(found, Dataset):
        raise ExtensionError(f"{place}: dataset {name!r} makes {found!r}, which is no Dataset")
    return found


@lru_cache(maxsize=64)
def _parameters(factory: Callable[..., Dataset]) -> dict[str, inspect.Parameter]:
    target = factory.__init__ if inspect.isclass(factory) else factory
    hints = typing.get_type_hints(target)
    signature = inspect.signature(factory)
    return {
        name: parameter.replace(annotation=hints.get(name, str))
        for name, parameter in signature.parameters.items()
    }


def convert(text: str, annotation: Any, where: str) -> Any:
    """`text` as the type that `annotation` says (int, float, bool, str, or one of them or None).

    Whole numbers may be written 320000, 320_000 or 3.2e5. Raises `DataError`.
    """
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        inner = [a for a in typing.get_args(annotation) if a is not type(None)]
        if text.lower() in ("none", ""):
            return None
        annotation = inner[0]
    if typing.get_origin(annotation) is typing.Literal:
        if text not in typing.get_args(annotation):
            accepted = ", ".join(map(str, typing.get_args(annotation)))
            raise DataError(f"{where}: {text!r} is none of {accepted}")
        return text
    if annotation is bool:
        if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
            raise DataError(f"{where}: {text!r} is neither true nor false")
        return text.lower() in ("true", "1", "yes")
    if annotation in (int, float):
        try:
            number = float(text)
        except ValueError:
            raise DataError(f"{where}: {text!r} is not a number") from None
        if annotation is float:
            return number
        if not number.is_integer():
            raise DataError(f"{where}: {text!r} is not a whole number")
        return int(text) if text.lstrip("+-").replace("_", "").isdigit() else int(number)
    return text
