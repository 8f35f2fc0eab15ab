"""In which unit losses are: a table knows its own, and every number that is shown carries it.

Nats a token and bits a byte can't be turned into one another without the tokenizer, so that a
table holds one of them; bits a token become nats where a table is read.
"""

from __future__ import annotations

import numpy as np

from olmo_mixlaw.errors import ConfigError

NATS, BITS_PER_BYTE, UNSTATED = "nats", "bits_per_byte", "unstated"
# Of benchmark tasks: bits a byte of the answer, or of the whole of a short one.
BITS = "bits"
# What a user may say -> the unit that a table then has, and what its losses are multiplied by.
ACCEPTED: dict[str, tuple[str, float]] = {
    "nats": (NATS, 1.0),
    "bits": (NATS, float(np.log(2))),
    "bits_per_byte": (BITS_PER_BYTE, 1.0),
}
LABELS = {NATS: "nats", BITS_PER_BYTE: "bits a byte", UNSTATED: "(unit not stated)"}
# As a factor of a parameter's unit.
SYMBOLS = {NATS: "nats", BITS_PER_BYTE: "bits/byte", UNSTATED: "loss"}


def accepted_unit(given: str, where: str) -> tuple[str, float]:
    """The unit of a table, and the factor that brings losses to it. Raises `ConfigError`."""
    if given not in ACCEPTED:
        raise ConfigError(f"{where}: {given!r} is none of {', '.join(ACCEPTED)}")
    return ACCEPTED[given]


def label(unit: str) -> str:
    """A unit as it stands behind a number."""
    return LABELS.get(unit, unit)


def in_unit(text: str, unit: str) -> str:
    """A parameter's unit, written with nats, in that of a table: `1/nats` as `1/(bits/byte)`."""
    symbol = SYMBOLS.get(unit, unit)
    return (
        symbol if text == NATS else text.replace(NATS, f"({symbol})" if "/" in symbol else symbol)
    )
