"""A schedule as a function: ratios by source label at a fraction of the run.

What it takes besides `fraction` and `labels` are its options, required without a default. It is
read at 256 places and joined by lines; what it returns is checked, so it needs no checks itself.
"""

from __future__ import annotations

import math


def swing(
    fraction: float, labels: list[str], source: str, height: float = 0.1, turns: int = 3
) -> dict[str, float]:
    """`source` swings `turns` times around a half, by `height`; the others share the rest."""
    share = 0.5 + height * math.sin(2 * math.pi * turns * fraction)
    others = [label for label in labels if label != source]
    return {source: share, **{label: (1 - share) / len(others) for label in others}}
