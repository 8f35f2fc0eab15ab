"""The shapes of OLMo-core's own models, by the name of the factory that makes each.

They are the rungs of the shipped ladders below, so that a study of them is planned, counted and
checked where OLMo-core isn't installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from olmo_mixlaw import schema
from olmo_mixlaw.errors import unknown_name
from olmo_mixlaw.shipped import shipped_folder

LADDERS = ("olmo-core", "olmo-core-3", "olmo-core-moe")


def factory_shape(name: str, where: str = "") -> dict[str, Any]:
    """The keys of a rung with the shape that the factory `name` makes.

    Raises `UnknownNameError`, with the closest name, for one that no shipped ladder knows.
    """
    known = _shapes()
    if name not in known:
        raise unknown_name("factory of OLMo-core", name, known, where)
    return dict(known[name])


@cache
def _shapes() -> Mapping[str, Mapping[str, Any]]:
    shapes = {}
    for ladder in LADDERS:
        file = schema.read_mapping(shipped_folder("configs/ladders") / f"{ladder}.yaml")
        for own in file["rungs"].values():
            shapes[own["factory"]] = {**file["defaults"], **own}
    return shapes
