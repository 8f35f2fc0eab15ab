"""Ratios as they are written: one non-negative number a source, summing to 1.

Every schedule checks what it is given here, whether it comes from a file or from a function.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real

import numpy as np

from olmo_mixlaw.errors import ConfigError, unknown_name

SUM_TOLERANCE = 1e-6


def check_ratios(ratios: Mapping[str, float], labels: Sequence[str], where: str) -> np.ndarray:
    """`ratios` in the order of `labels` (K,), summing to 1; a label left out gets 0.

    Raises `UnknownNameError` for a label that no source has and `ConfigError` for a value that
    is negative or no number, or a sum that is off by more than 1e-6.
    """
    if not isinstance(ratios, Mapping):
        raise ConfigError(f"{where}: {ratios!r} is no mapping of sources to ratios")
    if not ratios:
        raise ConfigError(f"{where}: is empty; give a ratio to: {', '.join(labels)}")
    for label, ratio in ratios.items():
        if label not in labels:
            raise unknown_name("source", label, labels, where)
        if not (isinstance(ratio, Real) and math.isfinite(ratio)):
            raise ConfigError(f"{where}.{label}: {ratio!r} is not a number")
        if ratio < 0:
            raise ConfigError(f"{where}.{label}: {ratio:g} is negative")
    total = math.fsum(ratios.values())
    if abs(total - 1) > SUM_TOLERANCE:
        raise ConfigError(f"{where}: the ratios sum to {total:.9g}, not 1")
    return np.array([ratios.get(label, 0.0) / total for label in labels])
